"""Cut WebSocket handshakes that the application neither accepts nor refuses.

Uvicorn waits for the application forever; nginx gives up at its read timeout and tries the
next worker, which hangs as well. One answer in time costs one worker one socket.
"""

import asyncio
import logging

from channels_kit.serving.responses import refuse_with_status
from channels_kit.serving.types import ASGIApplication, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

_DECISIONS = {"websocket.accept", "websocket.close", "websocket.http.response.start"}


class HandshakeDeadline:
    """Runs an application's WebSockets, each with a deadline for its handshake.

    Args:
        application: the ASGI callable that is run.
        seconds: how long it has to accept or refuse a handshake.
    """

    def __init__(self, application: ASGIApplication, seconds: float) -> None:
        self.application = application
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket; the deadline ends with the application's decision."""
        await _Handshake(self.application, self.seconds, scope, receive, send).run()


class _Handshake:
    """The state of one WebSocket."""

    def __init__(
        self,
        application: ASGIApplication,
        seconds: float,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self.application = application
        self.seconds = seconds
        self.scope = scope
        self.receive = receive
        self.server_send = send
        # Ends the application's task; taken back at its decision.
        self.deadline = asyncio.timeout(seconds)
        # Whether the application accepted or refused the handshake.
        self.decided = False

    async def run(self) -> None:
        try:
            async with self.deadline:
                await self.application(self.scope, self.receive, self.send)
        except TimeoutError:
            if not self.deadline.expired():
                raise  # the application's own: none of the deadline's business
        if self.deadline.expired() and not self.decided:
            # The path only: a query string may carry a user's token.
            logger.warning(
                "the application neither accepted nor refused %r within %g s: cut",
                self.scope["path"],
                self.seconds,
            )
            await refuse_with_status(
                self.scope, self.server_send, 504, "The application did not answer in time."
            )

    async def send(self, message: Message) -> None:
        if not self.decided and message["type"] in _DECISIONS:
            self.decided = True
            # An application that is being cut can still decide while it ends.
            if not self.deadline.expired():
                self.deadline.reschedule(None)
        await self.server_send(message)
