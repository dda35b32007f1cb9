"""Who is in a room, and what a heartbeat brings to light, over workers of their own."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import (  # type: ignore[import-untyped]
    InMemoryChannelLayer,
    get_channel_layer,
)
from django.contrib.auth.models import User
from django.utils import timezone

from chat import layer, local_rooms, presence
from chat.local_rooms import REJOIN_SECONDS
from chat.models import Presence, Room, WorkerInstance
from tests.chat.clock import Clock
from tests.chat.sockets import Socket, Sockets, Worker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(local_rooms, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def heartbeats_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BEAT_SECONDS", 3600.0)


@pytest.fixture
def dead_worker(lobby: Room, transactional_db: None) -> Callable[[User], None]:
    """Leave behind what a worker with one person leaves that was killed a minute ago."""

    def leave_behind(user: User) -> None:
        killed = WorkerInstance.objects.create(
            name="killed", beat_at=timezone.now() - timedelta(minutes=1)
        )
        Presence.objects.create(instance=killed, room=lobby, user=user)

    return leave_behind


async def next_frames(socket: Socket) -> list[dict[str, Any]]:
    """Return all frames that were on their way to a socket."""
    await socket.act("ping")
    frames = [await socket.receive()]
    while frames[-1]["type"] != "pong":
        frames.append(await socket.receive())
    return frames[:-1]


async def test_the_history_is_followed_by_who_is_there(
    sockets: Sockets, ada: User, bob: User
) -> None:
    await sockets.join(bob)
    socket = await sockets.open(ada)
    assert (await socket.receive())["type"] == "history"
    assert await socket.receive() == {"type": "presence", "users": ["ada", "bob"]}
    assert await next_frames(socket) == []


async def test_three_tabs_are_one_person(sockets: Sockets, ada: User, bob: User) -> None:
    one, two = Worker(), Worker()
    watcher, _ = await sockets.join(bob, worker=one)
    tabs = [(await sockets.join(ada, worker=worker))[0] for worker in (one, one, two)]
    assert await watcher.receive() == {"type": "joined", "user": "ada"}
    last = tabs.pop(0)
    # The one through the other worker first: then this one knows alone that one is left.
    for tab in reversed(tabs):
        await tab.close()
    # What anybody says comes after whatever the tabs have caused.
    await last.say("still here")
    assert (await watcher.receive())["message"] == "still here"
    await last.close()
    assert await watcher.receive() == {"type": "left", "user": "ada"}
    assert not await database_sync_to_async(Presence.objects.filter(user=ada).exists)()


async def test_a_person_is_not_told_of_themselves(sockets: Sockets, ada: User) -> None:
    first, _ = await sockets.join(ada)
    second, _ = await sockets.join(ada)
    await second.close()
    assert await next_frames(first) == []


async def test_other_rooms_are_not_told(sockets: Sockets, ada: User, bob: User) -> None:
    await database_sync_to_async(Room.objects.create)(name="attic", title="Attic")
    watcher, _ = await sockets.join(bob, room="attic")
    await sockets.join(ada)
    assert await next_frames(watcher) == []


async def test_those_who_went_with_a_dead_worker_are_told_once(
    sockets: Sockets, ada: User, bob: User, dead_worker: Callable[[User], None]
) -> None:
    carl = await database_sync_to_async(User.objects.create_user)("carl")
    await database_sync_to_async(dead_worker)(carl)
    workers = [Worker(), Worker()]
    first = await sockets.open(ada, worker=workers[0])
    assert (await first.receive_until("presence"))["users"] == ["ada", "carl"]
    second, _ = await sockets.join(bob, worker=workers[1])
    assert await first.receive() == {"type": "joined", "user": "bob"}
    await asyncio.gather(*(worker.rooms.beat() for worker in workers))
    for socket in (first, second):
        assert await socket.receive() == {"type": "left", "user": "carl"}
    for worker in workers * 2:
        await worker.rooms.beat()
    assert [await next_frames(socket) for socket in (first, second)] == [[], []]
    assert not await database_sync_to_async(WorkerInstance.objects.filter(name="killed").exists)()


async def test_one_who_has_come_back_through_another_worker_has_not_gone(
    sockets: Sockets, ada: User, bob: User, dead_worker: Callable[[User], None]
) -> None:
    await database_sync_to_async(dead_worker)(ada)
    worker = Worker()
    watcher, _ = await sockets.join(bob, worker=worker)
    await sockets.join(ada, worker=worker)
    await worker.rooms.beat()
    assert await next_frames(watcher) == []


async def test_a_worker_that_was_taken_for_dead_comes_back(
    sockets: Sockets, ada: User, bob: User
) -> None:
    paused = Worker()
    await sockets.join(ada, worker=paused)
    await database_sync_to_async(WorkerInstance.objects.all().delete)()
    watcher = await sockets.open(bob, worker=Worker())
    assert (await watcher.receive_until("presence"))["users"] == ["bob"]
    await paused.rooms.beat()
    newcomer = await sockets.open(bob)
    assert (await newcomer.receive_until("presence"))["users"] == ["ada", "bob"]


async def test_a_heartbeat_tells_where_the_room_is_when_it_has_moved(
    sockets: Sockets, ada: User, say: Callable[[str], int]
) -> None:
    worker = Worker()
    socket, _ = await sockets.join(ada, worker=worker)
    await worker.rooms.beat()
    assert await next_frames(socket) == []
    # Stored, and told to nobody.
    await database_sync_to_async(say)("lost on the way")
    await worker.rooms.beat()
    assert await next_frames(socket) == [{"type": "position", "sequence": 1}]
    await worker.rooms.beat()
    assert await next_frames(socket) == []


@pytest.mark.usefixtures("in_memory")
async def test_while_the_layer_is_away_nothing_is_lost(
    sockets: Sockets, ada: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ConnectionError

    worker = Worker()
    first, _ = await sockets.join(ada, worker=worker)
    monkeypatch.setattr(InMemoryChannelLayer, "group_send", fail)
    second, _ = await sockets.join(bob, worker=worker)
    await second.say("can you hear me?")
    assert await next_frames(second) == []
    await worker.rooms.beat()
    assert await next_frames(first) == [{"type": "position", "sequence": 1}]
    # That somebody came may be on its way; after one more heartbeat it is not.
    await worker.rooms.beat()
    assert await next_frames(first) == [{"type": "presence", "users": ["ada", "bob"]}]
    await first.act("history", **{"from": 1, "to": 1})
    assert (await first.receive())["messages"][0]["message"] == "can you hear me?"


async def test_what_the_layer_says_it_has_lost_is_sent_from_the_history(
    sockets: Sockets, ada: User, say: Callable[[str], int]
) -> None:
    socket, _ = await sockets.join(ada)
    for text in ("one", "two"):
        await database_sync_to_async(say)(text)
    for _ in range(2):
        event = {"type": "layer.gap", "group": "chat.room.lobby"}
        await get_channel_layer().group_send("chat.room.lobby", event)
    frame = await socket.receive_until("history")
    assert [each["message"] for each in frame["messages"]] == ["one", "two"]
    # And once.
    assert (await socket.receive_until("history"))["messages"] == []


@pytest.mark.usefixtures("in_memory")
async def test_a_socket_that_the_layer_has_forgotten_joins_its_group_again(
    sockets: Sockets, ada: User, bob: User
) -> None:
    """As it is when Redis has restarted: it keeps nothing, and the sockets stay open."""
    worker = Worker()
    socket, _ = await sockets.join(ada, worker=worker)
    get_channel_layer().groups.clear()
    other, _ = await sockets.join(bob, worker=Worker())
    await other.say("one")
    await other.receive_until("message")
    # The first heartbeat finds the message, the second that it has not come by the layer.
    await worker.rooms.beat()
    await worker.rooms.beat()
    await other.say("two")
    await socket.receive_until("message")


@pytest.mark.usefixtures("in_memory")
async def test_a_socket_joins_its_group_again_before_the_layer_forgets_it(
    sockets: Sockets, ada: User, clock: Clock
) -> None:
    worker = Worker()
    socket, _ = await sockets.join(ada, worker=worker)
    # As group_expiry does.
    get_channel_layer().groups.clear()
    clock.now += REJOIN_SECONDS
    await worker.rooms.beat()
    await socket.say("still here")
    assert (await socket.receive())["message"] == "still here"


@pytest.mark.usefixtures("in_memory")
async def test_a_socket_that_ends_while_it_joins_its_group_again_is_out(
    sockets: Sockets, ada: User, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    socket, _ = await sockets.join(ada, worker=worker)
    join = InMemoryChannelLayer.group_add

    async def and_it_ends(*arguments: Any) -> None:
        await socket.close()
        await join(*arguments)

    monkeypatch.setattr(InMemoryChannelLayer, "group_add", and_it_ends)
    clock.now += REJOIN_SECONDS
    await worker.rooms.beat()
    assert not get_channel_layer().groups.get("chat.room.lobby")


async def test_the_heart_goes_on_after_an_error(
    sockets: Sockets,
    ada: User,
    say: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.05)
    beat = presence.beat
    failures = [ConnectionError("the database is away")]

    def fail_once(*arguments: Any) -> presence.Beat:
        if failures:
            raise failures.pop()
        return beat(*arguments)

    monkeypatch.setattr(presence, "beat", fail_once)
    socket, _ = await sockets.join(ada, worker=Worker())
    await database_sync_to_async(say)("hello")
    assert (await socket.receive_until("position"))["sequence"] == 1
    assert "a heartbeat has failed" in caplog.text


@pytest.mark.parametrize("deleted", ["room", "user"])
async def test_the_heart_goes_on_when_a_room_or_a_user_is_deleted(
    sockets: Sockets,
    ada: User,
    bob: User,
    say: Callable[[str], int],
    deleted: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attic = await database_sync_to_async(Room.objects.create)(name="attic", title="Attic")
    worker = Worker()
    socket, _ = await sockets.join(ada, worker=worker)
    await sockets.join(bob, room="attic", worker=worker)
    # A socket that is not told stays.
    monkeypatch.setattr(layer, "tell_on_commit", lambda *_: None)
    await database_sync_to_async(attic.delete if deleted == "room" else bob.delete)()
    await database_sync_to_async(say)("hello")
    await worker.rooms.beat()
    assert await socket.receive_until("position") == {"type": "position", "sequence": 1}


async def test_the_heart_stops_with_the_last_socket(sockets: Sockets, ada: User) -> None:
    before = asyncio.all_tasks()
    worker = Worker()
    opened = [(await sockets.join(ada, worker=worker))[0] for _ in range(2)]
    # Not those of the layer.
    new = asyncio.all_tasks() - before
    beating = [task for task in new if "LocalRooms._beat" in repr(task.get_coro())]
    assert len(beating) == 1
    for socket in opened:
        await socket.close()
    assert all(task.done() for task in beating)


async def test_one_who_comes_just_now_is_told_once(
    sockets: Sockets, ada: User, bob: User, lobby: Room
) -> None:
    """The database knows of a person before the room has been told: a heartbeat in between."""
    worker = Worker()
    socket, _ = await sockets.join(ada, worker=worker)
    await database_sync_to_async(presence.enter)("elsewhere", [(lobby.pk, bob.pk)])
    await worker.rooms.beat()
    assert await next_frames(socket) == []
