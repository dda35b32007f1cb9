"""The outcome of a run in text for people, and in JSON for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from channels_kit.load.outcome import ClientOutcome, Outcome
from channels_kit.probe.result import Latency

MOST_FAULTS = 20
"""Lines of faults in the text; JSON has all of them."""


def render_text(outcome: Outcome) -> str:
    """Return the outcome as text that ends with the result and what to do next."""
    faults = list(_faults(outcome))
    lines = [*_summary(outcome), *(f"  {fault}" for fault in faults[:MOST_FAULTS])]
    if len(faults) > MOST_FAULTS:
        lines.append(f"  and {_of(len(faults) - MOST_FAULTS, 'more fault')}; --json lists all")
    return "\n".join([*lines, "", _conclusion(outcome)])


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return everything found, for `json.dumps`; docs/load.md describes the keys."""
    return {
        "ok": outcome.ok,
        "run": outcome.run,
        "seconds": round(outcome.seconds, 3),
        "sent": outcome.sent,
        "delivered": outcome.delivered,
        "expected": outcome.expected,
        "undelivered": dict(outcome.undelivered),
        "stored_twice": dict(outcome.stored_twice),
        "latency_connected_milliseconds": _latency_as_json(outcome.latency_connected),
        "latency_milliseconds": _latency_as_json(outcome.latency),
        "recovery_milliseconds": _latency_as_json(outcome.recovery),
        "recovery_milliseconds_by_code": {
            code: asdict(latency) for code, latency in outcome.recovery_by_code.items()
        },
        "closes": dict(outcome.closes),
        "early_closes": dict(outcome.early_closes),
        "failed_connects": dict(outcome.failed_connects),
        "failed_connects_detail": dict(outcome.failed_connects_detail),
        "reconnects": {
            "attempts_per_second_max": outcome.reconnect_attempts_per_second,
            "reconnected_per_second_max": outcome.reconnected_per_second,
            "throttled": sum(client.throttled for client in outcome.clients),
        },
        "rejected_frames": dict(outcome.rejected_frames),
        "breaches": list(outcome.breaches),
        "clients": [{**asdict(client), "ok": client.ok} for client in outcome.clients],
    }


def timeline_as_json(outcome: Outcome) -> dict[str, object]:
    """Return what happened to the sockets second by second, for `json.dumps`."""
    return {
        "run": outcome.run,
        "began_at": outcome.began_at,
        "clients": len(outcome.clients),
        "seconds": [asdict(second) for second in outcome.timeline],
    }


def _summary(outcome: Outcome) -> Iterator[str]:
    clients = outcome.clients
    rooms = len({client.room for client in clients})
    yield (
        f"load: {_of(len(clients), 'client')} in {_of(rooms, 'room')},"
        f" {_of(outcome.sent, 'message')} sent in {outcome.seconds:.0f} s,"
        f" {outcome.delivered} of {outcome.expected} deliveries"
    )
    yield (
        f"  latency while connected: {_milliseconds(outcome.latency_connected)};"
        f" overall: {_milliseconds(outcome.latency)}"
    )
    yield (
        f"  connections lost: {_counts(outcome.closes)};"
        f" failed connects: {_counts(outcome.failed_connects_detail)}"
    )
    if outcome.recoveries:
        yield f"  recovery: {_recovery(outcome)}"
        yield (
            f"  peak per second: {_of(outcome.reconnect_attempts_per_second, 'reconnect attempt')},"
            f" {outcome.reconnected_per_second} reconnected{_throttled(outcome)}"
        )
    yield (
        f"  duplicates dropped: {sum(client.duplicates_dropped for client in clients)};"
        f" gaps asked for: {sum(client.gaps_asked for client in clients)};"
        f" resent: {sum(client.resent for client in clients)};"
        f" rejected frames: {_counts(outcome.rejected_frames)}"
    )


def _faults(outcome: Outcome) -> Iterator[str]:
    yield from outcome.breaches
    for client in outcome.clients:
        if client.failure is not None:
            yield f"{_who(client)}: {client.failure}"
        elif client.first is None:
            yield f"{_who(client)}: never joined: {_counts(client.failed_connects_detail)}"
    for name, sender in outcome.undelivered.items():
        yield f"message {name} of {sender}: received by no client"
    for name, sequences in outcome.stored_twice.items():
        yield f"message {name}: stored {len(sequences)} times, as {_numbers(sequences)}"
    for client in outcome.clients:
        for what, numbers in (
            ("lost", client.lost),
            ("duplicates", client.duplicates),
            ("out of order", client.out_of_order),
            ("conflicts", client.conflicts),
        ):
            if numbers:
                yield f"{_who(client)}: {what} {len(numbers)}: {_numbers(numbers)}"


