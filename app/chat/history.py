"""The history of a room: what was said, in the order of its numbers.

The history is the truth and the channel layer only the wire: a message has its number and is stored
before anyone is told of it, so whoever misses it on the wire can ask for what came after the last
number they know.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from chat.models import Image, Message, Room


@dataclass(frozen=True)
class NewImage:
    """An image that has been examined and may be stored.

    Attributes:
        content: the file.
        content_type: of the format that was found in the file, not of one that was claimed.
        width: pixels, as it is to be shown.
        height: pixels, as it is to be shown.
    """

    content: bytes
    content_type: str
    width: int
    height: int


class MessageHistory:
    """The messages of one room.

    All methods use the database and block: call them through ``database_sync_to_async`` from a
    consumer. Those that return several messages return them oldest first, with their users and
    images loaded (but not the images' bytes).

    Args:
        room_id: the primary key of the room.
    """

    def __init__(self, room_id: int) -> None:
        self.room_id = room_id

    def append(
        self,
        *,
        user_id: int,
        text: str,
        worker: str,
        client_id: str | None = None,
        image: NewImage | None = None,
    ) -> tuple[Message, bool]:
        """Store a message under the room's next number; return it, and whether it is new.

        A message that the same user has already sent under the same ``client_id`` is not stored
        again: the one that is there is returned.

        Raises:
            Room.DoesNotExist: the room has been deleted.
        """
        with transaction.atomic():
            # First the write: it locks the room's row until the end, so numbers become visible in
            # their order, a failed insert gives its number back, and of two workers that store the
            # same client_id the second one sees the message of the first. Reading before writing
            # would let both read the same.
            Room.objects.filter(pk=self.room_id).update(last_sequence=F("last_sequence") + 1)
            sequence = Room.objects.values_list("last_sequence", flat=True).get(pk=self.room_id)
            if client_id is not None:
                same = self._messages().filter(user_id=user_id, client_id=client_id).first()
                if same is not None:
                    # Gives the number back.
                    transaction.set_rollback(True)
                    return same, False
            message = Message.objects.create(
                room_id=self.room_id,
                sequence=sequence,
                user_id=user_id,
                text=text,
                client_id=client_id,
                sent_at=timezone.now(),
                worker=worker,
            )
            if image is not None:
                Image.objects.create(
                    message=message,
                    content=image.content,
                    content_type=image.content_type,
                    width=image.width,
                    height=image.height,
                )
            return message, True

    def after(self, sequence: int, limit: int) -> list[Message]:
        """Return the oldest ``limit`` messages with a number above ``sequence``."""
        messages = self._messages().filter(sequence__gt=sequence)
        return list(messages.order_by("sequence")[:limit])

    def latest(self, limit: int) -> list[Message]:
        """Return the newest ``limit`` messages."""
        return list(self._messages().order_by("-sequence")[:limit])[::-1]

    def between(self, first: int, last: int) -> list[Message]:
        """Return the messages with the numbers from ``first`` to ``last``, both included."""
        messages = self._messages().filter(sequence__gte=first, sequence__lte=last)
        return list(messages.order_by("sequence"))

    def position(self) -> int:
        """Return the number of the newest message, 0 before the first.

        Raises:
            Room.DoesNotExist: the room has been deleted.
        """
        return Room.objects.values_list("last_sequence", flat=True).get(pk=self.room_id)

    def _messages(self) -> QuerySet[Message]:
        return _loaded(Q(room_id=self.room_id))


def newer(known: Mapping[int, int]) -> dict[int, list[Message]]:
    """Return the messages above a number of each of several rooms, in one query.

    As of ``MessageHistory``: it blocks, and they are oldest first and loaded.

    Args:
        known: numbers by the primary keys of rooms; few follow on each.
    """
    if not known:
        # No condition would be all messages.
        return {}
    wanted = Q()
    for room_id, sequence in known.items():
        wanted |= Q(room_id=room_id, sequence__gt=sequence)
    found: dict[int, list[Message]] = {room_id: [] for room_id in known}
    for message in _loaded(wanted).order_by("room_id", "sequence"):
        found[message.room_id].append(message)
    return found


def _loaded(wanted: Q) -> QuerySet[Message]:
    messages = Message.objects.filter(wanted).select_related("user", "image")
    return messages.defer("image__content", "image__thumbnail")
