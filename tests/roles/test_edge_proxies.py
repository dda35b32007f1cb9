"""The edge behind a load balancer or a CDN: whose word on the client's address and scheme counts.

A real nginx with the configuration that the role writes. The sources of connections are addresses
of the loopback network: one is a trusted proxy, another is not.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from ..kit.cluster import SERVERS
from ..kit.cluster import Worker as RealWorker
from ..kit.conftest import TOKEN
from .edge import (
    HOST,
    INSIDE_PORT,
    NAME,
    NGINX,
    PATIENCE,
    WORKER_PORTS,
    Edge,
    ask,
    conversation,
    running,
)
from .formats import parse_guards
from .rendered import Cluster, nginx_configurations, render
from .test_edge import TAKES, inventory
from .test_gixy import findings
from .values import House

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: scripts/bootstrap tests"
)

TRUSTED = "127.0.0.2"
# In a trusted network.
SECOND = "127.0.0.17"
STRANGER = "127.0.0.3"
PROXIES = [TRUSTED, "127.0.0.16/28"]
CLIENT = "203.0.113.7"
CLAIM = "6.6.6.6"

INVENTORIES = {
    "nobody": inventory(),
    "headers": inventory(cluster_trusted_proxies=PROXIES),
    "cdn": inventory(cluster_trusted_proxies=PROXIES, nginx_real_ip_header="CF-Connecting-IP"),
    "protocol": inventory(cluster_trusted_proxies=PROXIES, cluster_proxy_protocol=True),
}


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cluster]:
    return render(tmp_path_factory.mktemp("rendered"), INVENTORIES)


@pytest.fixture(scope="module")
def configurations(clusters: dict[str, Cluster]) -> dict[str, str]:
    return nginx_configurations(clusters)


@pytest.fixture
async def headers(configurations: dict[str, str]) -> AsyncIterator[Edge]:
    async with running(configurations["headers"], TAKES) as edge:
        yield edge


@pytest.fixture
async def cdn(configurations: dict[str, str]) -> AsyncIterator[Edge]:
    async with running(configurations["cdn"], TAKES) as edge:
        yield edge


@pytest.fixture
async def protocol(configurations: dict[str, str]) -> AsyncIterator[Edge]:
    async with running(configurations["protocol"], TAKES) as edge:
        yield edge


def last(edge: Edge) -> dict[str, str]:
    """The headers of the last request that a worker got."""
    _, headers = max(
        (moment, headers)
        for worker in edge.workers
        for moment, headers in zip(worker.moments, worker.headers, strict=True)
    )
    return headers


async def told(edge: Edge, *more: str, port: int = 0, **options: Any) -> tuple[str, str]:
    """Ask the edge; return the client's address and scheme as a worker is told them."""
    answer = await ask(port or edge.port, more=more, **options)
    assert answer.status in (101, 200)
    headers = last(edge)
    # The headers agree, and there is one address alone.
    assert headers["x-forwarded-for"] == headers["x-real-ip"]
    return headers["x-forwarded-for"], headers["x-forwarded-proto"]


# Headers


@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "handshake"])
@pytest.mark.parametrize(
    ("source", "address", "scheme"),
    [
        (TRUSTED, CLIENT, "https"),
        (SECOND, CLIENT, "https"),
        (STRANGER, STRANGER, "http"),
        (HOST, HOST, "http"),
    ],
)
async def test_only_a_trusted_proxy_tells_the_client(
    headers: Edge, source: str, address: str, scheme: str, upgrade: bool
) -> None:
    more = [f"X-Forwarded-For: {CLIENT}", "X-Forwarded-Proto: https"]
    assert await told(headers, *more, source=source, upgrade=upgrade) == (address, scheme)


async def test_nobody_is_trusted_by_default(configurations: dict[str, str]) -> None:
    async with running(configurations["nobody"], TAKES) as edge:
        for source in (TRUSTED, HOST):
            more = [f"X-Forwarded-For: {CLIENT}", "X-Forwarded-Proto: https"]
            assert await told(edge, *more, source=source) == (source, "http")


