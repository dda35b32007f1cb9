"""One WebSocket of a run: opening it, its hello, its messages, and why it failed in words."""

import asyncio
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response
from websockets.typing import Origin

from channels_kit.paths import TOUCHED
from channels_kit.probe.address import Place, websocket_url

CLOSE_TIMEOUT = 2.0
"""Seconds a server has to answer the closing frame; nothing depends on its answer."""

RETRY_MOST = 2.0
"""Seconds before a handshake is tried again at most, whatever Retry-After asks for: the proof has
few sockets and a deadline."""

MAX_REASON = 100
"""Characters that are shown of what a refusal says."""

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
    async def open(
        cls, place: Place, path: str, *, token: str, origin: str, seconds: float
    ) -> "ProbeSocket":
        """Open a socket and wait for its hello.

        A handshake that is refused for load (503 with Retry-After) is tried again.

        Args:
            place: the worker or edge.
            path: the socket's own path.
            token: what the worker's environment names as the probe's token; several, with
                spaces between them, while a new one takes over from the former.
            origin: the Origin header.
            seconds: how long all this may take.

        Raises:
            SocketError: it could not be opened, or said no hello in time.
        """
        deadline = asyncio.timeout(seconds)
        connection: ClientConnection | None = None
        refusal: InvalidStatus | None = None
        url = websocket_url(place.base, path)
        try:
            async with deadline:
                while connection is None:
                    try:
                        connection = await _connect(place, path, token.split(), origin)
                    except InvalidStatus as error:
                        delay = retry_delay(error.response)
                        if delay is None:
                            raise
                        refusal = error
                        await asyncio.sleep(delay)
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
            if not deadline.expired():
                why = explain(error)
            elif connection is None and refusal is not None:
                why = f"{explain(refusal)}; tried again for {seconds:g} s"
            else:
                why = f"no answer within {seconds:g} s"
            raise SocketError(f"{did}: {why}") from error

    async def send(self, number: int, *, to_touched: bool = False) -> None:
        """Ask the worker to send round `number` to all, or to the touched sockets alone.

        A worker with a former version of the kit sends to all in any case.

        Raises:
            SocketError: the socket is closed.
        """
        try:
            await self.connection.send(
                json.dumps({"round": number, **({"to": TOUCHED} if to_touched else {})})
            )
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


async def _connect(place: Place, path: str, tokens: list[str], origin: str) -> ClientConnection:
    """Connect with the first token that the worker takes."""
    token, *others = tokens
    url, dialled = place.websocket(path)
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
            **dialled,
        )
    except InvalidStatus as error:
        if error.response.status_code != HTTPStatus.FORBIDDEN or not others:
            raise
    return await _connect(place, path, others, origin)


def retry_delay(response: Response) -> float | None:
    """Return the seconds after which a refused request is made again; None: it is not."""
    return delay_of(response.status_code, response.headers.get("Retry-After", ""))


def delay_of(status: int, retry_after: str) -> float | None:
    """Return the same of a response's status and its header Retry-After."""
    if status != HTTPStatus.SERVICE_UNAVAILABLE or not retry_after.isdecimal():
        return None
    # The sockets of a proof are refused together; they are not to come back together.
    return min(float(retry_after), RETRY_MOST) * random.uniform(0.5, 1)  # noqa: S311


def explain(error: Exception) -> str:
    """Say in an operator's words why a socket failed."""
    match error:
        case ConnectionClosed(rcvd=Close(code=code, reason=reason)):
            return f"closed with {code}: {reason}" if reason else f"closed with {code}"
        case ConnectionClosed():
            return "the connection was lost"
        case InvalidStatus(response=response):
            return f"answered {response.status_code}" + _reason(response)
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
            return f"unexpected answer ({type(error).__name__}: {error})"


def _reason(response: Response) -> str:
    """Return what a worker says with its refusal, or a hint at what a status means."""
    body = bytes(response.body or b"").decode(errors="replace").strip()
    if body.startswith("This worker is ") and body.isprintable():
        return f" ({body[:MAX_REASON]})"
    return _HINTS.get(response.status_code, "")


_HINTS = {
    403: "; check that the token is that of the worker",
    404: "; check that channels_kit.serving wraps the application",
    503: "; the worker, or every worker behind the edge, refuses sockets",
    504: "; the edge got no answer from a worker",
}