def _conclusion(outcome: Outcome) -> str:
    """Return the result, and the next step for the first fault."""
    proved = f"Every client received all of {_of(outcome.sent, 'message')} once and in order"
    if outcome.ok:
        return f"Proved. {proved}, over {_of(outcome.closes.total(), 'lost connection')}."
    if outcome.delivery_ok:
        return (
            f"Not proved. {proved}, but a limit is breached: {'; '.join(outcome.breaches)}."
            " Next: draw the timeline (--timeline, then `plot`) to see when; read the workers'"
            " journals and the edge's log of that time."
        )
    return f"Not proved. {_first_fault(outcome)}"


def _first_fault(outcome: Outcome) -> str:
    clients = outcome.clients
    if failed := [client for client in clients if client.failure is not None]:
        return (
            f"{_of(len(failed), 'client')} left the run early, first {_who(failed[0])}."
            " Next: check that the user may log in and may enter the room."
        )
    if absent := [client for client in clients if client.first is None]:
        return (
            f"{_of(len(absent), 'client')} never joined a room."
            " Next: check that each URL answers GET /-/ready."
        )
    if not outcome.sent:
        return (
            "No message was sent: --duration is 0, or the run was stopped early."
            " Next: run it again, longer."
        )
    if gone := sum(not recovery.complete for recovery in outcome.recoveries):
        return (
            f"{_of(gone, 'client')} had not recovered when the grace period ended."
            " Next: check that each URL answers GET /-/ready, or give a longer --grace."
        )
    if outcome.undelivered:
        name = next(iter(outcome.undelivered))
        return (
            f"{_of(len(outcome.undelivered), 'message')} reached no client."
            f" Next: look for {name} in the application's database. If it is missing, a worker"
            " accepted it without storing it; otherwise it was stored but not sent to the room."
        )
    if outcome.stored_twice:
        return (
            f"{_of(len(outcome.stored_twice), 'message')} got several numbers."
            " Next: check that a message is unique by room, user and client id in the database."
        )
    if lost := [client for client in clients if client.lost]:
        return (
            f"{_of(len(lost), 'client')} lost messages,"
            f" first {lost[0].name} number {lost[0].lost[0]}."
            f" Next: look for that number in the history of the room {lost[0].room}. If it is"
            " missing, the room's numbers have a gap; otherwise the client asked and got no answer."
        )
    if any(client.conflicts for client in clients):
        return (
            "Clients received different messages under one number."
            " Next: check that all workers use the same database."
        )
    return (
        "Messages were delivered more than once or out of order although they are numbered."
        " Next: this is a bug of the load tool's own client; report it with the file of --json."
    )


def _who(client: ClientOutcome) -> str:
    return f"{client.name} ({client.user} in {client.room})"


def _of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _numbers(numbers: Sequence[int]) -> str:
    """Name the first few numbers, consecutive ones as a range."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in ranges[:5]]
    return ", ".join(shown) + (", ..." if len(ranges) > len(shown) else "")


def _counts(counts: Mapping[int, int] | Mapping[str, int]) -> str:
    total = sum(counts.values())
    if not total:
        return "0"
    return f"{total} ({', '.join(f'{name}: {count}' for name, count in counts.items())})"


def _recovery(outcome: Outcome) -> str:
    text = _milliseconds(outcome.recovery)
    if len(outcome.recovery_by_code) > 1:
        by_code = (
            f"after {code}: {_milliseconds(latency)}"
            for code, latency in outcome.recovery_by_code.items()
        )
        text = "; ".join([text, *by_code])
    if incomplete := sum(not recovery.complete for recovery in outcome.recoveries):
        text += f"; {_of(incomplete, 'client')} not recovered at the end"
    return text


def _throttled(outcome: Outcome) -> str:
    count = sum(client.throttled for client in outcome.clients)
    return f"; {_of(count, 'attempt')} delayed by the load tool's own rate limit" if count else ""


def _milliseconds(latency: Latency | None) -> str:
    if latency is None:
        return "none"
    return f"p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms, max {latency.max:.1f} ms"


def _latency_as_json(latency: Latency | None) -> dict[str, float] | None:
    return asdict(latency) if latency else None
