"""One page at one place: what counts as an answer, what is followed, what is asked for."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from channels_kit.probe.address import Place, Site
from channels_kit.probe.checks import SocketCheck
from channels_kit.probe.pages import MAX_REDIRECTS, check_page
from channels_kit.probe.result import PageResult
from channels_kit.probe.sockets import check_socket

SITE = Site("https", "chat.example.org")


@asynccontextmanager
async def answering(
    answer: Callable[[str], bytes], direct: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Place, list[str]]]:
    """A server that gives an answer to each target; yields it and what it was asked."""
    heads: list[str] = []
    handled: list[Any] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(asyncio.current_task())
        # A client that has read enough resets the connection.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            with closing(writer):
                heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(answer(heads[-1].split()[1]))
                await writer.drain()
            await writer.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        yield Place("app1:8001", f"http://127.0.0.1:{port}", SITE, direct), heads
        # Else a connection may outlive its event loop, and be found in another test.
        await asyncio.gather(*handled)


def response(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} x", *headers, "", ""]).encode()


async def asked(answer: Callable[[str], bytes], path: str = "/") -> tuple[PageResult, list[str]]:
    async with answering(answer) as (place, heads):
        return await check_page(place, path, 2.0), [head.split()[1] for head in heads]


@pytest.mark.parametrize("status", [200, 204, 301, 401, 403, 404, 429, 499])
async def test_what_is_below_500_is_an_answer(status: int) -> None:
    result, _ = await asked(lambda target: response(status))
    assert (result.status, result.failure) == (status, None)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
async def test_what_is_not_is_a_failure(status: int) -> None:
    result, _ = await asked(lambda target: response(status))
    assert (result.status, result.failure) == (status, f"answered {status}")


async def test_a_name_that_is_refused_is_a_failure() -> None:
    """Below 500, and yet nobody sees a page."""
    django = response(400, "Content-Length: 26") + b"<h1>Bad Request (400)</h1>"
    result, _ = await asked(lambda target: django)
    assert result.failure == "answered 400: the name of the site may be missing in ALLOWED_HOSTS"
    result, _ = await asked(lambda target: response(421))
    assert result.failure == "answered 421: the edge does not serve the name of the site"
    # What an application says of a request without its arguments.
    result, _ = await asked(lambda target: response(400, "Content-Length: 2") + b"{}")
    assert (result.status, result.failure) == (400, None)


@pytest.mark.parametrize("path", ["/", "//a", "/a;b=1?", "/?q='$x'&y=%20", "/$HOME/../~x"])
async def test_a_page_is_asked_for_as_it_is_written(path: str) -> None:
    _, targets = await asked(lambda target: response(200), path)
    assert targets == [path]


@pytest.mark.parametrize("direct", [True, False])
async def test_a_worker_is_told_what_an_edge_would_tell_it(direct: bool) -> None:
    async with answering(lambda target: response(200), direct) as (place, heads):
        await check_page(place, "/", 2.0)
    (head,) = heads
    told = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
    assert told["Host"] == "chat.example.org"
    forwarded = {name: text for name, text in told.items() if name.startswith("X-")}
    assert forwarded == (
        {
            "X-Forwarded-For": "127.0.0.1",
            "X-Forwarded-Host": "chat.example.org",
            "X-Forwarded-Proto": "https",
            "X-Real-IP": "127.0.0.1",
        }
        if direct
        else {}
    )


@pytest.mark.parametrize(
    "location", ["/login/?next=/", "login/?next=/", "https://chat.example.org/login/?next=/"]
)
async def test_a_redirect_within_the_site_is_followed(location: str) -> None:
    """Else a site whose every page fails would be proved by its redirect to the login."""

    def answer(target: str) -> bytes:
        return response(302, f"location: {location}") if target == "/" else response(500)

    result, targets = await asked(answer)
    assert targets == ["/", "/login/?next=/"]
    assert (result.way, result.failure) == ("/login/?next=/", "answered 500")


@pytest.mark.parametrize(
    "location",
    [
        "https://login.example.org/",
        "http://chat.example.org/",
        "mailto:x",
        "/größe",
        "http://[",
        "",
    ],
)
async def test_a_redirect_to_elsewhere_is_an_answer(location: str) -> None:
    def answer(target: str) -> bytes:
        return response(302, f"Location: {location}".rstrip())

    result, targets = await asked(answer)
    assert targets == ["/"]
    assert (result.status, result.failure, result.way) == (302, None, None)


async def test_redirects_in_a_circle_end() -> None:
    """As where the application waits for a cookie."""
    result, targets = await asked(
        lambda target: response(302, f"Location: {'/b' if target == '/' else '/'}")
    )
    assert targets == ["/", "/b"]
    assert result.failure is None
    result, targets = await asked(lambda target: response(302, f"Location: {target}x"))
    assert len(targets) == MAX_REDIRECTS + 1
    assert result.failure is None


async def test_a_server_that_is_busy_for_a_moment_is_asked_again() -> None:
    answers = iter([response(503, "retry-after: 0"), response(200)])
    result, targets = await asked(lambda target: next(answers))
    assert (result.status, len(targets)) == (200, 2)


async def test_one_that_stays_busy_is_a_failure() -> None:
    async with answering(lambda target: response(503, "Retry-After: 0")) as (place, _):
        result = await check_page(place, "/", 0.5)
    assert result.failure == "answered 503; tried again for 0.5 s"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was closed without an answer"),
        (b"220 mail.example.org ESMTP\r\n\r\n", "unexpected answer"),
        (b"HTTP/1.1 200", "the connection was closed without an answer"),
    ],
)
async def test_what_is_no_answer_is_a_failure(answer: bytes, words: str) -> None:
    result, _ = await asked(lambda target: answer)
    assert result.status is None
    assert words in str(result.failure)


async def test_early_hints_are_not_the_answer() -> None:
    result, _ = await asked(lambda target: response(103, "Link: </x>") + response(500))
    assert result.failure == "answered 500"


async def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        place = Place("app1:8001", f"http://127.0.0.1:{mute.getsockname()[1]}")
        result = await check_page(place, "/", 0.3)
    assert result.failure == "no answer within 0.3 s"


async def test_a_server_that_is_down_is_named() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        place = Place("app1:8001", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        result = await check_page(place, "/", 2.0)
    assert "refused" in str(result.failure).lower()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """One that nobody trusts, as each edge has before it has obtained its own."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=x", "-keyout", file, "-out", file),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_an_edge_is_asked_by_tls_where_the_site_is(certificate: ssl.SSLContext) -> None:
    """By HTTP it would redirect, and prove nothing; a socket it would refuse."""
    async with answering(lambda target: response(500), tls=certificate) as (tls, heads):
        site = Site("https", f"chat.example.org:{tls.dialled[1]}")
        edge = Place.of_edge("through the edge", "http://127.0.0.1:80", site)
        page = await check_page(edge, "/", 2.0)
    assert page.failure == "answered 500"
    assert f"Host: {site.netloc}\r\n" in heads[0]
    assert "X-Forwarded" not in heads[0]

    async def handle(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, ssl=certificate) as server:
        site = Site("https", f"chat.example.org:{server.sockets[0].getsockname()[1]}")
        edge = Place.of_edge("through the edge", "http://127.0.0.1:80", site)
        opened = await check_socket(edge, SocketCheck("/ws/"), seconds=2.0, hold=0.0)
    assert opened.failure is None


def test_an_edge_is_asked_where_it_is_said_in_any_other_case() -> None:
    for url, site in (
        ("http://10.0.0.4:80", None),
        ("http://10.0.0.4:80", Site("http", "chat.example.org")),
        ("https://10.0.0.4:443", SITE),
    ):
        edge = Place.of_edge("through the edge", url, site)
        assert (edge.base, edge.verified) == (url, True)
    edge = Place.of_edge("through the edge", "http://[2001:db8::4]:80", SITE)
    assert (edge.base, edge.dialled) == ("https://[2001:db8::4]:443", ("2001:db8::4", 443))
