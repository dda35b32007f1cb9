"""What the kit makes equal, under every server it knows: real processes, real clients."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from channels_kit.probe import Target, prove
from channels_kit.probe.__main__ import main
from channels_kit.serving import drain
from channels_kit.serving.places import HANDSHAKES

from .cluster import SERVERS, Cluster, Redis, Worker
from .conftest import TOKEN

CLOSE = Close(1012, "The worker restarts.")

# What the tests' application sends at once, where it sends much.
LARGE = 16 * 2**20

# Seconds, much more than any of these tests may take; what a worker has to stop.
LONG = 60

# Seconds in which one stops that has nothing to wait for.
PROMPTLY = 10

Release = Callable[[], None]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Have the application give what it withholds."""
    return Path(tmp_path / "release").touch


@pytest.fixture
def worker(server: str, tmp_path: Path) -> Iterator[Worker]:
    """A worker that would take long to stop: nothing here may count on that."""
    environment = {
        "SERVED_RELEASE": os.fspath(tmp_path / "release"),
        "CHANNELS_KIT_HANDSHAKE_TIMEOUT": "10",
        "CHANNELS_KIT_DRAIN_PACE": "200",
    }
    with Worker("app1:8001", environment, server, grace=LONG) as worker:
        assert worker.port
        yield worker


async def opened(worker: Worker, path: str, **headers: str) -> ClientConnection:
    return await connect(f"{worker.ws_url}{path}", additional_headers=headers, proxy=None)


async def close_of(client: ClientConnection) -> Close | None:
    """Return the close frame that the worker has sent; None where there is none."""
    async with asyncio.timeout(LONG):
        try:
            while True:
                await client.recv()
        except ConnectionClosed as closed:
            return closed.rcvd


async def refusal_of(worker: Worker, path: str) -> Response:
    with pytest.raises(InvalidStatus) as caught:
        await opened(worker, path)
    return caught.value.response


async def drained(worker: Worker) -> int:
    arguments = [f"{worker.url}/-/live", f"--process={worker.popen.pid}", f"--timeout={LONG}"]
    return await asyncio.to_thread(drain.main, arguments)


async def said(worker: Worker, pattern: str) -> None:
    await asyncio.to_thread(worker.wait_for, pattern)


async def stopped(worker: Worker) -> int:
    """Send SIGTERM; return the exit code, once it has ended."""
    worker.popen.send_signal(signal.SIGTERM)
    return await asyncio.to_thread(worker.popen.wait, PROMPTLY)


async def proof_of(worker: Worker, seconds: float = 10) -> str:
    """Prove that the worker delivers to itself; return why it does not, or "proved"."""
    report = await prove([Target(worker.name, worker.url)], token=TOKEN, timeout=seconds)
    return "proved" if report.ok else str(report.parts[0].endpoints[0].failure)


