"""A timeline as a picture, drawn by matplotlib.

Above, the open sockets of each worker, one upon the other, with a shade on the seconds in which
connections ended; below, what ended and what reconnected each second. The picture brings its own
background, and the same timeline gives the same file.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle
from math import ceil, nan
from pathlib import Path
from typing import Any

from channels_kit.probe.address import UsageError

try:
    from matplotlib import rc_context
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    raise UsageError(f"plot needs {error.name}: pip install 'channels-kit[load]'") from error

FORMATS = (".svg", ".png")

WIDTH, HEIGHT, LEGEND_LINE = 9.6, 5.4, 0.21
"""Inches of the picture without legends, and of each of their lines."""

LEGEND_WIDTH, MARK = 108, 4
"""Characters in a line of a legend, and what a mark takes of them."""

PAPER, INK, FAINT, GRID = "#ffffff", "#1f2328", "#59636e", "#d8dee4"
ATTEMPTS = "#0b7a75"
SHADE = 0.16

WORKERS = (
    *("#4477aa", "#e6a532", "#3f9f66", "#b55d9c", "#7cc4e0"),
    *("#8c6d4f", "#a4b83c", "#7a6fc2", "#e58f7b", "#8a96a3", "#1f7a8c", "#d98fb9"),
)
"""One after the other, and then again."""

CODES = {1012: "#3b4754", 1006: "#cf222e", 1011: "#8250df", 1001: "#bf6a02"}
OTHER_CODES = ("#bf3989", "#1b7f37", "#0550ae", "#6e5600")

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    # The identifiers in an SVG are random without it.
    "svg.hashsalt": "channels-kit",
    # A name with dollar signs is no formula.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Timeline:
    """What `run --timeline` wrote.

    Attributes:
        run: the identifier of the run.
        began_at: when it began.
        clients: how many there were.
        sockets: how many each worker had at the end of each second, by worker.
        reconnect_attempts: the handshakes after a loss, of each second.
        closes: the connections that ended in each second, by close code.
    """

    run: str
    began_at: datetime
    clients: int
    sockets: Mapping[str, Sequence[int]]
    reconnect_attempts: Sequence[int]
    closes: Mapping[int, Sequence[int]]

    @property
    def length(self) -> int:
        """How many seconds it has."""
        return len(self.reconnect_attempts)

    @property
    def closed(self) -> list[int]:
        """How many connections ended in each second."""
        return [sum(counts) for counts in zip(*self.closes.values(), strict=True)]

    @property
    def title(self) -> str:
        """What the picture shows, in one line."""
        began = self.began_at.strftime("%Y-%m-%d %H:%M:%S %Z")
        return (
            f"Open sockets by worker: {self.clients} clients, {self.length} s from {began},"
            f" run {self.run}"
        )

    @classmethod
    def read(cls, file: Path) -> "Timeline":
        """Read a file that `run --timeline` wrote.

        Raises:
            UsageError: it cannot be read, or has no timeline.
        """
        try:
            content = json.loads(file.read_text())
            timeline = cls.of(content)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{file} was not written by run --timeline") from error
        if not timeline.length:
            raise UsageError(f"{file} contains no data: the run ended before its clients connected")
        return timeline

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Timeline":
        """Return the timeline of a file's content."""
        seconds = content["seconds"]
        workers = {worker for second in seconds for worker in second["sockets"]}
        codes = Counter[str]()
        for second in seconds:
            codes.update(second["closes"])
        return cls(
            run=content["run"],
            began_at=datetime.fromisoformat(content["began_at"]),
            clients=content["clients"],
            sockets={
                worker: [second["sockets"].get(worker, 0) for second in seconds]
                for worker in sorted(workers, key=_natural)
            },
            reconnect_attempts=[second["reconnect_attempts"] for second in seconds],
            closes={
                int(code): [second["closes"].get(code, 0) for second in seconds]
                # The rare ones last, upon the others: they must be seen.
                for code, _ in codes.most_common()
            },
        )


def save(timeline: Timeline, file: Path) -> None:
    """Draw a timeline into a file, in the format of its suffix.

    Raises:
        OSError: the file cannot be written.
    """
    metadata = {"Title": timeline.title}
    if file.suffix == ".svg":
        # The time of drawing, without this.
        metadata["Date"] = None  # type: ignore[assignment]
    with rc_context(STYLE):  # type: ignore[arg-type]
        draw(timeline).savefig(file, dpi=150, metadata=metadata)


