"""A worker that is replaced by a process beside it, under every server: real processes."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from channels_kit.serving import beside, control, drain, retired
from channels_kit.serving.sockets import RETIREMENT_GRACE

from .cluster import APP, SERVED, SERVERS, Process, Worker, command

UNIT = "channels-web@8001.service"
LAST = "\r\nconnection: close"
HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@dataclass
class Unit:
    """A worker with a directory for its processes' control sockets."""

    server: str
    directory: Path
    worker: Worker
    environment: dict[str, str]
    # What the end of a test closes.
    clients: list[ClientConnection] = field(default_factory=list)
    outputs: list[Process] = field(default_factory=list)

    @property
    def main(self) -> control.Process:
        [found] = [each for each in control.processes(self.directory) if each.state == "serving"]
        return found

    @property
    def retired(self) -> list[control.Process]:
        return [each for each in control.processes(self.directory) if each.retired]

    def reload(self, revision: str, *program: str, seconds: int = 30, **changed: str) -> Process:
        """Run what systemd runs for a reload; its output and the new process' are one, as there."""
        started = program or tuple(command(self.server))
        options = ["--process", str(self.main.pid), f"--timeout={seconds}", "--", *started]
        return Process(
            [sys.executable, "-m", "channels_kit.serving.beside", *options],
            {**self.environment, "CHANNELS_KIT_REVISION": revision, **changed},
        )

    async def reloaded(
        self, revision: str, *program: str, seconds: int = 30, **changed: str
    ) -> int:
        """Reload; return the exit status."""
        process = self.reload(revision, *program, seconds=seconds, **changed)
        self.outputs.append(process)
        return await asyncio.to_thread(process.popen.wait)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def served(server: str, directory: Path) -> AsyncIterator[Unit]:
    environment = {
        "CHANNELS_KIT_CONTROL_DIRECTORY": os.fspath(directory),
        "CHANNELS_KIT_DRAIN_PACE": "1000",
        "CHANNELS_KIT_STREAM_GRACE": "0.2",
    }
    with Worker("app1:8001", environment, server) as worker:
        assert worker.port
        inherited = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{APP}{os.pathsep}{SERVED}",
            "DJANGO_SETTINGS_MODULE": "served_settings",
            "CHANNELS_KIT_APPLICATION": "served_asgi:application",
            "CHANNELS_KIT_WORKER": "app1:8001",
            **environment,
        }
        unit = Unit(server, directory, worker, inherited)
        wait_until(lambda: control.processes(directory))
        try:
            yield unit
        finally:
            for process in control.running(directory):
                os.kill(process, signal.SIGKILL)
            with ExitStack() as ended:
                for reload in unit.outputs:
                    ended.enter_context(reload)
            for client in unit.clients:
                client.transport.abort()
                await client.wait_closed()


@pytest.fixture
async def unit(server: str, tmp_path: Path) -> AsyncIterator[Unit]:
    async with served(server, tmp_path) as unit:
        yield unit


@pytest.fixture
async def any_unit(tmp_path: Path) -> AsyncIterator[Unit]:
    """A unit for what is the same under every server."""
    async with served("uvicorn", tmp_path) as unit:
        yield unit


def wait_until(condition: object) -> None:
    assert callable(condition)
    while not condition():
        time.sleep(0.01)


async def opened(unit: Unit, path: str = "/echo/") -> ClientConnection:
    client = await connect(f"{unit.worker.ws_url}{path}", proxy=None)
    unit.clients.append(client)
    if path == "/echo/":
        await client.recv()
    return client


async def echoes(client: ClientConnection) -> bool:
    await client.send("1234")
    return await client.recv() == "4"


