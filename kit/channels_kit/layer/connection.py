"""One connection to a Redis, as the layer needs it: opened, greeted, closed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import RedisError

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError, EOFError, RuntimeError)
"""What a connection that is lost, or not made, raises; RuntimeError is uvloop's for a write to one
that is closed."""

ANSWER_TIMEOUT = 5.0
"""Seconds for Redis to connect, and for each answer; then the connection counts as lost."""

CLOSE_TIMEOUT = 1.0
"""Seconds for a connection to close in good order."""

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
"""Seconds between two attempts to connect: at first, and at last. They double."""


class Backoff:
    """How long to wait before the next attempt to connect."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def succeeded(self) -> None:
        """Begin again: a connection was of use."""
        self._pause = FIRST_PAUSE

    async def wait(self) -> None:
        """Wait, a random time, so that not all processes come back at once."""
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - nobody's secret
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


@asynccontextmanager
async def opened(pool: Any) -> AsyncIterator[Any]:
    """Open a connection of a pool's kind, and close it at the end.

    Args:
        pool: knows how to connect; the connection is none of its own.
    """
    connection = pool.make_connection()
    # redis-py forgets what it closes, and does not wait for it where it is interrupted. TLS ends by
    # an exchange, and a Redis that hangs does not take what is written: both keep a socket open.
    writers: list[asyncio.StreamWriter] = []
    disconnect = connection.disconnect

    async def remember_and_disconnect(*arguments: Any, **options: Any) -> None:
        if connection._writer is not None:
            writers.append(connection._writer)
        await disconnect(*arguments, **options)

    connection.disconnect = remember_and_disconnect
    try:
        # A Sentinel is asked in this time, too.
        async with asyncio.timeout(ANSWER_TIMEOUT):
            try:
                await connection.connect()
            finally:
                await close_sentinels(pool)
        yield connection
    finally:
        try:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await connection.disconnect()
        finally:
            for writer in writers:
                writer.transport.abort()


async def close_sentinels(pool: Any) -> None:
    """Close the connections to Sentinels, which are asked rarely."""
    manager = getattr(pool, "sentinel_manager", None)
    for client in manager.sentinels if manager is not None else ():
        await client.connection_pool.disconnect()


async def ask(connection: Any, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Send commands at once and return the answers; raise the first error."""
    commands = list(commands)
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    return [await connection.read_response() for _ in commands]
