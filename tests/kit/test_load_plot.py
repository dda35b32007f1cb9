"""The picture of a timeline: what it says, not its pixels."""

from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from numpy import asarray

from channels_kit.load.plot import ATTEMPTS, CODES, PAPER, WORKERS, Timeline, draw, save


def second(
    sockets: dict[str, int], again: int = 0, closes: dict[str, int] | None = None
) -> dict[str, Any]:
    return {"sockets": sockets, "reconnect_attempts": again, "closes": closes or {}}


CONTENT = {
    "run": "1f2e3d4c",
    "began_at": "2026-01-01T00:00:00.000+00:00",
    "clients": 10,
    "seconds": [
        second({"app2:1": 4}),
        second({"app2:1": 4, "app10:1": 6}),
        second({"app2:1": 1, "app10:1": 6}, again=2, closes={"1006": 1, "1012": 2}),
        second({"app2:1": 0, "app10:1": 10}, again=3, closes={"1012": 1}),
    ],
}


def drawn(**changes: Any) -> Figure:
    return draw(Timeline.of({**CONTENT, **changes}))


def parts(figure: Figure) -> tuple[Axes, Axes]:
    above, below = figure.axes
    return above, below


def areas(part: Axes) -> list[PolyCollection]:
    return [each for each in part.collections if isinstance(each, PolyCollection)]


def steps(part: Axes) -> list[StepPatch]:
    return [each for each in part.patches if isinstance(each, StepPatch)]


def corners(area: PolyCollection) -> set[tuple[float, ...]]:
    [path] = area.get_paths()
    return {tuple(map(float, corner)) for corner in asarray(path.vertices)}


def data(step: StepPatch) -> tuple[list[float], list[float], list[float]]:
    """Return what a step patch shows: its values, their edges, and what they stand on."""
    values, edges, baseline = step.get_data()
    return list(values), list(edges), list(asarray(baseline)) if baseline is not None else []


def legend(part: Axes) -> list[str]:
    """Return the names of a legend as they are read, line by line."""
    found = part.get_legend()
    assert found is not None
    names = [text.get_text() for text in found.get_texts()]
    lines, more = divmod(len(names), found._ncols)  # type: ignore[attr-defined]
    columns = []
    for column in range(found._ncols):  # type: ignore[attr-defined]
        count = lines + (column < more)
        columns.append([names.pop(0) for _ in range(count)])
    return [column[line] for line in range(lines + 1) for column in columns if line < len(column)]


def test_each_worker_stands_on_the_one_before() -> None:
    above, _ = parts(drawn())
    first, second, _shade = areas(above)
    assert corners(first) == {(0, 0), (1, 4), (2, 4), (3, 1), (4, 0), (1, 0), (2, 0), (3, 0)}
    assert corners(second) == {(0, 0), (1, 4), (2, 10), (3, 7), (4, 10), (2, 4), (3, 1), (4, 0)}
    colours = [to_hex(tuple(asarray(area.get_facecolor())[0])) for area in (first, second)]
    assert colours == list(WORKERS[:2])


def test_the_moments_of_closes_are_seen_in_both_parts() -> None:
    above, below = parts(drawn())
    # Seconds 2 and 3, from bottom to top.
    assert corners(areas(above)[-1]) == {(2, 0), (2, 1), (4, 0), (4, 1)}
    often, rare, attempts = steps(below)
    assert [to_hex(bar.get_facecolor()) for bar in (often, rare)] == [CODES[1012], CODES[1006]]
    values, _, baseline = data(often)
    assert values == pytest.approx([nan, nan, 2, 1], nan_ok=True)
    assert baseline == [0, 0, 0, 0]
    # The rare code is upon the frequent one, and above the line of attempts.
    values, _, baseline = data(rare)
    assert values == pytest.approx([nan, nan, 3, nan], nan_ok=True)
    assert baseline == [0, 0, 2, 1]
    assert attempts.get_zorder() < min(often.get_zorder(), rare.get_zorder())


def test_attempts_are_a_line_of_steps() -> None:
    _, below = parts(drawn())
    line = steps(below)[-1]
    assert data(line) == ([0, 0, 2, 3], [0, 1, 2, 3, 4], [])
    assert to_hex(line.get_edgecolor()) == ATTEMPTS


def test_it_says_what_it_shows() -> None:
    figure = drawn()
    above, below = parts(figure)
    assert figure.get_suptitle() == (
        "Open sockets by worker: 10 clients, 4 s from 2026-01-01 00:00:00 UTC, run 1f2e3d4c"
    )
    assert legend(above) == ["app2:1", "app10:1", "connections ended"]
    assert legend(below) == ["closed with 1012", "closed with 1006", "reconnect attempts"]
    assert (above.get_ylabel(), below.get_ylabel()) == ("open sockets", "events per second")
    assert below.get_xlabel() == "seconds since the first client began to connect"
    assert above.get_xlim() == below.get_xlim() == (0, 4)
    assert above.get_ylim()[1] >= 10
    # It is readable on any page.
    assert {to_hex(figure.get_facecolor()), to_hex(above.get_facecolor())} == {PAPER}


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_timeline_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in ("first", "second")]
    for file in files:
        save(Timeline.of(CONTENT), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b"2026-01-01 00:00:00 UTC, run 1f2e3d4c" in files[0].read_bytes()


def test_names_are_no_markup_and_legends_end_where_the_picture_does(tmp_path: Path) -> None:
    names = [f"_<app{number}> & $co$_long:8001" for number in range(1, 31)]
    figure = drawn(seconds=[second(dict.fromkeys(names, 1))])
    above, _ = parts(figure)
    assert legend(above) == [*names, "connections ended"]
    file = tmp_path / "sockets.svg"
    save(Timeline.of({**CONTENT, "seconds": [second(dict.fromkeys(names, 1))]}), file)
    ElementTree.parse(file)
    figure.draw_without_rendering()
    found = above.get_legend()
    assert found is not None
    box, page = found.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0
    assert box.x1 <= page.x1
    assert above.get_window_extent().height > 200


@pytest.mark.parametrize("seconds", [1, 7, 59, 60, 61, 3600])
def test_a_time_of_any_length_has_some_names(seconds: int) -> None:
    figure = drawn(seconds=[second({"app1": 10}, closes={"1012": 1})] * seconds)
    above, below = parts(figure)
    names = [tick for tick in below.get_xticks() if 0 <= tick <= seconds]
    assert 2 <= len(names) <= 13
    assert all(tick == round(tick) for tick in names)
    # Neighbouring seconds are one shade.
    assert len(areas(above)[-1].get_paths()) == 1


def test_a_run_that_nobody_joined_is_drawn_all_the_same() -> None:
    above, below = parts(drawn(clients=0, seconds=[second({})]))
    assert legend(above) == ["connections ended"]
    assert legend(below) == ["reconnect attempts"]
    assert Timeline.of(CONTENT).began_at == datetime(2026, 1, 1, tzinfo=UTC)
