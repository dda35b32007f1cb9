"""A report in text for people, and in JSON for programs."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from channels_kit.probe.ledger import Pair
from channels_kit.probe.result import Cell, Latency, PageResult, Part, Report, SocketResult
from channels_kit.probe.verdict import failed, not_checked, proved, verdict

MATRIX_WORKERS = 12
"""Workers whose matrix still fits a terminal; more are summed up by receiver."""

RED = "\x1b[31m"
RESET = "\x1b[0m"


def render_text(report: Report, *, colour: bool = False) -> str:
    """Return the report as text that ends with what to do next where delivery is not proved."""
    lines = []
    for part in report.parts:
        lines += [*_matrix(part, colour=colour), _summary(part), *_faults(part), ""]
    if told := [*_answers("pages", report.pages), *_answers("sockets", report.sockets)]:
        lines += [*told, ""]
    if report.strangers:
        lines += [*(f"{name}: {text}" for name, text in _strangers(report)), ""]
    lines.append(verdict(report))
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, object]:
    """Return all that the report holds, for `json.dumps`; latencies are in milliseconds."""
    return {
        "ok": report.ok,
        "verdict": verdict(report),
        "proved": proved(report),
        "failed": failed(report),
        "not_checked": not_checked(report),
        "release": report.release or None,
        "strangers": dict(report.strangers),
        "parts": [_part_as_json(part) for part in report.parts],
        "pages": [asdict(page) for page in report.pages],
        "sockets": [asdict(socket) for socket in report.sockets],
    }


def write_json(content: Mapping[str, object], path: Path) -> None:
    """Write JSON to a file that is there as a whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _matrix(part: Part, *, colour: bool) -> list[str]:
    cells = {(cell.sender, cell.receiver): cell for cell in part.cells()}
    names = list(dict.fromkeys(sender for sender, _ in cells))
    if len(names) > MATRIX_WORKERS:
        by_receiver = {
            name: [cell for (_, receiver), cell in cells.items() if receiver == name]
            for name in names
        }
        width = max(map(len, names))
        return [
            f"{part.name}: what each worker received from the {len(names)} workers",
            *(f"  {name:>{width}}  {_count(by_receiver[name], colour=colour)}" for name in names),
        ]
    rows = [[name, *(_cell(cells.get((name, receiver))) for receiver in names)] for name in names]
    widths = [max(map(len, column)) for column in zip(["", *names], *rows, strict=True)]
    lines = [f"{part.name}: from the worker on the left to the worker above"]
    for row in [["", *names], *rows]:
        aligned = [f"{text:>{width}}" for text, width in zip(row, widths, strict=True)]
        if colour:
            aligned = [f"{RED}{text}{RESET}" if "✗" in text else text for text in aligned]
        lines.append("  " + "  ".join(aligned))
    return lines


def _cell(cell: Cell | None) -> str:
    """Return a cell of the matrix; a pair that the proof is not about is a dot."""
    return _count([cell], colour=False) if cell else "·"


def _count(cells: list[Cell], *, colour: bool) -> str:
    delivered, expected = sum(c.delivered for c in cells), sum(c.expected for c in cells)
    if all(cell.ok for cell in cells):
        return f"{delivered}/{expected}"
    text = f"✗ {delivered}/{expected}"
    return f"{RED}{text}{RESET}" if colour else text


def _summary(part: Part) -> str:
    cells = part.cells()
    text = (
        f"{part.name}: {sum(cell.ok for cell in cells)} of {len(cells)} pairs,"
        f" {sum(c.delivered for c in cells)} of {sum(c.expected for c in cells)} deliveries"
    )
    if part.silence:
        text += f", {part.silence:g} s of silence before the last"
    latency = part.latency
    if latency is None:
        return text
    return (
        f"{text}, latency p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms,"
        f" max {latency.max:.1f} ms"
    )


def _answers(name: str, results: Sequence[PageResult | SocketResult]) -> Iterator[str]:
    """Yield how many pages or sockets are as they have to be, and those that are not."""
    if results:
        good = sum(each.failure is None for each in results)
        yield f"{name}: {good} of {len(results)} as expected"
    for each in results:
        if each.failure is not None:
            where = f"on {each.place}" if each.direct else each.place
            way = f" -> {each.way}" if isinstance(each, PageResult) and each.way else ""
            yield f"  {each.path}{way} {where}: {each.failure}"


def _strangers(report: Report) -> Iterator[tuple[str, str]]:
    for worker, revision in report.strangers:
        yield worker, f"runs {revision or 'an unknown release'}, not release {report.release}"


def _faults(part: Part) -> Iterator[str]:
    for endpoint in part.failed_endpoints:
        yield f"  {endpoint.label}: {endpoint.failure}"
    for worker in part.unreached:
        yield f"  {worker}: not reached by any of {len(part.endpoints)} sockets"
    for worker in part.fuller:
        yield f"  {worker}: not reached, because the other workers have fewer sockets (not a fault)"
    for worker, reason in part.left:
        yield f"  {worker}: {reason} (former release, not judged)"
    for cell in part.cells():
        names = f"  {cell.sender} -> {cell.receiver}:"
        if cell.delivered < cell.expected:
            yield f"{names} {cell.delivered} of {cell.expected} delivered"
        elif not all(pair.closed for pair in cell.pairs):
            yield f"{names} the closing message was not delivered"
        if duplicates := sum(pair.duplicates for pair in cell.pairs):
            yield f"{names} {duplicates} delivered more than once"
        if disordered := sum(pair.disordered for pair in cell.pairs):
            yield f"{names} {disordered} out of order"


def _part_as_json(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "run": part.run,
        "ok": part.ok,
        "rounds": {"planned": part.planned, "begun": part.begun},
        "silence_seconds": part.silence,
        "latency_milliseconds": _latency_as_json(part.latency),
        "endpoints": [asdict(endpoint) for endpoint in part.endpoints],
        "unreached": list(part.unreached),
        "fuller": list(part.fuller),
        "left": dict(part.left),
        "touched": list(part.touched),
        "pairs": [_pair_as_json(pair) for pair in part.pairs],
    }


def _pair_as_json(pair: Pair) -> dict[str, object]:
    return {
        "sender": pair.sender,
        "receiver": pair.receiver,
        "ok": pair.ok,
        "expected": pair.expected,
        "delivered": pair.delivered,
        "duplicates": pair.duplicates,
        "out_of_order": pair.disordered,
        "closing_delivered": pair.closed,
        "latency_milliseconds": _latency_as_json(Latency.of(pair.latencies)),
    }


def _latency_as_json(latency: Latency | None) -> dict[str, float] | None:
    return asdict(latency) if latency else None
