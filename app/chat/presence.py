"""Who is in a room, over all workers: rows in the database, kept alive by heartbeats.

Every function uses the database and blocks. A row stands for a person with sockets in a room
through one worker process. A process that goes away without a word leaves its rows behind; the
others find them by its heartbeat, which has stopped.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from chat.models import Presence, Room, WorkerInstance

BEAT_SECONDS = 5.0
"""Seconds from one heartbeat to the next."""

DEAD_SECONDS = 15.0
"""Seconds after its last heartbeat in which a worker process counts as alive."""


@dataclass(frozen=True)
class Gone:
    """A person whose last socket in a room has gone, with the worker that held it.

    Attributes:
        room: the room's name.
        user: the user's name.
    """

    room: str
    user: str


@dataclass(frozen=True)
class Beat:
    """What one heartbeat found.

    Attributes:
        gone: to be told to their rooms, by this worker alone.
        positions: the number of the newest message, by room.
        people: the sorted names of those who are there, by room.
    """

    gone: list[Gone]
    positions: dict[int, int]
    people: dict[int, list[str]]


def enter(instance: str, arrivals: Collection[tuple[int, int]]) -> dict[tuple[int, int], bool]:
    """Note that people have come into rooms; return whom no worker had there before.

    Args:
        instance: the name of the process.
        arrivals: rooms and users by their primary keys. A user who is deleted is left out.
    """
    with transaction.atomic():
        WorkerInstance.objects.bulk_create(
            [WorkerInstance(name=instance, beat_at=Now())],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=["beat_at"],
        )
        known = _lock({user_id for _, user_id in arrivals})
        there = set(
            Presence.objects.filter(
                room__in={room_id for room_id, _ in arrivals}, user__in=known
            ).values_list("room", "user")
        )
        come = [pair for pair in arrivals if pair[1] in known]
        Presence.objects.bulk_create(
            [
                Presence(instance_id=instance, room_id=room_id, user_id=user_id)
                for room_id, user_id in come
            ],
            ignore_conflicts=True,
        )
        return {pair: pair not in there for pair in come}


def leave(instance: str, room_id: int, user_id: int) -> bool:
    """Note that a person has left a room; return whether no worker has them there any more."""
    with transaction.atomic():
        _lock({user_id})
        there = Presence.objects.filter(room_id=room_id, user_id=user_id)
        deleted, _ = there.filter(instance_id=instance).delete()
        return deleted > 0 and not there.exists()


def people(room_ids: Collection[int]) -> dict[int, list[str]]:
    """Return the sorted names of those who are in some rooms."""
    rows = Presence.objects.filter(room__in=room_ids).values_list("room", "user__username")
    people: dict[int, list[str]] = {room_id: [] for room_id in room_ids}
    for room_id, name in sorted(set(rows)):
        people[room_id].append(name)
    return people


def beat(instance: str, here: Mapping[int, set[int]]) -> Beat:
    """Show that a worker process lives, and look after those that do not.

    Args:
        instance: the name of the process.
        here: who has sockets in which room through it; its rows are brought in line with that.
    """
    with transaction.atomic():
        # The write first: on SQLite it keeps two processes from sweeping at the same time.
        WorkerInstance.objects.update_or_create(name=instance, defaults={"beat_at": Now()})
        # Without rooms that have been deleted: a row for one would undo the whole heartbeat.
        rooms = dict(Room.objects.filter(pk__in=here).values_list("pk", "last_sequence"))
        _align(instance, {room_id: here[room_id] for room_id in rooms})
        gone = _sweep()
        return Beat(gone, rooms, people(list(here)))


def _lock(user_ids: Collection[int]) -> set[int]:
    """Let only one worker at a time see people come or go: else two could be the first.

    Returns:
        those who are not deleted.
    """
    # Without the key: messages of the same person, which refer to the row, are not held up. In one
    # order: two workers wait for each other never.
    locked = User.objects.select_for_update(no_key=True).filter(pk__in=user_ids).order_by("pk")
    return set(locked.values_list("pk", flat=True))


def _align(instance: str, here: Mapping[int, set[int]]) -> None:
    """Undo what a failed query or a sweep during a long pause has left behind."""
    wanted = {(room_id, user_id) for room_id, users in here.items() for user_id in users}
    own = Presence.objects.filter(instance_id=instance)
    rows = {
        (room_id, user_id): pk for pk, room_id, user_id in own.values_list("pk", "room", "user")
    }
    own.filter(pk__in=[pk for key, pk in rows.items() if key not in wanted]).delete()
    missing = wanted - rows.keys()
    if not missing:
        return
    # As without deleted rooms, so without deleted users.
    users = User.objects.filter(pk__in={user_id for _, user_id in missing})
    known = set(users.values_list("pk", flat=True))
    Presence.objects.bulk_create(
        [
            Presence(instance_id=instance, room_id=room_id, user_id=user_id)
            for room_id, user_id in missing
            if user_id in known
        ],
        ignore_conflicts=True,
    )


def _sweep() -> list[Gone]:
    """Remove the processes without a heartbeat; return who is gone with them."""
    dead = WorkerInstance.objects.filter(beat_at__lt=Now() - timedelta(seconds=DEAD_SECONDS))
    # Another worker that has the same row in hand tells of it: it is skipped here.
    names = list(dead.select_for_update(skip_locked=True).values_list("name", flat=True))
    if not names:
        return []
    rows = Presence.objects.filter(instance__in=names)
    swept = set(rows.values_list("room", "user", "room__name", "user__username"))
    rows.delete()
    WorkerInstance.objects.filter(name__in=names).delete()
    there = set(
        Presence.objects.filter(
            room__in={row[0] for row in swept}, user__in={row[1] for row in swept}
        ).values_list("room", "user")
    )
    return [Gone(room, user) for *key, room, user in sorted(swept) if tuple(key) not in there]