@pytest.mark.parametrize(
    ("header", "address"),
    [
        # The client claims the first one; a CDN has appended the client, and the balancer the CDN.
        (f"{CLAIM}, {CLIENT}, {SECOND}", CLIENT),
        (f"{CLAIM}, {CLIENT}", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        ("2001:DB8::7", "2001:db8::7"),
        ("unknown", TRUSTED),
        (f"{CLAIM}, unknown", TRUSTED),
        ("", TRUSTED),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    headers: Edge, header: str, address: str
) -> None:
    found = await told(headers, f"X-Forwarded-For: {header}", source=TRUSTED)
    assert found == (address, "http")


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("wss", "https"),
        ("ws", "http"),
        ("gopher", "http"),
        # The client may have said the first.
        ("https, http", "http"),
        ("", "http"),
    ],
)
async def test_the_scheme_is_one_of_two(headers: Edge, said: str, scheme: str) -> None:
    found = await told(headers, f"X-Forwarded-Proto: {said}", source=TRUSTED)
    assert found == (TRUSTED, scheme)


async def test_the_log_has_the_client(headers: Edge) -> None:
    await ask(headers.port, "/logged/", source=TRUSTED, more=[f"X-Forwarded-For: {CLIENT}"])
    log = headers.configuration.with_name("access.log")
    async with asyncio.timeout(PATIENCE):
        while not (lines := log.read_text().splitlines()):
            await ask(headers.port, "/later/", source=STRANGER)
    assert json.loads(lines[0])["client"] == CLIENT


async def test_a_cdn_may_have_a_header_of_its_own(cdn: Edge) -> None:
    more = [f"CF-Connecting-IP: {CLIENT}", f"X-Forwarded-For: {CLAIM}", "X-Forwarded-Proto: https"]
    assert await told(cdn, *more, source=TRUSTED) == (CLIENT, "https")
    assert last(cdn)["cf-connecting-ip"] == CLIENT
    # An application that reads the header reads nobody's claim.
    assert await told(cdn, *more, source=STRANGER) == (STRANGER, "http")
    assert last(cdn)["cf-connecting-ip"] == STRANGER


@pytest.mark.parametrize("source", [TRUSTED, STRANGER])
async def test_headers_of_other_cdns_are_not_passed_on(headers: Edge, source: str) -> None:
    names = ["CF-Connecting-IP", "True-Client-IP", "Fastly-Client-IP", "X-Cluster-Client-IP"]
    assert await told(headers, *(f"{name}: {CLAIM}" for name in names), source=source) == (
        source,
        "http",
    )
    assert {name.lower() for name in names}.isdisjoint(last(headers))


# The PROXY protocol


def version_1(address: str = CLIENT, port: int = 80) -> bytes:
    family = "TCP6" if ":" in address else "TCP4"
    return f"PROXY {family} {address} {address} 4711 {port}\r\n".encode()


def version_2(address: str = CLIENT, port: int = 80) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    block = packed + packed + struct.pack("!HH", 4711, port)
    # AWS appends values of its own, here the id of an endpoint.
    block += b"\xea" + struct.pack("!H", 5) + b"\x01vpce"
    kind = b"\x21\x21" if ":" in address else b"\x21\x11"
    return b"\r\n\r\n\0\r\nQUIT\n" + kind + struct.pack("!H", len(block)) + block


# What a balancer says of a connection of its own, such as a health check.
OWN = {
    "v1 unknown": b"PROXY UNKNOWN\r\n",
    "v2 local": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    "v2 unspecified": b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
}
versions = pytest.mark.parametrize("version", [version_1, version_2], ids=["v1", "v2"])


