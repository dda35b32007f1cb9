"""The room's socket through the whole application: origin, session, router, consumer, layer."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from django.conf import settings
from django.contrib.auth.models import User

from chat import protocol
from chat.consumers import RoomConsumer
from chat.models import Room
from tests.chat.sockets import Socket, Sockets


async def test_everyone_in_the_room_hears_the_sender_too(
    sockets: Sockets, ada: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "CHANNELS_KIT_WORKER", "app1:8001")
    first, _ = await sockets.join(ada)
    second, _ = await sockets.join(bob)
    await first.say("Hello <b>Bob</b> 👋")
    heard = [await socket.receive_until("message") for socket in (first, second)]
    assert heard[0] == heard[1]
    assert heard[0].pop("sent_at").endswith("+00:00")
    assert heard[0] == {
        "type": "message",
        "sequence": 1,
        "room": "lobby",
        "user": "ada",
        "message": "Hello <b>Bob</b> 👋",
        "worker": "app1:8001",
    }


async def test_another_room_hears_nothing(sockets: Sockets, ada: User, bob: User) -> None:
    await database_sync_to_async(Room.objects.get_or_create)(
        name="random", defaults={"title": "Random"}
    )
    first, _ = await sockets.join(ada)
    second, _ = await sockets.join(bob, room="random")
    await first.say("only here")
    await first.receive()
    assert await second.receives_nothing()


@pytest.mark.usefixtures("in_memory")
async def test_one_who_left_is_out_of_the_group(sockets: Sockets, ada: User, bob: User) -> None:
    await sockets.join(ada)
    second, _ = await sockets.join(bob)
    assert len(get_channel_layer().groups["chat.room.lobby"]) == 2
    await second.close()
    assert len(get_channel_layer().groups["chat.room.lobby"]) == 1


async def test_the_history_comes_first(
    sockets: Sockets, ada: User, say: Callable[[str], int]
) -> None:
    for number in range(1, 4):
        await database_sync_to_async(say)(f"message {number}")
    _, history = await sockets.join(ada)
    assert history["type"] == "history"
    assert history["sequence"] == 3
    assert history["worker"] == settings.CHANNELS_KIT_WORKER
    assert [message["sequence"] for message in history["messages"]] == [1, 2, 3]
    newest = history["messages"][-1]
    assert newest.pop("sent_at").endswith("+00:00")
    assert newest == {
        "sequence": 3,
        "room": "lobby",
        "user": "ada",
        "message": "message 3",
        "worker": "a-worker",
    }


async def test_a_new_client_gets_the_latest(
    sockets: Sockets, ada: User, say: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HISTORY_ON_CONNECT", 2)
    for number in range(1, 6):
        await database_sync_to_async(say)(f"message {number}")
    _, history = await sockets.join(ada)
    assert [message["sequence"] for message in history["messages"]] == [4, 5]


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2, 3]), (2, [3]), (3, []), (99, [])])
async def test_a_returning_client_gets_what_it_missed(
    sockets: Sockets, ada: User, say: Callable[[str], int], after: int, expected: list[int]
) -> None:
    for number in range(1, 4):
        await database_sync_to_async(say)(f"message {number}")
    _, history = await sockets.join(ada, f"?after={after}")
    assert [message["sequence"] for message in history["messages"]] == expected
    assert history["sequence"] == 3


async def test_one_who_missed_much_gets_it_in_pages(
    sockets: Sockets, ada: User, say: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HISTORY_PAGE", 2)
    for number in range(1, 6):
        await database_sync_to_async(say)(f"message {number}")
    socket = await sockets.open(ada, "?after=0")
    pages = [await socket.receive() for _ in range(3)]
    assert [[m["sequence"] for m in page["messages"]] for page in pages] == [[1, 2], [3, 4], [5]]
    assert [page["sequence"] for page in pages] == [2, 4, 5]
    assert (await socket.receive())["type"] == "presence"


async def test_nothing_falls_between_joining_and_history(
    sockets: Sockets, ada: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is sent while a newcomer's history is read still reaches the newcomer."""
    first, _ = await sockets.join(ada)
    send_history = RoomConsumer._send_history

    async def meanwhile(consumer: RoomConsumer, known: int | None) -> int:
        position = await send_history(consumer, known)
        await first.say("meanwhile")
        await first.receive_until("message")
        return position

    monkeypatch.setattr(RoomConsumer, "_send_history", meanwhile)
    second, history = await sockets.join(bob)
    assert history["messages"] == []
    assert (await second.receive_until("message"))["message"] == "meanwhile"


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 19, "9" * 5000, "%D9%A3"])
async def test_an_invalid_after_is_told_and_ignored(
    sockets: Sockets, ada: User, say: Callable[[str], int], after: str
) -> None:
    await database_sync_to_async(say)("hello")
    socket = await sockets.open(ada, f"?after={after}")
    error = await socket.receive()
    assert (error["type"], error["code"]) == ("error", "invalid_after")
    assert (await socket.receive())["sequence"] == 1


