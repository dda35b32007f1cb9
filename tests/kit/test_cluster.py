"""The kit as it runs: Uvicorn, channels_redis, Redis, and the probe's own command line."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from itertools import cycle
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from channels_kit.probe import Target, prove
from channels_kit.probe.__main__ import main
from channels_kit.serving import wait

from .cluster import Cluster, Worker
from .conftest import TOKEN


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNELS_KIT_PROBE_TOKEN", TOKEN)


def read(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urlopen(url) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@asynccontextmanager
async def balancing(workers: list[Worker]) -> AsyncIterator[str]:
    """An edge: each connection goes to the next worker."""
    upcoming = cycle(workers)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            while data := await reader.read(2**16):
                writer.write(data)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection("127.0.0.1", next(upcoming).port)
        await asyncio.gather(copy(reader, upstream[1]), copy(upstream[0], writer))

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_two_workers_prove_delivery(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    assert main(["matrix", "--hold=0", *cluster.arguments, f"--json={file}"]) == 0
    captured = capsys.readouterr()
    assert "directly: 4 of 4 pairs, 20 of 20 deliveries, latency p50 " in captured.out
    assert "\nProved: wires (4 of 4 pairs). Not checked: " in captured.out
    assert "directly: 2 of 2 sockets open, 5 rounds" in captured.err
    report = json.loads(file.read_text())
    assert report["ok"] is True
    assert {endpoint["worker"] for endpoint in report["parts"][0]["endpoints"]} == {
        "app1:8001",
        "app2:8002",
    }
    assert [pair["delivered"] for pair in report["parts"][0]["pairs"]] == [5] * 4
    assert list(tmp_path.iterdir()) == [file]


async def test_the_edge_reaches_every_worker(cluster: Cluster) -> None:
    targets = [Target(worker.name, worker.url) for worker in cluster.workers]
    async with balancing(cluster.workers) as edge:
        report = await prove(targets, edges=[edge], token=TOKEN)
    assert report.ok
    part = report.parts[1]
    assert {endpoint.worker for endpoint in part.endpoints} == {"app1:8001", "app2:8002"}
    assert sum(cell.delivered for cell in part.cells()) == 4 * 4 * 5


def test_an_edge_that_leaves_a_worker_out(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["matrix", "--hold=0", *cluster.arguments, f"--edge={cluster.workers[0].url}"]) == 1
    output = capsys.readouterr().out
    assert "  app2:8002: not reached by any of 12 sockets\n" in output
    assert "Not proved: wires. Next: check that app2:8002 runs" in output


def test_a_wrong_token(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("another\n")
    assert main(["matrix", "--hold=0", *cluster.arguments, f"--token-file={file}"]) == 1
    assert "answered 403; check that the token is that of the worker" in capsys.readouterr().out


def test_ready_and_live(cluster: Cluster) -> None:
    for worker in cluster.workers:
        assert read(f"{worker.url}/-/live") == (
            200,
            {
                "status": "live",
                "worker": worker.name,
                "revision": "r1",
                "pid": worker.popen.pid,
                "draining": False,
                "retired": False,
                "beside": 0,
                "sockets": 0,
                "requests": 0,
            },
        )
        status, content = read(f"{worker.url}/-/ready")
        assert status == 200
        # It has no database, so that none is asked.
        assert list(content["checks"]) == ["channel_layer"]  # type: ignore[call-overload]


def test_wait_is_silent_when_the_worker_answers(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert wait.main([f"{cluster.workers[0].url}/-/live", "--timeout=5"]) == 0
    assert capfd.readouterr() == ("", "")


async def test_a_mute_application_is_answered_for(cluster: Cluster) -> None:
    url = cluster.workers[0].url.replace("http", "ws")
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"{url}/rooms/1/?token=hidden", proxy=None)
    assert caught.value.response.status_code == 504


def test_a_stopped_redis_is_seen(
    own_cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["matrix", "--hold=0", *own_cluster.arguments]) == 0
    own_cluster.redis.popen.terminate()
    own_cluster.redis.popen.wait()
    capsys.readouterr()
    file = tmp_path / "report.json"
    assert (
        main(["matrix", "--hold=0", *own_cluster.arguments, "--timeout=4", f"--json={file}"]) == 1
    )
    output = capsys.readouterr().out
    for sender in ("app1:8001", "app2:8002"):
        assert f"  {sender}: no hello from ws://" in output
        for receiver in ("app1:8001", "app2:8002"):
            assert f"  {sender} -> {receiver}: 0 of 5 delivered\n" in output
    assert "closed with 1011: channel layer: ConnectionError" in output
    assert "/-/ready; check that the channel layer's Redis runs" in output.splitlines()[-1]
    assert json.loads(file.read_text())["ok"] is False

    for worker in own_cluster.workers:
        assert read(f"{worker.url}/-/live")[0] == 200
        status, content = read(f"{worker.url}/-/ready")
        assert (status, content["status"]) == (503, "not ready")
        # Nothing that any worker wrote has the token.
        assert TOKEN not in "".join(worker.output)


def test_workers_that_share_no_layer(capsys: pytest.CaptureFixture[str]) -> None:
    """Each alone is well: live, ready, and its own messages arrive."""
    environment = {"CHANNELS_KIT_PROBE_TOKEN": TOKEN}
    with Worker("app1:8001", environment) as one, Worker("app2:8002", environment) as two:
        assert [read(f"{worker.url}/-/ready")[0] for worker in (one, two)] == [200, 200]
        arguments = [f"--worker={worker.name}={worker.url}" for worker in (one, two)]
        assert main(["matrix", "--hold=0", *arguments, "--timeout=1.5", "--rounds=3"]) == 1
    output = capsys.readouterr().out
    assert "  app1:8001 -> app2:8002: 0 of 1 delivered\n" in output
    assert "  app2:8002 -> app1:8001: 0 of 1 delivered\n" in output
    assert "app1:8001 -> app1:8001" not in output
    assert "every worker uses the same one" in output


@pytest.mark.parametrize(("directory", "status"), [("", 200), ("no/such/directory", 503)])
def test_the_database_is_asked(tmp_path: Path, directory: str, status: int) -> None:
    database = str(tmp_path / directory / "db.sqlite3")
    with Worker("app1:8001", {"SERVED_DATABASE": database}) as worker:
        answered, content = read(f"{worker.url}/-/ready")
    assert answered == status
    checks = content["checks"]
    assert isinstance(checks, dict)
    assert checks["channel_layer"]["ok"] is True
    assert checks["database"]["ok"] is (status == 200)
    assert os.fspath(tmp_path) not in json.dumps(content)


async def test_several_tokens_are_tried_in_turn(cluster: Cluster) -> None:
    """While a new one takes over, each worker has one of them."""
    targets = [Target(worker.name, worker.url) for worker in cluster.workers]
    report = await prove(targets, token=f"of-another-worker {TOKEN}")
    assert report.ok
    assert not (await prove(targets, token="of-another-worker nor-this-one", timeout=2)).ok
