import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import pytest
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from pytest_django import Settings

from channels_kit.serving import wrapper
from channels_kit.serving.readiness import CheckResult, Readiness
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.types import Receive, Scope, Send
from channels_kit.serving.wrapper import Serving

from .communicators import Communicator, Socket, request

TOKEN = "a-token-of-the-tests"
SOON = 0.05
IDLE = {
    "worker": "app1:8001",
    "revision": "r1",
    "pid": os.getpid(),
    "draining": False,
    "retired": False,
    "beside": 0,
    "sockets": 0,
    "requests": 0,
}
AUTHORIZED = [(b"authorization", f"Bearer {TOKEN}".encode())]


async def echo_scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Says which scope it was given, by identity."""
    await send({"type": "the application's", "scope": id(scope)})


def serving(worker: str = "app1:8001", token: str = TOKEN, ready_timeout: float = 5.0) -> Serving:
    settings = ServingSettings("unused:unused", worker, "r1", token, ready_timeout=ready_timeout)
    return Serving(echo_scope, settings)


def open_probe(
    endpoint: str = "1",
    run: str = "run",
    headers: list[tuple[bytes, bytes]] = AUTHORIZED,
    query: bytes = b"",
    **options: Any,
) -> Socket:
    socket = Socket(serving(**options), f"/-/probe/{run}/{endpoint}/", headers)
    socket.scope["query_string"] = query
    return socket


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "lifespan"},
        {"type": "http", "path": "/"},
        {"type": "http", "path": "/-"},
        {"type": "http", "path": "/rooms/-/live"},
        {"type": "websocket", "path": "/rooms/1/", "headers": []},
    ],
)
async def test_the_applications_own_goes_to_it_unchanged(scope: dict[str, Any]) -> None:
    communicator = Communicator(serving(), scope)
    assert await communicator.receive_output() == {
        "type": "the application's",
        "scope": id(scope),
    }


async def test_live() -> None:
    response = await request(serving(), "GET", "/-/live")
    assert response.status == 200
    assert json.loads(response.body) == {
        "status": "live",
        **IDLE,
    }
    assert response.headers[b"cache-control"] == b"no-store"
    assert response.headers[b"content-type"] == b"application/json"


async def test_head_has_the_headers_without_the_body() -> None:
    get = await request(serving(), "GET", "/-/live")
    head = await request(serving(), "HEAD", "/-/live")
    assert get.body
    assert head == replace(get, body=b"")


@pytest.mark.parametrize("path", ["/-/live", "/-/ready"])
async def test_only_reading_is_allowed(path: str) -> None:
    response = await request(serving(), "POST", path)
    assert response.status == 405
    assert response.headers[b"allow"] == b"GET, HEAD"


@pytest.mark.parametrize("path", ["/-/", "/-/live/", "/-/unknown", "/-/probe/run/1/"])
async def test_other_paths_of_the_wrapper_are_not_found(path: str) -> None:
    response = await request(serving(), "GET", path)
    assert response.status == 404


@pytest.mark.parametrize(
    ("ok", "status", "word"), [(True, 200, "ready"), (False, 503, "not ready")]
)
async def test_ready_says_what_was_found(
    monkeypatch: pytest.MonkeyPatch, ok: bool, status: int, word: str
) -> None:
    async def found(seconds: float) -> Readiness:
        assert seconds == 5.0
        check = CheckResult(ok, 1.5, None if ok else "LookupError")
        return Readiness({"channel_layer": check}, "channels.layers.InMemoryChannelLayer")

    monkeypatch.setattr(wrapper, "check_readiness", found)
    response = await request(serving(), "GET", "/-/ready")
    assert response.status == status
    assert json.loads(response.body) == {
        "status": word,
        **IDLE,
        "layer": "channels.layers.InMemoryChannelLayer",
        "checks": {
            "channel_layer": {
                "ok": ok,
                "milliseconds": 1.5,
                "error": None if ok else "LookupError",
            }
        },
    }


async def test_a_worker_that_drains_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def well(seconds: float) -> Readiness:
        return Readiness({})

    monkeypatch.setattr(wrapper, "check_readiness", well)
    worker = serving()
    assert (await request(worker, "GET", "/-/ready")).status == 200
    worker.sockets.drain()
    ready = await request(worker, "GET", "/-/ready")
    assert ready.status == 503
    live = await request(worker, "GET", "/-/live")
    assert live.status == 200
    for response, status in ((ready, "not ready"), (live, "live")):
        assert json.loads(response.body) == {"status": status, **IDLE, "draining": True}


async def in_hand(worker: Serving) -> object:
    return json.loads((await request(worker, "GET", "/-/live")).body)["requests"]


async def test_requests_in_hand_are_counted_but_for_those_that_come_in_a_drain() -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    release = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        begun.put_nowait(None)
        await release.wait()
        headers = [(b"x-own", b"yes")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"whole"})

    worker = Serving(application, ServingSettings("unused:unused", "app1:8001"))
    before = asyncio.create_task(request(worker, "GET", "/"))
    await begun.get()
    assert await in_hand(worker) == 1
    worker.sockets.drain()
    after = asyncio.create_task(request(worker, "GET", "/"))
    await begun.get()
    # Or a drain under an edge that sends more would not come to an end.
    assert await in_hand(worker) == 1
    release.set()
    for response in await asyncio.gather(before, after):
        assert response.body == b"whole"
        assert response.headers == {b"x-own": b"yes", b"connection": b"close"}
    assert await in_hand(worker) == 0


async def test_a_request_that_fails_is_no_longer_in_hand() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("its own")

    worker = Serving(application, ServingSettings("unused:unused", "app1:8001"))
    with pytest.raises(LookupError, match="its own"):
        await request(worker, "GET", "/")
    assert await in_hand(worker) == 0


async def test_connections_are_kept_while_there_is_no_drain() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    worker = Serving(application, ServingSettings("unused:unused", "app1:8001"))
    assert (await request(worker, "GET", "/")).headers == {}


@pytest.mark.usefixtures("layer")
async def test_a_round_reaches_every_socket_of_the_run_and_no_other() -> None:
    sender, receiver = open_probe("1"), open_probe("2", worker="app2:8002")
    stranger = open_probe("1", run="another")
    for socket, worker in ((sender, "app1:8001"), (receiver, "app2:8002"), (stranger, "app1:8001")):
        assert await socket.connect()
        assert await socket.receive_json() == {
            "type": "hello",
            "sockets": 0,
            "worker": worker,
            "revision": "r1",
        }
    await sender.send(text='{"round": 7}')
    for socket in (sender, receiver):
        assert await socket.receive_json() == {
            "type": "message",
            "sender": "1",
            "worker": "app1:8001",
            "round": 7,
        }
    # A message for the stranger would be here before its own.
    await stranger.send(text='{"round": 8}')
    assert (await stranger.receive_json())["round"] == 8
    for socket in (sender, receiver, stranger):
        await socket.disconnect()


@pytest.mark.usefixtures("layer")
async def test_a_round_may_go_to_the_touched_sockets_of_the_run_alone() -> None:
    sender, touched, other = open_probe("1"), open_probe("2", query=b"touched"), open_probe("3")
    for socket in (sender, touched, other):
        assert await socket.connect()
        await socket.receive_json()
    await sender.send(text='{"round": 1, "to": "touched"}')
    await sender.send(text='{"round": 2}')
    assert [(await touched.receive_json())["round"] for _ in range(2)] == [1, 2]
    for socket in (sender, other):
        assert (await socket.receive_json())["round"] == 2
    for socket in (sender, touched, other):
        await socket.disconnect()


@pytest.mark.usefixtures("layer")
@pytest.mark.parametrize(("query", "groups"), [(b"", 2), (b"touched", 3)])
async def test_a_socket_leaves_its_groups(query: bytes, groups: int) -> None:
    socket = open_probe(query=query)
    await socket.connect()
    await socket.receive_json()
    assert len(get_channel_layer().groups) == groups
    await socket.disconnect()
    assert get_channel_layer().groups == {}


@pytest.mark.usefixtures("layer")
@pytest.mark.parametrize(
    ("token", "headers"),
    [
        (TOKEN, []),
        (TOKEN, [(b"authorization", b"Bearer wrong")]),
        (TOKEN, [(b"authorization", TOKEN.encode())]),
        ("", []),
        ("", [(b"authorization", b"Bearer ")]),
    ],
)
async def test_no_probe_without_the_token(token: str, headers: list[tuple[bytes, bytes]]) -> None:
    assert not await open_probe(token=token, headers=headers).connect()


@pytest.mark.parametrize(
    "path", ["/-/", "/-/live", "/-/probe/run/", "/-/probe/run/1", "/-/probe/r%20n/1/"]
)
async def test_other_sockets_of_the_wrapper_are_refused(path: str) -> None:
    socket = Socket(serving(), path, AUTHORIZED)
    assert not await socket.connect()


@pytest.mark.usefixtures("layer")
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"bytes": b"\x01"}, 1003),
        ({"text": "{"}, 1007),
        ({"text": "[1]"}, 1007),
        ({"text": "{}"}, 1007),
        ({"text": '{"round": "1"}'}, 1007),
        ({"text": '{"round": true}'}, 1007),
        ({"text": '{"round": -1}'}, 1007),
        ({"text": '{"round": 9223372036854775808}'}, 1007),
    ],
)
async def test_a_malformed_frame_closes_the_socket(frame: dict[str, Any], code: int) -> None:
    socket = open_probe()
    await socket.connect()
    await socket.receive_json()
    await socket.send(**frame)
    # What is behind it is dropped, and not answered by a second close.
    await socket.send(**frame)
    close = await socket.receive_output()
    assert (close["type"], close["code"]) == ("websocket.close", code)
    assert close["reason"]
    await socket.disconnect()
    assert socket.output_queue.empty()


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ConnectionError("redis://:hidden@10.0.0.1")


@pytest.mark.parametrize(("fault", "name"), [(hang, "TimeoutError"), (fail, "ConnectionError")])
@pytest.mark.parametrize("step", ["group_add", "group_send"])
async def test_a_faulty_layer_closes_the_socket_with_the_reason(
    break_layer: Any, fault: Any, name: str, step: str
) -> None:
    break_layer(fault, step, "group_discard")
    socket = open_probe(ready_timeout=SOON)
    assert await socket.connect()
    assert await socket.receive_output() == {
        "type": "websocket.close",
        "code": 1011,
        "reason": f"channel layer: {name}",
    }
    await socket.disconnect()


async def test_a_layer_that_fails_at_a_round_closes_the_socket(break_layer: Any) -> None:
    fails = False

    async def fault() -> None:
        if fails:
            await fail()

    break_layer(fault, "group_send")
    socket = open_probe()
    assert await socket.connect()
    await socket.receive_json()
    fails = True
    await socket.send(text='{"round": 1}')
    close = await socket.receive_output()
    assert (close["code"], close["reason"]) == (1011, "channel layer: ConnectionError")
    await socket.disconnect()


async def test_there_is_no_hello_before_the_socket_has_heard_itself(break_layer: Any) -> None:
    delivers = asyncio.Event()
    break_layer(delivers.wait, "group_send")
    socket = open_probe(ready_timeout=10)
    assert await socket.connect()
    assert await socket.is_silent()
    delivers.set()
    assert (await socket.receive_json())["type"] == "hello"
    await socket.disconnect()
    assert get_channel_layer().groups == {}


async def test_a_layer_that_fails_to_receive_closes_the_socket_with_the_reason(
    break_layer: Any,
) -> None:
    fails = asyncio.Event()

    async def fault() -> None:
        await fails.wait()
        raise TimeoutError("redis://:hidden@10.0.0.1")

    break_layer(fault, "second receive")
    socket = open_probe()
    assert await socket.connect()
    assert (await socket.receive_json())["type"] == "hello"
    fails.set()
    close = await socket.receive_output()
    assert (close["code"], close["reason"]) == (1011, "channel layer: TimeoutError")
    await socket.wait()
    assert get_channel_layer().groups == {}


async def test_without_a_layer_the_socket_is_closed_with_the_reason(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}
    socket = open_probe()
    assert await socket.connect()
    close = await socket.receive_output()
    assert close["reason"] == "channel layer: no default channel layer is configured"
    await socket.disconnect()


@pytest.mark.parametrize("token", [TOKEN, "wrong", f"former {TOKEN}"])
async def test_the_application_does_not_see_the_token_of_a_proof(token: str) -> None:
    seen: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "websocket.close"})

    settings = ServingSettings("unused:unused", "app1:8001", "r1", TOKEN, max_sockets=1)
    given = Serving(application, settings)
    given.sockets.client_places.taken = 1
    headers = [(b"x-channels-kit-probe", token.encode()), (b"origin", b"https://a.example")]
    scope = {"type": "websocket", "path": "/rooms/1/", "headers": headers}
    communicator = Communicator(given, scope)
    await communicator.send_input({"type": "websocket.connect"})
    answer = await communicator.receive_output(1)
    # A worker that is full takes a proof, and nobody who does not show its token.
    assert bool(seen) == (token != "wrong")
    assert answer["type"] == "websocket.close"
    for each in seen:
        assert each["headers"] == [(b"origin", b"https://a.example")]
