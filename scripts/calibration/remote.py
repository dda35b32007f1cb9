"""What `make calibrate` runs on a host: it reads processes, and opens sockets as a client.

The program comes over the connection and is in no file of the host. It needs the standard library
alone. It takes one request a line on standard input, as JSON, and answers each with one line. It
ends, and closes its sockets, when standard input does, in the middle of a request too; and where
nobody asks for SILENCE seconds, because a lost connection may not end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
OPEN_TIMEOUT = 30.0
LATE = 5.0
"""Seconds that deliveries may still take after the last message."""

SILENCE = 900.0
"""Seconds without a request; a calibration takes a fifth of them."""

ENVIRONMENTS = Path("/etc/channels")
"""Where the environments of the workers are."""

LOCK = Path("/run/channels-deploy.lock")
"""There while somebody changes the cluster: module_utils/channels_releases.py."""

_ROUND = re.compile(rb'"round": (\d+)')


class Client(asyncio.Protocol):
    """One WebSocket: its handshake, answers to pings, and the texts that it receives."""

    def __init__(self, request: bytes, arrivals: Arrivals) -> None:
        loop = asyncio.get_running_loop()
        self.request = request
        self.arrivals = arrivals
        # The status of the handshake's answer, and the first text.
        self.answered: asyncio.Future[int] = loop.create_future()
        self.hello: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Take the answer, then frames."""
        self._received += data
        if not self.answered.done():
            head, separator, rest = bytes(self._received).partition(b"\r\n\r\n")
            if not separator:
                return
            self._received = bytearray(rest)
            self.answered.set_result(int(head.split(b" ", 2)[1]))
        self._read_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is gone."""
        self.lost = True
        for waiting in (self.answered, self.hello):
            if not waiting.done():
                waiting.set_exception(ConnectionError("the connection was closed"))
                # Nobody may wait for it.
                waiting.exception()

    def say(self, text: bytes) -> None:
        """Send a text; a mask of zeros leaves it as it is."""
        if self.transport is not None:
            self.transport.write(b"\x81" + bytes([0x80 | len(text)]) + bytes(4) + text)

    def _read_frames(self) -> None:
        data = self._received
        while len(data) >= 2:
            length, start = data[1] & 0x7F, 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(data[2:10], "big"), 10
            if len(data) < start + length:
                return
            payload, kind = bytes(data[start : start + length]), data[0] & 0x0F
            del data[: start + length]
            if kind == 0x9 and self.transport is not None:
                self.transport.write(b"\x8a" + bytes([0x80 | length]) + bytes(4) + payload)
            elif kind == 0x1:
                if not self.hello.done():
                    self.hello.set_result(None)
                else:
                    self.arrivals.note(payload)


class Arrivals:
    """When each message was due, and how late its deliveries were."""

    def __init__(self) -> None:
        self.due: dict[int, float] = {}
        self.seconds: list[float] = []

    def note(self, text: bytes) -> None:
        """Take a delivery."""
        found = _ROUND.search(text)
        if found is not None and (due := self.due.get(int(found[1]))) is not None:
            self.seconds.append(time.monotonic() - due)


class Agent:
    """Answers requests."""

    def __init__(self) -> None:
        self.sockets: list[Client] = []
        self.arrivals = Arrivals()
        self.said = 0

    async def answer(self, request: dict[str, Any]) -> Any:
        """Do what a request asks for."""
        kind = request.pop("do")
        if kind in ("host", "locked", "restart", "sample", "versions"):
            return globals()[kind](**request)
        return await getattr(self, f"do_{kind}")(**request)

    async def do_open(
        self, targets: list[dict[str, Any]], at_once: int, pace: float = 0.0, hello: bool = False
    ) -> dict[str, Any]:
        """Open sockets and keep them; return how many opened, and how fast.

        Args:
            targets: of each socket, url, path and headers.
            at_once: handshakes under way at the same time.
            pace: handshakes a second at most; 0: no limit.
            hello: whether the first text of each is waited for, too.
        """
        turn = asyncio.Semaphore(at_once)
        refused: Counter[str] = Counter()
        seconds: list[float] = []
        opened: list[Client] = []
        token = probe_token() if any(target.get("token") for target in targets) else ""
        began = time.monotonic()

        async def one(number: int, target: dict[str, Any]) -> None:
            if pace:
                await asyncio.sleep(began + number / pace - time.monotonic())
            async with turn:
                start = time.monotonic()
                try:
                    client, status = await asyncio.wait_for(
                        connect(target, token, self.arrivals), OPEN_TIMEOUT
                    )
                    if status != 101:
                        refused[str(status)] += 1
                        abort(client)
                        return
                    seconds.append(time.monotonic() - start)
                    opened.append(client)
                    if hello:
                        await asyncio.wait_for(client.hello, OPEN_TIMEOUT)
                except (TimeoutError, OSError) as error:
                    refused[type(error).__name__] += 1

        await asyncio.gather(*(one(number, target) for number, target in enumerate(targets)))
        taken = time.monotonic() - began
        self.sockets += opened
        return {
            "opened": len(opened),
            "refused": dict(refused),
            "seconds": taken,
            "p50": quantile(seconds, 0.5),
            "p99": quantile(seconds, 0.99),
        }

    async def do_close(self) -> dict[str, Any]:
        """Close all sockets; return how many had been lost before."""
        lost = sum(client.lost for client in self.sockets)
        closing, self.sockets = self.sockets, []
        for client in closing:
            if client.transport is not None and not client.lost:
                client.transport.write(b"\x88\x82" + bytes(4) + b"\x03\xe8")
        deadline = time.monotonic() + 3
        while (  # noqa: ASYNC110 - a closed socket tells nobody
            not all(client.lost for client in closing) and time.monotonic() < deadline
        ):
            await asyncio.sleep(0.02)
        for client in closing:
            abort(client)
        return {"lost": lost}

    async def do_say(
        self, senders: list[int], rate: float, seconds: float, members: int
    ) -> dict[str, Any]:
        """Send messages at a rate; return how late their deliveries were.

        Args:
            senders: numbers of the sockets that send, in turn.
            rate: messages a second.
            seconds: for how long.
            members: deliveries that each message has.
        """
        self.arrivals.due.clear()
        self.arrivals.seconds = []
        count = max(1, round(rate * seconds))
        began = time.monotonic()
        for number in range(count):
            due = began + number / rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            elif number % 10 == 0:
                await asyncio.sleep(0)
            self.said += 1
            # From when it is due: a late client makes no latency better.
            self.arrivals.due[self.said] = due
            client = self.sockets[senders[number % len(senders)]]
            client.say(json.dumps({"round": self.said}).encode())
        sent = time.monotonic() - began
        deadline = time.monotonic() + LATE
        while (  # noqa: ASYNC110 - an event for each delivery would slow the client down
            len(self.arrivals.seconds) < count * members and time.monotonic() < deadline
        ):
            await asyncio.sleep(0.02)
        arrived = self.arrivals.seconds
        return {
            "sent": count,
            "seconds": sent,
            "expected": count * members,
            "delivered": len(arrived),
            "p50": quantile(arrived, 0.5),
            "p99": quantile(arrived, 0.99),
        }

    async def do_live(self, urls: list[str]) -> list[dict[str, Any] | None]:
        """Return what each worker says of itself; None for one that does not answer."""
        return list(await asyncio.gather(*(live(url) for url in urls)))

    async def do_wait(self, seconds: float) -> dict[str, Any]:
        """Leave the sockets alone; return how many are gone."""
        await asyncio.sleep(seconds)
        return {"lost": sum(client.lost for client in self.sockets)}


async def connect(target: dict[str, Any], token: str, arrivals: Arrivals) -> tuple[Client, int]:
    """Open one socket; return it, and the status of the answer."""
    parts = urlsplit(target["url"])
    encrypted = parts.scheme == "https"
    headers = {
        "Host": target["host"],
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept": "*/*",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **target.get("headers", {}),
    }
    if target.get("token"):
        headers["Authorization"] = f"Bearer {token}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {target['path']} HTTP/1.1\r\n{lines}\r\n".encode()
    options: dict[str, Any] = {}
    if encrypted:
        context = ssl.create_default_context()
        # How long a handshake takes is measured, not who answers.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        options = {"ssl": context, "server_hostname": target["host"].split(":")[0]}
    _, client = await asyncio.get_running_loop().create_connection(
        partial(Client, request, arrivals),
        parts.hostname,
        parts.port or (443 if encrypted else 80),
        **options,
    )
    return client, await client.answered


def abort(client: Client) -> None:
    """Drop a connection."""
    if client.transport is not None:
        client.transport.abort()


async def live(url: str) -> dict[str, Any] | None:
    """Ask a worker who it is and what it has in hand."""
    parts = urlsplit(url)
    with contextlib.suppress(OSError, ValueError, asyncio.TimeoutError):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET /-/live HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        content = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        answer: dict[str, Any] = json.loads(content.partition(b"\r\n\r\n")[2])
        return answer
    return None


def probe_token() -> str:
    """Return the token of the workers' environment on this host.

    Raises:
        LookupError: there is none.
    """
    token = ""
    for file in sorted(ENVIRONMENTS.glob("*.env"), key=lambda file: file.stat().st_mtime):
        found = re.search(r'^CHANNELS_KIT_PROBE_TOKEN="(.*)"$', file.read_text(), re.MULTILINE)
        if found:
            token = found[1]
    if not token:
        raise LookupError("no CHANNELS_KIT_PROBE_TOKEN in /etc/channels/*.env; run make converge")
    return token


def quantile(values: list[float], share: float) -> float:
    """Return the value below which a share of them is; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def processes() -> Iterator[tuple[Path, str]]:
    """Yield every process of this host with its unit."""
    for path in PROC.iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                yield path, (path / "cgroup").read_text().strip().rsplit("/", 1)[-1]


