import json
from typing import Any

from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client


class Socket:
    """One WebSocket of an ASGI application, seen from the client.

    Channels has such a class, in a package that cannot be imported without Daphne.
    """

    def __init__(self, application: Any, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        path, _, query = path.partition("?")
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
        event: dict[str, Any] = await self._application.receive_output(timeout=2)
        return event

    async def send(self, frame: str | bytes) -> None:
        """Send a frame of any kind."""
        kind = "text" if isinstance(frame, str) else "bytes"
        await self._application.send_input({"type": "websocket.receive", kind: frame})

    async def say(self, message: str) -> None:
        """Send a message to the room."""
        await self.send(json.dumps({"action": "send", "message": message}))

    async def receive(self) -> dict[str, Any]:
        """Return the server's next frame."""
        event = await self.event()
        assert event["type"] == "websocket.send"
        frame: dict[str, Any] = json.loads(event["text"])
        return frame

    async def receives_nothing(self) -> bool:
        """Return whether the server is silent for a moment."""
        return bool(await self._application.receive_nothing())

    async def close(self) -> None:
        """Close the socket and wait for the application to end."""
        await self._application.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._application.wait()


class Sockets:
    """Opens sockets of the whole application as a browser with a session does."""

    def __init__(self) -> None:
        self._opened: list[Socket] = []

    async def make(
        self, path: str, user: User | None = None, origin: bytes | None = b"http://testserver"
    ) -> Socket:
        """Return a socket that has not sent its handshake."""
        from config.asgi import application

        headers = [(b"origin", origin)] if origin else []
        if user:
            client = Client()
            await database_sync_to_async(client.force_login)(user)
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={session}".encode()))
        socket = Socket(application, path, headers)
        self._opened.append(socket)
        return socket

    async def join(
        self, user: User, query: str = "", room: str = "lobby"
    ) -> tuple[Socket, dict[str, Any]]:
        """Return a user's socket in a room, and the first frame it got."""
        socket = await self.make(f"/ws/chat/{room}/{query}", user)
        assert (await socket.connect())["type"] == "websocket.accept"
        return socket, await socket.receive()

    async def close(self) -> None:
        """Close every socket."""
        for socket in self._opened:
            await socket.close()
