"""What the edge lets through: headers, paths, messages whose end is in doubt, protocols.

A real nginx with the configuration that the role writes. What it passes on is read by workers that
write down each byte, and by the three real servers.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from ..kit.cluster import SERVERS
from ..kit.cluster import Worker as RealWorker
from ..kit.conftest import TOKEN
from .edge import HOST, NAME, NGINX, PATIENCE, WORKER_PORTS, Answer, Edge, ask, running
from .rendered import render
from .test_edge import TAKES, inventory

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: scripts/bootstrap tests"
)

OTHER = "other.example"
CLIENT_CLAIMS = "6.6.6.6"


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    clusters = render(tmp_path_factory.mktemp("rendered"), {"ample": inventory()})
    content = clusters["ample"]["lb1"]["/etc/nginx/nginx.conf"].content
    # A client here ends what it says by closing its half of the connection.
    return content.replace("proxy_http_version", "proxy_ignore_client_abort on; proxy_http_version")


@pytest.fixture
async def edge(configuration: str) -> AsyncIterator[Edge]:
    async with running(configuration, TAKES) as edge:
        yield edge


def passed_on(edge: Edge) -> list[dict[str, str]]:
    """The headers of each request that a worker got."""
    return [headers for worker in edge.workers for headers in worker.headers]


async def raw(port: int, message: bytes) -> list[bytes]:
    """Send these bytes, and nothing else; return the status of each answer until the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(message)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
    except ConnectionError:
        return []
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    # Without 100, which is no answer yet.
    return [status for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer) if status != b"100"]


# Headers that end at the edge

WEBSOCKET = "GET", "websocket"
UPGRADES = [
    ("GET", "h2c"),
    ("GET", "H2C"),
    ("GET", "HTTP/2.0"),
    ("GET", "TLS/1.0"),
    ("GET", "connect-udp"),
    ("GET", "websocket, h2c"),
    ("GET", "h2c, websocket"),
    ("GET", "websocket/13"),
    ("GET", "xwebsocket"),
    ("GET", " "),
    # A handshake is a GET without a body.
    ("POST", "websocket"),
    ("OPTIONS", "websocket"),
]


@pytest.mark.parametrize(("method", "protocol"), UPGRADES)
async def test_no_other_protocol_is_passed_on(edge: Edge, method: str, protocol: str) -> None:
    asked = [f"Upgrade: {protocol}", "Connection: Upgrade, HTTP2-Settings"]
    settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
    answer = await ask(edge.port, "/", method=method, more=[*asked, settings])
    assert answer.status == 200
    (headers,) = passed_on(edge)
    assert {"upgrade", "http2-settings", "connection"}.isdisjoint(headers)


@pytest.mark.parametrize("spelling", ["websocket", "WebSocket", "WEBSOCKET"])
async def test_a_websocket_is_passed_on_however_it_is_spelled(edge: Edge, spelling: str) -> None:
    more = [f"Upgrade: {spelling}", "Connection: keep-alive, Upgrade"]
    answer = await ask(edge.port, "/ws/", more=more)
    assert answer.status == 101
    (headers,) = passed_on(edge)
    assert (headers["upgrade"], headers["connection"]) == ("websocket", "upgrade")


async def test_a_second_upgrade_header_is_not_passed_on(edge: Edge) -> None:
    more = ["Upgrade: websocket", "Upgrade: h2c", "Connection: Upgrade"]
    await ask(edge.port, "/ws/", more=more)
    for headers in passed_on(edge):
        assert headers.get("upgrade") in (None, "websocket")


# RFC 9110 7.6.1, what preceded it, and what a client says to the edge alone.
HOP_BY_HOP = {
    "Connection": "X-Real-IP, X-Edge-Generation, close",
    "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA",
    "Keep-Alive": "timeout=600",
    "Proxy": "http://6.6.6.6/",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authorization": "Basic c2VjcmV0",
    "Proxy-Connection": "keep-alive",
    "TE": "trailers",
    "Trailer": "X-Forwarded-For",
}

