"""Compares what is in effect with what was stated: checks as data go in, verdicts come out.

No input and no output here. A check names what it looks at (``of``, ``subjects``, ``process``,
``read``), what is expected, and how the two are compared (``is``): docs/verify.md lists all of it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Verdict = dict[str, Any]
Reading = Mapping[str, Any]
Outcome = tuple[bool, str, str]
"""Whether a value is as expected, what is expected, and what is there, in words."""

FIELDS = {
    "term", "of", "subjects", "process", "read", "is", "expected", "message", "advice", "used",
    "limit", "optional", "for_each", "when",
}  # fmt: skip
"""What a check may have; for_each and when are evaluated before it comes here."""

REQUIRED = ("term", "of", "subjects", "read", "is")

SHOWN_ITEMS = 6
"""Items of a list that a verdict shows."""

OUTPUT_LIMIT_WORDS = 4
"""Words of a client-output-buffer-limit of Redis: the class of clients, and three numbers."""

SETTING_UNITS = {
    "B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4,
    "us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000,
}  # fmt: skip
"""Those of PostgreSQL, in bytes or milliseconds."""

INFINITE = ("infinity", "unlimited", "18446744073709551615")

SIZES = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
}
"""The units of redis.conf."""


def number(value: Any) -> float:
    """Return a number.

    Raises:
        ValueError: the value is none.
    """
    if str(value) in INFINITE:
        return float("inf")
    return float(value)


def size(value: Any) -> int | str:
    """Return a size of redis.conf in bytes; another text as it is."""
    match = re.fullmatch(r"(\d+)([a-z]*)", str(value).strip().lower())
    if match is None or match[2] not in SIZES:
        return str(value).strip()
    return int(match[1]) * SIZES[match[2]]


def in_words(value: Any) -> str:
    """Return a value as an operator reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    if isinstance(value, (list, tuple)):
        shown = ", ".join(map(in_words, value[:SHOWN_ITEMS]))
        more = len(value) - SHOWN_ITEMS
        return (f"{shown} and {more} more" if more > 0 else shown) or "none"
    return str(value)


def _equal(expected: Any, found: Any) -> Outcome:
    return str(expected).strip() == str(found).strip(), in_words(expected), in_words(found) or '""'


def _at_least(expected: Any, found: Any) -> Outcome:
    return number(found) >= number(expected), f"at least {in_words(expected)}", in_words(found)


def _at_most(expected: Any, found: Any) -> Outcome:
    return number(found) <= number(expected), f"at most {in_words(expected)}", in_words(found)


def _one_of(expected: Any, found: Any) -> Outcome:
    return (
        str(found) in [str(each) for each in expected],
        " or ".join(map(str, expected)),
        in_words(found),
    )


def _none(expected: Any, found: Any) -> Outcome:
    return not found, "none", in_words(found)


def _only(expected: Any, found: Any) -> Outcome:
    """Return whether every item fits a pattern."""
    others = [each for each in found if not any(fnmatch.fnmatchcase(each, one) for one in expected)]
    return (
        not others,
        f"none but {in_words(expected)}" if expected else "none",
        in_words(others or found),
    )


def _same_items(expected: Any, found: Any) -> Outcome:
    """Return whether two lists have the same items, in whatever order."""
    wanted, there = list(map(str, expected)), list(map(str, found))
    missing = sorted(set(wanted) - set(there))
    more = sorted(set(there) - set(wanted))
    if not missing and not more:
        return True, in_words(wanted), in_words(there)
    told = [f"{in_words(missing)} missing"] if missing else []
    told += [f"{in_words(more)} too many"] if more else []
    return False, in_words(wanted), f"{len(there)} of {len(wanted)}: {', '.join(told)}"


def _same_ranges(expected: Any, found: Any) -> Outcome:
    """Return whether two settings of the kernel are the same, whatever separates their words."""
    wanted, there = " ".join(str(expected).split()), " ".join(str(found).split())
    return _ports(wanted) == _ports(there), wanted, there


def _ports(text: str) -> list[str]:
    # 8001-8001 and 8001 are the same range.
    return [re.sub(r"^(\d+)-\1$", r"\1", each) for each in re.split(r"[\s,]+", text)]


