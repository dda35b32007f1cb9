"""The report as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from verification.figures import bars, duration
from verification.findings import (
    Finding,
    count_line,
    diagnosis,
    failed_cells,
    findings,
    headline,
    missing_pairs,
    plural,
    scope,
    word_of,
)
from verification.report import Report

MOST = 40
"""Findings that a terminal shows."""

PAIRS = 10
"""Pairs that a terminal shows."""

PLACES = 3


def summary(report: Report) -> Iterator[str]:
    """Return the lines: what is not ok, one line for each part, and the verdict last."""
    found = findings(report)
    for finding in found[:MOST]:
        yield from _lines(finding)
    if found[MOST:]:
        yield f"... and {len(found) - MOST} more: see the page"
    yield from _matrix(report)
    tightest = bars(report.checks)
    for bar in tightest[:1]:
        yield (
            f"limits: {len(tightest)} read; the fullest is {bar.term} of"
            f" {bar.host} {bar.subject}: {bar.used} of {bar.limit} used ({bar.percent})"
        )
    for name, part in (("comparisons", report.checks), ("behaviour", report.behaviour)):
        yield f"{name}: {count_line(part) or 'none'}"
    yield f"{report.environment}, kit {report.kit}: " + ", ".join(scope(report))
    yield headline(report)


def _lines(finding: Finding) -> Iterator[str]:
    places = [f"{where} ({source})" if source else where for where, source in finding.places]
    where = "; ".join(places[:PLACES])
    if places[PLACES:]:
        where += f"; and {len(places) - PLACES} more"
    values = ""
    if finding.expected or finding.effective:
        values = f": expected {finding.expected or '-'}, effective {finding.effective or '-'}"
    yield f"{word_of(finding.status).upper():<10} {finding.what}{values}: {where}"
    for line in filter(None, (finding.message, finding.advice)):
        yield f"           {line}"


def _matrix(report: Report) -> Iterator[str]:
    failed = failed_cells(report)
    for cell in failed[:PAIRS]:
        said = ", ".join(filter(None, (cell.way, cell.message)))
        line = f"{cell.status.upper():<10} {cell.sender} to {cell.receiver}"
        yield f"{line}: {said}" if said else line
    if failed[PAIRS:]:
        yield f"... and {len(failed) - PAIRS} more pairs: see the page"
    for line in diagnosis(report):
        yield f"           {line}"
    if missing := missing_pairs(report):
        yield f"matrix: {plural(missing, 'pair')} not measured"
    yield f"matrix: {count_line(report.cells) or 'not measured'}" + (
        f"; half of the messages arrived within {duration(report.delay(0.5))},"
        f" 99 % within {duration(report.delay(0.99))}"
        if report.delays
        else ""
    )