def get(worker: Worker, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", worker.port, timeout=LONG)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()


def unread(worker: Worker, path: str) -> socket.socket:
    """Open a WebSocket whose client does nothing any more: no reading, no answering."""
    client = socket.create_connection(("127.0.0.1", worker.port))
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {worker.name}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert client.recv(12) == b"HTTP/1.1 101"
    return client


async def test_a_drain_and_the_end(worker: Worker) -> None:
    clients = [await opened(worker, "/still/") for _ in range(20)]
    assert await drained(worker) == 0
    assert [await close_of(client) for client in clients] == [CLOSE] * 20
    # The application's disconnect has run for each, and it was told the same.
    await said(worker, r"(?s)(disconnected: 1012.*){20}")

    response = await refusal_of(worker, "/still/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert b'sockets_closed_total{code="1012"} 20.0\n' in get(worker, "/-/metrics")[1]
    assert get(worker, "/-/ready")[0].status == 503

    assert await stopped(worker) in (0, -signal.SIGTERM)
    assert "Traceback" not in "".join(worker.output)


async def test_a_handshake_under_way_when_the_drain_begins(
    worker: Worker, release: Release
) -> None:
    connecting = asyncio.create_task(opened(worker, "/late/"))
    await said(worker, "late: begun")
    worker.popen.send_signal(drain.DRAIN_SIGNAL)
    await said(worker, "draining: 0 sockets")
    release()
    assert await close_of(await connecting) == CLOSE
    await said(worker, "disconnected: 1012")


async def test_a_request_in_flight_is_waited_for(worker: Worker, release: Release) -> None:
    asking = asyncio.create_task(asyncio.to_thread(get, worker, "/slow/"))
    await said(worker, "slow: begun")
    draining = asyncio.create_task(drained(worker))
    await said(worker, "draining: 0 sockets")
    # The answer that comes back is younger than the drain, which is not at its end.
    assert b'"requests": 1' in (await asyncio.to_thread(get, worker, "/-/live"))[1]
    assert not draining.done()
    release()
    response, body = await asking
    assert (response.status, body) == (200, b"the application's own")
    assert response.headers.get_all("Connection") == ["close"]
    assert await draining == 0
    assert await stopped(worker) in (0, -signal.SIGTERM)


def stream_of(worker: Worker, path: str) -> tuple[HTTPConnection, HTTPResponse]:
    """Open a streaming response, of which something has come."""
    connection = HTTPConnection("127.0.0.1", worker.port, timeout=LONG)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.readline() == b"data: 1\n"
    return connection, response


def rest_of(response: HTTPResponse) -> bytes:
    """Return what comes of a stream until its end, which has to come promptly."""
    deadline = time.monotonic() + PROMPTLY
    content = b""
    while time.monotonic() < deadline:
        piece = response.read1()
        if not piece:
            return content
        content += piece
    raise AssertionError("the stream goes on")


@pytest.fixture
def streaming(server: str, tmp_path: Path) -> Iterator[Worker]:
    """A worker whose streams have half a second."""
    environment = {
        "SERVED_RELEASE": os.fspath(tmp_path / "release"),
        "CHANNELS_KIT_STREAM_GRACE": "0.5",
    }
    with Worker("app1:8001", environment, server, grace=LONG) as worker:
        assert worker.port
        yield worker


async def test_a_drain_tells_streams_and_waits_for_requests(
    server: str, streaming: Worker, release: Release
) -> None:
    worker = streaming
    connection, events = await asyncio.to_thread(stream_of, worker, "/stream/")
    asking = asyncio.create_task(asyncio.to_thread(get, worker, "/slow/"))
    await said(worker, "slow: begun")
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(b"POST /upload/ HTTP/1.1\r\nHost: app1\r\nContent-Length: 10\r\n\r\nfirst")
    if server != "daphne":
        # That one reads a body to its end before it tells the application.
        await said(worker, "upload: begun")
    client = await opened(worker, "/still/")
    draining = asyncio.create_task(drained(worker))
    # Sockets do not wait for a stream.
    assert await close_of(client) == CLOSE
    # The client has the stream to its end, and connects again.
    with closing(connection):
        assert (await asyncio.to_thread(rest_of, events)).endswith(b"data: 1\n\n")
    await said(worker, "stream: http.disconnect")
    # What has no answer yet is not told, and comes to its end.
    assert not draining.done()
    release()
    assert (await asking)[1] == b"the application's own"
    if server != "daphne":
        assert not draining.done()
    writer.write(b"again")
    await reader.readuntil(b"\r\n\r\n10")
    writer.close()
    assert await draining == 0
    assert await stopped(worker) in (0, -signal.SIGTERM)
    assert "Traceback" not in "".join(worker.output)


async def test_a_stream_that_does_not_listen_ends_as_well(streaming: Worker) -> None:
    worker = streaming
    connection, events = await asyncio.to_thread(stream_of, worker, "/stream/deaf/")
    with closing(connection):
        assert await drained(worker) == 0
        assert (await asyncio.to_thread(rest_of, events)).endswith(b"data: 1\n\n")
    assert await stopped(worker) in (0, -signal.SIGTERM)


async def test_a_stream_that_begins_in_a_drain_holds_up_no_end(streaming: Worker) -> None:
    worker = streaming
    # The wrapper takes the signal from its first call on.
    await asyncio.to_thread(get, worker, "/-/live")
    worker.popen.send_signal(drain.DRAIN_SIGNAL)
    await said(worker, "draining: 0 sockets")
    connection, events = await asyncio.to_thread(stream_of, worker, "/stream/")
    with closing(connection):
        stopping = asyncio.create_task(stopped(worker))
        await asyncio.to_thread(rest_of, events)
        assert await stopping in (0, -signal.SIGTERM)


async def test_an_unfinished_stream_is_seen_to_be_unfinished(streaming: Worker) -> None:
    """A file that is cut looks cut; only events have no end that could be missed."""
    worker = streaming
    connection, events = await asyncio.to_thread(stream_of, worker, "/stream/csv/")
    with closing(connection):
        assert await drained(worker) == 0
        stopping = asyncio.create_task(stopped(worker))
        with pytest.raises((IncompleteRead, ConnectionError)):
            await asyncio.to_thread(rest_of, events)
        assert await stopping in (0, -signal.SIGTERM)


async def test_sigterm_waits_for_a_request_in_flight(worker: Worker, release: Release) -> None:
    """For what nginx sends between the end of the drain and SIGTERM."""
    asking = asyncio.create_task(asyncio.to_thread(get, worker, "/slow/"))
    await said(worker, "slow: begun")
    # Daphne remembers the upgrade for a second, as a request without an application.
    async with await opened(worker, "/still/"):
        pass
    stopping = asyncio.create_task(stopped(worker))
    # It takes nobody any more.
    async with asyncio.timeout(LONG):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", worker.port)
            except OSError:
                break
            writer.close()
    # It has its time, of which this is a little.
    done, _ = await asyncio.wait({stopping}, timeout=0.5)
    assert not done
    release()
    response, body = await asking
    assert (response.status, body) == (200, b"the application's own")
    assert await stopping in (0, -signal.SIGTERM)


async def test_sigterm_ends_open_connections_within_the_grace(server: str) -> None:
    """Where the drain was not through: Python 3.12 lets a server wait for every connection."""
    with Worker("app1:8001", {}, server, grace=1) as worker:
        idle = HTTPConnection("127.0.0.1", worker.port, timeout=LONG)
        with closing(idle), unread(worker, "/still/"):
            idle.request("GET", "/-/live")
            assert idle.getresponse().read()
            async with await opened(worker, "/still/"):
                assert await stopped(worker) in (0, -signal.SIGTERM)


async def test_sigterm_cuts_no_answer_short(worker: Worker) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port, limit=2**16)
    writer.write(b"GET /large/ HTTP/1.1\r\nHost: app1\r\nConnection: close\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    stopping = asyncio.create_task(stopped(worker))
    received = 0
    while data := await reader.read(2**16):
        received += len(data)
    assert received == LARGE
    writer.close()
    await stopping


async def test_clients_that_do_not_answer_hold_up_nobody(worker: Worker) -> None:
    clients = [await opened(worker, "/still/") for _ in range(5)]
    with unread(worker, "/still/"), unread(worker, "/flood/"):
        await said(worker, "flood: begun")
        draining = asyncio.create_task(drained(worker))
        assert [await close_of(client) for client in clients] == [CLOSE] * 5
        # It ends, and their disconnect has run as well.
        assert await draining == 0
        await said(worker, r"(?s)(disconnected: 1012.*){7}")


async def test_closes_and_refusals_are_the_applications(worker: Worker) -> None:
    assert await close_of(await opened(worker, "/leave/")) == Close(1011, "an error of mine")
    response = await refusal_of(worker, "/refuse/")
    assert (response.status_code, response.headers["X-Why"]) == (418, "teapot")
    assert bytes(response.body or b"") == b"short and stout"
    assert await stopped(worker) in (0, -signal.SIGTERM)


async def test_an_application_that_does_not_answer(server: str) -> None:
    with Worker("app1:8001", {"CHANNELS_KIT_HANDSHAKE_TIMEOUT": "0.2"}, server) as worker:
        assert (await refusal_of(worker, "/mute/")).status_code == 504


async def test_a_full_worker(server: str) -> None:
    environment = {"CHANNELS_KIT_MAX_SOCKETS": "1", "CHANNELS_KIT_PROBE_TOKEN": TOKEN}
    with Worker("app1:8001", environment, server) as worker:
        async with await opened(worker, "/still/"):
            assert await proof_of(worker) == "proved"
            response = await refusal_of(worker, "/still/")
            assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
            # Whoever does not show the token has none of the proof's places.
            assert (await refusal_of(worker, "/-/probe/run/1/")).status_code == 403
        # Nor does the proof have one of the clients'.
        async with (
            await opened(worker, "/-/probe/run/1/", Authorization=f"Bearer {TOKEN}"),
            await opened(worker, "/still/"),
        ):
            assert (await refusal_of(worker, "/still/")).status_code == 503


async def test_a_worker_with_all_handshakes_in_hand(server: str, tmp_path: Path) -> None:
    environment = {
        "SERVED_RELEASE": os.fspath(tmp_path / "release"),
        "CHANNELS_KIT_HANDSHAKE_TIMEOUT": str(LONG),
        "CHANNELS_KIT_PROBE_TOKEN": TOKEN,
    }
    with Worker("app1:8001", environment, server) as worker:
        assert worker.port
        connecting = [asyncio.create_task(opened(worker, "/late/")) for _ in range(HANDSHAKES)]
        await said(worker, rf"(?s)(?>.*?late: begun){{{HANDSHAKES}}}")
        assert (await refusal_of(worker, "/still/")).status_code == 503
        assert await proof_of(worker) == "proved"
        (tmp_path / "release").touch()
        for client in await asyncio.gather(*connecting):
            await client.close()


async def test_a_worker_that_drains_is_not_proved(server: str) -> None:
    with Worker("app1:8001", {"CHANNELS_KIT_PROBE_TOKEN": TOKEN}, server) as worker:
        assert worker.port
        assert await proof_of(worker) == "proved"
        worker.popen.send_signal(drain.DRAIN_SIGNAL)
        await said(worker, "draining: 0 sockets")
        failure = await proof_of(worker, seconds=0.5)
    assert failure.endswith(": answered 503 (This worker is draining.); tried again for 0.5 s")


async def test_no_server_logs_a_query(server: str) -> None:
    """Whatever levels the application's settings give: a query carries a user's token."""
    with Worker("app1:8001", {"SERVED_LOGS_ALL": "yes"}, server) as worker:
        async with await opened(worker, "/still/?token=hidden"):
            pass
        await said(worker, "disconnected: ")
        await refusal_of(worker, "/refuse/?token=hidden")
        assert get(worker, "/client/?token=hidden")[0].status == 200
        assert await stopped(worker) in (0, -signal.SIGTERM)
    assert "hidden" not in "".join(worker.output)


def test_a_variable_for_another_program_starts_no_more_processes(server: str) -> None:
    with Worker("app1:8001", {"WEB_CONCURRENCY": "3", "UVICORN_WORKERS": "3"}, server) as worker:
        assert get(worker, "/-/live")[0].status == 200
        process = worker.popen.pid
        assert Path(f"/proc/{process}/task/{process}/children").read_text() == ""


async def test_messages_have_their_limit(worker: Worker) -> None:
    for size in (2**20, 2**20 + 1):
        client = await opened(worker, "/echo/")
        await client.recv()
        await client.send("x" * size)
        if size == 2**20:
            assert await client.recv() == str(size)
            await client.close()
        else:
            close = await close_of(client)
            assert close is not None
            assert close.code == 1009


async def test_nothing_is_compressed(worker: Worker) -> None:
    async with await opened(worker, "/echo/") as client:
        assert client.request is not None
        assert client.response is not None
        assert "permessage-deflate" in client.request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_the_client_is_who_the_edge_says(worker: Worker) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    async with await opened(worker, "/echo/", **forwarded) as client:
        assert await client.recv() == "('203.0.113.7', 'wss')"
    assert get(worker, "/client/", **forwarded)[1] == b"('203.0.113.7', 'https')"


def test_delivery_is_proved(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNELS_KIT_PROBE_TOKEN", TOKEN)
    names = ["app1:8001", "app2:8002"]
    with Redis() as redis, Cluster(redis, TOKEN, names, server) as cluster:
        assert main(["matrix", "--hold=0", *cluster.arguments]) == 0
    assert "4 of 4 pairs, 20 of 20 deliveries" in capsys.readouterr().out
