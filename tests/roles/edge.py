"""A real nginx under the configuration that the role writes, with workers that answer as told."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .rendered import CERTIFICATE

# An ordinary user's PATH does not have it.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
HOST = "127.0.0.1"
NAME = "chat.example.org"
# As the inventory has them; where they really listen is put in their place.
WORKER_PORTS = range(9001, 9008)
EDGE_PORT = 9000
# Only if the edge takes the PROXY protocol.
INSIDE_PORT = 7981
LOCAL_PORT = 7980
TLS_PORT = 9443
# Seconds after which a test has failed.
PATIENCE = 15
WORKER_RETRY_AFTER = "7"

Conversation = tuple["Answer", asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@asynccontextmanager
async def conversation(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    upgrade: bool = False,
    host: str = NAME,
    body: bytes = b"",
    source: str = HOST,
    more: Sequence[str] = (),
    address: str = HOST,
    tls: ssl.SSLContext | None = None,
    before: bytes = b"",
) -> AsyncIterator[Conversation]:
    """Ask the edge one thing; the connection stays open for what follows a handshake.

    `before` is sent before all else, as a balancer does that speaks the PROXY protocol.
    """
    name = host.partition(":")[0] if tls else None
    # Both at once where they can be: start_tls does not end where the edge ends the connection.
    at_once: dict[str, Any] = {"ssl": tls, "server_hostname": name} if tls and not before else {}
    reader, writer = await asyncio.open_connection(address, port, local_addr=(source, 0), **at_once)
    try:
        writer.write(before)
        if tls and before:
            async with asyncio.timeout(PATIENCE):
                await writer.start_tls(tls, server_hostname=name)
        fields = [
            f"{method} {path} HTTP/1.1",
            f"Host: {host}",
            f"Content-Length: {len(body)}",
            *more,
        ]
        if upgrade:
            fields += ["Connection: Upgrade", "Upgrade: websocket"]
        writer.write("\r\n".join([*fields, "", ""]).encode() + body)
        async with asyncio.timeout(PATIENCE):
            status, headers = await read_head(reader)
            length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
            answer = Answer(int(status.split()[1]), headers, await reader.readexactly(length))
        yield answer, reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def ask(port: int, path: str = "/", **options: Any) -> Answer:
    async with conversation(port, path, **options) as (answer, _, _):
        return answer


async def handshake(port: int, path: str = "/ws/chat/lobby/", **options: Any) -> Answer:
    return await ask(port, path, upgrade=True, **options)


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    return head[0], {name.lower(): value for name, value in pairs}


@dataclass
class Worker:
    """What the edge takes for a worker.

    Its manner: it `takes` everything, or `drains` as the kit's do, or `dies` over each request, or
    `hangs` and never answers.
    """

    manner: str
    port: int = 0
    # What it was asked, and at which moments.
    asked: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self.answer(reader, writer)
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, headers = await read_head(reader)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.asked.append(line.removesuffix(" HTTP/1.1"))
        self.headers.append(headers)
        self.moments.append(asyncio.get_running_loop().time())
        if self.manner == "dies":
            writer.transport.abort()
        elif self.manner == "hangs":
            await reader.read()
        elif "upgrade" not in headers:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        elif self.manner == "drains":
            text = b"This worker is draining."
            retry = WORKER_RETRY_AFTER.encode()
            head = b"HTTP/1.1 503 Unavailable\r\nRetry-After: %b\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (retry, len(text)) + text)
        else:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
            writer.write(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := await reader.read(1024):
                writer.write(data)
            raise ConnectionResetError


@asynccontextmanager
async def listening(worker: Worker) -> AsyncIterator[int]:
    """Let a worker run, or be `off` (its host refuses), `silent` (its host is off), `elsewhere`."""
    with socket.socket() as taken:
        if worker.manner == "elsewhere":
            yield worker.port
        elif worker.manner == "off":
            taken.bind((HOST, 0))
            yield taken.getsockname()[1]
        elif worker.manner == "silent":
            taken.bind((HOST, 0))
            # The one place in the queue is taken: the kernel drops what comes then.
            taken.listen(0)
            with socket.create_connection(taken.getsockname()):
                yield taken.getsockname()[1]
        else:
            server = await asyncio.start_server(worker.serve, HOST, 0)
            async with server:
                yield server.sockets[0].getsockname()[1]


@dataclass
class Edge:
    port: int
    local_port: int
    workers: Sequence[Worker]
    process: asyncio.subprocess.Process
    configuration: Path
    # Where it speaks TLS; 0 where it does not.
    tls_port: int = 0
    # Where the cluster's own hosts connect, if the edge takes the PROXY protocol.
    inside_port: int = 0

    @property
    def asked(self) -> list[str]:
        """What all workers were asked."""
        return [line for worker in self.workers for line in worker.asked]

    def reload(self, change: Callable[[str], str]) -> None:
        self.configuration.write_text(change(self.configuration.read_text()))
        self.process.send_signal(signal.SIGHUP)


@dataclass(frozen=True)
class Place:
    """Where an edge listens; a port of 0 is any that is free."""

    address: str = HOST
    port: int = 0


def place(content: str, directory: str, listens: dict[str, str], workers: Sequence[Worker]) -> Path:
    """Write a configuration as it is, but for where nginx listens and keeps its files."""
    replaced = {
        "user www-data;": "user root;",
        "/run/nginx.pid": f"{directory}/nginx.pid",
        "/var/log/nginx/": f"{directory}/",
        "/var/lib/nginx/": f"{directory}/",
        "/etc/nginx/draining": f"{directory}/draining",
        **{f"listen {old}": f"listen {new}" for old, new in listens.items()},
    }
    if str(TLS_PORT) in listens:
        replaced["/etc/nginx/tls/"] = f"{directory}/tls/"
    for port, worker in zip(WORKER_PORTS, workers, strict=True):
        replaced[f"server {HOST}:{port} "] = f"server {HOST}:{worker.port} "
    for old, new in replaced.items():
        assert old in content, old
        content = content.replace(old, new)
    lines = [line for line in content.splitlines() if "listen [::]" not in line]
    configuration = Path(directory, "nginx.conf")
    configuration.write_text("\n".join(lines))
    return configuration


@asynccontextmanager
async def running(
    content: str,
    manners: Sequence[str | int],
    certify: Callable[[Path], str] | None = None,
    at: Place = Place(),
) -> AsyncIterator[Edge]:
    """Run nginx under a configuration, with a worker of each manner; a port has its own worker.

    One that speaks TLS gets its certificate by `certify`, which puts it into a directory and
    returns its name there.
    """
    assert NGINX
    workers = [
        Worker("elsewhere", manner) if isinstance(manner, int) else Worker(manner)
        for manner in manners
    ]
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="edge-"))
        for worker in workers:
            worker.port = await stack.enter_async_context(listening(worker))
        # nginx takes over a socket that listens already: nobody else has its port, and nobody
        # has to wait until it listens.
        places = {str(EDGE_PORT): at, f"{HOST}:{LOCAL_PORT}": Place()}
        places |= {str(TLS_PORT): Place(at.address)} if certify else {}
        places |= {str(INSIDE_PORT): Place()} if f"listen {INSIDE_PORT}" in content else {}
        if certify:
            content = content.replace(CERTIFICATE, certify(Path(directory, "tls")))
        ports: dict[str, int] = {}
        listens: dict[str, str] = {}
        descriptors: list[int] = []
        for old, new in places.items():
            address = (new.address, new.port)
            listener = stack.enter_context(socket.create_server(address, backlog=4096))
            listener.setblocking(False)
            ports[old] = listener.getsockname()[1]
            listens[old] = f"{new.address}:{ports[old]}"
            descriptors.append(listener.fileno())
        configuration = place(content, directory, listens, workers)
        process = await asyncio.create_subprocess_exec(
            *(NGINX, "-c", configuration, "-p", directory, "-e", f"{directory}/error.log"),
            *("-g", "daemon off;"),
            env={**os.environ, "NGINX": "".join(f"{number};" for number in descriptors)},
            pass_fds=descriptors,
        )
        try:
            port, local_port = ports[str(EDGE_PORT)], ports[f"{HOST}:{LOCAL_PORT}"]
            others = {"tls_port": TLS_PORT, "inside_port": INSIDE_PORT}
            named = {name: ports.get(str(old), 0) for name, old in others.items()}
            yield Edge(port, local_port, workers, process, configuration, **named)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
