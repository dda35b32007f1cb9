"""What a conversation found: plain values, for programs and for the report."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from channels_kit.load.latencies import Latencies
from channels_kit.load.limits import Limits
from channels_kit.load.timeline import Second
from channels_kit.probe.result import Latency


@dataclass(frozen=True)
class Absence:
    """A time between the loss of a connection and having caught up by another.

    Attributes:
        code: the close code of the connection that was lost.
        seconds: how long it was, from the closing frame where there was one.
        over: whether it was over when the conversation ended.
    """

    code: int
    seconds: float
    over: bool = True


@dataclass(frozen=True)
class ClientOutcome:
    """One client.

    Attributes:
        name: its name.
        room: the room it was in.
        user: who it was logged in as.
        failure: why it took no part any more; None where it did.
        first: the number it knew when it came; None where it never came.
        last: the highest number delivered to it.
        delivered: how many messages were, each counted once.
        lost: numbers that its room has, that were not delivered.
        twice: numbers that were delivered again.
        out_of_order: numbers that were delivered after a higher one.
        disagreements: numbers under which it was told something else than others.
        dropped: copies that came over the network and were not delivered: no fault.
        gaps_asked: how often it asked for a gap.
        sent_again: how often it sent a message again.
        closes: how often its connection ended, by close code; 1006 where none was said.
        closes_unheard: the same, of connections that ended before they said anything.
        refused: how often it was not let in, by HTTP status or by what there was instead.
        failed_attempts: the same in detail.
        refusals: how often a frame of it was refused, by code.
        away: how long it was away after each loss.
        held_back: how many attempts to come back waited for the probe's own pace.
    """

    name: str
    room: str
    user: str
    failure: str | None
    first: int | None
    last: int
    delivered: int
    lost: tuple[int, ...]
    twice: tuple[int, ...]
    out_of_order: tuple[int, ...]
    disagreements: tuple[int, ...]
    dropped: int
    gaps_asked: int
    sent_again: int
    closes: Mapping[int, int]
    closes_unheard: Mapping[int, int]
    refused: Mapping[str, int]
    failed_attempts: Mapping[str, int]
    refusals: Mapping[str, int]
    away: tuple[Absence, ...]
    held_back: int

    @property
    def ok(self) -> bool:
        """Whether it was delivered every message of its room once and in order."""
        return (
            self.failure is None
            and self.first is not None
            and not (self.lost or self.twice or self.out_of_order or self.disagreements)
        )


@dataclass(frozen=True)
class Outcome:
    """A conversation.

    Attributes:
        run: its own name, in the names of its messages.
        seconds: how long messages were sent.
        sent: how many were.
        delivered: how many deliveries there were to all clients, copies not counted.
        never_stored: messages that no client was delivered, with their senders.
        stored_twice: messages that have several numbers, with these numbers.
        connected_latencies: from sending to delivery, of messages sent at once to clients that
            were connected all the time.
        other_latencies: the same, where sender or receiver were away.
        attempts_per_second: the most attempts to come back that fell into one second.
        opened_per_second: the most of them that came to something within one second.
        began_at: when the first client began to connect, in ISO 8601.
        timeline: what happened to the sockets, second by second from then.
        limits: what was asked for besides delivery.
        clients: every client.
    """

    run: str
    seconds: float
    sent: int
    delivered: int
    never_stored: Mapping[str, str]
    stored_twice: Mapping[str, tuple[int, ...]]
    connected_latencies: Latencies = field(repr=False)
    other_latencies: Latencies = field(repr=False)
    attempts_per_second: int
    opened_per_second: int
    began_at: str
    timeline: Sequence[Second] = field(repr=False)
    limits: Limits
    clients: tuple[ClientOutcome, ...]

    @property
    def ok(self) -> bool:
        """Whether delivery is proved, and every limit that was asked for was kept."""
        return self.delivery_ok and not self.breaches

    @property
    def delivery_ok(self) -> bool:
        """Whether delivery is proved; a conversation without a message proves nothing."""
        return (
            self.sent > 0
            and not self.never_stored
            and not self.stored_twice
            and all(client.ok for client in self.clients)
        )

    @cached_property
    def breaches(self) -> tuple[str, ...]:
        """Each limit that was not kept, in words."""
        return tuple(self._breaches())

    def _breaches(self) -> Iterator[str]:
        limits = self.limits
        ended = self.closes + self.closes_unheard
        others = {code: count for code, count in ended.items() if code not in limits.codes}
        if limits.codes and others:
            found = ", ".join(f"{count} with {code}" for code, count in sorted(others.items()))
            expected = ", ".join(map(str, sorted(limits.codes)))
            yield f"open connections ended otherwise than expected ({expected}): {found}"
        away, most = self.away, limits.away_p99
        if away is not None and most is not None and away.p99 > most * 1000:
            yield f"clients were away for {away.p99 / 1000:.1f} s (p99); allowed: {most:g} s"
        rate = limits.reconnect_rate
        if rate is not None and self.attempts_per_second > rate:
            attempts = self.attempts_per_second
            yield f"{attempts} attempts to come back fell into one second; allowed: {rate:g}"

    @property
    def expected(self) -> int:
        """How many deliveries there were to be, of all messages in the rooms."""
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
    def away(self) -> Latency | None:
        """How long clients were away; those that still were, until the end."""
        return Latency.of(absence.seconds for absence in self.absences)

    @property
    def away_by_code(self) -> dict[int, Latency]:
        """How long clients were away, by the close code they lost their connection with."""
        by_code: defaultdict[int, list[float]] = defaultdict(list)
        for absence in self.absences:
            by_code[absence.code].append(absence.seconds)
        found = {code: Latency.of(seconds) for code, seconds in sorted(by_code.items())}
        return {code: latency for code, latency in found.items() if latency is not None}

    @property
    def absences(self) -> list[Absence]:
        """Every absence of every client."""
        return [absence for client in self.clients for absence in client.away]

    @property
    def closes(self) -> Counter[int]:
        """How often connections ended, by close code."""
        return sum((Counter(client.closes) for client in self.clients), Counter())

    @property
    def closes_unheard(self) -> Counter[int]:
        """How often connections ended that had said nothing, by close code."""
        return sum((Counter(client.closes_unheard) for client in self.clients), Counter())

    @property
    def refused(self) -> Counter[str]:
        """How often clients were not let in, by HTTP status or by what there was instead."""
        return sum((Counter(client.refused) for client in self.clients), Counter())

    @property
    def failed_attempts(self) -> Counter[str]:
        """How often clients were not let in, in detail."""
        return sum((Counter(client.failed_attempts) for client in self.clients), Counter())

    @property
    def refusals(self) -> Counter[str]:
        """How often frames were refused, by code."""
        return sum((Counter(client.refusals) for client in self.clients), Counter())
