"""Readiness and the probe's sockets on the layers that applications have, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from channels_redis.core import RedisChannelLayer  # type: ignore[import-untyped]
from pytest_django import Settings
from redis.asyncio import Redis as Client

from channels_kit.serving.readiness import channel_layer_round_trip, layer_name

from .cluster import Redis
from .test_serving import AUTHORIZED, open_probe

CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
FANOUT = "channels_kit.layer.RedisFanoutLayer"
KEYS = ["a key of the tests"]


@pytest.fixture(params=[(name, keys) for name in (CORE, PUBSUB, FANOUT) for keys in ([], KEYS)])
async def real_layer(
    request: pytest.FixtureRequest, settings: Settings, redis: Redis
) -> AsyncIterator[Any]:
    """The application's layer: core or pub/sub, encrypted or not."""
    backend, keys = request.param
    config = {"hosts": [redis.url], **({"symmetric_encryption_keys": keys} if keys else {})}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}
    yield get_channel_layer()
    await get_channel_layer().flush()
    await close(get_channel_layer())


async def close(layer: Any) -> None:
    """Close what a layer has open; the core layer has no way to say so by flushing."""
    if hasattr(layer, "close_pools"):
        await layer.close_pools()


async def left_behind(redis: Redis) -> set[bytes]:
    """Return the groups and subscriptions that Redis has."""
    async with Client.from_url(redis.url) as client:
        subscriptions = await client.pubsub_channels()
        # An event loop has an inbox as long as it has the layer.
        inboxes = {each for each in subscriptions if each.startswith(b"asgi:fanout:inbox:")}
        return {*await client.keys("asgi:group:*"), *subscriptions} - inboxes


async def nothing_is_left(redis: Redis) -> bool:
    """Wait until Redis has none; an UNSUBSCRIBE goes out without waiting for its answer."""
    async with asyncio.timeout(5):
        while await left_behind(redis):  # noqa: ASYNC110 - Redis says nothing by itself
            await asyncio.sleep(0.01)
    return True


async def test_every_check_passes_and_leaves_nothing_behind(real_layer: Any, redis: Redis) -> None:
    for _ in range(20):
        async with asyncio.timeout(3):
            await channel_layer_round_trip()
    await asyncio.gather(*(channel_layer_round_trip() for _ in range(20)))
    assert await nothing_is_left(redis)
    assert not getattr(real_layer, "channels", {})
    assert not getattr(real_layer, "groups", {})
    assert not getattr(real_layer, "receive_buffer", {})


async def test_the_layer_is_named(real_layer: Any) -> None:
    assert layer_name() in (CORE, PUBSUB, "channels_kit.layer.layer.RedisFanoutLayer")


async def test_probes_that_said_hello_lose_nothing_and_leave_nothing(
    real_layer: Any, redis: Redis
) -> None:
    sockets = [open_probe(str(number), worker=f"app:{number}") for number in range(8)]
    for socket in sockets:
        assert await socket.connect()
    for socket in sockets:
        assert (await socket.receive_json())["type"] == "hello"
    # At once: the last hello means that everybody hears everybody.
    for socket in sockets:
        await socket.send(text='{"round": 1}')
    for socket in sockets:
        senders = {(await socket.receive_json())["sender"] for _ in sockets}
        assert senders == {str(number) for number in range(8)}
    for socket in sockets:
        await socket.disconnect()
    assert await nothing_is_left(redis)


async def test_a_probe_that_is_cut_leaves_nothing(real_layer: Any, redis: Redis) -> None:
    socket = open_probe("1", headers=AUTHORIZED)
    assert await socket.connect()
    assert (await socket.receive_json())["type"] == "hello"
    socket.future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await socket.future
    assert await nothing_is_left(redis)


async def test_a_probe_outlives_a_silence_of_several_time_outs_of_the_layer(
    settings: Settings, redis: Redis
) -> None:
    layer = {"BACKEND": f"{Impatient.__module__}.Impatient", "CONFIG": {"hosts": [redis.url]}}
    settings.CHANNEL_LAYERS = {"default": layer}
    socket = open_probe()
    assert await socket.connect()
    assert (await socket.receive_json())["type"] == "hello"
    before = Impatient.looks
    async with asyncio.timeout(5):
        while Impatient.looks < before + 3:  # noqa: ASYNC110 - no event of the layer's
            await asyncio.sleep(0.01)
    await socket.send(text='{"round": 1}')
    assert (await socket.receive_json())["round"] == 1
    await socket.disconnect()
    await close(get_channel_layer())


async def test_a_layer_whose_time_out_is_too_short_is_named(
    settings: Settings, redis: Redis
) -> None:
    """What redis-py 8 does to the core layer by its defaults."""
    hosts = [{"address": redis.url, "socket_timeout": 2}]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": CORE, "CONFIG": {"hosts": hosts}}}
    socket = open_probe()
    assert await socket.connect()
    assert (await socket.receive_json())["type"] == "hello"
    close_frame = await socket.receive_output(60)
    assert (close_frame["code"], close_frame["reason"]) == (1011, "channel layer: TimeoutError")
    await socket.wait()
    await close(get_channel_layer())


class Impatient(RedisChannelLayer):  # type: ignore[misc]
    """The core layer, which looks for messages for 0.1 s at a time instead of 5."""

    brpop_timeout = 0.1
    looks = 0

    async def _brpop_with_clean(self, *arguments: Any, **options: Any) -> Any:
        Impatient.looks += 1
        return await super()._brpop_with_clean(*arguments, **options)
