"""What waits for one channel in this process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from channels_kit.layer.errors import ConsumerOverflowError

if TYPE_CHECKING:
    from channels_kit.layer.outlet import Outlet


class Overflow(StrEnum):
    """What happens to a message for a channel whose mailbox is full."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    CLOSE = "close"


class Letter(NamedTuple):
    """One message.

    Attributes:
        packed: as msgpack; shared by all that get it.
        ends: when it is of no use any more, by the event loop's clock.
    """

    packed: bytes
    ends: float


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
        "gone",
        "groups",
        "letters",
        "outlet",
        "overflow",
        "receivers",
        "reports_gaps",
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
        # Whether its consumer handles gaps.
        self.reports_gaps = False
        # Whether it has been full with the policy to close it.
        self.closed = False
        # When a `receive` was given up and none has come since; None: one has.
        self.abandoned_at: float | None = None

    def put(self, letter: Letter) -> str | None:
        """Take in a message; return why one is dropped for it, or it itself."""
        if self.outlet is not None:
            self.outlet.block()
        dropped = None
        if len(self.letters) >= self.capacity:
            dropped = f"overflow, {self.overflow}"
            if self.overflow is Overflow.DROP_OLDEST:
                self.letters.pop(0)
                self.gone += 1
            elif self.overflow is Overflow.DROP_NEWEST:
                return dropped
            else:
                self.closed = True
                self.letters.clear()
                self.wake()
                return dropped
        self.letters.append(letter)
        self.wake()
        return dropped

    def put_gap(self, packed: bytes) -> bool:
        """Take in a gap, whatever there is, for it is small; return whether it is a new one."""
        if self.letters and self.letters[-1].packed == packed:
            return False
        if self.outlet is not None:
            self.outlet.block()
        self.letters.append(Letter(packed, math.inf))
        self.wake()
        return True

    def take(self) -> Letter | None:
        """Return the next message; None if there is none.

        Raises:
            ConsumerOverflowError: it was full, and is closed.
        """
        if self.closed:
            raise ConsumerOverflowError(
                f"{self.channel} did not receive {self.capacity} messages in time"
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
