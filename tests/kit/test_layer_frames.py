"""Frames for the sockets of groups: which socket gets which, in which order."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from channels_kit.layer import codec
from channels_kit.layer.frames import frame_of
from channels_kit.layer.gatherer import Gatherer
from channels_kit.layer.mailbox import Letter, Mailbox, Overflow
from channels_kit.layer.outlet import Outlet, Room
from channels_kit.layer.statistics import Statistics

from .layers import until

LIMIT = 1000

Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return request.param  # type: ignore[no-any-return]


def token(text: str) -> bytes:
    """A frame that says something, of one length."""
    frame = frame_of(codec.pack({"type": "layer.broadcast", "text": text.rjust(8)}))
    assert frame is not None
    return frame


class Client:
    """A socket, and the order in which its client gets what."""

    def __init__(self, gatherer: Gatherer) -> None:
        self.got: list[str] = []
        self.writes = 0
        self.closed: int | None = None
        self.takes = True
        self.writable = asyncio.Event()
        self.writable.set()
        self.outlet = Outlet(self.write, self.close, self.send, 1013, lambda _: None)
        self.box = Mailbox("channel", 100, Overflow.DROP_OLDEST)
        self.box.outlet = self.outlet
        gatherer.open(self.outlet, self.box)

    def write(self, frames: bytes, messages: int, limit: int) -> bool | None:
        if not self.takes:
            return False
        assert len(frames) == messages * 10, "so many messages are so many bytes"
        self.writes += 1
        self.got += [frames[at + 2 : at + 10].decode().strip() for at in range(0, len(frames), 10)]
        return True

    def close(self, code: int, reason: str) -> None:
        self.closed = code

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        self.got.append(message["text"])

    def event(self, text: str) -> None:
        self.box.put(Letter(text.encode(), 0))

    async def handle_events(self) -> None:
        """What a consumer does with the events of its mailbox."""
        while True:
            if self.outlet.is_blocked:
                self.outlet.release()
            letter = self.box.take()
            if letter is None:
                return
            await self.outlet.send({"type": "websocket.send", "text": letter.packed.decode()})


async def settled() -> None:
    """Wait until all that is pending has been written."""
    await asyncio.sleep(0.02)


ROOMS = 3
CLIENTS = 4

_where = st.tuples(st.integers(0, CLIENTS - 1), st.integers(0, ROOMS - 1))
_step = st.tuples(
    st.sampled_from(
        ["publish"] * 4 + ["join", "leave", "say", "event", "handle", "pause", "block", "unblock"]
    ),
    _where,
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_step, max_size=60))
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_each_gets_what_came_while_it_was_a_member(
    run: Runner, steps: list[tuple[str, tuple[int, int]]]
) -> None:
    run(_each_gets_what_came(steps))


async def _each_gets_what_came(steps: list[tuple[str, tuple[int, int]]]) -> None:
    gatherer = Gatherer(1 << 20, Statistics())
    rooms = [Room() for _ in range(ROOMS)]
    clients = [Client(gatherer) for _ in range(CLIENTS)]
    # What each is to get: frames by room and events of the layer, in the order in which they came.
    due: list[list[str]] = [[] for _ in clients]
    said: list[list[str]] = [[] for _ in clients]
    # Of what a client's consumer says while no event waits: what had come before.
    before: list[dict[str, set[str]]] = [{} for _ in clients]
    tasks: list[asyncio.Task[None]] = []
    for number, (kind, (who, where)) in enumerate(steps):
        client, room = clients[who], rooms[where]
        if kind == "publish":
            gatherer.publish(room, token(f"f{number}"))
            for index, each in enumerate(clients):
                if room in each.outlet.rooms:
                    due[index].append(f"f{number}")
        elif kind == "join":
            gatherer.join(client.outlet, room)
        elif kind == "leave":
            gatherer.leave(client.outlet, room)
        elif kind == "say":
            text = f"s{number}"
            said[who].append(text)
            if not client.outlet.is_blocked:
                before[who][text] = set(due[who])
            send = client.outlet.send({"type": "websocket.send", "text": text})
            tasks.append(asyncio.create_task(send))
            # The task begins.
            await asyncio.sleep(0)
        elif kind == "event":
            client.event(f"e{number}")
            due[who].append(f"e{number}")
        elif kind == "handle":
            if client.writable.is_set():
                await client.handle_events()
        elif kind == "block":
            client.writable.clear()
        elif kind == "unblock":
            client.writable.set()
        else:
            await asyncio.sleep(0.001)
    for client in clients:
        client.writable.set()
    await asyncio.gather(*tasks)
    for client in clients:
        await client.handle_events()
    await settled()
    for index, client in enumerate(clients):
        mine = [each for each in client.got if not each.startswith("s")]
        # A room's frames and the events: all of them, once. Between two rooms there is no order.
        assert sorted(mine) == sorted(due[index])
        for where in range(ROOMS):
            of_room = {
                f"f{number}"
                for number, (kind, (_, place)) in enumerate(steps)
                if kind == "publish" and place == where
            }
            ordered = [each for each in due[index] if each in of_room or each[0] == "e"]
            assert [each for each in mine if each in of_room or each[0] == "e"] == ordered
        assert [each for each in client.got if each.startswith("s")] == said[index]
        for text, earlier in before[index].items():
            at = client.got.index(text)
            frames = {each for each in client.got[:at] if not each.startswith("s")}
            assert frames == earlier, text


def test_a_round_writes_to_each_socket_once(run: Runner) -> None:
    async def scenario() -> None:
        statistics = Statistics()
        gatherer = Gatherer(LIMIT, statistics)
        rooms = [Room() for _ in range(20)]
        clients = [Client(gatherer) for _ in range(10)]
        for client in clients:
            for room in rooms:
                gatherer.join(client.outlet, room)
        for room in rooms:
            gatherer.publish(room, token("f"))
        await settled()
        assert [client.writes for client in clients] == [1] * 10
        assert [len(client.got) for client in clients] == [20] * 10
        assert (statistics.delivered, statistics.gathered) == (200, 190)

    run(scenario())


def test_after_a_long_round_frames_are_gathered(run: Runner) -> None:
    """A round that takes long makes the next one wait, so that it has more to write."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        gatherer = Gatherer(LIMIT, Statistics())
        room, client = Room(), Client(gatherer)
        gatherer.join(client.outlet, room)

        written = client.outlet.write

        def slowly(frames: bytes, messages: int, limit: int) -> bool | None:
            until = loop.time() + 0.02
            while loop.time() < until:
                pass
            return written(frames, messages, limit)

        client.outlet.write = slowly
        gatherer.publish(room, token("f0"))
        await until(lambda: client.writes == 1)
        ended = loop.time()
        for number in range(1, 10):
            gatherer.publish(room, token(f"f{number}"))
            await asyncio.sleep(0)
        await until(lambda: client.writes == 2)
        # It began twice 20 ms after the end of the first, or later, and took 20 ms itself.
        assert loop.time() - ended >= 0.05
        assert client.writes == 2
        assert client.got == [f"f{number}" for number in range(10)]

    run(scenario())


