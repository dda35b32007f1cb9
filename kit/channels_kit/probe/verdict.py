"""The last line of a report: what is proved, what is not, and what to do next."""

from collections.abc import Sequence

from channels_kit.paths import READY
from channels_kit.probe.address import http_url
from channels_kit.probe.result import Endpoint, PageResult, Report, SocketResult

PATHS_SHOWN = 3
"""Paths that are named in one group; of more their number is."""


def proved(report: Report) -> list[str]:
    """Return what is proved: of wires, pages and sockets those that hold."""
    held = {"wires": report.wires_ok, "pages": report.pages_ok, "sockets": report.sockets_ok}
    return [name for name, ok in held.items() if ok]


def failed(report: Report) -> list[str]:
    """Return what is not proved, though it was looked at."""
    held = {"wires": report.wires_ok, "pages": report.pages_ok, "sockets": report.sockets_ok}
    wrong = [name for name, ok in held.items() if ok is False]
    return [*wrong, "release"] if report.strangers else wrong


def not_checked(report: Report) -> dict[str, str]:
    """Return what was not looked at, with the reason: that is no success."""
    looked_at = {"pages": report.pages_ok, "sockets": report.sockets_ok}
    named = dict(zip(looked_at, report.named, strict=True))
    return {
        name: f"no worker runs release {report.release}" if named[name] else "none named"
        for name, ok in looked_at.items()
        if ok is None
    }


def verdict(report: Report) -> str:
    """Return the one line."""
    if not report.ok:
        return f"Not proved: {', '.join(failed(report))}. {advice(report)}"
    words = {
        "wires": wires_in_words(report),
        "pages": pages_in_words(report.pages),
        "sockets": sockets_in_words(report.sockets),
    }
    line = f"Proved: {', '.join(f'{name} ({words[name]})' for name in proved(report))}."
    left_out = [f"{name} ({reason})" for name, reason in not_checked(report).items()]
    return f"{line} Not checked: {', '.join(left_out)}." if left_out else line


def wires_in_words(report: Report) -> str:
    """Say between how many pairs of workers messages arrive."""
    counts: list[str] = []
    for part in report.parts:
        cells = part.cells()
        count = f"{sum(cell.ok for cell in cells)} of {len(cells)}"
        about = f" from and to {workers_in_words(part.touched)}" if part.touched else ""
        counts.append(f"{count} pairs{about}" if not counts else count)
    if len(counts) == 1:
        return counts[0]
    return ", ".join(
        f"{count} {part.name}" for count, part in zip(counts, report.parts, strict=True)
    )


def workers_in_words(names: Sequence[str]) -> str:
    """Name a few workers; of more, say how many they are."""
    return " ".join(names) if len(names) <= PATHS_SHOWN else f"{len(names)} workers"


def pages_in_words(pages: Sequence[PageResult]) -> str:
    """Say which pages were answered, and where."""
    return _grouped(pages)


def sockets_in_words(sockets: Sequence[SocketResult]) -> str:
    """Say what became of which sockets, and where."""
    groups: dict[str, list[SocketResult]] = {}
    for socket in sockets:
        held = f", open for {socket.seconds:g} s" if socket.seconds else ""
        groups.setdefault(f" {socket.expected}" if socket.expected else held, []).append(socket)
    return "; ".join(_grouped(group, became) for became, group in groups.items())


def _grouped(results: Sequence[PageResult | SocketResult], became: str = "") -> str:
    """Name paths, what became of them, and on how many workers and edges."""
    named = list(dict.fromkeys(each.path for each in results))
    shown = ", ".join(named[:PATHS_SHOWN])
    if len(named) > PATHS_SHOWN:
        shown += f" and {len(named) - PATHS_SHOWN} more"
    workers = len({each.place for each in results if each.direct})
    edges = len({each.place for each in results if not each.direct})
    where = [f"on {workers} worker{'s' * (workers != 1)}"] if workers else []
    if edges:
        where.append("through the edge" if edges == 1 else f"through {edges} edges")
    before, after = ("", became) if became.startswith(",") else (became, "")
    return f"{shown}{before} {' and '.join(where)}{after}"


def advice(report: Report) -> str:
    """Name the next step for the first fault."""
    for part in report.parts:
        for endpoint in part.failed_endpoints:
            return _after_a_socket(endpoint)
        if part.unreached:
            worker = part.unreached[0]
            return f"Next: check that {worker} runs, and that the upstream of the edge contains it"
    receivers = {cell.receiver for cell in report.missing_pairs}
    for part in report.parts:
        for endpoint in part.endpoints:
            if endpoint.label in receivers:
                return (
                    f"Next: check {endpoint.label}: {_ask(endpoint)}; check that the channel"
                    " layer's Redis runs, and that every worker uses the same one"
                )
    if not report.wires_ok:
        return (
            "Next: run it again. If messages still arrive twice or out of order, read the channel"
            " layer's log."
        )
    for worker, _ in report.strangers:
        return f"Next: restart {worker}, so that it runs release {report.release}"
    looked_at: list[PageResult | SocketResult] = [*report.pages, *report.sockets]
    wrong = [each for each in looked_at if each.failure]
    # What a worker says to the one who asks it directly says more than what an edge makes of it.
    first = min(wrong, key=lambda each: not each.direct)
    said = f"{first.path}: {first.failure}"
    if first.direct:
        return f"Next: read the log of {first.place}: {said}"
    return f"Next: check the edge {first.url}: {said}"


def _after_a_socket(endpoint: Endpoint) -> str:
    failure = endpoint.failure or ""
    if failure.endswith("of silence"):
        return (
            f"Next: read the log of {endpoint.label}. A time-out of the channel layer's client"
            " closes sockets that wait, as redis 8 does with channels_redis: lock redis<8"
        )
    redis = "; check that the channel layer's Redis runs" if "channel layer" in failure else ""
    return f"Next: check {endpoint.label}: {_ask(endpoint)}{redis}"


def _ask(endpoint: Endpoint) -> str:
    return f"curl {http_url(endpoint.url, READY)}"
