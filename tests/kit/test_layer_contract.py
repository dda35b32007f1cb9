"""What Channels expects of a layer. The list of cases is that of channels_redis' own tests."""

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.exceptions import ChannelFull  # type: ignore[import-untyped]
from channels.generic.websocket import WebsocketConsumer  # type: ignore[import-untyped]
from channels.layers import BaseChannelLayer  # type: ignore[import-untyped]
from redis.asyncio import Redis as Client

from channels_kit.layer import ConsumerOverflowError, FanoutConsumer, RedisFanoutLayer
from tests.roles.certificates import authority

from .cluster import Redis
from .layers import (
    PATIENCE,
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
    "content",
    [
        {},
        {"text": None},
        {"text": 5},
        {"text": b"a"},
        {"bytes": "a"},
        {"bytes": 5},
        {"text": "a", "bytes": b"a"},
        {"text": "a", "json": {}},
        {"json": object()},
    ],
    ids=lambda content: ", ".join(content) or "nothing",
)
async def test_what_is_no_broadcast_is_refused_where_it_is_made(
    redis: Redis, content: dict[str, Any]
) -> None:
    """Else every member would end that sends it to its client."""
    async with layers(1, redis.url) as [layer]:
        async with listening("group", layer) as [listener]:
            with pytest.raises(TypeError):
                await layer.group_broadcast("group", **content)
            await layer.group_broadcast("group", json=None)
            await layer.group_broadcast("group", bytes=memoryview(b"a"))
            await until(lambda: len(listener.messages) == 2)
            assert [(each.get("text"), each.get("bytes")) for each in listener.messages] == [
                ("null", None),
                (None, b"a"),
            ]
        await layer.flush()


def test_a_synchronous_consumer_is_no_fanout_consumer() -> None:
    with pytest.raises(TypeError, match="Silent is synchronous"):
        type("Silent", (FanoutConsumer, WebsocketConsumer), {})


