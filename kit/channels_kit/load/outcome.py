"""What a run found: plain values, for programs and for the report."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from channels_kit.load.latencies import Latencies
from channels_kit.load.limits import Limits
from channels_kit.load.timeline import Second
from channels_kit.probe.result import Latency


@dataclass(frozen=True)
class Recovery:
    """The time from the loss of a connection until the client has caught up on another.

    Attributes:
        code: the close code of the connection that was lost.
        seconds: how long it took, from the closing frame where there was one.
        complete: whether the client had caught up when the run ended.
    """

    code: int
    seconds: float
    complete: bool = True


@dataclass(frozen=True)
class ClientOutcome:
    """One client.

    Attributes:
        name: its name.
        room: the room it was in.
        user: who it was logged in as.
        failure: why it left the run early; None where it did not.
        first: the newest number when it joined the room; None where it never joined.
        last: the highest number delivered to it.
        delivered: how many messages were, each counted once.
        lost: numbers that its room has and that were not delivered to it.
        duplicates: numbers that were delivered more than once.
        out_of_order: numbers that were delivered after a higher one.
        conflicts: numbers under which it received another message than other clients.
        duplicates_dropped: copies that came over the network and were dropped: no fault.
        gaps_asked: how often it asked for a gap.
        resent: how often it sent a message again.
        closes: how often its connection ended, by close code; 1006 where there was none.
        early_closes: the same, of connections that ended before their first frame.
        failed_connects: how often it could not connect, by HTTP status or reason.
        failed_connects_detail: the same in detail.
        rejected_frames: how often the server rejected a frame of it, by code.
        recoveries: how long it took to catch up after each loss.
        throttled: how many reconnect attempts waited for this program's own rate limit.
    """

    name: str
    room: str
    user: str
    failure: str | None
    first: int | None
    last: int
    delivered: int
    lost: tuple[int, ...]
    duplicates: tuple[int, ...]
    out_of_order: tuple[int, ...]
    conflicts: tuple[int, ...]
    duplicates_dropped: int
    gaps_asked: int
    resent: int
    closes: Mapping[int, int]
    early_closes: Mapping[int, int]
    failed_connects: Mapping[str, int]
    failed_connects_detail: Mapping[str, int]
    rejected_frames: Mapping[str, int]
    recoveries: tuple[Recovery, ...]
    throttled: int

    @property
    def ok(self) -> bool:
        """Whether it received every message of its room once and in order."""
        return (
            self.failure is None
            and self.first is not None
            and not (self.lost or self.duplicates or self.out_of_order or self.conflicts)
        )


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        run: its identifier, which is part of the identifier of each of its messages.
        seconds: how long messages were sent.
        sent: how many were.
        delivered: how many deliveries there were to all clients, duplicates not counted.
        undelivered: messages that no client received, with their senders.
        stored_twice: messages that have several numbers, with these numbers.
        connected_latencies: from sending to delivery, of messages sent once to clients that
            were connected all the time.
        other_latencies: the same, where sender or receiver had lost its connection.
        reconnect_attempts_per_second: the most reconnect attempts that fell into one second.
        reconnected_per_second: the most of them that succeeded within one second.
        began_at: when the first client began to connect, in ISO 8601.
        timeline: what happened to the sockets, second by second from then.
        limits: what was required besides delivery.
        clients: every client.
    """

    run: str
    seconds: float
    sent: int
    delivered: int
    undelivered: Mapping[str, str]
    stored_twice: Mapping[str, tuple[int, ...]]
    connected_latencies: Latencies = field(repr=False)
    other_latencies: Latencies = field(repr=False)
    reconnect_attempts_per_second: int
    reconnected_per_second: int
    began_at: str
    timeline: Sequence[Second] = field(repr=False)
    limits: Limits
    clients: tuple[ClientOutcome, ...]

    @property
    def ok(self) -> bool:
        """Whether delivery is proved, and no limit is breached."""
        return self.delivery_ok and not self.breaches

    @property
    def delivery_ok(self) -> bool:
        """Whether delivery is proved; a run without a message proves nothing."""
        return (
            self.sent > 0
            and not self.undelivered
            and not self.stored_twice
            and all(client.ok for client in self.clients)
        )

    @cached_property
    def breaches(self) -> tuple[str, ...]:
        """Each limit that is breached, in words."""
        return tuple(self._breaches())

    def _breaches(self) -> Iterator[str]:
        limits = self.limits
        ended = self.closes + self.early_closes
        others = {code: count for code, count in ended.items() if code not in limits.codes}
        if limits.codes and others:
            found = ", ".join(f"{count} with {code}" for code, count in sorted(others.items()))
            expected = ", ".join(map(str, sorted(limits.codes)))
            yield f"unexpected close codes: {found}; expected: {expected}"
        recovery, most = self.recovery, limits.recovery_p99
        if recovery is not None and most is not None and recovery.p99 > most * 1000:
            yield f"recovery took {recovery.p99 / 1000:.1f} s (p99); allowed: {most:g} s"
        rate = limits.reconnect_rate
        attempts = self.reconnect_attempts_per_second
        if rate is not None and attempts > rate:
            yield f"{attempts} reconnect attempts within one second; allowed: {rate:g}"

    @property
    def expected(self) -> int:
        """How many deliveries were due, of all messages in the rooms."""
        return self.delivered + sum(len(client.lost) for client in self.clients)

    @cached_property
    def latency_connected(self) -> Latency | None:
        """How late messages were while sender and receiver were connected."""
        return self.connected_latencies.summary()

    @cached_property
    def latency(self) -> Latency | None:
        """How late all messages were."""
        return (self.connected_latencies | self.other_latencies).summary()

    @cached_property
    def recovery(self) -> Latency | None:
        """How long recoveries took; those that are not complete count until the end."""
        return Latency.of(recovery.seconds for recovery in self.recoveries)

    @property
    def recovery_by_code(self) -> dict[int, Latency]:
        """How long recoveries took, by the close code of the lost connection."""
        by_code: defaultdict[int, list[float]] = defaultdict(list)
        for recovery in self.recoveries:
            by_code[recovery.code].append(recovery.seconds)
        found = {code: Latency.of(seconds) for code, seconds in sorted(by_code.items())}
        return {code: latency for code, latency in found.items() if latency is not None}

    @property
    def recoveries(self) -> list[Recovery]:
        """Every recovery of every client."""
        return [recovery for client in self.clients for recovery in client.recoveries]

    @property
    def closes(self) -> Counter[int]:
        """How often connections ended, by close code."""
        return sum((Counter(client.closes) for client in self.clients), Counter())

    @property
    def early_closes(self) -> Counter[int]:
        """How often connections ended before their first frame, by close code."""
        return sum((Counter(client.early_closes) for client in self.clients), Counter())

    @property
    def failed_connects(self) -> Counter[str]:
        """How often clients could not connect, by HTTP status or reason."""
        return sum((Counter(client.failed_connects) for client in self.clients), Counter())

    @property
    def failed_connects_detail(self) -> Counter[str]:
        """How often clients could not connect, in detail."""
        return sum((Counter(client.failed_connects_detail) for client in self.clients), Counter())

    @property
    def rejected_frames(self) -> Counter[str]:
        """How often the server rejected a frame, by code."""
        return sum((Counter(client.rejected_frames) for client in self.clients), Counter())
