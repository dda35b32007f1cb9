"""What follows on changes that the admin and the pages make to users, rooms and members."""

from typing import Any

from django.contrib.auth.models import User
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import receiver

from chat import access
from chat.models import Room


@receiver(post_save, sender=Room)
def _room_saved(instance: Room, created: bool, **_: Any) -> None:
    if not created:
        access.end_for_others(instance)


@receiver(post_delete, sender=Room)
def _room_deleted(instance: Room, **_: Any) -> None:
    access.end_in_room(instance)


@receiver(m2m_changed, sender=Room.members.through)
def _members_changed(instance: Room | User, action: str, pk_set: set[int] | None, **_: Any) -> None:
    # Before a clear, because after it nobody knows where a user was a member.
    if action not in {"post_remove", "pre_clear"}:
        return
    if isinstance(instance, Room):
        access.end_for_others(instance)
    else:
        for room in Room.objects.filter(pk__in=pk_set) if pk_set else instance.rooms.all():
            access.end_for_others(room)
