"""The frames of a connection, cut out of what is read in whatever pieces."""

import asyncio
from time import monotonic

import pytest
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri
from websockets.utils import accept_key

from channels_kit.load import wire
from channels_kit.load.wire import Wire


class Network(asyncio.Transport):
    """Keeps what is sent; ends the connection when told so."""

    def __init__(self, connection: Wire) -> None:
        super().__init__()
        self.connection = connection
        self.sent = b""
        self.has_sent = asyncio.Event()
        self.closing = False
        connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)
        self.has_sent.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def deliver(self, data: bytes, size: int | None = None) -> None:
        """Let the connection read `data`, so many bytes at a time, until it has enough."""
        left = memoryview(data)
        while left and not self.closing:
            buffer = self.connection.get_buffer(-1)
            piece = left[: min(size or len(left), len(buffer))]
            buffer[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))
            left = left[len(piece) :]


async def connected(first: bytes = b"", size: int | None = None) -> tuple[Wire, Network]:
    """Return a connection after its handshake, whose answer came with `first`."""
    connection = Wire(ClientProtocol(parse_uri("ws://server/")), ping_interval=None)
    network = Network(connection)
    handshake = asyncio.create_task(connection.handshake())
    await network.has_sent.wait()
    assert connection.request is not None
    headers = Headers(
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Accept=accept_key(connection.request.headers["Sec-WebSocket-Key"]),
    )
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    network.deliver(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n".encode() + first, size)
    await handshake
    network.sent = b""
    return connection, network


def frame(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


def text(message: str) -> bytes:
    return frame(Opcode.TEXT, message.encode())


LENGTHS = (0, 1, 125, 126, 127, 65535, 65536, 100_000)
MESSAGES = [*("ü" * (length // 2) + "u" * (length % 2) for length in LENGTHS), "naïve", b"\xff\0"]
STREAM = b"".join(
    [
        *(text(message) for message in MESSAGES[: len(LENGTHS)] if isinstance(message, str)),
        # In pieces, cut within a character, with a question in between.
        frame(Opcode.TEXT, b"na\xc3", fin=False),
        frame(Opcode.PING, b"there?"),
        frame(Opcode.CONT, b"", fin=False),
        frame(Opcode.CONT, b"\xafve"),
        frame(Opcode.BINARY, b"\xff\0"),
    ]
)


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7, 126, 4096])
async def test_any_pieces_make_the_same_messages(size: int | None) -> None:
    connection, network = await connected(STREAM, size)
    heard: list[str | bytes] = []
    connection.listen(heard.append)
    assert heard == MESSAGES
    network.deliver(STREAM, size)
    assert heard == [*MESSAGES, *MESSAGES]


@pytest.mark.parametrize("size", [None, 1, 70])
async def test_a_refusal_that_has_a_body_is_an_answer(size: int | None) -> None:
    """As nginx gives one; taken for a silence, it would be waited for."""
    connection = Wire(ClientProtocol(parse_uri("ws://server/")), ping_interval=None)
    network = Network(connection)
    handshake = asyncio.create_task(connection.handshake())
    await network.has_sent.wait()
    head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 12\r\n\r\n"
    network.deliver(head.encode() + b"come\r\n\r\nback", size)
    async with asyncio.timeout(10):
        with pytest.raises(InvalidStatus) as refused:
            await handshake
    assert refused.value.response.headers["Retry-After"] == "5"
    assert refused.value.response.body == b"come\r\n\r\nback"


async def test_a_ping_is_answered() -> None:
    connection, network = await connected()
    network.deliver(frame(Opcode.PING, b"?"))
    assert network.sent[:2] == b"\x8a\x81"
    assert bytes(a ^ b for a, b in zip(network.sent[6:], network.sent[2:6], strict=False)) == b"?"
    waiting = await connection.ping(b"!")
    network.deliver(frame(Opcode.PONG, b"!"))
    await waiting


async def test_nothing_comes_after_the_closing_frame() -> None:
    connection, network = await connected()
    heard: list[str | bytes] = []
    connection.listen(heard.append)
    assert connection.closed_at is None
    before = monotonic()
    network.deliver(text("a") + frame(Opcode.CLOSE, Close(1012, "").serialize()) + text("b"))
    network.deliver(text("c"))
    assert connection.closed_at is not None
    assert before <= connection.closed_at <= monotonic()
    network.abort()
    with pytest.raises(ConnectionClosed) as caught:
        await connection.ended()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012
    assert heard == ["a"]


async def test_a_connection_that_is_cut_has_no_code() -> None:
    connection, network = await connected(text("a")[:2])
    connection.listen(lambda message: None)
    network.abort()
    with pytest.raises(ConnectionClosed) as caught:
        await connection.ended()
    assert caught.value.rcvd is None
    assert connection.closed_at is None


@pytest.mark.parametrize("early", [True, False])
async def test_what_the_listener_raises_is_the_end(early: bool) -> None:
    heard: list[str | bytes] = []

    def listener(message: str | bytes) -> None:
        heard.append(message)
        raise LookupError(message)

    frames = text("a") + text("b")
    connection, network = await connected(frames if early else b"")
    connection.listen(listener)
    if not early:
        network.deliver(frames)
    assert network.closing
    with pytest.raises(LookupError, match="a"):
        await connection.ended()
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
async def test_a_frame_that_no_server_sends_is_the_end(data: bytes, code: int) -> None:
    connection, network = await connected()
    connection.protocol.max_message_size = wire.MAX_SIZE
    heard: list[str | bytes] = []
    connection.listen(heard.append)
    network.deliver(text("a") + data)
    network.deliver(text("b"))
    network.abort()
    with pytest.raises(ConnectionClosed) as caught:
        await connection.ended()
    assert caught.value.sent is not None
    assert caught.value.sent.code == code
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
async def test_messages_that_make_no_sense_are_the_end(data: bytes) -> None:
    connection, network = await connected()
    heard: list[str | bytes] = []
    connection.listen(heard.append)
    network.deliver(data + text("c"))
    assert network.closing
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of them
        await connection.ended()
    assert heard == []


async def test_a_message_of_many_frames_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_SIZE", 10)
    connection, network = await connected()
    connection.listen(lambda message: None)
    network.deliver(frame(Opcode.TEXT, b"12345", fin=False))
    network.deliver(frame(Opcode.CONT, b"67890", fin=False))
    assert not network.closing
    network.deliver(frame(Opcode.CONT, b"1", fin=False))
    assert network.closing
    with pytest.raises(ValueError, match="too long"):
        await connection.ended()
