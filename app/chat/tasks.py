import logging

from celery import shared_task  # type: ignore[import-untyped]
from django.contrib.auth.models import User
from django.db import OperationalError

from chat import later
from chat.models import Room
from chat.people import Person
from chat.post import post

logger = logging.getLogger(__name__)


@shared_task(  # type: ignore[untyped-decorator]
    ignore_result=True, autoretry_for=(OperationalError,), retry_backoff=True
)
def post_later(room_id: int, user_id: int, text: str, client_id: str) -> None:
    """Say something in a room, once, however often the task runs.

    For what workers of the former release have queued; now a message for later is a row of the
    database. What its sender may no longer say is dropped.
    """
    try:
        user = User.objects.get(pk=user_id, is_active=True)
        room = Room.objects.open_to(user_id).get(pk=room_id)
        post(room, Person(user.pk, user.get_username()), text, client_id=client_id)
    except (User.DoesNotExist, Room.DoesNotExist):
        logger.warning("user %d may not enter room %d any more: message dropped", user_id, room_id)


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]
def deliver_later_messages() -> None:
    """Say the messages whose time has come."""
    later.deliver()


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]
def ask_for_lost_thumbnails() -> None:
    """Ask again for thumbnails that should be there."""
    later.ask_for_lost_thumbnails()
