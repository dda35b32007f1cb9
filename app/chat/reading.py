"""What a client reads of a room, each in one visit to the database; and how far it has read.

Every function uses the database and blocks.
"""

from dataclasses import dataclass

from chat import protocol
from chat.history import MessageHistory
from chat.models import Message, ReadPosition


@dataclass(frozen=True)
class Page:
    """A part of a history.

    Attributes:
        messages: oldest first.
        known: the number up to which its reader then knows everything.
        is_last: whether there was no more to read.
    """

    messages: list[Message]
    known: int
    is_last: bool


def page(room_id: int, known: int | None) -> Page:
    """Return what follows on the number ``known``, or the newest messages for None.

    Raises:
        Room.DoesNotExist: the room has been deleted.
    """
    history = MessageHistory(room_id)
    # Before the messages: one that is stored in between is not claimed to be known.
    position = history.position()
    if known is None:
        messages = history.latest(protocol.HISTORY_ON_CONNECT)
        is_last = True
    else:
        messages = history.after(known, protocol.HISTORY_PAGE)
        is_last = len(messages) < protocol.HISTORY_PAGE
    return Page(messages, messages[-1].sequence if messages else position, is_last)


def between(room_id: int, first: int, last: int) -> tuple[list[Message], int]:
    """Return the messages from one number to another, and the number of the newest.

    Raises:
        Room.DoesNotExist: the room has been deleted.
    """
    history = MessageHistory(room_id)
    return history.between(first, last), history.position()


def note(room_id: int, user_id: int, sequence: int) -> None:
    """Note that a user has read a room up to a number; never back, nor beyond the newest.

    Raises:
        Room.DoesNotExist: the room has been deleted.
    """
    sequence = min(sequence, MessageHistory(room_id).position())
    position, created = ReadPosition.objects.get_or_create(
        room_id=room_id, user_id=user_id, defaults={"sequence": sequence}
    )
    if not created:
        # The condition in the statement: another of the user's sockets may do the same.
        newer = ReadPosition.objects.filter(pk=position.pk, sequence__lt=sequence)
        newer.update(sequence=sequence)
