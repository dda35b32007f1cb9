"""What Channels expects of a layer. The list of cases is that of channels_redis' own tests."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.exceptions import ChannelFull  # type: ignore[import-untyped]
from channels.layers import BaseChannelLayer  # type: ignore[import-untyped]
from redis.asyncio import Redis as Client

from channels_kit.layer import ConsumerOverflowError, RedisFanoutLayer
from tests.roles.certificates import authority

from .cluster import Redis
from .layers import (
    Listener,
    Server,
    free_port,
    layers,
    listening,
    message,
    nothing_more,
    receive,
    send_all,
    until,
)

KEYS = ["a key of the tests", "a former one"]
SOON = 0.05


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Redis that speaks TLS only, as an entry of hosts."""
    directory = tmp_path_factory.mktemp("tls")
    certificate = authority(directory)
    port = free_port()
    options = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(directory / "key.pem")]
    with Server(directory, *options, *files):
        yield {"address": f"rediss://127.0.0.1:{port}", "ssl_ca_certs": str(certificate)}


@pytest.fixture(params=["plain", "encrypted", "shards", "tls"])
async def two(
    request: pytest.FixtureRequest, redis: Redis, second: Server, tls: dict[str, str]
) -> AsyncIterator[list[RedisFanoutLayer]]:
    """Two processes' layers."""
    hosts: list[Any] = [redis.url if request.param != "tls" else tls]
    if request.param == "shards":
        hosts += [("127.0.0.1", second.port), {"address": f"{second.url}/1"}]
    keys = KEYS if request.param == "encrypted" else None
    async with layers(2, *hosts, symmetric_encryption_keys=keys, capacity=3) as made:
        yield made
        await made[0].flush()


async def test_a_channel_of_a_process(two: list[RedisFanoutLayer]) -> None:
    here, there = two
    channel = await there.new_channel()
    assert channel.startswith("specific.")
    for value in range(3):
        await here.send(channel, message(value))
    assert [(await receive(there, channel))["value"] for _ in range(3)] == [0, 1, 2]
    await there.send(channel, message(3))
    assert await receive(there, channel) == message(3)
    with pytest.raises(ValueError, match="another process"):
        await here.receive(channel)


async def test_what_is_sent_before_a_process_has_subscribed_arrives(
    two: list[RedisFanoutLayer],
) -> None:
    here, there = two
    # No step in between in which it could.
    channel = await there.new_channel("own")
    await here.send(channel, message(1))
    assert await receive(there, channel) == message(1)


async def test_a_named_channel_is_a_queue_of_which_each_message_goes_to_one(
    two: list[RedisFanoutLayer],
) -> None:
    here, there = two
    listeners = [Listener(here, "work"), Listener(there, "work"), Listener(there, "work")]
    for value in range(30):
        while True:
            try:
                await here.send("work", message(value))
                break
            except ChannelFull:
                await asyncio.sleep(0.001)
    await until(lambda: sum(len(each.messages) for each in listeners) == 30)
    assert sorted(value for each in listeners for value in each.values()) == list(range(30))
    for listener in listeners:
        await listener.stop()


async def test_a_named_channel_keeps_what_nobody_receives_until_it_is_full(
    two: list[RedisFanoutLayer],
) -> None:
    here, there = two
    for value in range(3):
        await here.send("work", message(value))
    with pytest.raises(ChannelFull):
        await here.send("work", message(3))
    assert [(await receive(there, "work"))["value"] for _ in range(3)] == [0, 1, 2]
    await here.send("work", message(4))
    assert await receive(here, "work") == message(4)


async def test_a_receive_that_is_given_up_loses_nothing(two: list[RedisFanoutLayer]) -> None:
    here, there = two
    channel = await here.new_channel()
    await here.group_add("group", channel)
    for _ in range(20):
        for name in ("work", channel):
            waiting = asyncio.create_task(here.receive(name))
            await asyncio.sleep(0)
            if name == "work":
                await there.send(name, message(name))
            else:
                await there.group_send("group", message(name))
            waiting.cancel()
            try:
                got = await waiting
            except asyncio.CancelledError:
                got = await receive(here, name)
            assert got == message(name)


async def test_a_full_channel_of_this_process_is_told(two: list[RedisFanoutLayer]) -> None:
    here, _ = two
    channel = await here.new_channel()
    for value in range(3):
        await here.send(channel, message(value))
    with pytest.raises(ChannelFull):
        await here.send(channel, message(3))


