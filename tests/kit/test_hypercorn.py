"""What the kit mends in Hypercorn's WebSockets, under Hypercorn in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypercorn.asyncio import serve
from hypercorn.protocol import h11
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from channels_kit.serving import hypercorn
from channels_kit.serving.server_options import ServerOptions

from .cluster import listening

# Between two pings, here.
SOON = 0.5


@asynccontextmanager
async def served(application: Any, grace: int = 10) -> AsyncIterator[str]:
    options = ServerOptions("127.0.0.1", 0, 2**20, frozenset(), grace)
    config = hypercorn.configure(options)
    stop = asyncio.Event()
    before = set(listening("self"))
    serving = asyncio.create_task(
        serve(application, config, shutdown_trigger=stop.wait, mode="asgi")
    )
    async with asyncio.timeout(10):
        while not (ports := set(listening("self")) - before):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{ports.pop()}/"
    stop.set()
    await serving


class Room:
    """Accepts, repeats what is said and notes how each socket ends."""

    def __init__(self) -> None:
        self.codes: asyncio.Queue[int] = asyncio.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        self.codes.put_nowait(event["code"])


async def test_a_client_that_answers_no_ping_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h11, "WSStream", hypercorn.WSStream)
    monkeypatch.setattr(hypercorn, "PING_INTERVAL", SOON)
    room = Room()
    async with served(room) as url, connect(url, proxy=None, ping_interval=None) as present:
        absent = await connect(url, proxy=None, ping_interval=None)
        monkeypatch.setattr(absent.protocol, "data_to_send", list)  # it says nothing any more
        async with asyncio.timeout(10):
            assert await room.codes.get() == 1006
            with pytest.raises(ConnectionClosed):
                await absent.recv()
        # The one that was there before it, and has had its pings.
        await present.send("still here")
        assert await present.recv() == "still here"
        assert room.codes.empty()


async def test_a_worker_waits_for_no_ping_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h11, "WSStream", hypercorn.WSStream)
    monkeypatch.setattr(hypercorn, "PING_INTERVAL", 3600)
    room = Room()
    async with asyncio.timeout(10), served(room) as url:
        async with connect(url, proxy=None) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        await room.codes.get()


async def test_a_worker_ends_within_its_grace_on_every_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Since Python 3.12.1 a closed server waits for every connection; here it does on any."""

    async def wait_for_connections(server: asyncio.Server) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.Server, "wait_closed", wait_for_connections)
    serving: Any = SimpleNamespace(settings=SimpleNamespace(control_directory=""))
    monkeypatch.setattr(asyncio, "start_server", hypercorn.starting(serving))
    async with asyncio.timeout(10), served(Room(), grace=1) as url:
        client = await connect(url, proxy=None)
    with pytest.raises(ConnectionClosed):
        await client.recv()