async def code_of(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as caught:
        await client.recv()
    return caught.value.rcvd.code if caught.value.rcvd else None


def live(unit: Unit) -> dict[str, object]:
    connection = HTTPConnection("127.0.0.1", unit.worker.port, timeout=10)
    try:
        connection.request("GET", "/-/live")
        return dict(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


class Kept:
    """A connection that an edge keeps, of which it sends its requests."""

    def __init__(self, unit: Unit) -> None:
        self.socket = socket.create_connection(("127.0.0.1", unit.worker.port), timeout=30)

    def ask(self, path: str, headers: str = "") -> str:
        """Return the head of the answer, and read the body too."""
        request = f"GET {path} HTTP/1.1\r\nHost: app1\r\n{headers}\r\n"
        self.socket.sendall(request.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += (data := self.socket.recv(2**16))
            assert data, "the connection was closed without an answer"
        head, _, body = received.partition(b"\r\n\r\n")
        text = head.decode().lower()
        if "content-length: " in text:
            length = int(text.partition("content-length: ")[2].split()[0])
            while len(body) < length:
                body += self.socket.recv(2**16)
        return text


async def use(unit: Unit, stop: asyncio.Event) -> int:
    """Be many clients, of which none may fail; return how many there were."""

    async def ask_and_open(number: int) -> int:
        times = 0
        while not stop.is_set():
            kept = await asyncio.to_thread(Kept, unit)
            with kept.socket:
                for _ in range(3):
                    head = await asyncio.to_thread(kept.ask, "/")
                    assert head.startswith("http/1.1 200")
                    if LAST in head:
                        break
            async with await opened(unit) as client:
                assert await echoes(client)
            times += 1
        return times

    return sum(await asyncio.gather(*map(ask_and_open, range(4))))


async def test_replacements_lose_nothing_and_close_nothing(unit: Unit) -> None:
    client = await opened(unit)
    stop = asyncio.Event()
    using = asyncio.create_task(use(unit, stop))
    former = unit.main.pid
    for revision in ("r2", "r3"):
        assert await unit.reloaded(revision) == 0
        assert live(unit)["revision"] == revision
    stop.set()
    assert await using > 4
    assert await echoes(client)
    assert [each.revision for each in unit.retired] == ["r1", "r2"]
    assert [each.sockets for each in unit.retired] == [1, 0]
    assert unit.retired[0].pid == former
    assert live(unit)["beside"] == 2


async def test_a_retired_process_drains_and_ends(unit: Unit) -> None:
    clients = [await opened(unit) for _ in range(5)]
    assert await unit.reloaded("r2") == 0
    kept = await opened(unit)
    assert retired.carry_out("drain", unit.directory, None) == 0
    assert [await code_of(client) for client in clients] == [1012] * 5
    assert await asyncio.to_thread(unit.worker.popen.wait) in (0, -signal.SIGTERM)
    assert unit.retired == []
    assert await echoes(kept)


async def test_a_retired_process_comes_back(unit: Unit) -> None:
    of_the_first = await opened(unit)
    assert await unit.reloaded("r2") == 0
    of_the_second = await opened(unit)
    second = unit.main.pid
    stop = asyncio.Event()
    using = asyncio.create_task(use(unit, stop))
    assert await asyncio.to_thread(retired.carry_out, "resume", unit.directory, None) == 0
    assert (live(unit)["revision"], live(unit)["retired"]) == ("r1", False)
    assert await unit.reloaded("r3") == 0
    stop.set()
    assert await using > 0
    assert await echoes(of_the_first)
    assert await echoes(of_the_second)
    # What was put back has gone when it is drained, and no other.
    assert retired.carry_out("drain", unit.directory, second) == 0
    assert await code_of(of_the_second) == 1012
    assert await echoes(of_the_first)


async def test_a_process_that_does_not_start_changes_nothing(unit: Unit) -> None:
    client = await opened(unit)
    former = unit.main
    assert await unit.reloaded("r2", CHANNELS_KIT_APPLICATION="nowhere:application") == 1
    said = "".join(unit.outputs[0].output)
    assert "no module 'nowhere'" in said
    assert "not reloaded; " in said
    assert "the new process ended; its messages are above" in said
    assert unit.main.pid == former.pid
    assert await echoes(client)
    assert live(unit)["beside"] == 0


async def test_kept_connections_end_with_their_next_answer(unit: Unit) -> None:
    asking, opening, idle = Kept(unit), Kept(unit), Kept(unit)
    for kept in (asking, opening, idle):
        assert LAST not in await asyncio.to_thread(kept.ask, "/-/live")
    assert await unit.reloaded("r2") == 0
    asked = await asyncio.to_thread(asking.ask, "/")
    assert asked.startswith("http/1.1 200")
    assert LAST in asked
    # For that long a handshake may be one of a connection that was new.
    await asyncio.sleep(RETIREMENT_GRACE)
    refused = await asyncio.to_thread(opening.ask, "/still/", HANDSHAKE)
    assert refused.startswith("http/1.1 503")
    assert "retry-after: " in refused
    assert LAST in await asyncio.to_thread(idle.ask, "/-/live")
    for kept in (asking, opening, idle):
        kept.socket.close()


async def test_a_stop_drains_all_processes(
    unit: Unit, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "REPORT_INTERVAL", 0.0)
    clients = [await opened(unit, "/still/")]
    assert await unit.reloaded("r2") == 0
    clients += [await opened(unit, "/still/")]
    stopping = [f"{unit.worker.url}/-/live", f"--process={unit.main.pid}", "--timeout=30"]
    stopping += [f"--control={unit.directory}"]
    assert await asyncio.to_thread(drain.main, stopping) == 0
    assert [await code_of(client) for client in clients] == [1012] * 2
    assert "drained in " in capfd.readouterr().out


async def test_a_stop_waits_for_retired_processes(
    any_unit: Unit, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "REPORT_INTERVAL", 0.0)
    # A client that does not read is left some seconds.
    silent = Kept(any_unit)
    assert (await asyncio.to_thread(silent.ask, "/flood/", HANDSHAKE)).startswith("http/1.1 101")
    assert await any_unit.reloaded("r2") == 0
    stopping = [f"{any_unit.worker.url}/-/live", f"--process={any_unit.main.pid}", "--timeout=30"]
    stopping += [f"--control={any_unit.directory}"]
    assert await asyncio.to_thread(drain.main, stopping) == 0
    assert "draining: 1 sockets or requests left" in capfd.readouterr().out
    silent.socket.close()


async def test_a_main_process_that_has_died_leaves_the_others_to_drain(any_unit: Unit) -> None:
    client = await opened(any_unit, "/still/")
    assert await any_unit.reloaded("r2") == 0
    os.kill(any_unit.main.pid, signal.SIGKILL)
    url = f"{any_unit.worker.url}/-/live"
    stopping = [url, "--process=", "--timeout=30", f"--control={any_unit.directory}"]
    assert await asyncio.to_thread(drain.main, stopping) == 0
    assert await code_of(client) == 1012


async def test_a_process_that_does_not_get_ready_is_killed(any_unit: Unit) -> None:
    former = any_unit.main.pid
    hangs = (sys.executable, "-c", "import signal; signal.pause()")
    assert await any_unit.reloaded("r2", *hangs, seconds=1) == 1
    # Its output, which is the new process' too, ends with the latter.
    await asyncio.to_thread(any_unit.outputs[0].reader.join)
    assert "not ready in time: it has not started" in "".join(any_unit.outputs[0].output)
    assert [each.pid for each in control.processes(any_unit.directory)] == [former]


def test_the_reason_why_a_process_is_not_ready_is_told() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def answer() -> None:
        while control.receive(theirs)[0]:
            theirs.send(json.dumps({"not_ready": {"database": "OperationalError"}}).encode())

    answering = threading.Thread(target=answer)
    answering.start()
    with theirs:
        with (
            control.Connection(ours) as connection,
            pytest.raises(control.ControlError, match="in time: database: OperationalError"),
        ):
            beside.wait_until_ready(connection, time.monotonic() + 0.5)
        answering.join()


async def test_a_process_that_knows_nothing_of_it_is_left_alone(
    any_unit: Unit, tmp_path: Path
) -> None:
    os.kill(any_unit.main.pid, drain.DRAIN_SIGNAL)
    await asyncio.to_thread(any_unit.worker.wait_for, "draining: ")
    program = [sys.executable, "-m", "channels_kit.serving.beside"]
    program += [f"--process={any_unit.worker.popen.pid}", "--", "/bin/false"]
    nowhere = {control.DIRECTORY: os.fspath(tmp_path / "nowhere")}
    for environment in ({}, nowhere, any_unit.environment):
        with Process(program, {"PYTHONPATH": os.fspath(APP), **environment}) as process:
            assert await asyncio.to_thread(process.popen.wait) == beside.CANNOT
            await asyncio.to_thread(process.reader.join)
            assert "cannot be replaced; restart it: " in "".join(process.output)


async def test_systemd_is_told_which_process_is_the_main_one(
    any_unit: Unit, tmp_path: Path
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(path))
        manager.setblocking(False)
        assert await any_unit.reloaded("r2", NOTIFY_SOCKET=os.fspath(path), MAINPID="1") == 0
        told = manager.recv(100).decode()
        assert told == f"MAINPID={any_unit.main.pid}"
    assert parent_of(any_unit.main.pid) not in (os.getpid(), any_unit.outputs[0].popen.pid)
    assert not has_variable(any_unit.main.pid, "MAINPID")


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def has_variable(process: int, name: str) -> bool:
    return f"\0{name}=".encode() in Path(f"/proc/{process}/environ").read_bytes()


async def test_a_hand_over_that_is_broken_off(any_unit: Unit) -> None:
    path = control.path_of(any_unit.directory, any_unit.main.pid)
    with control.Connection.to(path) as connection:
        _, listener = connection.ask("retire")
        assert listener is not None
        listener.close()
        assert any_unit.retired[0].state == "retired"
    wait_until(lambda: not any_unit.retired)
    assert live(any_unit)["retired"] is False


async def test_a_reload_that_is_broken_off_leaves_no_process(any_unit: Unit) -> None:
    changed = {"SERVED_REDIS": "redis://127.0.0.1:1"}
    reload = any_unit.reload("r2", seconds=60, **changed)
    with reload:
        wait_until(lambda: len(control.processes(any_unit.directory)) > 1)
        reload.popen.kill()
        # Its output, which is the new process' too, ends with the latter.
        await asyncio.to_thread(reload.reader.join)
    assert any_unit.main.pid == any_unit.worker.popen.pid


async def test_what_the_commands_print(any_unit: Unit, capfd: pytest.CaptureFixture[str]) -> None:
    async def run(*arguments: str) -> tuple[int, object]:
        capfd.readouterr()
        status = await asyncio.to_thread(retired.main, arguments)
        printed = capfd.readouterr().out
        return status, json.loads(printed) if printed else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(control.DIRECTORY, os.fspath(any_unit.directory))
        first = {"pid": any_unit.worker.popen.pid, "revision": "r1", "sockets": 0, "requests": 0}
        assert await run("list", UNIT) == (0, [])
        assert await run("main", UNIT) == (0, {**first, "state": "serving"})
        assert await run("resume", UNIT) == (retired.NONE, None)
        assert await any_unit.reloaded("r2") == 0
        assert await run("list", UNIT) == (0, [{**first, "state": "retired"}])
        assert await run("drain", UNIT, "--process=1") == (retired.NONE, None)
        client = await opened(any_unit)
        second = any_unit.main.pid
        os.kill(second, signal.SIGSTOP)
        patch.setattr(control, "ANSWER_TIMEOUT", 0.3)
        # It has sockets, and does not count as gone.
        assert await run("list", UNIT) == (1, None)
        os.kill(second, signal.SIGCONT)
        assert await echoes(client)
    assert retired.directory_of(UNIT) == Path("/run/channels-web/8001")


def test_a_listening_socket_arrives_as_it_was() -> None:
    """With TCP_NODELAY set by asyncio, and for no process blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        control.send(ours, b"{}", listener)
        data, came = control.receive(theirs)
        assert data == b"{}"
        assert came is not None
        with came, came.dup() as copy:
            assert came.proto == copy.proto == socket.IPPROTO_TCP
            assert not os.get_blocking(copy.fileno())


@pytest.mark.parametrize("module", ["beside", "control", "drain", "retired"])
def test_the_programs_import_the_standard_library_only(module: str) -> None:
    program = (
        f"import sys; import channels_kit.serving.{module};"
        "print([name for name in ('django', 'channels', 'prometheus_client', 'asyncio')"
        " if name in sys.modules])"
    )
    environment = {"PYTHONPATH": os.fspath(APP)}
    output = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert output == "[]\n"
