"""The connection of a client, against a server that sends what a test gives it, byte for byte."""

import asyncio
import logging
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha1
from time import monotonic

import pytest
from websockets.frames import Close, Frame, Opcode

from channels_kit.load import wire
from channels_kit.load.wire import Closed, Refused, Wire, connect

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Server:
    """One whose answers to handshakes a test chooses, and all that comes after."""

    def __init__(self) -> None:
        # What a handshake is answered with in the place of a WebSocket; b"" to hang up.
        self.answer: bytes | None = None
        # Whether handshakes get no answer at all.
        self.silent = False
        # What goes out with the answer, and how many bytes at a time.
        self.first = b""
        self.size: int | None = None
        # The head of the last handshake.
        self.request = b""
        self.url = ""
        # Set when a handshake has come, and when its connection has ended.
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        if self.silent:
            with suppress(ConnectionError):
                await reader.read()
            self.left.set()
            writer.close()
            return
        if self.answer is not None:
            writer.write(self.answer)
            if not self.answer:
                writer.close()
            return
        key = self.request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        accept = b64encode(sha1(key + GUID).digest())
        await self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self.first
        )

    async def send(self, data: bytes) -> None:
        size = self.size or len(data)
        for begin in range(0, len(data), size):
            self.writer.write(data[begin : begin + size])
            await self.writer.drain()
            # Lets the client read before the next piece.
            await asyncio.sleep(0)

    async def received(self) -> tuple[Opcode, bytes]:
        """Return the next frame of the client, which is short and masked."""
        async with asyncio.timeout(10):
            head = await self.reader.readexactly(2)
            mask = await self.reader.readexactly(4)
            body = await self.reader.readexactly(head[1] & 0x7F)
        return Opcode(head[0] & 0x0F), bytes(b ^ mask[i % 4] for i, b in enumerate(body))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/room?token=secret"
    yield server
    listening.close()
    if hasattr(server, "writer"):
        server.writer.close()


async def connected(server: Server) -> Wire:
    return await connect(server.url, origin="http://page", timeout=10)


