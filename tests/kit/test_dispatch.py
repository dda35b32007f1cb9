"""Consumers of Channels, dispatched by Channels and by the kit: the same, event for event.

The list of cases is that of Channels' own tests of its consumers.
"""

import asyncio
import contextvars
import functools
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from channels import consumer as channels_consumer  # type: ignore[import-untyped]
from channels.consumer import AsyncConsumer, SyncConsumer  # type: ignore[import-untyped]
from channels.exceptions import (  # type: ignore[import-untyped]
    AcceptConnection,
    DenyConnection,
    StopConsumer,
)
from channels.generic.http import AsyncHttpConsumer  # type: ignore[import-untyped]
from channels.generic.websocket import (  # type: ignore[import-untyped]
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.layers import channel_layers, get_channel_layer  # type: ignore[import-untyped]
from pytest_django import Settings

from channels_kit.layer import ConsumerOverflowError, RedisFanoutLayer
from channels_kit.serving.dispatch import dispatch_many

from .cluster import Redis
from .communicators import Communicator

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture(params=["channels", "kit"])
def dispatched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have events dispatched by the one or the other."""
    if request.param == "kit":
        monkeypatch.setattr(channels_consumer, "await_many_dispatch", dispatch_many)


pytestmark = pytest.mark.usefixtures("dispatched", "layer")


def opened(consumer: Any, kind: str = "websocket", **scope: Any) -> Communicator:
    return Communicator(consumer.as_asgi(), {"type": kind, "path": "/", "headers": [], **scope})


async def connected(consumer: Any) -> Communicator:
    socket = opened(consumer)
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output())["type"] == "websocket.accept"
    return socket


async def text(socket: Communicator, content: str) -> None:
    await socket.send_input({"type": "websocket.receive", "text": content})


async def left(socket: Communicator, code: int = 1000) -> None:
    await socket.send_input({"type": "websocket.disconnect", "code": code})
    await socket.wait()


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_a_socket_from_its_handshake_to_its_end(base: Any) -> None:
    seen: list[Any] = []

    if base is AsyncWebsocketConsumer:

        class Consumer(base):  # type: ignore[misc]
            async def connect(self) -> None:
                seen.append("connect")
                await self.accept(subprotocol="one", headers=[(b"x", b"y")])

            async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
                seen.append((text_data, bytes_data))
                await self.send(text_data=text_data, bytes_data=bytes_data)

            async def disconnect(self, code: int) -> None:
                seen.append(code)

    else:

        class Consumer(base):  # type: ignore[misc, no-redef]
            def connect(self) -> None:
                seen.append("connect")
                self.accept(subprotocol="one", headers=[(b"x", b"y")])

            def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
                seen.append((text_data, bytes_data))
                self.send(text_data=text_data, bytes_data=bytes_data)

            def disconnect(self, code: int) -> None:
                seen.append(code)

    socket = opened(Consumer)
    await socket.send_input({"type": "websocket.connect"})
    assert await socket.receive_output() == {
        "type": "websocket.accept",
        "subprotocol": "one",
        "headers": [(b"x", b"y")],
    }
    await text(socket, "hello")
    assert await socket.receive_output() == {"type": "websocket.send", "text": "hello"}
    # Both forms of ASGI: with the other key, or without it.
    await socket.send_input({"type": "websocket.receive", "text": None, "bytes": b"w"})
    assert await socket.receive_output() == {"type": "websocket.send", "bytes": b"w"}
    await left(socket, 4005)
    assert seen == ["connect", ("hello", None), (None, b"w"), 4005]


@pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
async def test_json(base: Any) -> None:
    if base is AsyncJsonWebsocketConsumer:

        class Consumer(base):  # type: ignore[misc]
            async def receive_json(self, content: Any) -> None:
                await self.send_json(content)

    else:

        class Consumer(base):  # type: ignore[misc, no-redef]
            def receive_json(self, content: Any) -> None:
                self.send_json(content)

    socket = await connected(Consumer)
    await text(socket, '{"a": [1]}')
    assert json.loads((await socket.receive_output())["text"]) == {"a": [1]}
    await socket.send_input({"type": "websocket.receive", "bytes": b"{}"})
    with pytest.raises(ValueError, match="No text section"):
        await socket.wait()


@pytest.mark.parametrize(
    ("raised", "answer"),
    [(AcceptConnection, "websocket.accept"), (DenyConnection, "websocket.close")],
)
async def test_a_handshake_that_an_exception_decides(raised: Any, answer: str) -> None:
    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            raise raised

    socket = opened(Consumer)
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output())["type"] == answer
    await left(socket)


async def test_a_close_has_a_code_and_a_reason() -> None:
    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.close(4001, reason="because")

    socket = await connected(Consumer)
    await text(socket, "go")
    assert await socket.receive_output() == {
        "type": "websocket.close",
        "code": 4001,
        "reason": "because",
    }
    await left(socket)


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_groups_and_single_channels(base: Any) -> None:
    class Consumer(base):  # type: ignore[misc]
        groups = ("news",)

        if base is AsyncWebsocketConsumer:

            async def said(self, event: dict[str, Any]) -> None:
                await self.send(text_data=event["text"])
        else:

            def said(self, event: dict[str, Any]) -> None:  # type: ignore[misc]
                self.send(text_data=event["text"])

        async def __call__(self, *arguments: Any) -> None:
            consumers.append(self)
            await super().__call__(*arguments)

    consumers: list[Any] = []
    socket = await connected(Consumer)
    layer = get_channel_layer()
    await layer.group_send("news", {"type": "said", "text": "to all"})
    assert (await socket.receive_output())["text"] == "to all"
    await layer.send(consumers[0].channel_name, {"type": "said", "text": "to one"})
    assert (await socket.receive_output())["text"] == "to one"
    await left(socket)
    assert layer.groups == {}


async def test_a_layer_of_another_name(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {
        "other": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
    }

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]
        channel_layer_alias = "other"
        groups = ("news",)

        async def said(self, event: dict[str, Any]) -> None:
            await self.send(text_data="heard")

    socket = await connected(Consumer)
    await channel_layers["other"].group_send("news", {"type": "said"})
    assert (await socket.receive_output())["text"] == "heard"
    await left(socket)


async def test_without_a_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data=text_data)

    socket = await connected(Consumer)
    await text(socket, "alone")
    assert (await socket.receive_output())["text"] == "alone"
    await left(socket)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"type": "nothing.of.that.name"}, "No handler for message type"),
        ({"type": "_private"}, "leading underscore"),
        ({"type": ".private"}, "leading underscore"),
        ({"kind": "none"}, "no 'type'"),
    ],
)
async def test_an_event_without_a_handler_ends_the_consumer(event: Any, words: str) -> None:
    class Consumer(AsyncConsumer):  # type: ignore[misc]
        async def _private(self, event: Any) -> None:
            raise AssertionError("called")

    socket = opened(Consumer)
    await socket.send_input(event)
    with pytest.raises(ValueError, match=words):
        await socket.wait()


async def test_http() -> None:
    class Consumer(AsyncHttpConsumer):  # type: ignore[misc]
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, body + b"!", headers={b"x": b"y"})

    request = opened(Consumer, "http", method="POST")
    await request.send_input({"type": "http.request", "body": b"in two ", "more_body": True})
    await request.send_input({"type": "http.request", "body": b"parts"})
    assert await request.receive_output() == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"x", b"y")],
    }
    assert (await request.receive_output())["body"] == b"in two parts!"
    await request.wait()


async def test_http_whose_client_goes() -> None:
    gone = []

    class Consumer(AsyncHttpConsumer):  # type: ignore[misc]
        async def disconnect(self) -> None:
            gone.append(True)

    request = opened(Consumer, "http", method="POST")
    await request.send_input({"type": "http.request", "body": b"a part", "more_body": True})
    await request.send_input({"type": "http.disconnect"})
    await request.wait()
    assert gone == [True]


@pytest.mark.parametrize("base", [AsyncConsumer, SyncConsumer])
async def test_an_error_of_a_handler_reaches_the_server(base: Any) -> None:
    class Consumer(base):  # type: ignore[misc]
        if base is AsyncConsumer:

            async def test_event(self, event: Any) -> None:
                raise LookupError("its own")
        else:

            def test_event(self, event: Any) -> None:  # type: ignore[misc]
                raise LookupError("its own")

    socket = opened(Consumer, "test")
    await socket.send_input({"type": "test.event"})
    with pytest.raises(LookupError, match="its own"):
        await socket.wait()


class Sources:
    """A consumer's two sources, of which it can be said what they do."""

    def __init__(self) -> None:
        self.queues: tuple[asyncio.Queue[Any], asyncio.Queue[Any]] = (
            asyncio.Queue(),
            asyncio.Queue(),
        )
        # How often each was asked, and how often that was cancelled.
        self.asked = [0, 0]
        self.cancelled = [0, 0]
        self.handled: list[Any] = []
        self.handler: Callable[[Any], Awaitable[None]] | None = None

    def receive(self, number: int) -> Callable[[], Awaitable[Any]]:
        async def receive() -> Any:
            self.asked[number] += 1
            try:
                event = await self.queues[number].get()
            except asyncio.CancelledError:
                self.cancelled[number] += 1
                raise
            if isinstance(event, BaseException):
                raise event
            return event

        return receive

    async def dispatch(self, event: Any) -> None:
        if self.handler is not None:
            await self.handler(event)
        self.handled.append(event)

    async def run(self) -> None:
        await channels_consumer.await_many_dispatch(
            [self.receive(0), self.receive(1)], self.dispatch
        )


@pytest.fixture
async def sources() -> Sources:
    return Sources()


async def turns(number: int = 20) -> None:
    """Let everything that can go on do so."""
    for _ in range(number):
        await asyncio.sleep(0)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_events_are_handled_one_at_a_time_in_order(sources: Sources) -> None:
    at_once: list[int] = []
    running = 0

    async def slow(event: Any) -> None:
        nonlocal running
        running += 1
        at_once.append(running)
        await turns(3)
        running -= 1

    sources.handler = slow
    for number in range(5):
        sources.queues[0].put_nowait(("first", number))
        sources.queues[1].put_nowait(("second", number))
    task = asyncio.create_task(sources.run())
    async with asyncio.timeout(5):
        while len(sources.handled) < 10:
            await turns()
    assert set(at_once) == {1}
    for name in ("first", "second"):
        assert [n for source, n in sources.handled if source == name] == list(range(5))
    await ended(task)


async def test_a_source_is_asked_again_when_its_event_has_been_handled(sources: Sources) -> None:
    release = asyncio.Event()

    async def waiting(event: Any) -> None:
        await release.wait()

    sources.handler = waiting
    task = asyncio.create_task(sources.run())
    sources.queues[0].put_nowait(1)
    await turns()
    assert sources.asked == [1, 1]
    release.set()
    await turns()
    assert sources.asked == [2, 1]
    await ended(task)


async def test_a_busy_consumer_leaves_turns_to_others(sources: Sources) -> None:
    for number in range(1000):
        sources.queues[0].put_nowait(number)
    task = asyncio.create_task(sources.run())
    await turns(100)
    assert 0 < len(sources.handled) <= 100
    await ended(task)


async def test_a_handler_that_stops_the_consumer(sources: Sources) -> None:
    async def stop(event: Any) -> None:
        raise StopConsumer

    sources.handler = stop
    sources.queues[1].put_nowait(1)
    with pytest.raises(StopConsumer):
        await sources.run()
    # What it waited for has ended before it has; nothing is asked again.
    assert (sources.asked, sources.cancelled) == ([1, 1], [1, 0])


@pytest.mark.parametrize("error", [LookupError("of the source"), asyncio.CancelledError()])
async def test_a_source_that_fails_ends_the_consumer(
    sources: Sources, error: BaseException
) -> None:
    task = asyncio.create_task(sources.run())
    await turns()
    sources.queues[0].put_nowait(error)
    with pytest.raises(type(error)):
        await task
    if channels_consumer.await_many_dispatch is dispatch_many:
        # Channels leaves the other one waiting at an error.
        assert sources.cancelled == [0, 1]


async def test_cancellation_while_it_waits(sources: Sources) -> None:
    task = asyncio.create_task(sources.run())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sources.cancelled == [1, 1]


async def test_cancellation_in_a_handler(sources: Sources) -> None:
    told: list[str] = []

    async def stuck(event: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    sources.handler = stuck
    sources.queues[0].put_nowait(1)
    task = asyncio.create_task(sources.run())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["cancelled"]
    assert sources.cancelled[1] == 1


async def test_handlers_run_in_the_task_and_the_context_of_the_consumer(sources: Sources) -> None:
    seen = []

    async def look(event: Any) -> None:
        seen.append((asyncio.current_task(), VARIABLE.get()))
        VARIABLE.set(f"set by {event}")

    sources.handler = look
    task = asyncio.create_task(sources.run())
    for number, event in ((0, "a"), (1, "b"), (0, "c")):
        sources.queues[number].put_nowait(event)
        await turns()
    assert seen == [(task, "unset"), (task, "set by a"), (task, "set by b")]
    await ended(task)


async def test_a_source_may_return_a_future() -> None:
    futures: list[asyncio.Future[Any]] = []
    handled = []

    def receive() -> asyncio.Future[Any]:
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    async def dispatch(event: Any) -> None:
        handled.append(event)

    task = asyncio.create_task(channels_consumer.await_many_dispatch([receive], dispatch))
    for number in range(2):
        await turns()
        futures[number].set_result(number)
    await turns()
    assert handled == [0, 1]
    await ended(task)
    assert futures[2].cancelled()


# With the kit's layer


@pytest.fixture
def fanout(layer: None, settings: Settings, redis: Redis) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_kit.layer.RedisFanoutLayer",
            "CONFIG": {"hosts": [redis.url], "capacity": 3, "overflow": "close"},
        }
    }


