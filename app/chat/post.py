"""Saying something in a room, from wherever: a socket, the HTTP API, a command, a task."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.urls import reverse

from chat import layer
from chat.history import MessageHistory, NewImage
from chat.models import Image, Message, Room
from chat.people import Person
from chat.protocol import ImageBody, MessageBody, MessageFrame


@dataclass(frozen=True)
class Posted:
    """A message that is stored.

    Attributes:
        body: the message as clients get it.
        is_new: whether nobody has been told of it yet.
        image_id: the primary key of its image, None where it has none.
    """

    body: MessageBody
    is_new: bool
    image_id: int | None


def post(
    room: Room, person: Person, text: str, *, client_id: str | None = None, worker: str = ""
) -> MessageBody:
    """Store a message and tell the room on commit, from synchronous code; return the message.

    Args:
        room: where it is said.
        person: who says it.
        text: as ``protocol.parse_text`` allows it.
        client_id: a name under which the same person can repeat the call without saying it twice.
        worker: who takes the message, if it is not this worker.

    Raises:
        Room.DoesNotExist: the room has been deleted.
    """
    posted = store(room, person, text, client_id=client_id, worker=worker)
    if posted.is_new:
        transaction.on_commit(partial(async_to_sync(tell), posted.body))
    return posted.body


def store(
    room: Room,
    person: Person,
    text: str,
    *,
    client_id: str | None = None,
    image: NewImage | None = None,
    worker: str = "",
) -> Posted:
    """Store a message; the arguments are those of ``post``, and an image instead of a text.

    Raises:
        Room.DoesNotExist: the room has been deleted.
    """
    message, is_new = MessageHistory(room.pk).append(
        user_id=person.id,
        text=text,
        worker=worker or settings.CHANNELS_KIT_WORKER,
        client_id=client_id,
        image=image,
    )
    image_id = message.image.pk if image else None
    return Posted(message_body(message, room.name, person.name), is_new, image_id)


async def tell(body: MessageBody) -> None:
    """Tell the room of a message that is stored."""
    await layer.tell_all(layer.room_group(body["room"]), message_frame(body))


def message_frame(body: MessageBody) -> MessageFrame:
    """Return the frame of a message."""
    return {"type": "message", **body}


def message_body(message: Message, room: str, user: str) -> MessageBody:
    """Return a message as clients get it, with the names of its room and its user."""
    body: MessageBody = {
        "sequence": message.sequence,
        "room": room,
        "user": user,
        "message": message.text,
        "sent_at": message.sent_at.isoformat(),
        "worker": message.worker,
    }
    if message.client_id is not None:
        body["client_id"] = message.client_id
    if not message.text:
        # It has been removed where the message says nothing either.
        with suppress(Image.DoesNotExist):
            body["image"] = image_body(message.image)
    return body


def message_bodies(messages: Iterable[Message], room: str) -> list[MessageBody]:
    """Return messages of a room, with their users loaded, as clients get them."""
    return [message_body(message, room, message.user.get_username()) for message in messages]


def image_body(image: Image) -> ImageBody:
    """Return an image as clients get it."""
    return {
        "url": reverse("image", args=[image.pk]),
        "thumbnail": reverse("thumbnail", args=[image.pk]) if image.has_thumbnail else None,
        "width": image.width,
        "height": image.height,
    }