async def test_the_largest_after_is_within_what_databases_compare(
    sockets: Sockets, ada: User
) -> None:
    _, history = await sockets.join(ada, "?after=" + "9" * 18)
    assert history["sequence"] == 0


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "malformed_json"),
        ("", "malformed_json"),
        ("[" * 100_000, "malformed_json"),
        ("[]", "not_an_object"),
        ("{}", "missing_action"),
        ('{"action": "dance"}', "unknown_action"),
        ('{"action": 1}', "wrong_type"),
        ('{"action": "send"}', "wrong_type"),
        ('{"action": "send", "message": 1}', "wrong_type"),
        ('{"action": "send", "message": ""}', "empty_message"),
        ('{"action": "send", "message": " \\n"}', "empty_message"),
        (json.dumps({"action": "send", "message": "x" * 2001}), "message_too_long"),
        ('{"action": "send", "message": "a\\u0000b"}', "invalid_text"),
        ('{"action": "send", "message": "\\ud800"}', "invalid_text"),
        (b"\x00", "not_an_image"),
        (b"", "not_an_image"),
        ('{"action": "send", "message": "x", "client_id": 1}', "wrong_type"),
        ('{"action": "send", "message": "x", "client_id": ""}', "invalid_client_id"),
        ('{"action": "send", "message": "x", "client_id": "\\u0000"}', "invalid_client_id"),
        ('{"action": "read"}', "wrong_type"),
        ('{"action": "read", "sequence": -1}', "wrong_type"),
        ('{"action": "read", "sequence": true}', "wrong_type"),
        ('{"action": "history"}', "invalid_range"),
        ('{"action": "history", "from": 2, "to": 1}', "invalid_range"),
        ('{"action": "history", "from": 1, "to": 202}', "invalid_range"),
        ('{"action": "history", "from": -1, "to": 1}', "invalid_range"),
        ('{"action": "history", "from": "1", "to": 1}', "invalid_range"),
        ('{"action": "history", "from": 1, "to": 1e999}', "invalid_range"),
    ],
)
async def test_a_mistake_is_told_and_the_socket_stays_open(
    sockets: Sockets, ada: User, frame: str | bytes, code: str
) -> None:
    socket, _ = await sockets.join(ada)
    await socket.send(frame)
    error = await socket.receive()
    assert error.keys() == {"type", "code", "error"}
    assert (error["type"], error["code"]) == ("error", code)
    await socket.say("x" * 2000)
    assert (await socket.receive())["sequence"] == 1


async def test_an_unknown_action_is_named(sockets: Sockets, ada: User) -> None:
    socket, _ = await sockets.join(ada)
    await socket.send('{"action": "x"}')
    assert (await socket.receive())["error"] == "Unknown action: x"


async def closed_after_accept(socket: Socket) -> dict[str, Any]:
    # A close before the accept would hide its code from browsers.
    assert (await socket.connect())["type"] == "websocket.accept"
    return await socket.event()


async def test_a_stranger_sees_4001(sockets: Sockets) -> None:
    event = await closed_after_accept(await sockets.make("/ws/chat/lobby/"))
    assert event == {"type": "websocket.close", "code": 4001, "reason": "Log in first."}


async def test_an_unknown_room_is_4003(sockets: Sockets, ada: User) -> None:
    event = await closed_after_accept(await sockets.make("/ws/chat/attic/", ada))
    assert (event["type"], event["code"]) == ("websocket.close", 4003)


@pytest.mark.parametrize("origin", [b"https://evil.example", None])
async def test_another_sites_page_is_refused(
    sockets: Sockets, ada: User, origin: bytes | None
) -> None:
    socket = await sockets.make("/ws/chat/lobby/", ada, origin)
    assert await socket.connect() == {"type": "websocket.close"}


async def test_an_unknown_path_is_refused(sockets: Sockets, ada: User) -> None:
    socket = await sockets.make("/ws/elsewhere/", ada)
    assert await socket.connect() == {"type": "websocket.close"}