@versions
@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "handshake"])
@pytest.mark.parametrize("address", [CLIENT, "2001:db8::7"])
@pytest.mark.parametrize(("port", "scheme"), [(80, "http"), (443, "https")])
async def test_a_trusted_balancer_tells_the_client_before_the_request(
    protocol: Edge, version: Any, address: str, port: int, scheme: str, upgrade: bool
) -> None:
    before = version(address, port)
    found = await told(protocol, before=before, source=TRUSTED, upgrade=upgrade)
    assert found == (address, scheme)


@versions
async def test_nobody_else_tells_the_client_before_the_request(
    protocol: Edge, version: Any
) -> None:
    found = await told(protocol, before=version(CLIENT, 443), source=STRANGER)
    assert found == (STRANGER, "http")


@versions
@pytest.mark.parametrize("source", [TRUSTED, STRANGER])
async def test_headers_come_from_the_client_through_such_a_balancer(
    protocol: Edge, version: Any, source: str
) -> None:
    more = [f"X-Forwarded-For: {CLAIM}", f"X-Real-IP: {CLAIM}", "X-Forwarded-Proto: https"]
    found = await told(protocol, *more, before=version(), source=source)
    assert found == (CLIENT if source == TRUSTED else STRANGER, "http")


@versions
async def test_a_websocket_goes_through_such_a_balancer(protocol: Edge, version: Any) -> None:
    opened = conversation(protocol.port, "/ws/", upgrade=True, before=version(), source=TRUSTED)
    async with opened as (answer, reader, writer):
        assert answer.status == 101
        writer.write(b"hello")
        async with asyncio.timeout(PATIENCE):
            assert await reader.readexactly(5) == b"hello"


@pytest.mark.parametrize("version", OWN)
@pytest.mark.parametrize("path", ["/-/edge", "/-/health"])
async def test_a_check_of_such_a_balancer_is_answered(
    protocol: Edge, version: str, path: str
) -> None:
    answer = await ask(protocol.port, path, before=OWN[version], source=TRUSTED, host="10.0.0.1")
    assert answer.status == 200
    assert await told(protocol, before=OWN[version], source=TRUSTED) == (TRUSTED, "http")


async def test_a_connection_without_it_ends(protocol: Edge) -> None:
    for source in (TRUSTED, STRANGER):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(protocol.port, source=source)
    assert protocol.asked == []


@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "handshake"])
async def test_the_clusters_own_hosts_have_a_port_without_it(protocol: Edge, upgrade: bool) -> None:
    """The proof speaks plain HTTP."""
    more = [f"X-Forwarded-For: {CLAIM}", "X-Forwarded-Proto: https"]
    for source in (TRUSTED, STRANGER):
        found = await told(
            protocol, *more, port=protocol.inside_port, source=source, upgrade=upgrade
        )
        assert found == (source, "http")
    # Elsewhere it is no way past the names.
    assert (await ask(protocol.inside_port, host="other.example")).status == 421


def test_the_firewall_keeps_this_port_for_the_clusters_own_hosts(
    clusters: dict[str, Cluster],
) -> None:
    guards = parse_guards(clusters["protocol"]["lb1"]["/etc/channels-kit.nft"].lines)
    assert [(guard.ports, guard.sources, guard.verdict) for guard in guards] == [
        (frozenset({INSIDE_PORT}), frozenset({HOST}), "accept"),
        (frozenset({INSIDE_PORT}), frozenset(), "reject with tcp reset"),
    ]
    assert parse_guards(clusters["headers"]["lb1"]["/etc/channels-kit.nft"].lines) == []


def test_the_proof_uses_this_port(tmp_path: Path) -> None:
    house = House(tmp_path, cluster_trusted_proxies=PROXIES)
    urls = [
        house.render("app1", "channels", "{{ cluster_edge_urls }}", {"cluster_proxy_protocol": on})
        for on in (False, True)
    ]
    assert urls == [["http://10.0.0.4:80"], [f"http://10.0.0.4:{INSIDE_PORT}"]]


