"""The WebSocket of a client, for a process that holds hundreds of them.

`picows` parses the frames in C and calls a listener with each of them. This module adds what it
leaves to its callers: messages in several frames, the closing handshake, and a clean end of a
handshake that is given up.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

try:
    from picows import (
        WSAutoPingStrategy,
        WSCloseCode,
        WSError,
        WSFrame,
        WSHandshakeError,
        WSListener,
        WSMsgType,
        WSParsedURL,
        WSProtocolError,
        WSTransport,
        ws_connect,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"channels_kit.load needs {error.name}: pip install 'channels-kit[load]'", name=error.name
    ) from error

MAX_SIZE = 2**24
"""Bytes a message may have: a page of history has the most."""

BUFFER_SIZE = 2**14
"""Bytes of a connection's read buffer; it grows with the longest frame."""

PING_INTERVAL = 10.0
"""Seconds without data before a ping, and for its answer: a dead connection is left after both."""

CLOSE_TIMEOUT = 10.0
"""Seconds the server has to end the connection after its closing frame."""

USER_AGENT = "channels-kit-load"
"""How the handshakes are recognised in the log of an edge."""

NO_CODE = 1005
"""The close code of a closing frame without one."""

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_CLOSE = WSMsgType.CLOSE

# At DEBUG, picows logs the request line with its token; below ERROR, every connection.
_logger = logging.getLogger(__name__)
_logger.setLevel(logging.ERROR)

Listener = Callable[[str | bytes], None]


class Refused(Exception):  # noqa: N818 - an answer, as certain as any
    """The server answered the handshake with something else than a WebSocket.

    Attributes:
        status: the HTTP status.
        retry_after: the header Retry-After; empty where there was none.
    """

    def __init__(self, status: int, retry_after: str = "") -> None:
        super().__init__(f"answered {status}")
        self.status = status
        self.retry_after = retry_after


class Closed(Exception):  # noqa: N818 - every connection ends
    """The connection ended.

    Attributes:
        code: the close code of the server; None where the connection was lost without one.
        reason: what the server, or the error on this side, gave as the reason.
    """

    def __init__(self, code: int | None, reason: str = "") -> None:
        what = "the connection was lost" if code is None else f"closed with {code}"
        super().__init__(f"{what}: {reason}" if reason else what)
        self.code = code
        self.reason = reason


class Wire(WSListener):
    """A connection whose messages go to a listener while they are read."""

    def __init__(self) -> None:
        # When the server's closing frame came, in seconds of the monotonic clock.
        self.closed_at: float | None = None
        self._transport: WSTransport
        self._listener: Listener | None = None
        # Messages that came before there was a listener.
        self._early: list[str | bytes] = []
        # What the listener raised; the connection is aborted after it.
        self._fault: Exception | None = None
        # Whether nothing more is handed on: after a closing frame, or a fault.
        self._over = False
        # What came of a message in several frames, and whether it is text.
        self._begun: bytearray | None = None
        self._is_text = False

    def listen(self, listener: Listener) -> None:
        """Hand on every message, and first those that have come already."""
        self._listener = listener
        try:
            for message in self._early:
                listener(message)
        except Exception as error:
            self._fail(error)
        self._early.clear()

    def send(self, message: str) -> None:
        """Send a message; it is dropped where the connection has ended."""
        self._transport.send(_TEXT, message)

    def abort(self) -> None:
        """End the connection at once, without a closing frame."""
        self._over = True
        self._transport.disconnect(graceful=False)

    async def ended(self) -> None:
        """Wait for the end of the connection.

        Raises:
            Closed: it ended.
            Exception: what the listener raised; that was the end.
        """
        try:
            await self._transport.wait_disconnected()
        except WSProtocolError as error:
            raise Closed(None, str(error)) from error
        if self._fault is not None:
            raise self._fault
        handshake = self._transport.close_handshake
        if handshake is None or handshake.recv is None:
            raise Closed(None)
        # 0 is how picows says that there was none.
        code = handshake.recv.code.value or NO_CODE
        raise Closed(code, handshake.recv.reason or "")

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin to use the connection."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame; a ping, or the answer to one, never comes here."""
        if self._over:
            return
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._over = True
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "a reserved bit is set")
        if kind == _CLOSE:
            self._close(frame)
            return
        try:
            if kind == _TEXT and frame.fin and self._begun is None:
                self._hand_on(frame.get_payload_as_utf8_text())
            elif kind in (_TEXT, _BINARY, _CONTINUATION):
                self._add(frame)
        except Exception as error:
            self._fail(error)

    def pause_writing(self) -> None:
        """Go on: what clients send is little, and kept until the server takes it."""

    def resume_writing(self) -> None:
        """Go on."""

    def _close(self, frame: WSFrame) -> None:
        """Answer a closing frame; the server is the one to end the connection then."""
        self.closed_at = monotonic()
        self._over = True
        code = frame.get_close_code()
        self._transport.send_close(WSCloseCode.OK if code == WSCloseCode.NO_INFO else code)
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.disconnect, False)

    def _add(self, frame: WSFrame) -> None:
        """Take a data frame that is not a whole message of text."""
        begins = frame.msg_type != _CONTINUATION
        if begins is (self._begun is not None):
            raise ValueError("a message starts inside another, or a continuation has no start")
        if self._begun is None:
            self._begun, self._is_text = bytearray(), frame.msg_type == _TEXT
        self._begun += frame.get_payload_as_memoryview()
        if len(self._begun) > MAX_SIZE:
            raise ValueError("a message is too long")
        if frame.fin:
            message, self._begun = bytes(self._begun), None
            self._hand_on(message.decode() if self._is_text else message)

    def _hand_on(self, message: str | bytes) -> None:
        if self._listener is None:
            self._early.append(message)
        else:
            self._listener(message)

    def _fail(self, error: Exception) -> None:
        self._fault = error
        self.abort()


