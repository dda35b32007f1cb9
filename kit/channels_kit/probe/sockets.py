"""Whether a socket of the application opens and stays open, or is refused as it is to be."""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from channels_kit.paths import PROBE_HEADER
from channels_kit.probe.address import Place
from channels_kit.probe.asking import forwarded_headers
from channels_kit.probe.checks import SocketCheck
from channels_kit.probe.result import SocketResult
from channels_kit.probe.socket import CLOSE_TIMEOUT, Connect, SocketError, explain, retry_delay

LEAST_HOLD = 0.3
"""Seconds a socket has to stay open at least: one that is closed as it opens is not open."""


async def check_socket(
    place: Place,
    check: SocketCheck,
    *,
    seconds: float,
    hold: float,
    origin: str | None = None,
    token: str = "",
) -> SocketResult:
    """Open a socket of the application, and look what becomes of it.

    Args:
        place: the worker or the edge.
        check: the socket, and what is expected.
        seconds: how long it may take to open, and to be closed where that is expected.
        hold: how long it has to stay open otherwise.
        origin: the Origin header; by default that of the site.
        token: that of the probe, so that the socket takes no client's place; several, with a space
            between.
    """
    failure: str | None = None
    answered = True
    try:
        refused = await _refusal(place, check, seconds, origin, token)
        if isinstance(refused, ClientConnection):
            failure = await _look_at(refused, check, seconds, hold)
        elif refused != check.status:
            failure = f"answered {refused}{_wanted(check)}"
    except SocketError as error:
        failure, answered = str(error), False
    return SocketResult(
        check.path,
        place.label,
        place.base,
        place.direct,
        check.expected,
        0.0 if check.expected else hold,
        failure,
        answered,
    )


async def _refusal(
    place: Place, check: SocketCheck, seconds: float, origin: str | None, token: str
) -> ClientConnection | int:
    """Return the open socket, or the status with which its handshake was refused.

    Raises:
        SocketError: there was no answer.
    """
    deadline = asyncio.timeout(seconds)
    status: int | None = None
    try:
        async with deadline:
            while True:
                try:
                    return await _connect(place, check, origin, token)
                except InvalidStatus as error:
                    status = error.response.status_code
                    delay = retry_delay(error.response)
                    if delay is None:
                        return status
                await asyncio.sleep(delay)
    except Exception as error:
        if not deadline.expired():
            raise SocketError(f"could not be opened: {explain(error)}") from error
        said = f"answered {status}; tried again" if status else "no answer"
        raise SocketError(f"{said} for {seconds:g} s") from error


def _wanted(check: SocketCheck) -> str:
    """Say what was expected in the place of a status."""
    if check.close is not None:
        # What Django Channels makes of a close() before accept().
        return f", not {check.expected}: it was refused before it was accepted"
    return f", not {check.status}" if check.status is not None else ""


async def _look_at(
    connection: ClientConnection, check: SocketCheck, seconds: float, hold: float
) -> str | None:
    """Return why an open socket is not as expected."""
    opened = monotonic()
    try:
        if check.status is not None:
            return f"was opened, not {check.expected}"
        if check.subprotocol != connection.subprotocol:
            return (
                f"was opened with the subprotocol {connection.subprotocol}, not {check.subprotocol}"
            )
        if check.close is not None:
            closed = await _closing(connection, seconds)
            if closed is None:
                return f"was open for {seconds:g} s, not {check.expected}"
            return (
                None
                if code_of(closed) == check.close
                else f"{described(closed)}, not {check.close}"
            )
        closed = await _closing(connection, max(hold, LEAST_HOLD))
        if closed is None:
            return None
        return f"{described(closed)} after {monotonic() - opened:.1f} s"
    finally:
        await connection.close()


async def _closing(connection: ClientConnection, seconds: float) -> ConnectionClosed | None:
    """Return how a socket was closed within some time; what it says meanwhile is dropped."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                await connection.recv()
    except ConnectionClosed as closed:
        return closed
    except TimeoutError:
        return None


def code_of(closed: ConnectionClosed) -> int:
    """Return the code with which the server closed; 1006 where it sent none: RFC 6455, 7.1.5."""
    return closed.rcvd.code if closed.rcvd is not None else 1006


def described(closed: ConnectionClosed) -> str:
    """Say how a socket was closed."""
    return "closed with 1006 (no close frame)" if closed.rcvd is None else explain(closed)


async def _connect(
    place: Place, check: SocketCheck, origin: str | None, token: str
) -> ClientConnection:
    url, dialled = place.websocket("/")
    headers = dict(check.headers)
    if token:
        headers[PROBE_HEADER] = token
    named = next((headers.pop(name) for name in list(headers) if name.lower() == "origin"), None)
    return await Connect(
        url,
        origin=Origin(named or origin or place.asked.origin),
        subprotocols=[Subprotocol(check.subprotocol)] if check.subprotocol else None,
        additional_headers={**forwarded_headers(place), **headers},
        compression=None,
        proxy=None,
        open_timeout=None,
        close_timeout=CLOSE_TIMEOUT,
        ping_interval=None,
        # What an application sends is its own affair.
        max_size=None,
        create_connection=_exactly(check.path),
        **dialled,
    )


def _exactly(path: str) -> Any:
    """Return the kind of connection that asks for a path as it is written.

    `websockets` would leave out what follows a semicolon, and a question mark without a query.
    """

    class Exact(ClientConnection):
        def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
            protocol.uri = replace(protocol.uri, path=path, query="")
            super().__init__(protocol, **options)

    return Exact
