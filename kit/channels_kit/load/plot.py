"""A timeline of sockets as a picture: plain SVG, with its own background, for any page.

Above, the open sockets of each worker, one upon the other; below, what was closed and what was
tried each second. A shadow falls on the seconds in which connections ended.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from channels_kit.probe.address import UsageError

SVG = "http://www.w3.org/2000/svg"
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"

WIDTH = 960.0
LEFT, RIGHT = 68.0, 936.0
SOCKETS_HEIGHT, EVENTS_HEIGHT = 260.0, 110.0
HEADROOM, LINE, FOOT = 14.0, 20.0, 56.0
"""Pixels: how wide the picture is, from where to where its axes go, how high its two parts are,
and what is above each, from line to line, and below all."""

MARK, CHARACTER = 14.0, 7.0
"""Pixels of a legend's mark, and of a character, on the large side."""

LEAST_BAR = 2.0
"""Pixels of a bar, however short a second is."""

PAPER, INK, FAINT, GRID = "#ffffff", "#1f2328", "#59636e", "#d8dee4"
ATTEMPTS = "#0b7a75"
SHADOW, SHADE = INK, 0.16

WORKERS = (
    *("#4477aa", "#e6a532", "#3f9f66", "#b55d9c", "#7cc4e0"),
    *("#8c6d4f", "#a4b83c", "#7a6fc2", "#e58f7b", "#8a96a3", "#1f7a8c", "#d98fb9"),
)
"""One after the other, and then again."""

CODES = {1012: "#3b4754", 1006: "#cf222e", 1011: "#8250df", 1001: "#bf6a02"}
OTHER_CODES = ("#bf3989", "#1b7f37", "#0550ae", "#6e5600")


@dataclass(frozen=True)
class Timeline:
    """What `run --timeline` wrote.

    Attributes:
        run: the conversation's own name.
        began_at: when it began.
        clients: how many there were.
        sockets: how many each worker had at the end of each second, by worker.
        attempts: the handshakes of each second that were to come back after a loss.
        closes: the connections that ended in each second, by close code.
    """

    run: str
    began_at: datetime
    clients: int
    sockets: Mapping[str, Sequence[int]]
    attempts: Sequence[int]
    closes: Mapping[int, Sequence[int]]

    @property
    def length(self) -> int:
        """How many seconds it has."""
        return len(self.attempts)

    @property
    def closed(self) -> list[int]:
        """How many connections ended in each second."""
        return [sum(counts) for counts in zip(*self.closes.values(), strict=True)]

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
            raise UsageError(f"{file} is none of the files that run --timeline writes") from error
        if not timeline.length:
            raise UsageError(f"{file} has no second")
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
            attempts=[second["attempts_again"] for second in seconds],
            closes={
                int(code): [second["closes"].get(code, 0) for second in seconds]
                # The rare ones last, upon the others: they must be seen.
                for code, _ in codes.most_common()
            },
        )


@dataclass(frozen=True)
class Part:
    """A part of the picture, with its own vertical axis.

    Attributes:
        top: where it begins.
        height: how high it is.
        seconds: how many it shows.
        most: the highest number it shows.
    """

    top: float
    height: float
    seconds: int
    most: int

    @property
    def ticks(self) -> range:
        """The times that are named."""
        return range(0, self.seconds + 1, _step(self.seconds / 12))

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.top + self.height

    def x(self, second: float) -> float:
        """Return where a time is."""
        return LEFT + (RIGHT - LEFT) * second / self.seconds

    def y(self, number: float) -> float:
        """Return where a number is."""
        return self.bottom - self.height * number / self.most