def sample(units: list[str]) -> dict[str, dict[str, float]]:
    """Return processor time and memory of units, in seconds and KiB."""
    found = {unit: {"cpu": 0.0, "pss": 0.0, "processes": 0} for unit in units}
    for path, unit in processes():
        if unit in found:
            with contextlib.suppress(OSError):
                found[unit]["cpu"] += processor(path)
                found[unit]["pss"] += memory(path)
                found[unit]["processes"] += 1
    found["host"] = {"idle": idle(), "now": time.monotonic()}
    return found


def processor(process: Path) -> float:
    """Return the seconds that a process has run: of its scheduler, or in clock ticks."""
    nanoseconds = 0
    with contextlib.suppress(OSError):
        for thread in (process / "task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    if nanoseconds:
        return nanoseconds / 1e9
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(process: Path) -> float:
    """Return the memory of a process: its share of what is mapped, without the kernel's buffers."""
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    return 0.0


def idle() -> float:
    """Return the seconds that this host's processors have been idle."""
    fields = (PROC / "stat").read_text().splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / TICKS


def host() -> dict[str, Any]:
    """Return what machine this is."""
    information = (PROC / "cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", information, re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+)", (PROC / "meminfo").read_text(), re.MULTILINE)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "model": model[1] if model else os.uname().machine,
        "memory_mib": int(total[1]) // 1024 if total else 0,
        "kernel": os.uname().release,
        # Containers of one machine have the same.
        "boot": (PROC / "sys/kernel/random/boot_id").read_text().strip(),
    }


