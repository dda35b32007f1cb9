"""Processes with channels_redis.core and with the fan-out layer, while a cluster is moved."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from channels_redis.core import RedisChannelLayer  # type: ignore[import-untyped]

from channels_kit.layer import LayerUnavailableError, RedisFanoutLayer, bridge

from .cluster import Redis
from .layers import Listener, Server, message, receive, send_all, until

VALUES = 40


@dataclass
class House:
    """Layers of several processes on the same Redis."""

    config: dict[str, Any]
    made: list[Any] = field(default_factory=list)

    def stock(self) -> Any:
        self.made.append(RedisChannelLayer(**self.config))
        return self.made[-1]

    def fanout(self) -> RedisFanoutLayer:
        self.made.append(RedisFanoutLayer(**self.config, bridge=True))
        layer: RedisFanoutLayer = self.made[-1]
        return layer

    async def change(self, state: str) -> int:
        return await bridge.change(self.config, state)


@pytest.fixture(params=["plain", "encrypted", "shards"])
async def house(
    request: pytest.FixtureRequest, redis: Redis, second: Server
) -> AsyncIterator[House]:
    config: dict[str, Any] = {"hosts": [redis.url], "capacity": 1000}
    if request.param == "shards":
        config["hosts"] = [redis.url, second.url, f"{second.url}/1"]
    if request.param == "encrypted":
        config["symmetric_encryption_keys"] = ["a key of the tests"]
    house = House(config)
    yield house
    for layer in house.made:
        await layer.flush()
        await layer.close_pools()


async def member(layer: Any, group: str, stack: AsyncExitStack) -> Listener:
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    listener = Listener(layer, channel)
    stack.push_async_callback(listener.stop)
    return listener


async def heard(listeners: list[Listener], values: list[Any]) -> None:
    """Wait until each has heard as much, and see that it is this, in each sender's order."""
    await until(lambda: all(len(each.values()) >= len(values) for each in listeners))
    for listener in listeners:
        got = listener.values()
        assert sorted(got) == sorted(values)
        for sender in {name for name, _ in values}:
            own = [value for name, value in got if name == sender]
            assert own == sorted(own)


async def test_without_the_bridge_they_do_not_hear_each_other(house: House) -> None:
    async with AsyncExitStack() as stack:
        stock, fanout = house.stock(), house.fanout()
        listeners = [await member(layer, "room", stack) for layer in (stock, fanout)]
        await stock.group_send("room", message(["stock", 0]))
        await fanout.group_send("room", message(["fanout", 0]))
        await heard(listeners[:1], [["stock", 0]])
        await heard(listeners[1:], [["fanout", 0]])


async def test_all_hear_all_once(house: House) -> None:
    async with AsyncExitStack() as stack:
        stock, here, there = house.stock(), house.fanout(), house.fanout()
        # Members of before and of after the opening.
        listeners = [await member(layer, "room", stack) for layer in (stock, here, there)]
        assert await house.change(bridge.OPEN) == 2
        listeners += [await member(layer, "room", stack) for layer in (stock, here, there)]
        names = {"stock": stock, "here": here, "there": there}
        await asyncio.gather(
            *(
                send_all(layer, "room", [[name, value] for value in range(VALUES)])
                for name, layer in names.items()
            )
        )
        await heard(listeners, [[name, value] for name in names for value in range(VALUES)])
        assert house.fanout().groups == {}


async def test_channels_of_consumers(house: House) -> None:
    if len(house.config["hosts"]) > 1:
        pytest.skip("channels_redis 4.3 sends to one shard and receives from another")
    stock, fanout = house.stock(), house.fanout()
    await fanout.new_channel()
    await house.change(bridge.OPEN)
    at_stock, at_fanout = await stock.new_channel(), await fanout.new_channel()
    for value in range(3):
        await fanout.send(at_stock, message(value))
        await stock.send(at_fanout, message(value))
        await fanout.send(at_fanout, message(value))
    assert [(await receive(stock, at_stock))["value"] for _ in range(3)] == [0, 1, 2]
    got = [(await receive(fanout, at_fanout))["value"] for _ in range(6)]
    assert sorted(got) == [0, 0, 1, 1, 2, 2]


async def test_a_message_of_a_named_channel_gets_a_receiver(house: House) -> None:
    if len(house.config["hosts"]) > 1:
        pytest.skip(
            "a receiver of channels_redis 4.3 waits at one shard until a message comes there"
        )
    async with AsyncExitStack() as stack:
        stock, here, there = house.stock(), house.fanout(), house.fanout()
        # Before the opening: these wait already, and something is in the fan-out layer's queue.
        listeners = [Listener(layer, "work") for layer in (here, there)]
        await here.send("work", message(-1))
        await until(lambda: any(listener.messages for listener in listeners))
        await house.change(bridge.OPEN)
        listeners.append(Listener(stock, "work"))
        for listener in listeners:
            stack.push_async_callback(listener.stop)
        for value in range(0, 60, 3):
            await stock.send("work", message(value))
            await here.send("work", message(value + 1))
            await there.send("work", message(value + 2))
        # One or, where it goes by the queue of channels_redis, sometimes two.
        expected = set(range(-1, 60))
        await until(lambda: expected <= {value for each in listeners for value in each.values()})


async def test_a_fanout_process_takes_what_the_former_layer_has_left(house: House) -> None:
    stock, fanout = house.stock(), house.fanout()
    for value in range(3):
        await stock.send("work", message(value))
    listener = Listener(fanout, "work")
    await house.change(bridge.OPEN)
    await until(lambda: len(listener.messages) == 3)
    assert listener.values() == [0, 1, 2]
    await listener.stop()


