"""The edge behind a load balancer or a CDN, over TLS that ends at the edge."""

import asyncio
import ssl
from typing import Any

import pytest

from . import certificates
from .certificates import Pair, trusting
from .edge import NGINX, ask
from .rendered import nginx_configurations, render
from .test_edge import inventory
from .test_edge_proxies import (
    CLAIM,
    CLIENT,
    PROXIES,
    STRANGER,
    TRUSTED,
    told,
    version_2,
    versions,
)
from .test_edge_tls import TLS, serving

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: scripts/bootstrap tests"
)

TRUSTING: dict[str, Any] = {**TLS, "cluster_trusted_proxies": PROXIES}
INVENTORIES = {
    "headers": inventory(**TRUSTING),
    "protocol": inventory(**TRUSTING, cluster_proxy_protocol=True),
}


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return nginx_configurations(render(tmp_path_factory.mktemp("rendered"), INVENTORIES))


@pytest.fixture(scope="module")
def pair() -> Pair:
    return certificates.make("chat.example.org")


@pytest.fixture
def client(pair: Pair) -> ssl.SSLContext:
    return trusting(pair[0])


@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "handshake"])
async def test_a_cdn_tells_the_client_over_tls(
    configurations: dict[str, str], pair: Pair, client: ssl.SSLContext, upgrade: bool
) -> None:
    async with serving(configurations["headers"], pair) as edge:
        for source, address in ((TRUSTED, CLIENT), (STRANGER, STRANGER)):
            more = [f"X-Forwarded-For: {CLIENT}"]
            options = {"port": edge.tls_port, "tls": client, "upgrade": upgrade}
            assert await told(edge, *more, source=source, **options) == (address, "https")


@versions
@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "handshake"])
async def test_a_balancer_that_passes_on_tls_tells_the_client_before_it(
    configurations: dict[str, str], pair: Pair, client: ssl.SSLContext, version: Any, upgrade: bool
) -> None:
    async with serving(configurations["protocol"], pair) as edge:
        for source, address in ((TRUSTED, CLIENT), (STRANGER, STRANGER)):
            more = [f"X-Forwarded-For: {CLAIM}", "X-Forwarded-Proto: http"]
            options = {"port": edge.tls_port, "tls": client, "upgrade": upgrade}
            found = await told(edge, *more, before=version(CLIENT, 443), source=source, **options)
            assert found == (address, "https")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(edge.tls_port, tls=client, source=TRUSTED)


async def test_such_a_balancer_is_redirected_and_the_clusters_own_hosts_are_not(
    configurations: dict[str, str], pair: Pair
) -> None:
    async with serving(configurations["protocol"], pair) as edge:
        answer = await ask(edge.port, "/login/", before=version_2(), source=TRUSTED)
        assert answer.status == 301
        assert await told(edge, port=edge.inside_port, source=STRANGER) == (STRANGER, "http")
        for path in ("/-/edge", "/-/health"):
            answer = await ask(edge.port, path, before=version_2(), source=TRUSTED)
            assert answer.status == 200, path
