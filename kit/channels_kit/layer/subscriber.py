"""What a process hears from one Redis: on one connection, subscribed once to each topic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from channels_kit.layer.connection import ANSWER_TIMEOUT, CONNECTION_ERRORS, Backoff, opened
from channels_kit.layer.statistics import Statistics

SILENCE = 3.0
"""Seconds without a word of Redis after which it is asked for one; after as many more, the
connection counts as lost."""

AT_ONCE = 500
"""Names in one command."""


class Subscriber:
    """Keeps subscriptions on one Redis for one event loop.

    Args:
        pool: makes the connections.
        arrived: is called with the name of a channel and what was published there.
        subscribed: is called with a name when Redis has confirmed its subscription.
        lost: is called when the connection is lost.
        turn: is awaited after each message, so that receivers get theirs.
        statistics: of the process.
    """

    def __init__(
        self,
        pool: Any,
        arrived: Callable[[str, bytes], None],
        subscribed: Callable[[str], None],
        lost: Callable[[], None],
        turn: Callable[[], Awaitable[None]],
        statistics: Statistics,
    ) -> None:
        self.pool = pool
        self.arrived = arrived
        self.subscribed = subscribed
        self.lost = lost
        self.turn = turn
        self.statistics = statistics
        self.names: set[str] = set()
        # What is to be told Redis, in this order: a name, and whether to subscribe.
        self._changes: list[tuple[str, bool]] = []
        # Subscriptions that are told and not confirmed: only the last one counts.
        self._unconfirmed: dict[str, int] = {}
        self._wake = asyncio.Event()
        # Answers and messages so far: whether Redis is there.
        self._heard = 0
        # Whether receivers have their turn, and nothing is read meanwhile.
        self._is_paused = False
        self._task: asyncio.Task[None] | None = None

    def add(self, name: str) -> None:
        """Subscribe to a name."""
        self.names.add(name)
        self._change(name, True)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, name: str) -> None:
        """End a subscription."""
        self.names.discard(name)
        self._change(name, False)

    async def close(self) -> None:
        """End all of them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def _change(self, name: str, subscribe: bool) -> None:
        self._changes.append((name, subscribe))
        self._wake.set()

    async def _run(self) -> None:
        backoff = Backoff()
        connected_before = False
        while True:
            try:
                async with opened(self.pool) as connection:
                    self.statistics.resubscriptions += connected_before
                    connected_before = True
                    self._changes = [(name, True) for name in self.names]
                    self._unconfirmed.clear()
                    self._is_paused = False
                    self._wake.set()
                    await self._until_one_ends(
                        self._listen(connection, backoff), self._tell(connection)
                    )
            except CONNECTION_ERRORS as error:
                # The class only: the text of an error may hold a URL with a password.
                name = type(error).__name__
                self.statistics.warn("lost", "lost the subscriptions to Redis: %s", name)
            except Exception as error:
                # Without this task nothing is heard any more.
                self.statistics.warn("failed", "a connection to Redis failed", error=error)
            finally:
                self.lost()
            await backoff.wait()

    @staticmethod
    async def _until_one_ends(*coroutines: Any) -> None:
        tasks = [asyncio.create_task(each) for each in coroutines]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, connection: Any, backoff: Backoff) -> None:
        while True:
            answer = await connection.read_response()
            self._heard += 1
            kind = answer[0]
            if kind == b"message":
                self.arrived(answer[1].decode(), answer[2])
                self._is_paused = True
                await self.turn()
                self._is_paused = False
            elif kind == b"subscribe":
                backoff.succeeded()
                self._confirm(answer[1].decode())

    def _confirm(self, name: str) -> None:
        left = self._unconfirmed.pop(name, 1) - 1
        if left:
            self._unconfirmed[name] = left
        elif name in self.names:
            self.subscribed(name)

    async def _tell(self, connection: Any) -> None:
        """Tell Redis what changes, and ask for a word in a silence."""
        heard, since, asked = self._heard, time.monotonic(), False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE):
                    await self._wake.wait()
            commands = self._commands()
            now = time.monotonic()
            if heard != self._heard or self._is_paused:
                heard, since, asked = self._heard, now, False
            elif asked and now - since >= 2 * SILENCE:
                raise RedisConnectionError("Redis does not answer")
            elif not asked and now - since >= SILENCE:
                asked = True
                commands.append(["PING"])
            if commands:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    packed = connection.pack_commands(commands)
                    await connection.send_packed_command(packed, check_health=False)

    def _commands(self) -> list[list[str]]:
        """Return what is to be told, in its order, many names in one command."""
        self._wake.clear()
        changes, self._changes = self._changes, []
        commands: list[list[str]] = []
        for name, subscribe in changes:
            if subscribe:
                self._unconfirmed[name] = self._unconfirmed.get(name, 0) + 1
            verb = "SUBSCRIBE" if subscribe else "UNSUBSCRIBE"
            if commands and commands[-1][0] == verb and len(commands[-1]) <= AT_ONCE:
                commands[-1].append(name)
            else:
                commands.append([verb, name])
        return commands
