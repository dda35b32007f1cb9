"""The end of sockets whose person may stay in a room no longer."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from django.db import transaction

from chat import layer
from chat.models import Room


def end_for_others(room: Room) -> None:
    """Close the sockets of all who are no members of a room, once it is committed as private."""
    transaction.on_commit(partial(_end_for_others, room.pk))


def end_in_room(room: Room) -> None:
    """Close all sockets in a room that is deleted, once that is committed."""
    event = _closed_event((), "The room has been deleted.")
    layer.tell_on_commit(layer.room_group(room.name), event)


def _end_for_others(room_id: int) -> None:
    # Read here: the admin saves a room first, and its members in the same transaction after it.
    room = Room.objects.filter(pk=room_id, is_private=True).first()
    if room is not None:
        event = _closed_event(
            room.members.values_list("pk", flat=True), "You are not a member of this room."
        )
        async_to_sync(layer.tell)(layer.room_group(room.name), event)


def _closed_event(members: Iterable[int], reason: str) -> dict[str, Any]:
    """Return the event that ends the sockets of a room, but not those of its members."""
    return {"type": "room.closed", "members": list(members), "reason": reason}
