"""The sockets of this process by their rooms, and what they are told without the channel layer."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from secrets import token_hex
from typing import Any, Protocol

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.conf import settings

from chat import layer, presence
from chat.gathered import Gathered
from chat.people import Person

logger = logging.getLogger(__name__)

REJOIN_SECONDS = 6 * 3600.0
"""Seconds after which every socket joins its group again.

Well below ``group_expiry`` of the channel layer, one day, after which a group forgets a socket.
"""


class RoomSocket(Protocol):
    """One socket of one person in one room."""

    person: Person
    room_id: int
    group: str
    heard: int
    may_be_forgotten: bool

    async def send(self, text_data: str) -> None:
        """Send a frame."""

    async def rejoin_group(self) -> bool:
        """Be a member of the room's group again; return whether the layer could be told."""

    async def leave_group(self) -> None:
        """Be a member of the room's group no more, whether it was one or not."""


@dataclass
class _LocalRoom:
    """A room with at least one socket here."""

    # The channel layer's group of the room.
    group: str
    # The newest number that the sockets have been told, by a history or by a position.
    position: int
    # The names that the sockets know to be there; None until the first of them was told.
    told: set[str] | None = None
    # The names in which the last heartbeat found the database and ``told`` to differ.
    doubts: set[str] = field(default_factory=set)
    # In no order; more than one may be of the same person.
    sockets: set[RoomSocket] = field(default_factory=set)

    def users(self) -> set[int]:
        return {socket.person.id for socket in self.sockets}


