"""One WebSocket of a run: opening it, its hello, its messages, and why it failed in words."""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Close
from websockets.typing import Origin

CLOSE_TIMEOUT = 2.0
"""Seconds a server has to answer the closing frame; nothing depends on its answer."""

MAX_SIZE = 2**16
"""Bytes a frame may have; the probe's have about a hundred."""


class SocketError(Exception):
    """A socket cannot be used, or no longer; the message says why, for the operator."""


class ProbeSocket:
    """A WebSocket that said hello.

    Args:
        connection: the open connection.
        worker: the name of the worker that answered.
        revision: what that worker was started with.
        sockets: how many sockets it had beside this one.
    """

    def __init__(
        self, connection: ClientConnection, worker: str, revision: str, sockets: int
    ) -> None:
        self.connection = connection
        self.worker = worker
        self.revision = revision
        self.sockets = sockets

    @classmethod
    async def open(cls, url: str, *, token: str, origin: str, seconds: float) -> "ProbeSocket":
        """Open a socket and wait for its hello.

        Args:
            url: the socket's own `ws://` or `wss://` URL.
            token: what the worker's environment names as the probe's token; several, with
                spaces between them, while a new one takes over from the former.
            origin: the Origin header.
            seconds: how long all this may take.

        Raises:
            SocketError: it could not be opened, or said no hello in time.
        """
        deadline = asyncio.timeout(seconds)
        connection: ClientConnection | None = None
        try:
            async with deadline:
                connection = await _connect(url, token.split(), origin)
                hello = _parse(await connection.recv(), "hello")
                worker, revision = str(hello["worker"]), str(hello["revision"])
                # One of a former version of the kit does not say.
                return cls(connection, worker, revision, int(hello.get("sockets", 0)))
        except BaseException as error:
            if connection is not None:
                connection.transport.abort()
            if not isinstance(error, Exception):
                raise
            did = f"could not open {url}" if connection is None else f"no hello from {url}"
            why = f"no answer within {seconds:g} s" if deadline.expired() else explain(error)
            raise SocketError(f"{did}: {why}") from error

    async def send(self, number: int) -> None:
        """Ask the worker to send round `number` to all.

        Raises:
            SocketError: the socket is closed.
        """
        try:
            await self.connection.send(json.dumps({"round": number}))
        except ConnectionClosed as error:
            raise SocketError(explain(error)) from error

    async def messages(self) -> AsyncIterator[tuple[str, int]]:
        """Yield sender and round of every message, without end.

        Raises:
            SocketError: the socket is closed, or said what no probe socket says.
        """
        try:
            while True:
                message = _parse(await self.connection.recv(), "message")
                yield str(message["sender"]), int(message["round"])
        except (ConnectionClosed, ValueError, KeyError, TypeError) as error:
            raise SocketError(explain(error)) from error

    async def close(self) -> None:
        """Close the socket; returns within `CLOSE_TIMEOUT`."""
        await self.connection.close()


class Connect(connect):
    """Takes a redirect for an answer: another address would be proved than the one given."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return what is raised."""
        return exc


def _parse(frame: str | bytes, expected: str) -> dict[str, Any]:
    content = json.loads(frame)
    if not isinstance(content, dict) or content.get("type") != expected:
        raise ValueError(f"expected a frame of the type {expected!r}")
    return content


async def _connect(url: str, tokens: list[str], origin: str) -> ClientConnection:
    """Connect with the first token that the worker takes."""
    token, *others = tokens
    try:
        return await Connect(
            url,
            origin=Origin(origin),
            additional_headers={"Authorization": f"Bearer {token}"},
            # Compression would cost each worker memory and prove nothing.
            compression=None,
            # A proxy of the environment would be proved instead of the address given.
            proxy=None,
            open_timeout=None,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=None,
            max_size=MAX_SIZE,
        )
    except InvalidStatus as error:
        if error.response.status_code != HTTPStatus.FORBIDDEN or not others:
            raise
    return await _connect(url, others, origin)


def explain(error: Exception) -> str:
    """Say in an operator's words why a socket failed."""
    match error:
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)):
            return f"closed with {code}: {reason}" if reason else f"closed with {code}"
        case ConnectionClosed():
            return "the connection was lost"
        case InvalidStatus(response=response):
            return f"answered {response.status_code}" + _HINTS.get(response.status_code, "")
        case InvalidHandshake():
            return str(error)
        case ssl.SSLCertVerificationError():
            return f"certificate not trusted: {error.verify_message}"
        case socket.gaierror():
            return f"{error.strerror}".lower()
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case OSError():
            return str(error)
        case _:
            return f"answered as no probe socket does ({type(error).__name__}: {error})"


_HINTS = {
    403: ", is the token the worker's?",
    404: ", is the application wrapped by channels_kit.serving?",
    503: ", the worker or all behind the edge are not serving",
    504: ", the edge got no answer from a worker",
}
