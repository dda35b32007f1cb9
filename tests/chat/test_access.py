"""Who may enter a private room, and what ends a socket whose person may stay no longer."""

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.contrib.auth.models import User
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


async def test_one_who_is_deactivated_is_out_everywhere(
    sockets: Sockets, cellar: Room, bob: User
) -> None:
    opened = [(await sockets.join(bob, room=room))[0] for room in ("lobby", "cellar")]
    bob.is_active = False
    await database_sync_to_async(bob.save)()
    for socket in opened:
        assert await socket.close_code() == 4001


async def test_one_who_is_not_active_does_not_get_in(sockets: Sockets, ada: User) -> None:
    socket = await sockets.make("/ws/chat/lobby/", ada)
    ada.is_active = False
    await database_sync_to_async(ada.save)()
    assert (await socket.connect())["type"] == "websocket.accept"
    assert await socket.close_code() == 4001
