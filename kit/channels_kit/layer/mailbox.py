"""What waits for one channel in this process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from channels_kit.layer import codec
from channels_kit.layer.errors import ConsumerOverflowError

if TYPE_CHECKING:
    from channels_kit.layer.outlet import Outlet


GAP = -math.inf
"""The `ends` of a gap: in the past, so that one comparison finds gaps and expired messages."""


class Overflow(StrEnum):
    """What happens to a message for a channel whose mailbox is full."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    CLOSE = "close"


class Letter(NamedTuple):
    """One message, or a gap: the event that messages of a group are lost.

    Attributes:
        packed: as msgpack; shared by all that get it.
        ends: when it is of no use any more, by the event loop's clock; `GAP` for a gap.
        group: to which it was sent; None: to this channel alone.
    """

    packed: bytes
    ends: float
    group: str | None = None


class Mailbox:
    """The messages of one channel that nobody has received yet.

    Args:
        channel: its name.
        capacity: messages it has room for.
        overflow: what happens to more.
    """

    __slots__ = (
        "abandoned_at",
        "capacity",
        "channel",
        "closed",
        "gaps",
        "gone",
        "groups",
        "letters",
        "outlet",
        "overflow",
        "receivers",
        "waker",
    )

    def __init__(self, channel: str, capacity: int, overflow: Overflow) -> None:
        self.channel = channel
        self.capacity = capacity
        self.overflow = overflow
        # Lists: there are as many as sockets, most of them empty, and a deque takes 600 bytes.
        self.letters: list[Letter] = []
        # Those that wait for one.
        self.receivers: list[asyncio.Future[None]] = []
        # What is told that there may be one, if a consumer takes them without waiting here.
        self.waker: Callable[[], None] | None = None
        # Messages that have left it.
        self.gone = 0
        # The socket of its consumer, if frames can be written to it; kept when that has ended.
        self.outlet: Outlet | None = None
        # The groups that it is a member of, each with the time of its last group_add.
        self.groups: dict[str, float] = {}
        # The groups of the gaps that wait, each once; None: its consumer handles none.
        self.gaps: tuple[str, ...] | None = None
        # Whether it has been full with the policy to close it.
        self.closed = False
        # When a `receive` was given up and none has come since; None: one has.
        self.abandoned_at: float | None = None

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another message; gaps take no room."""
        waiting = len(self.letters)
        return waiting >= self.capacity and waiting - len(self.gaps or ()) >= self.capacity

    def put(self, letter: Letter) -> str | None:
        """Take in a message; return why one is dropped for it, or it itself."""
        if self.closed:
            return f"overflow, {self.overflow}"
        if self.outlet is not None:
            self.outlet.block()
        dropped = None
        if self.is_full:
            dropped = f"overflow, {self.overflow}"
            if self.overflow is Overflow.DROP_OLDEST:
                self._drop_oldest()
            elif self.overflow is Overflow.DROP_NEWEST:
                self.miss(letter.group, len(self.letters))
                return dropped
            else:
                self.closed = True
                self.letters.clear()
                self.wake()
                return dropped
        self.letters.append(letter)
        self.wake()
        return dropped

    def report_gaps(self) -> None:
        """Have gaps put in from now on."""
        self.gaps = self.gaps or ()

    def miss(self, group: str | None, place: int) -> None:
        """Put in a gap, unless one of the group comes before.

        Args:
            group: whose messages are lost; None: they are of none.
            place: how many of the letters that wait are taken before it.
        """
        if (gap := self._gap(group, place)) is not None:
            if self.outlet is not None:
                self.outlet.block()
                self.outlet.shift(self.gone + place, 1)
            self.letters.insert(place, gap)
            self.wake()

    def told(self, group: str | None) -> None:
        """Note that a gap has been taken: a later loss puts in another one."""
        self.gaps = tuple(each for each in self.gaps or () if each != group)

    def expire(self, now: float, group: str | None) -> int:
        """Drop what has waited for too long; return how many messages.

        Args:
            now: by the event loop's clock.
            group: that of the message that was taken, and had waited for too long.
        """
        groups, number, place = {group}, 0, 0
        while place < len(self.letters) and self.letters[place].ends < now:
            if self.letters[place].ends == GAP:
                place += 1
                continue
            groups.add(self.letters[place].group)
            self._remove(place)
            number += 1
        for each in groups:
            self.miss(each, place)
        return number

    def _drop_oldest(self) -> None:
        place = next(at for at, each in enumerate(self.letters) if each.ends != GAP)
        gap = self._gap(self.letters[place].group, place)
        if gap is None:
            self._remove(place)
        else:
            self.letters[place] = gap

    def _gap(self, group: str | None, place: int) -> Letter | None:
        """Return a gap for a place, and drop a later one; None: an earlier one waits."""
        if group is None or self.gaps is None or self.closed:
            return None
        gap = Letter(codec.pack({"type": "layer.gap", "group": group}), GAP, group)
        if group not in self.gaps:
            self.gaps += (group,)
        elif (at := self.letters.index(gap)) > place:
            self._remove(at)
        else:
            return None
        return gap

    def _remove(self, place: int) -> None:
        del self.letters[place]
        if place == 0:
            self.gone += 1
        elif self.outlet is not None:
            self.outlet.shift(self.gone + place, -1)

    def take(self) -> Letter | None:
        """Return the next message; None if there is none.

        Raises:
            ConsumerOverflowError: it was full, and is closed.
        """
        if self.closed:
            raise ConsumerOverflowError(
                f"{self.channel} is closed: its consumer was too slow for {self.capacity} messages"
            )
        if not self.letters:
            return None
        self.gone += 1
        return self.letters.pop(0)

    def wait(self) -> asyncio.Future[None]:
        """Return what is done when there may be a message."""
        receiver: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.receivers.append(receiver)
        return receiver

    def give_up(self, receiver: asyncio.Future[None]) -> None:
        """Wait no more; the turn, if it has come, is the next one's."""
        if receiver in self.receivers:
            self.receivers.remove(receiver)
        elif not receiver.cancelled():
            self.wake()

    def wake(self) -> None:
        """Let one that waits look for a message."""
        if self.waker is not None:
            self.waker()
            return
        while self.receivers:
            receiver = self.receivers.pop(0)
            if not receiver.done():
                receiver.set_result(None)
                return
