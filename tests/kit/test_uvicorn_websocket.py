"""The WebSocket protocol that workers run, under Uvicorn in this process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from .layers import until

PROTOCOL = "channels_kit.serving.uvicorn_websocket:WebSocketProtocol"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Accept with a header, say which header came, and repeat what is said."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-answer", b"yes")]})
    await send({"type": "websocket.send", "text": dict(scope["headers"])[b"x-question"].decode()})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


@asynccontextmanager
async def served(application: Any = echo) -> AsyncIterator[tuple[uvicorn.Server, str]]:
    # Not every client answers pings.
    config = uvicorn.Config(
        application, port=0, ws=PROTOCOL, ws_ping_interval=None, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - Uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield server, f"ws://127.0.0.1:{port}/"
    server.should_exit = True
    await serving


async def test_an_open_socket_works_and_keeps_no_header() -> None:
    async with (
        served() as (server, url),
        connect(url, additional_headers={"X-Question": "open?"}, proxy=None) as socket,
    ):
        assert socket.response is not None
        assert socket.response.headers["X-Answer"] == "yes"
        assert await socket.recv() == "open?"
        await socket.send("still here")
        assert await socket.recv() == "still here"

        (protocol,) = server.server_state.connections
        assert len(protocol.request.headers) == 0  # type: ignore[union-attr]
        assert len(protocol.response.headers) == 0  # type: ignore[union-attr]


async def test_a_refused_handshake_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def full(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 503, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"full"})

    async with served(full) as (_, url):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code == 503
        assert refused.value.response.body == b"full"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_reads_no_close_frame_is_cut() -> None:
    """The application is told at once, the kernel of the client a little later."""
    events: list[Any] = []
    opened, begin, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        opened.set()
        await begin.wait()
        frames = scope["extensions"]["channels_kit.websocket.frames"]
        while frames["write"](b"\x82\x7f" + (1 << 20).to_bytes(8) + bytes(1 << 20), 1, 1 << 22):
            pass
        frames["close"](1013, "too slow")
        assert frames["write"](b"\x81\x00", 1, 1 << 30) is None
        events.append(await receive())
        told.set()

    async with served(application) as (server, url):
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[-1][:-1]))
        # It takes nothing from its socket.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await opened.wait()
        (protocol,) = server.server_state.connections
        protocol.close_timeout = 0.1  # type: ignore[union-attr]
        begin.set()
        await told.wait()
        assert events == [{"type": "websocket.disconnect", "code": 1013, "reason": "too slow"}]
        # The end that is not read would keep it otherwise, and all that waits.
        await until(lambda: not server.server_state.connections)
        writer.close()
