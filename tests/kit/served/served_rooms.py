"""An application of rooms: each message of a client says what its consumer does."""

import json
import os
from typing import Any

import django

django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]  # noqa: E402

from channels_kit.layer import FanoutConsumer  # noqa: E402


class Rooms(FanoutConsumer, AsyncWebsocketConsumer):  # type: ignore[misc]
    """Says what was done after each step: a message of its own among those of the rooms."""

    # Frames that it had to send itself.
    calls = 0

    async def connect(self) -> None:
        if os.environ.get("SERVED_ROOM"):
            await self.channel_layer.group_add(os.environ["SERVED_ROOM"], self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        if os.environ.get("SERVED_ROOM"):
            await self.channel_layer.group_discard(os.environ["SERVED_ROOM"], self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        kind, group, text = json.loads(text_data or "")
        layer = self.channel_layer
        match kind:
            case "join":
                await layer.group_add(group, self.channel_name)
            case "leave":
                await layer.group_discard(group, self.channel_name)
            case "broadcast":
                await layer.group_broadcast(group, text)
            case "binary":
                await layer.group_broadcast(group, bytes=text.encode())
            case "json":
                await layer.group_broadcast(group, json=text)
            case "event":
                await layer.group_send(group, {"type": "room.event", "text": text})
            case "alone":
                await layer.send(self.channel_name, {"type": "room.event", "text": text})
            case "calls":
                await self.send(text_data=f"called {self.calls}")
            case "close":
                await self.close(4000)
                return
        await self.send(text_data=f"done {kind} {text}")

    async def layer_broadcast(self, event: Any) -> None:
        self.calls += 1
        await super().layer_broadcast(event)

    async def room_event(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


application = Rooms.as_asgi()