async def test_a_process_that_starts_when_it_is_open_misses_nothing(house: House) -> None:
    async with AsyncExitStack() as stack:
        stock = house.stock()
        assert await house.change(bridge.OPEN) == 0
        for number in range(10):
            listener = await member(house.fanout(), "room", stack)
            await stock.group_send("room", message(["stock", number]))
            await heard([listener], [["stock", number]])
            await listener.stop()


async def test_what_cannot_be_read_is_left_out(house: House) -> None:
    async with AsyncExitStack() as stack:
        stock, fanout = house.stock(), house.fanout()
        listener = await member(fanout, "room", stack)
        await house.change(bridge.OPEN)
        key = stock.non_local_name(listener.channel)
        index = stock.consistent_hash(key)
        await stock.connection(index).zadd(f"asgi{key}", {b"no message": 1})
        await stock.group_send("room", message(["stock", 0]))
        await heard([listener], [["stock", 0]])


async def test_a_closed_bridge_leaves_nothing(house: House, redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        stock, here, there = house.stock(), house.fanout(), house.fanout()
        listeners = [await member(layer, "room", stack) for layer in (here, there)]
        await house.change(bridge.OPEN)
        await stock.group_send("room", message(["stock", 0]))
        await heard(listeners, [["stock", 0]])
        assert await house.change(bridge.CLOSED) == 2
        at_stock = await member(stock, "room", stack)
        await here.group_send("room", message(["here", 0]))
        await stock.group_send("room", message(["stock", 1]))
        await heard(listeners, [["stock", 0], ["here", 0]])
        await heard([at_stock], [["stock", 1]])
        async with stock.connection(stock.consistent_hash("room")) as connection:
            assert await connection.zcard("asgi:group:room") == 1
        # And again.
        assert await house.change(bridge.OPEN) == 2
        await here.group_send("room", message(["here", 1]))
        await heard([at_stock], [["stock", 1], ["here", 1]])


async def test_a_bridge_that_cannot_leave_its_groups_keeps_no_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise ConnectionError("Redis is away")

    closed = 0
    close_pools = RedisChannelLayer.close_pools

    async def count(layer: RedisChannelLayer) -> None:
        nonlocal closed
        closed += 1
        await close_pools(layer)

    async with AsyncExitStack() as stack:
        await member(house.fanout(), "room", stack)
        await house.change(bridge.OPEN)
        monkeypatch.setattr(RedisChannelLayer, "group_discard", fail)
        monkeypatch.setattr(RedisChannelLayer, "close_pools", count)
        assert await house.change(bridge.CLOSED) == 1
    assert closed == 1


@pytest.mark.parametrize("former", ["stock", "fanout"])
async def test_a_rolling_move_loses_nothing(house: House, former: str) -> None:
    """Each process is replaced by one with the other layer. Who is there hears all, once."""
    make = {"stock": house.stock, "fanout": house.fanout}
    latter = next(kind for kind in make if kind != former)
    numbers = itertools.count()
    async with AsyncExitStack() as stack:
        running: list[tuple[Any, Listener, list[Any]]] = []

        async def start(kind: str) -> None:
            layer = make[kind]()
            running.append((layer, await member(layer, "room", stack), []))

        async def send_from_all() -> None:
            for layer, sender, _ in running:
                value = [sender.channel, next(numbers)]
                for _, _, expected in running:
                    expected.append(value)
                await layer.group_send("room", message(value))

        async def see() -> None:
            for _, listener, expected in running:
                await heard([listener], expected)

        for _ in range(4):
            await start(former)
        await house.change(bridge.OPEN)
        for _ in range(4):
            await send_from_all()
            await start(latter)
            await send_from_all()
            # As a drain: what was sent has been heard before the former one goes.
            await see()
            layer, listener, _ = running.pop(0)
            await listener.stop()
            await layer.group_discard("room", listener.channel)
        await send_from_all()
        await see()
        await house.change(bridge.CLOSED)


async def test_a_process_that_does_not_answer_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "ANSWER_SECONDS", 0.5)
    fanout = house.fanout()
    await fanout.new_channel()
    await house.change(bridge.CLOSED)
    monkeypatch.setattr(bridge.Bridge, "_open", lambda _: asyncio.sleep(0))
    with pytest.raises(LayerUnavailableError, match="1 of 1 event loops have not opened"):
        await house.change(bridge.OPEN)


async def test_without_redis_it_is_not_changed(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        url = server.url
    with pytest.raises(LayerUnavailableError, match="Redis does not answer"):
        await bridge.change({"hosts": [url]}, bridge.OPEN)


async def test_a_bridge_that_cannot_be_opened_at_first_is_opened_later(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of an application without channels_redis: it says so, and hears its own layer."""
    monkeypatch.setattr("channels_kit.layer.bridge.POLL_SECONDS", 0.05)
    stock_layer, fails = bridge.stock_layer, 2

    def failing(config: Any) -> Any:
        nonlocal fails
        if fails:
            fails -= 1
            raise ModuleNotFoundError("No module named 'channels_redis'")
        return stock_layer(config)

    monkeypatch.setattr(bridge, "stock_layer", failing)
    house = House({"hosts": [redis.url]})
    async with AsyncExitStack() as stack:
        await member(house.fanout(), "room", stack)
        assert await house.change(bridge.OPEN) == 1
        assert not fails
        await house.change(bridge.CLOSED)
    for layer in house.made:
        await layer.flush()