# What a worker, Django or a middleware would take for the word of the edge.
CLAIMS = {
    "Forwarded": "for=6.6.6.6;proto=https;host=other.example",
    "X-Client-IP": CLIENT_CLAIMS,
    "X-Edge-Generation": "lb1 claimed 1",
    "X-Forwarded": CLIENT_CLAIMS,
    "X-Forwarded-By": CLIENT_CLAIMS,
    "X-Forwarded-For": CLIENT_CLAIMS,
    "X-Forwarded-Host": OTHER,
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/-/metrics",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Protocol": "https",
    "X-Forwarded-Scheme": "https",
    "X-Forwarded-Server": OTHER,
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-User": "admin",
    "X-Original-Host": OTHER,
    "X-Original-URL": "/-/metrics",
    "X-Real-IP": CLIENT_CLAIMS,
    "X-Remote-User": "admin",
    "Remote-User": "admin",
    "X-Rewrite-URL": "/-/metrics",
    "X-Script-Name": "/-/metrics",
    "Script-Name": "/-/metrics",
    "X-Url-Scheme": "https",
    # In the environment of WSGI these are the same names.
    "X_Forwarded_For": CLIENT_CLAIMS,
    "X_Real_IP": CLIENT_CLAIMS,
    "REMOTE_USER": "admin",
}
OF_THE_EDGE = {
    "x-forwarded-for": HOST,
    "x-forwarded-host": NAME,
    "x-forwarded-proto": "http",
    "x-real-ip": HOST,
}


@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "handshake"])
@pytest.mark.parametrize("path", ["/", "/static/a.css", "/-/probe/run/endpoint/"])
async def test_what_the_client_says_to_the_edge_or_for_it_ends_there(
    edge: Edge, path: str, upgrade: bool
) -> None:
    more = [f"{name}: {value}" for name, value in (HOP_BY_HOP | CLAIMS).items()]
    if upgrade:  # A Connection that names its own.
        more = [line for line in more if not line.startswith("Connection:")]
    await ask(edge.port, path, upgrade=upgrade, more=[*more, "X-Of-The-Application: kept"])
    (headers,) = passed_on(edge)
    (generation,) = {headers.pop("x-edge-generation")} - {"lb1 claimed 1"}
    assert generation.startswith("lb1 ")
    wanted = {"host": NAME, "x-of-the-application": "kept", **OF_THE_EDGE}
    if upgrade:
        wanted |= {"connection": "upgrade", "upgrade": "websocket"}
    headers.pop("content-length", None)
    assert headers == wanted


async def test_what_an_application_needs_is_passed_on(edge: Edge) -> None:
    kept = {
        "authorization": "Bearer token",
        "cookie": "sessionid=1",
        "origin": f"http://{NAME}",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol": "chat",
        "sec-websocket-version": "13",
        "x-csrftoken": "token",
    }
    more = [f"{name}: {value}" for name, value in kept.items()]
    await ask(edge.port, "/ws/", upgrade=True, more=more)
    (headers,) = passed_on(edge)
    assert kept.items() <= headers.items()


@pytest.mark.parametrize(
    ("target", "host", "told"),
    [
        ("/", f"{NAME}:8080", f"{NAME}:8080"),
        ("/", NAME.upper(), NAME),
        # The target's host is the one that counts and that the edge has looked at.
        (f"http://{NAME}/", OTHER, NAME),
        (f"http://{NAME}/", f"{OTHER}:8080", f"{NAME}:8080"),
    ],
)
async def test_the_host_that_a_worker_hears_is_the_one_that_the_edge_knows(
    edge: Edge, target: str, host: str, told: str
) -> None:
    answer = await ask(edge.port, target, host=host)
    assert answer.status == 200
    (headers,) = passed_on(edge)
    assert headers["host"] == headers["x-forwarded-host"] == told


# The workers' own pages

