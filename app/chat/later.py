"""What is promised for later: messages whose time has come, and thumbnails that were lost.

The promises are rows of the database. Celery only looks for them, every second: whatever it or its
broker loses is found at the next look, and two that look at the same time do not meet.
"""

import logging
from datetime import timedelta

from asgiref.sync import async_to_sync
from django.db import transaction
from django.db.models.functions import Now

from chat import layer
from chat.models import Image, LaterMessage, Room
from chat.people import Person
from chat.post import post

logger = logging.getLogger(__name__)

THUMBNAIL_PATIENCE = timedelta(seconds=10)
"""How old an image is before a thumbnail that is missing counts as lost."""

THUMBNAIL_ATTEMPTS = 5
"""How often the making of a thumbnail is begun; an image that breaks it has none."""

THUMBNAILS_AT_ONCE = 20
"""Thumbnails that are asked for at once: the channel of their process takes a hundred."""


def promise(room: Room, person: Person, text: str, client_id: str, delay: int) -> int:
    """Promise to say something in a room after ``delay`` seconds; return the promise's number.

    Once this is committed, the message is said, whatever restarts. A person who promises again
    under the same ``client_id`` has the first promise.
    """
    with transaction.atomic():
        # Of two that promise the same at the same time, the second one sees what the first did.
        Room.objects.select_for_update(no_key=True).get(pk=room.pk)
        same = {"room_id": room.pk, "user_id": person.id, "client_id": client_id}
        first = LaterMessage.objects.filter(**same).first()
        if first is None:
            due_at = Now() + timedelta(seconds=delay)
            first = LaterMessage.objects.create(**same, text=text, due_at=due_at)
        return first.pk


def deliver(*, before_time: bool = False) -> int:
    """Say the messages whose time has come; return how many.

    Args:
        before_time: also those whose time has not come yet.
    """
    passed: list[int] = []
    said = 0
    while True:
        due = LaterMessage.objects.exclude(pk__in=passed)
        if not before_time:
            due = due.filter(due_at__lte=Now())
        with transaction.atomic():
            # What another process has in hand is its own to say.
            later = due.select_for_update(skip_locked=True).order_by("due_at", "pk").first()
            if later is None:
                return said
            # One that fails holds up none behind it, and is tried again at the next look.
            passed.append(later.pk)
            try:
                with transaction.atomic():
                    said += _say(later)
            except Exception:
                logger.exception("could not say message %d for later", later.pk)


def _say(later: LaterMessage) -> bool:
    """Say one message; return whether its person still may.

    With the row's end in the same transaction: it is said once. Readers are told after it.
    """
    may_enter = Room.objects.open_to(later.user_id).filter(pk=later.room_id).exists()
    if may_enter and later.user.is_active:
        person = Person(later.user.pk, later.user.get_username())
        post(later.room, person, later.text, client_id=later.client_id)
    else:
        may_enter = False
        logger.warning(
            "user %d may not enter room %d any more: message dropped", later.user_id, later.room_id
        )
    later.delete()
    return may_enter


def ask_for_lost_thumbnails() -> None:
    """Ask again for thumbnails that should be there: the channel layer may lose a request."""
    lost = Image.objects.filter(
        has_thumbnail=False,
        thumbnail_attempts__lt=THUMBNAIL_ATTEMPTS,
        message__sent_at__lt=Now() - THUMBNAIL_PATIENCE,
    )
    for image_id in lost.order_by("pk").values_list("pk", flat=True)[:THUMBNAILS_AT_ONCE]:
        async_to_sync(layer.ask_for_thumbnail)(image_id)