class LocalRooms:
    """Knows the sockets of this process, and shows at intervals that it is alive.

    With each heartbeat it reads where the rooms of its sockets are and who is in them, and tells
    the sockets what they do not know yet. That does not go through the channel layer, so it also
    brings to light what the layer has lost.
    """

    def __init__(self) -> None:
        # By the primary key of the room; one without sockets is not in it.
        self._rooms: dict[int, _LocalRoom] = {}
        # The heartbeat; None while there is no socket.
        self._beating: asyncio.Task[None] | None = None
        # When all sockets join their groups again, by the monotonic clock.
        self._rejoin_at = 0.0
        # Tells of a room and a user whether no worker had them there before.
        self._enter = Gathered(self._enter_all, False)
        self._people: Gathered[int, list[str]] = Gathered(presence.people, [])

    @cached_property
    def instance(self) -> str:
        """The name of this run of this process, which no other has."""
        return f"{settings.CHANNELS_KIT_WORKER} {os.getpid()}-{token_hex(4)}"

    async def join(self, socket: RoomSocket, position: int) -> None:
        """Take in a socket and tell it who is there.

        Args:
            socket: one that has had its history.
            position: the number up to which it knows everything.
        """
        room = self._rooms.setdefault(socket.room_id, _LocalRoom(socket.group, position))
        others = room.users()
        socket.heard = position
        room.sockets.add(socket)
        if self._beating is None:
            self._rejoin_at = time.monotonic() + REJOIN_SECONDS
            self._beating = asyncio.create_task(self._beat_forever())
        joined = socket.person.id not in others and await self._enter(
            (socket.room_id, socket.person.id)
        )
        if room.told is None:
            people = await self._people(socket.room_id)
            room.told = room.told or set(people)
        # The others are told below.
        await socket.send(text_data=_presence_frame(sorted({*room.told, socket.person.name})))
        if joined:
            await layer.tell(socket.group, _person_event("joined", socket.person.name))

    async def leave(self, socket: RoomSocket) -> None:
        """Let go of a socket, one that was never taken in too."""
        if not self._has(socket):
            return
        room = self._rooms[socket.room_id]
        room.sockets.remove(socket)
        if not room.sockets:
            del self._rooms[socket.room_id]
        if not self._rooms and self._beating is not None:
            self._beating.cancel()
            self._beating = None
        if socket.person.id in room.users():
            return
        left = await database_sync_to_async(presence.leave)(
            self.instance, socket.room_id, socket.person.id
        )
        if left:
            await layer.tell(socket.group, _person_event("left", socket.person.name))

    def position(self, room_id: int) -> int:
        """Return the newest number that the sockets of a room have been told; 0 without one.

        A client that has less than that asks for it by itself.
        """
        room = self._rooms.get(room_id)
        return 0 if room is None else room.position

    def heard(self, room_id: int, kind: str, name: str) -> None:
        """Note that the sockets of a room are being told that somebody has ``joined`` or ``left``.

        Each of them calls this, with the same effect.
        """
        room = self._rooms.get(room_id)
        if room is None or room.told is None:
            return
        if kind == "joined":
            room.told.add(name)
        else:
            room.told.discard(name)

    async def beat(self) -> None:
        """Do what one heartbeat does."""
        # What the room had at the last heartbeat has come to every socket by now, or its group has
        # forgotten the socket, as it does when the layer's Redis restarts.
        all_again = time.monotonic() >= self._rejoin_at
        forgotten = [
            (socket, room.position)
            for room in self._rooms.values()
            for socket in room.sockets
            if all_again or (socket.may_be_forgotten and socket.heard < room.position)
        ]
        here = {room_id: room.users() for room_id, room in self._rooms.items()}
        found: presence.Beat = await database_sync_to_async(presence.beat)(self.instance, here)
        await asyncio.gather(
            self._send(found),
            *(
                layer.tell(layer.room_group(gone.room), _person_event("left", gone.user))
                for gone in found.gone
            ),
        )
        if await self._rejoin(forgotten) and all_again:
            self._rejoin_at = time.monotonic() + REJOIN_SECONDS

    def _enter_all(self, arrivals: Collection[tuple[int, int]]) -> dict[tuple[int, int], bool]:
        return presence.enter(self.instance, arrivals)

    def _has(self, socket: RoomSocket) -> bool:
        room = self._rooms.get(socket.room_id)
        return room is not None and socket in room.sockets

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(presence.BEAT_SECONDS)
            try:
                await self.beat()
            except Exception:
                # The database is away, most likely; the next heartbeat makes up for it.
                logger.exception("a heartbeat has failed")

    async def _send(self, found: presence.Beat) -> None:
        """Tell the sockets of each room what has changed."""
        frames: list[tuple[RoomSocket, str]] = []
        for room_id, room in self._rooms.items():
            position = found.positions.get(room_id, 0)
            if position > room.position:
                room.position = position
                frame = json.dumps({"type": "position", "sequence": position})
                frames += [(socket, frame) for socket in room.sockets]
            people = found.people.get(room_id)
            if room.told is None or people is None:
                continue
            # Somebody who comes or goes just now is in the database before the room is told. What
            # still differs at the next heartbeat has not been told, nor will be.
            differing = room.told.symmetric_difference(people)
            if differing and differing == room.doubts:
                room.told = set(people)
                frames += [(socket, _presence_frame(people)) for socket in room.sockets]
                differing = set()
            room.doubts = differing
        await _deliver(frames)

    async def _rejoin(self, forgotten: list[tuple[RoomSocket, int]]) -> bool:
        """Have sockets join their groups again; return whether all of them have.

        Args:
            forgotten: each with the number up to which it is told without the layer.
        """
        for socket, position in forgotten:
            if not await socket.rejoin_group():
                # The others would fail as well; the next heartbeat tries again.
                return False
            if not self._has(socket):
                # It has ended meanwhile, and left before it became a member again.
                await socket.leave_group()
            socket.heard = max(socket.heard, position)
        return True


async def _deliver(frames: Iterable[tuple[RoomSocket, str]]) -> None:
    """Send frames to sockets, at once: one whose client does not read holds up no other."""
    sends = [socket.send(text_data=frame) for socket, frame in frames]
    try:
        async with asyncio.timeout(presence.BEAT_SECONDS):
            # What a socket raises that has just been closed is not of interest to anyone.
            await asyncio.gather(*sends, return_exceptions=True)
    except TimeoutError:
        logger.info("some sockets do not take what they are sent")


def _presence_frame(people: list[str]) -> str:
    return json.dumps({"type": "presence", "users": people})


def _person_event(kind: str, name: str) -> dict[str, Any]:
    frame = json.dumps({"type": kind, "user": name})
    return {"type": "room.person", "kind": kind, "name": name, "frame": frame}