def test_a_socket_that_takes_no_more_is_closed_and_others_are_not(run: Runner) -> None:
    async def scenario() -> None:
        statistics = Statistics()
        gatherer = Gatherer(LIMIT, statistics)
        room, slow, other = Room(), Client(gatherer), Client(gatherer)
        for client in (slow, other):
            gatherer.join(client.outlet, room)
        slow.takes = False
        for number in range(3):
            gatherer.publish(room, token(f"f{number}"))
            await settled()
        assert (slow.closed, other.closed) == (1013, None)
        assert other.got == ["f0", "f1", "f2"]
        assert slow.outlet not in room.outlets
        assert statistics.dropped["slow socket"] == 1
        assert statistics.slow_sockets == 1
        # Its consumer does not know yet, and sends: nobody is there, and nothing is wrong.
        await slow.outlet.send({"type": "websocket.send", "text": "too late"})
        assert slow.got == []

    run(scenario())


@pytest.mark.parametrize("why", ["events", "a send"])
def test_what_is_held_is_bounded(run: Runner, why: str) -> None:
    """Frames wait for the events before them, and for what the consumer has sent."""

    async def scenario() -> None:
        gatherer = Gatherer(LIMIT, Statistics())
        room, client = Room(), Client(gatherer)
        gatherer.join(client.outlet, room)
        if why == "events":
            client.event("e")
        else:
            client.writable.clear()
            sending = asyncio.create_task(
                client.outlet.send({"type": "websocket.send", "text": "s"})
            )
            await asyncio.sleep(0)
        for number in range(LIMIT // 10):
            gatherer.publish(room, token(f"f{number}"))
        await settled()
        assert client.closed is None
        gatherer.publish(room, token("more"))
        await settled()
        assert client.closed == 1013
        if why == "a send":
            client.writable.set()
            await sending

    run(scenario())


async def test_one_that_gives_up_its_turn_leaves_it_to_the_next() -> None:
    gatherer = Gatherer(LIMIT, Statistics())
    client = Client(gatherer)
    client.writable.clear()
    tasks = [
        asyncio.create_task(client.outlet.send({"type": "websocket.send", "text": text}))
        for text in "abc"
    ]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    client.writable.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert client.got == ["a", "c"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_frame_is_what_websockets_makes(size: int, kind: type) -> None:
    from websockets.frames import Frame, Opcode

    content = b"x" * size
    key, value = ("text", content.decode()) if kind is str else ("bytes", content)
    opcode = Opcode.TEXT if kind is str else Opcode.BINARY
    frame = frame_of(codec.pack({"type": "layer.broadcast", key: value}))
    assert frame == Frame(opcode, content).serialize(mask=False)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "room.message", "text": "x"},
        {"type": "layer.broadcast", "text": 1},
        {"type": "layer.broadcast", "text": "x", "more": 1},
        {"type": "layer.broadcast"},
    ],
)
def test_other_messages_are_events(message: dict[str, Any]) -> None:
    assert frame_of(codec.pack(message)) is None