class Heard(list[str | bytes]):
    """What a connection has handed on, for tests that wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def append(self, message: str | bytes) -> None:
        super().append(message)
        self.more.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self) < count:
                self.more.clear()
                await self.more.wait()


async def end_of(connection: Wire) -> Exception:
    async with asyncio.timeout(10):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is, the test says
            await connection.ended()
    return caught.value


def frame(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


def text(message: str) -> bytes:
    return frame(Opcode.TEXT, message.encode())


def stream(*lengths: int) -> tuple[list[str | bytes], bytes]:
    """Return messages, and the bytes that make them."""
    texts = ["ü" * (length // 2) + "u" * (length % 2) for length in lengths]
    data = b"".join(
        [
            *map(text, texts),
            # In pieces, cut within a character, with a ping in between.
            frame(Opcode.TEXT, b"na\xc3", fin=False),
            frame(Opcode.PING, b"there?"),
            frame(Opcode.CONT, b"", fin=False),
            frame(Opcode.CONT, b"\xafve"),
            frame(Opcode.BINARY, b"\xff\0"),
        ]
    )
    return [*texts, "naïve", b"\xff\0"], data


@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        (None, (0, 1, 125, 126, 127, 65535, 65536, 100_000)),
        (4096, (125, 126, 65536)),
        (1, (0, 1, 126)),
        (3, (125, 127)),
        # A long page of history.
        (None, (12 * 2**20,)),
    ],
)
async def test_any_pieces_make_the_same_messages(
    server: Server, size: int | None, lengths: tuple[int, ...]
) -> None:
    messages, data = stream(*lengths)
    server.size, server.first = size, data
    connection = await connected(server)
    heard = Heard()
    connection.listen(heard.append)
    await heard.until(len(messages))
    await server.send(data)
    await heard.until(2 * len(messages))
    assert heard == [*messages, *messages]
    connection.abort()


async def test_what_came_before_there_was_a_listener_is_not_lost(server: Server) -> None:
    connection = await connected(server)
    await server.send(text("a") + frame(Opcode.PING, b"?"))
    # Answered when what was sent before it has been read.
    assert await server.received() == (Opcode.PONG, b"?")
    heard = Heard()
    connection.listen(heard.append)
    assert heard == ["a"]
    connection.abort()


async def test_the_handshake_is_that_of_a_page(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    connection = await connected(server)
    head, *headers = server.request.decode().split("\r\n")
    assert head == "GET /room?token=secret HTTP/1.1"
    assert "Origin: http://page" in headers
    assert "User-Agent: channels-kit-load" in headers
    assert not [header for header in headers if header.startswith("Sec-WebSocket-Extensions")]
    connection.abort()


@pytest.mark.parametrize("size", [None, 1])
async def test_a_refusal_that_has_a_body_is_an_answer(server: Server, size: int | None) -> None:
    """As nginx gives one; taken for silence, it would be waited for."""
    server.size = size
    server.answer = (
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 12\r\n\r\n"
        b"come\r\n\r\nback"
    )
    with pytest.raises(Refused, match="answered 503") as refused:
        await connected(server)
    assert (refused.value.status, refused.value.retry_after) == (503, "5")


@pytest.mark.parametrize("status", [302, 404, 499, 520])
async def test_any_status_is_a_refusal(server: Server, status: int) -> None:
    """A redirect is not followed; proxies make up statuses of their own."""
    server.answer = f"HTTP/1.1 {status} No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".encode()
    with pytest.raises(Refused) as refused:
        await connected(server)
    assert (refused.value.status, refused.value.retry_after) == (status, "")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was lost"),
        (b"220 mail.example ESMTP\r\n\r\n", "not the answer of a WebSocket server"),
        (b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\n\r\n", "not the answer of a WebSocket server"),
        (b"HTTP/1.1 101 Go\r\nA: " + b"a" * 20_000, "not the answer of a WebSocket server"),
    ],
)
async def test_an_answer_that_is_none_is_no_connection(
    server: Server, answer: bytes, words: str
) -> None:
    server.answer = answer
    with pytest.raises(OSError, match=words):
        await connected(server)


async def test_a_server_that_does_not_listen_is_no_connection() -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect("ws://127.0.0.1:1/", origin="http://page", timeout=10)


@pytest.mark.parametrize("given_up_by", ["timeout", "cancel"])
async def test_a_handshake_that_is_given_up_leaves_no_connection(
    server: Server, given_up_by: str
) -> None:
    server.silent = True
    timeout = 0.05 if given_up_by == "timeout" else 10
    connecting = asyncio.create_task(connect(server.url, origin="http://page", timeout=timeout))
    await server.asked.wait()
    if given_up_by == "cancel":
        connecting.cancel()
    with pytest.raises((TimeoutError, asyncio.CancelledError)):
        await connecting
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_a_ping_is_answered(server: Server) -> None:
    connection = await connected(server)
    await server.send(frame(Opcode.PING, b"?"))
    assert await server.received() == (Opcode.PONG, b"?")
    connection.abort()


async def test_a_dead_connection_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PING_INTERVAL", 0.05)
    connection = await connected(server)
    assert await server.received() == (Opcode.PING, b"")
    await server.send(frame(Opcode.PONG, b""))
    # It is alive; the next ping gets no answer.
    assert await server.received() == (Opcode.PING, b"")
    error = await end_of(connection)
    assert isinstance(error, Closed)
    assert error.code is None


async def test_what_is_sent_arrives(server: Server) -> None:
    connection = await connected(server)
    connection.send("hällo")
    assert await server.received() == (Opcode.TEXT, "hällo".encode())
    connection.abort()
    await end_of(connection)
    connection.send("too late")


@pytest.mark.parametrize(
    ("close", "code", "words"),
    [
        (Close(1012, "").serialize(), 1012, "closed with 1012"),
        (Close(4003, "no such room").serialize(), 4003, "closed with 4003: no such room"),
        (b"", 1005, "closed with 1005"),
    ],
)
async def test_nothing_comes_after_the_closing_frame(
    server: Server, close: bytes, code: int, words: str
) -> None:
    connection = await connected(server)
    heard = Heard()
    connection.listen(heard.append)
    assert connection.closed_at is None
    before = monotonic()
    await server.send(text("a") + frame(Opcode.CLOSE, close) + text("b"))
    opcode, body = await server.received()
    assert opcode is Opcode.CLOSE
    assert Close.parse(body).code == (1000 if code == 1005 else code)
    await server.send(text("c"))
    assert connection.closed_at is not None
    assert before <= connection.closed_at <= monotonic()
    # The server is the one to end it.
    server.writer.close()
    error = await end_of(connection)
    assert isinstance(error, Closed)
    assert (error.code, str(error)) == (code, words)
    assert heard == ["a"]


async def test_a_server_that_does_not_end_a_closed_connection_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "CLOSE_TIMEOUT", 0.01)
    connection = await connected(server)
    await server.send(frame(Opcode.CLOSE, Close(1012, "").serialize()))
    error = await end_of(connection)
    assert isinstance(error, Closed)
    assert error.code == 1012


async def test_a_connection_that_is_cut_has_no_code(server: Server) -> None:
    server.first = text("a")[:2]
    connection = await connected(server)
    connection.listen(lambda message: None)
    server.writer.transport.abort()
    error = await end_of(connection)
    assert isinstance(error, Closed)
    assert (error.code, str(error)) == (None, "the connection was lost")
    assert connection.closed_at is None


@pytest.mark.parametrize("early", [True, False])
async def test_what_the_listener_raises_is_the_end(server: Server, early: bool) -> None:
    heard: list[str | bytes] = []

    def listener(message: str | bytes) -> None:
        heard.append(message)
        raise LookupError(message)

    connection = await connected(server)
    if not early:
        connection.listen(listener)
    await server.send(text("a") + text("b") + frame(Opcode.PING, b"?"))
    if early:
        assert await server.received() == (Opcode.PONG, b"?")
        connection.listen(listener)
    error = await end_of(connection)
    assert isinstance(error, LookupError)
    assert heard == ["a"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.TEXT, b"a", mask=True), 1002),
        (b"\xc1\x01a", 1002),
        (b"\x83\x01a", 1002),
        (b"\x81\x7f" + (wire.MAX_SIZE + 1).to_bytes(8), 1009),
    ],
    ids=["masked", "reserved bit", "reserved opcode", "too long"],
)
async def test_a_frame_that_no_server_sends_is_the_end(
    server: Server, data: bytes, code: int
) -> None:
    connection = await connected(server)
    heard = Heard()
    connection.listen(heard.append)
    await server.send(text("a"))
    await heard.until(1)
    await server.send(data + text("b"))
    opcode, body = await server.received()
    assert (opcode, Close.parse(body).code) == (Opcode.CLOSE, code)
    error = await end_of(connection)
    assert isinstance(error, Closed)
    assert error.code is None
    assert heard == ["a"]


@pytest.mark.parametrize(
    "data",
    [
        frame(Opcode.CONT, b"a"),
        frame(Opcode.TEXT, b"a", fin=False) + text("b"),
        frame(Opcode.TEXT, b"\xff"),
    ],
    ids=["nothing to go on with", "one within another", "no UTF-8"],
)
async def test_messages_that_make_no_sense_are_the_end(server: Server, data: bytes) -> None:
    connection = await connected(server)
    heard = Heard()
    connection.listen(heard.append)
    await server.send(data + text("c"))
    assert isinstance(await end_of(connection), ValueError)
    assert heard == []


async def test_a_message_of_many_frames_has_an_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_SIZE", 10)
    connection = await connected(server)
    heard = Heard()
    connection.listen(heard.append)
    await server.send(frame(Opcode.TEXT, b"12345", fin=False) + frame(Opcode.CONT, b"67890"))
    await heard.until(1)
    assert heard == ["1234567890"]
    await server.send(frame(Opcode.TEXT, b"12345", fin=False))
    await server.send(frame(Opcode.CONT, b"67890", fin=False) + frame(Opcode.CONT, b"1"))
    error = await end_of(connection)
    assert isinstance(error, ValueError)
    assert "too long" in str(error)


async def test_the_token_of_the_query_is_not_logged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.NOTSET)
    caplog.set_level(logging.DEBUG, "websockets")
    (await connected(server)).abort()
    assert b"secret" in server.request
    assert "secret" not in caplog.text
