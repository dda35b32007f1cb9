"""A consumer whose group's frames are written straight to its socket."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar

from channels.consumer import SyncConsumer  # type: ignore[import-untyped]

from channels_kit.layer.frames import EXTENSION
from channels_kit.layer.outlet import Outlet

TRY_AGAIN_LATER = 1013
"""https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number"""


class FanoutConsumer:
    """Mixin for `AsyncWebsocketConsumer` and `AsyncJsonWebsocketConsumer`, named before them.

    The client gets what `group_broadcast` sends to the consumer's groups, without a call of the
    consumer. If the server has no extension for frames, `layer_broadcast` sends it.

    Attributes:
        slow_code: close code for a client that does not read fast enough. The client should connect
            again and ask for what it missed.
    """

    slow_code: ClassVar[int] = TRY_AGAIN_LATER

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a synchronous consumer: without the extension, it would send nothing."""
        super().__init_subclass__(**options)
        if issubclass(cls, SyncConsumer):
            raise TypeError(
                f"{cls.__name__} is synchronous; FanoutConsumer needs an async consumer"
            )

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
        """Send the client what is for all members of a group, unchanged."""
        await self.send(event.get("text"), event.get("bytes"))  # type: ignore[attr-defined]

    def _accepted(self, outlet: Outlet) -> None:
        layer = self.channel_layer  # type: ignore[attr-defined]
        open_socket = getattr(layer, "open_socket", None)
        if open_socket is not None:
            open_socket(self.channel_name, outlet)  # type: ignore[attr-defined]
