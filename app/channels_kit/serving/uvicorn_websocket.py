"""Uvicorn's WebSocket protocol, without what an open socket no longer needs.

Uvicorn (0.54) keeps the handshake's request and response for as long as the socket is open: with a
browser's headers 8.8 KB, a fifth of what a socket of the sample application takes. Named to Uvicorn
by ``--ws channels_kit.serving.uvicorn_websocket:WebSocketProtocol``.
"""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Lets go of the handshake once it is over."""

    async def send(self, message: Any) -> None:
        """Send an event of the application."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            self.request.headers.clear()
            self.response.headers.clear()
