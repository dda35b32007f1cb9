"""The edge under a storm: nginx itself, with the configuration that the role writes."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from .edge import (
    EDGE_PORT,
    HOST,
    NAME,
    NGINX,
    PATIENCE,
    WORKER_PORTS,
    WORKER_RETRY_AFTER,
    Edge,
    ask,
    conversation,
    handshake,
    running,
)
from .house import Tree, defaults
from .modules import run_module
from .rendered import nginx_configurations, render

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: scripts/bootstrap tests"
)

RATE = 4
BURST = 4
STORM = 20
# A state of /proc/net/tcp.
LISTENS = "0A"
TAKES = ["takes"] * len(WORKER_PORTS)
OTHERS = len(WORKER_PORTS) - 1
RETRY_AFTER = str(defaults("nginx")["nginx_retry_after"])


def inventory(**variables: object) -> Tree:
    # Temporary files, too, must not be those of an nginx that this machine runs.
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{name}_temp_path /var/lib/nginx/{name};" for name in temporary)
    workers = [
        {"name": f"app1:{port}", "host": "app1", "address": HOST, "port": port, "url": ""}
        for port in WORKER_PORTS
    ]
    common = {
        "cluster_address": HOST,
        "cluster_server_names": [NAME],
        "cluster_edge_http_port": EDGE_PORT,
        "cluster_nofile": 1024,
        "cluster_web_workers": workers,
        # All clients of most tests have one address.
        "nginx_handshakes_per_address": 0,
        "nginx_http_snippet": paths,
    }
    return {
        "all": {"hosts": {"lb1": {}}, "vars": {**common, **variables}},
        "nginx": {"hosts": {"lb1": None}},
    }


INVENTORIES = {
    "ample": inventory(),
    "named": inventory(cluster_server_names=["2001:DB8:0::10", ".Example.net", "a." * 100 + "de"]),
    "scarce": inventory(nginx_handshakes_per_second=RATE, nginx_handshakes_burst=BURST),
}


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return nginx_configurations(render(tmp_path_factory.mktemp("rendered"), INVENTORIES))


@pytest.fixture
def ample(configurations: dict[str, str]) -> str:
    return configurations["ample"]


@pytest.fixture
async def scarce(configurations: dict[str, str]) -> AsyncIterator[Edge]:
    """An edge with a low limit, and workers that take whatever comes."""
    async with running(configurations["scarce"], TAKES) as edge:
        yield edge


@asynccontextmanager
async def storm(edge: Edge) -> AsyncIterator[None]:
    """Give the edge more handshakes than it takes, and go on when it has refused one."""
    tasks = [asyncio.create_task(handshake(edge.port)) for _ in range(STORM)]
    try:
        for answer in asyncio.as_completed(tasks):
            if (await answer).status == 503:
                yield
                break
        else:
            pytest.fail("every handshake was taken")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# The names


@pytest.mark.parametrize("port", ["", ":8080"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("[2001:db8::10]", 200),
        ("[2001:db8::11]", 421),
        ("www.example.net", 200),
        ("example.net", 200),
        ("example.org", 421),
        ("a." * 100 + "de", 200),
        (HOST, 200),
    ],
)
async def test_the_edge_serves_every_name_of_the_site(
    configurations: dict[str, str], host: str, status: int, port: str
) -> None:
    async with running(configurations["named"], TAKES) as edge:
        answer = await ask(edge.port, host=f"{host}{port}")
        assert answer.status == status
        if status == 200:
            (worker,) = (each for each in edge.workers if each.asked)
            assert worker.headers[0]["host"] == f"{host}{port}"


# The limit


async def test_handshakes_wait_for_their_turn_and_too_many_are_refused(scarce: Edge) -> None:
    # Of many clients: the limit is one for all of them.
    sources = [f"127.0.0.{number}" for number in range(2, 2 + STORM)]
    answers = await asyncio.gather(*(handshake(scarce.port, source=source) for source in sources))
    taken = [answer for answer in answers if answer.status == 101]
    refused = [answer for answer in answers if answer.status != 101]
    # One at once, and those that wait; what came in a later moment may be among them.
    assert 1 + BURST <= len(taken) <= 1 + 2 * BURST
    assert {answer.status for answer in refused} == {503}
    assert {answer.headers["retry-after"] for answer in refused} == {RETRY_AFTER}
    assert {answer.headers["cache-control"] for answer in refused} == {"no-store"}
    moments = sorted(moment for worker in scarce.workers for moment in worker.moments)
    assert len(moments) == len(taken), "a refused one came through"
    assert moments[-1] - moments[0] > 0.9 * (len(taken) - 1) / RATE, "all came at once"


async def test_plain_http_is_not_limited(scarce: Edge) -> None:
    async with storm(scarce):
        answers = await asyncio.gather(*(ask(scarce.port, "/login/") for _ in range(STORM)))
    assert {answer.status for answer in answers} == {200}


async def test_the_proof_is_not_limited(scarce: Edge) -> None:
    path = "/-/probe/run/endpoint/"
    async with storm(scarce):
        answers = await asyncio.gather(*(handshake(scarce.port, path) for _ in range(STORM)))
    assert {answer.status for answer in answers} == {101}


async def test_the_edge_says_whether_handshakes_are_taken(scarce: Edge) -> None:
    calm = await ask(scarce.port, "/-/handshakes")
    assert (calm.status, calm.headers["cache-control"]) == (204, "no-store")
    async with storm(scarce):
        refused = await ask(scarce.port, "/-/handshakes")
        assert (refused.status, refused.headers["retry-after"]) == (503, RETRY_AFTER)
        assert refused.headers["cache-control"] == "no-store"
    async with asyncio.timeout(PATIENCE):
        while (await ask(scarce.port, "/-/handshakes")).status != 204:
            pass
    assert not any("/-/" in line for line in scarce.asked), "a worker was asked"


async def test_questions_do_not_keep_out_handshakes(scarce: Edge) -> None:
    questions = (ask(scarce.port, "/-/handshakes") for _ in range(STORM))
    answers = await asyncio.gather(*questions)
    assert {answer.status for answer in answers} == {204, 503}
    assert (await handshake(scarce.port)).status == 101


# Passing over


async def test_workers_that_drain_are_passed_over(ample: str) -> None:
    async with running(ample, ["drains"] * OTHERS + ["takes"]) as edge:
        statuses = [(await handshake(edge.port)).status for _ in range(STORM)]
    assert statuses == [101] * STORM
    assert all(worker.asked for worker in edge.workers), "the edge did not meet them all"


async def test_a_worker_that_is_just_back_is_asked_when_all_others_drain(ample: str) -> None:
    async with running(ample, ["drains"] * OTHERS + ["takes"]) as edge:
        # As often as it takes until nginx leaves them out.
        for _ in range(STORM):
            assert (await handshake(edge.port)).status == 101
        for worker in edge.workers:
            worker.manner = "drains" if worker.manner == "takes" else "takes"
        statuses = [(await handshake(edge.port)).status for _ in range(STORM)]
    assert statuses == [101] * STORM


async def test_a_worker_that_is_just_back_gets_its_share(ample: str) -> None:
    """While all sockets stay open: for nginx, none of them is a success before it closes."""
    async with running(ample, ["drains", *TAKES[1:]]) as edge, AsyncExitStack() as sockets:

        async def open_sockets(number: int) -> None:
            for _ in range(number):
                opened = conversation(edge.port, "/ws/", upgrade=True)
                answer, *_ = await sockets.enter_async_context(opened)
                assert answer.status == 101

        back = edge.workers[0]
        await open_sockets(STORM)
        assert back.asked
        back.manner = "takes"
        asked = len(back.asked)
        share = STORM // len(WORKER_PORTS)
        await open_sockets(share)
        # It has the fewest, so all of them are its.
        assert len(back.asked) - asked == share


async def test_where_all_drain_a_workers_own_words_are_passed_on(ample: str) -> None:
    async with running(ample, ["drains"] * len(WORKER_PORTS)) as edge:
        answers = [await handshake(edge.port)]
        assert len(edge.asked) == len(WORKER_PORTS), "each is asked once"
        answers += [await handshake(edge.port) for _ in range(STORM)]
    assert {(answer.status, answer.body) for answer in answers} == {
        (503, b"This worker is draining.")
    }
    assert {answer.headers["retry-after"] for answer in answers} == {WORKER_RETRY_AFTER}


async def test_where_nobody_is_there_it_is_said_at_once(ample: str) -> None:
    async with running(ample, ["off"] * len(WORKER_PORTS)) as edge:
        answers = [await ask(edge.port) for _ in range(STORM)]
    assert {answer.status for answer in answers} == {502}


async def test_a_post_goes_on_from_a_worker_that_it_did_not_reach(ample: str) -> None:
    async with running(ample, ["off"] * OTHERS + ["takes"]) as edge:
        answer = await ask(edge.port, "/api/", method="POST", body=b"words")
    assert (answer.status, answer.body) == (200, b"words")


async def test_a_post_that_may_have_had_an_effect_is_not_repeated(ample: str) -> None:
    # As often as it takes until each worker has failed too often.
    posts = 4 * len(WORKER_PORTS)
    async with running(ample, ["dies"] * len(WORKER_PORTS)) as edge:
        for _ in range(posts):
            answer = await ask(edge.port, "/api/", method="POST", body=b"words")
            assert answer.status == 502
        assert edge.asked == ["POST /api/"] * posts
        # What has none is.
        await ask(edge.port, "/api/")
        assert edge.asked.count("GET /api/") == len(WORKER_PORTS)


async def test_a_whole_host_that_is_off_is_passed_over(ample: str) -> None:
    # Ten times as fast.
    assert "proxy_connect_timeout 500ms;" in ample
    assert "proxy_next_upstream_timeout 10s;" in ample
    content = ample.replace("connect_timeout 500ms;", "connect_timeout 50ms;").replace(
        "upstream_timeout 10s;", "upstream_timeout 1s;"
    )
    async with running(content, ["silent"] * OTHERS + ["takes"]) as edge:
        assert (await handshake(edge.port)).status == 101


# Reloads


async def test_the_edge_says_which_configuration_it_has_read(
    configurations: dict[str, str],
) -> None:
    """For the workers to close, in time, the sockets of a process that a reload has replaced."""
    told = []
    for content in configurations.values():
        async with running(content, TAKES) as edge:
            for upgrade in (True, False):
                # Whatever a client claims.
                claim = "X-Edge-Generation: lb1 claimed 1"
                await ask(edge.port, "/ws/", upgrade=upgrade, more=[claim])
            told += [
                headers["x-edge-generation"]
                for worker in edge.workers
                for headers in worker.headers
            ]
    digests = [re.fullmatch("lb1 ([0-9a-f]{12}) 3600", value)[1] for value in told]  # type: ignore[index]
    assert [digests.count(digest) for digest in dict.fromkeys(digests)] == [2, 2]


def parent_of(process: str) -> int:
    (parent,) = re.findall(r"^PPid:\s+(\d+)$", Path(f"/proc/{process}/status").read_text(), re.M)
    return int(parent)


async def test_the_edge_tells_its_host_which_configuration_is_in_effect(ample: str) -> None:
    """For a run to see whether a reload is missing: what the file says, and what nginx does."""
    (generation,) = set(re.findall(r'return 200 "([0-9a-f]{12}) \$pid";', ample))
    async with running(ample, TAKES) as edge:
        answer = await ask(edge.local_port, "/generation", host="127.0.0.1")
        told, process = answer.body.decode().split()
        assert (answer.status, told) == (200, generation)
        # A worker, whose limits can be read.
        assert parent_of(process) == edge.process.pid
        assert (await ask(edge.local_port, "/")).status == 404
        # Nobody else hears of it.
        assert (await ask(edge.port, "/generation")).body != answer.body
        # The file alone changes nothing.
        text = edge.configuration.read_text()
        edge.configuration.write_text(text.replace(generation, "0" * 12))
        assert (await ask(edge.local_port, "/generation")).body.decode().split()[0] == generation
        edge.reload(lambda text: text)
        async with asyncio.timeout(PATIENCE):
            while (await ask(edge.local_port, "/generation")).body.decode().split()[0] != "0" * 12:
                pass


async def test_a_file_that_nginx_has_not_read_is_seen(ample: str) -> None:
    """Whether the file differs in its name or not, and beside an nginx that has other files."""
    (generation,) = set(re.findall(r'return 200 "([0-9a-f]{12}) \$pid";', ample))
    async with running(ample, TAKES) as older, running(ample, TAKES) as edge:

        def compare(of: Edge = edge, name: str = generation) -> Tree:
            url = f"http://{HOST}:{of.local_port}/generation"
            files = [str(of.configuration)]
            return run_module("nginx_freshness", files=files, url=url, generation=name)

        def edited() -> Tree:
            edge.configuration.write_text(edge.configuration.read_text() + "# edited\n")
            return compare()

        def wait(stale: bool, look: Callable[[], Tree] = compare) -> Tree:
            deadline = time.monotonic() + PATIENCE
            while (found := look())["stale"] is not stale:
                assert time.monotonic() < deadline, found
            return found

        assert compare()["reason"] == ""
        assert compare()["nofile"] == int(*re.findall(r"worker_rlimit_nofile (\d+);", ample))
        # As after a run that was interrupted before the reload of what somebody had edited. Again
        # and again: what is edited within two ticks of nginx's start passes for what it has read.
        reason = wait(True, edited)["reason"]
        assert reason == f"{edge.configuration} was changed after nginx read it"
        assert compare(older)["stale"] is False
        edge.reload(lambda text: text)
        wait(False)
        # With another name, a reload that failed is told from one that did not.
        other = compare(name="0" * 12)
        assert other["reason"] == f"the configuration is {'0' * 12}, nginx runs with {generation}"
        nobody = run_module(
            "nginx_freshness",
            files=[str(edge.configuration)],
            url=f"http://{HOST}:{edge.port}/generation",
            generation=generation,
        )
        assert nobody["stale"] is True
        assert "nginx does not report its configuration on" in nobody["reason"]


async def test_a_socket_outlives_a_reload_up_to_a_bound(ample: str) -> None:
    content = ample.replace("shutdown_timeout 3600s;", "shutdown_timeout 2s;")
    assert content != ample
    async with (
        running(content, TAKES) as edge,
        conversation(edge.port, "/ws/", upgrade=True) as (answer, reader, writer),
    ):
        assert answer.status == 101
        (worker,) = (worker for worker in edge.workers if worker.asked)

        # Its worker is not one of the edge's any more; and a sign of the new configuration.
        def change(text: str) -> str:
            lines = [line for line in text.splitlines() if f":{worker.port} " not in line]
            return "\n".join(lines).replace("return 421;", "return 410;")

        edge.reload(change)
        async with asyncio.timeout(PATIENCE):
            while (await ask(edge.port, host="other.example")).status != 410:
                pass
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert await reader.read() == b"", "cut when the time is up"


def queues_of(port: int) -> int:
    """Return how many sockets listen on a port of IPv4."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(words[1].endswith(f":{port:04X}") and words[3] == LISTENS for words in sockets)


async def test_the_kernel_shares_connections_among_the_processes(ample: str) -> None:
    content = ample.replace("worker_processes auto", "worker_processes 3")
    async with running(content, TAKES) as edge:
        assert (await ask(edge.port)).status == 200
        # Each process has a queue of its own; the kernel chooses one by the client's port.
        assert queues_of(edge.port) == 3
