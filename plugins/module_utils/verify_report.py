"""The report of `make verify`: what readings and proofs came to, as JSON and as lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.host_checks import verdict_of

FORMAT = 1

SHOWN_PAIRS = 8
"""Pairs of workers that a line names; of more their number is."""

Report = dict[str, Any]


def matrix_of(proof: Mapping[str, Any]) -> dict[str, Any]:
    """Return who received from whom, of the JSON of the proof."""
    cells: list[dict[str, Any]] = []
    latency: dict[str, Any] = {}
    workers: list[str] = []
    edges: list[str] = []
    for part in proof["parts"]:
        names = {
            each["name"]: each["worker"] or f"socket {each['name']}" for each in part["endpoints"]
        }
        way = part["name"]
        if way == "directly":
            workers = list(dict.fromkeys(names.values()))
        else:
            edges += [each["url"] for each in part["endpoints"][:1]]
        if part["latency_milliseconds"]:
            latency[way] = part["latency_milliseconds"]
        grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for pair in part["pairs"]:
            grouped.setdefault((names[pair["sender"]], names[pair["receiver"]]), []).append(pair)
        cells += [_cell(way, *ends, pairs) for ends, pairs in grouped.items()]
    return {"workers": workers, "edges": edges, "cells": cells, "latency": latency}


def _cell(
    way: str, sender: str, receiver: str, pairs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    delivered = sum(pair["delivered"] for pair in pairs)
    expected = sum(pair["expected"] for pair in pairs)
    medians = sorted(
        pair["latency_milliseconds"]["p50"] for pair in pairs if pair["latency_milliseconds"]
    )
    ok = all(pair["ok"] for pair in pairs)
    return {
        "from": sender,
        "to": receiver,
        "way": way,
        "status": "ok" if ok else "failed",
        "seconds": round(medians[len(medians) // 2] / 1000, 6) if medians else None,
        "message": "" if ok else f"{delivered} of {expected} delivered",
    }


def behaviour_of(proof: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the verdicts of a proof: deliveries, pages, sockets of the application, releases."""
    for part in proof["parts"]:
        latency = part["latency_milliseconds"]
        cells = matrix_of({"parts": [part]})["cells"]
        good = sum(each["status"] == "ok" for each in cells)
        told = f", p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms" if latency else ""
        yield {
            "name": "delivery between workers",
            "subject": part["name"],
            "status": "ok" if part["ok"] else "failed",
            "seconds": latency["p99"] / 1000 if latency else None,
            "expected": f"{len(cells)} of {len(cells)} pairs",
            "effective": f"{good} of {len(cells)} pairs{told}",
            "message": "" if part["ok"] else "; ".join(_faults(part, cells)),
        }
    for kind in ("pages", "sockets"):
        for each in proof[kind]:
            yield {
                "name": f"{kind[:-1]} {each['path']}",
                "subject": each["place"],
                "status": "failed" if each["failure"] else "ok",
                "seconds": each.get("seconds"),
                "expected": each.get("expected") or "an answer below 500",
                "effective": each["failure"] or str(each.get("status") or "as expected"),
                "message": each["failure"] or "",
            }
    for worker, revision in proof["strangers"].items():
        yield {
            "name": "release of the worker",
            "subject": worker,
            "status": "failed",
            "seconds": None,
            "expected": proof["release"],
            "effective": revision or "unknown",
            "message": f"runs {revision or 'an unknown release'}, not {proof['release']}",
        }


