"""The connection of a client, for a process that holds hundreds of them.

A message costs `websockets` a parser that is resumed, a frame object, a queue and a task that is
woken: too much for all that hundreds of clients are told. Here it is cut out of what was read, and
handed on at once.
"""

from asyncio import BufferedProtocol
from collections.abc import Callable
from time import monotonic
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

MAX_SIZE = 2**24
"""Bytes a message may have: a page of history has the most."""

BUFFER_SIZE = 2**14
"""Bytes that are read at once, at most."""

END_OF_HEAD = b"\r\n\r\n"
"""What ends the answer to a handshake."""

FURTHER, TEXT, BINARY = range(3)
"""The opcodes of data frames: of one that goes on with a message, and of those that begin one."""

LAST = 0x80
"""The bit of a frame that ends its message."""

CLOSE = LAST | 0x8
"""How a closing frame begins."""

Listener = Callable[[str | bytes], None]


class Wire(ClientConnection, BufferedProtocol):
    """A connection whose messages go to a listener while they are read.

    The handshake, what is sent and the control frames are `websockets`' own. It gets none of the
    data frames, so nothing is received with `recv()`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # What is read goes here: for any other protocol asyncio takes and gives back 256 KiB of
        # memory each time, which costs more than all else that is done with a message.
        self._buffer = memoryview(bytearray(BUFFER_SIZE))
        # When the server's closing frame came, in seconds of the monotonic clock.
        self.closed_at: float | None = None
        self._listener: Listener | None = None
        # Messages that came before there was a listener.
        self._early: list[str | bytes] = []
        # What the listener raised; the connection is aborted after it.
        self._fault: Exception | None = None
        # Whether the head of the handshake's answer has come; one that refuses has a body, too.
        self._answered = False
        # Whether frames are cut here: after the handshake, until the end is in sight.
        self._cutting = False
        # What was read of something that has not come as a whole, and how long that is at least.
        self._rest = bytearray()
        self._whole = 0
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

    async def ended(self) -> None:
        """Wait for the end of the connection.

        Raises:
            ConnectionClosed: it ended.
            Exception: what the listener raised; that was the end.
        """
        await self.wait_closed()
        raise self._fault or self.protocol.close_exc

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put what is read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was put there."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take what was read from the network."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._whole:
                return
            data = bytes(self._rest)
            self._rest.clear()
        if self._cutting:
            try:
                self._cut(data)
            except Exception as error:
                self._fail(error)
        elif self._answered:
            super().data_received(data)
        elif (end := data.find(END_OF_HEAD) + len(END_OF_HEAD)) < len(END_OF_HEAD):
            self._keep(data, len(data) + 1)
        else:
            self._answered = True
            # Without what follows it, of which websockets would begin to read a frame.
            super().data_received(data[:end])
            self._cutting = self.protocol.state is State.OPEN
            if end < len(data):
                self.data_received(data[end:])

    def _cut(self, data: bytes) -> None:
        """Hand on the messages of all frames that are there as a whole."""
        start, end = 0, len(data)
        while start < end:
            body = start + 2
            if body > end:
                break
            kind, length = data[start], data[start + 1]
            if 126 <= length <= 127:
                extended = body
                body += 2 if length == 126 else 8
                if body > end:
                    break
                length = int.from_bytes(data[extended:body])
            elif length > 127:
                # Masked, which nothing is that comes from a server.
                return self._stop_cutting(data[start:])
            if length > MAX_SIZE:
                return self._stop_cutting(data[start:])
            stop = body + length
            if stop > end:
                return self._keep(data[start:], stop - start)
            if kind == LAST | TEXT and self._begun is None:
                self._hand_on(data[body:stop].decode())
            elif kind & ~LAST in (FURTHER, TEXT, BINARY):
                self._add(kind, data[body:stop])
            else:
                if kind == CLOSE:
                    self.closed_at = monotonic()
                super().data_received(data[start:stop])
                if self.protocol.state is not State.OPEN:
                    return self._stop_cutting(data[stop:])
            start = stop
        return self._keep(data[start:], end - start + 1)

    def _add(self, kind: int, body: bytes) -> None:
        """Take a data frame that is not a whole message of text."""
        if (kind & ~LAST == FURTHER) is (self._begun is None):
            raise ValueError("a message begins within another, or goes on that has not begun")
        if self._begun is None:
            self._begun, self._is_text = bytearray(), kind & ~LAST == TEXT
        self._begun += body
        if len(self._begun) > MAX_SIZE:
            raise ValueError("a message is too long")
        if kind & LAST:
            message, self._begun = bytes(self._begun), None
            self._hand_on(message.decode() if self._is_text else message)

    def _hand_on(self, message: str | bytes) -> None:
        if self._listener is None:
            self._early.append(message)
        else:
            self._listener(message)

    def _keep(self, data: bytes, whole: int) -> None:
        self._rest += data
        self._whole = whole

    def _stop_cutting(self, data: bytes) -> None:
        """Leave to websockets what comes now, which is the end or makes one."""
        self._cutting = False
        if data:
            super().data_received(data)

    def _fail(self, error: Exception) -> None:
        self._fault = error
        self._cutting = False
        self.transport.abort()
