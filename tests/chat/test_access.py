"""Who may enter a private room, and what ends a socket whose person may stay no longer."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from chat.models import Room
from tests.chat.sockets import Sockets


@pytest.fixture
def cellar(ada: User, bob: User) -> Room:
    """Return a private room that ada made, with bob as a member."""
    room = Room.objects.create(name="cellar", title="Cellar", is_private=True, created_by=ada)
    room.members.add(ada, bob)
    return room


@pytest.mark.usefixtures("cellar")
async def test_members_enter_a_private_room(sockets: Sockets, ada: User) -> None:
    _, history = await sockets.join(ada, room="cellar")
    assert history["type"] == "history"


@pytest.mark.usefixtures("cellar")
@pytest.mark.parametrize("is_staff", [False, True])
async def test_a_private_room_looks_to_others_like_none(sockets: Sockets, is_staff: bool) -> None:
    carl = await database_sync_to_async(User.objects.create_user)(
        "carl", is_staff=is_staff, is_superuser=is_staff
    )
    private, none = [await sockets.open(carl, room=room) for room in ("cellar", "nowhere")]
    event = await private.event()
    assert (event["type"], event["code"]) == ("websocket.close", 4003)
    assert event == await none.event()


async def test_one_who_is_removed_is_out_at_once(
    sockets: Sockets, cellar: Room, ada: User, bob: User, client: Client
) -> None:
    stays, _ = await sockets.join(ada, room="cellar")
    goes, _ = await sockets.join(bob, room="cellar")
    elsewhere, _ = await sockets.join(bob)

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def remove() -> None:
        client.force_login(ada)
        client.post("/rooms/cellar/members/", {"username": "bob", "action": "remove"})

    await remove()
    assert await goes.close_code() == 4003
    assert await stays.receive_until("left") == {"type": "left", "user": "bob"}
    await elsewhere.say("still here")
    await elsewhere.receive_until("message")


@pytest.mark.parametrize(
    "remove",
    [
        lambda room, user: room.members.remove(user),
        lambda room, user: room.members.clear(),
        lambda room, user: user.rooms.remove(room),
        lambda room, user: user.rooms.clear(),
    ],
)
async def test_every_way_to_remove_a_member_ends_their_sockets(
    sockets: Sockets, cellar: Room, bob: User, remove: Callable[[Room, User], None]
) -> None:
    socket, _ = await sockets.join(bob, room="cellar")
    await database_sync_to_async(remove)(cellar, bob)
    assert await socket.close_code() == 4003


async def test_a_room_that_becomes_private_is_left_to_its_members(
    sockets: Sockets, lobby: Room, ada: User, bob: User, client: Client
) -> None:
    stays, _ = await sockets.join(ada)
    goes, _ = await sockets.join(bob)

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def make_private() -> None:
        client.force_login(User.objects.create_superuser("root"))
        fields = {"name": "lobby", "title": "Lobby", "is_private": "on", "members": [ada.pk]}
        response = client.post(f"/admin/chat/room/{lobby.pk}/change/", fields)
        assert response.status_code == 302

    await make_private()
    assert await goes.close_code() == 4003
    await stays.say("alone at last")
    assert (await stays.receive_until("message"))["sequence"] == 1


async def test_a_public_room_can_change_with_everyone_in_it(
    sockets: Sockets, lobby: Room, ada: User
) -> None:
    socket, _ = await sockets.join(ada)
    lobby.title = "The lobby"
    await database_sync_to_async(lobby.save)()
    await socket.say("still here")
    assert (await socket.receive())["message"] == "still here"


async def test_a_change_that_is_not_committed_ends_nothing(
    sockets: Sockets, lobby: Room, ada: User, bob: User
) -> None:
    stays, _ = await sockets.join(ada)
    goes, _ = await sockets.join(bob)

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def fail_and_make_private() -> None:
        lobby.is_private = True
        with suppress(ZeroDivisionError), transaction.atomic():
            lobby.save()
            raise ZeroDivisionError
        lobby.members.add(ada)
        lobby.save()

    await fail_and_make_private()
    assert await goes.close_code() == 4003
    await stays.say("still here")
    assert (await stays.receive_until("message"))["sequence"] == 1


async def test_a_room_that_is_deleted_ends_its_sockets(
    sockets: Sockets, cellar: Room, ada: User, bob: User
) -> None:
    idle = [(await sockets.join(user, room="cellar"))[0] for user in (ada, bob)]
    elsewhere, _ = await sockets.join(bob)
    await database_sync_to_async(cellar.delete)()
    assert [await socket.close_code() for socket in idle] == [4003, 4003]
    await elsewhere.say("still here")
    await elsewhere.receive_until("message")


@pytest.mark.usefixtures("cellar")
@pytest.mark.parametrize("change", ["deactivate", "delete"])
async def test_one_who_may_not_log_in_any_more_is_out_everywhere(
    sockets: Sockets, bob: User, change: str
) -> None:
    opened = [(await sockets.join(bob, room=room))[0] for room in ("lobby", "cellar")]
    bob.is_active = False
    await database_sync_to_async(bob.save if change == "deactivate" else bob.delete)()
    for socket in opened:
        assert await socket.close_code() == 4001


async def test_one_who_is_not_active_does_not_get_in(sockets: Sockets, ada: User) -> None:
    socket = await sockets.make("/ws/chat/lobby/", ada)
    ada.is_active = False
    await database_sync_to_async(ada.save)()
    assert (await socket.connect())["type"] == "websocket.accept"
    assert await socket.close_code() == 4001
