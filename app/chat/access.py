"""The end of sockets whose person may stay no longer: no more in one room, or nowhere."""

from typing import Any

from django.db import transaction

from chat import layer
from chat.models import Presence
from chat.protocol import CloseCode


def end_in_room(room: str, user_id: int) -> None:
    """Close a user's sockets in a room that they may enter no more, once that is committed."""
    event = _event(user_id, CloseCode.UNKNOWN_ROOM, "You are no longer a member of this room.")
    layer.tell_on_commit(layer.room_group(room), event)


def end_everywhere(user_id: int) -> None:
    """Close all sockets of a user who may log in no more, once that is committed."""
    event = _event(user_id, CloseCode.LOGIN_REQUIRED, "Your account is not active.")
    names = Presence.objects.filter(user_id=user_id).values_list("room__name", flat=True)
    with transaction.atomic():
        for name in names.distinct():
            layer.tell_on_commit(layer.room_group(name), event)
        layer.tell_on_commit(layer.user_group(user_id), event)


def _event(user_id: int, code: CloseCode, reason: str) -> dict[str, Any]:
    return {"type": "person.refused", "user": user_id, "code": code.value, "reason": reason}