def versions(commands: dict[str, list[str]]) -> dict[str, str]:
    """Return the first version number that each command prints."""
    found = {}
    for name, command in commands.items():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            number = re.search(r"\d+(?:\.\d+)+\S*", said.stdout + said.stderr)
            if number:
                found[name] = number[0]
    return found


def locked() -> str:
    """Return who changes the cluster; empty: nobody does."""
    try:
        holder = json.loads(LOCK.read_text())
    except FileNotFoundError:
        return ""
    except ValueError:
        holder = {}
    return f"{holder.get('who', 'somebody')} ({holder.get('what', 'an operation')})"


def restart(unit: str) -> None:
    """Restart a unit.

    Raises:
        OSError: systemd says why it does not run.
    """
    command = ["/usr/bin/systemctl", "restart", unit]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        raise OSError(f"{' '.join(command)}: {' '.join(said.stderr.split())}")


async def serve() -> None:
    """Answer requests until there are no more."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    agent = Agent()
    line = asyncio.create_task(reader.readline())
    while request := await asyncio.wait_for(line, SILENCE):
        line = asyncio.create_task(reader.readline())
        answer = asyncio.create_task(said_to(agent, request))
        # Nobody asks before the answer: what comes first is the end of the connection.
        await asyncio.wait({answer, line}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            return
        sys.stdout.write(json.dumps(answer.result()) + "\n")
        sys.stdout.flush()


async def said_to(agent: Agent, request: bytes) -> dict[str, Any]:
    """Return the answer to a request, or the error."""
    try:
        return {"answer": await agent.answer(json.loads(request))}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    asyncio.run(serve())
