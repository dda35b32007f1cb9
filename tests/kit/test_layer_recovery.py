"""A Redis that goes away, in every way, under consumers that stay."""

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis as Client
from redis.exceptions import ResponseError

from channels_kit.layer import LayerUnavailableError, RedisFanoutLayer
from channels_kit.layer.connection import opened
from channels_kit.layer.options import pool
from tests.roles.certificates import authority

from .cluster import Process
from .layers import (
    PATIENCE,
    Listener,
    Proxy,
    Server,
    free_port,
    layers,
    listening,
    message,
    receive,
    send_all,
    until,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a silence soon."""
    monkeypatch.setattr("channels_kit.layer.subscriber.SILENCE", 0.1)
    for module in ("connection", "sender", "subscriber"):
        monkeypatch.setattr(f"channels_kit.layer.{module}.ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr("channels_kit.layer.connection.LONGEST_PAUSE", 0.1)


async def arrived(listeners: list[Listener], value: Any) -> None:
    await until(lambda: all(value in each.values() for each in listeners))


@asynccontextmanager
async def behind_a_proxy(
    server: Server, **options: Any
) -> AsyncIterator[tuple[Proxy, RedisFanoutLayer, RedisFanoutLayer]]:
    """Yield a proxy, a layer behind it, and one that is not."""
    async with (
        Proxy(server.port) as proxy,
        layers(1, proxy.url, **options) as [behind],
        layers(1, server.url, **options) as [sender],
    ):
        yield proxy, behind, sender


async def test_a_connection_that_is_cut_loses_nothing(server: Server) -> None:
    async with (
        behind_a_proxy(server) as (proxy, behind, sender),
        listening("group", behind, behind) as listeners,
    ):
        await send_all(sender, "group", range(5))
        for number in range(5, 50, 5):
            proxy.cut()
            await send_all(sender, "group", range(number, number + 5))
        await arrived(listeners, 49)
        for listener in listeners:
            assert listener.values() == list(range(50))
            assert not listener.gaps
        assert behind.statistics.recovered
        assert behind.statistics.resubscriptions


async def test_a_process_that_is_partitioned_takes_what_it_missed(server: Server) -> None:
    """Nothing tells it, neither does anything tell Redis."""
    async with (
        behind_a_proxy(server) as (proxy, behind, sender),
        listening("group", behind, sender) as [cut_off, other],
    ):
        await sender.group_send("group", message(0))
        await arrived([cut_off], 0)
        proxy.partition()
        await send_all(sender, "group", range(1, 20))
        mine = asyncio.create_task(behind.group_send("group", message("mine")))
        direct = asyncio.create_task(sender.send(cut_off.channel, message("direct")))
        await arrived([other], 19)
        await direct
        lost = behind.statistics.resubscriptions
        assert cut_off.values() == [0]
        await until(lambda: not behind._hub().shards[0].sender.is_connected)
        proxy.heal()
        await mine
        await arrived([cut_off], 19)
        await arrived([cut_off, other], "mine")
        await arrived([cut_off], "direct")
        for listener in (cut_off, other):
            values = [each for each in listener.values() if each != "direct"]
            assert sorted(values, key=str) == sorted([*range(20), "mine"], key=str)
            assert [each for each in values if each != "mine"] == list(range(20))
            assert not listener.gaps
        assert behind.statistics.resubscriptions > lost


async def test_a_process_that_is_cut_off_leaves_a_group_when_it_is_back(server: Server) -> None:
    async with (
        behind_a_proxy(server, send_timeout=600) as (proxy, behind, other),
        listening("group", behind, behind) as [leaves, stays],
        Client.from_url(server.url) as client,
    ):
        # One that hears has left when the call returns.
        await other.group_discard("group", leaves.channel)
        assert behind.groups == {"group": 1}
        proxy.partition()
        proxy.cut()
        inbox = f"asgi:fanout:inbox:{behind._hub().name}"
        while await client.pubsub_numsub(inbox) != [(inbox.encode(), 0)]:  # noqa: ASYNC110 - Redis says nothing by itself
            await asyncio.sleep(0.005)
        async with asyncio.timeout(PATIENCE):
            await other.group_discard("group", stays.channel)
        assert behind.groups == {"group": 1}
        proxy.heal()
        await until(lambda: not behind.groups)


async def test_a_history_that_is_too_short_is_one_gap(server: Server) -> None:
    async with (
        behind_a_proxy(server, history_size=3) as (proxy, behind, sender),
        listening("group", behind) as [handles],
        listening("group", behind, gaps=False) as [does_not],
    ):
        await sender.group_send("group", message(0))
        await arrived([handles, does_not], 0)
        proxy.partition()
        await send_all(sender, "group", range(1, 10))
        proxy.cut()
        proxy.heal()
        await arrived([handles, does_not], 9)
        kinds = [each["type"] for each in handles.messages]
        assert kinds == ["test.message", "layer.gap", *["test.message"] * 3]
        assert handles.gaps == ["group"]
        assert handles.values() == does_not.values() == [0, 7, 8, 9]
        assert not does_not.gaps


@pytest.mark.parametrize("away", [0.0, 0.7])
async def test_a_redis_that_is_killed_and_comes_back_empty(
    server: Server, away: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        layers(2, server.url) as [one, two],
        listening("group", one, two) as listeners,
        listening("other", one) as [other],
    ):
        await send_all(one, "group", range(5))
        await arrived(listeners, 4)
        server.kill()
        waiting = asyncio.gather(*(one.group_send("group", message(5 + i)) for i in range(5)))
        await asyncio.sleep(away)
        server.start()
        await waiting
        await arrived(listeners, 9)
        await until(lambda: all(each.gaps for each in (*listeners, other)))
        await send_all(two, "group", range(10, 13))
        await arrived(listeners, 12)
        for listener in listeners:
            assert listener.values() == list(range(13))
            assert listener.gaps == ["group"]
        assert other.gaps == ["other"]
        # Who is away is told once a second.
        lines = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert 0 < len(lines) < 30


async def test_a_sender_waits_then_gets_one_exception(server: Server) -> None:
    async with (
        layers(1, server.url, send_timeout=0.3) as [layer],
        listening("group", layer) as [listener],
    ):
        server.kill()
        calls = [
            layer.group_send("group", message(1)),
            layer.send("work", message(1)),
            layer.group_add("another", listener.channel),
            layer.group_add("group", "work"),
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in results] == [LayerUnavailableError] * 4
        assert layer.groups == {"group": 1}
        # Local steps need no Redis.
        channel = await layer.new_channel()
        await layer.send(channel, message(2))
        assert await receive(layer, channel) == message(2)
        await layer.group_discard("group", channel)
        server.start()
        # What was given up is not sent.
        await layer.group_send("group", message(3))
        await arrived([listener], 3)
        assert listener.values() == [3]


async def test_what_waits_is_bounded_in_bytes(server: Server) -> None:
    async with (
        layers(1, server.url, send_buffer=10_000) as [layer],
        listening("group", layer) as [listener],
    ):
        server.kill()
        first = asyncio.create_task(layer.group_send("group", message("first")))
        await until(lambda: not layer._hub().shards[0].sender.is_connected)
        waiting = asyncio.gather(
            *(layer.group_send("group", message(f"{i} {'x' * 900}")) for i in range(20)),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        server.start()
        results = await waiting
        await first
        refused = [each for each in results if isinstance(each, LayerUnavailableError)]
        assert 9 <= len(refused) <= 12
        assert results.count(None) == 20 - len(refused)
        await until(lambda: len(listener.values()) > results.count(None))
        # And it is free again.
        await layer.group_send("group", message("y" * 9_000))


async def test_a_burst_before_the_first_connection_is_sent(server: Server) -> None:
    async with (
        layers(2, server.url, send_buffer=10_000) as [fresh, layer],
        listening("group", layer) as [listener],
    ):
        values = [f"{i} {'x' * 900}" for i in range(20)]
        await asyncio.gather(*(fresh.group_send("group", message(value)) for value in values))
        await until(lambda: listener.values() == values)


async def test_scripts_that_redis_has_forgotten_are_brought_again(server: Server) -> None:
    async with (
        layers(1, server.url) as [layer],
        Client.from_url(server.url) as client,
        listening("group", layer) as [listener],
    ):
        await send_all(layer, "group", range(3))
        await client.script_flush()
        await asyncio.gather(*(layer.group_send("group", message(i)) for i in range(3, 9)))
        await arrived([listener], 8)
        assert listener.values() == list(range(9))


async def test_redis_is_emptied_under_way(server: Server) -> None:
    async with (
        layers(2, server.url) as [here, there],
        Client.from_url(server.url) as client,
        listening("group", there) as [listener],
    ):
        await send_all(here, "group", range(3))
        await client.flushall()
        await send_all(here, "group", range(3, 6))
        await arrived([listener], 5)
        assert listener.values() == list(range(6))


async def test_a_queue_gives_each_message_to_one_while_connections_are_cut(server: Server) -> None:
    async with (
        behind_a_proxy(server, capacity=1000) as (proxy, behind, other),
        layers(1, proxy.url, capacity=1000) as [sender],
    ):
        listeners = [Listener(behind, "work"), Listener(other, "work")]
        for number in range(100):
            await sender.send("work", message(number))
            if number % 10 == 0:
                proxy.cut()
        await until(lambda: sum(len(each.messages) for each in listeners) >= 100)
        values = sorted(value for each in listeners for value in each.values())
        assert values == list(range(100))
        for listener in listeners:
            await listener.stop()


class Plan:
    """What happens between messages: drawn by hypothesis."""

    steps = st.lists(
        st.sampled_from(["send", "send", "send", "burst", "cut", "kill client", "pause"]),
        min_size=5,
        max_size=40,
    )


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=Plan.steps)
def test_no_loss_no_copy_in_order_whatever_is_cut(server: Server, steps: list[str]) -> None:
    """Two senders and two receivers, one of each behind a proxy whose connections are cut."""
    asyncio.run(_whatever_is_cut(server, steps))


async def _whatever_is_cut(server: Server, steps: list[str]) -> None:
    chance = random.Random(len(steps))
    sent: dict[str, list[str]] = {"near": [], "far": []}
    async with (
        behind_a_proxy(server) as (proxy, far, near),
        listening("group", far, near) as listeners,
        Client.from_url(server.url) as client,
    ):
        pending: list[asyncio.Task[None]] = []

        def send(name: str) -> None:
            layer = near if name == "near" else far
            value = f"{name} {len(sent[name])}"
            sent[name].append(value)
            pending.append(asyncio.create_task(layer.group_send("group", message(value))))

        for step in steps:
            if step == "send":
                send(chance.choice(["near", "far"]))
            elif step == "burst":
                for _ in range(10):
                    send(chance.choice(["near", "far"]))
            elif step == "cut":
                proxy.cut()
            elif step == "kill client":
                kind = chance.choice(["normal", "pubsub"])
                await client.client_kill_filter(_type=kind, skipme=True)
            else:
                await asyncio.sleep(chance.choice([0, 0.001, 0.03]))
        await asyncio.gather(*pending)
        send("near")
        send("far")
        await asyncio.gather(*pending)
        for listener in listeners:
            await arrived([listener], sent["near"][-1])
            await arrived([listener], sent["far"][-1])
            for name, values in sent.items():
                assert [each for each in listener.values() if each.startswith(name)] == values
            assert not listener.gaps
        assert listeners[0].values() == listeners[1].values()
        await near.flush()


class Sentinel(Process):
    """Watches over a master, and makes its replica the master when it is gone."""

    def __init__(self, directory: Path, master: Server) -> None:
        self.port = free_port()
        configuration = directory / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor layer 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds layer 300\n"
            "sentinel failover-timeout layer 2000\n"
        )
        super().__init__(["redis-server", str(configuration), "--sentinel"], {"PATH": "/usr/bin"})
        self.wait_for("monitor master layer")


async def test_a_failover_of_sentinel(tmp_path: Path) -> None:
    for name in ("master", "replica", "sentinel"):
        (tmp_path / name).mkdir()
    fast = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    with (
        Server(tmp_path / "master", *fast) as master,
        Server(
            tmp_path / "replica", *fast, "--replicaof", "127.0.0.1", str(master.port)
        ) as replica,
        Sentinel(tmp_path / "sentinel", master) as sentinel,
    ):
        assert replica.process is not None
        replica.process.wait_for("MASTER <-> REPLICA sync: Finished")
        await asyncio.to_thread(sentinel.wait_for, r"\+slave slave")
        host = {"sentinels": [("127.0.0.1", sentinel.port)], "master_name": "layer"}
        async with (
            layers(2, host, send_timeout=30) as [one, two],
            listening("group", one, two) as listeners,
        ):
            await send_all(one, "group", range(5))
            await arrived(listeners, 4)
            master.kill()
            waiting = asyncio.gather(*(two.group_send("group", message(i)) for i in range(5, 9)))
            await asyncio.to_thread(sentinel.wait_for, r"\+switch-master")
            await waiting
            await arrived(listeners, 8)
            await until(lambda: all(each.gaps for each in listeners))
            await send_all(one, "group", range(9, 12))
            await arrived(listeners, 11)
            for listener in listeners:
                assert listener.values() == list(range(12))
                assert listener.gaps == ["group"]


async def test_more_than_a_mailbox_holds_is_recovered(server: Server) -> None:
    """Consumers take what a process missed before more of it fills their mailboxes."""
    async with (
        behind_a_proxy(server, capacity=10) as (proxy, behind, sender),
        listening("group", behind, behind) as listeners,
    ):
        await sender.group_send("group", message(0))
        await arrived(listeners, 0)
        proxy.partition()
        await send_all(sender, "group", range(1, 300))
        proxy.cut()
        proxy.heal()
        # Among what was missed, and behind it.
        await send_all(sender, "group", range(300, 330))
        await arrived(listeners, 329)
        for listener in listeners:
            assert listener.values() == list(range(330))
        assert not behind.statistics.dropped


async def test_a_group_is_joined_while_more_waits_than_the_buffer_holds(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition shows late: until then, what waits is not bounded."""
    async with (
        Proxy(server.port) as proxy,
        layers(1, proxy.url, send_buffer=1000) as [layer],
        listening("group", layer) as [listener],
    ):
        shard = layer._hub().shards[0]
        asked, position = 0, shard.position

        async def counted(name: str) -> Any:
            nonlocal asked
            asked += 1
            assert asked < 100, "it asks again without a pause"
            return await position(name)

        monkeypatch.setattr(shard, "position", counted)
        proxy.partition()
        sending = [
            asyncio.create_task(layer.group_send("group", message("x" * 900))) for _ in range(5)
        ]
        await until(lambda: not shard.sender.is_connected)
        joining = asyncio.create_task(layer.group_add("other", listener.channel))
        await asyncio.sleep(0)
        proxy.cut()
        proxy.heal()
        await asyncio.gather(joining, *sending)
        await layer.group_send("other", message("other"))
        await arrived([listener], "other")


async def test_what_was_given_up_takes_no_room(server: Server) -> None:
    async with layers(1, server.url, send_buffer=10_000, send_timeout=0.1) as [layer]:
        await layer.group_send("group", message(0))
        server.kill()
        sender = layer._hub().shards[0].sender
        with pytest.raises(LayerUnavailableError):
            await layer.group_send("group", message(1))
        await until(lambda: not sender.is_connected)
        for _ in range(3):
            calls = (layer.group_send("group", message("x" * 900)) for _ in range(10))
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [str(each) for each in results] == [
                "Redis did not answer within 0.1 s (ConnectionError)"
            ] * 10
        sender.timeout = 20
        waiting = asyncio.create_task(layer.group_send("group", message("x" * 9_000)))
        await asyncio.sleep(0)
        server.start()
        await waiting


async def test_a_replica_without_its_master_counts_as_away(server: Server) -> None:
    async with (
        layers(1, server.url, send_timeout=0.3) as [layer],
        Client.from_url(server.url) as client,
    ):
        await layer.group_send("group", message(0))
        await client.config_set("replica-serve-stale-data", "no")
        await client.slaveof("127.0.0.1", free_port())
        with pytest.raises(LayerUnavailableError):
            await layer.group_send("group", message(1))
        await client.slaveof()
        layer._hub().shards[0].sender.timeout = 20
        await layer.group_send("group", message(2))


async def test_a_redis_without_memory_for_a_time(server: Server) -> None:
    """It refuses to say what was missed, and to open a group; both go on when it has memory."""
    async with (
        layers(1, server.url) as [layer],
        Client.from_url(server.url) as client,
        listening("group", layer) as [listener],
    ):
        await layer.group_send("group", message(0))
        await arrived([listener], 0)
        await client.config_set("maxmemory", 1)
        with pytest.raises(ResponseError):
            await layer.group_send("group", message("refused"))
        joining = asyncio.create_task(layer.group_add("other", listener.channel))
        await client.client_kill_filter(_type="pubsub", skipme=True)
        await until(lambda: listener.gaps)
        # The question of the group and that of the other one, and what was sent.
        while int((await client.info("errorstats"))["errorstat_OOM"]["count"]) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await client.config_set("maxmemory", 0)
        await joining
        await layer.group_send("group", message(1))
        await layer.group_send("other", message(2))
        await arrived([listener], 2)
        assert listener.values() == [0, 1, 2]
        assert listener.gaps == ["group"]


async def test_a_message_that_cannot_be_delivered_harms_no_other(server: Server) -> None:
    """Those of a version to come, for example: nothing else reads from this Redis."""
    async with (
        layers(2, server.url) as [here, there],
        listening("group", here) as [listener],
    ):
        owner = here._hub().name
        for content in ([], ["", {}], ["", ["verb"]], ["", 1], [["channel"], b""], [{}, 1]):
            await there._hub()._tell(owner, content)
        # No message, in a group: its members are told.
        await there._hub()._shard("group").publish("asgi:fanout:group:group", b"\xc1")
        await there.send(listener.channel, message(1))
        await there.group_send("group", message(2))
        await until(lambda: sorted(listener.values()) == [1, 2])
        assert here.statistics.dropped.total() == 7
        assert listener.gaps == ["group"]
        assert not here.statistics.resubscriptions


@pytest.mark.parametrize("module", ["sender", "subscriber"])
async def test_a_client_of_redis_that_fails_in_an_unknown_way_is_used_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """What it raises where two tasks use a connection that one of them has closed."""
    name = f"channels_kit.layer.{module}.opened"
    fails = 1

    def broken(*arguments: Any) -> Any:
        nonlocal fails
        if fails:
            fails -= 1
            raise AttributeError("'NoneType' object has no attribute 'feed'")
        return opened(*arguments)

    monkeypatch.setattr(name, broken)
    async with layers(1, server.url) as [layer], listening("group", layer) as [listener]:
        await layer.group_send("group", message(1))
        await arrived([listener], 1)
    assert not fails


async def test_a_connection_that_takes_nothing_is_cut_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is written and never read would keep its socket open."""
    monkeypatch.setattr("channels_kit.layer.connection.CLOSE_TIMEOUT", 0.05)
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Enough to connect; then it reads no more until the other side has ended.
        writer.write(b"+OK\r\n" * 10)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await closing.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        with suppress(OSError):
            while await reader.read(1 << 20):
                pass
        writer.close()
        ended.set()

    closing = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(pool({"host": "127.0.0.1", "port": port})) as connection:
        transport = connection._writer.transport
        transport.write(bytes(16 << 20))
        assert transport.get_write_buffer_size()
    # Before the other side takes anything.
    assert transport.get_write_buffer_size() == 0
    closing.set()
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
    server.close()


async def test_a_redis_with_tls_that_hangs_keeps_no_connection_open(tmp_path: Path) -> None:
    """TLS ends by an exchange, which redis-py does not wait for where it is interrupted."""
    certificate, port = authority(tmp_path), free_port()
    options = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(tmp_path / "key.pem")]
    host = {"address": f"rediss://127.0.0.1:{port}", "ssl_ca_certs": str(certificate)}
    opening = asyncio.Event()
    sockets = []

    async def read() -> None:
        async with opened(pool(host)) as connection:
            sockets.append(connection._writer.get_extra_info("socket"))
            opening.set()
            await connection.read_response()

    with Server(tmp_path, *options, *files) as server:
        reading = asyncio.create_task(read())
        async with asyncio.timeout(PATIENCE):
            await opening.wait()
        assert server.process is not None
        server.process.popen.send_signal(signal.SIGSTOP)
        reading.cancel()
        await asyncio.wait([reading])
        # One turn of the event loop after it is told to.
        await asyncio.sleep(0)
        assert sockets[0].fileno() == -1


async def test_who_gives_up_a_connection_leaves_none_to_a_sentinel(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang(connection: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    for name in ("master", "sentinel"):
        (tmp_path / name).mkdir()
    with Server(tmp_path / "master") as master, Sentinel(tmp_path / "sentinel", master) as sentinel:
        address = ("127.0.0.1", sentinel.port)
        host = {"sentinels": [address], "master_name": "layer", "redis_connect_func": hang}
        connections = pool(host)

        async def connect() -> None:
            async with opened(connections):
                pass

        connecting = asyncio.create_task(connect())
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        async with Client(host=address[0], port=address[1]) as client:
            assert len(await client.client_list()) == 2
            connecting.cancel()
            await asyncio.wait([connecting])
            async with asyncio.timeout(PATIENCE):
                while len(await client.client_list()) > 1:  # noqa: ASYNC110 - nothing says when
                    await asyncio.sleep(0.005)