async def test_a_group_has_its_members_and_no_others(two: list[RedisFanoutLayer]) -> None:
    here, there = two
    channels = [(layer, await layer.new_channel()) for layer in (here, here, there, there)]
    for layer, channel in channels:
        await layer.group_add("group", channel)
    await here.group_send("group", message(1))
    for layer, channel in channels:
        assert await receive(layer, channel) == message(1)
    left = channels.pop(1)
    await left[0].group_discard("group", left[1])
    await there.group_send("group", message(2))
    await there.group_send("another", message(3))
    for layer, channel in channels:
        assert await receive(layer, channel) == message(2)
        assert await nothing_more(layer, channel)
    assert await nothing_more(*left)


async def test_to_leave_a_group_that_one_never_joined(two: list[RedisFanoutLayer]) -> None:
    here, _ = two
    channel = await here.new_channel()
    await here.group_discard("group", channel)
    await here.group_add("group", channel)
    await here.group_add("group", channel)
    await here.group_send("group", message(1))
    assert await receive(here, channel) == message(1)
    assert await nothing_more(here, channel)


async def test_who_leaves_and_joins_again_at_once_is_a_member(two: list[RedisFanoutLayer]) -> None:
    here, there = two
    channel = await here.new_channel()
    for value in range(50):
        await here.group_add("group", channel)
        await there.group_send("group", message(value))
        assert await receive(here, channel) == message(value)
        await here.group_discard("group", channel)


async def test_members_get_copies_of_their_own(two: list[RedisFanoutLayer]) -> None:
    here, _ = two
    first, second = await here.new_channel(), await here.new_channel()
    for channel in (first, second):
        await here.group_add("group", channel)
    await here.group_send("group", message({"list": [1], "bytes": b"\x00", "text": "é"}))
    got = await receive(here, first)
    got["value"]["list"].append(2)
    assert (await receive(here, second))["value"] == {"list": [1], "bytes": b"\x00", "text": "é"}


async def test_a_full_member_drops_the_oldest_and_harms_no_other(
    two: list[RedisFanoutLayer], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = two
    slow = await here.new_channel()
    await here.group_add("group", slow)
    async with listening("group", here) as [quick]:
        await send_all(there, "group", range(10))
        await until(lambda: len(quick.messages) == 10)
    assert [(await receive(here, slow))["value"] for _ in range(3)] == [7, 8, 9]
    assert here.statistics.dropped["overflow, drop_oldest"] == 7
    lines = [each for each in caplog.records if "dropped a message" in each.getMessage()]
    assert [each.levelno for each in lines] == [logging.WARNING]


async def test_a_member_of_another_process_and_a_named_one(two: list[RedisFanoutLayer]) -> None:
    here, there = two
    channel = await there.new_channel()
    await here.group_add("group", channel)
    await here.group_add("group", "work")
    await here.group_send("group", message(1))
    assert await receive(there, channel) == message(1)
    assert await receive(there, "work") == message(1)
    await here.group_discard("group", channel)
    await here.group_discard("group", "work")
    await here.group_send("group", message(2))
    assert await nothing_more(there, channel)
    await here.send("work", message(3))
    assert await receive(here, "work") == message(3)


@pytest.mark.parametrize("name", ["¯\\_(ツ)_/¯", "chat", "a" * 101, "with space", 7])
async def test_names_that_channels_does_not_allow(redis: Redis, name: Any) -> None:
    async with layers(1, redis.url) as [layer]:
        if name == "chat":
            assert isinstance(layer, BaseChannelLayer)
            assert {"groups", "flush"} <= set(layer.extensions)
            return
        with pytest.raises(TypeError):
            await layer.send(name, message(1))
        with pytest.raises(TypeError):
            await layer.group_send(name, message(1))
        with pytest.raises(TypeError):
            await layer.group_add("group", name)


async def test_what_is_no_message(redis: Redis) -> None:
    async with layers(1, redis.url) as [layer]:
        with pytest.raises(TypeError):
            await layer.send("work", "text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await layer.group_send("group", {"type": "x", "value": object()})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hosts", "redis://localhost"),
        ("overflow", "explode"),
        ("expiry", 0),
        ("history_size", -1),
        ("send_timeout", -1),
        ("symmetric_encryption_keys", "a key"),
    ],
)
def test_options_that_are_wrong(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=str(option if option != "overflow" else value)):
        RedisFanoutLayer(**{option: value})