async def test_a_thread_asks_for_gaps(redis: Redis) -> None:
    """A synchronous consumer."""
    async with layers(1, redis.url) as [layer]:
        channel = await layer.new_channel()
        await asyncio.to_thread(layer.report_gaps, channel)
        await until(lambda: layer.channels[channel].gaps is not None)
        with pytest.raises(ValueError, match="no channel of this process"):
            await asyncio.to_thread(layer.report_gaps, "specific.elsewhere!x")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hosts", "redis://localhost"),
        ("hosts", []),
        ("hosts", [{"adress": "redis://localhost"}]),
        ("hosts", ["localhost:6379"]),
        ("hosts", [{"master_name": "main"}]),
        ("overflow", "explode"),
        ("expiry", 0),
        ("history_size", -1),
        ("send_timeout", -1),
        ("symmetric_encryption_keys", "a key"),
    ],
)
def test_options_that_are_wrong(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
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
            await until(lambda: len(by_new.messages) == 2 and by_old.gaps and by_other.gaps)
            assert by_old.values() == ["to all with the old one"]
            await other.group_send("secret", message("mine"))
            await until(lambda: by_other.values() and by_new.gaps)
            assert by_other.values() == ["mine"]
            # The others could not read it: a gap for each.
            assert (by_old.gaps, by_new.gaps) == (["secret"] * 2, ["secret"])
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


def text_of(event: Any) -> Any:
    """A message's value, a gap's group."""
    return event["group"] if event["type"] == "layer.gap" else event["value"]


async def take(layer: RedisFanoutLayer, channel: str, number: int) -> list[Any]:
    return [text_of(await receive(layer, channel)) for _ in range(number)]


@pytest.mark.parametrize(
    ("policy", "taken"),
    [("drop_oldest", ["a", 8, 9, "b"]), ("drop_newest", [0, 1, "a", "b"])],
)
async def test_a_slow_consumer_is_told_of_what_it_lost(
    redis: Redis, policy: str, taken: list[Any]
) -> None:
    """Once a group and loss, in its place, and however full its mailbox is."""
    async with layers(1, redis.url, capacity=2, overflow=policy) as [layer]:
        slow, other = await layer.new_channel(), await layer.new_channel()
        layer.report_gaps(slow)
        for group, channel in (("a", slow), ("b", slow), ("a", other)):
            await layer.group_add(group, channel)
        dropped = layer.statistics.dropped
        for _ in range(2):
            before = dropped.total()
            await send_all(layer, "a", range(10))
            # One that asked for no gaps lost as many.
            await until(lambda before=before: dropped.total() == before + 16)  # type: ignore[misc]
            assert layer.backlog().waiting == 5
            assert 0 <= layer.backlog().seconds < layer.options.expiry
            assert await take(layer, slow, 3) == taken[:3]
            assert await take(layer, other, 2) == [each for each in taken if each != "a"][:2]
        assert layer.backlog().waiting == 0
        # A group of which nothing was lost is told of nothing.
        await send_all(layer, "b", range(2))
        await send_all(layer, "a", ["direct"])
        assert layer.groups == {"a": 2, "b": 1}
        await until(lambda: dropped.total() == 33)
        expected = {"drop_oldest": ["b", 1, "direct"], "drop_newest": [0, 1, "a"]}
        assert await take(layer, slow, 3) == expected[policy]
        assert await take(layer, other, 1) == ["direct"]


async def test_a_message_to_one_channel_pushes_out_one_of_a_group(redis: Redis) -> None:
    async with layers(2, redis.url, capacity=1) as [here, there]:
        slow = await here.new_channel()
        here.report_gaps(slow)
        await here.group_add("group", slow)
        await there.group_send("group", message(1))
        await until(lambda: here.backlog().waiting == 1)
        await there.send(slow, message(2))
        await until(lambda: here.backlog().waiting == 2)
        # What was sent to it alone is dropped, and it is told of nothing.
        with pytest.raises(ChannelFull):
            await here.send(slow, message(3))
        await there.send(slow, message(4))
        await until(lambda: here.statistics.dropped.total() == 2)
        assert await take(here, slow, 2) == ["group", 4]
        await here.send(slow, message(5))
        assert await take(here, slow, 1) == [5]


async def test_who_takes_a_message_too_late_is_told(redis: Redis) -> None:
    async with layers(2, redis.url, expiry=SOON) as [here, there]:
        late = await here.new_channel()
        here.report_gaps(late)
        for group in ("a", "b", "c"):
            await here.group_add(group, late)
        for group in ("a", "b", "a", "b"):
            await there.group_send(group, message(1))
        await until(lambda: here.backlog().waiting == 4)
        await asyncio.sleep(2 * SOON)
        here.channels[late].letters.append(
            here.channels[late].letters[0]._replace(ends=asyncio.get_running_loop().time() + 60)
        )
        assert sorted(await take(here, late, 2)) == ["a", "b"]
        assert here.statistics.dropped == {"expired": 4}
        assert here.backlog().waiting == 1
        assert await take(here, late, 1) == [1]


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


async def test_a_burst_for_one_of_many_channels_does_not_overflow_it(redis: Redis) -> None:
    async with layers(2, redis.url, capacity=20) as [here, there]:
        for _ in range(1000):
            await here.new_channel()
        async with listening("group", here) as [listener]:
            await asyncio.gather(*(there.group_send("group", message(i)) for i in range(500)))
            direct = (there.send(listener.channel, message(i)) for i in range(500, 1000))
            await asyncio.gather(*direct)
            await until(lambda: len(listener.messages) == 1000 or here.statistics.dropped)
            assert listener.values() == list(range(1000))


@pytest.mark.parametrize("sender", [0, 1], ids=["the same process", "another one"])
async def test_what_is_sent_to_a_consumer_that_has_ended_is_forgotten(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, sender: int
) -> None:
    monkeypatch.setattr("channels_kit.layer.hub.SWEEP_SECONDS", SOON)
    async with layers(2, redis.url, expiry=2 * SOON) as both:
        channel = await given_up(both[0])
        await both[sender].send(channel, message(1))
        await until(lambda: both[0].statistics.dropped == {"no receiver": 1})
        assert channel not in both[0].channels
        assert both[0].backlog().waiting == 0


@pytest.mark.parametrize("sender", [0, 1], ids=["the same process", "another one"])
async def test_who_receives_again_gets_what_was_sent_meanwhile(redis: Redis, sender: int) -> None:
    async with layers(2, redis.url) as both:
        channel = await given_up(both[0])
        await both[sender].send(channel, message(1))
        await until(lambda: both[0].backlog().waiting)
        # It is no backlog: most likely, nobody will.
        assert both[0].backlog().seconds == 0
        assert await receive(both[0], channel) == message(1)


async def given_up(layer: RedisFanoutLayer) -> str:
    """A channel whose receiver has given up."""
    channel: str = await layer.new_channel()
    await asyncio.sleep(0)
    listener = Listener(layer, channel)
    await asyncio.sleep(0)
    await listener.stop()
    return channel


async def test_to_leave_a_group_for_a_consumer_of_another_process_that_has_ended(
    redis: Redis,
) -> None:
    async with layers(2, redis.url, send_timeout=1) as [here, there]:
        channel = await given_up(here)
        await there.group_discard("group", channel)


async def test_to_leave_a_group_for_a_consumer_of_a_process_that_has_ended(redis: Redis) -> None:
    """Nobody answers."""
    async with layers(2, redis.url, send_timeout=10 * PATIENCE) as [here, there]:
        channel = await here.new_channel()
        await here.group_add("group", channel)
        await here.close_pools()
        async with asyncio.timeout(PATIENCE):
            await there.group_discard("group", channel)


async def test_a_named_channel_that_nobody_receives_from_is_heard_no_more(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_kit.layer.hub.SWEEP_SECONDS", SOON)
    async with layers(1, redis.url, expiry=2 * SOON) as [layer]:
        listener = Listener(layer, "work")
        await layer.send("work", message(1))
        await until(lambda: listener.values() == [1])
        assert layer.backlog().subscriptions == 1
        await listener.stop()
        await until(lambda: layer.backlog().subscriptions == 0)
        await layer.send("work", message(2))
        assert await receive(layer, "work") == message(2)


async def test_no_receiver_sleeps_beside_a_message_of_its_channel(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hears late that there was none; another one has taken the first of two since."""
    async with layers(2, redis.url) as [here, there]:
        hub = here._hub()
        asked, late, take, calls = asyncio.Event(), asyncio.Event(), hub._take, 0

        async def slow(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            is_first = calls == 1
            payload = await take(*arguments)
            if is_first:
                asked.set()
                await late.wait()
            return payload

        monkeypatch.setattr(hub, "_take", slow)
        first = asyncio.create_task(here.receive("work"))
        subscriber = hub._shard("work").subscriber
        # Subscribed.
        await asked.wait()
        await until(lambda: subscriber._heard)
        heard = subscriber._heard
        for number in range(2):
            await there.send("work", message(number))
        await until(lambda: subscriber._heard >= heard + 2)
        assert await receive(here, "work") == message(0)
        late.set()
        async with asyncio.timeout(PATIENCE):
            assert await first == message(1)


def test_event_loops_of_many_threads_at_once(redis: Redis) -> None:
    """Each has its connections and channels, whatever the others begin and end meanwhile."""
    layer = RedisFanoutLayer(hosts=[redis.url])
    errors: list[Exception] = []

    async def look() -> None:
        channel = await layer.new_channel()
        await asyncio.sleep(0)
        assert channel in layer.channels
        layer.backlog()

    def loops() -> None:
        try:
            for _ in range(40):
                asyncio.run(look())
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=loops) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


def test_backlog_of_another_event_loop_that_works(redis: Redis) -> None:
    """Metrics are read in a thread while channels come, get messages and go."""
    layer = RedisFanoutLayer(hosts=[redis.url], capacity=4)
    ended = threading.Event()

    async def work() -> None:
        while not ended.is_set():
            first, *_ = [await layer.new_channel() for _ in range(200)]
            await layer.send(first, message(0))
            await receive(layer, first)
            await layer.close_pools()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(asyncio.run, work())
            try:
                seen = [layer.backlog().waiting for _ in range(10_000)]
            finally:
                ended.set()
            working.result()
    finally:
        sys.setswitchinterval(interval)
    assert set(seen) <= {0, 1}


def test_a_process_that_forks(redis: Redis) -> None:
    """The child has connections of its own; the parent keeps what it had."""
    layer = RedisFanoutLayer(hosts=[redis.url])

    async def join() -> str:
        channel: str = await layer.new_channel()
        await layer.group_add("forks", channel)
        return channel

    with asyncio.Runner() as runner:
        channel = runner.run(join())
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio.run(layer.group_send("forks", message("child")))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert runner.run(receive(layer, channel)) == message("child")
        runner.run(layer.group_send("forks", message("parent")))
        assert runner.run(receive(layer, channel)) == message("parent")
        runner.run(layer.close_pools())
