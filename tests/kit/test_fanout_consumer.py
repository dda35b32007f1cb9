"""Consumers whose rooms' frames go straight to their sockets: real servers, a real Redis."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from channels_kit.layer.frames import EXTENSION
from channels_kit.layer.outlet import Outlet
from channels_kit.serving import drain
from channels_kit.serving.types import FRAMES

from .cluster import SERVERS, Worker
from .layers import Proxy, Server, layers, until
from .test_uvicorn_websocket import served

# Seconds, much more than any of these tests may take.
LONG = 60


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


def rooms_on(redis_url: str, server: str = "uvicorn", **environment: str) -> Worker:
    """A worker that serves the application of rooms."""
    return Worker(
        "app1:8001",
        {
            "CHANNELS_KIT_APPLICATION": "served_rooms:application",
            "SERVED_FANOUT": redis_url,
            **environment,
        },
        server,
    )


class Client:
    """A client that keeps what it gets."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.got: list[str | bytes] = []
        self.close_code: int | None = None
        self._grown = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def to(cls, worker: Worker) -> Self:
        return cls(await connect(f"{worker.ws_url}/", proxy=None, compression=None))

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                async with self._grown:
                    self.got.append(message)
                    self._grown.notify_all()
        except ConnectionClosed:
            pass
        async with self._grown:
            self.close_code = self.connection.close_code
            self._grown.notify_all()

    async def until(self, *texts: str) -> None:
        """Wait until it has got texts."""
        async with asyncio.timeout(LONG), self._grown:
            await self._grown.wait_for(lambda: all(text in self.got for text in texts))

    async def closed(self) -> int | None:
        async with asyncio.timeout(LONG), self._grown:
            await self._grown.wait_for(lambda: self.close_code is not None)
        return self.close_code

    async def do(self, kind: str, group: str, text: str) -> None:
        """Have its consumer do something, and wait until it has."""
        await self.connection.send(json.dumps([kind, group, text]))
        await self.until(f"done {kind} {text}")

    @property
    def told(self) -> list[str | bytes]:
        return [each for each in self.got if not str(each).startswith("done ")]

    async def leave(self) -> None:
        await self.connection.close()
        await self._reading


@asynccontextmanager
async def clients(*workers: Worker) -> AsyncIterator[list[Client]]:
    """One client of each worker that is given."""
    made = [await Client.to(worker) for worker in workers]
    try:
        yield made
    finally:
        for client in made:
            await client.leave()


def scrape(worker: Worker) -> dict[tuple[str, str], float]:
    """Return the metrics of a worker by their names and their one label."""
    with urlopen(f"{worker.url}/-/metrics") as response:
        text = response.read().decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_both_sides_mean_the_same_extension() -> None:
    assert EXTENSION == FRAMES


@pytest.mark.parametrize("server", SERVERS)
async def test_the_same_on_every_server(redis: Server, server: str) -> None:
    with rooms_on(redis.url, server) as one, rooms_on(redis.url, server) as two:
        async with clients(one, one, two) as [first, second, third]:
            for number, client in enumerate((first, second, third)):
                await client.do("join", "room", f"{number}")
            for kind in ("broadcast", "event", "broadcast", "json", "binary", "event", "broadcast"):
                await first.do(kind, "room", f"{kind}-{len(first.got)}")
            await first.do("broadcast", "room", "left")
            await asyncio.gather(*(each.until("left") for each in (first, second, third)))
            await third.do("leave", "room", "")
            await first.do("broadcast", "room", "last")
            await asyncio.gather(*(each.until("last") for each in (first, second)))
            await third.do("alone", "", "alone")
            await third.until("alone")
            kinds = ["broadcast", "event", "broadcast", '"json', "b'binary", "event", "broadcast"]
            heads = [str(each).partition("-")[0] for each in first.told]
            assert heads == [*kinds, "left", "last"]
            assert second.told == first.told
            assert third.told == [*first.told[:-1], "alone"]