class Listener(AsyncWebsocketConsumer):  # type: ignore[misc]
    groups = ("news",)

    async def said(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


@pytest.mark.usefixtures("fanout")
async def test_messages_of_the_kits_layer_and_of_the_client() -> None:
    class Consumer(Listener):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.channel_layer.group_send("news", {"type": "said", "text": text_data})

    one, two = await connected(Consumer), await connected(Consumer)
    for number in range(10):
        await text(one if number % 2 else two, str(number))
        for socket in (one, two):
            assert (await socket.receive_output())["text"] == str(number)
    layer: RedisFanoutLayer = get_channel_layer()
    await left(one)
    await left(two)
    assert (layer.groups, layer.channels) == ({}, {})
    await layer.close_pools()


@pytest.mark.usefixtures("fanout")
async def test_a_consumer_that_is_too_slow_for_the_kits_layer() -> None:
    handling = asyncio.Event()

    class Consumer(Listener):
        async def said(self, event: dict[str, Any]) -> None:
            await handling.wait()

    socket = await connected(Consumer)
    layer: RedisFanoutLayer = get_channel_layer()
    # One is in its handler, three wait, and the fifth is too many.
    async with asyncio.timeout(5):
        while layer.statistics.dropped.total() == 0:
            await layer.group_send("news", {"type": "said"})
    handling.set()
    with pytest.raises(ConsumerOverflowError):
        await socket.wait()
    assert (layer.groups, layer.channels) == ({}, {})
    await layer.close_pools()


@pytest.mark.usefixtures("fanout")
async def test_a_consumer_of_the_kits_layer_that_is_cancelled() -> None:
    socket = await connected(Listener)
    layer: RedisFanoutLayer = get_channel_layer()
    # Its `disconnect` does not run: it has left nothing yet.
    assert list(layer.groups) == ["news"]
    socket.future.cancel()
    with suppress(asyncio.CancelledError):
        await socket.future
    # But nobody else receives from its channel.
    if channels_consumer.await_many_dispatch is dispatch_many:
        assert (layer.groups, layer.channels) == ({}, {})
    else:
        (box,) = layer.channels.values()
        assert not box.receivers
        assert box.abandoned_at is not None
    await layer.close_pools()


@pytest.mark.usefixtures("fanout")
async def test_a_busy_consumer_of_the_kits_layer_leaves_turns_to_others() -> None:
    layer: RedisFanoutLayer = get_channel_layer()
    layer.channel_capacity = layer.compile_capacities({"*": 100})
    channel = await layer.new_channel()
    for number in range(100):
        await layer.send(channel, {"type": "event", "number": number})
    handled: list[int] = []

    async def dispatch(event: Any) -> None:
        handled.append(event["number"])

    receive = functools.partial(layer.receive, channel)
    task = asyncio.create_task(channels_consumer.await_many_dispatch([receive], dispatch))
    await turns(20)
    assert handled == list(range(len(handled)))
    assert 0 < len(handled) <= 20
    await ended(task)
    await layer.close_pools()


@pytest.mark.usefixtures("fanout")
async def test_a_layer_that_receives_in_a_way_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    received = []

    class Derived(RedisFanoutLayer):
        async def receive(self, channel: str) -> Any:
            received.append(channel)
            return await super().receive(channel)

    monkeypatch.setattr("channels_kit.layer.RedisFanoutLayer", Derived)
    socket = await connected(Listener)
    layer = get_channel_layer()
    assert type(layer) is Derived
    await layer.group_send("news", {"type": "said", "text": "heard"})
    assert (await socket.receive_output())["text"] == "heard"
    await left(socket)
    assert len(received) == 2
    await layer.close_pools()
