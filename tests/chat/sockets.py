import asyncio
import json
from typing import Any

from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.routing import URLRouter  # type: ignore[import-untyped]
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import path

from chat.authentication import SocketAuthentication
from chat.consumers import RoomConsumer
from chat.local_rooms import LocalRooms
from config.asgi import application


class Socket:
    """One WebSocket of an ASGI application, seen from the client.

    Channels has such a class, in a package that cannot be imported without Daphne.
    """

    def __init__(self, application: Any, target: str, headers: list[tuple[bytes, bytes]]) -> None:
        path, _, query = target.partition("?")
        scope = {
            "type": "websocket",
            "path": path,
            "query_string": query.encode(),
            "headers": headers,
            "subprotocols": [],
        }
        # Its methods have no types.
        self._application: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]

    async def connect(self) -> dict[str, Any]:
        """Send the handshake and return the answer."""
        await self._application.send_input({"type": "websocket.connect"})
        return await self.event()

    async def event(self) -> dict[str, Any]:
        """Return the server's next event."""
        event: dict[str, Any] = await self._application.receive_output(timeout=30)
        return event

    async def send(self, frame: str | bytes) -> None:
        """Send a frame of any kind."""
        kind = "text" if isinstance(frame, str) else "bytes"
        await self._application.send_input({"type": "websocket.receive", kind: frame})

    async def act(self, action: str, **fields: Any) -> None:
        """Send a frame with an action."""
        await self.send(json.dumps({"action": action, **fields}))

    async def say(self, message: str, **fields: Any) -> None:
        """Send a message to the room."""
        await self.act("send", message=message, **fields)

    async def receive(self) -> dict[str, Any]:
        """Return the server's next frame."""
        event = await self.event()
        assert event["type"] == "websocket.send"
        frame: dict[str, Any] = json.loads(event["text"])
        return frame

    async def receive_until(self, kind: str) -> dict[str, Any]:
        """Return the server's next frame of a type; what comes before it is dropped."""
        while True:
            frame = await self.receive()
            if frame["type"] == kind:
                return frame

    async def close_code(self) -> int:
        """Return the code with which the server closes; frames before that are dropped."""
        while True:
            event = await self.event()
            if event["type"] == "websocket.close":
                return int(event["code"])
            assert event["type"] == "websocket.send"

    async def receives_nothing(self) -> bool:
        """Return whether the server is silent for a moment."""
        return bool(await self._application.receive_nothing())

    async def close(self) -> None:
        """Close the socket and wait for the application to end."""
        await self._application.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._application.wait()


class Worker:
    """The rooms' sockets as a worker process of their own would serve them.

    Its heart beats, within a test, only when it is told to.
    """

    def __init__(self) -> None:
        self.rooms = LocalRooms()
        consumer = RoomConsumer.as_asgi(rooms=self.rooms)
        self.application = SocketAuthentication(URLRouter([path("ws/chat/<slug:room>/", consumer)]))


class Sockets:
    """Opens sockets of the whole application as a browser with a session does."""

    def __init__(self) -> None:
        self._opened: list[Socket] = []

    async def make(
        self,
        target: str,
        user: User | None = None,
        origin: bytes | None = b"http://testserver",
        *,
        worker: Worker | None = None,
        client: Client | None = None,
    ) -> Socket:
        """Return a socket that has not sent its handshake, of a user or of a browser's session."""
        headers = [(b"origin", origin)] if origin else []
        if user:
            client = Client()
            await database_sync_to_async(client.force_login)(user)
        if client:
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={session}".encode()))
        socket = Socket(worker.application if worker else application, target, headers)
        self._opened.append(socket)
        return socket

    async def open(
        self, user: User, query: str = "", room: str = "lobby", *, worker: Worker | None = None
    ) -> Socket:
        """Return a user's socket in a room, accepted, with all frames still to come."""
        socket = await self.make(f"/ws/chat/{room}/{query}", user, worker=worker)
        assert (await socket.connect())["type"] == "websocket.accept"
        return socket

    async def join(
        self, user: User, query: str = "", room: str = "lobby", *, worker: Worker | None = None
    ) -> tuple[Socket, dict[str, Any]]:
        """Return a user's socket in a room that knows who is there, and the first frame it got."""
        socket = await self.open(user, query, room, worker=worker)
        first = await socket.receive()
        await socket.receive_until("presence")
        return socket, first

    async def close(self) -> None:
        """Close every socket; raise what one of them has failed with."""
        closing = [socket.close() for socket in self._opened]
        for result in await asyncio.gather(*closing, return_exceptions=True):
            # Not the CancelledError of a socket that has waited for a frame in vain: its test tells
            # of that, and pytest would skip all that is left to tear down, the database too.
            if isinstance(result, Exception):
                raise result
