"""Frames for the sockets of groups: which socket gets which, in which order."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
import uvloop
from hypothesis import example, given, settings
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


async def settled(gatherer: Gatherer) -> None:
    """Wait until all that is pending has been written, and who is too slow is closed."""
    await until(lambda: not gatherer.backlog()[0])
    await asyncio.sleep(0)


class Clock:
    """An event loop whose time goes on as the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *arguments: Any) -> None:
        self.due.append((when, partial(callback, *arguments)))

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.call_at(self.now, callback, *arguments)

    def run(self) -> None:
        """Do what is due first, and what is due at the same time."""
        if self.due:
            self.now = max(self.now, min(when for when, _ in self.due))
        while ready := [each for each in self.due if each[0] <= self.now]:
            self.due.remove(ready[0])
            ready[0][1]()


ROOMS = 2
CLIENTS = 2

_where = st.tuples(st.integers(0, CLIENTS - 1), st.integers(0, ROOMS - 1))
_step = st.tuples(
    st.sampled_from(
        ["publish"] * 4 + ["join", "leave", "say", "event", "handle", "pause", "block", "unblock"]
    ),
    _where,
)


def of_one(text: str) -> list[tuple[str, tuple[int, int]]]:
    """Steps of the first client, each with the number of its room."""
    return [(kind, (0, int(room))) for kind, room in (word.split(":") for word in text.split())]


# What it says while frames wait for it.
@example(of_one("join:0 publish:0 pause:0 publish:0 say:0 publish:0"))
# What it says while the server has in hand what it said before.
@example(of_one("join:0 block:0 say:0 publish:0 say:0 publish:0 say:0 unblock:0"))
# Frames of another room than the one that it leaves.
@example(of_one("join:0 join:1 publish:1 leave:0 publish:1"))
# Frames around two events.
@example(of_one("join:0 publish:0 event:0 publish:0 event:0 publish:0 handle:0 publish:0"))
@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_step, max_size=60))
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_each_gets_what_came_while_it_was_a_member(
    run: Runner, steps: list[tuple[str, tuple[int, int]]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # After each round, so that frames wait while more happens.
        patch.setattr("channels_kit.layer.gatherer.WAIT_FACTOR", 1e9)
        patch.setattr("channels_kit.layer.gatherer.LONGEST_WAIT", 0.01)
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
    await settled(gatherer)
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
        await settled(gatherer)
        assert [client.writes for client in clients] == [1] * 10
        assert [len(client.got) for client in clients] == [20] * 10
        assert (statistics.delivered, statistics.gathered) == (200, 190)

    run(scenario())


@pytest.mark.parametrize(("took", "wait"), [(0.001, 0.002), (0.02, 0.04), (1.0, 0.05)])
async def test_after_a_long_round_frames_are_gathered(
    monkeypatch: pytest.MonkeyPatch, took: float, wait: float
) -> None:
    """A round that takes long makes the next one wait, so that it has more to write."""
    gatherer, clock = Gatherer(LIMIT, Statistics()), Clock()
    monkeypatch.setattr(gatherer, "_loop", clock)
    room, client = Room(), Client(gatherer)
    gatherer.join(client.outlet, room)
    written = client.outlet.write

    def slowly(frames: bytes, messages: int, limit: int) -> bool | None:
        clock.now += took
        return written(frames, messages, limit)

    client.outlet.write = slowly
    gatherer.publish(room, token("f0"))
    clock.run()
    # The first one did not wait.
    assert (client.got, clock.now) == (["f0"], took)
    for number in range(1, 10):
        gatherer.publish(room, token(f"f{number}"))
    clock.run()
    assert client.writes == 2
    assert client.got == [f"f{number}" for number in range(10)]
    assert clock.now == pytest.approx(took + wait + took)
    # After a silence, nothing waits.
    clock.now += wait
    gatherer.publish(room, token("f10"))
    before = clock.now
    clock.run()
    assert client.writes == 3
    assert clock.now == pytest.approx(before + took)


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
            await settled(gatherer)
        assert (slow.closed, other.closed) == (1013, None)
        assert other.got == ["f0", "f1", "f2"]
        assert slow.outlet not in room.outlets
        assert statistics.dropped["slow socket"] == 1
        assert statistics.slow_sockets == 1
        # Its consumer does not know yet, and sends: nobody is there, and nothing is wrong.
        await slow.outlet.send({"type": "websocket.send", "text": "too late"})
        assert slow.got == []

    run(scenario())


async def test_a_consumer_that_closes_gets_its_frames_first_and_none_after() -> None:
    statistics = Statistics()
    gatherer = Gatherer(LIMIT, statistics)
    room, client = Room(), Client(gatherer)
    gatherer.join(client.outlet, room)
    gatherer.publish(room, token("f0"))
    client.writable.clear()
    closing = asyncio.create_task(client.outlet.send({"type": "websocket.close", "text": "closed"}))
    await asyncio.sleep(0)
    # More than may wait for what the server has in hand.
    for number in range(1, LIMIT):
        gatherer.publish(room, token(f"f{number}"))
        await settled(gatherer)
    client.writable.set()
    await closing
    assert client.got == ["f0", "closed"]
    # It is not too slow.
    assert (statistics.slow_sockets, client.closed) == (0, None)


@pytest.mark.parametrize("why", ["events", "a send"])
def test_what_is_held_is_bounded(run: Runner, why: str) -> None:
    """Frames wait for the events before them, and for what the consumer has sent."""

    async def scenario() -> None:
        statistics = Statistics()
        gatherer = Gatherer(LIMIT, statistics)
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
        # One write more than the limit.
        for number in range(LIMIT // 10 + 1):
            gatherer.publish(room, token(f"f{number}"))
        await settled(gatherer)
        assert client.closed is None
        # All in one turn: none of them is kept.
        for _ in range(5):
            gatherer.publish(room, token("more"))
        await settled(gatherer)
        assert client.closed == 1013
        # What was kept is never written, either.
        assert statistics.dropped["slow socket"] == LIMIT // 10 + 1 + 5
        assert client.got == []
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


@pytest.mark.parametrize("rooms", [1, 2])
def test_a_socket_that_cannot_be_written_to_takes_nothing_from_others(
    run: Runner, rooms: int
) -> None:
    def fail(frames: bytes, messages: int, limit: int) -> bool | None:
        raise RuntimeError("the handler is closed")

    def close(code: int, reason: str) -> None:
        closed.append((code, reason))
        raise RuntimeError("the handler is closed")

    closed: list[tuple[int, str]] = []

    async def scenario() -> None:
        statistics = Statistics()
        gatherer = Gatherer(LIMIT, statistics)
        places = [Room() for _ in range(rooms)]
        clients = [Client(gatherer) for _ in range(9)]
        for client in clients:
            for room in places:
                gatherer.join(client.outlet, room)
        # Of several, each is closed, whatever comes of it.
        broken = clients[3:5]
        for client in broken:
            client.outlet.write, client.outlet.close = fail, close
        for number in range(2):
            for room in places:
                gatherer.publish(room, token(f"f{number}"))
            await settled(gatherer)
        others = [client for client in clients if client not in broken]
        assert [len(client.got) for client in others] == [2 * rooms] * 7
        assert [client.closed for client in others] == [None] * 7
        assert closed == [(1013, "")] * 2
        # They are not too slow: most often, their clients are gone.
        assert statistics.dropped == {"failed": 2 * rooms}
        assert statistics.slow_sockets == 0

    run(scenario())
