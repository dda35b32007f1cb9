"""What a process tells one Redis: in order, many at once, again after a loss of the connection."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, ResponseError

from channels_kit.layer import scripts
from channels_kit.layer.connection import ANSWER_TIMEOUT, CONNECTION_ERRORS, Backoff, ask, opened
from channels_kit.layer.errors import LayerUnavailableError
from channels_kit.layer.scripts import Script
from channels_kit.layer.statistics import Statistics, logger

BATCH = 256
BATCH_BYTES = 1 << 20
"""Commands, and bytes, that are sent before their answers are read."""

AWAY = ("MASTERDOWN", "NOREPLICAS", "MISCONF", "BUSY", "UNKILLABLE")
"""Errors of a Redis that can answer later, or of one that is the master no more. Older versions of
redis-py have no class for the first."""


class Command:
    """A script that waits for its answer.

    Args:
        script: what Redis runs.
        keys: of it.
        arguments: of it; called with the command's number.
        size: bytes that it holds.
    """

    __slots__ = ("answer", "arguments", "keys", "number", "script", "size")

    def __init__(
        self,
        script: Script,
        keys: tuple[str, ...],
        arguments: Callable[[int], tuple[Any, ...]],
        size: int,
    ) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.size = size
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Given when it is sent for the first time, so that numbers are in the order of sending; the
        # same if it is sent again, so that receivers know a second copy.
        self.number: int | None = None


class Sender:
    """Runs scripts on one Redis for one event loop.

    Args:
        pool: makes the connections.
        prefix: of all keys.
        timeout: seconds for which a call waits.
        buffer: bytes that wait while Redis is away.
        statistics: of the process.
    """

    def __init__(
        self, pool: Any, prefix: str, timeout: float, buffer: int, statistics: Statistics
    ) -> None:
        self.pool = pool
        self.epoch_key = f"{prefix}:fanout:epoch"
        self.timeout = timeout
        self.buffer = buffer
        self.statistics = statistics
        self.is_connected = False
        # Of what kind the last error was, since the connection was last of use.
        self._error = ""
        # What is not sent, and what is sent and not answered.
        self._waiting: deque[Command] = deque()
        self._sent: deque[Command] = deque()
        self._bytes = 0
        self._number = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def call(
        self,
        script: Script,
        keys: tuple[str, ...],
        arguments: Callable[[int], tuple[Any, ...]],
        size: int = 0,
    ) -> Any:
        """Run a script and return its answer.

        Raises:
            LayerUnavailableError: Redis is away for too long, or too much waits for it.
            ResponseError: it refuses the script, as without the permission for it.
        """
        # The first connection is not yet an outage.
        if self._error and self._bytes + size > self.buffer:
            raise LayerUnavailableError(f"Redis is away, and {self._bytes} bytes wait for it")
        command = self.post(script, keys, arguments, size)
        try:
            async with asyncio.timeout(self.timeout):
                return await command.answer
        except TimeoutError:
            why = f" ({self._error})" if self._error else ""
            raise LayerUnavailableError(
                f"Redis did not answer within {self.timeout:g} s{why}"
            ) from None
        finally:
            if command.answer.cancelled():
                self._give_up(command)

    def post(
        self,
        script: Script,
        keys: tuple[str, ...],
        arguments: Callable[[int], tuple[Any, ...]],
        size: int = 0,
    ) -> Command:
        """Have a script run, however long Redis is away, or until its answer is cancelled."""
        command = Command(script, keys, arguments, size)
        self._bytes += size
        self._waiting.append(command)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return command

    def _give_up(self, command: Command) -> None:
        """Let go of a command that is not sent: Redis may be away for hours."""
        # Most often the first one. What is sent stays until its answer.
        with suppress(ValueError):
            self._waiting.remove(command)
            self._bytes -= command.size

    async def close(self) -> None:
        """Close the connection; what waits is not sent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        for command in (*self._sent, *self._waiting):
            command.answer.cancel()

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with opened(self.pool) as connection:
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        await self._greet(connection)
                    self.is_connected = True
                    if self._error:
                        logger.info("Redis is back")
                    self._error = ""
                    await self._serve(connection, backoff)
            except CONNECTION_ERRORS as error:
                # The class only: the text of an error may hold a URL with a password.
                self._error = type(error).__name__
                text = "Redis is away, refuses the login or does not answer: %s"
                self.statistics.warn("away", text, self._error)
            except Exception as error:
                # Without this task nothing is sent any more.
                self._error = type(error).__name__
                self.statistics.warn("failed", "a connection to Redis failed", error=error)
            finally:
                self.is_connected = False
                # In their order, before what has not been sent.
                self._waiting.extendleft(reversed(self._sent))
                self._sent.clear()
            await backoff.wait()

    async def _greet(self, connection: Any) -> None:
        """Bring the scripts, and begin a new epoch if this Redis has other data than before."""
        about, *_ = await ask(
            connection,
            [
                ("INFO", "replication"),
                *(("SCRIPT", "LOAD", script.text) for script in scripts.ALL),
            ],
        )
        found = re.search(r"master_replid:(\S+)", _text(about))
        data = found[1] if found else ""
        digest = scripts.GREET.digest
        await ask(connection, [("EVALSHA", digest, 1, self.epoch_key, data, token_hex(8))])

    async def _serve(self, connection: Any, backoff: Backoff) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            commands = self._next()
            if not commands:
                continue
            async with asyncio.timeout(ANSWER_TIMEOUT):
                packed = connection.pack_commands(commands)
                await connection.send_packed_command(packed, check_health=False)
                while self._sent:
                    await self._read(connection)
            backoff.succeeded()

    def _next(self) -> list[tuple[Any, ...]]:
        """Return what is sent next, and note it as sent."""
        commands: list[tuple[Any, ...]] = []
        size = 0
        while self._waiting and len(commands) < BATCH and size < BATCH_BYTES:
            command = self._waiting.popleft()
            if command.answer.done():  # nobody waits for it any more
                self._bytes -= command.size
                continue
            if command.number is None:
                self._number += 1
                command.number = self._number
            arguments = command.arguments(command.number)
            keys = command.keys
            commands.append(("EVALSHA", command.script.digest, len(keys), *keys, *arguments))
            size += command.size
            self._sent.append(command)
        return commands

    async def _read(self, connection: Any) -> None:
        error: ResponseError | None = None
        try:
            answer = await connection.read_response()
        except ResponseError as raised:
            error = raised
        # Not before its answer: what is sent stays in hand if there is none.
        command = self._sent[0]
        if error is not None:
            if isinstance(error, NoScriptError):
                # Not run, nor what follows on it: none is a second copy when it comes.
                for each in self._sent:
                    each.number = None
                raise RedisConnectionError("Redis has forgotten the scripts")
            if isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith(AWAY):
                raise RedisConnectionError(type(error).__name__)
        self._sent.popleft()
        self._bytes -= command.size
        if command.answer.done():
            return
        if error is not None:
            command.answer.set_exception(error)
        else:
            command.answer.set_result(answer)


def _text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
