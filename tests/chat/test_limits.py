"""What a socket is held back from: too many frames, and telling too often that somebody types."""

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.contrib.auth.models import User

from chat import consumers
from chat.models import Message
from chat.rate import FRAMES_AT_ONCE, PAUSE, REFUSED_IN_A_ROW
from tests.chat.clock import Clock
from tests.chat.sockets import Socket, Sockets


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(consumers, "time", clock)
    return clock


async def ping(socket: Socket, times: int) -> list[str]:
    """Send pings, and return what kinds of frames answer them."""
    for _ in range(times):
        await socket.act("ping")
    return [(await socket.receive())["type"] for _ in range(times)]


async def test_what_comes_too_fast_is_refused_until_the_time_it_tells(
    sockets: Sockets, ada: User, clock: Clock
) -> None:
    socket, _ = await sockets.join(ada)
    assert set(await ping(socket, FRAMES_AT_ONCE)) == {"pong"}
    await socket.act("ping")
    assert await socket.receive() == {
        "type": "error",
        "code": "flood",
        "error": "Too many frames; wait 0.1 s.",
        "retry_after": 0.1,
    }
    clock.now += 0.1
    assert await ping(socket, 1) == ["pong"]


async def test_a_message_that_is_refused_is_named_and_not_stored(
    sockets: Sockets, ada: User, clock: Clock
) -> None:
    socket, _ = await sockets.join(ada)
    await ping(socket, FRAMES_AT_ONCE)
    await socket.say("too fast", client_id="a-1")
    error = await socket.receive()
    assert (error["code"], error["client_id"]) == ("flood", "a-1")
    assert not await database_sync_to_async(Message.objects.exists)()


async def test_who_does_not_stop_is_closed_with_4029(
    sockets: Sockets, ada: User, clock: Clock
) -> None:
    socket, _ = await sockets.join(ada)
    await ping(socket, FRAMES_AT_ONCE)
    assert set(await ping(socket, REFUSED_IN_A_ROW - 1)) == {"error"}
    await socket.act("ping")
    assert await socket.close_code() == 4029


async def test_who_pauses_is_forgiven(sockets: Sockets, ada: User, clock: Clock) -> None:
    socket, _ = await sockets.join(ada)
    await ping(socket, FRAMES_AT_ONCE + REFUSED_IN_A_ROW - 1)
    clock.now += PAUSE
    kinds = await ping(socket, REFUSED_IN_A_ROW)
    assert set(kinds) == {"pong", "error"}


async def test_the_others_see_who_types_at_most_once_in_two_seconds(
    sockets: Sockets, ada: User, bob: User, clock: Clock
) -> None:
    first, _ = await sockets.join(ada)
    second, _ = await sockets.join(bob)
    other_tab, _ = await sockets.join(ada)
    await first.receive_until("joined")
    for seconds in (0.0, 1.9, 0.2):
        clock.now += seconds
        await first.act("typing")
        assert await ping(first, 1) == ["pong"]
    await first.say("done")
    assert [await second.receive() for _ in range(2)] == [{"type": "typing", "user": "ada"}] * 2
    for socket in (first, second, other_tab):
        assert (await socket.receive())["type"] == "message"
