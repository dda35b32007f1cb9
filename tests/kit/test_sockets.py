import asyncio
import gc
import logging
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest

from channels_kit.serving import sockets as module
from channels_kit.serving.places import HANDSHAKES
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.sockets import Sockets
from channels_kit.serving.types import ASGIApplication, Message, Receive, Scope, Send

from .communicators import Communicator

SOON = 0.02
SCOPE = {"type": "websocket", "path": "/rooms/1/", "query_string": b"token=hidden", "headers": []}
DENIAL: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}


def communicate(application: ASGIApplication, scope: dict[str, Any] | None = None) -> Communicator:
    sockets = Sockets(ServingSettings("unused:unused", "app1:8001", handshake_timeout=SOON))

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await sockets.serve(application, scope, receive, send)

    return Communicator(serve, {**SCOPE, **(scope or {})})


class Silent:
    """Neither accepts nor refuses; notes whether it was cancelled."""

    cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_silent_application_is_cut_with_504(caplog: pytest.LogCaptureFixture) -> None:
    application = Silent()
    communicator = communicate(application, DENIAL)
    start = await communicator.receive_output()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 504)
    assert (await communicator.receive_output())["type"] == "websocket.http.response.body"
    await communicator.wait()
    assert application.cancelled
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "/rooms/1/" in record.getMessage()
    assert "hidden" not in record.getMessage()


@pytest.mark.parametrize("scope", [{}, {"extensions": {}}, {"extensions": None}])
async def test_a_silent_application_is_closed_where_no_status_can_be_sent(
    scope: dict[str, Any],
) -> None:
    communicator = communicate(Silent(), scope)
    assert await communicator.receive_output() == {"type": "websocket.close"}
    await communicator.wait()


@pytest.mark.parametrize(
    "decision",
    [
        {"type": "websocket.accept"},
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
    ],
)
async def test_a_decision_ends_the_deadline(decision: dict[str, Any]) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(decision)
        # Longer than the deadline, and cancelled by it if it still stood.
        await asyncio.sleep(3 * SOON)
        await send({"type": "websocket.send", "text": "still here"})

    communicator = communicate(application)
    assert await communicator.receive_output() == decision
    assert (await communicator.receive_output())["text"] == "still here"
    await communicator.wait()


async def test_the_applications_own_timeout_passes_through() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("its own")

    communicator = communicate(application)
    with pytest.raises(TimeoutError, match="its own"):
        await communicator.wait()
    assert communicator.output_queue.empty()


async def test_an_application_can_still_refuse_while_it_is_cut() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await send({"type": "websocket.close", "code": 4000})

    communicator = communicate(application, DENIAL)
    assert (await communicator.receive_output())["code"] == 4000
    await communicator.wait()
    assert communicator.output_queue.empty()


async def test_an_application_that_swallows_its_end_is_answered_for() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    communicator = communicate(application)
    assert await communicator.receive_output() == {"type": "websocket.close"}


class Connection:
    """A WebSocket as its server has it."""

    def __init__(
        self, sockets: Sockets, application: ASGIApplication, scope: dict[str, Any] = DENIAL
    ) -> None:
        self.events: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.closed_at = 0.0
        self.task = asyncio.create_task(
            sockets.serve(application, {**SCOPE, **scope}, self.events.get, self.send)
        )

    async def send(self, message: Message) -> None:
        self.sent.put_nowait(message)
        if message["type"] == "websocket.close":
            self.closed_at = asyncio.get_running_loop().time()
            self.events.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def next(self) -> Message:
        """Return what the server is told next."""
        async with asyncio.timeout(10):
            return await self.sent.get()

    async def end(self) -> None:
        """Wait for the application's end."""
        async with asyncio.timeout(10):
            await self.task


class Probing(Connection):
    """One of the proof."""

    def __init__(self, sockets: Sockets, application: ASGIApplication) -> None:
        proof = SimpleNamespace(serve=sockets.serve_probe)
        super().__init__(cast("Sockets", proof), application)


class Mute(Connection):
    """Its client never answers a close, and the server waits for that."""

    async def send(self, message: Message) -> None:
        self.sent.put_nowait(message)


class Unread(Connection):
    """Its client does not read, and the server waits for that, too."""

    async def send(self, message: Message) -> None:
        self.sent.put_nowait(message)
        if message["type"] != "websocket.accept":
            await asyncio.Event().wait()


class Gone(Connection):
    """Its client has gone, and the server has yet to say so."""

    async def send(self, message: Message) -> None:
        self.sent.put_nowait(message)
        if message["type"] != "websocket.accept":
            raise ConnectionResetError("gone")


