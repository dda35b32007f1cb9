"""The account of a run: who was to receive what, and who did.

A core without I/O: `channels_kit.probe.matrix` tells it what happens on the sockets, with
times of its own clock. Nothing here waits, sends or asks for the time.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

CLOSING = 2**31 - 1
"""The number of the round after the last, higher than any. It is not counted as a delivery: a
channel layer delivers in order, so a copy of an earlier message has arrived when this one has."""


@dataclass(frozen=True)
class Pair:
    """What one endpoint received from another.

    Attributes:
        sender: the sending endpoint's name.
        receiver: the receiving endpoint's name.
        expected: how many messages the sender was to send.
        delivered: how many of them arrived, each counted once.
        duplicates: how many arrived again.
        disordered: how many arrived after a later one.
        closed: whether the closing round arrived; True where there was none.
        latencies: seconds from sending to the first arrival, in the order of arrival.
    """

    sender: str
    receiver: str
    expected: int
    delivered: int
    duplicates: int
    disordered: int
    closed: bool
    latencies: tuple[float, ...]

    @property
    def missing(self) -> bool:
        """Whether a message did not arrive, or none was ever to be sent."""
        return not self.expected or self.delivered < self.expected or not self.closed

    @property
    def ok(self) -> bool:
        """Whether every message arrived once and in order."""
        return not (self.missing or self.duplicates or self.disordered)


@dataclass
class _Receipts:
    """What has arrived for one pair so far."""

    rounds: set[int] = field(default_factory=set)
    duplicates: int = 0
    disordered: int = 0
    latencies: list[float] = field(default_factory=list)


class Ledger:
    """Accounts for every delivery among the endpoints of one run.

    Args:
        endpoints: the names of all that were to take part, whether or not they could be
            opened.
        planned: how many rounds are to be sent, at least 1.
        touched: those that the proof is about: the pairs from and to them are accounted for, and no
            others. Empty: every pair is.
    """

    def __init__(
        self, endpoints: Iterable[str], planned: int, *, touched: Collection[str] = ()
    ) -> None:
        # Every endpoint of the run, in the order given.
        self.endpoints = tuple(endpoints)
        self.planned = planned
        # How many rounds were begun; the closing round does not count.
        self.begun = 0
        # Why an endpoint takes no part, or no part any more: its first failure.
        self.failures: dict[str, str] = {}
        # Those that are accounted for no more: that they ended is nobody's fault.
        self.left: dict[str, str] = {}
        # When each endpoint sent each round.
        self._sent: dict[tuple[str, int], float] = {}
        # What arrived, by (sender, receiver).
        self._receipts = {
            (sender, receiver): _Receipts()
            for sender in self.endpoints
            for receiver in self.endpoints
            if not touched or sender in touched or receiver in touched
        }
        # The round now running; None before the first.
        self._round: int | None = None
        # The pairs of endpoints live at the round's beginning for which it has not arrived.
        self._missing: set[tuple[str, str]] = set()
        # Those of them that have not failed since: what is worth waiting for.
        self._awaited: set[tuple[str, str]] = set()

    @property
    def live(self) -> list[str]:
        """The endpoints that have not failed."""
        gone = self.failures.keys() | self.left.keys()
        return [name for name in self.endpoints if name not in gone]

    @property
    def round_finished(self) -> bool:
        """Whether all that can still arrive in this round has."""
        return not self._awaited

    @property
    def complete(self) -> bool:
        """Whether this round arrived everywhere, from all that were live at its beginning."""
        return not self._missing

    def begin(self, number: int) -> None:
        """Begin a round: every endpoint is now expected to send `number`."""
        self._round = number
        if number != CLOSING:
            self.begun += 1
        live = set(self.live)
        self._missing = {names for names in self._receipts if live.issuperset(names)}
        self._awaited = set(self._missing)

    def sent(self, sender: str, number: int, at: float) -> None:
        """Note that an endpoint sends a round at the time `at`, in seconds of any clock."""
        self._sent[sender, number] = at

    def received(self, sender: str, receiver: str, number: int, at: float) -> None:
        """Note an arrival; one that nobody sent is a failure of the receiver."""
        sent_at = self._sent.get((sender, number))
        if sent_at is None:
            self.failed(receiver, f"received round {number} of {sender!r}, which was never sent")
            return
        receipts = self._receipts.get((sender, receiver))
        if receipts is None:
            # Nobody is owed it: a worker with a former version of the kit sends to all.
            return
        if number in receipts.rounds:
            receipts.duplicates += 1
            return
        if any(later > number for later in receipts.rounds):
            receipts.disordered += 1
        if number != CLOSING:
            receipts.latencies.append(at - sent_at)
        receipts.rounds.add(number)
        if number == self._round:
            self._missing.discard((sender, receiver))
            self._awaited.discard((sender, receiver))

    def failed(self, endpoint: str, reason: str) -> None:
        """Note that an endpoint is of no use any more: what it still owes counts as missing."""
        self.failures.setdefault(endpoint, reason)
        self._awaited = {names for names in self._awaited if endpoint not in names}

    def leave(self, endpoint: str, reason: str) -> None:
        """Note that an endpoint ended and that this is no failure: it leaves the account."""
        self.left.setdefault(endpoint, reason)
        for waiting in (self._missing, self._awaited):
            waiting.difference_update([names for names in waiting if endpoint in names])

    def pairs(self) -> list[Pair]:
        """Return the account of every pair that did not leave, one sender after the other.

        A pair of an endpoint that never opened is expected to deliver the rounds that the
        others sent; where nobody could send, those that were planned.
        """
        return [
            Pair(
                sender=sender,
                receiver=receiver,
                expected=self.begun or self.planned,
                delivered=len(receipts.rounds - {CLOSING}),
                duplicates=receipts.duplicates,
                disordered=receipts.disordered,
                closed=self._round != CLOSING or CLOSING in receipts.rounds,
                latencies=tuple(receipts.latencies),
            )
            for (sender, receiver), receipts in self._receipts.items()
            if not self.left.keys() & {sender, receiver}
        ]
