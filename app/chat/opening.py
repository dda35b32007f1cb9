"""What a socket asks the database when it opens, for all that open at the same time.

Each may be called from any socket; an answer is not older than the call.
"""

import json
from collections.abc import Collection
from math import inf
from typing import NamedTuple

from django.conf import settings

from chat import history, post, protocol, reading
from chat.gathered import Gathered
from chat.models import Room


class Frame(NamedTuple):
    """A part of a history as a frame.

    Attributes:
        text: the frame.
        known: the number up to which its reader then knows everything.
        is_last: whether there was no more to read.
    """

    text: str
    known: int
    is_last: bool


def _rooms(asked: Collection[tuple[str, int]]) -> dict[tuple[str, int], Room | None]:
    """Return rooms by their name and who wants to enter; only those that they may enter."""
    rooms = Room.objects.filter(name__in={name for name, _ in asked}).only("name", "is_private")
    by_name = {room.name: room for room in rooms}
    private = [room.pk for room in by_name.values() if room.is_private]
    members = set()
    if private:
        memberships = Room.members.through.objects.filter(
            room_id__in=private, user_id__in={user_id for _, user_id in asked}
        )
        members = set(memberships.values_list("room_id", "user_id"))
    return {
        (name, user_id): room
        for name, user_id in asked
        if (room := by_name.get(name)) is not None
        and (not room.is_private or (room.pk, user_id) in members)
    }


def _frames(
    asked: Collection[tuple[int, str, int | None]],
) -> dict[tuple[int, str, int | None], Frame | None]:
    """Return what follows in a room, by its key, its name, and the number that is known.

    Raises:
        Room.DoesNotExist: a room has been deleted.
    """
    rooms = Room.objects.filter(pk__in={room_id for room_id, _, _ in asked})
    positions = dict(rooms.values_list("pk", "last_sequence"))
    # Rooms in which little is new, with the least that somebody knows of it.
    behind: dict[int, int] = {}
    for room_id, _, known in asked:
        if known is not None and 0 < positions.get(room_id, 0) - known < protocol.HISTORY_PAGE:
            behind[room_id] = min(known, behind.get(room_id, known))
    newer = history.newer(behind)
    found: dict[tuple[int, str, int | None], Frame | None] = {}
    for question in asked:
        room_id, name, known = question
        position = positions.get(room_id, 0)
        page = None
        # Most of those that come back: there is nothing to read, or little.
        if known is not None and 0 < position <= known:
            page = reading.Page([], position, is_last=True)
        elif known is not None and known >= behind.get(room_id, inf):
            messages = [message for message in newer[room_id] if message.sequence > known]
            if len(messages) < protocol.HISTORY_PAGE:
                newest = max([position, *(message.sequence for message in messages)])
                page = reading.Page(messages, newest, is_last=True)
        page = page or reading.page(room_id, known)
        frame = {
            "type": "history",
            "messages": post.message_bodies(page.messages, name),
            "sequence": page.known,
            "worker": settings.CHANNELS_KIT_WORKER,
        }
        found[question] = Frame(json.dumps(frame), page.known, page.is_last)
    return found


room = Gathered(_rooms, None)
frame = Gathered(_frames, None)