async def connect(url: str, *, origin: str, timeout: float) -> Wire:  # noqa: ASYNC109
    """Open a WebSocket, without a proxy and without following a redirect.

    Args:
        url: its `ws://` or `wss://` URL.
        origin: the Origin header.
        timeout: seconds for the whole handshake.

    Raises:
        Refused: the server answered with another status than 101.
        OSError: there was no connection, or no answer that makes sense; TimeoutError is one.
    """
    dialled: list[socket.socket] = []

    async def dial(target: WSParsedURL) -> socket.socket:
        dialled.append(await _dial(target.host, target.port))
        return dialled[-1]

    wire: Wire | None = None
    try:
        async with asyncio.timeout(timeout):
            _, listener = await ws_connect(
                Wire,
                url,
                extra_headers={"Origin": origin, "User-Agent": USER_AGENT},
                websocket_handshake_timeout=None,
                enable_auto_ping=True,
                auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
                auto_ping_idle_timeout=PING_INTERVAL,
                auto_ping_reply_timeout=PING_INTERVAL,
                max_frame_size=MAX_SIZE,
                max_redirects=0,
                proxy=None,
                read_buffer_init_size=BUFFER_SIZE,
                socket_factory=dial,
                use_aiofastnet=False,
                logger_name=_logger,
            )
            # Where the connection is lost before the answer, picows returns no listener.
            wire = listener if isinstance(listener, Wire) else None
    except WSHandshakeError as error:
        if (status := _status(error.raw_header or b"")) not in (None, 101):
            headers = error.response.headers if error.response is not None else {}
            raise Refused(status, headers.get("Retry-After", "")) from error
        raise OSError(f"not the answer of a WebSocket server ({type(error).__name__})") from error
    except WSError as error:
        raise OSError(f"not the answer of a WebSocket server ({type(error).__name__})") from error
    finally:
        if wire is None:
            # A handshake that is given up leaves its connection open. Its transport owns the
            # socket, and closes it when it reads the end.
            for each in dialled:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
    if wire is None:
        raise OSError("the connection was lost")
    return wire


async def _dial(host: str, port: int) -> socket.socket:
    """Return a connected socket, from the first address of `host` that takes one."""
    loop = asyncio.get_running_loop()
    refusal: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        dialled = socket.socket(family, kind, protocol)
        dialled.setblocking(False)
        try:
            await loop.sock_connect(dialled, address)
        except BaseException as error:
            dialled.close()
            if not isinstance(error, OSError):
                raise
            refusal = refusal or error
        else:
            return dialled
    raise refusal or OSError(f"{host} has no address")


def _status(head: bytes) -> int | None:
    """Return the status of an answer's head: picows knows the registered ones only."""
    parts = head.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None