class Application:
    """Accepts, waits for the end and notes its code; chats first where it is told."""

    def __init__(self, chatty: bool = False) -> None:
        self.chatty = chatty
        self.codes: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        if self.chatty:
            await send({"type": "websocket.send", "text": "hello"})
        while (event := await receive())["type"] != "websocket.disconnect":
            pass
        self.codes.append(event["code"])


class Late:
    """Accepts when it is told."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.end = Application()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.set()
        await self.release.wait()
        await self.end(scope, receive, send)


def some_sockets(
    max_sockets: int = 10_000, pace: float = 1000.0, window: float = 60.0, handshake: float = 10.0
) -> Sockets:
    return Sockets(
        ServingSettings(
            "unused:unused",
            "app1:8001",
            handshake_timeout=handshake,
            max_sockets=max_sockets,
            drain_pace=pace,
            drain_window=window,
        )
    )


async def opened(
    sockets: Sockets, application: ASGIApplication, number: int, kind: type[Connection] = Connection
) -> list[Connection]:
    connections = [kind(sockets, application) for _ in range(number)]
    for connection in connections:
        assert await connection.next() == {"type": "websocket.accept"}
    return connections


async def test_a_drain_closes_every_socket_and_the_application_ends_each() -> None:
    sockets, application = some_sockets(), Application()
    connections = await opened(sockets, application, 5)
    assert len(sockets) == 5
    sockets.drain()
    for connection in connections:
        close = await connection.next()
        assert (close["type"], close["code"]) == ("websocket.close", 1012)
        assert close["reason"]
        await connection.end()
    # Not the 1000 that this server tells.
    assert application.codes == [1012] * 5
    assert len(sockets) == 0
    assert sockets.counts.closed == {1012: 5}


async def test_a_drain_spreads_its_closes() -> None:
    sockets = some_sockets(pace=200.0)
    connections = await opened(sockets, Application(), 40)
    begin = asyncio.get_running_loop().time()
    sockets.drain()
    for connection in connections:
        await connection.end()
    times = sorted(connection.closed_at - begin for connection in connections)
    # Each has a two hundredth of a second of its own, before which it is not closed.
    for number, time in enumerate(times):
        assert time >= number / 200 - 0.001


async def test_a_drain_is_faster_where_its_window_asks_for_it() -> None:
    sockets = some_sockets(pace=0.001, window=0.1)
    connections = await opened(sockets, Application(), 10)
    sockets.drain()
    for connection in connections:
        await connection.end()


async def test_a_worker_that_drains_refuses_handshakes() -> None:
    sockets = some_sockets()
    sockets.drain()
    able, unable = Connection(sockets, Application()), Connection(sockets, Application(), {})
    start = await able.next()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert int(dict(start["headers"])[b"retry-after"]) > 0
    assert (await able.next())["type"] == "websocket.http.response.body"
    assert await unable.next() == {"type": "websocket.close"}
    await able.end()
    await unable.end()
    assert sockets.counts.refused["draining"] == 2
    assert len(sockets) == 0


async def test_a_handshake_under_way_is_closed_after_its_accept() -> None:
    sockets, application = some_sockets(), Late()
    connection = Connection(sockets, application)
    await application.begun.wait()
    sockets.drain()
    application.release.set()
    assert (await connection.next())["type"] == "websocket.accept"
    assert (await connection.next())["code"] == 1012
    await connection.end()
    assert application.end.codes == [1012]


async def test_a_second_drain_changes_nothing() -> None:
    sockets, application = some_sockets(), Application()
    connections = await opened(sockets, application, 5)
    sockets.drain()
    sockets.drain()
    for connection in connections:
        await connection.end()
    sockets.drain()
    assert [connection.sent.qsize() for connection in connections] == [1] * 5
    assert application.codes == [1012] * 5


async def test_above_its_number_of_sockets_a_worker_refuses_more() -> None:
    sockets = some_sockets(max_sockets=2)
    first, second = await opened(sockets, Application(), 2)
    third = Connection(sockets, Application())
    start = await third.next()
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"5")
    await third.end()
    assert sockets.counts.refused["full"] == 1

    first.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await first.end()
    [fourth] = await opened(sockets, Application(), 1)
    sockets.drain()
    await second.end()
    await fourth.end()


async def test_above_its_number_of_handshakes_in_hand_a_worker_refuses_more() -> None:
    """Those at the end of a long queue are served when their clients have gone."""
    sockets, application = some_sockets(), Late()
    [opened_before] = await opened(sockets, Application(), 1)
    waiting = [Connection(sockets, application) for _ in range(HANDSHAKES - 1)]
    # One that ends in its handshake has no place any more.
    failing = Connection(sockets, Silent())
    await application.begun.wait()
    refused = Connection(sockets, application)
    start = await refused.next()
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    await refused.end()
    assert sockets.counts.refused["busy"] == 1

    failing.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await failing.end()
    application.release.set()
    for connection in waiting:
        assert (await connection.next())["type"] == "websocket.accept"
    assert sockets.client_places.undecided == 0
    more = await opened(sockets, Application(), HANDSHAKES)
    sockets.drain()
    for connection in [opened_before, *waiting, *more]:
        await connection.end()


async def test_a_worker_that_decides_fast_has_more_handshakes_in_hand() -> None:
    """Those above 32 wait for some milliseconds; a refused one comes again."""
    sockets, application = some_sockets(), Late()
    before = [
        connection
        for _ in range(10)
        for connection in await opened(sockets, Application(), HANDSHAKES // 2)
    ]
    waiting = [Connection(sockets, application) for _ in range(HANDSHAKES * 2)]
    await application.begun.wait()
    assert sockets.client_places.undecided == HANDSHAKES * 2
    application.release.set()
    for connection in waiting:
        assert (await connection.next())["type"] == "websocket.accept"
    assert sockets.counts.refused["busy"] == 0
    sockets.drain()
    for connection in [*before, *waiting]:
        await connection.end()


async def test_the_proof_never_has_more_than_32_handshakes_in_hand() -> None:
    sockets, application = some_sockets(), Late()
    before = await opened(sockets, Application(), HANDSHAKES // 2, Probing)
    waiting = [Probing(sockets, application) for _ in range(HANDSHAKES)]
    refused = Probing(sockets, application)
    assert (await refused.next())["status"] == 503
    await refused.end()
    # It takes no client's.
    assert sockets.client_places.refusal(monotonic()) is None
    application.release.set()
    for probing in waiting:
        assert (await probing.next())["type"] == "websocket.accept"
    sockets.drain()
    for connection in [*before, *waiting]:
        await connection.end()


@pytest.mark.parametrize("kind", [Mute, Unread])
@pytest.mark.parametrize("chatty", [False, True])
async def test_a_client_that_does_not_answer_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, kind: type[Connection], chatty: bool
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", SOON)
    sockets, application = some_sockets(), Application()
    bad = Application(chatty)
    slow = await opened(sockets, bad, 3, kind)
    quick = await opened(sockets, application, 3)
    sockets.drain()
    for connection in quick + slow:
        await connection.end()
    assert application.codes == bad.codes == [1012] * 3
    assert len(sockets) == 0


async def test_closes_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 3600.0)
    sockets = some_sockets()
    slow = await opened(sockets, Application(), 20, Unread)
    quick = await opened(sockets, Application(), 3)
    sockets.drain()
    for connection in quick:
        await connection.end()
    for connection in slow:
        connection.task.cancel()
    await asyncio.gather(*(connection.task for connection in slow), return_exceptions=True)


async def test_what_is_sent_after_the_drains_close_is_dropped() -> None:
    told = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await told.wait()
        await send({"type": "websocket.send", "text": "too late"})
        await send({"type": "websocket.close", "code": 4000})
        assert (await receive())["code"] == 1012

    sockets = some_sockets()
    [connection] = await opened(sockets, application, 1)
    sockets.drain()
    assert (await connection.next())["code"] == 1012
    told.set()
    await connection.end()
    assert connection.sent.empty()
    assert sockets.counts.sent == 0


async def test_a_client_that_has_gone_meanwhile_is_no_error() -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    sockets, application = some_sockets(), Application()
    [gone] = await opened(sockets, application, 1, Gone)
    sockets.drain()
    assert (await gone.next())["type"] == "websocket.close"
    gone.events.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await gone.end()
    assert application.codes == [1012]
    # An error that nobody took is told when its task goes.
    gc.collect()
    assert errors == []


async def test_what_happens_is_counted() -> None:
    sockets, application = some_sockets(handshake=SOON), Application(chatty=True)
    counts = sockets.counts
    clients = await opened(sockets, application, 4)
    for client, code in zip(clients, (1000, 1001, 4000, 4999), strict=True):
        assert (await client.next())["text"] == "hello"
        client.events.put_nowait({"type": "websocket.receive", "text": "hello"})
        client.events.put_nowait({"type": "websocket.disconnect", "code": code})
        await client.end()
    assert (counts.opened, counts.received, counts.sent) == (4, 4, 4)
    # What clients choose from 2000 codes makes no more than one series.
    assert counts.closed == {1000: 1, 1001: 1, 3000: 2}

    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001})

    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})

    async def ends(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("its own")

    counts.closed.clear()
    await Connection(sockets, leaves).end()
    await Connection(sockets, refuses).end()
    await Connection(sockets, Silent()).end()
    with pytest.raises(LookupError, match="its own"):
        await Connection(sockets, ends).end()
    assert counts.closed == {4001: 1}
    assert {reason: times for reason, times in counts.refused.items() if times} == {
        "application": 1,
        "late": 1,
        "undecided": 1,
    }
