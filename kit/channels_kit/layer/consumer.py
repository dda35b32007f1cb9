"""A consumer whose group's frames are written straight to its socket."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar

from channels_kit.layer.frames import EXTENSION
from channels_kit.layer.outlet import Outlet

TRY_AGAIN_LATER = 1013
"""https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number"""


class FanoutConsumer:
    """Mixin for `AsyncWebsocketConsumer` and `AsyncJsonWebsocketConsumer`, named before them.

    What `group_broadcast` sends to a group of the consumer goes to its client without a call of the
    consumer. Where the server or the layer cannot do that, the consumer sends it by
    `layer_broadcast`.

    Attributes:
        slow_code: with which the socket is closed if its client does not read fast enough. A client
            connects again and asks for what it has missed.
    """

    slow_code: ClassVar[int] = TRY_AGAIN_LATER

    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        """Serve one socket from its handshake to its end."""
        frames = (scope.get("extensions") or {}).get(EXTENSION)
        if frames is not None:
            send = Outlet(
                frames["write"], frames["close"], send, self.slow_code, self._accepted
            ).send
        coroutine: Coroutine[Any, Any, None] = super().__call__(scope, receive, send)  # type: ignore[misc]
        return coroutine

    async def layer_broadcast(self, event: Any) -> None:
        """Send what is for all members of a group, as it is."""
        await self.send(event.get("text"), event.get("bytes"))  # type: ignore[attr-defined]

    def _accepted(self, outlet: Outlet) -> None:
        layer = self.channel_layer  # type: ignore[attr-defined]
        open_socket = getattr(layer, "open_socket", None)
        if open_socket is not None:
            open_socket(self.channel_name, outlet)  # type: ignore[attr-defined]