async def test_capacities_by_pattern(redis: Redis) -> None:
    async with layers(1, redis.url, capacity=9, channel_capacity={"small*": 1}) as [layer]:
        small = await layer.new_channel("small")
        await layer.send(small, message(1))
        with pytest.raises(ChannelFull):
            await layer.send(small, message(2))
        other = await layer.new_channel()
        for value in range(9):
            await layer.send(other, message(value))
        await layer.flush()


async def test_prefixes_keep_layers_apart(redis: Redis) -> None:
    async with layers(1, redis.url, prefix="a") as [here], layers(1, redis.url) as [there]:
        for layer in (here, there):
            await layer.send("work", message(layer.prefix))
        assert await receive(here, "work") == message("a")
        async with listening("group", here, there) as [one, other]:
            await here.group_send("group", message(1))
            await there.group_send("group", message(2))
            await until(lambda: one.values() and other.values())
            assert (one.values(), other.values()) == ([1], [2])
        await here.flush()
        assert await receive(there, "work") == message("asgi")


async def test_what_waits_for_too_long_expires(redis: Redis) -> None:
    async with layers(2, redis.url, expiry=SOON) as [here, there]:
        channel = await here.new_channel()
        await here.group_add("group", channel)
        await there.group_send("group", message(1))
        await there.send(channel, message(2))
        await there.send("work", message(3))
        await until(lambda: len(here.channels[channel].letters) == 2)
        await asyncio.sleep(2 * SOON)
        await there.send("work", message(4))
        assert await receive(here, "work") == message(4)
        assert await nothing_more(here, channel)
        assert here.statistics.dropped["expired"] == 2


async def test_a_new_key_encrypts_and_an_old_one_still_decrypts(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        layers(1, redis.url, symmetric_encryption_keys=["old"]) as [old],
        layers(1, redis.url, symmetric_encryption_keys=["new", "old"]) as [new],
        layers(1, redis.url, symmetric_encryption_keys=["other"]) as [other],
        Client.from_url(redis.url) as client,
    ):
        async with listening("secret", old, new, other) as [by_old, by_new, by_other]:
            await old.group_send("secret", message("to all with the old one"))
            await new.group_send("secret", message("to the new one"))
            await until(lambda: len(by_new.messages) == 2)
            assert by_old.values() == ["to all with the old one"]
            await other.group_send("secret", message("mine"))
            await until(lambda: by_other.messages)
            assert by_other.values() == ["mine"]
            assert other.statistics.dropped["unreadable"] == 2
            key = "asgi:fanout:group:secret:history"
            history: list[bytes] = await client.lrange(key, 0, -1)  # type: ignore[misc]
            assert len(history) == 3
            assert not any(b"one" in each for each in history)
        await new.flush()


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [8, 9]), ("drop_newest", [0, 1])])
async def test_policies_of_a_slow_consumer(redis: Redis, policy: str, kept: list[int]) -> None:
    async with layers(1, redis.url, capacity=2, overflow=policy) as [layer]:
        slow = await layer.new_channel()
        await layer.group_add("group", slow)
        await send_all(layer, "group", range(10))
        await until(lambda: layer.statistics.dropped[f"overflow, {policy}"] == 8)
        assert [(await receive(layer, slow))["value"] for _ in range(2)] == kept


async def test_a_slow_consumer_is_closed(redis: Redis) -> None:
    async with layers(1, redis.url, capacity=2, overflow="close") as [layer]:
        slow = await layer.new_channel()
        await layer.group_add("group", slow)
        await layer.group_add("other", slow)
        async with listening("group", layer) as [quick]:
            await send_all(layer, "group", range(5))
            await until(lambda: len(quick.messages) == 5)
            with pytest.raises(ConsumerOverflowError, match=slow):
                await receive(layer, slow)
            assert layer.groups == {"group": 1}
            assert slow not in layer.channels
            assert sum(layer.statistics.dropped.values()) == 1


async def test_a_burst_does_not_overflow_who_takes_what_there_is(redis: Redis) -> None:
    async with layers(2, redis.url, capacity=20) as [here, there]:
        async with listening("group", *[here] * 50) as listeners:
            # Stuck, and not to hold up the others.
            stuck = await here.new_channel()
            await here.group_add("group", stuck)
            await asyncio.gather(*(there.group_send("group", message(i)) for i in range(500)))
            await until(lambda: all(len(each.messages) == 500 for each in listeners))
            assert all(each.values() == list(range(500)) for each in listeners)
        assert here.statistics.dropped == {"overflow, drop_oldest": 480}