def draw(timeline: Timeline) -> str:
    """Return a timeline as the text of an SVG file."""
    ElementTree.register_namespace("", SVG)
    root = Element(f"{{{SVG}}}svg")
    title = "Open sockets by worker"
    began = timeline.began_at.strftime("%Y-%m-%d %H:%M:%S %Z")
    about = f"{timeline.clients} clients, {timeline.length} s from {began}, run {timeline.run}"
    _add(root, "title", title)
    _add(root, "desc", f"{about}; {sum(timeline.closed)} connections ended.")
    _add(root, "rect", width="100%", height="100%", fill=PAPER)
    _add(root, "text", title, x=LEFT, y=32, font_size=18, font_weight=600, fill=INK)
    _add(root, "text", about, x=LEFT, y=52, fill=FAINT)

    workers = dict(zip(timeline.sockets, cycle(WORKERS), strict=False))
    kinds = [(name, colour, _swatch) for name, colour in workers.items()]
    kinds.append(("connections ended", SHADOW, _shade))
    baseline = _legend(root, 80, kinds)
    totals = map(sum, zip(*timeline.sockets.values(), strict=True))
    most = max(1, timeline.clients, *totals)
    sockets = Part(baseline + HEADROOM, SOCKETS_HEIGHT, timeline.length, _rounded_up(most))
    _axes(root, sockets, "open sockets")
    _areas(root, sockets, timeline.sockets, workers)
    _shadows(root, sockets, timeline.closed)

    codes = _code_colours(timeline.closes)
    kinds = [(f"closed with {code}", colour, _swatch) for code, colour in codes.items()]
    kinds.append(("attempts to come back", ATTEMPTS, _dash))
    baseline = _legend(root, sockets.bottom + HEADROOM + LINE, kinds)
    most = max(1, *timeline.closed, *timeline.attempts)
    events = Part(baseline + HEADROOM, EVENTS_HEIGHT, timeline.length, _rounded_up(most))
    _axes(root, events, "per second")
    _bars(root, events, timeline.closes, codes)
    _steps(root, events, timeline.attempts)
    _times(root, events)

    _set(root, role="img", width=WIDTH, height=events.bottom + FOOT)
    _set(root, viewBox=f"0 0 {WIDTH:g} {events.bottom + FOOT:g}", font_family=FONT, font_size=12)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _legend(
    root: Element, baseline: float, entries: Sequence[tuple[str, str, Callable[..., None]]]
) -> float:
    """Name what colours mean, in as many lines as it takes; return where the last one is."""
    x = LEFT
    for name, colour, mark in entries:
        width = MARK + 6 + CHARACTER * len(name) + 14
        if x > LEFT and x + width > RIGHT:
            x, baseline = LEFT, baseline + LINE
        mark(root, x, baseline, colour)
        _add(root, "text", name, x=x + MARK + 6, y=baseline, fill=INK)
        x += width
    return baseline


def _swatch(root: Element, x: float, baseline: float, colour: str) -> None:
    _add(root, "rect", x=x, y=baseline - 10, width=MARK, height=11, rx=2, fill=colour)


def _shade(root: Element, x: float, baseline: float, colour: str) -> None:
    _swatch(root, x, baseline, colour)
    root[-1].set("fill-opacity", f"{SHADE}")


def _dash(root: Element, x: float, baseline: float, colour: str) -> None:
    _add(root, "path", d=f"M{x:g} {baseline - 4:g}h{MARK:g}", stroke=colour, stroke_width=2)


def _axes(root: Element, part: Part, label: str) -> None:
    """Draw both axes, and a line for each number that is named."""
    step = _step(part.most / 5)
    for number in range(0, part.most + 1, step):
        y = part.y(number)
        colour = GRID if number else FAINT
        _add(root, "path", d=f"M{LEFT:g} {y:.1f}H{RIGHT:g}", stroke=colour)
        _add(root, "text", f"{number}", x=LEFT - 8, y=y + 4, text_anchor="end", fill=FAINT)
    for second in part.ticks:
        x = part.x(second)
        _add(root, "path", d=f"M{x:.1f} {part.bottom:g}v5", stroke=FAINT)
    middle = part.top + part.height / 2
    turned = f"rotate(-90 18 {middle:g})"
    _add(root, "text", label, x=18, y=middle, transform=turned, text_anchor="middle", fill=INK)


