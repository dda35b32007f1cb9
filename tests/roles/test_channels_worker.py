"""The module channels_worker: a systemctl of the tests' own, a real process, a real server."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .house import ROLES, Tree, documentation, run_module

MODULE = ROLES / "channels" / "library" / "channels_worker.py"
UNIT = "channels-web@8001.service"
OTHER = "channels-web@8002.service"
JOURNAL = "ImproperlyConfigured: the application's last words"

SYSTEMCTL = """#!/bin/sh
cd "{directory}"
echo "$*" >> calls
case $1 in
    show) cat "state-$3" ;;
    "$(cat fails 2>/dev/null)") echo "Job for $2 failed." >&2; exit 1 ;;
esac
"""
JOURNALCTL = f"""#!/bin/sh
case "$*" in *"--unit {UNIT}"*) echo "{JOURNAL}" ;; esac
"""


@dataclass
class Worker:
    """A worker as the module sees it."""

    directory: Path
    url: str
    # What the server answers on /-/ready, one after the other; the last one for ever.
    answers: list[tuple[int, bytes]] = field(default_factory=lambda: [(200, b"ready")])
    asked: list[str] = field(default_factory=list)

    def state(
        self, active: str, pid: int = 0, unit_file: str = "enabled", unit: str = UNIT
    ) -> None:
        (self.directory / f"state-{unit}").write_text(
            f"MainPID={pid}\nActiveState={active}\nUnitFileState={unit_file}\n"
        )

    def fails(self, verb: str) -> None:
        (self.directory / "fails").write_text(verb)

    def calls(self) -> list[str]:
        """What systemctl was asked to do."""
        calls = (self.directory / "calls").read_text().splitlines()
        return [call for call in calls if not call.startswith("show ")]

    def run(
        self,
        revision: str = "new",
        timeout: int = 5,
        check: bool = False,
        restart: bool = True,
        ports: tuple[int, ...] = (8001,),
    ) -> Tree:
        (self.directory / "calls").unlink(missing_ok=True)
        arguments = {
            "units": [
                {"unit": f"channels-web@{port}.service", "url": self.url, "revision": revision}
                for port in ports
            ],
            "timeout": timeout,
            "restart": restart,
        }
        return run_module(MODULE, arguments, check=check)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (programs / name).write_text(text.format(directory=tmp_path))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    # A proxy that answers nobody: the module must not ask one.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            status, body = served.answers[0]
            if len(served.answers) > 1:
                served.answers.pop(0)
            if not status:  # another program than a worker, that speaks something else
                self.wfile.write(body)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        served = Worker(tmp_path, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """What a worker runs, started with the revision "old"."""
    environment = {"CHANNELS_KIT_REVISION_OF": "no", "CHANNELS_KIT_REVISION": "old"}
    with subprocess.Popen(["/bin/sleep", "60"], env=environment) as process:
        yield process
        process.kill()


def test_a_worker_that_does_not_run_is_enabled_and_started(worker: Worker) -> None:
    worker.state("inactive", unit_file="disabled")

    answer = worker.run()

    assert (answer["changed"], answer["started"], answer["restarted"]) == (True, [UNIT], [])
    # systemd reads the new unit first.
    assert worker.calls() == ["daemon-reload", f"enable {UNIT}", f"start {UNIT}"]
    assert worker.asked == ["/-/ready"]
    assert answer["diff"] == {"before": f"{UNIT}: not running\n", "after": f"{UNIT}: new\n"}


def test_a_worker_of_another_revision_is_restarted(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)

    answer = worker.run()

    assert (answer["changed"], answer["started"], answer["restarted"]) == (True, [], [UNIT])
    assert worker.calls() == ["daemon-reload", f"restart {UNIT}"]
    assert worker.asked == ["/-/ready"]
    assert answer["diff"] == {"before": f"{UNIT}: old\n", "after": f"{UNIT}: new\n"}


def test_a_worker_of_another_revision_waits_for_its_turn(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """Where only what does not run is started, nobody is disconnected."""
    worker.state("active", process.pid)
    answer = worker.run(restart=False)
    assert (answer["changed"], answer["started"], answer["restarted"]) == (False, [], [])
    assert answer["outdated"] == [UNIT]
    assert worker.calls() == []


def test_a_worker_of_the_revision_is_left_alone(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    answer = worker.run("old")
    assert (answer["changed"], answer["started"], answer["restarted"]) == (False, [], [])
    assert worker.calls() == []


def test_a_worker_of_the_revision_that_would_not_start_at_boot_is_enabled(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid, unit_file="disabled")
    answer = worker.run("old")
    assert (answer["changed"], answer["started"], answer["restarted"]) == (True, [], [])
    assert worker.calls() == ["daemon-reload", f"enable {UNIT}"]


def test_those_that_do_not_run_start_together_and_the_others_one_by_one(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    units = [f"channels-web@{port}.service" for port in (8001, 8002, 8003, 8004)]
    for unit, active in zip(units, ("active", "inactive", "failed", "active"), strict=True):
        worker.state(active, process.pid if active == "active" else 0, unit=unit)

    answer = worker.run(ports=(8001, 8002, 8003, 8004))

    assert answer["started"] == units[1:3]
    assert answer["restarted"] == [units[0], units[3]]
    assert worker.calls() == [
        "daemon-reload",
        f"start {units[1]} {units[2]}",
        f"restart {units[0]}",
        f"restart {units[3]}",
    ]
    assert len(worker.asked) == 4


def test_after_a_worker_that_does_not_get_ready_none_is_restarted(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    worker.state("active", process.pid, unit=OTHER)
    worker.answers = [(503, b"no answer from Redis")]

    answer = worker.run(timeout=0, ports=(8001, 8002))

    assert f"{UNIT} is not ready" in answer["msg"]
    assert worker.calls() == ["daemon-reload", f"restart {UNIT}"]


def test_a_worker_that_runs_and_is_not_ready_is_a_failure(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    worker.answers = [(503, b"no answer from Redis")]
    assert worker.run("old", timeout=0).get("failed", False) is True


def test_a_worker_that_is_starting_with_another_revision_is_restarted(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("activating", process.pid)
    assert worker.run()["restarted"] == [UNIT]


def test_a_worker_whose_process_has_just_gone_is_restarted(worker: Worker) -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    worker.state("active", gone.pid)
    assert worker.run()["restarted"] == [UNIT]


@pytest.mark.parametrize(
    ("active", "revision", "unit_file", "changed"),
    [
        ("inactive", "new", "disabled", True),
        ("failed", "new", "enabled", True),
        ("active", "new", "enabled", True),
        ("active", "old", "enabled", False),
        ("active", "old", "disabled", True),
    ],
)
def test_check_mode_says_what_a_run_would_do_and_touches_nothing(
    worker: Worker,
    process: subprocess.Popen[bytes],
    active: str,
    revision: str,
    unit_file: str,
    changed: bool,
) -> None:
    worker.state(active, process.pid if active == "active" else 0, unit_file)

    predicted = worker.run(revision, check=True)

    assert worker.calls() == []
    assert worker.asked == []
    done = worker.run(revision)
    assert predicted["changed"] is changed
    for key in ("changed", "started", "restarted", "diff"):
        assert predicted[key] == done[key]


def test_it_waits_until_the_worker_is_ready(worker: Worker) -> None:
    worker.state("inactive")
    worker.answers = [(503, b"migrations are missing"), (200, b"ready")]
    assert worker.run()["changed"] is True
    assert worker.asked == ["/-/ready"] * 2


def test_a_unit_that_answers_nobody_is_ready_when_it_is_connected(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        waits = {"unit": UNIT, "revision": "old", "connected_to": port}
        worker.state("active", process.pid)
        answer = run_module(MODULE, {"units": [waits], "timeout": 0})
        assert f"{UNIT} is not ready after 0 s" in answer["msg"]
        assert f"its process, {process.pid}, has no connection to port {port}" in answer["msg"]

        with socket.create_connection(("127.0.0.1", port)):
            # Somebody is connected, but not the unit's process.
            assert run_module(MODULE, {"units": [waits], "timeout": 0})["failed"] is True
            # And now the process that holds the connection is the unit's.
            worker.state("active", os.getpid())
            own = {**waits, "revision": ""}
            assert run_module(MODULE, {"units": [own], "timeout": 0})["changed"] is False


def test_a_worker_that_never_gets_ready_fails_with_its_own_words(worker: Worker) -> None:
    worker.state("inactive")
    worker.answers = [(503, b"no answer from Redis")]

    answer = worker.run(timeout=0)

    assert answer["failed"] is True
    assert f"{UNIT} is not ready after 0 s" in answer["msg"]
    assert f"{worker.url}/-/ready says: 503 no answer from Redis" in answer["msg"]
    assert JOURNAL in answer["msg"]


def test_a_port_where_nobody_listens_fails_with_the_reason(worker: Worker) -> None:
    worker.state("inactive")
    worker.url = "http://127.0.0.1:9"
    answer = worker.run(timeout=0)
    assert "Connection refused" in answer["msg"]
    assert JOURNAL in answer["msg"]


def test_a_port_of_another_program_fails_with_what_it_said(worker: Worker) -> None:
    worker.state("inactive")
    worker.answers = [(0, b"-ERR unknown command 'GET'\r\n")]
    answer = worker.run(timeout=0)
    assert "-ERR unknown command" in answer["msg"]
    assert JOURNAL in answer["msg"]


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "start"])
def test_what_systemd_refuses_fails_with_the_journal(worker: Worker, verb: str) -> None:
    worker.state("inactive", unit_file="disabled")
    worker.fails(verb)

    answer = worker.run()

    assert answer["failed"] is True
    assert f"{UNIT}: systemctl {verb} failed: Job for" in answer["msg"]
    assert JOURNAL in answer["msg"]
    assert worker.calls()[-1].startswith(verb), "nothing is done after a failure"
    assert worker.asked == []


def test_its_documentation_names_its_arguments() -> None:
    said = documentation(MODULE)["options"]
    assert {name: option["type"] for name, option in said.items()} == {
        "units": "list",
        "timeout": "int",
        "restart": "bool",
    }
    required = sorted(name for name, option in said.items() if option.get("required"))
    assert run_module(MODULE, {})["msg"] == f"missing required arguments: {', '.join(required)}"
    everything = {"units": [], "timeout": 1, "restart": False, "typo": 1}
    supported = run_module(MODULE, everything)["msg"].partition("Supported parameters include: ")[2]
    assert supported.rstrip(".").split(", ") == sorted(said)