WAYS_TO_A_PAGE = [
    "/-/{page}",
    "/-/{page}/",
    "/-/{page}?x=1",
    "/%2d/{page}",
    "/%2D/{page}",
    "/-%2f{page}",
    "/%2f-/{page}",
    "//-/{page}",
    "/-//{page}",
    "/./-/{page}",
    "/-/./{page}",
    "/x/../-/{page}",
    "/x/%2e%2e/-/{page}",
    "/%2e/-/{page}",
    "/-/probe/../{page}",
    "/-/probe/%2e%2e/{page}",
    "/-/probe/x/../../{page}",
    "/-/{page}/../probe/x/y/",
    "/-/{page}/..%2fprobe/x/y/",
    "/-/{page}/../../",
    "/-/{page}#/../../",
    "/static/../-/{page}",
    "/static/..%2f-/{page}",
    "/-/{page};x=1",
    "/-/{page}%00",
    "/-/{page}%20",
    "/-/{page}%0d%0aX:%201",
    "http://chat.example.org/-/{page}",
    "HTTP://CHAT.EXAMPLE.ORG/-/{page}",
    "http://other.example/-/{page}",
    "http://127.0.0.1/-/{page}",
    "/%252d/{page}",
    "/\\-/{page}",
    "-/{page}",
    "*",
]
PAGES = ["metrics", "ready", "live"]
HOSTS = [NAME, OTHER, HOST, "localhost", f"{NAME}:80", f"{NAME}."]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def real_worker(server: str) -> Iterator[RealWorker]:
    """One of the real servers behind the edge."""
    environment = {"CHANNELS_KIT_PROBE_TOKEN": TOKEN}
    with RealWorker("app1:8001", environment, server) as worker:
        assert worker.port
        yield worker


@pytest.fixture
async def real_edge(configuration: str, real_worker: RealWorker) -> AsyncIterator[Edge]:
    """An edge before one real worker; the others are off."""
    others = ["off"] * (len(WORKER_PORTS) - 1)
    async with running(configuration, [real_worker.port, *others]) as edge:
        yield edge


