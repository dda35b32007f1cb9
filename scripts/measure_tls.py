"""Measure what TLS costs the edge: memory of an idle socket, processor time of a handshake.

One nginx process under the role's own TLS settings proxies sockets to a server that echoes. Its
memory is Pss of /proc/PID/smaps_rollup, so without the kernel's buffers, before and after the
sockets are opened; some are opened and closed before. Its processor time is that of
/proc/PID/stat. The same is measured without TLS.

usage: scripts/measure_tls.py [--sockets 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import jinja2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from edge_certificates import Store, make_self_signed  # type: ignore[import-not-found]  # noqa: E402

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
HOST = "127.0.0.1"
WARM_UP = 200
AT_ONCE = 50
MESSAGES = 20_000
TICKS = os.sysconf("SC_CLK_TCK")
ASK = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
TAKE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

CONFIGURATION = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections 18000; }}
http {{
    access_log off;
    {temporary}
    {tls}
    server {{
        listen {host}:{plain};
        listen {host}:{secure} ssl;
        location / {{
            proxy_pass http://{host}:{worker};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Cost:
    """What was measured of one way in.

    Attributes:
        kib: memory of an idle socket.
        handshake: processor time of opening one, in milliseconds.
        message: processor time of a message and its echo, in microseconds.
    """

    kib: float
    handshake: float
    message: float


def settings(directory: Path) -> tuple[str, str]:
    """Return the role's TLS settings with a certificate of their own, and the certificate."""
    pair = make_self_signed(["localhost"])
    name = Store(directory / "tls").put(*pair)
    template = (ROOT / "roles" / "nginx" / "templates" / "tls.conf.j2").read_text()
    # A configuration, and no page.
    environment = jinja2.Environment(autoescape=False)  # noqa: S701
    # Of the other edges, and there is none.
    environment.filters["cluster_in_url"] = str
    rendered = environment.from_string(template).render(
        _nginx_certificates=directory / "tls",
        _nginx_certificate_id=name,
        nginx_hsts_max_age=0,
        _nginx_acme_peers=[],
    )
    return rendered, pair[0]


def memory(process: int) -> float:
    """Return the KiB of a process."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def processor(process: int) -> float:
    """Return the seconds that a process has run."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a socket, and send back what comes."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(TAKE)
        while data := await reader.read(4096):
            writer.write(data)
    writer.close()


Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_sockets(port: int, count: int, tls: ssl.SSLContext | None) -> list[Socket]:
    """Open sockets, some at once."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one() -> Socket:
        async with limit:
            name = "localhost" if tls else None
            reader, writer = await asyncio.open_connection(
                HOST, port, ssl=tls, server_hostname=name
            )
            writer.write(ASK)
            if b" 101 " not in await reader.readuntil(b"\r\n\r\n"):
                raise SystemExit("nginx refused a socket")
            return reader, writer

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def close(sockets: Sequence[Socket]) -> None:
    """Close sockets."""
    for _, writer in sockets:
        writer.close()
    for _, writer in sockets:
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def measure(process: int, port: int, count: int, tls: ssl.SSLContext | None) -> Cost:
    """Measure one way in."""
    await close(await open_sockets(port, WARM_UP, tls))
    kib, seconds = memory(process), processor(process)
    sockets = await open_sockets(port, count, tls)
    opened = (processor(process) - seconds) / count
    taken = (memory(process) - kib) / count
    seconds = processor(process)
    for number in range(MESSAGES):
        reader, writer = sockets[number % len(sockets)]
        writer.write(b"x" * 200)
        await reader.readexactly(200)
    said = (processor(process) - seconds) / MESSAGES
    await close(sockets)
    return Cost(taken, 1000 * opened, 1_000_000 * said)


def worker_of(master: int) -> int:
    """Return the one process that nginx serves with."""
    children = Path(f"/proc/{master}/task/{master}/children")
    deadline = time.monotonic() + 10
    while not (found := children.read_text().split()):
        if time.monotonic() > deadline:
            raise SystemExit("nginx did not start")
        time.sleep(0.01)
    return int(found[0])


@contextmanager
def running(directory: Path, tls: str, ports: Mapping[str, int]) -> Iterator[int]:
    """Run nginx, and yield the process that serves."""
    if not NGINX:
        raise SystemExit("nginx is not installed: scripts/bootstrap tests")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(directory=directory, host=HOST, tls=tls, temporary=temporary, **ports)
    )
    nginx = subprocess.Popen([NGINX, "-c", configuration, "-e", directory / "error.log"])
    try:
        yield worker_of(nginx.pid)
    finally:
        nginx.terminate()
        nginx.wait()


async def measure_both(
    process: int, ports: Mapping[str, int], client: ssl.SSLContext, count: int
) -> dict[str, Cost]:
    """Measure without TLS and with it."""
    server = await asyncio.start_server(echo, HOST, ports["worker"], backlog=4096)
    async with server:
        return {
            "HTTP": await measure(process, ports["plain"], count, None),
            "TLS 1.3": await measure(process, ports["secure"], count, client),
        }


def run(count: int) -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory(prefix="measure-tls-") as name:
        directory = Path(name)
        tls, certificate = settings(directory)
        client = ssl.create_default_context(cadata=certificate)
        ports = {name: _free_port() for name in ("plain", "secure", "worker")}
        with running(directory, tls, ports) as process:
            costs = asyncio.run(measure_both(process, ports, client, count))
    print("| | KiB an idle socket | ms a handshake | µs a message and its echo |")
    print("| --- | --- | --- | --- |")
    for what, cost in costs.items():
        print(f"| {what} | {cost.kib:.1f} | {cost.handshake:.2f} | {cost.message:.0f} |")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description="Measure what TLS costs the edge.")
    parser.add_argument("--sockets", type=int, default=2000, metavar="N", help="default: 2000")
    run(parser.parse_args().sockets)


if __name__ == "__main__":
    main()
