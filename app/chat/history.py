"""The history of a room: what was said, in the order of its numbers.

The history is the truth and the channel layer only the wire: a message has its number and is stored
before anyone is told of it, so whoever misses it on the wire can ask for what came after the last
number they know.
"""

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from chat.models import Message, Room


class MessageHistory:
    """The messages of one room.

    All methods use the database and block: call them through ``database_sync_to_async`` from a
    consumer. Those that return several messages return them oldest first, with their users loaded.

    Args:
        room_id: the primary key of the room.
    """

    def __init__(self, room_id: int) -> None:
        self.room_id = room_id

    def append(self, *, user: User, text: str, worker: str) -> Message:
        """Store a message under the room's next number.

        Raises:
            Room.DoesNotExist: the room has been deleted.
        """
        with transaction.atomic():
            # First the write: it locks the room's row until the commit, so numbers become visible
            # in their order and a failed insert gives its number back. Reading before writing
            # would let two workers read the same number.
            Room.objects.filter(pk=self.room_id).update(last_sequence=F("last_sequence") + 1)
            return Message.objects.create(
                room_id=self.room_id,
                sequence=Room.objects.values_list("last_sequence", flat=True).get(pk=self.room_id),
                user=user,
                text=text,
                sent_at=timezone.now(),
                worker=worker,
            )

    def after(self, sequence: int, limit: int) -> list[Message]:
        """Return the oldest ``limit`` messages with a number above ``sequence``."""
        messages = self._messages().filter(sequence__gt=sequence)
        return list(messages.order_by("sequence")[:limit])

    def latest(self, limit: int) -> list[Message]:
        """Return the newest ``limit`` messages."""
        return list(self._messages().order_by("-sequence")[:limit])[::-1]

    def _messages(self) -> QuerySet[Message]:
        return Message.objects.filter(room_id=self.room_id).select_related("user")