async def whole_answer(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_no_way_leads_to_the_workers_own_pages(
    real_edge: Edge, real_worker: RealWorker
) -> None:
    direct = await ask(real_worker.port, "/-/live", host=HOST)
    assert direct.status == 200
    found = []
    for way in WAYS_TO_A_PAGE:
        for page in PAGES:
            for host in HOSTS:
                target = way.format(page=page)
                request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                answer = await whole_answer(real_edge.port, request.encode())
                status = answer.split(b" ", 2)[1] if answer.startswith(b"HTTP/1.") else b""
                own = b"the application's own" in answer
                if status == b"200" and not own:
                    found.append((target, host, answer))
    assert not found


async def test_h2c_ends_at_the_edge(real_edge: Edge) -> None:
    """Neither by an upgrade nor by the words with which HTTP/2 begins without one."""
    upgrade = (
        f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    ).encode()
    assert await raw(real_edge.port, upgrade) == [b"200"]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    assert b"101" not in (statuses := await raw(real_edge.port, preface))
    assert b"200" not in statuses


async def test_what_a_client_claims_is_not_believed(real_edge: Edge) -> None:
    more = [f"{name}: {value}" for name, value in CLAIMS.items()]
    answer = await ask(real_edge.port, "/client/", more=more)
    assert answer.body.decode() == repr((HOST, "http"))


# Messages whose end is in doubt

INNER = f"GET /smuggled HTTP/1.1\r\nHost: {NAME}\r\nX-Real-IP: 6.6.6.6\r\n\r\n"


def post(*headers: str, body: str, version: str = "1.1", end: str = "\r\n") -> bytes:
    head = [f"POST /outer HTTP/{version}", f"Host: {NAME}", *headers, "", ""]
    return (end.join(head) + body).encode("latin-1")


LENGTH = f"Content-Length: {len(INNER)}"
CHUNKED = "Transfer-Encoding: chunked"
EMPTY_CHUNKS = f"0\r\n\r\n{INNER}"
ONE_CHUNK = f"{len(INNER):x}\r\n{INNER}\r\n0\r\n\r\n"
DOUBTFUL = {
    "cl.te": post(f"Content-Length: {len(EMPTY_CHUNKS)}", CHUNKED, body=EMPTY_CHUNKS),
    "te.cl": post(CHUNKED, "Content-Length: 4", body=ONE_CHUNK),
    "te.te, unknown last": post(CHUNKED, "Transfer-Encoding: x", body=EMPTY_CHUNKS),
    "te.te, unknown first": post("Transfer-Encoding: x", CHUNKED, body=EMPTY_CHUNKS),
    "te.te, twice": post(CHUNKED, CHUNKED, body=EMPTY_CHUNKS),
    "te list": post("Transfer-Encoding: chunked, identity", body=EMPTY_CHUNKS),
    "te list reversed": post("Transfer-Encoding: identity, chunked", body=EMPTY_CHUNKS),
    "te gzip": post("Transfer-Encoding: gzip, chunked", body=EMPTY_CHUNKS),
    "te tab": post("Transfer-Encoding:\tchunked", LENGTH, body=EMPTY_CHUNKS),
    "te vertical tab": post("Transfer-Encoding: \x0bchunked", LENGTH, body=EMPTY_CHUNKS),
    "te quoted": post('Transfer-Encoding: "chunked"', LENGTH, body=EMPTY_CHUNKS),
    "te space before colon": post("Transfer-Encoding : chunked", LENGTH, body=INNER),
    "te underscore": post("Transfer_Encoding: chunked", LENGTH, body=INNER),
    "te folded": post("X: y", " Transfer-Encoding: chunked", LENGTH, body=INNER),
    "te after bare lf": post(f"X: y\n{CHUNKED}", LENGTH, body=EMPTY_CHUNKS),
    "te after bare cr": post(f"X: y\r{CHUNKED}", LENGTH, body=INNER),
    "te in http/1.0": post(CHUNKED, body=EMPTY_CHUNKS, version="1.0"),
    "cl twice": post("Content-Length: 0", LENGTH, body=INNER),
    "cl twice, equal": post(LENGTH, LENGTH, body=INNER),
    "cl list": post(f"Content-Length: 0, {len(INNER)}", body=INNER),
    "cl plus": post(f"Content-Length: +{len(INNER)}", body=INNER),
    "cl minus": post("Content-Length: -1", body=INNER),
    "cl hex": post("Content-Length: 0x0", body=INNER),
    "cl space before colon": post("Content-Length : 0", LENGTH, body=INNER),
    "cl huge": post("Content-Length: 18446744073709551616", body=INNER),
    "cl obs-fold": post("Content-Length: 0", f" {len(INNER)}", body=INNER),
    "chunk extension": post(CHUNKED, body=f'{len(INNER):x};x="0\r\n\r\n"\r\n{INNER}\r\n0\r\n\r\n'),
    "chunk extension plain": post(CHUNKED, body=f"{len(INNER):x};a=b\r\n{INNER}\r\n0\r\n\r\n"),
    "chunk extension bare lf": post(CHUNKED, body=f"2;\nxx\r\n0\r\n\r\n{INNER}"),
    "chunk bare lf": post(CHUNKED, body=f"{len(INNER):x}\n{INNER}\n0\n\n"),
    "chunk size hex prefix": post(CHUNKED, body=f"0x0\r\n\r\n{INNER}"),
    "chunk size huge": post(CHUNKED, body=f"10000000000000000\r\n{INNER}"),
    "chunk size negative": post(CHUNKED, body=f"-1\r\n{INNER}"),
    "chunk size spaces": post(CHUNKED, body=f"{len(INNER):x}  \r\n{INNER}\r\n0\r\n\r\n"),
    "chunk longer than said": post(CHUNKED, body=f"1\r\n{INNER}"),
    "trailer": post(
        CHUNKED,
        "Trailer: X-Real-IP",
        body=f"{len(INNER):x}\r\n{INNER}\r\n0\r\nX-Real-IP: 6.6.6.6\r\n\r\n",
    ),
    "bare lf": post(LENGTH, body=INNER, end="\n"),
    "bare cr": post(LENGTH, body=INNER, end="\r"),
    "two spaces before the target": post(LENGTH, body=INNER).replace(b" ", b"  ", 1),
    "two hosts": post("Host: other.example", LENGTH, body=INNER),
    "nul in a header": post("X: a\0b", LENGTH, body=INNER),
    "expect": post("Expect: 100-continue", LENGTH, body=INNER),
    "get with a body": f"GET /outer HTTP/1.1\r\nHost: {NAME}\r\n{LENGTH}\r\n\r\n{INNER}".encode(),
    "handshake with a body": (
        f"GET /outer HTTP/1.1\r\nHost: {NAME}\r\nUpgrade: h2c\r\n"
        f"Connection: Upgrade\r\n{LENGTH}\r\n\r\n{INNER}"
    ).encode(),
}


@pytest.mark.parametrize("name", DOUBTFUL)
async def test_where_a_message_ends_is_said_once(edge: Edge, name: str) -> None:
    """A worker gets one length, and never what the edge has not read as a request itself.

    The edge may refuse a message, or read it in one way. Then the worker reads it in the same way.
    """
    statuses = await raw(edge.port, DOUBTFUL[name])
    asked = edge.asked
    for headers in passed_on(edge):
        assert {"transfer-encoding", "trailer", "expect"}.isdisjoint(headers)
        assert {name for name in headers if not re.fullmatch("[a-z0-9-]+", name)} == set()
        # Also of a request within another: the edge has seen it.
        assert headers["x-real-ip"] == HOST
        assert headers["content-length"].isdigit() if "content-length" in headers else True
    # An answer for each request that a worker got, and the refusal of what was no request.
    taken = [status for status in statuses if status == b"200"]
    assert len(taken) == len(asked)
    outside = [line for line in asked if line not in ("POST /outer", "GET /outer", "GET /smuggled")]
    assert not outside
    if statuses and statuses[0] != b"200":
        assert asked == [], "what is refused is not passed on"
        assert statuses[1:] == [], "what follows is no request any more"


@pytest.mark.parametrize("name", DOUBTFUL)
async def test_the_servers_see_what_the_edge_sees(
    real_edge: Edge, real_worker: RealWorker, name: str
) -> None:
    """As many answers as the edge, and the connection to the worker is in step afterwards."""
    await raw(real_edge.port, DOUBTFUL[name])
    for _ in range(2):
        answer = await ask(real_edge.port, "/client/")
        assert (answer.status, answer.body.decode()) == (200, repr((HOST, "http")))


# For a load balancer

STATE = "/-/edge"


async def answers(edge: Edge, host: str, path: str = STATE) -> Answer:
    return await ask(edge.port, path, host=host)


@pytest.mark.parametrize("host", [*HOSTS, "[::1]:80", "10.0.0.1:9000", "x"])
async def test_a_load_balancer_is_told_to_send_people_whatever_the_host(
    edge: Edge, host: str
) -> None:
    answer = await answers(edge, host)
    assert (answer.status, answer.body) == (200, b"open\n")
    assert answer.headers["cache-control"] == "no-store"
    # By HEAD, with a query, and by HTTP/1.0 without a Host.
    assert await raw(edge.port, f"HEAD {STATE}?x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == [
        b"200"
    ]
    assert await raw(edge.port, f"GET {STATE} HTTP/1.0\r\n\r\n".encode()) == [b"200"]
    assert edge.asked == [], "a worker was asked"
    # It is no way in.
    other = await answers(edge, OTHER, "/-/metrics")
    assert other.status == 421


async def test_a_load_balancer_is_told_of_a_drained_edge(edge: Edge) -> None:
    file = edge.configuration.with_name("draining")
    for host in (NAME, OTHER):
        file.touch()
        answer = await answers(edge, host)
        assert (answer.status, answer.body) == (503, b"draining\n")
        assert answer.headers["cache-control"] == "no-store"
        file.unlink()
        assert (await answers(edge, host)).status == 200


async def test_a_drained_edge_still_serves(edge: Edge) -> None:
    """Those that are there, and those that a load balancer sends before its next question."""
    edge.configuration.with_name("draining").touch()
    assert (await ask(edge.port, "/")).status == 200
    assert (await ask(edge.port, "/ws/", upgrade=True)).status == 101


async def test_the_questions_of_a_load_balancer_are_not_in_the_log(edge: Edge) -> None:
    await answers(edge, OTHER)
    log = edge.configuration.with_name("access.log")
    async with asyncio.timeout(PATIENCE):
        while not (lines := log.read_text().splitlines()):
            await ask(edge.port, "/of-people/")
    assert {json.loads(line)["uri"] for line in lines} == {"/of-people/"}
