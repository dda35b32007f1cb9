"""Servers that a channel layer can lose, and what it gets from them."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from channels_kit.layer import RedisFanoutLayer

from .cluster import Process

PATIENCE = 20.0
"""Seconds, much more than anything here may take."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A redis-server on a port of its own, which keeps nothing on the disk."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.options = options
        self.process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        binary = shutil.which("redis-server")
        assert binary, "redis-server not found. Install it: apt-get install redis-server"
        general = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command = [binary, *general, "--dir", str(self.directory), *self.options]
        self.process = Process(command, dict(os.environ))
        self.process.wait_for("eady to accept connections")

    def kill(self) -> None:
        assert self.process is not None
        self.process.popen.send_signal(signal.SIGKILL)
        self.process.popen.wait()
        self.process.__exit__()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process is not None:
            self.kill()


class Proxy:
    """Passes on connections to a server; cuts them, or lets nothing through."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def partition(self) -> None:
        """Let nothing through any more: not a byte, not an end, no new connection."""
        self.is_open.clear()

    def heal(self) -> None:
        self.is_open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await self.is_open.wait()
            there = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        writer.transport.abort()
        self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                await self.is_open.wait()
                writer.write(data)
                await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


@asynccontextmanager
async def layers(number: int, *hosts: Any, **options: Any) -> AsyncIterator[list[RedisFanoutLayer]]:
    """Several layers: to Redis, each is a process of its own."""
    made = [RedisFanoutLayer(hosts=list(hosts), **options) for _ in range(number)]
    try:
        yield made
    finally:
        for layer in made:
            await layer.close_pools()


async def receive(layer: RedisFanoutLayer, channel: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await layer.receive(channel)


async def nothing_more(layer: RedisFanoutLayer, *channels: str) -> bool:
    """Whether a message that is sent now is the next one of each channel."""
    for channel in channels:
        await layer.group_add("nothing.more", channel)
    await layer.group_send("nothing.more", {"type": "nothing.more"})
    got = [(await receive(layer, channel))["type"] for channel in channels]
    for channel in channels:
        await layer.group_discard("nothing.more", channel)
    return got == ["nothing.more"] * len(channels)


async def until(look: Callable[[], Any]) -> None:
    """Wait until a look is true."""
    async with asyncio.timeout(PATIENCE):
        while not look():  # noqa: ASYNC110 - nothing says when
            await asyncio.sleep(0.005)


class Listener:
    """Takes all that comes to a channel."""

    def __init__(self, layer: RedisFanoutLayer, channel: str) -> None:
        self.layer = layer
        self.channel = channel
        self.messages: list[Any] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            self.messages.append(await self.layer.receive(self.channel))

    def values(self, kind: str = "test.message") -> list[Any]:
        return [each["value"] for each in self.messages if each["type"] == kind]

    @property
    def gaps(self) -> list[str]:
        return [each["group"] for each in self.messages if each["type"] == "layer.gap"]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def listening(
    member_of: str, *members: RedisFanoutLayer, gaps: bool = True
) -> AsyncIterator[list[Listener]]:
    """One listener on each layer, all members of a group."""
    listeners = []
    for layer in members:
        channel = await layer.new_channel()
        await layer.group_add(member_of, channel)
        if gaps:
            layer.report_gaps(channel)
        listeners.append(Listener(layer, channel))
    try:
        yield listeners
    finally:
        for listener in listeners:
            await listener.stop()


def message(value: Any) -> dict[str, Any]:
    return {"type": "test.message", "value": value}


async def send_all(layer: RedisFanoutLayer, group: str, values: Iterable[Any]) -> None:
    for value in values:
        await layer.group_send(group, message(value))