async def test_a_frame_waits_for_the_events_before_it(redis: Server) -> None:
    async with layers(1, redis.url) as [layer]:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        written: list[bytes] = []

        def write(frames: bytes, messages: int, limit: int) -> bool:
            written.append(frames)
            return True

        async def send(message: Any) -> None:
            pass

        outlet = Outlet(
            *(write, lambda code, reason: None, send, 1013),
            lambda outlet: layer.open_socket(channel, outlet),
        )
        await outlet.send({"type": "websocket.accept"})
        await layer.group_broadcast("room", "1")
        await layer.group_send("room", {"type": "room.event"})
        await layer.group_broadcast("room", "2")
        # All are here, and only the event is in a mailbox.
        await until(lambda: (layer.statistics.received, layer.backlog().waiting) == (3, 1))
        assert written == [b"\x81\x011"]
        assert await layer.receive(channel) == {"type": "room.event"}
        # It has been handled when the next one is asked for.
        assert len(written) == 1
        asking = asyncio.create_task(layer.receive(channel))
        await until(lambda: len(written) == 2)
        assert written[1] == b"\x81\x012"
        asking.cancel()


async def test_frames_need_no_call_of_the_consumer(redis: Server) -> None:
    """And are counted: by the layer, and as messages of the worker."""
    with rooms_on(redis.url) as worker:
        async with clients(worker, worker, worker) as three:
            for client in three:
                await client.do("join", "room", "in")
            before = await asyncio.to_thread(scrape, worker)
            for number in range(10):
                await three[0].do("broadcast", "room", f"{number}")
            for client in three:
                await client.until("9")
            after = await asyncio.to_thread(scrape, worker)
            grown = {name: after[name] - before.get(name, 0) for name in after}
            # A look at the metrics sends one message through the layer.
            assert grown["channels_kit_layer_delivered_total", ""] == 30 + 1
            # The answers to the first one's steps, too.
            assert grown["channels_kit_messages_sent_total", ""] == 40
            assert after["channels_kit_layer_waiting", ""] == 0
            for client in three:
                await client.do("calls", "", "")
                assert "called 0" in client.got


class Plan:
    """What happens, one after the other: who does what in which room."""

    steps = st.lists(
        st.tuples(
            st.sampled_from(["broadcast"] * 4 + ["event", "join", "leave", "cut"]),
            st.integers(0, 3),
            st.integers(0, 1),
        ),
        min_size=5,
        max_size=30,
    )


