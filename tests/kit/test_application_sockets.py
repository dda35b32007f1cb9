"""One socket of an application at one place: what it has to do, and what is asked for."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from channels_kit.probe.address import Place, Site, UsageError
from channels_kit.probe.checks import Checks, SocketCheck
from channels_kit.probe.sockets import check_socket

SITE = Site("https", "chat.example.org")
# Seconds after which an answer that is due has not come.
PATIENCE = 15.0


@asynccontextmanager
async def serving(
    refuse: Callable[[Request], int | None] = lambda request: None, **options: Any
) -> AsyncIterator[tuple[Place, list[Request]]]:
    """An application: /close/CODE accepts and closes, any other path stays open."""
    seen: list[Request] = []

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path
        if path.startswith("/close/"):
            await connection.close(int(path.split("/")[2]), "an error of mine")
        elif path == "/lost/":
            connection.transport.abort()
        elif path == "/chatty/":
            await connection.send("x" * 2**21)
        await connection.wait_closed()

    def admit(connection: ServerConnection, request: Request) -> Response | None:
        seen.append(request)
        status = refuse(request)
        return None if status is None else connection.respond(HTTPStatus(status), "")

    async with serve(handle, "127.0.0.1", 0, process_request=admit, **options) as server:
        port = server.sockets[0].getsockname()[1]
        yield Place("app1:8001", f"http://127.0.0.1:{port}", SITE), seen


async def outcome(
    value: object,
    refuse: Callable[[Request], int | None] = lambda request: None,
    seconds: float = PATIENCE,
    hold: float = 0.4,
    **options: Any,
) -> str | None:
    async with serving(refuse, **options) as (place, _):
        result = await check_socket(place, SocketCheck.parse(value), seconds=seconds, hold=hold)
    return result.failure


@pytest.mark.parametrize("path", ["/ws/", "/chatty/"])
async def test_a_socket_that_stays_open_is_as_expected(path: str) -> None:
    assert await outcome(path) is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/close/1000/", "closed with 1000: an error of mine after N s"),
        ("/close/4001/", "closed with 4001: an error of mine after N s"),
        ("/lost/", "closed with 1006 (no close frame) after N s"),
    ],
)
async def test_a_socket_that_is_closed_is_told_with_its_code(path: str, words: str) -> None:
    told = await outcome(path, hold=PATIENCE)
    assert told
    assert re.sub(r"\d+\.\d s$", "N s", told) == words


async def test_a_socket_may_have_to_be_closed() -> None:
    assert await outcome({"path": "/close/4001/", "close": 4001}) is None
    wrong = await outcome({"path": "/close/1011/", "close": 4001})
    assert wrong == "closed with 1011: an error of mine, not 4001"
    assert (
        await outcome({"path": "/ws/", "close": 4001}, seconds=1.0)
        == "was open for 1 s, not closed with 4001"
    )
    refused = await outcome({"path": "/ws/", "close": 4001}, lambda request: 403)
    assert refused == ("answered 403, not closed with 4001: it was refused before it was accepted")


async def test_a_handshake_may_have_to_be_refused() -> None:
    assert await outcome({"path": "/ws/", "status": 403}, lambda request: 403) is None
    assert await outcome({"path": "/ws/", "status": 403}, lambda request: 404) == (
        "answered 404, not 403"
    )
    assert await outcome({"path": "/ws/", "status": 403}) == "was opened, not refused with 403"
    assert await outcome("/ws/", lambda request: 403) == "answered 403"
    assert await outcome("/ws/", lambda request: 500) == "answered 500"


async def test_a_subprotocol_has_to_be_agreed_on() -> None:
    wanted = {"path": "/ws/", "subprotocol": "graphql-ws"}
    assert await outcome(wanted, subprotocols=["graphql-ws"]) is None
    assert await outcome(wanted, select_subprotocol=lambda connection, offered: None) == (
        "was opened with the subprotocol None, not graphql-ws"
    )


@pytest.mark.parametrize("path", ["/ws/", "//a", "/a;b=1?", "/?q='$x'&y=%20", "/$HOME/../~x"])
async def test_a_socket_is_asked_for_as_it_is_written(path: str) -> None:
    async with serving() as (place, seen):
        result = await check_socket(place, SocketCheck.parse(path), seconds=PATIENCE, hold=0.0)
    assert result.failure is None
    assert [request.path for request in seen] == [path]


async def test_the_handshake_names_the_site_and_carries_the_headers() -> None:
    check = SocketCheck.parse({"path": "/ws/", "headers": {"X-Client": "it's me"}})
    other = SocketCheck.parse({"path": "/ws/", "headers": {"origin": "https://b.example"}})
    async with serving() as (place, seen):
        await check_socket(place, check, seconds=PATIENCE, hold=0.0)
        await check_socket(place, other, seconds=PATIENCE, hold=0.0)
    first, second = (request.headers for request in seen)
    assert first["Host"] == "chat.example.org"
    assert first["Origin"] == "https://chat.example.org"
    assert first["X-Client"] == "it's me"
    assert first["X-Forwarded-Proto"] == "https"
    assert first["X-Forwarded-For"] == first["X-Real-IP"] == "127.0.0.1"
    assert second.get_all("Origin") == ["https://b.example"]


@pytest.mark.parametrize(
    "value",
    [
        "ws/",
        "/-/probe/a/b/",
        "/a b",
        5,
        {},
        {"path": "/ws/", "close": 1006},
        {"path": "/ws/", "close": True},
        {"path": "/ws/", "status": 500},
        {"path": "/ws/", "close": 4001, "status": 403},
        {"path": "/ws/", "cookie": "x"},
        {"path": "/ws/", "headers": {"Host": "x"}},
        {"path": "/ws/", "headers": {"X": "a\nb"}},
        {"path": "/ws/", "subprotocol": "a b"},
    ],
)
def test_what_is_no_socket_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="is not a socket; allowed: a path that begins with /"):
        SocketCheck.parse(value)


@pytest.mark.parametrize(
    "text",
    [
        *("x", "[]", '{"page": []}', '{"pages": "/"}', '{"sockets": {}}', '{"pages": ["a"]}'),
        *('{"site": 5}', '{"site": "chat.example.org"}', '{"site": "https://me:hidden@a"}'),
    ],
)
def test_checks_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Checks.from_json(text)
    assert "hidden" not in str(caught.value)


def test_checks_are_read_from_json() -> None:
    checks = Checks.from_json(
        '{"site": "https://chat.example.org", "pages": ["/", "/"],'
        ' "sockets": ["/ws/", {"path": "/ws/"}, {"path": "/ws/", "status": 403}]}'
    )
    assert checks.site == SITE
    assert checks.pages == ("/",)
    assert checks.sockets == (SocketCheck("/ws/"), SocketCheck("/ws/", status=403))
    assert Checks.from_json("{}") == Checks()
