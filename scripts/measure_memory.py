"""Measure what one idle socket costs a worker, layer by layer of its stack.

Every layer is measured in a fresh worker under the command line of production, with a Redis and a
SQLite of its own. Python's allocator and garbage collector are left as they are. The memory is that
of the worker alone (Pss of /proc/PID/smaps_rollup, so without the kernel's socket buffers), before
and after the sockets are opened; some are opened and closed before, so that what is made once is
not counted. A layer costs what it has more than the one above it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

from raw_socket import RawSocket

ROOT = Path(__file__).resolve().parents[1]
STOCK = ROOT / "scripts" / "memory"
ROOM = "memory"
WARM_UP = 20
"""Sockets that are opened and closed before the first reading; few, because what they leave behind
is used again and would be missing in the count."""

AT_ONCE = 30
"""Handshakes under way at the same time: a worker takes 32, however slow it is."""

START_TIMEOUT = 30.0
HANDSHAKE_TIMEOUT = 60.0

OPTIONS = ["--host", "127.0.0.1", "--forwarded-allow-ips", "127.0.0.1"]

WRAPPED = "channels_kit.serving.asgi:application"

# An application without the kit, in the same server but for the kit's WebSocket protocol.
BARE = """
import sys
import uvicorn
from channels_kit.serving.server_options import ServerOptions
from channels_kit.serving.uvicorn import configure
target, *arguments = sys.argv[1:]
options = ServerOptions.parse("bare", arguments)
uvicorn.run(target, **configure(options) | {"ws": "websockets-sansio"})
"""

PREPARE_USER = """
import django
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
client = Client()
client.force_login(User.objects.create_user("memory", "memory@example.com", "of no use"))
print(client.cookies[settings.SESSION_COOKIE_NAME].value)
"""

PREPARE_ROOM = f"""
from chat.models import Room
Room.objects.create(name={ROOM!r}, title={ROOM!r})
"""


@dataclass(frozen=True)
class Layer:
    """A stack that is measured.

    Attributes:
        letter: how it is chosen on the command line.
        title: what it has more than the one above it.
        application: the attribute of stock_apps.py; empty for the sample application.
        layer: whether it has a channel layer.
        wrapped: whether it is served inside the kit's wrapper.
    """

    letter: str
    title: str
    application: str
    layer: bool = False
    wrapped: bool = False


LAYERS = (
    Layer("a", "a bare ASGI application that accepts", "bare"),
    Layer("b", "+ ProtocolTypeRouter, URLRouter, AsyncWebsocketConsumer", "router"),
    Layer("c", "+ AuthMiddlewareStack, logged in by session", "users"),
    Layer("d", "+ AllowedHostsOriginValidator", "origins"),
    Layer("e", "+ channel layer of Redis, group_add", "group", layer=True),
    Layer("f", "+ channels_kit.serving around it", "group", layer=True, wrapped=True),
    Layer("g", "the sample application inside channels_kit.serving", "", layer=True, wrapped=True),
)


@dataclass(frozen=True)
class Reading:
    """The memory of a process, in KiB."""

    pss: int
    private: int

    @classmethod
    def of(cls, process_id: int) -> Reading:
        """Read it from /proc."""
        fields = {}
        for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            fields[name] = int(value.split()[0])
        return cls(fields["Pss"], fields["Private_Clean"] + fields["Private_Dirty"])


@dataclass(frozen=True)
class Result:
    """What a layer needs.

    Attributes:
        letter: the layer's.
        title: the layer's.
        sockets: how many were open.
        before: the worker's memory without sockets, in KiB.
        after: the same with them.
        pss: KiB a socket.
        private: the same, of what no other process maps.
    """

    letter: str
    title: str
    sockets: int
    before: Reading
    after: Reading
    pss: float
    private: float


def main() -> int:
    """Measure the layers asked for, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=2000, metavar="N", help="default: 2000")
    parser.add_argument(
        "--layers",
        default="".join(layer.letter for layer in LAYERS),
        metavar="LETTERS",
        help="which of %(default)s (default: all)",
    )
    parser.add_argument(
        "--settle",
        type=float,
        default=25.0,
        metavar="SECONDS",
        help="how long the sockets are left alone; with 20 s and more each has had a ping"
        " (default: 25)",
    )
    parser.add_argument(
        "--app",
        type=Path,
        default=ROOT / "app",
        metavar="DIRECTORY",
        help="the applications' directory, of another release to compare (default: this one's)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    options = parser.parse_args()
    known = {layer.letter: layer for layer in LAYERS}
    if unknown := set(options.layers) - set(known):
        parser.error(f"unknown layer {sorted(unknown)[0]!r}; layers: {', '.join(known)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not 0 < options.sockets <= most - 100:
        parser.error(f"--sockets is {options.sockets}; with {most} open files 1 to {most - 100}")
    # The worker inherits it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    results = []
    for letter in options.layers:
        results.append(measure(known[letter], options.app, options.sockets, options.settle))
        print(f"({letter}) {results[-1].pss:.1f} KiB a socket", file=sys.stderr, flush=True)
    print(table(results))
    if options.json is not None:
        content = [asdict(result) for result in results]
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def measure(layer: Layer, app: Path, sockets: int, settle: float) -> Result:
    """Start a worker with the layer, open the sockets, read its memory."""
    with tempfile.TemporaryDirectory() as directory, redis() as redis_url:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{app.resolve()}{os.pathsep}{STOCK}",
            "CHANNELS_KIT_WORKER": "memory:1",
        }
        database = Path(directory, "db.sqlite3")
        prepare = PREPARE_USER
        if layer.application:
            environment["DJANGO_SETTINGS_MODULE"] = "stock_settings"
            environment["MEMORY_DATABASE"] = str(database)
            if layer.layer:
                environment["MEMORY_REDIS"] = redis_url
            target = f"stock_apps:{layer.application}"
        else:
            prepare += PREPARE_ROOM
            environment |= {
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "SECRET_KEY": "of no use outside a measurement",
                "JWT_KEY": "also of no use outside a measurement",
                "ALLOWED_HOSTS": "127.0.0.1",
                "DATABASE_URL": f"sqlite:///{database}",
                "CHANNEL_LAYER_URL": redis_url,
                "CHANNEL_LAYER_KIND": "fanout",
            }
            target = "config.asgi:application"
        if layer.wrapped:
            environment["CHANNELS_KIT_APPLICATION"] = target
            target = WRAPPED
        session = subprocess.run(
            [sys.executable, "-c", prepare],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.split()[-1]
        with worker(target, environment) as (process_id, port):
            before, after = asyncio.run(read_memory(process_id, port, session, sockets, settle))
    return Result(
        layer.letter,
        layer.title,
        sockets,
        before,
        after,
        pss=(after.pss - before.pss) / sockets,
        private=(after.private - before.private) / sockets,
    )


async def read_memory(
    process_id: int, port: int, session: str, sockets: int, settle: float
) -> tuple[Reading, Reading]:
    """Return the worker's memory without sockets and with them."""
    for socket_ in await open_sockets(port, session, WARM_UP):
        assert socket_.transport is not None  # noqa: S101
        socket_.transport.abort()
    await asyncio.sleep(min(settle, 3.0))
    before = Reading.of(process_id)
    opened = await open_sockets(port, session, sockets)
    await asyncio.sleep(settle)
    after = Reading.of(process_id)
    if lost := sum(each.lost for each in opened):
        sys.exit(f"{lost} of {sockets} sockets were closed by the worker; no result")
    for each in opened:
        assert each.transport is not None  # noqa: S101
        each.transport.abort()
    return before, after


async def open_sockets(port: int, session: str, count: int) -> list[RawSocket]:
    """Open sockets, a few at a time."""
    request = handshake(port, session)
    loop = asyncio.get_running_loop()
    turn = asyncio.Semaphore(AT_ONCE)

    async def open_one() -> RawSocket:
        async with turn, asyncio.timeout(HANDSHAKE_TIMEOUT):
            _, opened = await loop.create_connection(lambda: RawSocket(request), "127.0.0.1", port)
            if await opened.status() != HTTPStatus.SWITCHING_PROTOCOLS:
                head = await opened.answered
                raise RuntimeError(
                    head[0].decode("latin-1") if head else "the connection was closed"
                )
            return opened

    return await asyncio.gather(*(open_one() for _ in range(count)))


def handshake(port: int, session: str) -> bytes:
    """Return a browser's handshake as an edge passes it on."""
    return (
        f"GET /ws/chat/{ROOM}/ HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "X-Forwarded-For: 203.0.113.7\r\n"
        "X-Forwarded-Proto: http\r\n"
        "Upgrade: websocket\r\n"
        "Connection: upgrade\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
        "Accept: */*\r\n"
        "Accept-Language: en-US,en;q=0.5\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        f"Origin: http://127.0.0.1:{port}\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Cookie: csrftoken=0123456789abcdef0123456789abcdef; sessionid={session}\r\n"
        "Sec-Fetch-Dest: empty\r\n"
        "Sec-Fetch-Mode: websocket\r\n"
        "Sec-Fetch-Site: same-origin\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache\r\n"
        "\r\n"
    ).encode()


@contextmanager
def worker(target: str, environment: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Run a worker; yield its process id and its port."""
    port = free_port()
    server = ["-m", "channels_kit.serving.uvicorn"] if target == WRAPPED else ["-c", BARE, target]
    command = [sys.executable, *server, *OPTIONS, "--port", str(port)]
    with running(command, environment, port) as process_id:
        yield process_id, port


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis without persistence; yield its URL."""
    binary = shutil.which("redis-server")
    if binary is None:
        sys.exit("redis-server not found. Install it: apt-get install redis-server")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with running([binary, *options, "--loglevel", "warning"], dict(os.environ), port):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running(command: list[str], environment: dict[str, str], port: int) -> Iterator[int]:
    """Run a server until it is not needed any more; yield its process id when it listens."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} does not listen on port {port} of 127.0.0.1")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def table(results: list[Result]) -> str:
    """Return the results as lines for people."""
    lines = [f"{'':3} {'KiB a socket':>12} {'private':>8} {'more':>6}  stack"]
    above: Result | None = None
    for result in results:
        more = f"{result.pss - above.pss:+.1f}" if above else ""
        lines.append(
            f"({result.letter}) {result.pss:12.1f} {result.private:8.1f} {more:>6}  {result.title}"
        )
        above = result
    lines.append(
        f"{results[0].sockets} idle sockets in one worker; Python {sys.version.split()[0]},"
        " its allocator and garbage collector as they come"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
