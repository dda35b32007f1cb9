"""Frames for all sockets of a group: gathered, and written straight to each socket.

Where the server offers the ASGI extension `channels_kit.websocket.frames` (docs/layer.md), they go
to the transports of the sockets without an event of the layer, a task or a call of the consumer for
each.

The first frame after a silence is written at once. After a round of writing that took t, the next
one waits for 2t, at most `LONGEST_WAIT`: a busy process makes fewer, larger writes. There is one
round for all groups of an event loop, so small groups gather as a large one does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from channels_kit.layer.outlet import Outlet, Room, enter
from channels_kit.layer.statistics import Statistics

if TYPE_CHECKING:
    from channels_kit.layer.mailbox import Mailbox

LONGEST_WAIT = 0.05
"""Seconds between two rounds at most: what a reader does not notice."""

WAIT_FACTOR = 2
"""Times that a round took, until the next one: a third of the event loop's time is for writing."""


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
        # Sockets to close after the round; the value: whether the client is too slow.
        self._given_up: dict[Outlet, bool] = {}

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
            enter(room, outlet)

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
        try:
            self._write()
        finally:
            # After the writes themselves, which some event loops do at the end of their turn.
            self._loop.call_soon(self._flushed, started)

    def _write(self) -> None:
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
                else:
                    # As `put` does it, without a call for each socket.
                    try:
                        written = outlet.write(frames, number, limit)
                    except Exception as error:
                        self.broken(outlet, number, error)
                        continue
                    if written:
                        messages += number
                        writes += 1
                    elif written is False:
                        self.refuse(outlet, number)
        for outlet, parts in mixed.items():
            if parts:
                outlet.put(b"".join(parts), len(parts))
        self.statistics.delivered += messages
        self.statistics.gathered += messages - writes

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

    # Sockets that get nothing more

    def broken(self, outlet: Outlet, number: int, error: Exception) -> None:
        """Close a socket to which the server cannot write; the others get theirs."""
        self.statistics.dropped["failed"] += number
        self.statistics.warn("write", "could not write to a socket", error=error)
        self._give_up(outlet, is_slow=False)

    def refuse(self, outlet: Outlet, number: int) -> None:
        """Close a socket for which too much waits, and that does not get so many frames."""
        self.statistics.dropped["slow socket"] += number
        self._give_up(outlet, is_slow=True)

    def _give_up(self, outlet: Outlet, is_slow: bool) -> None:
        # Not now: the rooms are being gone through.
        if not self._given_up:
            self._loop.call_soon(self._close)
        # The first reason counts.
        self._given_up.setdefault(outlet, is_slow)

    def _close(self) -> None:
        given_up, self._given_up = self._given_up, {}
        for outlet, is_slow in given_up.items():
            if outlet.is_ended:
                continue
            self.statistics.dropped["slow socket" if is_slow else "failed"] += outlet.discard()
            self.end(outlet)
            outlet.is_cut = True
            if is_slow:
                self.statistics.slow_sockets += 1
                text = "closed a socket whose client does not read fast enough"
                self.statistics.warn("slow", text)
            try:
                outlet.close(outlet.code, "too slow" if is_slow else "")
            except Exception as error:
                # The others are closed all the same.
                self.statistics.warn("close", "could not close a socket", error=error)
