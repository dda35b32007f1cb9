"""`python -m channels_kit.load run` as an operator or a program calls it."""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from channels_kit.load import client, run
from channels_kit.load.__main__ import main

from .cluster import APP
from .scripted_room import PASSWORD, Rooms

ADAPTER = "--adapter=tests.kit.scripted_room:ScriptedAdapter"
ROOT = APP.parent


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    file = tmp_path / "credentials"
    file.write_text(json.dumps({"alice": PASSWORD, "bob": PASSWORD}))
    return file


async def start(url: str, *arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "channels_kit.load", "run", f"--url={url}", "--room=red", ADAPTER),
        *map(str, ("--clients=4", "--grace=5", *arguments)),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(APP)},
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process, stdin: bytes = b"") -> tuple[int, str, str]:
    async with asyncio.timeout(30):
        output, errors = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_a_proof_ends_with_0_and_says_its_phases(credentials: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    async with Rooms().serving() as url:
        status, output, errors = await end(
            await start(
                url, f"--credentials={credentials}", "--rate=40", "--duration=0.5", f"--json={file}"
            )
        )
    assert (status, output.splitlines()[-1]) == (
        0,
        "Proved. Every client received all of 20 messages once and in order,"
        " over 0 lost connections.",
    )
    assert [line.split()[1] for line in errors.splitlines()] == [
        "connecting:",
        "connected:",
        "sending:",
        "grace:",
        "done:",
    ]
    report = json.loads(file.read_text())
    assert (report["ok"], report["sent"], report["delivered"]) == (True, 20, 80)
    assert [each["user"] for each in report["clients"]] == ["alice", "bob"] * 2
    assert PASSWORD not in output + errors + file.read_text()


@contextmanager
def served(rooms: Rooms) -> Iterator[str]:
    """Serve rooms in a thread, for a run in this process."""
    ready: Future[str] = Future()
    over = Event()

    async def serve() -> None:
        async with rooms.serving() as url:
            ready.set_result(url)
            await asyncio.to_thread(over.wait)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield ready.result(10)
    finally:
        over.set()
        thread.join()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(run, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(run, "QUIET", 0.05)


def run_here(url: str, *arguments: object) -> int:
    """Run the command in this process; return its exit status."""
    usual = (f"--url={url}", "--room=red", ADAPTER, "--clients=4", "--grace=5")
    return main(["run", *usual, "--connect-rate=1000", *map(str, arguments)])


@pytest.mark.usefixtures("hurry")
def test_a_fault_ends_with_1_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.json"
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"alice": PASSWORD})))
    rooms = Rooms()
    rooms.swallows = {2}
    with served(rooms) as url:
        short = ("--rate=50", "--duration=0.1", "--grace=0.2")
        status = run_here(url, "--credentials=-", *short, f"--json={file}")
    assert status == 1
    output = capsys.readouterr().out
    assert output.splitlines()[-1].startswith("Not proved. 1 message reached no client.")
    report = json.loads(file.read_text())
    assert report["ok"] is False
    assert list(report["undelivered"].values()) == ["client-2"]


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (["--expect-codes=1001,1012", "--max-recovery-p99=10", "--max-reconnect-rate=4"], 0),
        (["--expect-codes=1001", "--expect-codes=1011"], 1),
        (["--max-recovery-p99=0.000001"], 1),
        (["--max-reconnect-rate=3"], 1),
    ],
)
def test_a_breached_limit_ends_with_1(
    credentials: Path,
    tmp_path: Path,
    limits: list[str],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "report.json"
    rooms = Rooms()
    rooms.closes = {3: 1012}
    usual = (f"--credentials={credentials}", "--rate=50", "--duration=0.1", "--reconnect-rate=inf")
    with served(rooms) as url:
        found = run_here(url, *usual, *limits, f"--json={file}")
    report = json.loads(file.read_text())
    assert (found, report["ok"]) == (status, not status)
    assert report["closes"] == {"1012": 4}
    assert report["reconnects"]["attempts_per_second_max"] == 4
    assert len(report["breaches"]) == status
    output = capsys.readouterr().out
    assert all(f"  {breach}\n" in output for breach in report["breaches"])


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("picture", ["sockets.svg", "sockets.png"])
def test_a_timeline_is_written_and_drawn(
    credentials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], picture: str
) -> None:
    timeline, file = tmp_path / "timeline.json", tmp_path / picture
    rooms = Rooms()
    rooms.closes = {3: 1012}
    rooms.worker = lambda socket: "app1" if socket % 2 else "app2"
    with served(rooms) as url:
        arguments = (f"--credentials={credentials}", "--rate=50", "--duration=0.1")
        assert run_here(url, *arguments, f"--timeline={timeline}") == 0
    content = json.loads(timeline.read_text())
    assert content["clients"] == 4
    assert content["seconds"][-1]["sockets"] == {"app1": 2, "app2": 2}
    assert sum(second["closes"].get("1012", 0) for second in content["seconds"]) == 4
    capsys.readouterr()
    assert main(["plot", str(timeline), f"--output={file}"]) == 0
    assert file.read_bytes()[:4] in (b"<?xm", b"\x89PNG")
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("hurry")
def test_without_a_duration_there_is_a_report(
    credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(Rooms()) as url:
        assert run_here(url, f"--credentials={credentials}", "--duration=0") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "load: 4 clients in 1 room, 0 messages sent in 0 s, 0 of 0 deliveries"
    assert lines[-1].startswith("Not proved. No message was sent")


def test_a_picture_has_a_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plot", str(tmp_path / "timeline.json"), "--output=sockets.gif"])
    assert caught.value.code == 2
    assert "sockets.gif must end in .svg or .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("no JSON", "was not written by run --timeline"),
        ("[]", "was not written by run --timeline"),
        ('{"seconds": [{}]}', "was not written by run --timeline"),
        (
            '{"run": "r", "began_at": "2026-01-01T00:00:00Z", "clients": 1, "seconds": []}',
            "contains no data",
        ),
    ],
)
def test_a_file_that_is_no_timeline_is_not_drawn(
    tmp_path: Path, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "timeline.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as caught:
        main(["plot", str(file), f"--output={tmp_path / 'sockets.svg'}"])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_sending_and_ends_with_a_report(
    credentials: Path, number: signal.Signals
) -> None:
    rooms = Rooms()
    async with rooms.serving() as url:
        process = await start(url, f"--credentials={credentials}", "--duration=1000")
        async with asyncio.timeout(30), rooms.stored:
            await rooms.stored.wait_for(lambda: len(rooms.messages.get("red", ())) >= 3)
        process.send_signal(number)
        status, output, errors = await end(process)
    assert status == 0
    assert f"received all of {len(rooms.messages['red'])} messages" in output
    assert " grace: " in errors


async def test_a_second_signal_ends_the_grace_period(credentials: Path) -> None:
    rooms = Rooms()
    rooms.swallows = {2}
    async with rooms.serving() as url:
        # Longer than `end` waits.
        process = await start(
            url, f"--credentials={credentials}", "--duration=1000", "--grace=1000"
        )
        async with asyncio.timeout(30), rooms.stored:
            await rooms.stored.wait_for(lambda: len(rooms.messages.get("red", ())) >= 3)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b" grace: " not in await process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        status, output, _ = await end(process)
    assert status == 1
    assert "1 message reached no client" in output


def test_the_help_names_every_option_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in ("target:", "load:", "limits:", "example", "exit status", "--grace SECONDS"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--url"),
        (["--adapter=nothing"], "--adapter: 'nothing': expected MODULE:CLASS"),
        (["--adapter=no.such:Adapter"], "no module 'no'"),
        (["--adapter=tests.kit.scripted_room:None"], "has no class 'None'"),
        (["--credentials=/no/such/file"], "No such file"),
        (["--url=ftp://a"], "'ftp://a' is not a base URL"),
        (["--clients=0"], "0 clients for 1 rooms"),
        (["--rate=0"], "rate is 0; allowed: a number above 0"),
        (["--expect-codes=1012,restart"], "'1012,restart' is not a list of close codes"),
        (["--expect-codes=12"], "close code is 12"),
        (["--max-recovery-p99=0"], "recovery_p99 is 0; allowed: a number above 0"),
        (["--max-reconnect-rate=50"], "allowed: a reconnect_rate above the limit, or inf"),
        (["--timeline=/no/such/directory/file"], "--timeline: there is no directory"),
        (["--json=/no/such/directory/file"], "/no/such/directory"),
    ],
)
def test_wrong_usage_ends_with_2_and_clear_words(
    credentials: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["--url=http://127.0.0.1:1", "--room=red", ADAPTER, f"--credentials={credentials}"]
    with pytest.raises(SystemExit) as caught:
        main(["run", *(usual if arguments else []), *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"alice": 1}', "a-password-of-the-tests"])
def test_credentials_that_are_none_are_not_repeated(
    credentials: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials.write_text(text)
    arguments = ["--url=http://a", "--room=red", ADAPTER, f"--credentials={credentials}"]
    with pytest.raises(SystemExit) as caught:
        main(["run", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "is not a JSON object" in error
    assert PASSWORD not in error
