"""The HTTP requests of one worker in a drain.

- Every response says that it is the last of its connection: nginx keeps connections to send more.
  So do those of a worker that another process has replaced. Idle connections are left to the edge:
  a request may be on its way on each, which the edge does not send twice if it is a POST.
- A request that has no answer yet, such as an upload or a long poll, and a response of a known
  length are waited for.
- A streaming response (server-sent events, for example) may go on for a grace of its own. Then the
  application is told that the client has gone, and the client connects to another worker. It would
  go on for ever else, and the drain with it.

Nothing here knows which ASGI server it runs in.
"""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.sockets import Sockets
from channels_kit.serving.types import ASGIApplication, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

T = TypeVar("T")

END_TIMEOUT = 3.0
"""Seconds an application has to end a stream once it is told; then its task is cancelled."""


class Requests:
    """Runs the HTTP requests of this worker.

    Args:
        settings: how this worker serves.
        sockets: the WebSockets of this worker, which know whether it drains.
    """

    def __init__(self, settings: ServingSettings, sockets: Sockets) -> None:
        self.settings = settings
        self.sockets = sockets
        # Requests that came before the drain; nginx sends more until the end, and no drain would
        # come to one.
        self._counted = 0
        # Those whose response streams.
        self._streams: set[_Request] = set()

    @property
    def draining(self) -> bool:
        """Whether the worker drains."""
        return self.sockets.draining

    @property
    def are_last(self) -> bool:
        """Whether no more shall come on their connections."""
        return self.sockets.draining or self.sockets.retired

    def __len__(self) -> int:
        """Return the number of requests that a drain waits for."""
        return self._counted

    async def serve(
        self, application: ASGIApplication, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Have the application answer one request."""
        counted = not self.draining
        self._counted += counted
        request = _Request(self, receive, send)
        try:
            await request.run(application, scope)
        finally:
            self._counted -= counted
            self.completed(request)

    def saying_if_last(self, send: Send) -> Send:
        """Return what sends a response, and says so where it is the last of its connection."""

        async def say(message: Message) -> None:
            await send(self.with_last(message))

        return say

    def with_last(self, message: Message) -> Message:
        """Return an event, saying that the response is the last of its connection if it is."""
        if message["type"] != "http.response.start" or not self.are_last:
            return message
        headers = [*message.get("headers", []), (b"connection", b"close")]
        return {**message, "headers": headers}

    def end_streams(self) -> None:
        """Let no stream go on for longer than its grace."""
        if self._streams:
            logger.warning(
                "draining: %d streaming responses end in %g s",
                len(self._streams),
                self.settings.stream_grace,
            )
        for request in self._streams:
            request.end_in(self.settings.stream_grace)

    def begun(self, request: "_Request") -> None:
        """Note that a response streams."""
        self._streams.add(request)
        if self.draining:
            request.end_in(self.settings.stream_grace)

    def completed(self, request: "_Request") -> None:
        """Note that a response streams no more."""
        self._streams.discard(request)


class _Request:
    """One HTTP request, between the server and the application."""

    __slots__ = (
        "calls",
        "complete",
        "deadline",
        "end_at",
        "event_stream",
        "requests",
        "server_receive",
        "server_send",
    )

    def __init__(self, requests: Requests, receive: Receive, send: Send) -> None:
        self.requests = requests
        self.server_receive = receive
        self.server_send = send
        # Ends the application's task; set where its stream has to end.
        self.deadline = asyncio.timeout(None)
        # When its stream ends, by the loop's clock; None: nobody has said so.
        self.end_at: float | None = None
        # What the application awaits from the server; each ends at that time.
        self.calls: set[asyncio.Timeout] = set()
        # Whether the response is one of server-sent events, whose end is no loss.
        self.event_stream = False
        # Whether the response has been sent to its end.
        self.complete = False

    async def run(self, application: ASGIApplication, scope: Scope) -> None:
        """Run the application."""
        try:
            async with self.deadline:
                await application(scope, self.receive, self.send)
        except TimeoutError:
            if not self.deadline.expired():
                raise  # the application's own
        if self.is_ended and self.event_stream and not self.complete:
            # A clean end, after which the client connects again. The end of any other stream is
            # left out: its client must see that it does not have all of it.
            await self.server_send({"type": "http.response.body", "body": b""})

    @property
    def is_ended(self) -> bool:
        """Whether the application is told that the client has gone."""
        return self.end_at is not None and asyncio.get_running_loop().time() >= self.end_at

    def end_in(self, seconds: float) -> None:
        """End the stream after so many seconds."""
        self.end_at = asyncio.get_running_loop().time() + seconds
        self.deadline.reschedule(self.end_at + END_TIMEOUT)
        for call in self.calls:
            call.reschedule(self.end_at)

    async def receive(self) -> Message:
        """Return the next event of the client."""
        gone: Message = {"type": "http.disconnect"}
        return gone if self.is_ended else await self._call(self.server_receive(), otherwise=gone)

    async def send(self, message: Message) -> None:
        """Pass on an event of the application."""
        kind = message["type"]
        streams = False
        if kind == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", [])]
            names = dict(headers)
            streams = b"content-length" not in names
            self.event_stream = names.get(b"content-type", b"").startswith(b"text/event-stream")
            message = self.requests.with_last(message)
        elif self.is_ended:
            # The client counts as gone. An application that does not listen is cancelled here.
            await asyncio.sleep(END_TIMEOUT)
            return
        elif kind == "http.response.body" and not message.get("more_body", False):
            self._complete()
        await self._call(self.server_send(message), otherwise=None)
        if streams:
            # Not before the server has its beginning.
            self.requests.begun(self)

    def _complete(self) -> None:
        self.complete = True
        self.requests.completed(self)
        # What the application does after its response is not the stream's.
        self.end_at = None
        if not self.deadline.expired():
            self.deadline.reschedule(None)

    async def _call(self, step: Awaitable[T], otherwise: T) -> T:
        """Await the server; `otherwise` where the stream has to end first."""
        timeout = asyncio.timeout_at(self.end_at)
        self.calls.add(timeout)
        try:
            async with timeout:
                return await step
        except TimeoutError:
            if not timeout.expired():
                raise
            return otherwise
        finally:
            self.calls.discard(timeout)
