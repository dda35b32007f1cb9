import json
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.exceptions import StopConsumer  # type: ignore[import-untyped]
from channels.generic.websocket import (  # type: ignore[import-untyped]
    AsyncWebsocketConsumer,
)
from django.conf import settings

from chat import protocol
from chat.history import MessageHistory
from chat.models import Message, Room
from chat.protocol import CloseCode, ErrorCode, ProtocolError


class RoomConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One socket of one user in one room."""

    async def connect(self) -> None:
        """Let a user into the room and tell what was said."""
        # Accepted before it may be refused: a close before that is an HTTP 403, of which a browser
        # tells its page only 1006, the same as for a network failure.
        await self.accept()
        if not self.scope["user"].is_authenticated:
            await self._refuse(CloseCode.LOGIN_REQUIRED, "Log in first.")
        name = self.scope["url_route"]["kwargs"]["room"]
        room = await database_sync_to_async(Room.objects.filter(name=name).first)()
        if room is None:
            await self._refuse(CloseCode.UNKNOWN_ROOM, "There is no such room.")
        self.room: Room = room
        self.history = MessageHistory(room.pk)
        self.group = f"chat.room.{name}"
        # Joined before the history is read: a message in between arrives twice, by both ways, and
        # the client drops one; the other way round it would be lost.
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self._send_history()

    async def disconnect(self, code: int) -> None:
        """Leave the room."""
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Do what a frame of the client asks for, or tell what is wrong with it."""
        try:
            if text_data is None:
                raise ProtocolError(ErrorCode.BINARY, "Binary frames are not understood.")
            action = protocol.parse_frame(text_data)
        except ProtocolError as error:
            await self._send_frame(error.frame())
            return
        message = await database_sync_to_async(self.history.append)(
            user=self.scope["user"],
            text=action.message,
            worker=settings.CHANNELS_KIT_WORKER,
        )
        frame: protocol.MessageFrame = {"type": "message", **self._body(message)}
        # Encoded once here instead of once a socket: a room may have thousands.
        event = {"type": "chat.message", "frame": json.dumps(frame)}
        await self.channel_layer.group_send(self.group, event)

    async def chat_message(self, event: dict[str, Any]) -> None:
        """Pass on what someone said in the room."""
        await self.send(text_data=event["frame"])

    async def _refuse(self, code: CloseCode, reason: str) -> None:
        await self.close(code, reason)
        # Nothing the client still sends gets here, and disconnect() would have nothing to undo.
        raise StopConsumer

    async def _send_history(self) -> None:
        """Send what the client does not know, a page at a time so that memory stays bounded."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        try:
            known = protocol.parse_after(query.get("after", [None])[-1])
        except ProtocolError as error:
            await self._send_frame(error.frame())
            known = None
        if known is None:
            messages = await database_sync_to_async(self.history.latest)(
                protocol.HISTORY_ON_CONNECT
            )
            await self._send_page(messages)
            return
        while True:
            messages = await database_sync_to_async(self.history.after)(
                known, protocol.HISTORY_PAGE
            )
            await self._send_page(messages)
            if len(messages) < protocol.HISTORY_PAGE:
                return
            known = messages[-1].sequence

    async def _send_page(self, messages: list[Message]) -> None:
        frame: protocol.HistoryFrame = {
            "type": "history",
            "messages": [self._body(message) for message in messages],
            "sequence": messages[-1].sequence if messages else self.room.last_sequence,
            "worker": settings.CHANNELS_KIT_WORKER,
        }
        await self._send_frame(frame)

    def _body(self, message: Message) -> protocol.MessageBody:
        return {
            "sequence": message.sequence,
            "room": self.room.name,
            "user": message.user.get_username(),
            "message": message.text,
            "sent_at": message.sent_at.isoformat(),
            "worker": message.worker,
        }

    async def _send_frame(self, frame: protocol.HistoryFrame | protocol.ErrorFrame) -> None:
        await self.send(text_data=json.dumps(frame))
