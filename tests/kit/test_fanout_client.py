"""What the client of make bench-fanout counts is what a server has sent."""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fanout.client import Client, ClientError, Counted, Shape, build, connected

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
SECOND = 10**9
TIME = slice(9, 25)
MESSAGES, RATE = 40, 400.0


def frame(payload: bytes) -> bytes:
    """Return an unmasked text frame."""
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    return bytes((0x81, 126)) + len(payload).to_bytes(2, "big") + payload


class Server:
    """Sends what it gets to all in the room, as `deliver` changes it for each of them.

    Attributes:
        deliver: what the member with a number gets of the bytes of a frame; by message and number.
        chunk: bytes that are written at once; 0: a frame at once.
        gather: messages that are written together.
        wire: the client's.
    """

    def __init__(self, wire: str = "ws") -> None:
        self.deliver: Callable[[int, int, bytes], bytes] = lambda message, member, payload: frame(
            payload
        )
        self.chunk = 0
        self.gather = 1
        self.wire = wire
        self.pongs = 0
        self.rooms: dict[str, list[asyncio.StreamWriter]] = defaultdict(list)
        self.waiting: list[tuple[str, bytes]] = []
        self.messages = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(room-\d+|idle)", head)
        assert found is not None
        room = found[1].decode()
        writer.write(ANSWER)
        if self.wire == "socketio":
            writer.write(frame(b'0{"sid":"a"}'))
        self.rooms[room].append(writer)
        try:
            while True:
                payload = await self.read(reader)
                if payload == b"40":
                    writer.write(frame(b'40{"sid":"b"}') + frame(b"2"))
                elif payload == b"3":
                    self.pongs += 1
                else:
                    await self.publish(room, payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @staticmethod
    async def read(reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(2)
        assert head[1] & 0x80, "a client masks its frames"
        size = head[1] & 127
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        mask = await reader.readexactly(4)
        data = await reader.readexactly(size)
        return bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))

    async def publish(self, room: str, payload: bytes) -> None:
        # Messages before a run begins are of run 1.
        if b"@00000001" in payload[:17]:
            self.send(room, [(-1, payload)])
            return
        self.waiting.append((room, payload))
        if len(self.waiting) < self.gather:
            return
        for name in {name for name, _ in self.waiting}:
            mine = [each for each in self.waiting if each[0] == name]
            self.send(name, [(self.messages + i, text) for i, (_, text) in enumerate(mine)])
        self.messages += len(self.waiting)
        self.waiting.clear()

    def send(self, room: str, messages: list[tuple[int, bytes]]) -> None:
        for member, writer in enumerate(self.rooms[room]):
            data = b"".join(
                frame(payload) if number < 0 else self.deliver(number, member, payload)
                for number, payload in messages
            )
            step = self.chunk or len(data) or 1
            for place in range(0, len(data), step):
                writer.write(data[place : place + step])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("client"))


@asynccontextmanager
async def client_of(server: Server, program: Path, shape: Shape) -> AsyncIterator[Client]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    ports = [listener.sockets[0].getsockname()[1]]
    # Its calls wait for the client, and the server answers meanwhile.
    session = connected(program, server.wire, "/%s/", ports, shape)
    client = await asyncio.to_thread(session.__enter__)
    try:
        yield client
    finally:
        await asyncio.to_thread(session.__exit__, None, None, None)
        listener.close()
        await listener.wait_closed()


async def count(server: Server, program: Path, shape: Shape | None = None) -> Counted:
    shape = shape or Shape(members=5)
    async with client_of(server, program, shape) as client:
        return await asyncio.to_thread(client.run, RATE, MESSAGES / RATE)


@pytest.mark.parametrize("wire", ["ws", "socketio"])
@pytest.mark.parametrize(
    ("gather", "chunk"), [(1, 0), (10, 0), (10, 7), (1, 1)], ids=["one", "gathered", "cut", "bytes"]
)
async def test_everything_is_counted(program: Path, wire: str, gather: int, chunk: int) -> None:
    server = Server(wire)
    server.gather, server.chunk = gather, chunk

    counted = await count(server, program)

    assert (counted.messages, counted.expected) == (MESSAGES, MESSAGES * 5)
    assert counted.received == counted.expected
    assert counted.whole


async def test_rooms_are_counted_apart(program: Path) -> None:
    counted = await count(Server(), program, Shape(rooms=4, members=3, idle=2, payload=300))

    assert (counted.expected, counted.received) == (MESSAGES * 3, MESSAGES * 3)
    assert counted.whole


async def test_a_lost_message_is_seen(program: Path) -> None:
    server = Server()
    server.deliver = lambda message, member, payload: (
        b"" if (message, member) == (7, 2) else frame(payload)
    )

    counted = await count(server, program)

    assert counted.received == counted.expected - 1
    assert not counted.whole


async def test_a_message_that_came_twice_does_not_hide_a_lost_one(program: Path) -> None:
    server = Server()
    server.deliver = lambda message, member, payload: (
        b"" if (message, member) == (7, 2) else frame(payload) * (2 if message == 8 else 1)
    )

    counted = await count(server, program)

    assert (counted.received, counted.twice) == (counted.expected - 1, 5)


async def test_a_socket_that_is_closed_is_seen(program: Path) -> None:
    server = Server()
    server.deliver = lambda message, member, payload: (
        b"\x88\x02\x03\xe8" if (message, member) == (MESSAGES - 1, 2) else frame(payload)
    )

    counted = await count(server, program)

    assert counted.closed == 1
    assert not counted.whole


async def test_latency_is_from_sending_to_receiving(program: Path) -> None:
    # One message of 40 x 5 was sent 50 s ago, as far as the client knows, and the others 10 s ago:
    # that is 2.5 %.
    def deliver(message: int, member: int, payload: bytes) -> bytes:
        earlier = (50 if message == 3 else 10) * SECOND
        sent = int(payload[TIME], 16) - earlier
        return frame(payload[: TIME.start] + b"%016x" % sent + payload[TIME.stop :])

    server = Server()
    server.deliver = deliver
    began = time.monotonic()

    counted = await count(server, program)

    # Its buckets are 3 % wide.
    taken = 1000 * (time.monotonic() - began)
    assert 10_000 <= counted.p50 <= 1.04 * (10_000 + taken)
    assert 50_000 <= counted.p99 <= 1.04 * (50_000 + taken)
    assert 50_000 <= counted.max <= 50_000 + taken


async def test_a_changed_message_ends_the_client(program: Path) -> None:
    server = Server()
    server.deliver = lambda message, member, payload: frame(payload[:-1])

    with pytest.raises(ClientError, match="not as it was sent"):
        await count(server, program)


async def test_pings_are_answered(program: Path) -> None:
    server = Server("socketio")

    assert (await count(server, program)).whole
    assert server.pongs == 5
