"""`python -m channels_kit.load run` as an operator or a program calls it."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

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
        *map(str, ("--clients=4", "--settle=5", *arguments)),
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
                url, f"--credentials={credentials}", "--rate=20", "--duration=1", f"--json={file}"
            )
        )
    assert (status, output.splitlines()[-1]) == (
        0,
        "Proved. Every message of 20 came to every client once and in order,"
        " over 0 lost connections.",
    )
    assert [line.split()[1] for line in errors.splitlines()] == [
        "connecting:",
        "connected:",
        "sending:",
        "settling:",
        "done:",
    ]
    report = json.loads(file.read_text())
    assert (report["ok"], report["sent"], report["delivered"]) == (True, 20, 80)
    assert [each["user"] for each in report["clients"]] == ["alice", "bob"] * 2
    assert PASSWORD not in output + errors + file.read_text()


async def test_a_fault_ends_with_1_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    rooms = Rooms()
    rooms.swallows = {2}
    async with rooms.serving() as url:
        status, output, _ = await end(
            await start(
                url,
                *("--credentials=-", "--rate=20", "--duration=0.5", "--settle=0.5"),
                f"--json={file}",
            ),
            json.dumps({"alice": PASSWORD}).encode(),
        )
    assert status == 1
    assert output.splitlines()[-1].startswith("Not proved. 1 message came to nobody.")
    report = json.loads(file.read_text())
    assert report["ok"] is False
    assert list(report["never_stored"].values()) == ["client-2"]


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (["--expect-codes=1001,1012", "--max-away-p99=10", "--max-reconnect-rate=4"], 0),
        (["--expect-codes=1001", "--expect-codes=1011"], 1),
        (["--max-away-p99=0.000001"], 1),
        (["--max-reconnect-rate=3"], 1),
    ],
)
async def test_a_limit_that_is_not_kept_ends_with_1(
    credentials: Path, tmp_path: Path, limits: list[str], status: int
) -> None:
    file = tmp_path / "report.json"
    rooms = Rooms()
    rooms.closes = {3: 1012}
    usual = (f"--credentials={credentials}", "--duration=0.5", "--reconnect-rate=inf")
    async with rooms.serving() as url:
        found, output, _ = await end(await start(url, *usual, *limits, f"--json={file}"))
    report = json.loads(file.read_text())
    assert (found, report["ok"]) == (status, not status)
    assert report["closes"] == {"1012": 4}
    assert report["reconnects"]["attempts_per_second_max"] == 4
    assert len(report["breaches"]) == status
    assert all(f"  {breach}\n" in output for breach in report["breaches"])


async def test_a_timeline_is_written_and_drawn(
    credentials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timeline, picture = tmp_path / "timeline.json", tmp_path / "sockets.svg"
    rooms = Rooms()
    rooms.closes = {3: 1012}
    rooms.worker = lambda socket: "app1" if socket % 2 else "app2"
    async with rooms.serving() as url:
        arguments = (f"--credentials={credentials}", "--duration=0.5", f"--timeline={timeline}")
        status, _, _ = await end(await start(url, *arguments))
    assert status == 0
    content = json.loads(timeline.read_text())
    assert content["clients"] == 4
    assert content["seconds"][-1]["sockets"] == {"app1": 2, "app2": 2}
    assert sum(second["closes"].get("1012", 0) for second in content["seconds"]) == 4
    assert main(["plot", str(timeline), f"--output={picture}"]) == 0
    assert picture.read_text().startswith("<svg ")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("no JSON", "none of the files that run --timeline writes"),
        ("[]", "none of the files that run --timeline writes"),
        ('{"seconds": [{}]}', "none of the files that run --timeline writes"),
        (
            '{"run": "r", "began_at": "2026-01-01T00:00:00Z", "clients": 1, "seconds": []}',
            "has no second",
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
async def test_a_signal_stops_the_sending_and_settles(
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
    assert f"Every message of {len(rooms.messages['red'])} came" in output
    assert " settling: " in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--url"),
        (["--adapter=nothing"], "'nothing' is not module:attribute"),
        (["--adapter=no.such:Adapter"], "no module 'no'"),
        (["--adapter=tests.kit.scripted_room:None"], "no class 'None'"),
        (["--credentials=/no/such/file"], "No such file"),
        (["--url=ftp://a"], "'ftp://a' is not a base URL"),
        (["--clients=0"], "0 clients for 1 rooms"),
        (["--rate=0"], "rate is 0; allowed: a number above 0"),
        (["--expect-codes=1012,restart"], "'1012,restart' is no list of close codes"),
        (["--expect-codes=12"], "there is no close code 12"),
        (["--max-away-p99=0"], "away_p99 is 0; allowed: a number above 0"),
        (["--max-reconnect-rate=50"], "allowed: a reconnect_rate above that, or inf"),
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
