"""The outcome of a conversation in text for people, and in JSON for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from channels_kit.load.outcome import Outcome
from channels_kit.probe.result import Latency

MOST_FAULTS = 20
"""Lines of faults that a person reads; JSON has all of them."""


def render_text(outcome: Outcome) -> str:
    """Return the outcome as text that ends with what happened and what to do next."""
    faults = list(_faults(outcome))
    lines = [*_summary(outcome), *(f"  {fault}" for fault in faults[:MOST_FAULTS])]
    if len(faults) > MOST_FAULTS:
        lines.append(f"  and {_of(len(faults) - MOST_FAULTS, 'fault')} more; --json has all")
    return "\n".join([*lines, "", _conclusion(outcome)])


def as_json(outcome: Outcome) -> dict[str, object]:
    """Return all that was found, for `json.dumps`; times in seconds or as their name says."""
    return {
        "ok": outcome.ok,
        "run": outcome.run,
        "seconds": round(outcome.seconds, 3),
        "sent": outcome.sent,
        "delivered": outcome.delivered,
        "expected": outcome.expected,
        "never_stored": dict(outcome.never_stored),
        "stored_twice": dict(outcome.stored_twice),
        "latency_connected_milliseconds": _latency_as_json(outcome.latency_connected),
        "latency_milliseconds": _latency_as_json(outcome.latency),
        "away_milliseconds": _latency_as_json(outcome.away),
        "away_milliseconds_by_code": {
            code: asdict(latency) for code, latency in outcome.away_by_code.items()
        },
        "closes": dict(outcome.closes),
        "closes_unheard": dict(outcome.closes_unheard),
        "refused": dict(outcome.refused),
        "reconnects": {
            "attempts_per_second_max": outcome.attempts_per_second,
            "opened_per_second_max": outcome.opened_per_second,
            "held_back": sum(client.held_back for client in outcome.clients),
        },
        "breaches": list(outcome.breaches),
        "failed_attempts": dict(outcome.failed_attempts),
        "refusals": dict(outcome.refusals),
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
        f" not let in: {_counts(outcome.failed_attempts)}"
    )
    if outcome.absences:
        yield f"  away until caught up: {_away(outcome)}"
        yield (
            f"  most in a second: {_of(outcome.attempts_per_second, 'attempt')} to come back,"
            f" {outcome.opened_per_second} came to something{_held_back(outcome)}"
        )
    yield (
        f"  copies dropped: {sum(client.dropped for client in clients)};"
        f" gaps asked for: {sum(client.gaps_asked for client in clients)};"
        f" sent again: {sum(client.sent_again for client in clients)};"
        f" frames refused: {_counts(outcome.refusals)}"
    )


def _faults(outcome: Outcome) -> Iterator[str]:
    yield from outcome.breaches
    for client in outcome.clients:
        who = f"{client.name} ({client.user} in {client.room})"
        if client.failure is not None:
            yield f"{who}: {client.failure}"
        elif client.first is None:
            yield f"{who}: never came into the room: {_counts(client.failed_attempts)}"
    for name, sender in outcome.never_stored.items():
        yield f"message {name} of {sender}: nobody was delivered it"
    for name, sequences in outcome.stored_twice.items():
        yield f"message {name}: stored {len(sequences)} times, as {_numbers(sequences)}"
    for client in outcome.clients:
        who = f"{client.name} ({client.user} in {client.room})"
        if client.lost:
            yield f"{who}: lost {len(client.lost)}: {_numbers(client.lost)}"
        if client.twice:
            yield f"{who}: delivered again {len(client.twice)}: {_numbers(client.twice)}"
        if client.out_of_order:
            yield (
                f"{who}: out of order {len(client.out_of_order)}: {_numbers(client.out_of_order)}"
            )
        if client.disagreements:
            yield f"{who}: told otherwise than others: {_numbers(client.disagreements)}"


def _conclusion(outcome: Outcome) -> str:
    """Say what happened, and the next step for the first thing that is wrong."""
    if outcome.ok:
        return (
            f"Proved. Every message of {outcome.sent} came to every client once and in order,"
            f" over {_of(outcome.closes.total(), 'lost connection')}."
        )
    if outcome.delivery_ok:
        return (
            f"Not proved. Every message of {outcome.sent} came to every client once and in order,"
            f" but {'; and '.join(outcome.breaches)}."
            " Next: --timeline has the seconds of it; the worker's journal and the edge's log say"
            " why."
        )
    return f"Not proved. {_what_happened(outcome)}"


def _what_happened(outcome: Outcome) -> str:
    clients = outcome.clients
    if failed := [client for client in clients if client.failure is not None]:
        return (
            f"{_of(len(failed), 'client')} took no part to the end, first {failed[0].name}."
            f" Next: may {failed[0].user} log in, and enter the room {failed[0].room}?"
        )
    if absent := [client for client in clients if client.first is None]:
        return (
            f"{_of(len(absent), 'client')} never came into the room."
            " Next: does each URL answer GET /-/ready?"
        )
    if not outcome.sent:
        return "It was stopped before a message was sent. Next: run it again."
    if outcome.never_stored:
        name = next(iter(outcome.never_stored))
        return (
            f"{_of(len(outcome.never_stored), 'message')} came to nobody."
            f" Next: is {name} in the application's database? If not, a worker took it and"
            " stored nothing; if so, nobody was told of it."
        )
    if outcome.stored_twice:
        return (
            f"{_of(len(outcome.stored_twice), 'message')} got several numbers."
            " Next: is a message unique by room, user and client id in the database?"
        )
    if lost := [client for client in clients if client.lost]:
        return (
            f"{_of(len(lost), 'client')} lost messages,"
            f" first {lost[0].name} number {lost[0].lost[0]}."
            f" Next: does the history of the room {lost[0].room} have that number? If not, the"
            " room's numbers have a hole; if so, the client asked for it and got no answer."
        )
    if any(client.disagreements for client in clients):
        return (
            "Clients were told different messages under one number."
            " Next: do all workers use the same database?"
        )
    return (
        "Messages were delivered again or out of order although each has its number."
        " Next: that is a fault of the probe's own client; keep the report of --json."
    )


def _of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _numbers(numbers: Sequence[int]) -> str:
    """Name the first few numbers, neighbours as a range."""
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


def _away(outcome: Outcome) -> str:
    text = _milliseconds(outcome.away)
    if len(outcome.away_by_code) > 1:
        by_code = (
            f"after {code}: {_milliseconds(latency)}"
            for code, latency in outcome.away_by_code.items()
        )
        text = "; ".join([text, *by_code])
    if still := sum(not absence.over for absence in outcome.absences):
        text += f"; {_of(still, 'client')} still away at the end"
    return text


def _held_back(outcome: Outcome) -> str:
    count = sum(client.held_back for client in outcome.clients)
    return f"; {_of(count, 'attempt')} held back by the probe's own pace" if count else ""


def _milliseconds(latency: Latency | None) -> str:
    if latency is None:
        return "none"
    return f"p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms, max {latency.max:.1f} ms"


def _latency_as_json(latency: Latency | None) -> dict[str, float] | None:
    return asdict(latency) if latency else None
