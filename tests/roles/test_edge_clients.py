"""The limits of one client at the edge: handshakes per second, and open sockets.

A real nginx with the configuration that the role writes. Connections from several addresses of the
loopback network are several clients; IPv6 clients come through a trusted proxy.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack

import pytest

from .edge import NGINX, PATIENCE, Answer, Edge, ask, conversation, handshake, running
from .house import defaults
from .rendered import nginx_configurations, render
from .test_edge import TAKES, inventory

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: scripts/bootstrap tests"
)

PROXY = "127.0.0.2"
# Slow enough that a test sees no more than the burst.
BURST = 4
FLOOD = 20
FLOODER, OTHER = "127.0.0.5", "127.0.0.6"
RETRY_AFTER = str(defaults("nginx")["nginx_retry_after"])

LIMIT = {"nginx_handshakes_per_address": 1, "nginx_handshakes_per_address_burst": BURST}
INVENTORIES = {
    "limited": inventory(cluster_trusted_proxies=[PROXY], **LIMIT),
    "off": inventory(),
    "sockets": inventory(cluster_trusted_proxies=[PROXY], nginx_sockets_per_address=2),
}


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return nginx_configurations(render(tmp_path_factory.mktemp("rendered"), INVENTORIES))


@pytest.fixture
async def limited(configurations: dict[str, str]) -> AsyncIterator[Edge]:
    async with running(configurations["limited"], TAKES) as edge:
        yield edge


@pytest.fixture
async def sockets(configurations: dict[str, str]) -> AsyncIterator[Edge]:
    async with running(configurations["sockets"], TAKES) as edge:
        yield edge


async def through_proxy(edge: Edge, client: str) -> Answer:
    return await handshake(edge.port, source=PROXY, more=[f"X-Forwarded-For: {client}"])


async def flood_from(edge: Edge, clients: Iterable[str]) -> list[Answer]:
    """Send a handshake of each client through the proxy, all at once."""
    return await asyncio.gather(*(through_proxy(edge, client) for client in clients))


def check_limited(answers: list[Answer]) -> None:
    """One and the burst are taken, and what comes in a later second; the rest is refused."""
    refused = [answer for answer in answers if answer.status != 101]
    assert 1 + BURST <= len(answers) - len(refused) <= 1 + 2 * BURST
    assert {answer.status for answer in refused} == {503}
    assert {answer.headers["retry-after"] for answer in refused} == {RETRY_AFTER}
    assert {answer.headers["cache-control"] for answer in refused} == {"no-store"}


async def test_one_client_is_limited_and_another_gets_through(limited: Edge) -> None:
    answers = await asyncio.gather(*(handshake(limited.port, source=FLOODER) for _ in range(FLOOD)))
    check_limited(answers)
    assert (await handshake(limited.port, source=OTHER)).status == 101


async def test_what_a_client_may_send_at_once_does_not_wait(limited: Edge) -> None:
    clock = asyncio.get_running_loop().time
    begun = clock()
    answers = await asyncio.gather(
        *(handshake(limited.port, source=OTHER) for _ in range(1 + BURST))
    )
    assert {answer.status for answer in answers} == {101}
    # At one per second the last would have waited for four.
    assert clock() - begun < BURST / 2


async def test_only_handshakes_are_limited(limited: Edge) -> None:
    for path, upgrade, status in (("/login/", False, 200), ("/-/probe/run/end/", True, 101)):
        answers = await asyncio.gather(
            *(ask(limited.port, path, upgrade=upgrade, source=FLOODER) for _ in range(FLOOD))
        )
        assert {answer.status for answer in answers} == {status}


async def test_the_edge_tells_each_client_whether_its_handshakes_are_taken(limited: Edge) -> None:
    answers = await asyncio.gather(
        *(ask(limited.port, "/-/handshakes", source=FLOODER) for _ in range(FLOOD))
    )
    assert {answer.status for answer in answers} == {204, 503}
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.headers["retry-after"] == RETRY_AFTER
    # Questions leave room for handshakes, and are no concern of others.
    assert (await handshake(limited.port, source=FLOODER)).status == 101
    assert (await ask(limited.port, "/-/handshakes", source=OTHER)).status == 204


async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(limited: Edge) -> None:
    check_limited(await flood_from(limited, ["203.0.113.7"] * FLOOD))
    answers = await flood_from(limited, (f"203.0.113.{number}" for number in range(8, 8 + FLOOD)))
    assert {answer.status for answer in answers} == {101}


@pytest.mark.parametrize("network", ["2001:db8:1:2", "2001:db8:a0a:a0a", "2001:db8:ff:ff"])
async def test_an_ipv6_network_of_64_bits_is_one_client(limited: Edge, network: str) -> None:
    """Whatever bytes are in it, such as that of a line end."""
    clients = [f"{network}:a:a0a:{number:x}:{number:x}" for number in range(1, 1 + FLOOD)]
    check_limited(await flood_from(limited, clients))
    first, _, last = network.rpartition(":")
    neighbour = f"{first}:{int(last, 16) + 1:x}::1"
    assert (await through_proxy(limited, neighbour)).status == 101


async def test_ipv4_addresses_in_ipv6_notation_are_no_network(limited: Edge) -> None:
    clients = [f"::ffff:203.0.113.{number}" for number in range(8, 8 + FLOOD)]
    assert {answer.status for answer in await flood_from(limited, clients)} == {101}
    # In either notation it is the same client.
    both = ["203.0.113.7", "::ffff:203.0.113.7"] * FLOOD
    check_limited(await flood_from(limited, both))


async def test_the_limit_is_switched_off_by_name(configurations: dict[str, str]) -> None:
    async with running(configurations["off"], TAKES) as edge:
        answers = await asyncio.gather(
            *(handshake(edge.port, source=FLOODER) for _ in range(4 * FLOOD))
        )
    assert {answer.status for answer in answers} == {101}


# Open sockets


async def open_socket(edge: Edge, stack: AsyncExitStack, source: str, *more: str) -> Answer:
    opened = conversation(edge.port, "/ws/", upgrade=True, source=source, more=more)
    answer, *_ = await stack.enter_async_context(opened)
    return answer


async def test_one_client_has_so_many_sockets(sockets: Edge) -> None:
    async with AsyncExitStack() as kept:
        async with AsyncExitStack() as closed:
            assert (await open_socket(sockets, kept, FLOODER)).status == 101
            assert (await open_socket(sockets, closed, FLOODER)).status == 101
            refused = await open_socket(sockets, kept, FLOODER)
            assert (refused.status, refused.headers["retry-after"]) == (503, RETRY_AFTER)
            # Pages are no sockets, and another client is another.
            assert (await ask(sockets.port, "/login/", source=FLOODER)).status == 200
            assert (await open_socket(sockets, kept, OTHER)).status == 101
        async with asyncio.timeout(PATIENCE):
            while (await open_socket(sockets, kept, FLOODER)).status != 101:
                pass


async def test_an_ipv6_network_has_so_many_sockets(sockets: Edge) -> None:
    async with AsyncExitStack() as kept:
        statuses = [
            (
                await open_socket(
                    sockets, kept, PROXY, f"X-Forwarded-For: 2001:db8:1:2::{number:x}"
                )
            ).status
            for number in range(1, 4)
        ]
    assert statuses == [101, 101, 503]
