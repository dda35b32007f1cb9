"""The result of the benchmark, as a table and as a plot."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from channels_kit.load.plot import FAINT, STYLE, WORKERS
from fanout.client import Shape
from fanout.redis_cost import RedisCost
from fanout.search import LIMIT, Step, best
from fanout.systems import SYSTEMS

MAIN = Shape()
PEERS = ("ws", "socketio")
GENERATED = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Result:
    """What one search has found.

    Attributes:
        shape: who was connected.
        system: the name of it.
        quiet: the room with few messages.
        steps: the rates that were tried.
    """

    shape: Shape
    system: str
    quiet: Step | None
    steps: list[Step]


@dataclass
class Run:
    """All of a run.

    Attributes:
        date: when it began.
        machine: what all of it ran on.
        versions: of what was compared.
        results: in the order in which they were measured.
        redis: what Redis pays; None: not measured.
    """

    date: str
    machine: str
    versions: dict[str, str]
    results: list[Result] = field(default_factory=list)
    redis: RedisCost | None = None

    def of(self, system: str, shape: Shape) -> list[Result]:
        """Return the results of a system in a shape."""
        return [each for each in self.results if (each.system, each.shape) == (system, shape)]

    def highest(self, system: str, shape: Shape) -> float:
        """Return the highest rate that passed in any round, in deliveries a second; 0: none did.

        Other programs of the machine make a system slower, never faster.
        """
        step = self.busy(system, shape)
        return step.rate if step else 0.0

    def busy(self, system: str, shape: Shape) -> Step | None:
        """Return the step of the highest rate of all rounds."""
        return best([step for result in self.of(system, shape) for step in result.steps])

    def quiet(self, system: str) -> Step | None:
        """Return the quiet room of the main shape, of the round with the lowest p99."""
        steps = [each.quiet for each in self.of(system, MAIN) if each.quiet]
        return min(
            (step for step in steps if step.counted),
            key=lambda step: step.counted.p99 if step.counted else 0.0,
            default=None,
        )

    def content(self) -> dict[str, Any]:
        """Return all of it for a file; whether a step passes too."""
        content = asdict(self)
        for result, written in zip(self.results, content["results"], strict=True):
            for step, line in zip(result.steps, written["steps"], strict=True):
                line["passes"] = step.passes
        return content

    @property
    def others(self) -> float:
        """Percent of the processors that other programs had, in the median of all steps."""
        steps = [step for result in self.results for step in result.steps if step.counted]
        return statistics.median([step.others for step in steps] or [0.0])

    @property
    def systems(self) -> list[str]:
        """Those that were measured, in the order of SYSTEMS."""
        measured = {result.system for result in self.results}
        return [name for name in SYSTEMS if name in measured]

    @property
    def shapes(self) -> list[Shape]:
        """Those in which a highest rate was looked for, beside the main one."""
        shapes = dict.fromkeys(result.shape for result in self.results)
        return [shape for shape in shapes if shape != MAIN and not shape.idle]


def rounded(number: float) -> str:
    """Return a rate for people: three digits that count."""
    if number >= 1e6:
        return f"{number / 1e6:.2f} million"
    if number >= 1e4:
        return f"{number / 1e3:.0f} thousand"
    return f"{number / 1e3:.1f} thousand"


def rows(head: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    """Return a table in Markdown."""
    cells = list(head)
    return [
        f"| {' | '.join(cells)} |",
        f"|{'---|' * len(cells)}",
        *(f"| {' | '.join(line)} |" for line in lines),
    ]


def main_table(run: Run) -> list[str]:
    """Return the table of the main shape."""
    idle = next((result.shape for result in run.results if result.shape.idle), None)
    lines = []
    for name in run.systems:
        busy, quiet = run.busy(name, MAIN), run.quiet(name)
        beside = run.of(name, idle)[0].steps[0] if idle and run.of(name, idle) else None
        rates = sorted(
            step.rate if (step := best(result.steps)) else 0.0 for result in run.of(name, MAIN)
        )
        lines.append(
            (
                SYSTEMS[name].title,
                " to ".join(dict.fromkeys(map(rounded, rates))),
                f"{busy.counted.p99:.0f}" if busy and busy.counted else "-",
                f"{quiet.counted.p50:.1f} / {quiet.counted.p99:.1f}"
                if quiet and quiet.counted
                else "-",
                beside_words(beside),
                f"{quiet.cpu:.1f} -> {busy.cpu:.2f}" if quiet and busy else "-",
            )
        )
    return rows(
        (
            "system",
            "deliveries/s",
            "p99 there, ms",
            "quiet room: p50 / p99, ms",
            f"p99 with {idle.idle} idle sockets, ms" if idle else "idle sockets",
            "CPU µs a delivery, quiet -> busy",
        ),
        lines,
    )


def beside_words(step: Step | None) -> str:
    """Return the cell of a run with idle sockets beside."""
    if step is None:
        return "-"
    if step.counted is None:
        return "failed"
    lost = "" if step.counted.whole else f", {step.counted.expected - step.counted.received} lost"
    return f"{step.counted.p99:.0f}{lost}"


def shape_table(run: Run) -> list[str]:
    """Return the table of the other shapes."""
    shapes = run.shapes
    names = [name for name in run.systems if any(run.of(name, shape) for shape in shapes)]
    lines = [
        (shape.title, *(rounded(run.highest(name, shape)) for name in names)) for shape in shapes
    ]
    return rows(("deliveries/s", *(SYSTEMS[name].title for name in names)), lines)


@dataclass(frozen=True)
class Goal:
    """Something that the fan-out shall reach.

    Attributes:
        title: what.
        value: what was measured.
        bound: of it.
        least: whether the bound is the least value; otherwise it is the most.
        unit: of both.
    """

    title: str
    value: float
    bound: float
    least: bool
    unit: str

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.bound if self.least else self.value <= self.bound


def goals(run: Run) -> list[Goal]:
    """Return the goals of which everything was measured."""
    found: list[Goal] = []

    def compare(system: str, others: tuple[str, ...], shape: Shape, factor: float) -> None:
        other = max((run.highest(name, shape) for name in others), default=0.0)
        if other and run.of(system, shape):
            words = " and ".join(SYSTEMS[name].title for name in others)
            title = f"{shape.title}: {SYSTEMS[system].title}, against the best of {words}"
            ratio = run.highest(system, shape) / other
            found.append(Goal(title, ratio, factor, least=True, unit="x"))

    compare("tier1", ("pubsub",), MAIN, 4)
    compare("tier2", ("pubsub",), MAIN, 60)
    compare("tier2", PEERS, MAIN, 5)
    for shape in run.shapes:
        compare("tier2", PEERS, shape, 2)
    ours, theirs = run.quiet("tier2"), run.quiet("ws")
    if ours and theirs and ours.counted and theirs.counted:
        for name in ("p50", "p99"):
            value, bound = getattr(ours.counted, name), getattr(theirs.counted, name)
            title = f"quiet room: {name} of tier 2, no more than that of Node ws"
            found.append(Goal(title, value, bound, least=False, unit="ms"))
    if ours and (busy := run.busy("tier2", MAIN)):
        found.append(Goal("CPU a delivery, quiet", ours.cpu, 12, least=False, unit="µs"))
        found.append(Goal("CPU a delivery, busy", busy.cpu, 1, least=False, unit="µs"))
    for result in run.results:
        counted = result.steps[0].counted
        if result.system == "tier2" and result.shape.idle and counted:
            title = f"p99 with {result.shape.idle} idle sockets, at a tenth of the highest rate"
            found.append(Goal(title, counted.p99, 40, least=False, unit="ms"))
    return found


def goal_table(run: Run) -> list[str]:
    """Return what is reached, and what is not."""
    return rows(
        ("goal", "bound", "measured", "met"),
        (
            (
                goal.title,
                f"{'>=' if goal.least else '<='} {goal.bound:.3g} {goal.unit}",
                f"{goal.value:.3g} {goal.unit}",
                "yes" if goal.met else "**no**",
            )
            for goal in goals(run)
        ),
    )


def redis_table(cost: RedisCost) -> list[str]:
    """Return what Redis pays."""
    lines = [
        (str(number), f"{cost.measured[number]:.1f}", f"{cost.rates[number]:.0f}")
        for number in cost.measured
    ]
    return [
        *rows(("subscribed processes", "CPU µs of Redis a message", "messages/s sent"), lines),
        "",
        f"That is {cost.message:.1f} µs a message, and {cost.subscriber:.2f} µs for each process.",
    ]


def summary(run: Run) -> str:
    """Return the tables in Markdown."""
    named = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    lines = [
        f"Measured on {run.date}: {run.machine}. {named}. Other programs of the machine used"
        f" {run.others:.0f} % of its processors (median of all steps).",
        "",
        *main_table(run),
    ]
    if run.shapes:
        lines += ["", *shape_table(run)]
    if goals(run):
        lines += ["", *goal_table(run)]
    if run.redis:
        lines += ["", *redis_table(run.redis)]
    return "\n".join(lines)


def page(text: str, run: Run) -> str:
    """Return a page with the tables of a run between its marks.

    Raises:
        ValueError: it has no marks.
    """
    if not GENERATED.search(text):
        raise ValueError("the page has no marks for what was measured")
    return GENERATED.sub(lambda marks: f"{marks[1]}{summary(run)}\n{marks[2]}", text)


def draw(run: Run, file: Path) -> None:
    """Draw rate against p99, one line a system: of its round with the highest rate."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        axes = figure.add_subplot()
        for name, color in zip(run.systems, WORKERS, strict=False):
            rounds = run.of(name, MAIN)
            chosen = max(rounds, key=lambda each: step.rate if (step := best(each.steps)) else 0.0)
            points = sorted(
                (step.rate, step.counted.p99, step.passes) for step in chosen.steps if step.counted
            )
            label = SYSTEMS[name].title
            axes.plot(
                [x for x, _, _ in points], [y for _, y, _ in points], color=color, label=label
            )
            for passes, mark in ((True, "o"), (False, "x")):
                marked = [(x, y) for x, y, passed in points if passed is passes]
                axes.plot([x for x, _ in marked], [y for _, y in marked], mark, color=color)
        axes.axhline(LIMIT, color=FAINT, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("deliveries a second")
        axes.set_ylabel("p99, ms (x: too late, or something was lost)")
        axes.set_title(f"{MAIN.title}; {run.date}")
        axes.legend(loc="best")
        figure.savefig(file, format="svg", metadata={"Date": None})
