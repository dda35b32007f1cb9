"""What Redis pays for a message of the kit's layer, by the processes that are subscribed."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from channels_kit.layer import RedisFanoutLayer
from fanout.processes import cpu_seconds, end, find, redis

SUBSCRIBERS = (0, 1, 2, 4, 8, 16)
MESSAGES, AT_ONCE = 20_000, 50
PAYLOAD = 256
"""Bytes, as in the figure of others that docs/scaling.md compares with."""

SUBSCRIBE_TIMEOUT = 10.0
GROUP = "room"


@dataclass(frozen=True)
class RedisCost:
    """Microseconds of Redis' processor.

    Attributes:
        message: for each message, whoever hears it.
        subscriber: and for each process that is subscribed to its group.
        measured: the sum, by the number of processes.
        rates: messages a second that one Python process sent meanwhile, by the same.
    """

    message: float
    subscriber: float
    measured: dict[int, float]
    rates: dict[int, float]


def measure_redis() -> RedisCost:
    """Measure it: group_send on a Redis with more and more subscribers, which only read."""
    measured, rates = {}, {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        process, url = stack.enter_context(redis(Path(name) / "redis.log"))
        channel = asyncio.run(_find_channel(url))
        for wanted, before in zip(SUBSCRIBERS, (0, *SUBSCRIBERS), strict=False):
            for _ in range(wanted - before):
                command = [find("redis-cli"), "-u", url, "subscribe", channel]
                reader = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
                stack.callback(end, reader)
            asyncio.run(_subscribed(url, channel, wanted))
            cpu, start = cpu_seconds(process), time.monotonic()
            asyncio.run(_send(url))
            rates[wanted] = MESSAGES / (time.monotonic() - start)
            measured[wanted] = 1e6 * (cpu_seconds(process) - cpu) / MESSAGES
    slope, intercept = statistics.linear_regression(list(measured), list(measured.values()))
    return RedisCost(intercept, slope, measured, rates)


async def _find_channel(url: str) -> str:
    """Return the channel of Redis on which the layer publishes the messages of the group."""
    layer = RedisFanoutLayer(hosts=[url])
    async with (
        asyncio.timeout(SUBSCRIBE_TIMEOUT),
        Redis.from_url(url) as client,
        client.pubsub() as heard,
    ):
        await heard.psubscribe("*")
        await heard.get_message(timeout=SUBSCRIBE_TIMEOUT)
        await layer.group_send(GROUP, {"type": "room.message"})
        while True:
            message = await heard.get_message(timeout=SUBSCRIBE_TIMEOUT)
            if message is not None and message["type"] == "pmessage":
                await layer.close_pools()
                return bytes(message["channel"]).decode()


async def _subscribed(url: str, channel: str, wanted: int) -> None:
    async with asyncio.timeout(SUBSCRIBE_TIMEOUT), Redis.from_url(url) as client:
        # Redis tells nobody who subscribes.
        while (await client.pubsub_numsub(channel))[0][1] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _send(url: str) -> None:
    layer = RedisFanoutLayer(hosts=[url])
    message = {"type": "room.message", "text": "." * PAYLOAD}
    for _ in range(MESSAGES // AT_ONCE):
        await asyncio.gather(*(layer.group_send(GROUP, message) for _ in range(AT_ONCE)))
    await layer.close_pools()
