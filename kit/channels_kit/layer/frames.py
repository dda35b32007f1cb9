"""Frames for all sockets of a group: made once, gathered, and written straight to each socket.

A server's frames are not masked: the bytes are the same for every client. Where the server offers
the ASGI extension `channels_kit.websocket.frames` (docs/layer.md), they go to the transports of the
sockets without an event of the layer, a task or a call of the consumer for each.

The first frame after a silence is written at once. After a round of writing that took t, the next
one waits for 2t, at most `LONGEST_WAIT`: a busy process makes fewer, larger writes. There is one
round for all groups of an event loop, so small groups gather as a large one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from channels_kit.layer import codec
from channels_kit.layer.codec import CodecError
from channels_kit.layer.statistics import Statistics

if TYPE_CHECKING:
    from channels_kit.layer.mailbox import Mailbox

EXTENSION = "channels_kit.websocket.frames"
"""The server's, in `scope["extensions"]`."""

EVENT = "layer.broadcast"
"""The type of an event whose `text` or `bytes` go to the client as they are."""

LONGEST_WAIT = 0.05
"""Seconds between two rounds at most: what a reader does not notice."""

WAIT_FACTOR = 2
"""Times that a round took, until the next one: a third of the event loop's time is for writing."""

_PACKED_TYPE = codec.pack({"type": EVENT, "text": ""})[: len(codec.pack({"type": EVENT}))]

_TEXT, _BINARY = 0x81, 0x82


def frame_of(packed: bytes) -> bytes | None:
    """Return the WebSocket frame of a message that is for the client as it is; else None."""
    if not packed.startswith(_PACKED_TYPE):
        return None
    try:
        content = codec.unpack(packed)
    except CodecError:
        return None
    text, data = content.get("text"), content.get("bytes")
    if isinstance(text, str):
        return _frame(_TEXT, text.encode())
    return _frame(_BINARY, data) if isinstance(data, bytes) else None


def _frame(opcode: int, content: bytes) -> bytes:
    """Return a whole frame without a mask: RFC 6455, section 5.2."""
    size = len(content)
    if size < 126:
        return bytes((opcode, size)) + content
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2) + content
    return bytes((opcode, 127)) + size.to_bytes(8) + content


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
            self._waiting.append((frames, number))
            waiting = sum(len(each[0]) for each in self._waiting if isinstance(each, tuple))
            if waiting > gatherer.limit:
                gatherer.refuse(self, number)
            return
        written = self.write(frames, number, gatherer.limit)
        if written:
            gatherer.count(number)
        elif written is False:
            gatherer.refuse(self, number)

    def hold(self, frame: bytes) -> None:
        """Keep a frame until the events before it have been handled."""
        box, gatherer = self.box, self.gatherer
        assert box is not None  # noqa: S101 - it is in no room before
        assert gatherer is not None  # noqa: S101 - it is in no room before
        self.held.append((box.gone + len(box.letters), frame))
        self.held_bytes += len(frame)
        if self.held_bytes > gatherer.limit:
            gatherer.refuse(self, len(self.held))

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
            _enter(room, self)


def _enter(room: Room, outlet: Outlet) -> None:
    room.outlets.add(outlet)
    if room.pending:
        room.later[outlet] = len(room.pending)