def _faults(part: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with one way of delivery."""
    for each in part["endpoints"]:
        if each["failure"]:
            yield f"{each['worker'] or each['name']}: {each['failure']}"
    for worker in part["unreached"]:
        yield f"{worker}: not reached by any socket through the edge"
    wrong = [each for each in cells if each["status"] != "ok"]
    for each in wrong[:SHOWN_PAIRS]:
        yield f"{each['from']} -> {each['to']}: {each['message']}"
    if len(wrong) > SHOWN_PAIRS:
        yield f"and {len(wrong) - SHOWN_PAIRS} more pairs"


def answer_of(output: str) -> dict[str, Any] | None:
    """Return the JSON that a program printed in its last line; None: there is none."""
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        return found if isinstance(found, dict) else None
    return None


def unproved(name: str, subject: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict on a program that gave no report."""
    said = " ".join(str(result.get("stderr") or result.get("msg") or "").split())[-300:]
    older = "invalid choice" in said or "unrecognized arguments" in said or "--json" in said
    if older:
        said = "the kit on the host is of another version than this checkout; run make upgrade"
    return {
        "name": name,
        "subject": subject,
        "status": "unreadable",
        "seconds": None,
        "expected": "",
        "effective": "",
        "message": said or "no report",
    }


def certificate_checks(
    host: str, found: Mapping[str, Any], place: str, days: Any
) -> dict[str, Any]:
    """Return the verdict on the certificate of an edge, as a client has seen it."""
    problems = found.get("problems") or []
    return {
        "host": host,
        "kind": "certificate",
        "subject": place,
        "term": "certificate",
        "expected": f"valid for more than {days} days",
        "effective": f"{found.get('days_left', '?')} days, until {found.get('not_after')}",
        "source": "a handshake with the edge",
        "status": "failed" if problems else "ok",
        "message": "; ".join(map(str, problems)),
        **(
            {"advice": 'See docs/edge.md, "When the certificate is not valid".'} if problems else {}
        ),
    }


def report_of(
    checks: list[dict[str, Any]],
    matrix: Mapping[str, Any] | None,
    behaviour: list[dict[str, Any]],
    **further: Any,
) -> Report:
    """Return the whole report; ``further`` is what the run itself knows, such as its time."""
    return {
        "format": FORMAT,
        **further,
        "verdict": verdict_of(checks, behaviour),
        "checks": checks,
        "matrix": matrix,
        "behaviour": behaviour,
    }


def lines(report: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield a line for each verdict that is not ok, counts of those that are, and the last line."""
    for status in ("unreadable", "failed"):
        yield from folded(check for check in report["checks"] if check["status"] == status)
        for each in report["behaviour"]:
            if each["status"] == status:
                yield f"{status}  {each['subject']}  {each['name']}: {each['message']}"
    skipped = _counted(each for each in _all(report) if each["status"] == "skipped")
    yield f"ok: {_counted(each for each in _all(report) if each['status'] == 'ok') or 'nothing'}"
    if skipped:
        yield f"does not apply, not counted: {skipped}"
    for way, latency in ((report["matrix"] or {}).get("latency") or {}).items():
        yield f"deliveries {way}: p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"
    yield last_line(report, path)


def _all(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from report["checks"]
    yield from ({"kind": "behaviour", **each} for each in report["behaviour"])


def folded(checks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each verdict; below those that share it, once, what is wrong and to do."""
    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for check in checks:
        # What differs between units alone, such as journalctl -u UNIT, is the same advice.
        unit = check["subject"].partition(" ")[0]
        advice = check.get("advice", "")
        # Other subjects, such as nginx, are words of the advice.
        if unit.endswith(".service"):
            advice = advice.replace(unit, "UNIT")
        alike.setdefault((check["message"], advice), []).append(check)
    for (message, advice), own in alike.items():
        yield from map(check_line, own)
        # Of something unreadable, the message is the reason: a part of its line.
        if own[0]["status"] != "unreadable":
            told = own[0].get("advice", "") if len(own) == 1 else advice
            yield f"        {message[:1].upper()}{message[1:]}. {told}".rstrip()


def check_line(check: Mapping[str, Any]) -> str:
    """Return a verdict as one line: who, what, both values, and where it was read."""
    begin = f"{check['status']}  {check['host']}  {check['subject']}  {check['term']}"
    if check["status"] == "unreadable":
        wanted = f" Expected {check['expected']}." if check["expected"] else ""
        return f"{begin}: not read ({check['source']}): {check['message']}.{wanted}"
    return (
        f"{begin}: expected {check['expected']}, effective {check['effective']} ({check['source']})"
    )


def _counted(checks: Iterable[Mapping[str, Any]]) -> str:
    counts = Counter(each["kind"] for each in checks)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def last_line(report: Mapping[str, Any], path: str) -> str:
    """Return the verdict, and where the report is. A check that does not apply counts nowhere."""
    counts = Counter(each["status"] for each in _all(report) if each["status"] != "skipped")
    total = sum(counts.values())
    told = {
        "verified": f"Verified: {total} checks.",
        "failed": f"NOT verified: {counts['failed']} of {total} checks failed.",
        "incomplete": f"Incomplete: {counts['unreadable']} of {total} checks could not be read.",
    }[report["verdict"]]
    if report["verdict"] == "incomplete" and not counts["ok"]:
        told = "Incomplete: nothing was checked."
    elif report["verdict"] == "failed" and counts["unreadable"]:
        told += f" {counts['unreadable']} could not be read."
    return f"{told} Report: {path}"
