import asyncio
import json
import logging
import time
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.exceptions import StopConsumer  # type: ignore[import-untyped]
from channels.generic.websocket import (  # type: ignore[import-untyped]
    AsyncWebsocketConsumer,
)
from django.conf import settings

from channels_kit.layer import FanoutConsumer, RedisFanoutLayer
from chat import images, layer, opening, post, protocol, reading
from chat.authenticated import AuthenticatedSocketMixin
from chat.local_rooms import LocalRooms
from chat.models import Room
from chat.people import Person
from chat.protocol import CloseCode, FloodError, ProtocolError
from chat.rate import FrameRate

logger = logging.getLogger(__name__)


class PersonConsumer(AuthenticatedSocketMixin, AsyncWebsocketConsumer):  # type: ignore[misc]
    """One socket of one person: what all kinds of sockets have in common.

    A kind of socket says in ``enter`` what happens first and in ``act`` what a frame does.
    """

    person: Person
    ended_code = CloseCode.LOGIN_REQUIRED.value
    # Empty until ``enter`` lets the person in; then they have to be let out.
    group = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one socket from its handshake to its end."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Not in disconnect(): that one is not called where the server ends the socket, where a
            # handler fails, or where the layer does.
            if self.group:
                await self.leave()

    async def connect(self) -> None:
        """Let a person in, or say why not."""
        # Accepted before it may be refused: a close before that is an HTTP 403, of which a browser
        # tells its page only 1006, the same as for a network failure.
        await self.accept()
        person: Person | None = self.scope["user"]
        if person is None:
            await self._end(CloseCode.LOGIN_REQUIRED, "Log in first.")
        else:
            self.person = person
            self.rate = FrameRate(time.monotonic())
            await self.enter()

    async def enter(self) -> None:
        """Start the conversation with a person who is known."""
        raise NotImplementedError

    async def act(self, text: str | None, content: bytes | None) -> None:
        """Do what a frame asks for; a ``ProtocolError`` becomes the answer."""
        raise NotImplementedError

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Do what a frame of the client asks for, or tell what is wrong with it."""
        wait = self.rate.take(time.monotonic())
        if self.rate.abused:
            await self._end(CloseCode.ABUSE, "Too many frames, although they were refused.")
        try:
            if wait:
                raise FloodError(wait, protocol.client_id_of(text_data))
            await self.act(text_data, bytes_data)
        except ProtocolError as error:
            await self._send_frame(error.frame())

    async def person_refused(self, event: dict[str, Any]) -> None:
        """Close the socket if it is of the person who may stay no longer.

        Workers of the former release tell of it so, beside which this one runs while it is rolled
        out.
        """
        if event["user"] == self.person.id:
            await self._end(CloseCode(event["code"]), event["reason"])

    async def join_group(self) -> None:
        """Become a member of the group."""
        async with asyncio.timeout(layer.TIMEOUT):
            await self.channel_layer.group_add(self.group, self.channel_name)

    async def rejoin_group(self) -> bool:
        """Be a member again if the layer has forgotten it; return whether it could be told."""
        try:
            await self.join_group()
        except Exception as error:
            # The class only: the text of an error may hold a URL with a password.
            logger.warning("could not join %s again: %s", self.group, type(error).__name__)
            return False
        return True

    async def leave_group(self) -> None:
        """Be a member of the group no more, whether this socket was one or not."""
        try:
            async with asyncio.timeout(layer.TIMEOUT):
                await self.channel_layer.group_discard(self.group, self.channel_name)
        except Exception as error:
            # Its expiry does it. The class only: the text may hold a URL with a password.
            logger.warning("could not leave %s: %s", self.group, type(error).__name__)

    async def leave(self) -> None:
        """Let out a person who has been let in."""
        await self.leave_group()

    async def _end(self, code: CloseCode, reason: str) -> None:
        await self.close(code, reason)
        # Nothing the client still sends gets here.
        raise StopConsumer

    async def _send_frame(self, frame: Any) -> None:
        await self.send(text_data=json.dumps(frame))


class RoomConsumer(FanoutConsumer, PersonConsumer):
    """One socket of one person in one room.

    With the fan-out layer, what is for everyone in the room goes to the client without a call here.

    Args:
        rooms: the sockets of this process.
    """

    def __init__(self, rooms: LocalRooms) -> None:
        super().__init__()
        self.rooms = rooms
        # The highest number that has come to this socket by the layer, or by its history.
        self.heard = 0
        # Whether the layer may lose this socket, or messages to it, without a word.
        self.may_be_forgotten = True
        # When this socket last told that its person types, by the monotonic clock.
        self.typed_at = float("-inf")

    async def enter(self) -> None:
        """Let a person into the room and tell what was said and who is there."""
        name = self.scope["url_route"]["kwargs"]["room"]
        room = await opening.room((name, self.person.id))
        if room is None:
            await self._end(CloseCode.UNKNOWN_ROOM, "There is no such room, or it is private.")
            return
        self.room = room
        self.room_id: int = room.pk
        self.group = layer.room_group(name)
        # Joined before the history is read: a message in between arrives twice, by both ways, and
        # the client drops one; the other way round it would be lost.
        await self.join_group()
        if isinstance(self.channel_layer, RedisFanoutLayer):
            self.may_be_forgotten = False
            self.channel_layer.report_gaps(self.channel_name)
        known = None
        try:
            known = self._known()
        except ProtocolError as error:
            await self._send_frame(error.frame())
        position = await self._send_history(known)
        await self.rooms.join(self, position)

    async def act(self, text: str | None, content: bytes | None) -> None:
        """Do what a frame of the client asks for."""
        try:
            if text is None:
                await self._take_image(content or b"")
            else:
                await self._take_action(text)
        except Room.DoesNotExist:
            await self._end(CloseCode.UNKNOWN_ROOM, "The room has been deleted.")

    async def room_frame(self, event: dict[str, Any]) -> None:
        """Pass on what is for everyone in the room, with a layer that cannot do so itself."""
        self.heard = max(self.heard, event["sequence"])
        await self.send(text_data=event["frame"])

    async def layer_gap(self, event: dict[str, Any]) -> None:
        """Send what the layer has lost: its Redis has gone with it."""
        known = max(self.heard, self.rooms.position(self.room_id))
        self.heard = await self._send_history(known)

    async def room_typing(self, event: dict[str, Any]) -> None:
        """Pass on that somebody else types."""
        if event["user"] != self.person.id:
            await self.send(text_data=event["frame"])

    async def room_person(self, event: dict[str, Any]) -> None:
        """Pass on that somebody else has come or gone."""
        self.rooms.heard(self.room_id, event["kind"], event["name"])
        if event["name"] != self.person.name:
            await self.send(text_data=event["frame"])

    async def room_closed(self, event: dict[str, Any]) -> None:
        """Close the socket unless it is of a member, who may stay."""
        if self.person.id not in event["members"]:
            await self._end(CloseCode.UNKNOWN_ROOM, event["reason"])

    async def _take_action(self, text: str) -> None:
        match protocol.parse_frame(text):
            case protocol.Send(message, client_id):
                await self._say(message, client_id)
            case protocol.History(first, last):
                await self._send_range(first, last)
            case protocol.Read(sequence):
                await database_sync_to_async(reading.note)(self.room_id, self.person.id, sequence)
            case protocol.Typing():
                await self._type()
            case protocol.Ping():
                await self._send_frame({"type": "pong"})

    async def _say(self, text: str, client_id: str | None) -> None:
        posted = await self._store(text, client_id=client_id)
        if posted.is_new:
            await post.tell(posted.body)
        else:
            await self._send_frame(post.message_frame(posted.body))

    async def _take_image(self, content: bytes) -> None:
        image = await asyncio.to_thread(images.examine, content)
        posted = await self._store("", image=image)
        await post.tell(posted.body)
        if posted.image_id is not None:
            await layer.ask_for_thumbnail(posted.image_id)

    async def _store(self, text: str, **message: Any) -> post.Posted:
        posted: post.Posted = await database_sync_to_async(post.store)(
            self.room, self.person, text, **message
        )
        return posted

    async def _type(self) -> None:
        now = time.monotonic()
        if now - self.typed_at < protocol.TYPING_INTERVAL:
            return
        self.typed_at = now
        frame = json.dumps({"type": "typing", "user": self.person.name})
        event = {"type": "room.typing", "user": self.person.id, "frame": frame}
        await layer.tell(self.group, event)

    async def leave(self) -> None:
        """Let out a person; a socket that stayed listed would keep them in the room."""
        try:
            await self.rooms.leave(self)
        except Exception:
            # The next heartbeat of this process, or its end, removes the row.
            logger.exception("could not note that somebody has left")
        await super().leave()

    def _known(self) -> int | None:
        """Return the number up to which the client says that it knows everything."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return protocol.parse_after(query.get("after", [None])[-1])

    async def _send_history(self, known: int | None) -> int:
        """Send what follows; return the number up to which the client then knows everything.

        A page at a time, so that memory stays bounded.
        """
        while True:
            frame = await opening.frame((self.room_id, self.room.name, known))
            assert frame is not None  # noqa: S101 - each question has an answer
            await self.send(text_data=frame.text)
            if frame.is_last:
                return frame.known
            known = frame.known

    async def _send_range(self, first: int, last: int) -> None:
        messages, newest = await database_sync_to_async(reading.between)(self.room_id, first, last)
        frame: protocol.RangeFrame = {
            "type": "history",
            "from": first,
            "to": last,
            "messages": post.message_bodies(messages, self.room.name),
            "sequence": newest,
            "worker": settings.CHANNELS_KIT_WORKER,
        }
        await self._send_frame(frame)