def _same_size(expected: Any, found: Any) -> Outcome:
    """Return whether two values of redis.conf are the same.

    Redis answers with the output limits of all classes of clients, of which one may be stated.
    """
    wanted = [size(each) for each in str(expected).split()]
    there = [size(each) for each in str(found).split()]
    same = wanted == there or (
        len(wanted) == OUTPUT_LIMIT_WORDS
        and wanted
        in [there[at : at + OUTPUT_LIMIT_WORDS] for at in range(0, len(there), OUTPUT_LIMIT_WORDS)]
    )
    return same, in_words(expected) or '""', in_words(found) or '""'


def _same_setting(expected: Any, found: Any) -> Outcome:
    """Return whether a setting of PostgreSQL is as expected; ``found`` has the server's unit."""
    setting, _, unit = str(found).partition(" ")
    wanted = str(expected).strip()
    if isinstance(expected, bool) or {setting, wanted.lower()} <= {
        "on",
        "off",
        "true",
        "false",
        "yes",
        "no",
        "1",
        "0",
    }:
        truths = ("on", "true", "yes", "1")
        return (setting in truths) == (wanted.lower() in truths), in_words(expected), setting
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", wanted)
    if match is None or not unit:
        return wanted.lower() == str(found).lower(), wanted, str(found)
    same = _amount(match[1], match[2] or unit) == _amount(setting, unit)
    return same, wanted if match[2] else f"{wanted} {unit}", str(found)


def _amount(number: str, unit: str) -> float | str:
    """Return a number of bytes or of milliseconds."""
    match = re.fullmatch(r"(\d*)([A-Za-z]+)", unit)
    if match is None or match[2] not in SETTING_UNITS:
        return f"{number} {unit}"
    return int(number) * int(match[1] or 1) * SETTING_UNITS[match[2]]


def _same_memory(expected: Any, found: Any) -> Outcome:
    """Return whether two limits of systemd are the same: 512M is 536870912 bytes."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", str(expected).strip())
    wanted = int(match[1]) * 1024 ** " KMGT".index(match[2] or " ") if match else expected
    return str(wanted) == str(found), in_words(expected), in_words(found)


def _outside(expected: Any, found: Any) -> Outcome:
    """Return whether ports are outside of ranges such as 10240-65535."""
    bounds = [tuple(map(int, each.split("-"))) for each in found]
    inside = [
        int(port) for port in expected if any(low <= int(port) <= high for low, high in bounds)
    ]
    wanted = f"none of the ports {in_words(list(expected))}"
    return (
        not inside,
        wanted,
        f"{in_words(found)}, with {in_words(inside)}" if inside else in_words(found),
    )


COMPARISONS: Mapping[str, Callable[[Any, Any], Outcome]] = {
    "equal": _equal,
    "at_least": _at_least,
    "at_most": _at_most,
    "one_of": _one_of,
    "none": _none,
    "only": _only,
    "same_items": _same_items,
    "same_memory": _same_memory,
    "same_ranges": _same_ranges,
    "same_setting": _same_setting,
    "same_size": _same_size,
    "outside": _outside,
}
FURTHER = ("same_values", "at_most_percent", "same_everywhere")
"""Comparisons that need more than the two values."""


def mistakes(check: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a check as it stands in meta/verify.yml."""
    for name in REQUIRED:
        if name not in check:
            yield f"{check.get('term', check)}: {name} is missing"
    for name in check.keys() - FIELDS:
        yield f"{check.get('term', check)}: {name} is not a field of a check"
    if check.get("is") not in (*COMPARISONS, *FURTHER):
        yield f"{check.get('term', check)}: {check.get('is')} is not a comparison"
    elif "expected" not in check and check["is"] not in ("none", "same_everywhere"):
        yield f"{check.get('term', check)}: expected is missing"
    if check.get("is") == "at_most_percent" and not check.get("limit"):
        yield f"{check.get('term', check)}: limit is missing"


