"""Sockets that came through a process of the edge which has been replaced."""

import asyncio
from typing import Any

import pytest

from channels_kit.serving.edges import LATE, MAX_EDGES, Edges, Generation
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.sockets import RETIREMENT, Sockets
from channels_kit.serving.types import Receive, Scope, Send
from channels_kit.serving.wrapper import Serving

from .test_sockets import DENIAL, Application, Connection

LIFETIME = 1


def through(value: str) -> dict[str, Any]:
    return {"headers": [(b"host", b"chat"), (b"x-edge-generation", value.encode())]}


def meet(edges: Edges, value: str, now: float = 0.0) -> tuple[Generation, Generation | None]:
    met, replaced = edges.meet(through(value), now)
    assert met is not None
    return met, replaced


def test_the_first_generation_replaces_none() -> None:
    edges = Edges()
    first, replaced = meet(edges, "lb1 aaaa 3600")
    assert (first.lifetime, replaced) == (3600.0, None)
    assert meet(edges, "lb1 aaaa 3600") == (first, None)


def test_another_configuration_replaces_the_one_before_once() -> None:
    edges = Edges()
    first, _ = meet(edges, "lb1 aaaa 3600")
    second, replaced = meet(edges, "lb1 bbbb 60")
    assert replaced is first
    assert second.lifetime == 60.0
    assert meet(edges, "lb1 bbbb 60") == (second, None)


def test_what_was_on_its_way_at_the_reload_replaces_nothing() -> None:
    edges = Edges()
    first, _ = meet(edges, "lb1 aaaa 3600", 1000.0)
    second, _ = meet(edges, "lb1 bbbb 3600", 2000.0)
    assert meet(edges, "lb1 aaaa 3600", 2000.0 + LATE / 2) == (first, None)
    assert meet(edges, "lb1 bbbb 3600", 2000.0 + LATE / 2) == (second, None)


def test_a_configuration_that_comes_again_has_processes_of_its_own() -> None:
    edges = Edges()
    first, _ = meet(edges, "lb1 aaaa 3600", 1000.0)
    second, _ = meet(edges, "lb1 bbbb 3600", 2000.0)
    third, replaced = meet(edges, "lb1 aaaa 3600", 2000.0 + LATE)
    assert replaced is second
    assert third is not first


def test_edges_are_told_apart() -> None:
    edges = Edges()
    meet(edges, "lb1 aaaa 3600")
    assert meet(edges, "lb2 bbbb 3600")[1] is None
    assert meet(edges, "lb1 aaaa 3600")[1] is None


@pytest.mark.parametrize(
    "value",
    ["", "lb1", "lb1 aaaa", "lb1 aaaa 0", "lb1 aaaa -1", "lb1 aaaa 1e9", "lb1  a 1", "ü a 1"],
)
def test_what_says_something_else_has_none(value: str) -> None:
    assert Edges().meet(through(value), 0.0) == (None, None)
    assert Edges().meet({"headers": []}, 0.0) == Edges().meet({}, 0.0) == (None, None)


def test_nobody_fills_the_memory_with_names() -> None:
    edges = Edges()
    for number in range(MAX_EDGES):
        meet(edges, f"lb{number} aaaa 3600")
    assert edges.meet(through("one-more aaaa 3600"), 0.0) == (None, None)
    assert meet(edges, "lb0 bbbb 3600")[1] is not None


async def test_sockets_of_a_replaced_edge_are_closed_before_it_cuts_them() -> None:
    sockets = Sockets(ServingSettings("unused:unused", "app1:8001"))
    application = Application()

    async def opened(value: str) -> Connection:
        connection = Connection(sockets, application, {**DENIAL, **through(value)})
        assert (await connection.next())["type"] == "websocket.accept"
        return connection

    old = [await opened(f"lb1 aaaa {LIFETIME}") for _ in range(20)]
    other = await opened(f"lb2 aaaa {LIFETIME}")
    gone = await opened(f"lb1 aaaa {LIFETIME}")
    replaced_at = asyncio.get_running_loop().time()
    new = await opened("lb1 bbbb 3600")
    late = await opened(f"lb1 aaaa {LIFETIME}")
    gone.events.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await gone.end()

    for connection in [*old, late]:
        close = await connection.next()
        assert (close["type"], close["code"]) == ("websocket.close", 1012)
        assert close["reason"] == "The edge restarts."
        await connection.end()
    moments = sorted(each.closed_at - replaced_at for each in [*old, late])
    begin, end = (part * LIFETIME for part in RETIREMENT)
    assert moments[0] >= begin
    # Each has its part of the time, before which it is not closed.
    for number, moment in enumerate(moments):
        assert moment >= begin + number / len(moments) * (end - begin) - 0.001
    assert application.codes == [1001, *[1012] * 21]
    assert len(sockets) == 2

    for connection in (other, new):
        assert connection.sent.empty()
        connection.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await connection.end()


async def test_a_plain_request_tells_of_a_reload_too() -> None:
    """Nobody may open a socket for an hour."""
    asked: list[str] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])

    serving = Serving(answer, ServingSettings("unused:unused", "app1:8001"))
    scope = {**DENIAL, **through(f"lb1 aaaa {LIFETIME}")}
    connection = Connection(serving.sockets, Application(), scope)
    assert (await connection.next())["type"] == "websocket.accept"
    request = {"type": "http", "method": "GET", "path": "/rooms/", **through("lb1 bbbb 3600")}
    await serving(request, connection.events.get, connection.send)
    assert asked == ["/rooms/"]
    assert (await connection.next())["code"] == 1012
    await connection.end()