@pytest.mark.parametrize("server", SERVERS)
def test_members_get_all_of_their_time_once_and_in_order(redis: Server, server: str) -> None:
    """Whatever is cut, joined and left: two workers, one behind a proxy whose connections end."""
    with ExitStack() as stack:
        near = stack.enter_context(rooms_on(redis.url, server))

        @settings(
            max_examples=6,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(steps=Plan.steps)
        def examine(steps: list[tuple[str, int, int]]) -> None:
            asyncio.run(_members_get_all(near, redis, server, steps))

        examine()


async def _members_get_all(
    near: Worker, redis: Server, server: str, steps: list[tuple[str, int, int]]
) -> None:
    async with Proxy(redis.port) as proxy:
        far = await asyncio.to_thread(rooms_on, proxy.url, server)
        try:
            await asyncio.to_thread(lambda: far.port)
            # Two of each worker, and one of each that is always in both rooms.
            async with clients(near, near, far, far, near, far) as all_of_them:
                await _run(all_of_them, proxy, steps)
        finally:
            await asyncio.to_thread(far.__exit__)


async def _run(members: list[Client], proxy: Proxy, steps: list[tuple[str, int, int]]) -> None:
    watchers = members[4:]
    rooms = [f"room{os.urandom(4).hex()}{number}" for number in range(2)]
    for watcher in watchers:
        for room in rooms:
            await watcher.do("join", room, room)
    sent: list[list[str]] = [[], []]
    # What each client is to get of each room.
    due: list[list[list[str]]] = [[[], []] for _ in members]
    inside: set[tuple[int, int]] = {(4, 0), (4, 1), (5, 0), (5, 1)}
    for number, (kind, who, where) in enumerate(steps):
        text = f"{where}:{number}"
        if kind == "cut":
            proxy.cut()
        elif kind in ("broadcast", "event"):
            await members[who].do(kind, rooms[where], text)
            sent[where].append(text)
            for index in range(len(members)):
                if (index, where) in inside:
                    due[index][where].append(text)
        else:
            # What was sent has come to both workers: who joins does not get it, who leaves does.
            for watcher in watchers:
                await watcher.until(*(each[-1] for each in sent if each))
            await members[who].do(kind, rooms[where], text)
            (inside.add if kind == "join" else inside.discard)((who, where))
    for watcher in watchers:
        await watcher.until(*(each[-1] for each in sent if each))
    for index, member in enumerate(members):
        for where in range(2):
            wanted = due[index][where]
            await member.until(*wanted)
            assert [each for each in member.told if str(each).startswith(f"{where}:")] == wanted


def slow_reader(port: int) -> socket.socket:
    """A client that has small buffers, and does not read."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(LONG)
    reader.connect(("127.0.0.1", port))
    reader.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += reader.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return reader


def close_code_of(reader: socket.socket) -> int:
    """Read all frames there are; return the code of the close frame at the end."""
    data = bytearray()
    at = 0
    while True:
        received = reader.recv(1 << 16)
        assert received, "no close frame"
        data += received
        while len(data) >= at + 4:
            size, start = data[at + 1] & 0x7F, at + 2
            if size == 126:
                size, start = struct.unpack_from("!H", data, at + 2)[0], at + 4
            if len(data) < start + size:
                break
            if data[at] & 0x0F == 8:
                return int(struct.unpack_from("!H", data, start)[0])
            at = start + size


async def test_one_that_does_not_read_is_closed_and_nobody_waits_for_it(redis: Server) -> None:
    environment = {"SERVED_SOCKET_BUFFER": "100000", "SERVED_ROOM": "room"}
    with rooms_on(redis.url, **environment) as worker:
        async with clients(worker, worker) as [first, second]:
            reader = await asyncio.to_thread(lambda: slow_reader(worker.port))
            text = "x" * 30_000
            number = 0
            name = ("channels_kit_sockets_closed_total", "1013")
            async with asyncio.timeout(LONG):
                while name not in (samples := await asyncio.to_thread(scrape, worker)):
                    # The kernel takes some megabytes first.
                    for _ in range(20):
                        await first.do("broadcast", "room", f"{number} {text}")
                        number += 1
            assert samples[name] == 1
            assert samples["channels_kit_layer_dropped_total", "slow socket"] >= 1
            assert samples["channels_kit_layer_slow_sockets_total", ""] == 1
            await first.do("broadcast", "room", "last")
            for client in (first, second):
                await client.until("last")
                assert len(client.told) == number + 1
            # It reads at last: what was sent before, and why there is no more.
            assert await asyncio.to_thread(close_code_of, reader) == 1013
            reader.close()


async def test_a_drain_among_frames_closes_as_ever(redis: Server) -> None:
    with rooms_on(redis.url, SERVED_ROOM="room", CHANNELS_KIT_DRAIN_PACE="200") as worker:
        async with (
            layers(1, redis.url) as [layer],
            clients(*[worker] * 20) as members,
        ):
            running = True

            async def broadcast() -> None:
                number = 0
                while running:
                    await layer.group_broadcast("room", f"{number}")
                    number += 1

            task = asyncio.create_task(broadcast())
            for client in members:
                await client.until("5")
            arguments = [f"{worker.url}/-/live", f"--process={worker.popen.pid}"]
            assert await asyncio.to_thread(drain.main, [*arguments, f"--timeout={LONG}"]) == 0
            codes = [await client.closed() for client in members]
            running = False
            await task
            assert codes == [1012] * 20
            for client in members:
                # Nothing is missing in what came before.
                assert client.told == [f"{number}" for number in range(len(client.told))]


async def test_a_consumer_that_closes_gets_its_frames_first(redis: Server) -> None:
    with rooms_on(redis.url) as worker:
        async with clients(worker) as [client]:
            await client.do("join", "room", "")
            await client.do("broadcast", "room", "a")
            await client.until("a")
            await client.connection.send(json.dumps(["close", "", ""]))
            assert await client.closed() == 4000


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_what_is_negotiated_decides_who_makes_the_frames(compression: Any) -> None:
    """With a WebSocket extension, the bytes are not the same for all: `send` it is."""
    offered: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        offered.append(EXTENSION in scope["extensions"])
        if offered[-1]:
            written = scope["extensions"][EXTENSION]["write"](b"\x81\x05hello", 1, 1000)
            assert written is True
        else:
            await send({"type": "websocket.send", "text": "hello"})
        while (await receive())["type"] == "websocket.receive":
            pass
        if offered[-1]:
            assert scope["extensions"][EXTENSION]["write"](b"\x81\x05hello", 1, 1000) is None

    async with (
        served(application) as (_, url),
        connect(url, compression=compression, proxy=None) as client,
    ):
        assert await client.recv() == "hello"
    assert offered == [compression is None]
