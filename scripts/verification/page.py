"""The report as one HTML file, without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jinja2

from verification import figures, findings
from verification.history import Run
from verification.report import FAILED, OK, SKIPPED, UNREADABLE, Cell, Report

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
TEMPLATE = "verify_report.html.j2"

TIGHTEST = 8
"""Limits that are shown at once; the others are folded."""

DONE = 20
"""Behaviour checks that are listed at once, the worst first; the others are folded."""

RECENT = 10
"""Runs of the history that are listed at once; the chart shows all."""

NAMED = 40
"""Failed pairs that are listed at once; the others are folded."""


@dataclass(frozen=True)
class Spread:
    """What the messages of a worker took.

    Attributes:
        worker: its name.
        sent: from it: the median and the slowest.
        received: to it: the median and the slowest.
        failed: pairs with it that are not ok.
    """

    worker: str
    sent: tuple[str, str]
    received: tuple[str, str]
    failed: int


def render(report: Report, runs: Sequence[Run]) -> str:
    """Return the page of a report.

    Args:
        report: what is shown.
        runs: the history, the oldest first; the last is the run that is shown.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = figures.duration
    environment.filters["count_line"] = findings.count_line
    environment.filters["plural"] = findings.plural
    environment.filters["word"] = findings.word_of
    found = findings.findings(report)
    failed = findings.failed_cells(report)
    limits = figures.bars(report.checks)
    page = environment.get_template(TEMPLATE).render(
        report=report,
        headline=findings.headline(report),
        verdict_word=findings.verdict_word(report),
        scope=findings.scope(report),
        ended=report.began + timedelta(seconds=report.seconds),
        found=[each for each in found if each.status != SKIPPED],
        skipped=[each for each in found if each.status == SKIPPED],
        statuses={status: report.counts[status] for status in (FAILED, UNREADABLE, SKIPPED, OK)},
        heat=figures.heat_map(report),
        levels=_levels(),
        failed=failed,
        named=NAMED,
        diagnosis=findings.diagnosis(report),
        missing=findings.missing_pairs(report),
        spreads=_spreads(report),
        slowest=_slowest(report),
        limits=limits,
        tightest=TIGHTEST,
        behaviour=findings.ordered(report.behaviour),
        hosts=findings.by_host(report.checks),
        runs=list(reversed(runs)),
        done=DONE,
        recent=RECENT,
        chart=figures.chart(runs),
    )
    # What the macros leave before the first tag.
    return page.lstrip()


def _levels() -> list[tuple[str, str]]:
    """Return the legend: the class of each level and what it means."""
    bounds = [f"{bound * 1000:g} ms" for bound in figures.LEVELS]
    words = [f"below {bounds[0]}", *map("{} to {}".format, bounds, bounds[1:])]
    words.append(f"{bounds[-1]} and more")
    return [(f"l{number}", word) for number, word in enumerate(words)]


def _slowest(report: Report) -> list[Cell]:
    timed = [cell for cell in report.cells if cell.status == OK and cell.seconds is not None]
    return sorted(timed, key=lambda cell: -(cell.seconds or 0))[:5]


def _spreads(report: Report) -> list[Spread]:
    """Return the matrix in words: a row for each worker."""
    sent: dict[str, list[float]] = {worker: [] for worker in report.workers}
    received: dict[str, list[float]] = {worker: [] for worker in report.workers}
    failed = {worker.worker: worker.sent + worker.received for worker in findings.involved(report)}
    for cell in report.cells:
        if cell.status == OK and cell.seconds is not None:
            sent[cell.sender].append(cell.seconds)
            received[cell.receiver].append(cell.seconds)

    def ends(delays: list[float]) -> tuple[str, str]:
        delays = sorted(delays) or [0.0]
        return figures.duration(delays[len(delays) // 2]), figures.duration(delays[-1])

    return [
        Spread(worker, ends(sent[worker]), ends(received[worker]), failed.get(worker, 0))
        for worker in report.workers
    ]
