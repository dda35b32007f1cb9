"""A WebSocket client that opens a socket, answers pings and throws away everything else.

It does no more, so that thousands of them take little.
"""

from __future__ import annotations

import asyncio


class RawSocket(asyncio.Protocol):
    """One socket.

    Args:
        request: its handshake.
    """

    def __init__(self, request: bytes) -> None:
        self.request = request
        # The head of the answer to the handshake, in lines; empty if the connection was closed.
        self.answered: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Take the answer, then frames."""
        self._received += data
        if not self.answered.done():
            head, separator, rest = bytes(self._received).partition(b"\r\n\r\n")
            if not separator:
                return
            self._received = bytearray(rest)
            self.answered.set_result(head.splitlines())
        self._read_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is gone."""
        self.lost = True
        if not self.answered.done():
            self.answered.set_result([])

    async def status(self) -> int:
        """Return the status of the answer to the handshake; 0 if the connection was closed."""
        head = await self.answered
        return int(head[0].split(b" ", 2)[1]) if head else 0

    def _read_frames(self) -> None:
        data = self._received
        while len(data) >= 2:
            length, start = data[1], 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(data[2:10], "big"), 10
            if len(data) < start + length:
                return
            if data[0] & 0x0F == 0x9:
                # A mask of zeros leaves the payload as it is.
                pong = b"\x8a" + bytes([0x80 | length]) + bytes(4) + data[start : start + length]
                assert self.transport is not None  # noqa: S101
                self.transport.write(pong)
            del data[: start + length]
