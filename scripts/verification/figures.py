"""The pictures of the page, as numbers that its template places.

No colour is the only carrier of a meaning: a failed pair is a cross, a bar has its figures beside
it, a run has a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile

from verification.history import Run
from verification.report import FAILED, OK, Cell, Check, Report

LEVELS = (0.005, 0.010, 0.025, 0.100, 0.500)
"""Seconds below which a message is of each level, the same for all runs so that pages compare."""

NUMBERS_UP_TO = 24
"""Workers up to which the matrix is a table of numbers. Above, it is a picture."""

NAMED_CROSSES = 500
"""Failed pairs that the picture names where one points at them."""

LONGEST_LABEL = 16

NOTHING = "\N{EN DASH}"

CLOSE, NEARLY_FULL = 0.75, 0.90
"""Shares of a limit from which it is called close and nearly full."""


@dataclass(frozen=True)
class Square:
    """A cell of the table: what it is called, its class, and what it says in full."""

    text: str
    style: str
    title: str


@dataclass(frozen=True)
class Group:
    """Neighbours in the matrix that are of one host: its name, and the rest of their names."""

    host: str
    label: str
    first: int
    parts: Sequence[str]


@dataclass(frozen=True)
class Cross:
    """A failed pair in the picture."""

    column: int
    row: int
    title: str


@dataclass
class HeatMap:
    """The matrix.

    Attributes:
        groups: the workers by host, for rows and columns.
        rows: the squares of the table; empty where it is a picture.
        size: workers in a row of the picture.
        cell: side of a cell of the picture.
        paths: the cells of each level in the picture, as the path of an SVG.
        crosses: the failed pairs in the picture, as far as they are named.
        crossed: all of them, as a path.
        lines: between hosts, as a path.
    """

    groups: list[Group]
    rows: list[list[Square]] = field(default_factory=list)
    size: int = 0
    cell: float = 0
    paths: dict[str, str] = field(default_factory=dict)
    crosses: list[Cross] = field(default_factory=list)
    crossed: str = ""
    lines: str = ""


@dataclass(frozen=True)
class Bar:
    """How much of a limit is used.

    Attributes:
        host: where.
        subject: the process.
        term: the limit.
        used: for people.
        limit: for people.
        share: used of limit; above 1 where there is more than allowed.
        percent: the share for people.
        state: `free`, `close` or `nearly full`.
    """

    host: str
    subject: str
    term: str
    used: str
    limit: str
    share: float
    percent: str
    state: str


@dataclass(frozen=True)
class Point:
    """A run in the chart; `y` is None where no message arrived."""

    x: float
    y: float | None
    height: float
    run: Run


@dataclass(frozen=True)
class Chart:
    """The p99 of the messages, and below it the failures, of each run.

    Attributes:
        points: the runs, the oldest first.
        lines: the line of the p99, as a path; it has gaps where a run has none.
        top: the label at the top of the scale.
        most: the label of the highest bar.
    """

    points: list[Point]
    lines: str
    top: str
    most: str


WIDTH, LEFT, UPPER, BASE, FLOOR, BAR = 460, 52, 12, 92, 136, 30
"""Of the chart: its width, the room for labels, top and base of the line, base and height of the
bars."""


def level(cell: Cell | None) -> str:
    """Return the class of a pair."""
    if cell is None:
        return "none"
    if cell.status != OK:
        return "bad" if cell.status == FAILED else "none"
    if cell.seconds is None:
        return "l0"
    return f"l{sum(cell.seconds >= bound for bound in LEVELS)}"


def heat_map(report: Report) -> HeatMap:
    """Return the matrix: a table of numbers, or a picture where that would be too large."""
    workers = report.workers
    # Where a pair was measured in two ways, the worse one is shown.
    cells = {
        (cell.sender, cell.receiver): cell
        for cell in sorted(report.cells, key=lambda cell: (cell.status != OK, cell.seconds or 0))
    }
    drawn = HeatMap(_groups(workers))
    if len(workers) <= NUMBERS_UP_TO:
        drawn.rows = [
            [_square(sender, receiver, cells.get((sender, receiver))) for receiver in workers]
            for sender in workers
        ]
        return drawn
    drawn.size = len(workers)
    drawn.cell = 8 if drawn.size > 60 else 12
    side = drawn.cell
    paths: dict[str, list[str]] = {}
    crossed: list[str] = []
    for row, sender in enumerate(workers):
        line = [cells.get((sender, receiver)) for receiver in workers]
        column = 0
        # Neighbours of one level are one rectangle: most of a matrix is.
        for style, same in groupby(map(level, line)):
            length = sum(1 for _ in same)
            paths.setdefault(style, []).append(
                f"M{column * side:g} {row * side:g}h{length * side:g}v{side:g}h-{length * side:g}z"
            )
            column += length
        for column, cell in enumerate(line):
            if cell is not None and level(cell) == "bad":
                x, y, arm = column * side + 2, row * side + 2, side - 4
                crossed.append(f"M{x:g} {y:g}l{arm:g} {arm:g}m0 -{arm:g}l-{arm:g} {arm:g}")
                if len(drawn.crosses) < NAMED_CROSSES:
                    drawn.crosses.append(Cross(column, row, _title(sender, workers[column], cell)))
    drawn.paths = {style: "".join(paths[style]) for style in sorted(paths)}
    drawn.crossed = "".join(crossed)
    edge = drawn.size * side
    drawn.lines = "".join(
        f"M{group.first * side:g} 0v{edge:g}M0 {group.first * side:g}h{edge:g}"
        for group in drawn.groups[1:]
    )
    return drawn


def bars(checks: Sequence[Check]) -> list[Bar]:
    """Return the limits with what is used of them, the tightest first."""
    drawn = []
    for check in checks:
        if check.used is None or check.limit is None:
            continue
        # Nothing is allowed: nothing used is no fault, and anything is too much.
        share = check.used / check.limit if check.limit > 0 else float(check.used > 0)
        state = "nearly full" if share >= NEARLY_FULL else "close" if share >= CLOSE else "free"
        drawn.append(
            Bar(
                host=check.host,
                subject=check.subject,
                term=check.term,
                used=amount(check.used, check.unit),
                limit=amount(check.limit, check.unit),
                share=max(share, 0.0),
                percent=f"{share:.0%}" if share >= 0.01 or not check.used else "< 1%",
                state=state,
            )
        )
    return sorted(drawn, key=lambda bar: -bar.share)


def chart(runs: Sequence[Run]) -> Chart | None:
    """Return the chart of the runs that can be read; None for fewer than two."""
    readable = [run for run in runs if not run.problem]
    if len(readable) < 2:
        return None
    scale = max((run.p99 for run in readable if run.p99 is not None), default=0) or 1
    most = max(run.failed for run in readable)
    step = (WIDTH - LEFT - 12) / (len(readable) - 1)
    points = [
        Point(
            x=round(LEFT + number * step, 1),
            y=None if run.p99 is None else round(BASE - run.p99 / scale * (BASE - UPPER), 1),
            height=round(run.failed / most * BAR, 1) if most else 0,
            run=run,
        )
        for number, run in enumerate(readable)
    ]
    lines = "".join(
        f"{'L' if number and points[number - 1].y is not None else 'M'}{point.x} {point.y}"
        for number, point in enumerate(points)
        if point.y is not None
    )
    measured = any(run.p99 is not None for run in readable)
    return Chart(points, lines, duration(scale) if measured else "", f"{most:,}" if most else "")


def duration(seconds: float | None) -> str:
    """Return a time for people."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.0f} ms" if milliseconds >= 9.95 else f"{milliseconds:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 119.95 else f"{seconds / 60:.0f} min"


