"""What a report says, in the order in which an operator asks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from verification.report import (
    FAILED,
    INCOMPLETE,
    OK,
    SKIPPED,
    UNREADABLE,
    VERIFIED,
    Behaviour,
    Cell,
    Check,
    Report,
)

WORST_FIRST = {FAILED: 0, UNREADABLE: 1, SKIPPED: 2, OK: 3}


@dataclass(frozen=True)
class Finding:
    """Something that is not ok, once for all places where it is the same.

    Attributes:
        status: failed, unreadable or skipped.
        what: the term or the behaviour.
        expected: by the inventory.
        effective: what is in effect.
        message: what is wrong.
        advice: what to do.
        places: where it is so, each with the source of the value.
    """

    status: str
    what: str
    expected: str
    effective: str
    message: str
    advice: str
    places: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Involved:
    """A worker in failed pairs.

    Attributes:
        worker: its name.
        sent: to how many workers its message did not arrive.
        received: of how many workers no message arrived on it.
    """

    worker: str
    sent: int
    received: int


def headline(report: Report) -> str:
    """Return the verdict in a sentence."""
    failed, unreadable = report.counts[FAILED], report.counts[UNREADABLE]
    # The last line of make verify counts no pairs: it has a line for all of them.
    of = f"of {report.total:,} checks and pairs"
    word = verdict_word(report)
    if report.verdict == FAILED:
        return f"{word}: {failed} {of} failed." if failed else f"{word}: the run did not complete."
    if report.verdict == INCOMPLETE:
        if not report.counts[OK]:
            return f"{word}: nothing was checked."
        if unreadable:
            return f"{word}: {unreadable} {of} could not be read."
        return f"{word}: not everything was checked."
    if unreadable:
        return f"{word}, but {unreadable} {of} could not be read."
    return f"{word}: {report.counts[OK]:,} checks and pairs are ok."


def verdict_word(report: Report) -> str:
    """Return the verdict, in the words of make verify."""
    return {VERIFIED: "Verified", FAILED: "NOT verified", INCOMPLETE: "Incomplete"}[report.verdict]


def word_of(status: str) -> str:
    """Return a status, in the words of make verify."""
    return "does not apply" if status == SKIPPED else status


def scope(report: Report) -> list[str]:
    """Return what was looked at."""
    hosts = {check.host for check in report.checks}
    subjects = {(check.host, check.subject) for check in report.checks}
    return [
        plural(len(hosts), "host"),
        plural(len(subjects), "process or setting", "processes and settings"),
        plural(len(report.checks), "comparison"),
        f"{plural(len(report.cells), 'pair')} of {plural(len(report.workers), 'worker')}",
        plural(len(report.edges), "edge"),
        plural(len(report.behaviour), "behaviour check"),
    ]


def findings(report: Report) -> list[Finding]:
    """Return what is not ok, the worst first; the matrix has an account of its own."""
    places: defaultdict[tuple[str, str, str, str, str, str], list[tuple[str, str]]]
    places = defaultdict(list)
    items: list[Check | Behaviour] = [*report.checks, *report.behaviour]
    for item in items:
        if item.status == OK:
            continue
        if isinstance(item, Check):
            place = (f"{item.host} {item.subject}".strip(), item.source)
            key = (item.status, item.term, item.expected, item.effective)
        else:
            place = (item.subject, "")
            key = (item.status, item.name, "", "")
        places[(*key, item.message, item.advice)].append(place)
    found = [
        Finding(*key, places=sorted(where, key=lambda each: natural(each[0])))
        for key, where in places.items()
    ]
    return sorted(found, key=lambda each: WORST_FIRST[each.status])


def failed_cells(report: Report) -> list[Cell]:
    """Return the pairs that are not proved."""
    return [cell for cell in report.cells if cell.status != OK]


def involved(report: Report) -> list[Involved]:
    """Return the workers in failed pairs, those in most of them first."""
    sent, received = Counter[str](), Counter[str]()
    for cell in failed_cells(report):
        sent[cell.sender] += 1
        received[cell.receiver] += 1
    each = [Involved(name, sent[name], received[name]) for name in report.workers]
    return sorted(
        (worker for worker in each if worker.sent or worker.received),
        key=lambda worker: -worker.sent - worker.received,
    )


def diagnosis(report: Report) -> list[str]:
    """Return what the failed pairs have in common, in sentences."""
    if not failed_cells(report):
        return []
    worst = involved(report)
    most = worst[0].sent + worst[0].received
    # A worker is in a failed pair of another's fault; in many, of its own.
    lines = [_involvement(each) for each in worst if (each.sent + each.received) * 2 > most][:3]
    if len(apart := groups(report)) > 1:
        shown = "; ".join(
            f"{', '.join(group[:4])}{', ...' if group[4:] else ''} ({len(group)})"
            for group in apart[:4]
        )
        lines.append(
            f"The workers form {len(apart)} groups that do not reach each other:"
            f" {shown}{'; ...' if apart[4:] else ''}."
            " Compare their Redis address, database and prefix."
        )
    return lines


def _involvement(worker: Involved) -> str:
    said = []
    if worker.sent:
        said.append(f"its messages did not arrive on {plural(worker.sent, 'worker')}")
    if worker.received:
        said.append(f"those of {plural(worker.received, 'worker')} did not arrive on it")
    return f"{worker.worker}: {', '.join(said)}."


def missing_pairs(report: Report) -> int:
    """Return how many pairs of two workers the matrix does not have."""
    pairs = {(cell.sender, cell.receiver) for cell in report.cells}
    workers = len(report.workers)
    return workers * (workers - 1) - sum(sender != receiver for sender, receiver in pairs)


def groups(report: Report) -> list[list[str]]:
    """Return the groups of workers that reach only each other; one group: the matrix is whole.

    A worker with another Redis database or another prefix makes a group of its own.
    """
    group_of = {worker: {worker} for worker in report.workers}
    for cell in report.cells:
        mine, other = group_of[cell.sender], group_of[cell.receiver]
        if cell.status == OK and mine is not other:
            mine |= other
            for worker in other:
                group_of[worker] = mine
    unique = {id(group): group for group in group_of.values()}
    return sorted((sorted(each, key=natural) for each in unique.values()), key=len, reverse=True)


def by_host(checks: Iterable[Check]) -> Mapping[str, list[Check]]:
    """Return the checks of each host, in natural order, the worst first."""
    hosts: defaultdict[str, list[Check]] = defaultdict(list)
    for check in checks:
        hosts[check.host].append(check)
    return {
        host: sorted(
            hosts[host],
            key=lambda each: (WORST_FIRST[each.status], natural(each.subject), each.term),
        )
        for host in sorted(hosts, key=natural)
    }


def ordered(behaviour: Iterable[Behaviour]) -> list[Behaviour]:
    """Return the behaviour checks, the worst first."""
    return sorted(behaviour, key=lambda each: WORST_FIRST[each.status])


def count_line(items: Iterable[Check | Behaviour | Cell]) -> str:
    """Return how many there are of each status, the worst first: `1 failed, 20 ok`."""
    counts = Counter(item.status for item in items)
    return ", ".join(
        f"{counts[status]} {word_of(status)}" for status in WORST_FIRST if counts[status]
    )


def plural(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def natural(name: str) -> list[tuple[str, int]]:
    """Sort by this, and app2 comes before app10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]