class Gatherer:
    """Writes what is pending in all rooms of an event loop.

    Args:
        limit: bytes that may wait for one socket.
        statistics: of the process.
    """

    def __init__(self, limit: int, statistics: Statistics) -> None:
        self.limit = limit
        self.statistics = statistics
        self._loop = asyncio.get_running_loop()
        # The rooms that have something pending.
        self._dirty: list[Room] = []
        # When the first of it came.
        self._since = 0.0
        # Whether there will be a round, and before which time there is none.
        self._is_due = False
        self._not_before = 0.0
        # Those that are too slow, which are closed after the round.
        self._slow: list[Outlet] = []

    # Membership

    def open(self, outlet: Outlet, box: Mailbox) -> None:
        """Begin to write to a socket; its mailbox may have events already."""
        outlet.gatherer = self
        outlet.box = box
        if box.letters:
            outlet.block()

    def join(self, outlet: Outlet, room: Room) -> None:
        """Have a socket get what comes to a room from now on."""
        if outlet.is_ended or room in outlet.rooms:
            return
        outlet.rooms.append(room)
        if outlet.is_blocked:
            room.blocked.add(outlet)
        else:
            _enter(room, outlet)

    def leave(self, outlet: Outlet, room: Room) -> None:
        """Have a socket get no more than what has come to a room so far."""
        if room in outlet.rooms:
            self.flush_one(outlet)
            self._remove(outlet, room)
            outlet.rooms.remove(room)

    def end(self, outlet: Outlet) -> None:
        """Write nothing more to a socket."""
        outlet.is_ended = True
        for room in outlet.rooms:
            self._remove(outlet, room)
        outlet.rooms.clear()
        outlet.held.clear()

    @staticmethod
    def _remove(outlet: Outlet, room: Room) -> None:
        room.outlets.discard(outlet)
        room.blocked.discard(outlet)
        room.later.pop(outlet, None)

    # Frames

    def publish(self, room: Room, frame: bytes) -> None:
        """Have all sockets of a room get a frame."""
        if room.outlets:
            now = self._loop.time()
            if not room.pending:
                if not self._dirty:
                    self._since = now
                self._dirty.append(room)
            room.pending.append(frame)
            if not self._is_due:
                self._is_due = True
                if now >= self._not_before:
                    # Not this moment: more may have come in the same piece.
                    self._loop.call_soon(self.flush)
                else:
                    self._loop.call_at(self._not_before, self.flush)
        for outlet in room.blocked:
            outlet.hold(frame)

    def flush_one(self, outlet: Outlet) -> None:
        """Write what is pending for one socket."""
        if not self._dirty or outlet.is_blocked:
            return
        frames: list[bytes] = []
        for room in outlet.rooms:
            if room.pending:
                frames += room.pending[room.later.get(outlet, 0) :]
                room.later[outlet] = len(room.pending)
        if frames:
            outlet.put(b"".join(frames), len(frames))

    def flush(self) -> None:
        """Write all that is pending: to each socket once."""
        started = self._loop.time()
        dirty, self._dirty = self._dirty, []
        limit = self.limit
        messages = writes = 0
        is_mixed = len(dirty) > 1
        # What sockets get of more than one room.
        mixed: dict[Outlet, list[bytes]] = {}
        for room in dirty:
            pending, room.pending = room.pending, []
            later, room.later = room.later, {}
            number = len(pending)
            frames = pending[0] if number == 1 else b"".join(pending)
            for outlet in room.outlets:
                if is_mixed and len(outlet.rooms) > 1:
                    mixed.setdefault(outlet, []).extend(pending[later.get(outlet, 0) :])
                elif later and outlet in later:
                    if rest := pending[later[outlet] :]:
                        outlet.put(b"".join(rest), len(rest))
                elif outlet.is_sending:
                    outlet.put(frames, number)
                elif written := outlet.write(frames, number, limit):
                    messages += number
                    writes += 1
                elif written is False:
                    self.refuse(outlet, number)
        for outlet, parts in mixed.items():
            if parts:
                outlet.put(b"".join(parts), len(parts))
        self.statistics.delivered += messages
        self.statistics.gathered += messages - writes
        # After the writes themselves, which some event loops do at the end of their turn.
        self._loop.call_soon(self._flushed, started)

    def _flushed(self, started: float) -> None:
        now = self._loop.time()
        self._not_before = now + min(WAIT_FACTOR * (now - started), LONGEST_WAIT)
        self._is_due = bool(self._dirty)
        if self._is_due:
            self._loop.call_at(self._not_before, self.flush)

    def count(self, number: int) -> None:
        """Note that frames have been written in one piece."""
        self.statistics.delivered += number
        self.statistics.gathered += number - 1

    def backlog(self) -> tuple[int, float]:
        """Return how many frames wait for sockets, and for how long the first has, in seconds."""
        if not self._dirty:
            return 0, 0.0
        number = sum(len(room.pending) * len(room.outlets) for room in self._dirty)
        return number, self._loop.time() - self._since

    # Sockets that are too slow

    def refuse(self, outlet: Outlet, number: int) -> None:
        """Close a socket for which too much waits, and that does not get so many frames."""
        self.statistics.dropped["slow socket"] += number
        if outlet not in self._slow:
            self._slow.append(outlet)
            # Not now: the rooms are being gone through.
            self._loop.call_soon(self._close_slow)

    def _close_slow(self) -> None:
        slow, self._slow = self._slow, []
        for outlet in slow:
            if not outlet.is_ended:
                self.end(outlet)
                outlet.is_cut = True
                self.statistics.slow_sockets += 1
                self.statistics.warn("slow", "closed a socket that does not read fast enough")
                outlet.close(outlet.code, "too slow")
