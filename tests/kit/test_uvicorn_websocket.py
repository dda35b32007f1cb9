"""The WebSocket protocol that workers run, under Uvicorn in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from websockets.asyncio.client import connect

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
async def served() -> AsyncIterator[tuple[uvicorn.Server, str]]:
    config = uvicorn.Config(echo, port=0, ws=PROTOCOL, lifespan="off", log_level="critical")
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