async def test_a_consumer_that_has_ended_is_forgotten(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_kit.layer.hub.SWEEP_SECONDS", SOON)
    async with layers(1, redis.url, expiry=2 * SOON) as [layer]:
        # One that left its groups is forgotten at once.
        tidy = await layer.new_channel()
        await layer.group_add("group", tidy)
        await layer.group_discard("group", tidy)
        await Listener(layer, tidy).stop()
        waiting = asyncio.create_task(layer.receive(tidy))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert tidy not in layer.channels
        # One that did not is, when nobody has received from it for some time.
        async with listening("group", layer, layer) as [left, stays]:
            await asyncio.sleep(0)
            await left.stop()
            await until(lambda: left.channel not in layer.channels)
            assert layer.groups == {"group": 1}
            assert stays.channel in layer.channels


async def test_a_membership_that_nobody_renews_ends(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_kit.layer.hub.SWEEP_SECONDS", SOON)
    async with layers(1, redis.url, group_expiry=1) as [layer]:
        channel, other = await layer.new_channel(), await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_add("group", other)
        now = layer.channels[channel].groups["group"]
        layer.channels[channel].groups["group"] = now - 1
        await until(lambda: layer.groups == {"group": 1})
        assert not layer.channels[channel].groups


async def test_flush_leaves_nothing(redis: Redis) -> None:
    async with layers(1, redis.url) as [layer], Client.from_url(redis.url) as client:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_send("group", message(1))
        await layer.send("work", message(2))
        assert len(await client.keys("asgi:*")) > 3
        await layer.flush()
        assert await client.keys("asgi:*") == [b"asgi:fanout:epoch"]
        assert not await client.pubsub_channels()
        # And it can be used again.
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_send("group", message(3))
        assert await receive(layer, channel) == message(3)


async def test_one_subscription_and_one_publish_whatever_the_number_of_members(
    redis: Redis,
) -> None:
    async with layers(2, redis.url) as [here, there], Client.from_url(redis.url) as client:
        async with listening("group", *[here] * 30, *[there] * 30) as listeners:
            assert await client.pubsub_numsub("asgi:fanout:group:group") == [
                (b"asgi:fanout:group:group", 2)
            ]
            before = (await client.info("commandstats"))["cmdstat_publish"]["calls"]
            await here.group_send("group", message(1))
            await until(lambda: all(each.messages for each in listeners))
            after = (await client.info("commandstats"))["cmdstat_publish"]["calls"]
            assert after - before == 1
        await here.flush()


def test_synchronous_callers(redis: Redis) -> None:
    layer = RedisFanoutLayer(hosts=[redis.url])
    async_to_sync(layer.send)("work", message(1))
    for value in range(3):
        async_to_sync(layer.group_send)("group", message(value))

    async def receive_and_close() -> Any:
        got = await receive(layer, "work")
        await layer.flush()
        return got

    assert async_to_sync(receive_and_close)() == message(1)
    assert len(layer._hubs) <= 1
    gc.collect()  # what is not closed would be told now, as an error


async def test_a_synchronous_caller_beside_an_event_loop(redis: Redis) -> None:
    """A view that has a consumer join a group, and sends to it, from a thread."""
    async with layers(1, redis.url) as [layer]:
        channel = await layer.new_channel()

        def view() -> None:
            async_to_sync(layer.group_add)("group", channel)
            async_to_sync(layer.group_send)("group", message(1))
            async_to_sync(layer.send)(channel, message(2))

        await sync_to_async(view)()
        # In an event loop of its own, to which the channel is another process'.
        await asyncio.to_thread(view)
        got = [await receive(layer, channel) for _ in range(4)]
        # There is no order between what is sent to a group and to a channel.
        assert sorted(each["value"] for each in got) == [1, 1, 2, 2]


def test_several_event_loops_one_after_the_other(tmp_path: Path, redis: Redis) -> None:
    layer = RedisFanoutLayer(hosts=[redis.url])

    async def once(value: int) -> Any:
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        await layer.group_send("group", message(value))
        got = await receive(layer, channel)
        await layer.close_pools()
        return got

    assert [asyncio.run(once(value)) for value in range(3)] == [message(i) for i in range(3)]
    gc.collect()
