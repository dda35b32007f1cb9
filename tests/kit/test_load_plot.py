"""The picture of a timeline, as a viewer reads it."""

from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from channels_kit.load.plot import CODES, LEAST_BAR, LEFT, RIGHT, SVG, WORKERS, Timeline, draw


def second(
    sockets: dict[str, int], again: int = 0, closes: dict[str, int] | None = None
) -> dict[str, Any]:
    return {"sockets": sockets, "attempts_again": again, "closes": closes or {}}


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


def drawn(**changes: Any) -> Element:
    return ElementTree.fromstring(draw(Timeline.of({**CONTENT, **changes})))


def each(root: Element, tag: str) -> list[Element]:
    return list(root.iter(f"{{{SVG}}}{tag}"))


def texts(root: Element) -> list[str | None]:
    return [text.text for text in each(root, "text")]


def titled(root: Element, tag: str) -> dict[str | None, Element]:
    """Return the elements that have a title, by it."""
    return {
        element.findtext(f"{{{SVG}}}title"): element
        for element in each(root, tag)
        if element.find(f"{{{SVG}}}title") is not None
    }


def axis(root: Element, number: int) -> float:
    """Return where a number stands at the upper axis."""
    return next(
        float(text.get("y", "")) - 4
        for text in each(root, "text")
        if text.get("text-anchor") == "end" and text.text == str(number)
    )


def corners(root: Element, worker: str) -> list[tuple[int, int]]:
    """Return the corners of a worker's area: seconds and sockets, by what the axes say."""
    none, ten = axis(root, 0), axis(root, 10)
    found = []
    for corner in titled(root, "polygon")[worker].get("points", "").split():
        x, y = map(float, corner.split(","))
        second, number = 4 * (x - LEFT) / (RIGHT - LEFT), 10 * (none - y) / (none - ten)
        assert second == pytest.approx(round(second), abs=0.01)
        assert number == pytest.approx(round(number), abs=0.01)
        found.append((round(second), round(number)))
    return found


def test_each_worker_stands_on_the_one_before() -> None:
    root = drawn()
    assert corners(root, "app2:1") == [
        *((0, 0), (1, 4), (2, 4), (3, 1), (4, 0)),
        *((4, 0), (3, 0), (2, 0), (1, 0), (0, 0)),
    ]
    assert corners(root, "app10:1") == [
        *((0, 0), (1, 4), (2, 10), (3, 7), (4, 10)),
        *((4, 0), (3, 1), (2, 4), (1, 4), (0, 0)),
    ]
    areas = titled(root, "polygon")
    assert [areas[name].get("fill") for name in ("app2:1", "app10:1")] == list(WORKERS[:2])


def test_the_moments_of_closes_are_seen_in_both_parts() -> None:
    rectangles = titled(drawn(), "rect")
    shadows = [rectangles["3 closed in second 2"], rectangles["1 closed in second 3"]]
    width = (RIGHT - LEFT) / 4
    assert [shadow.get("x") for shadow in shadows] == [
        f"{LEFT + 2 * width:g}",
        f"{LEFT + 3 * width:g}",
    ]
    assert {shadow.get("width") for shadow in shadows} == {f"{width:g}"}
    often = rectangles["2 closed with 1012 in second 2"]
    rare = rectangles["1 closed with 1006 in second 2"]
    assert (often.get("fill"), rare.get("fill")) == (CODES[1012], CODES[1006])
    heights = [float(bar.get("height", "")) for bar in (often, rare)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.02)
    # The rare one stands upon the other.
    bottom = float(rare.get("y", "")) + heights[1]
    assert bottom == pytest.approx(float(often.get("y", "")), abs=0.02)


def test_it_says_what_it_shows() -> None:
    root = drawn()
    assert (root.get("role"), root.findtext(f"{{{SVG}}}title")) == ("img", "Open sockets by worker")
    assert root.findtext(f"{{{SVG}}}desc") == (
        "10 clients, 4 s from 2026-01-01 00:00:00 UTC, run 1f2e3d4c; 4 connections ended."
    )
    assert {
        *("Open sockets by worker", "app2:1", "app10:1", "connections ended"),
        *("closed with 1012", "closed with 1006", "attempts to come back"),
        *("open sockets", "per second", "seconds since the first client began to connect"),
    } <= {*texts(root)}
    # It is readable on any page, and runs nothing.
    paper = each(root, "rect")[0]
    assert (paper.get("width"), paper.get("height")) == ("100%", "100%")
    assert not each(root, "script")


def test_attempts_are_a_line_of_steps() -> None:
    root = drawn()
    [line] = [path for path in each(root, "path") if path.get("fill") == "none"]
    _, *steps = line.get("d", "").split("V")
    heights = [float(step.partition("H")[0]) for step in steps]
    assert heights[0] == heights[1]
    assert heights[0] - heights[3] == pytest.approx(1.5 * (heights[0] - heights[2]), abs=0.1)


def test_names_are_no_markup_and_legends_end_where_the_picture_does() -> None:
    sockets = {f"<app{number}> & co:8001": 1 for number in range(1, 31)}
    root = drawn(seconds=[second(sockets)])
    for text in each(root, "text"):
        if text.text is not None and text.text in sockets:
            assert float(text.get("x", "")) + 7 * len(text.text) <= RIGHT
    assert sockets.keys() <= {*texts(root)}
    assert axis(root, 30) < axis(root, 0)


@pytest.mark.parametrize("seconds", [1, 7, 59, 60, 61, 3600])
def test_a_time_of_any_length_has_some_names(seconds: int) -> None:
    root = drawn(seconds=[second({"app1": 10}, closes={"1012": 1})] * seconds)
    names = [
        text.text
        for text in each(root, "text")
        if text.get("text-anchor") == "middle" and (text.text or "").isdigit()
    ]
    assert 2 <= len(names) <= 13
    bars = [bar for name, bar in titled(root, "rect").items() if " with " in str(name)]
    assert all(float(bar.get("width", "")) >= LEAST_BAR for bar in bars)


def test_a_conversation_that_nobody_came_to_is_drawn_all_the_same() -> None:
    root = drawn(clients=0, seconds=[second({})])
    assert not each(root, "polygon")
    assert Timeline.of(CONTENT).began_at == datetime(2026, 1, 1, tzinfo=UTC)
