"""A client of an ASGI application, in one process with it.

`channels.testing` has the like, but cannot be imported without Daphne, which the kit does not
need.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from asgiref.testing import ApplicationCommunicator

from channels_kit.serving.types import ASGIApplication, Message, Scope


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Communicator(ApplicationCommunicator):
    """asgiref's, which has no types."""

    def __init__(self, application: ASGIApplication, scope: Scope) -> None:
        super().__init__(application, scope)  # type: ignore[no-untyped-call]

    async def send_input(self, message: Message) -> None:
        await super().send_input(message)  # type: ignore[no-untyped-call]

    async def receive_output(self, timeout: float = 1.0) -> Any:  # noqa: ASYNC109
        return await super().receive_output(timeout)  # type: ignore[no-untyped-call]

    async def is_silent(self) -> bool:
        """Return whether nothing comes for some steps of the event loop."""
        return bool(await super().receive_nothing())  # type: ignore[no-untyped-call]

    async def wait(self, timeout: float = 1.0) -> None:  # noqa: ASYNC109
        await super().wait(timeout)  # type: ignore[no-untyped-call]


async def request(application: ASGIApplication, method: str, path: str) -> Answer:
    """Ask over HTTP and return the answer."""
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [],
    }
    communicator = Communicator(application, scope)
    await communicator.send_input({"type": "http.request"})
    start = await communicator.receive_output()
    body = await communicator.receive_output()
    await communicator.wait()
    return Answer(start["status"], dict(start["headers"]), body["body"])


class Socket(Communicator):
    """A WebSocket."""

    def __init__(
        self, application: ASGIApplication, path: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        super().__init__(
            application,
            {
                "type": "websocket",
                "path": unquote(path),
                "query_string": b"",
                "headers": headers,
                "subprotocols": [],
            },
        )

    async def connect(self) -> bool:
        """Return whether the handshake is accepted."""
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output()
        assert answer["type"] in ("websocket.accept", "websocket.close")
        return bool(answer["type"] == "websocket.accept")

    async def send(self, **frame: object) -> None:
        """Send a frame, `text` or `bytes`."""
        await self.send_input({"type": "websocket.receive", **frame})

    async def receive_json(self) -> Any:
        """Return the content of the next frame."""
        message = await self.receive_output()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def disconnect(self) -> None:
        """Go away and wait for the application's end."""
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait()
