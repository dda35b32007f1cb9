"""A worker that is replaced by another process of its unit, and may come back.

A process that `channels_kit.serving.beside` has started waits, completely loaded, until it is given
the socket that the former process listens on. The former one is retired then: it keeps its open
connections and serves them, says with each response that it is the last of its connection, and
refuses handshakes on those that the edge has kept. What it is told comes by its control socket.
"""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from channels_kit.serving import control

if TYPE_CHECKING:
    # It takes Django, which a server may have to set up first.
    from channels_kit.serving.wrapper import Serving

logger = logging.getLogger(__name__)

GUIDE = "CHANNELS_KIT_BESIDE"
"""The variable with the number of the descriptor by which a process that waits is told."""

_INTERVAL = 0.05
"""Seconds between two looks at what a drain has left."""


class Port(Protocol):
    """Where a server accepts connections."""

    async def take(self, listener: socket.socket) -> None:
        """Accept the connections of a listening socket, which is the server's from then on."""

    async def release(self) -> socket.socket:
        """Accept no more, and return the listening socket as it is, with all that waits there."""


class AsyncioPort:
    """The port of a server that is asyncio's.

    Args:
        serve: makes a server of a socket.
        server: the one there is, if any.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], Awaitable[asyncio.Server]],
        server: asyncio.Server | None = None,
    ) -> None:
        self.serve = serve
        self.server = server

    async def take(self, listener: socket.socket) -> None:
        """Accept the connections of a listening socket."""
        self.server = await self.serve(listener)

    async def release(self) -> socket.socket:
        """Accept no more."""
        if self.server is None:
            raise RuntimeError("it does not listen")
        [former] = self.server.sockets
        listener = control.listening(os.dup(former.fileno()))
        # A connection that asyncio has accepted is dropped if the server is closed before its
        # transport is made, which takes two steps of the loop.
        asyncio.get_running_loop().remove_reader(former.fileno())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.server.close()
        self.server = None
        return listener


def waits() -> bool:
    """Return whether this process is given its port later."""
    return GUIDE in os.environ


class Lifecycle:
    """Carries out what this process is told.

    Args:
        serving: what it serves.
        port: where it does.
    """

    def __init__(self, serving: "Serving", port: Port) -> None:
        self.serving = serving
        self.port = port
        self.waiting = waits()
        # Commands of different connections come one after the other.
        self.lock = asyncio.Lock()
        # Kept: asyncio itself keeps no task from being collected.
        self.tasks: set[asyncio.Task[None]] = set()
        # What those listen on that have been told to retire, and not yet to settle.
        self.unsettled: dict[socket.socket, socket.socket] = {}

    def begin(self) -> None:
        """Listen for commands; to be called in the event loop."""
        if self.serving.settings.control_directory:
            path = self._path()
            # Of a process that had the same ID.
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            listener.bind(os.fspath(path))
            listener.listen()
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        if self.waiting:
            guide = socket.socket(fileno=int(os.environ.pop(GUIDE)))
            guide.set_inheritable(False)
            self._keep(self._converse(guide))

    def _path(self) -> Path:
        return control.path_of(Path(self.serving.settings.control_directory), os.getpid())

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionError):
            self._keep(self._converse(listener.accept()[0]))

    async def _converse(self, connection: socket.socket) -> None:
        """Do what a connection says, until its end."""
        connection.setblocking(False)
        while True:
            await _readable(connection)
            try:
                data, listener = control.receive(connection)
            except OSError:
                data, listener = b"", None
            async with self.lock:
                if not data:
                    await self._disconnected(connection)
                    return
                try:
                    answer, goes = await self._carry_out(data.decode(), connection, listener)
                except Exception as error:
                    logger.exception("%s failed", data.decode())
                    answer, goes = {"error": f"{type(error).__name__}: {error}"}, None
                finally:
                    if listener is not None:
                        listener.close()
            with suppress(OSError):  # it has gone, which is seen next
                control.send(connection, json.dumps({**self.state(), **answer}).encode(), goes)

    async def _disconnected(self, connection: socket.socket) -> None:
        unsettled = self.unsettled.pop(connection, None)
        connection.close()
        if unsettled is not None:
            logger.warning("the hand-over was broken off: listening again")
            try:
                with unsettled:
                    await self._listen(unsettled)
            except Exception:
                # Nobody has the port. The service manager starts another process.
                logger.exception("listening again failed")
                self._end()
        elif self.waiting:
            logger.warning("the reload was broken off")
            self._end()

    async def _carry_out(
        self, command: str, connection: socket.socket, listener: socket.socket | None
    ) -> tuple[dict[str, object], socket.socket | None]:
        """Carry out a command; return what is said beside the state, and a socket to go along."""
        sockets = self.serving.sockets
        match command:
            case "state":
                pass
            case "ready":
                readiness = await self.serving.check_readiness()
                failed = {n: each.error for n, each in readiness.checks.items() if not each.ok}
                return {"not_ready": failed}, None
            case "retire" if self.state()["state"] == "serving":
                self.unsettled[connection] = await self.port.release()
                sockets.retire()
                logger.warning("retired with %d sockets", len(sockets))
                return {}, self.unsettled[connection]
            case "settle":
                self.unsettled.pop(connection).close()
            case "listen" if listener and self.state()["state"] in ("waiting", "retired"):
                await self._listen(listener)
            case "drain" if sockets.retired:
                if not sockets.draining:
                    self.serving.drain()
                    self._keep(self._end_when_empty())
            case _:
                return {
                    "error": f"a process that is {self.state()['state']} cannot {command}"
                }, None
        return {}, None

    async def _listen(self, listener: socket.socket) -> None:
        await self.port.take(listener.dup())
        self.waiting = False
        self.serving.sockets.resume()
        tell_systemd(f"MAINPID={os.getpid()}")

    async def _end_when_empty(self) -> None:
        """End when nothing is left; or when a drain should have come to its end."""
        settings = self.serving.settings
        with suppress(TimeoutError):
            async with asyncio.timeout(max(settings.drain_window, settings.stream_grace) + 10):
                while len(self.serving.sockets) + len(self.serving.requests):  # noqa: ASYNC110
                    await asyncio.sleep(_INTERVAL)
        logger.warning("ending with %d sockets", len(self.serving.sockets))
        self._end()

    def state(self) -> dict[str, object]:
        """Return what `control.Process` has."""
        sockets = self.serving.sockets
        if self.waiting:
            state = "waiting"
        elif sockets.draining:
            state = "draining"
        else:
            state = "retired" if sockets.retired else "serving"
        return {**self.serving.state(), "state": state}

    def _end(self) -> None:
        if self.serving.settings.control_directory:
            self._path().unlink(missing_ok=True)
        # Every server ends at it as it should.
        os.kill(os.getpid(), signal.SIGTERM)

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def _readable(connection: socket.socket) -> None:
    """Wait until there is something to read; asyncio itself receives no sockets."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)


def tell_systemd(text: str) -> None:
    """Send systemd a line about this process, where systemd has started it: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifying:
            notifying.sendto(text.encode(), address.replace("@", "\0", 1))
