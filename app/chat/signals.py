"""What follows on changes that the admin and the pages make to users and members."""

from typing import Any

from django.contrib.auth.models import User
from django.db.models.signals import m2m_changed, post_save
from django.dispatch import receiver

from chat import access
from chat.models import Room


@receiver(m2m_changed, sender=Room.members.through)
def _members_changed(instance: Room | User, action: str, pk_set: set[int] | None, **_: Any) -> None:
    # Before a clear, because after it nobody knows who was a member.
    if action not in {"post_remove", "pre_clear"}:
        return
    if isinstance(instance, Room):
        rooms = [instance]
        users = pk_set or set(instance.members.values_list("pk", flat=True))
    else:
        rooms = list(Room.objects.filter(pk__in=pk_set) if pk_set else instance.rooms.all())
        users = {instance.pk}
    for room in rooms:
        if room.is_private:
            for user_id in users:
                access.end_in_room(room.name, user_id)


@receiver(post_save, sender=User)
def _user_saved(instance: User, created: bool, **_: Any) -> None:
    if not created and not instance.is_active:
        access.end_everywhere(instance.pk)