def evaluate(check: Mapping[str, Any], readings: Sequence[Reading], host: str) -> list[Verdict]:
    """Return the verdicts of a check: one for each subject, and for each value of its processes.

    A subject that was not read is ``unreadable``; so is a pattern that nothing fits.
    """
    of_kind = [each for each in readings if each["kind"] == check["of"]]
    verdicts: list[Verdict] = []
    for subject in check["subjects"]:
        names = [subject]
        if "*" in subject:
            named = [each["subject"] for each in of_kind if each["subject"] != "*"]
            names = sorted(set(fnmatch.filter(named, subject))) or [subject]
        for name in names:
            verdicts += _of_subject(check, name, of_kind, host)
    return verdicts


def _of_subject(
    check: Mapping[str, Any], subject: str, readings: Sequence[Reading], host: str
) -> Iterator[Verdict]:
    own = [each for each in readings if each["subject"] in (subject, "*")]
    pattern = check.get("process") or "*"
    found = [
        each
        for each in own
        if each["key"] == check["read"]
        and (not each["process"] or fnmatch.fnmatchcase(each["process"], pattern))
    ] or [each for each in own if each["key"] == "*"]
    if not found:
        process = f" of {pattern}" if pattern != "*" else ""
        reason = f"{check['read']}{process} was not found"
        state = "absent" if check.get("optional") else "unreadable"
        found = [{"state": state, "reason": reason, "source": check["of"], "process": ""}]
    for reading in found:
        label = subject
        if reading["process"] not in ("", "main", "all"):
            label = f"{subject} ({reading['process']})"
        verdict = _verdict(check, host, label, reading["source"])
        if reading["state"] == "absent":
            yield {**verdict, "status": "skipped", "message": reading["reason"]}
        elif reading["state"] == "unreadable":
            status = "skipped" if check.get("optional") else "unreadable"
            yield {**verdict, "status": status, "message": reading["reason"]}
        else:
            yield from _compared(check, verdict, reading, own)


def _verdict(check: Mapping[str, Any], host: str, subject: str, source: str) -> Verdict:
    return {
        "host": host,
        "kind": check["of"],
        "subject": subject,
        "term": check["term"],
        "expected": in_words(check["expected"]) if _is_plain(check.get("expected")) else "",
        "effective": "",
        "source": source,
        "status": "ok",
        "message": "",
    }


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, (Mapping, list, tuple))


def _compared(
    check: Mapping[str, Any], verdict: Verdict, reading: Reading, own: Sequence[Reading]
) -> Iterator[Verdict]:
    expected, value = check.get("expected"), reading["value"]
    if check["is"] == "same_values":
        yield from _same_values(check, verdict, expected or {}, value)
        return
    if check["is"] == "same_everywhere":
        # The report compares it with the other hosts.
        yield {**verdict, "effective": in_words(value), "compare": "everywhere"}
        return
    used: float | None
    limit: float | None
    try:
        if check["is"] == "at_most_percent":
            used, limit = number(value), _other(check["limit"], reading, own)
            share = 100 * used / limit if limit else 0.0
            outcome = (
                share <= number(expected),
                f"at most {in_words(expected)} % of {in_words(limit)}",
                in_words(value),
            )
        else:
            outcome = COMPARISONS[check["is"]](expected, value)
            used, limit = _head_room(check, reading, own)
    except (ValueError, TypeError, KeyError) as error:
        message = f"cannot be compared: {error}"
        yield {**verdict, "effective": in_words(value), "status": "unreadable", "message": message}
        return
    ok, wanted, there = outcome
    verdict.update(expected=wanted, effective=there)
    if used is not None and limit is not None and limit != float("inf"):
        verdict.update(used=used, limit=limit)
    yield verdict if ok else _failed(check, verdict)


def _failed(check: Mapping[str, Any], verdict: Verdict) -> Verdict:
    message = check.get("message") or f"{check['term']} is not as stated"
    # UNIT stands for the subject, without the process in it.
    advice = check.get("advice", "").replace("UNIT", verdict["subject"].partition(" ")[0])
    return {**verdict, "status": "failed", "message": message, "advice": advice}


