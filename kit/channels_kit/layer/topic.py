"""What a process knows of one topic: where it is, and what it has missed. No I/O happens here.

A topic is a group, or the inbox of an event loop. Its messages have offsets that rise by one. While
a subscription lasts, Redis leaves out none; so only after a loss of the connection is there
anything to ask for. Until the answer is here, what arrives is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from channels_kit.layer.codec import Entry

SENDERS = 1000
"""Senders whose last number is known; the one that is heard of no more is forgotten first."""


class State(Enum):
    """Where a topic is."""

    JOINING = auto()
    """Redis has not confirmed the subscription."""
    CATCHING_UP = auto()
    """Subscribed; what was missed is being asked for, and what arrives is held."""
    LIVE = auto()
    """What arrives is delivered."""


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where messages are known.

    Attributes:
        epoch: of a Redis.
        offset: of the last one.
    """

    epoch: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask a Redis.

    Attributes:
        attempt: goes with the answer; an older one is of no use any more.
        position: what follows on it is wanted; None: all there is.
    """

    attempt: int
    position: Position | None


@dataclass(slots=True)
class Found:
    """What to deliver.

    Attributes:
        entries: in this order.
        gap: whether something may be missing of what was published until the answer; it is told
            before them.
    """

    entries: list[Entry] = field(default_factory=list)
    gap: bool = False


class Topic:
    """One topic in one event loop.

    Args:
        name: its channel of Redis' publish and subscribe.
        position: where it was before the subscription; None: all there is is wanted. Read before,
            because what is published meanwhile must not be lost with the connection.
    """

    def __init__(self, name: str, position: Position | None) -> None:
        self.name = name
        self.state = State.JOINING
        self.position = position
        # Copies that came a second time and were dropped.
        self.duplicates = 0
        self._subscribed_before = False
        self._attempt = 0
        self._held: list[Entry] = []
        # The last number of each sender. One that does not hear of an answer sends again.
        self._numbers: dict[bytes, int] = {}

    def lost(self) -> None:
        """The connection is lost."""
        self.state = State.JOINING
        self._attempt += 1
        self._held = []

    def subscribed(self) -> Question | None:
        """Redis has confirmed the subscription; return what to ask it, None if there is nothing."""
        self._attempt += 1
        before, self._subscribed_before = self._subscribed_before, True
        if not before and self.position is not None:
            self.state = State.LIVE
            return None
        self.state = State.CATCHING_UP
        return Question(self._attempt, self.position)

    def arrived(self, entry: Entry) -> Sequence[Entry]:
        """A message has been published; return what to deliver."""
        if self.state is State.LIVE:
            return self._new([entry])
        if self.state is State.CATCHING_UP:
            self._held.append(entry)
        # Else it is of a former subscription.
        return ()

    def answered(self, question: Question, here: Position, missed: Sequence[Entry]) -> Found:
        """Redis has answered.

        Args:
            question: what it was asked.
            here: the position of the topic there.
            missed: what it has kept of what follows on the position that it was asked for.
        """
        if question.attempt != self._attempt:
            return Found()
        before, self.state = self.position, State.LIVE
        held, self._held = self._held, []
        # What was published meanwhile may be in both, or pushed out of the history by now.
        both = {each.offset: each for each in (*missed, *held) if each.epoch == here.epoch}
        earlier: list[Entry] = []
        if before is None:
            gap = False
        elif before.epoch == here.epoch:
            known = sum(before.offset < offset <= here.offset for offset in both)
            gap = known != here.offset - before.offset
        else:
            # Of the former epoch, a replica may have kept some that did not arrive here.
            earlier = [each for each in missed if each.epoch == before.epoch]
            earlier = [each for each in earlier if each.offset > before.offset]
            gap = True
        later = [each for each in held if each.epoch != here.epoch]
        entries = self._new([*earlier, *(both[offset] for offset in sorted(both)), *later])
        at = self.position
        if at is None or at.epoch != here.epoch or at.offset < here.offset:
            self.position = here
        return Found(entries, gap)

    def refused(self, question: Question) -> Found:
        """Redis has refused the question; deliver what arrives, without what was missed."""
        if question.attempt != self._attempt:
            return Found()
        self.state = State.LIVE
        held, self._held = self._held, []
        return Found(self._new(held), gap=self.position is not None)

    def _new(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those that have not been here, and go to the position of the last."""
        new = []
        for entry in entries:
            at = self.position
            if at is not None and at.epoch == entry.epoch and entry.offset <= at.offset:
                continue
            self.position = Position(entry.epoch, entry.offset)
            last = self._numbers.pop(entry.sender, -1)
            self._numbers[entry.sender] = max(entry.number, last)
            if len(self._numbers) > SENDERS:
                del self._numbers[next(iter(self._numbers))]
            if entry.number > last:
                new.append(entry)
            else:
                self.duplicates += 1
        return new