@pytest.mark.parametrize("name", INVENTORIES)
def test_no_known_mistake_is_found(
    configurations: dict[str, str], name: str, tmp_path: Path
) -> None:
    assert findings(configurations[name], tmp_path) == []


# What a balancer asks


@pytest.mark.parametrize("host", [NAME, "10.0.0.1:80", "other.example"])
async def test_the_health_path_asks_for_one_worker(
    configurations: dict[str, str], host: str
) -> None:
    manners = ["off"] * (len(TAKES) - 1)
    async with running(configurations["headers"], [*manners, "takes"]) as edge:
        answer = await ask(edge.port, "/-/health", host=host)
        assert (answer.status, answer.body) == (200, b"healthy\n")
        assert answer.headers["cache-control"] == "no-store"
        assert edge.asked == ["GET /-/live"]
        assert (await ask(edge.port, "/-/health", host=host, method="HEAD")).status == 200
        posted = await ask(edge.port, "/-/health", host=host, method="POST", body=b"words")
        assert posted.status == 405
        # The page of the worker itself stays inside.
        inner = await ask(edge.port, "/-/health/worker", host=host)
        assert (inner.status, inner.body.startswith(b"{")) == (404, False)


@pytest.mark.parametrize("manner", ["off", "dies"])
@pytest.mark.parametrize("host", [NAME, "10.0.0.1:80"])
async def test_the_health_path_says_that_no_worker_answers(
    configurations: dict[str, str], manner: str, host: str
) -> None:
    async with running(configurations["headers"], [manner] * len(TAKES)) as edge:
        answer = await ask(edge.port, "/-/health", host=host)
        assert (answer.status, answer.body) == (503, b"no worker answers\n")
        # The other path is for balancers that choose an edge.
        assert (await ask(edge.port, "/-/edge", host=host)).status == 200
        edge.configuration.with_name("draining").touch()
        answer = await ask(edge.port, "/-/health", host=host)
        assert (answer.status, answer.body) == (503, b"draining\n")


async def test_a_worker_that_hangs_is_no_health(configurations: dict[str, str]) -> None:
    content = configurations["headers"]
    # A tenth of the time.
    assert "proxy_read_timeout 2s;" in content
    content = content.replace("proxy_read_timeout 2s;", "proxy_read_timeout 200ms;")
    async with running(content, ["hangs"] * len(TAKES)) as edge:
        answer = await ask(edge.port, "/-/health")
        assert (answer.status, answer.body) == (503, b"no worker answers\n")


# To the end


@pytest.fixture(scope="module", params=SERVERS)
def real_worker(request: pytest.FixtureRequest) -> Iterator[RealWorker]:
    environment = {"CHANNELS_KIT_PROBE_TOKEN": TOKEN}
    with RealWorker("app1:8001", environment, str(request.param)) as worker:
        assert worker.port
        yield worker


@pytest.mark.parametrize(
    ("source", "client", "secure"), [(TRUSTED, CLIENT, "s"), (STRANGER, STRANGER, "")]
)
async def test_the_application_sees_the_client_and_its_scheme(
    configurations: dict[str, str],
    real_worker: RealWorker,
    source: str,
    client: str,
    secure: str,
) -> None:
    claims = {"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}
    others = ["off"] * (len(WORKER_PORTS) - 1)
    async with running(configurations["headers"], [real_worker.port, *others]) as edge:
        more = [f"{name}: {value}" for name, value in claims.items()]
        answer = await ask(edge.port, "/client/", source=source, more=more)
        assert answer.body.decode() == repr((client, f"http{secure}"))
        url = f"ws://{HOST}:{edge.port}/echo/"
        options: dict[str, Any] = {"local_addr": (source, 0), "proxy": None}
        async with connect(url, additional_headers=claims, **options) as opened:
            assert await opened.recv() == repr((client, f"ws{secure}"))
        assert (await ask(edge.port, "/-/health", host="10.0.0.1")).status == 200
