"""A room of a thousand sockets, one of which never reads: real sockets, a real Redis."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from pytest_django import Settings

from channels_kit.layer import FanoutConsumer, RedisFanoutLayer
from channels_kit.layer.codec import pack
from channels_kit.layer.frames import frame_of
from channels_kit.serving.dispatch import dispatch_many
from channels_kit.serving.metrics import resident_bytes

from .cluster import Redis
from .layers import until
from .test_fanout_consumer import LONG, close_code_of, slow_reader
from .test_uvicorn_websocket import PROTOCOL

MEMBERS = 1000
SOCKET_BUFFER = 40_000
BATCHES, BATCH = 30, 10
TEXT = 500
MIB = 1 << 20


SLOW_CODE = 4013


class Room(FanoutConsumer, AsyncWebsocketConsumer):  # type: ignore[misc]
    slow_code = SLOW_CODE

    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("room", self.channel_name)


@pytest.fixture(autouse=True)
def open_files() -> Iterator[None]:
    """Both ends of all sockets are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MEMBERS + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(needed, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def served() -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A server whose kernel keeps little for a client that does not read."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=MEMBERS)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    # The clients answer no ping.
    config = uvicorn.Config(
        Room.as_asgi(), ws=PROTOCOL, ws_ping_interval=None, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    await until(lambda: server.started)
    yield server, listener.getsockname()[1]
    server.should_exit = True
    await serving


class Reader(asyncio.Protocol):
    """A client that compares what it gets with what is to come, and keeps nothing of it."""

    def __init__(self, wanted: bytes) -> None:
        self.wanted = memoryview(wanted)
        self.head = b""
        self.at = 0
        self.is_whole = True
        self.is_open = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        if not self.head.endswith(b"\r\n\r\n"):
            # The server sends nothing else before it has been asked to.
            self.head += data
            return
        self.is_whole = self.is_whole and self.wanted[self.at : self.at + len(data)] == data
        self.at += len(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False


async def test_one_of_a_thousand_never_reads(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    monkeypatch.setattr("channels.consumer.await_many_dispatch", dispatch_many)
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_kit.layer.RedisFanoutLayer",
            "CONFIG": {"hosts": [redis.url], "socket_buffer": SOCKET_BUFFER},
        }
    }
    texts = [f"{number} ".ljust(TEXT, "x") for number in range(BATCHES * BATCH)]
    frames = [frame_of(pack({"type": "layer.broadcast", "text": text})) or b"" for text in texts]
    wanted = b"".join(frames)
    loop = asyncio.get_running_loop()
    async with served() as (server, port):
        layer: RedisFanoutLayer = get_channel_layer()
        readers = []
        for _ in range(MEMBERS - 1):
            _, reader = await loop.create_connection(lambda: Reader(wanted), "127.0.0.1", port)
            readers.append(reader)
        slow = await asyncio.to_thread(slow_reader, port)
        address = slow.getsockname()
        await until(lambda: layer.groups == {"room": MEMBERS})
        await until(lambda: all(reader.head.startswith(b"HTTP/1.1 101") for reader in readers))
        (protocol,) = [
            each
            for each in server.server_state.connections
            if each.transport.get_extra_info("peername") == address
        ]
        # It reads at last: not cut before, however slow the machine is.
        protocol.close_timeout = LONG  # type: ignore[union-attr]
        memory, most = resident_bytes(), 0
        for batch in range(BATCHES):
            mine = texts[batch * BATCH : (batch + 1) * BATCH]
            for text in mine:
                await layer.group_broadcast("room", text)
            due = sum(len(frame) for frame in frames[: (batch + 1) * BATCH])
            await until(lambda due=due: all(each.at == due for each in readers))  # type: ignore[misc]
            most = max(most, protocol.transport.get_write_buffer_size())
        # All others got everything, in order; nobody else was closed.
        assert all(each.is_whole and each.is_open for each in readers)
        assert layer.statistics.slow_sockets == 1
        await until(lambda: layer.groups == {"room": MEMBERS - 1})
        # What waited for it is bounded: by the limit, one write more, and the close frame.
        assert SOCKET_BUFFER / 2 < most <= SOCKET_BUFFER + 2 * BATCH * len(frames[0])
        assert most < len(wanted) / 3
        assert resident_bytes() - memory < 32 * MIB
        assert await asyncio.to_thread(close_code_of, slow) == SLOW_CODE
        slow.close()
        for each in readers:
            each.transport.close()
        await until(lambda: not any(each.is_open for each in readers))
    await layer.close_pools()
