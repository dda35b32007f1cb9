"""What a conversation found: plain values, for programs and for the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from channels_kit.probe.result import Latency


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
        failed_attempts: how often it was not let in, by reason.
        refusals: how often a frame of it was refused, by code.
        away: seconds from the end of each connection to the first frame of the next.
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
    failed_attempts: Mapping[str, int]
    refusals: Mapping[str, int]
    away: tuple[float, ...]

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
        connected_latencies: seconds from sending to delivery, of messages sent at once to
            clients that were connected all the time.
        other_latencies: the same, where sender or receiver were away.
        clients: every client.
    """

    run: str
    seconds: float
    sent: int
    delivered: int
    never_stored: Mapping[str, str]
    stored_twice: Mapping[str, tuple[int, ...]]
    connected_latencies: Sequence[float] = field(repr=False)
    other_latencies: Sequence[float] = field(repr=False)
    clients: tuple[ClientOutcome, ...]

    @property
    def ok(self) -> bool:
        """Whether delivery is proved; a conversation without a message proves nothing."""
        return (
            self.sent > 0
            and not self.never_stored
            and not self.stored_twice
            and all(client.ok for client in self.clients)
        )

    @property
    def expected(self) -> int:
        """How many deliveries there were to be, of all messages in the rooms."""
        return self.delivered + sum(len(client.lost) for client in self.clients)

    @cached_property
    def latency_connected(self) -> Latency | None:
        """How late messages were while sender and receiver were connected."""
        return Latency.of(self.connected_latencies)

    @cached_property
    def latency(self) -> Latency | None:
        """How late all messages were."""
        return Latency.of(chain(self.connected_latencies, self.other_latencies))

    @cached_property
    def away(self) -> Latency | None:
        """How long clients were away."""
        return Latency.of(seconds for client in self.clients for seconds in client.away)

    @property
    def closes(self) -> Counter[int]:
        """How often connections ended, by close code."""
        return sum((Counter(client.closes) for client in self.clients), Counter())

    @property
    def failed_attempts(self) -> Counter[str]:
        """How often clients were not let in, by reason."""
        return sum((Counter(client.failed_attempts) for client in self.clients), Counter())

    @property
    def refusals(self) -> Counter[str]:
        """How often frames were refused, by code."""
        return sum((Counter(client.refusals) for client in self.clients), Counter())
