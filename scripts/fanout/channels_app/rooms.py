"""Rooms on Channels: who is in one gets every message that any of its members sends."""

from typing import Any

import django

django.setup()

from channels.generic.websocket import (  # type: ignore[import-untyped]  # noqa: E402
    AsyncWebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # type: ignore[import-untyped]  # noqa: E402
from django.urls import path  # noqa: E402

from channels_kit.layer import FanoutConsumer  # noqa: E402


class Room(AsyncWebsocketConsumer):  # type: ignore[misc]
    """As the tutorial of Channels has it."""

    async def connect(self) -> None:
        """Join the room of the path."""
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Leave it."""
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a client's message to the room."""
        await self.channel_layer.group_send(self.room, {"type": "room.message", "text": text_data})

    async def room_message(self, event: dict[str, Any]) -> None:
        """Send a message of the room to the client."""
        await self.send(text_data=event["text"])


class FanoutRoom(FanoutConsumer, Room):
    """Sends what is for all members as it is, without an event for each of them."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a client's message to the room."""
        await self.channel_layer.group_broadcast(self.room, text=text_data)


def served(consumer: Any) -> Any:
    """Return an application with one consumer."""
    return ProtocolTypeRouter(
        {"websocket": URLRouter([path("ws/<slug:room>/", consumer.as_asgi())])}
    )


application = served(Room)
fanout = served(FanoutRoom)
