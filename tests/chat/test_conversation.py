"""What a socket can ask for, and what it is told of the room's history."""

from collections.abc import Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from chat import layer, post, protocol, reading
from chat.models import Message, Room
from chat.people import Person
from tests.chat.sockets import Socket, Sockets


@pytest.fixture
def said(lobby: Room, say: Callable[[str], int]) -> None:
    """Say five things in the lobby."""
    for number in range(1, 6):
        say(f"message {number}")


async def history(socket: Socket, first: int, last: int) -> dict[str, Any]:
    await socket.act("history", **{"from": first, "to": last})
    return await socket.receive()


async def test_a_ping_is_answered(sockets: Sockets, ada: User) -> None:
    socket, _ = await sockets.join(ada)
    await socket.act("ping")
    assert await socket.receive() == {"type": "pong"}


async def test_a_message_comes_back_under_its_client_id(
    sockets: Sockets, ada: User, bob: User
) -> None:
    first, _ = await sockets.join(ada)
    second, _ = await sockets.join(bob)
    await first.receive_until("joined")
    await first.say("once", client_id="a-1")
    message = await first.receive()
    assert message["client_id"] == "a-1"
    assert await second.receive() == message


async def test_a_message_that_is_sent_again_is_stored_once(
    sockets: Sockets, ada: User, bob: User
) -> None:
    first, _ = await sockets.join(ada)
    second, _ = await sockets.join(bob)
    await first.receive_until("joined")
    await first.say("once", client_id="a-1")
    message = await first.receive()
    returned, _ = await sockets.join(ada)
    await returned.say("whatever it says now", client_id="a-1")
    assert await returned.receive() == message
    await returned.say("next")
    # Nobody else has heard of it, and it took no number.
    for socket in (first, second):
        frames = [await socket.receive_until("message")]
        if frames[0]["sequence"] == 1:
            frames = [await socket.receive_until("message")]
        assert (frames[0]["sequence"], frames[0]["message"]) == (2, "next")
    assert await database_sync_to_async(Message.objects.count)() == 2


async def test_a_client_id_is_its_users_own_in_its_room(
    sockets: Sockets, ada: User, bob: User
) -> None:
    await database_sync_to_async(Room.objects.create)(name="attic", title="Attic")
    for user, room in ((ada, "lobby"), (bob, "lobby"), (ada, "attic")):
        socket, _ = await sockets.join(user, room=room)
        await socket.say(f"{user} in {room}", client_id="1")
        assert (await socket.receive_until("message"))["message"] == f"{user} in {room}"


async def test_a_refused_message_is_named(sockets: Sockets, ada: User) -> None:
    socket, _ = await sockets.join(ada)
    await socket.say("", client_id="a-1")
    error = await socket.receive()
    assert (error["code"], error["client_id"]) == ("empty_message", "a-1")


async def test_a_client_id_has_up_to_64_characters(sockets: Sockets, ada: User) -> None:
    socket, _ = await sockets.join(ada)
    await socket.say("hello", client_id="x" * 65)
    error = await socket.receive()
    assert error["code"] == "invalid_client_id"
    assert error["error"] == '"client_id" has 65 characters; 1 to 64 are allowed.'
    await socket.say("hello", client_id="x" * 64)
    assert (await socket.receive())["client_id"] == "x" * 64


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(2, 4, [2, 3, 4]), (3, 3, [3]), (0, 200, [1, 2, 3, 4, 5]), (5, 205, [5]), (6, 9, [])],
)
async def test_a_client_can_ask_for_what_it_lacks(
    sockets: Sockets, ada: User, first: int, last: int, expected: list[int]
) -> None:
    socket, _ = await sockets.join(ada)
    answer = await history(socket, first, last)
    assert [message["sequence"] for message in answer.pop("messages")] == expected
    assert answer == {
        "type": "history",
        "from": first,
        "to": last,
        "sequence": 5,
        "worker": settings.CHANNELS_KIT_WORKER,
    }


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize(("size", "pages"), [(1, 6), (2, 3), (5, 2), (6, 1)])
async def test_the_last_page_is_the_one_that_is_not_full(
    sockets: Sockets, ada: User, monkeypatch: pytest.MonkeyPatch, size: int, pages: int
) -> None:
    monkeypatch.setattr(protocol, "HISTORY_PAGE", size)
    socket = await sockets.open(ada, "?after=0")
    frames = [await socket.receive() for _ in range(pages)]
    assert [m["sequence"] for frame in frames for m in frame["messages"]] == [1, 2, 3, 4, 5]
    assert frames[-1]["sequence"] == 5
    assert (await socket.receive())["type"] == "presence"


@pytest.mark.usefixtures("said")
async def test_what_is_said_between_two_pages_leaves_no_hole(
    sockets: Sockets, lobby: Room, ada: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HISTORY_PAGE", 2)
    read = reading.page

    def and_somebody_speaks(room_id: int, known: int | None) -> reading.Page:
        page = read(room_id, known)
        post.store(lobby, Person(bob.pk, "bob"), f"after {known}")
        # Without end, each page would be followed by another.
        monkeypatch.setattr(reading, "page", read)
        return page

    monkeypatch.setattr(reading, "page", and_somebody_speaks)
    socket = await sockets.open(ada, "?after=1")
    known = 1
    while (frame := await socket.receive())["type"] == "history":
        for message in frame["messages"]:
            known += 1
            assert message["sequence"] == known
        assert frame["sequence"] == known
    assert known == 6


@pytest.mark.usefixtures("said")
async def test_what_has_been_read_is_not_new(
    sockets: Sockets, ada: User, bob: User, client: Client
) -> None:
    @database_sync_to_async  # type: ignore[untyped-decorator]
    def unread() -> dict[str, int]:
        client.force_login(bob)
        rooms = client.get("/").context["rooms"]
        return {room.name: room.unread for room in rooms}

    assert (await unread())["lobby"] == 5
    socket, _ = await sockets.join(bob)
    # Neither back nor beyond what there is.
    for sequence, left in ((2, 3), (1, 3), (99, 0)):
        await socket.act("read", sequence=sequence)
        await socket.act("ping")
        assert (await socket.receive())["type"] == "pong"
        assert (await unread())["lobby"] == left
    await socket.say("more")
    await socket.receive()
    assert (await unread())["lobby"] == 1


@pytest.mark.parametrize(
    "frame",
    [
        {"action": "send", "message": "hello?"},
        {"action": "history", "from": 1, "to": 2},
        {"action": "read", "sequence": 1},
    ],
)
async def test_who_was_not_told_that_a_room_is_deleted_finds_out(
    sockets: Sockets,
    lobby: Room,
    ada: User,
    frame: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket, _ = await sockets.join(ada)
    monkeypatch.setattr(layer, "tell_on_commit", lambda *_: None)
    await database_sync_to_async(lobby.delete)()
    await socket.act(**frame)
    assert await socket.close_code() == 4003
