"""The client of client.c, from Python."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fanout.processes import end, find

SOURCE = Path(__file__).with_name("client.c")
PATIENCE = 180.0
"""Seconds within which the client has to answer; its own bounds are less."""


@dataclass(frozen=True)
class Shape:
    """Who is connected.

    Attributes:
        rooms: how many.
        members: of each.
        payload: bytes of a message.
        idle: sockets beside them.
        processes: of the server.
    """

    rooms: int = 1
    members: int = 1000
    payload: int = 64
    idle: int = 0
    processes: int = 2

    @property
    def title(self) -> str:
        """For people."""
        room = f"{self.rooms} rooms" if self.rooms > 1 else "1 room"
        size = f"{self.payload} B" if self.payload < 1024 else f"{self.payload / 1024:g} KiB"
        processes = f"{self.processes} processes" if self.processes > 1 else "1 process"
        idle = f", {self.idle} idle sockets" if self.idle else ""
        return f"{room} of {self.members}, {size}, {processes}{idle}"


@dataclass(frozen=True)
class Counted:
    """What client.c has counted in one run.

    Attributes:
        messages: that were sent.
        expected: messages to members.
        received: of these, once each.
        twice: received again.
        unsent: messages that a server did not take.
        closed: sockets that a server has closed.
        p50, p99, max: milliseconds from sending to receiving.
        seconds: from the first message to the last one received.
        send_delay: milliseconds by which a message was sent too late, at most.
        client_cpu: seconds of a processor that the client has used.
    """

    messages: int
    expected: int
    received: int
    twice: int
    unsent: int
    closed: int
    p50: float
    p99: float
    max: float
    seconds: float
    send_delay: float
    client_cpu: float

    @property
    def whole(self) -> bool:
        """Whether everything was sent and received, once."""
        return self.received == self.expected and not (self.twice or self.unsent or self.closed)


class ClientError(Exception):
    """The client has ended; says why."""


class Client:
    """A client whose sockets are open."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.open_seconds = float(self._read()["open_seconds"])

    def run(self, rate: float, seconds: float) -> Counted:
        """Send messages, and count what arrives.

        Args:
            rate: messages a second.
            seconds: for how long.

        Raises:
            ClientError: it has ended.
        """
        assert self.process.stdin is not None  # noqa: S101
        try:
            self.process.stdin.write(f"{rate} {seconds}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it says why below
        counted = self._read()
        return Counted(**{field.name: counted[field.name] for field in fields(Counted)})

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None  # noqa: S101
        assert self.process.stderr is not None  # noqa: S101
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            reason = self.process.stderr.read().decode(errors="replace").strip()
            raise ClientError(reason or "the client does not answer")
        content: dict[str, Any] = json.loads(line)
        return content


def build(directory: Path) -> Path:
    """Compile client.c.

    Raises:
        subprocess.CalledProcessError: the compiler failed, and has said why.
    """
    program = directory / "client"
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([find("cc"), *options, "-o", program, SOURCE], check=True)
    return program


@contextmanager
def connected(
    program: Path, wire: str, path: str, ports: Sequence[int], shape: Shape
) -> Iterator[Client]:
    """Open the sockets of a shape; yield when each has received a message.

    Args:
        program: what `build` has returned.
        wire: `ws` or `socketio`.
        path: of a handshake; `%s` stands for the room.
        ports: of the servers.
        shape: who is connected.

    Raises:
        ClientError: not all were opened, or received something.
    """
    listed = ",".join(map(str, ports))
    numbers = map(str, (shape.rooms, shape.members, shape.payload, shape.idle))
    process = subprocess.Popen(
        [program, wire, listed, path, *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            yield Client(process)
        finally:
            end(process)
