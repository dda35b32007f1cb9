"""One socket that frames are written to, and the rooms that they come from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from channels_kit.layer.gatherer import Gatherer
    from channels_kit.layer.mailbox import Mailbox


class Room:
    """The frames of one group that its sockets have not got yet."""

    __slots__ = ("blocked", "later", "outlets", "pending")

    def __init__(self) -> None:
        # The members that frames are gathered for, and those that handle an event before.
        self.outlets: set[Outlet] = set()
        self.blocked: set[Outlet] = set()
        self.pending: list[bytes] = []
        # Of outlets that have had, or are not to get, the first ones of `pending`: how many.
        self.later: dict[Outlet, int] = {}


class Outlet:
    """One socket, as frames are written to it, among what its consumer sends itself.

    Args:
        write: of the server's extension.
        close: of the server's extension.
        send: the server's.
        code: with which a socket is closed that is too slow.
        accepted: is called when the handshake has been accepted.
    """

    __slots__ = (
        "_accepted",
        "_send",
        "_waiting",
        "_waiting_bytes",
        "box",
        "close",
        "code",
        "gatherer",
        "held",
        "held_bytes",
        "is_blocked",
        "is_cut",
        "is_ended",
        "is_sending",
        "rooms",
        "write",
    )

    def __init__(
        self,
        write: Callable[[bytes, int, int], bool | None],
        close: Callable[[int, str], None],
        send: Callable[[Any], Any],
        code: int,
        accepted: Callable[[Outlet], None],
    ) -> None:
        self.write = write
        self.close = close
        self.code = code
        self._send = send
        self._accepted: Callable[[Outlet], None] | None = accepted
        # None until the handshake has been accepted.
        self.gatherer: Gatherer | None = None
        self.box: Mailbox | None = None
        self.rooms: list[Room] = []
        # Whether events of the layer wait for the consumer, or are being handled. What comes after
        # them is held, each frame with the number of events that come before it.
        self.is_blocked = False
        self.held: list[tuple[int, bytes]] = []
        self.held_bytes = 0
        # Whether the server has in hand what the consumer has sent, and what comes after that:
        # frames with their number, and further messages of the consumer.
        self.is_sending = False
        self._waiting: list[tuple[bytes, int] | asyncio.Future[None]] = []
        self._waiting_bytes = 0
        # Whether nothing is written to it any more, and whether that is because it was too slow.
        self.is_ended = False
        self.is_cut = False

    # What the consumer sends

    async def send(self, message: Any) -> None:
        """Send a message of the consumer, after the frames that came before it."""
        gatherer = self.gatherer
        if gatherer is None:
            # Not to be kept: the consumer refers to this.
            accepted, self._accepted = self._accepted, None
            await self._send(message)
            if accepted is not None and message["type"] == "websocket.accept":
                accepted(self)
            return
        if self.is_cut:
            # The consumer has yet to be told.
            return
        gatherer.flush_one(self)
        if self.is_sending:
            await self._turn()
        self.is_sending = True
        try:
            if message["type"] == "websocket.close":
                gatherer.end(self)
            await self._send(message)
        except Exception:
            # Whatever a server raises for a socket that has been closed meanwhile.
            if not self.is_cut:
                raise
        finally:
            self._sent()

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._sent()
            raise

    def _sent(self) -> None:
        self.is_sending = False
        while self._waiting:
            following = self._waiting.pop(0)
            if not isinstance(following, asyncio.Future):
                self._waiting_bytes -= len(following[0])
                self.put(*following)
            elif not following.done():
                self.is_sending = True
                following.set_result(None)
                return

    # What comes for the groups

    def put(self, frames: bytes, number: int) -> None:
        """Write frames, or have them wait for what the server has in hand."""
        gatherer = self.gatherer
        assert gatherer is not None  # noqa: S101 - it is in no room before
        if self.is_sending:
            if self._waiting_bytes > gatherer.limit:
                gatherer.refuse(self, number)
                return
            self._waiting.append((frames, number))
            self._waiting_bytes += len(frames)
            return
        try:
            written = self.write(frames, number, gatherer.limit)
        except Exception as error:
            gatherer.broken(self, number, error)
            return
        if written:
            gatherer.count(number)
        elif written is False:
            gatherer.refuse(self, number)

    def hold(self, frame: bytes) -> None:
        """Keep a frame until the events before it have been handled."""
        box, gatherer = self.box, self.gatherer
        assert box is not None  # noqa: S101 - it is in no room before
        assert gatherer is not None  # noqa: S101 - it is in no room before
        if self.held_bytes > gatherer.limit:
            gatherer.refuse(self, 1)
            return
        self.held.append((box.gone + len(box.letters), frame))
        self.held_bytes += len(frame)

    def shift(self, place: int, by: int) -> None:
        """Note that events were put in or dropped.

        Args:
            place: how many events come before them, counted as in `held`.
            by: how many were put in; negative if they were dropped.
        """
        self.held = [
            (number + by if number > place else number, frame) for number, frame in self.held
        ]

    def discard(self) -> int:
        """Drop the frames that wait for events and for sends; return how many they are."""
        turns = [each for each in self._waiting if isinstance(each, asyncio.Future)]
        frames = [each for each in self._waiting if not isinstance(each, asyncio.Future)]
        number = len(self.held) + sum(each for _, each in frames)
        self.held.clear()
        self.held_bytes = 0
        self._waiting[:] = turns
        self._waiting_bytes = 0
        return number

    def block(self) -> None:
        """Keep what comes now until the consumer has handled its events."""
        if self.is_blocked or self.gatherer is None:
            return
        self.gatherer.flush_one(self)
        self.is_blocked = True
        for room in self.rooms:
            room.outlets.discard(self)
            room.later.pop(self, None)
            room.blocked.add(self)

    def release(self) -> None:
        """Write what came before the event that the consumer gets next."""
        box = self.box
        if box is None:
            return
        number = 0
        while number < len(self.held) and self.held[number][0] <= box.gone:
            number += 1
        if number:
            frames = b"".join(frame for _, frame in self.held[:number])
            del self.held[:number]
            self.held_bytes -= len(frames)
            self.put(frames, number)
        if box.letters:
            return
        self.is_blocked = False
        for room in self.rooms:
            room.blocked.discard(self)
            enter(room, self)


def enter(room: Room, outlet: Outlet) -> None:
    """Have a socket get what comes to a room from now on."""
    room.outlets.add(outlet)
    if room.pending:
        room.later[outlet] = len(room.pending)
