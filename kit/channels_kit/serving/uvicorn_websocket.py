"""Uvicorn's WebSocket protocol, without what an open socket no longer needs.

Uvicorn (0.54) keeps the handshake's request and response for as long as the socket is open: with a
browser's headers 8.8 KB, a fifth of what a socket of the sample application takes. And it logs an
error for each handshake that is refused with a status, of which a worker that drains has many.
`channels_kit.serving.uvicorn` runs it.
"""

from collections.abc import Coroutine
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Lets go of the handshake once it is over."""

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
