"""Ask the processes of a unit who they are, and tell them what to do.

A unit has more than one process while a reload replaces a worker: `channels_kit.serving.beside`.
Each has a Unix socket in the unit's runtime directory, named by its process ID. A packet is a
command, its answer is a packet of JSON. A listening socket goes along with either. Not a signal: an
older process that does not know one would end at it, and a signal has no answer.
It is of the standard library alone: it runs beside every start and end of a worker.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

DIRECTORY = "CHANNELS_KIT_CONTROL_DIRECTORY"
"""The variable that names the directory of the sockets; without it there are none."""

ANSWER_TIMEOUT = 10.0
"""Seconds a process has for an answer."""

LARGEST = 2**16
"""Bytes of a packet."""


class ControlError(Exception):
    """A process did not do what it was told, for the reason in the text."""


class GoneError(ControlError):
    """There is no such process any more."""


@dataclass(frozen=True)
class Process:
    """A process of a unit.

    Attributes:
        pid: its ID.
        revision: what it was started with.
        sockets: WebSockets that it has.
        requests: HTTP requests that a drain waits for.
        state: `waiting` has not listened yet, `serving` listens, `retired` listens no more and
            serves what it has, `draining` closes that.
        retired: whether another one has its port.
    """

    pid: int
    revision: str
    sockets: int
    requests: int
    state: str
    retired: bool

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> "Process":
        """Return what an answer says; all of them say it.

        Raises:
            ControlError: it does not.
        """
        try:
            return cls(**{name: answer[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise ControlError(f"the answer has no {error}") from error

    @property
    def in_hand(self) -> int:
        """What a drain waits for."""
        return self.sockets + self.requests

    def as_json(self) -> dict[str, object]:
        """Return it as the commands print it."""
        return {key: value for key, value in asdict(self).items() if key != "retired"}


class Connection:
    """A connection to one process.

    Args:
        socket: connected to it.
    """

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket

    @classmethod
    def to(cls, path: Path) -> "Connection":
        """Connect to the process that has a socket.

        Raises:
            ControlError: there is none.
        """
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connected.settimeout(ANSWER_TIMEOUT)
        try:
            connected.connect(os.fspath(path))
        except OSError as error:
            connected.close()
            raise GoneError(f"{path}: {error.strerror or error}") from error
        return cls(connected)

    def ask(
        self, command: str, listener: socket.socket | None = None, timeout: float | None = None
    ) -> tuple[dict[str, Any], socket.socket | None]:
        """Have a command carried out, and return the answer and the socket that came with it.

        Raises:
            ControlError: there is no answer, or it says what went wrong.
        """
        timeout = ANSWER_TIMEOUT if timeout is None else timeout
        self.socket.settimeout(timeout)
        try:
            send(self.socket, command.encode(), listener)
            data, came = receive(self.socket)
        except TimeoutError as error:
            raise ControlError(f"no answer within {timeout:.0f} s") from error
        except OSError as error:
            raise GoneError(error.strerror or str(error)) from error
        if not data:
            raise GoneError("the process has ended")
        answer = json.loads(data)
        if "error" in answer:
            raise ControlError(str(answer["error"]))
        return answer, came

    def state(self, timeout: float | None = None) -> Process:
        """Return who it is."""
        return Process.from_answer(self.ask("state", timeout=timeout)[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()


def send(to: socket.socket, data: bytes, listener: socket.socket | None) -> None:
    """Send a packet, with a socket where there is one."""
    socket.send_fds(to, [data], [] if listener is None else [listener.fileno()])


def receive(of: socket.socket) -> tuple[bytes, socket.socket | None]:
    """Return a packet and the socket that came with it; an empty one at the end."""
    data, descriptors, _, _ = socket.recv_fds(of, LARGEST, 1)
    return data, listening(descriptors[0]) if descriptors else None


def listening(descriptor: int) -> socket.socket:
    """Return a listening socket by its descriptor, which it owns."""
    # It finds out the protocol, by which asyncio knows that TCP_NODELAY is to be set.
    listener = socket.socket(fileno=descriptor)
    # It is, for every process that has it; Python has to know, or makes it blocking in dup().
    listener.setblocking(False)
    return listener


def path_of(directory: Path, process: int) -> Path:
    """Return where a process has its socket."""
    return directory / f"{process}.sock"


def running(directory: Path) -> Iterator[int]:
    """Yield the processes that have a socket and run."""
    for path in sorted(directory.glob("*.sock")):
        if path.stem.isdecimal():
            # Another user's has the ID of one that was killed.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(path.stem), 0)
                yield int(path.stem)


def processes(directory: Path) -> list[Process]:
    """Return the processes that have a socket, the youngest last.

    Raises:
        ControlError: one hangs. It may have sockets, and must not count as gone.
    """
    found = []
    for pid in running(directory):
        try:
            with Connection.to(path_of(directory, pid)) as connection:
                found.append(connection.state())
        except GoneError:
            continue
        except ControlError as error:
            raise ControlError(f"process {pid}: {error}") from error
    return sorted(found, key=lambda process: started(process.pid))


def started(pid: int) -> int:
    """Return when a process began, on the kernel's clock; 0 where it has gone: proc_pid_stat(5)."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def hand_over(former: Connection, following: Connection) -> None:
    """Have one process listen in place of another one, and not lose a connection.

    The socket itself changes hands, with all that waits there: what comes meanwhile waits as well.

    Raises:
        ControlError: it failed. The former one listens again at the end of its connection.
    """
    _, listener = former.ask("retire")
    if listener is None:
        raise ControlError("no listening socket came")
    with listener:
        following.ask("listen", listener)
    former.ask("settle")
