"""Uvicorn's WebSocket protocol, without what an open socket no longer needs.

Uvicorn (0.54) keeps the handshake's request and response for as long as the socket is open: with a
browser's headers 8.8 KB, a fifth of what a socket of the sample application takes. Its queue, its
event and the dictionary of its attributes take 6 KB more. And it logs an error for each handshake
that is refused with a status, of which a worker that drains has many.
`channels_kit.serving.uvicorn` runs it.
"""

from __future__ import annotations

import asyncio
import dis
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from inspect import isfunction
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from channels_kit.serving.types import FRAMES, Message


def attributes_of(kind: type) -> list[str]:
    """Return the names of the attributes that a class's methods set."""
    return sorted(
        {
            step.argval
            for method in vars(kind).values()
            if isfunction(method)
            for step in dis.get_instructions(method)
            if step.opname == "STORE_ATTR"
        }
    )


class Events:
    """What the client does, until the application asks; of `asyncio.Queue` what Uvicorn uses."""

    __slots__ = ("events", "getter", "waker")

    def __init__(self) -> None:
        self.events: list[Message] = []
        # What waits in `get`.
        self.getter: asyncio.Future[None] | None = None
        # What is told that there is one, where nobody waits here: dispatch.py.
        self.waker: Callable[[], None] | None = None

    def put_nowait(self, event: Message) -> None:
        """Add an event."""
        self.events.append(event)
        if self.waker is not None:
            self.waker()
        elif self.getter is not None and not self.getter.done():
            self.getter.set_result(None)

    def empty(self) -> bool:
        """Return whether there is none."""
        return not self.events

    async def get(self) -> Message:
        """Return the next event; wait for it, one caller at a time."""
        while not self.events:
            self.getter = asyncio.get_running_loop().create_future()
            try:
                await self.getter
            finally:
                self.getter = None
        return self.events.pop(0)


class Writable:
    """Whether the transport takes more; of `asyncio.Event` what Uvicorn uses."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = True
        # Done when it takes more again; there is one while it takes none and somebody waits.
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let go on who waits."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.set_result(None)

    def clear(self) -> None:
        """Have the next ones wait."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until the transport takes more."""
        while not self._is_set:
            if self._waiting is None:
                self._waiting = asyncio.get_running_loop().create_future()
            # One that gives up takes it from no other.
            await asyncio.shield(self._waiting)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Lets go of the handshake once it is over."""

    # Uvicorn's own attributes, too: in a dictionary they take 1.6 KB.
    __slots__ = tuple(attributes_of(WebSocketsSansIOProtocol))

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.queue: Any = Events()
        self.writable: Any = Writable()

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        """Send an event of the application."""
        # Without a coroutine of its own around each message.
        return super().send(message) if message["type"] == "websocket.send" else self._send(message)

    async def _send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept":
            self.request.headers.clear()
            self.response.headers.clear()
        elif message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True

    def receive(self) -> Coroutine[Any, Any, Any]:
        """Return the next event of the client; wait for it."""
        return super().receive()

    def handle_connect(self, event: Any) -> None:
        """Begin the handshake; offer the extension for frames, if the client gets them as they are.

        Not with an extension of WebSocket's own, such as one that compresses.
        """
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS and not self.conn.extensions:
            extensions: Any = self.scope["extensions"]
            extensions[FRAMES] = {"write": self.write_frames, "close": self.close_at_once}

    def write_frames(self, frames: bytes, messages: int, limit: int) -> bool | None:
        """Write whole frames, neither masked nor compressed, to the client.

        Args:
            frames: as they are.
            messages: how many messages they are.
            limit: bytes that may wait for the client before.

        Returns:
            Whether they are written: False, more than `limit` bytes wait; None, the socket is not
            open.
        """
        transport = self.transport
        if self.close_sent or not self.handshake_complete or transport.is_closing():
            return None
        if transport.get_write_buffer_size() > limit:
            return False
        transport.write(frames)
        return True

    def close_at_once(self, code: int, reason: str) -> None:
        """Close the socket without waiting for a client that does not read.

        What waits for it and the close frame are dropped if it has not read them after Uvicorn's
        `close_timeout`, 10 s.
        """
        if self.close_sent or not self.handshake_complete or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


class EventSource:
    """A client's events, as `channels_kit.serving.dispatch` takes them.

    Args:
        protocol: the client's.
        waker: called when there may be an event.
    """

    __slots__ = ("protocol",)

    def __init__(self, protocol: WebSocketProtocol, waker: Callable[[], None]) -> None:
        self.protocol = protocol
        protocol.queue.waker = waker

    def take(self) -> Message | None:
        """Return the next event; None if there is none yet."""
        protocol = self.protocol
        events: list[Message] = protocol.queue.events
        if not events:
            return None
        event = events.pop(0)
        # As Uvicorn does it in `receive`.
        if protocol.read_paused and not events:
            protocol.read_paused = False
            protocol.transport.resume_reading()
        return event

    def has_more(self) -> bool:
        """Return whether there is one."""
        return bool(self.protocol.queue.events)

    def taken(self) -> None:
        """Note that the event has been handled."""

    def cancel(self) -> None:
        """Ask for no event any more."""
        self.protocol.queue.waker = None

    async def ended(self) -> None:
        """Wait for nothing: nothing is under way."""


# For a consumer's own task, where nothing has wrapped `receive`.
WebSocketProtocol.receive.source_of = EventSource  # type: ignore[attr-defined]