def _times(root: Element, part: Part) -> None:
    """Name the times below the last part."""
    for second in part.ticks:
        x = part.x(second)
        _add(root, "text", f"{second}", x=x, y=part.bottom + 19, text_anchor="middle", fill=FAINT)
    label = "seconds since the first client began to connect"
    middle = (LEFT + RIGHT) / 2
    _add(root, "text", label, x=middle, y=part.bottom + 40, text_anchor="middle", fill=INK)


def _areas(
    root: Element, part: Part, sockets: Mapping[str, Sequence[int]], colours: Mapping[str, str]
) -> None:
    """Draw how many sockets each worker has, one worker upon the other."""
    floor = [0] * (part.seconds + 1)
    for worker, counts in sockets.items():
        # Before the first second there was none.
        ceiling = [below + count for below, count in zip(floor, [0, *counts], strict=True)]
        edge = [*enumerate(ceiling), *reversed([*enumerate(floor)])]
        points = " ".join(f"{part.x(second):.1f},{part.y(number):.1f}" for second, number in edge)
        area = _add(root, "polygon", points=points, fill=colours[worker])
        _add(area, "title", worker)
        floor = ceiling


def _shadows(root: Element, part: Part, closed: Sequence[int]) -> None:
    """Darken the seconds in which connections ended."""
    for second, count in enumerate(closed):
        if count:
            shadow = _add(
                root,
                "rect",
                x=part.x(second),
                y=part.top,
                width=part.x(1) - part.x(0),
                height=part.height,
                fill=SHADOW,
                fill_opacity=SHADE,
                shape_rendering="crispEdges",
            )
            _add(shadow, "title", f"{count} closed in second {second}")


def _bars(
    root: Element, part: Part, closes: Mapping[int, Sequence[int]], colours: Mapping[int, str]
) -> None:
    """Draw how many connections ended in each second, one close code upon the other."""
    floor = [0] * part.seconds
    for code, counts in closes.items():
        for second, count in enumerate(counts):
            if not count:
                continue
            bar = _add(
                root,
                "rect",
                x=part.x(second),
                y=part.y(floor[second] + count),
                width=max(part.x(1) - part.x(0), LEAST_BAR),
                height=part.y(0) - part.y(count),
                fill=colours[code],
                shape_rendering="crispEdges",
            )
            _add(bar, "title", f"{count} closed with {code} in second {second}")
            floor[second] += count


def _steps(root: Element, part: Part, counts: Sequence[int]) -> None:
    """Draw a number of each second as a line."""
    steps = (
        f"V{part.y(count):.1f}H{part.x(second + 1):.1f}" for second, count in enumerate(counts)
    )
    path = f"M{LEFT:g} {part.bottom:g}{''.join(steps)}"
    _add(root, "path", d=path, fill="none", stroke=ATTEMPTS, stroke_width=1.25)


def _code_colours(codes: Iterable[int]) -> dict[int, str]:
    others = cycle(OTHER_CODES)
    return {code: CODES.get(code) or next(others) for code in codes}


def _step(least: float) -> int:
    """Return the first of 1, 2, 5, 10, 20, ... that is no less."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10


def _rounded_up(number: int) -> int:
    """Return the first number to end an axis with that is no less."""
    step = _step(number / 5)
    return ceil(number / step) * step


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort by this, and app2 comes before app10."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]


def _add(parent: Element, tag: str, text: str | None = None, **attributes: str | float) -> Element:
    element = SubElement(parent, f"{{{SVG}}}{tag}")
    element.text = text
    _set(element, **attributes)
    return element


def _set(element: Element, **attributes: str | float) -> None:
    for name, value in attributes.items():
        written = value if isinstance(value, str) else f"{round(value, 2):g}"
        element.set(name.replace("_", "-"), written)
