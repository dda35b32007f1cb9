"""What an edge has to do beside delivery: take handshakes, keep idle sockets, refuse what it must.

Each look is one connection. Nothing here changes the cluster, and no look waits for another.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from secrets import token_hex, token_urlsafe
from time import monotonic

from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from channels_kit.paths import LIVE, METRICS, READY, probe_path
from channels_kit.probe.address import Place, Site
from channels_kit.probe.checks import Checks, SocketCheck
from channels_kit.probe.pages import status_of
from channels_kit.probe.socket import (
    CLOSE_TIMEOUT,
    Connect,
    ProbeSocket,
    SocketError,
    explain,
    retry_delay,
)
from channels_kit.probe.sockets import check_socket

MAX_IDLE = 86400.0
"""Seconds of silence at most: a day, as proxy_read_timeout is by default."""

IDLE_SOCKETS = 2
"""Silent sockets through each edge."""

WRONG = "wrong.invalid"
"""A name that no site has: RFC 2606."""

REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class Behaviour:
    """What came of one look.

    Attributes:
        name: what was looked at.
        subject: the edge or the worker.
        status: `ok`, `failed` or `skipped`.
        seconds: how long it took.
        expected: what had to come.
        effective: what came.
        message: what is wrong, or why it does not apply; empty where it is as expected.
    """

    name: str
    subject: str
    status: str
    seconds: float
    expected: str
    effective: str
    message: str = ""


async def examine_edges(
    edges: Sequence[str],
    workers: Mapping[str, str],
    *,
    token: str,
    checks: Checks,
    seconds: float = 10.0,
    idle: float = 0.0,
) -> list[Behaviour]:
    """Look at every edge, and whether every worker asks for the token.

    Args:
        edges: the base URLs of the edges.
        workers: the base URLs of the workers, by name.
        token: the probe's token; several, with a space between them, are tried in turn.
        checks: sockets of the application, opened with the Origin of another site; and the site.
        seconds: how long each look may take.
        idle: how long sockets through each edge are silent; 0: none is opened.
    """
    at_edges = [Place.of_edge(url, url, checks.site) for url in edges]
    wires = [Place(url, url, checks.site, direct=False) for url in edges]
    direct = [Place(name, url, checks.site) for name, url in workers.items()]
    looks = [
        *(_handshake(place, token, seconds) for place in wires),
        *(_idle(place, token, seconds, idle) for place in wires * IDLE_SOCKETS if idle),
        *(_without_token(place, seconds) for place in [*wires, *direct]),
        *(_with_wrong_token(place, seconds) for place in [*wires, *direct]),
        *(_wrong_host(place, seconds) for place in at_edges),
        *(_page(place, path, seconds) for place in at_edges for path in (LIVE, READY, METRICS)),
        *_wrong_origins(at_edges, checks, seconds),
    ]
    return list(await asyncio.gather(*looks))


async def examine_application(
    edges: Sequence[str], checks: Checks, *, seconds: float = 10.0, idle: float = 0.0
) -> list[Behaviour]:
    """Look at edges of an application without the probe: what it names of itself alone.

    Args:
        edges: the base URLs of the edges.
        checks: sockets of the application; and the site.
        seconds: how long each look may take.
        idle: how long a socket of each kind is silent through each edge; 0: none is held.
    """
    places = [Place.of_edge(url, url, checks.site) for url in edges]
    looks = [
        *(_socket(place, check, seconds, 0.0) for place in places for check in checks.sockets),
        *(
            _socket(place, check, seconds, idle)
            for place in places
            for check in checks.sockets
            if idle and not check.expected
        ),
        *_wrong_origins(places, checks, seconds),
    ]
    return list(await asyncio.gather(*looks))


async def _socket(place: Place, check: SocketCheck, seconds: float, hold: float) -> Behaviour:
    """Open a socket of the application, and hold it without a word."""
    begun = monotonic()
    found = await check_socket(place, check, seconds=seconds, hold=hold)
    name = f"{check.path} idle for {hold:g} s" if hold else f"socket {check.path}"
    wanted = check.expected or ("stays open" if hold else "opened")
    if found.failure is not None:
        return _failed(name, place, begun, wanted, found.failure)
    return Behaviour(name, place.label, "ok", _since(begun), wanted, wanted)


def summed_up(found: Sequence[Behaviour]) -> Iterator[str]:
    """Yield a line for each look that did not come out as expected, and one for the rest."""
    for each in found:
        if each.status == "failed":
            yield f"{each.subject}: {each.name}: {each.message}"
    good = sum(each.status == "ok" for each in found)
    yield f"{good} of {len(found)} as expected"


def as_json(found: Sequence[Behaviour]) -> list[dict[str, object]]:
    """Return all of it for `json.dumps`."""
    return [asdict(each) for each in found]


async def _handshake(place: Place, token: str, seconds: float) -> Behaviour:
    name, wanted = "handshake through the edge", "opened"
    begun = monotonic()
    try:
        socket = await _open(place, token, seconds)
    except SocketError as error:
        return _failed(name, place, begun, wanted, str(error))
    took = monotonic() - begun
    await socket.close()
    return Behaviour(name, place.label, "ok", round(took, 4), wanted, f"opened on {socket.worker}")


async def _idle(place: Place, token: str, seconds: float, idle: float) -> Behaviour:
    """Open a socket, say nothing on it, and then have it deliver a message to itself."""
    name, wanted = f"idle socket held for {idle:g} s", "delivers afterwards"
    begun = monotonic()
    try:
        socket = await _open(place, token, seconds)
        try:
            reader = asyncio.create_task(_first_message(socket))
            done, _ = await asyncio.wait([reader], timeout=idle)
            if not done:
                await socket.send(1)
                async with asyncio.timeout(seconds):
                    await reader
            elif reader.exception() is not None:
                after = monotonic() - begun
                return _failed(
                    name, place, begun, wanted, f"{reader.exception()} after {after:.0f} s"
                )
        finally:
            reader.cancel()
            await socket.close()
    except SocketError as error:
        return _failed(name, place, begun, wanted, str(error))
    except TimeoutError:
        return _failed(name, place, begun, wanted, f"delivered nothing within {seconds:g} s")
    return Behaviour(name, place.label, "ok", round(monotonic() - begun, 1), wanted, "delivered")


async def _first_message(socket: ProbeSocket) -> tuple[str, int]:
    return await anext(socket.messages())


async def _without_token(place: Place, seconds: float) -> Behaviour:
    return await _refused("probe without a token is refused", place, {}, seconds)


async def _with_wrong_token(place: Place, seconds: float) -> Behaviour:
    headers = {"Authorization": f"Bearer {token_urlsafe(24)}"}
    return await _refused("probe with a wrong token is refused", place, headers, seconds)


async def _refused(
    name: str, place: Place, headers: Mapping[str, str], seconds: float
) -> Behaviour:
    begun = monotonic()
    wanted = " or ".join(str(status.value) for status in REFUSED)
    try:
        status = await handshake_status(place, _path(), headers, seconds)
    except SocketError as error:
        return _failed(name, place, begun, wanted, str(error))
    return _judged(name, place, begun, wanted, status, status in REFUSED)


async def _wrong_host(place: Place, seconds: float) -> Behaviour:
    name, begun = "another host name is refused", monotonic()
    wanted = HTTPStatus.MISDIRECTED_REQUEST.value
    other = replace(place, site=Site(Site.of(place.base).scheme, WRONG))
    return await _asked(name, other, "/", begun, wanted, seconds)


async def _page(place: Place, path: str, seconds: float) -> Behaviour:
    name = f"{path} is not served at the edge"
    return await _asked(name, place, path, monotonic(), HTTPStatus.NOT_FOUND.value, seconds)


async def _asked(
    name: str, place: Place, path: str, begun: float, wanted: int, seconds: float
) -> Behaviour:
    try:
        async with asyncio.timeout(seconds):
            status = await status_of(place, path)
    except TimeoutError:
        return _failed(name, place, begun, str(wanted), f"no answer within {seconds:g} s")
    except Exception as error:
        return _failed(name, place, begun, str(wanted), explain(error))
    return _judged(name, place, begun, str(wanted), status, status == wanted)


def _wrong_origins(
    places: Sequence[Place], checks: Checks, seconds: float
) -> Iterator[Coroutine[None, None, Behaviour]]:
    for place in places:
        for check in checks.sockets:
            # One that is refused anyway shows nothing.
            if check.status is None:
                yield _wrong_origin(place, check, seconds)


async def _wrong_origin(place: Place, check: SocketCheck, seconds: float) -> Behaviour:
    """Open a socket of the application as a page of another site would."""
    begun = monotonic()
    # One that stays open for a moment was not refused.
    found = await check_socket(
        place,
        check,
        seconds=seconds,
        hold=0.0,
        origin=f"https://{WRONG}",
    )
    name = f"{found.path} refuses the Origin of another site"
    wanted = "refused"
    if not found.answered:
        # Nothing was refused where nobody answers.
        return _failed(name, place, begun, wanted, str(found.failure))
    if found.failure is not None:
        return Behaviour(name, place.label, "ok", _since(begun), wanted, found.failure)
    message = (
        "the application takes sockets of any site; if a cookie logs its users in, wrap its routes"
        " in channels.security.websocket.AllowedHostsOriginValidator"
    )
    return Behaviour(name, place.label, "skipped", _since(begun), wanted, "opened", message)


async def handshake_status(
    place: Place, path: str, headers: Mapping[str, str], seconds: float
) -> int:
    """Return the status of a handshake; 101 where the socket was opened.

    Raises:
        SocketError: there was no answer.
    """
    url, dialled = place.websocket(path)
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    connection = await Connect(
                        url,
                        origin=Origin(place.asked.origin),
                        additional_headers=dict(headers),
                        compression=None,
                        proxy=None,
                        open_timeout=None,
                        close_timeout=CLOSE_TIMEOUT,
                        ping_interval=None,
                        **dialled,
                    )
                except InvalidStatus as error:
                    delay = retry_delay(error.response)
                    if delay is None:
                        return error.response.status_code
                    await asyncio.sleep(delay)
                else:
                    await connection.close()
                    return HTTPStatus.SWITCHING_PROTOCOLS.value
    except TimeoutError as error:
        raise SocketError(f"no answer within {seconds:g} s") from error
    except Exception as error:
        raise SocketError(explain(error)) from error


async def _open(place: Place, token: str, seconds: float) -> ProbeSocket:
    return await ProbeSocket.open(
        place, _path(), token=token, origin=place.asked.origin, seconds=seconds
    )


def _path() -> str:
    """Return the path of a probe socket of a run of its own."""
    return probe_path(token_hex(8), "1")


def _since(begun: float) -> float:
    return round(monotonic() - begun, 4)


def _failed(name: str, place: Place, begun: float, wanted: str, message: str) -> Behaviour:
    return Behaviour(name, place.label, "failed", _since(begun), wanted, message, message)


def _judged(name: str, place: Place, begun: float, wanted: str, status: int, ok: bool) -> Behaviour:
    message = "" if ok else f"answered {int(status)}, not {wanted}"
    verdict = "ok" if ok else "failed"
    return Behaviour(name, place.label, verdict, _since(begun), wanted, str(int(status)), message)