def draw(timeline: Timeline) -> Figure:
    """Return the picture of a timeline."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=[5, 2])
        figure.suptitle(timeline.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        lines = 0
        for part, label, artists in (
            (above, "open sockets", _draw_sockets(above, timeline)),
            (below, "events per second", _draw_events(below, timeline)),
        ):
            part.set_ylabel(label)
            part.set_xlim(0, timeline.length)
            part.set_ylim(bottom=0)
            part.yaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
            lines += _legend(part, artists)
        figure.set_figheight(HEIGHT + LEGEND_LINE * lines)
        below.set_xlabel("seconds since the first client began to connect")
        below.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 5, 10]))
    return figure


def _draw_sockets(part: Axes, timeline: Timeline) -> dict[str, Artist]:
    """Draw how many sockets each worker has, one worker upon the other; return what is named."""
    artists: dict[str, Artist] = {}
    # Before the first second there was none.
    seconds = range(timeline.length + 1)
    floor = [0] * (timeline.length + 1)
    for (worker, counts), colour in zip(timeline.sockets.items(), cycle(WORKERS), strict=False):
        ceiling = [below + count for below, count in zip(floor, [0, *counts], strict=True)]
        artists[worker] = part.fill_between(seconds, floor, ceiling, color=colour, linewidth=0)
        floor = ceiling
    part.set_ylim(top=max(1, timeline.clients, *floor) * 1.04)
    artists["connections ended"] = part.broken_barh(
        _joined((second, 1) for second, count in enumerate(timeline.closed) if count),
        (0, 1),
        transform=part.get_xaxis_transform(),
        color=INK,
        alpha=SHADE,
        linewidth=0,
    )
    return artists


def _draw_events(part: Axes, timeline: Timeline) -> dict[str, Artist]:
    """Draw what ended and what reconnected in each second; return what is named."""
    artists: dict[str, Artist] = {}
    edges = range(timeline.length + 1)
    floor = [0] * timeline.length
    for code, colour in _code_colours(timeline.closes).items():
        counts = timeline.closes[code]
        ceiling = [below + count for below, count in zip(floor, counts, strict=True)]
        artists[f"closed with {code}"] = part.stairs(
            [top if count else nan for top, count in zip(ceiling, counts, strict=True)],
            edges,
            baseline=floor,
            fill=True,
            facecolor=colour,
            # An outline keeps a bar visible, however short a second is in the picture.
            edgecolor=colour,
            linewidth=0.75,
        )
        floor = ceiling
    artists["reconnect attempts"] = part.stairs(
        timeline.reconnect_attempts,
        edges,
        baseline=None,
        color=ATTEMPTS,
        linewidth=1.25,
        # Below the bars, of which the rare ones are small.
        zorder=0.9,
    )
    part.set_ylim(top=max(1, *floor, *timeline.reconnect_attempts) * 1.08)
    return artists


def _legend(part: Axes, artists: Mapping[str, Artist]) -> int:
    """Name what the colours mean, above a part; return how many lines it takes."""
    names = list(artists)
    columns = _columns(names)
    # Matplotlib fills one column after the other; this is read line by line.
    ordered = [name for column in range(columns) for name in names[column::columns]]
    part.legend(
        [artists[name] for name in ordered],
        ordered,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        borderpad=0,
        handlelength=1.2,
        handleheight=0.8,
        handletextpad=0.5,
        columnspacing=1.2,
        labelspacing=0.3,
    )
    return ceil(len(names) / columns)


def _columns(names: Sequence[str]) -> int:
    """Return how many names go into a line of a legend."""
    for columns in range(len(names), 1, -1):
        widths = (max(map(len, names[column::columns])) + MARK for column in range(columns))
        if sum(widths) <= LEGEND_WIDTH:
            return columns
    return 1


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that touch: each is a beginning and a length."""
    joined: list[tuple[int, int]] = []
    for begin, length in spans:
        if joined and sum(joined[-1]) == begin:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((begin, length))
    return joined


def _code_colours(codes: Iterable[int]) -> dict[int, str]:
    others = cycle(OTHER_CODES)
    return {code: CODES.get(code) or next(others) for code in codes}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort by this, and app2 comes before app10."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]
