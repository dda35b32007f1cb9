"""The program that systemd runs before SIGTERM, against real processes."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from channels_kit.serving import drain

from .cluster import APP, Process, Worker

# Nothing answers there.
NOWHERE = "http://127.0.0.1:1/-/live"


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("app1:8001", {}) as worker:
        assert worker.port
        yield worker


def arguments(worker: Worker, timeout: float = 30.0) -> list[str]:
    return [f"{worker.url}/-/live", f"--process={worker.popen.pid}", f"--timeout={timeout:g}"]


async def opened(worker: Worker) -> ClientConnection:
    return await connect(f"{worker.ws_url}/still/", proxy=None)


async def closed_with(socket: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as caught:
        await socket.recv()
    return caught.value.rcvd.code if caught.value.rcvd else None


@contextmanager
def deaf() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes no notice of the signal."""
    program = (
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN); print(flush=True);"
        "signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def saying(*answers: str) -> Iterator[str]:
    """A worker that says one thing after the other, the last for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((left.pop(0) if len(left) > 1 else left[0]).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/-/live"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("options", [[], ["--process="], ["--process", ""]])
def test_no_process_is_no_work(options: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert drain.main([NOWHERE, *options]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_process_that_has_gone_is_no_work(capfd: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert drain.main([NOWHERE, f"--process={process.pid}"]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_worker_without_sockets_is_drained_at_once(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    assert drain.main(arguments(worker)) == 0
    assert capfd.readouterr().out.startswith("drained in ")
    worker.wait_for("draining: 0 sockets")


async def test_it_ends_when_no_socket_is_left(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    sockets = [await opened(worker) for _ in range(5)]
    assert await asyncio.to_thread(drain.main, arguments(worker)) == 0
    # All are closed by now: nothing is waited for here.
    assert [await closed_with(socket) for socket in sockets] == [1012] * 5
    assert capfd.readouterr().out.startswith("drained in ")


async def test_two_drains_at_the_same_time(worker: Worker) -> None:
    sockets = [await opened(worker) for _ in range(5)]
    drains = [asyncio.to_thread(drain.main, arguments(worker)) for _ in range(2)]
    assert list(await asyncio.gather(*drains)) == [0, 0]
    assert [await closed_with(socket) for socket in sockets] == [1012] * 5
    assert "".join(worker.output).count("disconnected: 1012") == 5
    assert "".join(worker.output).count("draining: ") == 1


async def test_a_worker_that_dies_half_way(capfd: pytest.CaptureFixture[str]) -> None:
    # An hour between two sockets.
    slow = {"CHANNELS_KIT_DRAIN_PACE": "0.0003", "CHANNELS_KIT_DRAIN_WINDOW": "10000"}
    with Worker("app1:8001", slow) as worker:
        sockets = [await opened(worker) for _ in range(3)]
        draining = asyncio.create_task(asyncio.to_thread(drain.main, arguments(worker)))
        await asyncio.to_thread(worker.wait_for, "draining: 3 sockets")
        worker.popen.kill()
        await asyncio.to_thread(worker.popen.wait)
        assert await draining == 0
        for socket in sockets:
            await closed_with(socket)
    assert capfd.readouterr().out == "the worker ended while it was draining\n"


async def test_sockets_that_are_left_are_numbered(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "REPORT_INTERVAL", 0.0)
    with deaf() as process, saying('{"draining": true, "sockets": 2, "requests": 1}') as url:
        options = [url, f"--process={process.pid}", "--timeout=0.5"]
        assert await asyncio.to_thread(drain.main, options) == 1
    captured = capfd.readouterr()
    assert captured.out.startswith("draining: 3 sockets or requests left\n")
    assert captured.err == "not drained within 0.5 s: 3 sockets or requests left\n"


async def test_a_worker_that_hangs(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    worker.popen.send_signal(signal.SIGSTOP)
    try:
        assert await asyncio.to_thread(drain.main, arguments(worker, timeout=0.5)) == 1
    finally:
        worker.popen.send_signal(signal.SIGCONT)
    captured = capfd.readouterr()
    assert captured.err == "not drained within 0.5 s: the worker does not report a drain\n"


@pytest.mark.parametrize(
    "answer",
    [
        '{"draining": false, "sockets": 0, "requests": 0}',
        '{"status": "live"}',
        "[]",
        "it lives",
        '{"draining": true, "sockets": null, "requests": 0}',
    ],
)
def test_only_a_worker_that_drains_is_drained(
    answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with deaf() as process, saying(answer) as url:
        assert drain.main([url, f"--process={process.pid}", "--timeout=0.3"]) == 1
    assert "the worker does not report a drain" in capfd.readouterr().err


def test_it_looks_until_nothing_is_left(capfd: pytest.CaptureFixture[str]) -> None:
    answers = [
        '{"draining": false, "sockets": 0, "requests": 0}',
        '{"draining": true, "sockets": 1, "requests": 0}',
        '{"draining": true, "sockets": 0, "requests": 1}',
        '{"draining": true, "sockets": 0, "requests": 0}',
    ]
    with deaf() as process, saying(*answers) as url:
        assert drain.main([url, f"--process={process.pid}", "--timeout=30"]) == 0
    assert capfd.readouterr().out.startswith("drained in ")


def test_a_line_is_written_when_it_is_true() -> None:
    """And not at the end, when the journal's reader has waited for a minute."""
    program = (
        "import sys; from channels_kit.serving import drain;"
        "drain.REPORT_INTERVAL = 0.0; drain.INTERVAL = 3600.0; sys.exit(drain.main(sys.argv[1:]))"
    )
    with deaf() as process, saying('{"draining": true, "sockets": 1, "requests": 0}') as url:
        command = [sys.executable, "-c", program, url, f"--process={process.pid}", "--timeout=60"]
        with Process(command, {"PYTHONPATH": str(APP)}) as draining:
            draining.wait_for("^draining: 1 sockets or requests left\n")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["https://127.0.0.1:1/"],
        [NOWHERE, "--process=0"],
        [NOWHERE, "--process=-1"],
        [NOWHERE, "--process=one"],
        [NOWHERE, "--timeout=0"],
        [NOWHERE, "--timeout=nan"],
    ],
)
def test_wrong_usage(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        drain.main(options)
    assert caught.value.code == 2


def test_it_imports_the_standard_library_only() -> None:
    program = (
        "import sys; import channels_kit.serving.drain;"
        "print([name for name in ('django', 'channels', 'prometheus_client', 'asyncio')"
        " if name in sys.modules])"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(APP)}, text=True
    )
    assert output == "[]\n"