def amount(value: float, unit: str) -> str:
    """Return a number with its unit for people."""
    if unit == "bytes":
        for name in ("bytes", "KiB", "MiB", "GiB"):
            if abs(value) < 1024 or name == "GiB":
                return f"{value:.0f} {name}" if name == "bytes" else f"{value:.1f} {name}"
            value /= 1024
    return (f"{value:,.0f}" if value == int(value) else f"{value:,.1f}") + f" {unit}".rstrip()


def _square(sender: str, receiver: str, cell: Cell | None) -> Square:
    style = level(cell)
    if cell is None:
        return Square(NOTHING, style, f"{sender} to {receiver}: not measured")
    title = _title(sender, receiver, cell)
    if cell.status != OK:
        return Square("✕" if style == "bad" else NOTHING, style, title)
    if cell.seconds is None:
        return Square("ok", style, title)
    milliseconds = cell.seconds * 1000
    return Square(f"{milliseconds:.{0 if milliseconds >= 9.95 else 1}f}", style, title)


def _title(sender: str, receiver: str, cell: Cell) -> str:
    said = duration(cell.seconds) if cell.status == OK else cell.status
    return f"{sender} to {receiver}: " + ", ".join(filter(None, (said, cell.way, cell.message)))


def _groups(workers: Sequence[str]) -> list[Group]:
    """Return the workers by host: what comes before the last colon of a name."""
    split = [name.rpartition(":")[::2] if ":" in name else (name, "") for name in workers]
    short = _short([host for host, _ in split])
    groups, first = [], 0
    for host, same in groupby(split, key=lambda each: each[0]):
        parts = [part for _, part in same]
        groups.append(Group(host, short[host], first, parts))
        first += len(parts)
    return groups


def _short(hosts: Sequence[str]) -> dict[str, str]:
    """Return the hosts without the domain they share, and cut in the middle where still long."""
    # From the end, and never the first part: it is the name.
    ends = zip(*(host.split(".")[:0:-1] for host in hosts), strict=False)
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, ends)]
    ending = "".join(f".{part}" for part in reversed(common))
    short = {}
    for host in hosts:
        name = host.removesuffix(ending) or host
        half = LONGEST_LABEL // 2
        short[host] = name if len(name) <= LONGEST_LABEL else f"{name[: half - 1]}…{name[-half:]}"
    return short