def _same_values(
    check: Mapping[str, Any],
    verdict: Verdict,
    expected: Mapping[str, str],
    found: Mapping[str, str],
) -> Iterator[Verdict]:
    """Yield one verdict for each name whose value differs, or one for all."""
    differ = [name for name in expected if expected[name] != found.get(name)]
    count = len(expected)
    if not differ:
        told = f"{count} variables as in the inventory"
        yield {**verdict, "expected": told, "effective": told}
    for name in sorted(differ):
        own = {**verdict, "term": f"{check['term']} {name}", "expected": expected[name]}
        yield _failed(check, {**own, "effective": found.get(name, "not set")})


def _other(key: Any, reading: Reading, own: Sequence[Reading]) -> float:
    """Return the number in another reading of the subject, or the number itself."""
    for each in own:
        if each["key"] == key and each["process"] in ("", "all", reading["process"]):
            return number(each["value"])
    return number(key)


def _head_room(
    check: Mapping[str, Any], reading: Reading, own: Sequence[Reading]
) -> tuple[float | None, float | None]:
    """Return what is used and the limit of it, if the check says where it is read."""
    try:
        if check.get("used"):
            return _other(check["used"], reading, own), number(reading["value"])
        if check.get("limit"):
            return number(reading["value"]), _other(check["limit"], reading, own)
    except (ValueError, TypeError):
        # The bar is left out; the value itself was compared.
        pass
    return None, None


def agree(verdicts: Sequence[Verdict]) -> None:
    """Complete the verdicts that are compared across hosts: what most have is expected.

    If no value has more than the others, none is right: all of them are reported.
    """
    by_term: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.pop("compare", None):
            by_term.setdefault(verdict["term"], []).append(verdict)
    for term, own in by_term.items():
        counts: dict[str, int] = {}
        for verdict in own:
            counts[verdict["effective"]] = counts.get(verdict["effective"], 0) + 1
        ranked = sorted(counts, key=lambda each: -counts[each])
        tie = len(ranked) > 1 and counts[ranked[0]] == counts[ranked[1]]
        for verdict in own:
            verdict["expected"] = "the same on every host" if tie else ranked[0]
            if tie or verdict["effective"] != ranked[0]:
                verdict["status"] = "failed"
                verdict["message"] = f"{term} differs between processes of the cluster"


def clocks(moments: Mapping[str, tuple[float, float, float]], most: float) -> list[Verdict]:
    """Compare the hosts' clocks with the controller's.

    Args:
        moments: by host, when the host was asked and when its answer was there by the controller's
            clock, and what the host's clock said in between.
        most: seconds that two clocks may differ.
    """
    # The host's clock minus the controller's is between these two.
    bounds = {
        host: (told - after, told - before) for host, (before, after, told) in moments.items()
    }
    verdicts = []
    for host, (low, high) in bounds.items():
        # What cannot be explained by the time that the question took.
        apart = {
            other: max(0.0, low - theirs[1], theirs[0] - high)
            for other, theirs in bounds.items()
            if other != host
        }
        if not apart:
            continue
        others = [other for other, seconds in apart.items() if seconds > most]
        wrong = len(others) > len(apart) / 2 or (len(apart) == 1 and bool(others))
        worst = max(apart.values())
        verdict = {
            "host": host, "kind": "clock", "subject": "clock", "term": "difference between hosts",
            "expected": f"at most {in_words(most)} s", "effective": f"at least {worst:.2f} s",
            "source": "the time of the host, as it was read", "status": "ok", "message": "",
        }  # fmt: skip
        if wrong:
            verdict["status"] = "failed"
            verdict["message"] = f"the clock differs from that of {in_words(others)}"
            verdict["advice"] = "Run chronyc sources on the host."
        verdicts.append(verdict)
    return verdicts


def verdict_of(checks: Sequence[Verdict], behaviour: Sequence[Verdict]) -> str:
    """Return the verdict of a run. Nothing checked is never a success."""
    statuses = [each["status"] for each in [*checks, *behaviour]]
    if "failed" in statuses:
        return "failed"
    if "unreadable" in statuses or "ok" not in statuses:
        return "incomplete"
    return "verified"
