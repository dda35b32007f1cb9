"""An application of one process whose rooms misbehave as they are told, and its adapter."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from channels_kit.load.adapter import (
    Event,
    Filling,
    History,
    Login,
    LoginRefused,
    Message,
    Other,
    Position,
    Refusal,
)

PASSWORD = "a-password-of-the-tests"
TOKEN = "a-token-of-the-tests"
FLOOD_PAUSE = 0.02
"""Seconds that a refused client is asked to wait."""

Deliver = Callable[[int, int], Iterable[int]]


def faultless(sequence: int, socket: int) -> Iterable[int]:
    return [sequence]


class ScriptedAdapter:
    """The protocol of `Rooms`."""

    final_codes = frozenset({4003})
    gap_limit = 3

    def log_in(self, base: str, username: str, password: str) -> Login:
        if password != PASSWORD:
            raise LoginRefused("the password is wrong")
        return Login(TOKEN, math.inf)

    def path(self, room: str, token: str, after: int | None) -> str:
        return f"/{room}?token={token}" + (f"&after={after}" if after is not None else "")

    def encode_message(self, text: str, client_id: str) -> str:
        return json.dumps({"say": text, "id": client_id})

    def encode_gap(self, first: int, last: int) -> str:
        return json.dumps({"gap": [first, last]})

    def decode(self, frame: str | bytes) -> Event:
        kind, content = json.loads(frame)
        match kind:
            case "message":
                return Message(*content)
            case "history":
                return History(tuple(Message(*each) for each in content[0]), *content[1:])
            case "filling":
                return Filling(tuple(Message(*each) for each in content[0]), *content[1:])
            case "position":
                return Position(content)
            case "refused":
                return Refusal("flood", content)
            case "other":
                return Other()
        raise ValueError(kind)


class Rooms:
    """Rooms, numbered messages, and what goes wrong."""

    def __init__(self) -> None:
        # What each room has: the client's name of each message; its number is its place, from 1.
        self.messages: dict[str, list[str]] = {}
        # Every handshake's path and query.
        self.paths: list[str] = []
        # Every gap that was asked for.
        self.gaps: list[tuple[int, int]] = []
        # Which numbers a socket is told in the place of a new one; sockets are counted from 0.
        self.deliver: Deliver = faultless
        # Numbers at which every connection is cut after they were stored, before they are told.
        self.cuts: set[int] = set()
        # Numbers at which every socket is closed with a code.
        self.closes: dict[int, int] = {}
        # Numbers at which one socket is.
        self.closes_one: dict[tuple[int, int], int] = {}
        # Numbers at which every socket is, after the message was told.
        self.closes_after: dict[int, int] = {}
        # What handshakes are answered instead of being let in: a status and a Retry-After.
        self.answers: Iterator[tuple[int, str | None]] = iter(())
        # Who tells a socket its history.
        self.worker: Callable[[int], str | None] = lambda socket: None
        # Awaited for a socket that came back, with the number it knows, before its history.
        self.before_history: Callable[[ServerConnection, int], Awaitable[None]] | None = None
        # Numbers that no history has, though they may be told when they are new.
        self.holes: set[int] = set()
        # Messages that are stored twice, by their place among all that came.
        self.stored_twice: set[int] = set()
        # Messages at which every connection is cut before they are stored, by the same; once.
        self.cuts_before: set[int] = set()
        # How often a message is refused before it is taken, by the same.
        self.refuses: Counter[int] = Counter()
        # How many sockets that came back are cut once they have heard their history.
        self.cuts_back = 0
        # Messages that are neither stored nor refused, by the same.
        self.swallows: set[int] = set()
        # What one socket is told in the place of a message's name.
        self.lies: dict[tuple[int, int], str] = {}
        # Says the newest number all the time.
        self.tells_position = True
        # Whether every socket is closed with 4003 at once.
        self.locked = False
        # How many sockets are cut before they are told anything.
        self.mute = 0
        # Set when this many messages are stored, for tests that wait.
        self.stored = asyncio.Condition()
        self._sockets: list[tuple[int, str, ServerConnection]] = []
        self._came = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with serve(self._handle, "127.0.0.1", 0, process_request=self._admit) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        status, retry_after = next(self.answers, (101, None))
        if status == 101:
            return None
        headers = Headers({"Retry-After": retry_after} if retry_after is not None else {})
        headers["Content-Length"] = "0"
        return Response(status, "No", headers)

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        number = len(self.paths)
        self.paths.append(connection.request.path)
        url = urlsplit(connection.request.path)
        room = url.path.strip("/")
        if self.locked:
            await connection.close(4003, "no such room")
            return
        if self.mute:
            self.mute -= 1
            connection.transport.abort()
            return
        known = int(parse_qs(url.query).get("after", ["-1"])[0])
        newest = len(self.messages.setdefault(room, []))
        first = newest if known < 0 else known
        if known >= 0 and self.before_history is not None:
            with suppress(ConnectionClosed):
                await self.before_history(connection, known)
        page = self._page(number, room, first + 1, newest)
        await tell(connection, "history", [page, newest, self.worker(number)])
        await tell(connection, "other", None)
        if known >= 0 and self.cuts_back:
            self.cuts_back -= 1
            # Answered when it has heard all before it.
            await (await connection.ping())
            connection.transport.abort()
            return
        self._sockets.append((number, room, connection))
        position = asyncio.create_task(self._tell_position(connection, room))
        try:
            async for frame in connection:
                await self._take(number, room, connection, json.loads(frame))
        except ConnectionClosed:
            pass
        finally:
            position.cancel()
            self._sockets.remove((number, room, connection))

    async def _take(
        self, number: int, room: str, connection: ServerConnection, content: dict[str, Any]
    ) -> None:
        messages = self.messages[room]
        if "gap" in content:
            first, last = content["gap"]
            self.gaps.append((first, last))
            page = self._page(number, room, first, min(last, len(messages)))
            await tell(connection, "filling", [page, last, len(messages)])
            return
        name = content["id"]
        if name in messages:
            message = self._message(number, room, messages.index(name) + 1)
            await tell(connection, "message", message)
            return
        if self.refuses[self._came + 1]:
            self.refuses[self._came + 1] -= 1
            await tell(connection, "refused", FLOOD_PAUSE)
            return
        self._came += 1
        if self._came in self.swallows:
            return
        if self._came in self.cuts_before:
            self._cut(room)
            return
        messages += [name] * (2 if self._came in self.stored_twice else 1)
        async with self.stored:
            self.stored.notify_all()
        sequence = len(messages)
        if sequence in self.cuts:
            self._cut(room)
            return
        for socket, receiver in self._members(room):
            if code := self.closes.get(sequence) or self.closes_one.get((socket, sequence)):
                await receiver.close(code)
            else:
                for each in self.deliver(sequence, socket):
                    await tell(receiver, "message", self._message(socket, room, each))
            if sequence in self.closes_after:
                await receiver.close(self.closes_after[sequence])

    async def _tell_position(self, connection: ServerConnection, room: str) -> None:
        while self.tells_position:
            await asyncio.sleep(0.02)
            await tell(connection, "position", len(self.messages[room]))

    def _cut(self, room: str) -> None:
        for _, receiver in self._members(room):
            receiver.transport.abort()

    def _members(self, room: str) -> list[tuple[int, ServerConnection]]:
        return [(number, each) for number, in_room, each in self._sockets if in_room == room]

    def _page(self, socket: int, room: str, first: int, last: int) -> list[list[object]]:
        numbers = [number for number in range(first, last + 1) if number not in self.holes]
        return [self._message(socket, room, number) for number in numbers]

    def _message(self, socket: int, room: str, sequence: int) -> list[object]:
        name = self.lies.get((socket, sequence), self.messages[room][sequence - 1])
        return [sequence, name, "alice"]


async def tell(connection: ServerConnection, kind: str, content: object) -> None:
    with suppress(ConnectionClosed):
        await connection.send(json.dumps([kind, content]))
