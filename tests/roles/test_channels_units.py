"""The module channels_units: a systemctl of the tests' own, a real process, a real server."""

import importlib
import json
import os
import re
import runpy
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from .house import ROOT, Tree, own_module_utils, run_module

UNIT = "channels-web@8001.service"
OTHER = "channels-web@8002.service"
JOURNAL = "ImproperlyConfigured: the application's last words"

# What it shows of a unit are the states that the test has written, one after the other; the last
# one for ever.
SYSTEMCTL = """#!/bin/sh
cd "{directory}"
echo "$*" >> calls
case $1 in
    show)
        shift 2
        [ $# -gt 0 ] || cat manager
        for unit; do
            set -- "states-$unit"/*
            echo "Id=$unit"
            cat "$1"
            echo
            [ $# = 1 ] || rm "$1"
        done
        ;;
    list-units) cat "$1" ;;
    # As systemd 252 does where there is none.
    list-unit-files) cat "$1"; [ -s "$1" ] ;;
    "$(cat fails 2>/dev/null)") echo "Job for $2 failed." >&2; exit 1 ;;
esac
"""
JOURNALCTL = f"""#!/bin/sh
case "$*" in *"--unit {UNIT}"*) echo "{JOURNAL}" ;; esac
"""


@dataclass
class Worker:
    """A worker as the program sees it."""

    directory: Path
    url: str
    # What the server answers by path, one after the other; the last one for ever.
    ready: list[tuple[int, bytes]] = field(default_factory=lambda: [(200, b"ready")])
    live: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    states: int = 0

    def state(
        self,
        active: str,
        pid: int = 0,
        unit_file: str = "enabled",
        unit: str = UNIT,
        restarts: int = 0,
        read: str = "earlier",
        **more: Any,
    ) -> None:
        """Add a state to those that systemctl shows, with further properties.

        Of a unit whose file systemd has read earlier than it was written; or "now", or "never".
        """
        directory = self.directory / f"states-{unit}"
        directory.mkdir(exist_ok=True)
        self.states += 1
        (directory / f"{self.states:03}").write_text(
            f"MainPID={pid}\nActiveState={active}\nUnitFileState={unit_file}\n"
            f"NRestarts={restarts}\n"
            f"FragmentPath={'' if read == 'never' else self.directory / 'unit-file'}\n"
            f"NeedDaemonReload={'yes' if read == 'earlier' else 'no'}\n"
            + "".join(f"{name}={value}\n" for name, value in more.items())
        )

    def fails(self, verb: str) -> None:
        (self.directory / "fails").write_text(verb)

    def calls(self) -> list[str]:
        """What systemctl was asked to do."""
        calls = (self.directory / "calls").read_text().splitlines()
        return [call for call in calls if not call.startswith(("show ", "list-"))]

    def looks(self) -> int:
        """How often it was asked what there is."""
        return (self.directory / "calls").read_text().count("show ")

    def run(
        self,
        state: str,
        revision: str = "new",
        timeout: float = 5,
        check: bool = False,
        ports: tuple[int, ...] = (8001,),
        options: Tree | None = None,
        **more: Any,
    ) -> Tree:
        units = [
            {
                "name": f"channels-web@{port}.service",
                "label": f"app1:{port}",
                "url": self.url,
                "revision": revision,
                **more,
            }
            for port in ports
        ]
        return self.act(state, check, units=units, timeout=timeout, **(options or {}))

    def act(self, state: str, check: bool = False, **arguments: Any) -> Tree:
        (self.directory / "calls").unlink(missing_ok=True)
        self.asked.clear()
        # Most tests ask how far units are.
        fail = {"fail_on_timeout": state == "started"}
        return run_module("channels_units", {"state": state, **fail, **arguments}, check)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (programs / name).write_text(text.format(directory=tmp_path))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    # A proxy that answers nobody: the program must not ask one.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            answers = {"/-/ready": served.ready, "/-/live": served.live}[self.path]
            status, body = answers[0] if answers else (404, b"")
            if len(answers) > 1:
                answers.pop(0)
            if not status:  # another program than a worker, that speaks something else
                self.wfile.write(body)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        served = Worker(tmp_path, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def at() -> dict[float, Callable[[], None]]:
    """What happens while the module sleeps, by the time."""
    return {}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, at: dict[float, Callable[[], None]]) -> list[float]:
    """A clock that stands still but while the module sleeps."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        for due in [each for each in at if each <= now[0]]:
            at.pop(due)()

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """What a worker runs, started with the revision "old"."""
    environment = {"CHANNELS_KIT_REVISION_OF": "no", "CHANNELS_KIT_REVISION": "old"}
    with subprocess.Popen(["/bin/sleep", "60"], env=environment) as process:
        yield process
        process.kill()


def live(draining: bool, sockets: int) -> tuple[int, bytes]:
    return 200, json.dumps({"draining": draining, "sockets": sockets}).encode()


# look


def test_a_look_changes_nothing_and_tells_what_runs(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    (worker.directory / "unit-file").write_text("[Unit]\n")
    worker.state("active", process.pid)
    worker.state("inactive", unit_file="disabled", unit=OTHER)

    answer = worker.run("gathered", ports=(8001, 8002))

    assert answer["changed"] is False
    assert answer["units"][UNIT].pop("nofile_stale") in (True, False)
    assert worker.calls() == []
    assert worker.asked == ["/-/ready"], "what does not run is not asked"
    common = {
        "up_to_date": False,
        "path": str(worker.directory / "unit-file"),
        "content": "[Unit]\n",
        "phase": "",
        "sockets": 0,
        "left": False,
        "replaceable": False,
        "retired": [],
        "memory_left": None,
    }
    assert answer["units"][UNIT].pop("memory") > 0
    assert answer["memory_available"] > 0
    assert answer["units"] == {
        UNIT: {
            **common,
            "active": True,
            "outdated": True,
            "ready": True,
            "revision": "old",
            "enabled": True,
            "process": process.pid,
            "reason": "",
        },
        OTHER: {
            **common,
            "active": False,
            "outdated": False,
            "ready": False,
            "revision": "",
            "enabled": False,
            "process": 0,
            "reason": "",
        },
    }


def test_a_look_tells_who_was_not_ready_before_anybody_touched_it(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """Whose proof may be owed to what a roll is about to mend."""
    worker.ready = [(503, b"no answer from Redis")]
    worker.state("active", process.pid)
    told = worker.run("gathered")["units"][UNIT]
    assert told["ready"] is False
    assert "no answer from Redis" in told["reason"]


def test_a_look_tells_of_processes_that_were_replaced(
    worker: Worker, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = importlib.import_module("ansible.module_utils.channels_processes")
    monkeypatch.setattr(processes, "RUN", worker.directory)
    control = worker.directory / "channels-web" / "8001"
    control.mkdir(parents=True)
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    for name in (process.pid, os.getpid(), gone.pid, "other"):
        (control / f"{name}.sock").touch()
    worker.state("active", process.pid)
    worker.state("active", process.pid, unit=OTHER)
    told = worker.run("gathered", ports=(8001, 8002))["units"]
    # One that has ended does not count.
    assert (told[UNIT]["replaceable"], told[UNIT]["retired"]) == (True, [os.getpid()])
    assert (told[OTHER]["replaceable"], told[OTHER]["retired"]) == (False, [])


LOADED = 5_000_000
"""When systemd has read its units last, in microseconds."""


@pytest.mark.parametrize(
    ("asked", "started", "stale"),
    [
        # The process has 1000.
        (1000, LOADED - 1, False),
        (1024, LOADED - 1, True),
        (512, LOADED - 1, True),
        # It has got what systemd gives, and has changed that: the next one would do so too.
        (1024, LOADED, False),
        (1024, LOADED + 1, False),
    ],
)
def test_a_process_has_a_stale_limit_if_a_new_one_would_get_another(
    worker: Worker, asked: int, started: int, stale: bool
) -> None:
    (worker.directory / "manager").write_text(f"UnitsLoadTimestampMonotonic={LOADED}\n")
    environment = {"CHANNELS_KIT_REVISION": "old"}
    command = ["/usr/bin/prlimit", "--nofile=1000", "/bin/sleep", "60"]
    with subprocess.Popen(command, env=environment) as process:
        limits = Path("/proc", str(process.pid), "limits")
        while not re.search("^Max open files +1000 +1000", limits.read_text(), re.M):
            assert process.poll() is None
        start: Tree = {"LimitNOFILE": asked, "ExecMainStartTimestampMonotonic": started}
        worker.state("active", process.pid, **start)
        told = worker.run("gathered", "old")["units"][UNIT]
        process.kill()
    # It is the right one nevertheless: a roll that is under way waits for no other.
    assert (told["up_to_date"], told["nofile_stale"]) == (True, stale)


def test_systemd_reads_changed_files_before_a_look_that_asks_for_it(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    asks = {"daemon_reload": True}
    worker.state("active", process.pid)
    worker.state("active", process.pid, read="now")
    predicted = worker.run("gathered", "old", check=True, options=asks)
    assert worker.calls() == []
    # The states of the fake are used up by each look.
    worker.state("active", process.pid)
    worker.state("active", process.pid, read="now")
    (worker.directory / f"states-{UNIT}" / "002").unlink()
    done = worker.run("gathered", "old", options=asks)
    assert worker.calls() == ["daemon-reload"]
    for key in ("changed", "diff"):
        assert predicted[key] == done[key]
    assert done["changed"] is True
    assert done["diff"]["before"] == f"{UNIT}: changed since systemd read it\n"
    again = worker.run("gathered", "old", options=asks)
    assert (again["changed"], worker.calls()) == (False, [])


def test_a_unit_that_was_never_written_has_no_content(worker: Worker) -> None:
    worker.state("inactive", unit_file="")
    assert "content" not in worker.run("gathered")["units"][UNIT]


@pytest.mark.parametrize(
    ("state", "revision", "replaced", "right", "outdated"),
    [
        ("active", "old", False, True, False),
        ("active", "old", True, False, True),
        ("active", "new", False, False, True),
        # systemd would join a second start to the one that is under way.
        ("activating", "new", False, False, True),
        ("reloading", "old", False, True, False),
        # On its way out, whatever it is.
        ("deactivating", "old", False, False, False),
        ("deactivating", "new", False, False, False),
    ],
)
def test_a_process_is_right_by_its_revision_unless_it_shall_be_replaced(
    worker: Worker,
    process: subprocess.Popen[bytes],
    state: str,
    revision: str,
    replaced: bool,
    right: bool,
    outdated: bool,
) -> None:
    worker.state(state, process.pid)
    other = process.pid if replaced else 1
    told = worker.run("gathered", revision, replaced_process=other)["units"][UNIT]
    assert (told["up_to_date"], told["outdated"]) == (right, outdated)


def test_a_unit_that_systemd_starts_again_is_looked_at_when_its_process_runs(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """As after a restart of Redis, with which a background process ends."""
    worker.state("activating", 0, restarts=1)
    worker.state("activating", 0, restarts=1)
    worker.state("active", process.pid, restarts=1)

    told = worker.run("gathered", "old")["units"][UNIT]

    assert (told["up_to_date"], told["outdated"], told["process"]) == (True, False, process.pid)


def test_a_worker_whose_process_has_just_gone_is_outdated(worker: Worker) -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    worker.state("active", gone.pid)
    told = worker.run("gathered")["units"][UNIT]
    assert (told["active"], told["outdated"], told["revision"]) == (True, True, "")


# reload


def test_a_worker_gets_a_new_process_beside_the_former_one(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], env={"CHANNELS_KIT_REVISION": "older"}) as former:
        worker.state("active", former.pid, restarts=1)
        worker.state("reloading", former.pid, Job=5)
        worker.state("active", process.pid)
        answer = worker.run("reloaded", "old", options={"reloaded": True})
        former.kill()
    assert worker.calls() == ["daemon-reload", f"reset-failed {UNIT}", f"reload --no-block {UNIT}"]
    assert (answer["changed"], answer["units"][UNIT]["phase"]) == (True, "ready")
    assert "/-/live" not in worker.asked, "nobody drains"


@pytest.mark.parametrize(("status", "left"), [(1, False), (3, True)])
def test_a_reload_that_failed_says_whether_the_worker_has_to_be_restarted(
    worker: Worker, process: subprocess.Popen[bytes], status: int, left: bool
) -> None:
    worker.state("active", process.pid)
    failed: dict[str, Any] = {
        "ReloadResult": "exit-code",
        "ExecReload": f"{{ ; code=exited ; status={status} }}",
    }
    worker.state("active", process.pid, **failed)
    answer = worker.run("reloaded")
    if left:
        assert answer["units"][UNIT]["left"] is True
        assert answer.get("failed", False) is False
    else:
        assert answer["failure"]["reason"] == "no new process took over; the former one goes on"
        assert answer["failure"]["journal"] == JOURNAL


# start


def test_a_worker_that_does_not_run_is_enabled_and_started(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("inactive", unit_file="disabled")
    worker.state("active", process.pid)

    answer = worker.run("started", "old")

    assert answer["changed"] is True
    # systemd reads the new unit first.
    assert worker.calls() == ["daemon-reload", f"enable {UNIT}", f"start --no-block {UNIT}"]
    assert worker.asked == ["/-/ready"]
    assert answer["diff"] == {"before": f"{UNIT}: not running\n", "after": f"{UNIT}: old\n"}
    assert answer["units"][UNIT]["phase"] == "ready"


@pytest.mark.parametrize(("read", "again"), [("now", []), ("never", ["daemon-reload"])])
def test_systemd_reads_its_units_where_it_does_not_know_them(
    worker: Worker, process: subprocess.Popen[bytes], read: str, again: list[str]
) -> None:
    """It takes a host with many units a second."""
    worker.state("inactive", read=read)
    worker.state("active", process.pid)
    worker.run("started", "old")
    assert worker.calls() == [*again, f"start --no-block {UNIT}"]


def test_those_that_do_not_run_start_together_and_no_other_is_touched(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """Where only what does not run is started, nobody is disconnected."""
    units = [f"channels-web@{port}.service" for port in (8001, 8002, 8003)]
    worker.state("active", process.pid, unit=units[0])
    for unit, state in zip(units[1:], ("inactive", "failed"), strict=True):
        worker.state(state, unit=unit)
        worker.state("active", process.pid, unit=unit)

    answer = worker.run("started", "old", ports=(8001, 8002, 8003), replaced_process=1)
    assert worker.calls() == ["daemon-reload", f"start --no-block {units[1]} {units[2]}"]
    assert len(worker.asked) == 3
    assert answer["diff"]["before"] == "".join(f"{unit}: not running\n" for unit in units[1:])


def test_a_worker_of_another_revision_waits_for_its_turn(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    answer = worker.run("started")
    assert answer["changed"] is False
    assert worker.calls() == []
    assert worker.asked == []
    assert answer["units"][UNIT]["outdated"] is True


def test_a_worker_of_the_revision_that_would_not_start_at_boot_is_enabled(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid, unit_file="disabled")
    answer = worker.run("started", "old")
    assert answer["changed"] is True
    assert worker.calls() == ["daemon-reload", f"enable {UNIT}"]


def test_a_worker_that_runs_and_is_not_ready_is_a_failure(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """As a run before this one may have left it."""
    worker.state("active", process.pid)
    worker.ready = [(503, b"no answer from Redis")]
    assert worker.run("started", "old").get("failed", False) is True


def test_it_waits_until_the_worker_is_ready(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("inactive")
    worker.state("active", process.pid)
    worker.ready = [(503, b"migrations are missing"), (200, b"ready")]
    assert worker.run("started", "old")["changed"] is True
    assert worker.asked == ["/-/ready"] * 2


def test_a_unit_that_answers_nobody_is_ready_when_it_is_connected(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        waits = {"name": UNIT, "revision": "old", "connected_to": [port]}
        worker.state("active", process.pid)
        answer = worker.act("started", units=[waits])
        assert f"{UNIT} is not ready" in answer["msg"]
        assert f"process {process.pid} has no connection to port {port}" in answer["msg"]

        with socket.create_connection(("127.0.0.1", port)):
            # Somebody is connected, but not the unit's process.
            assert worker.act("started", units=[waits])["failed"] is True
            # And now the process that holds the connection is the unit's.
            own = {"name": OTHER, "revision": "", "connected_to": [port]}
            worker.state("active", os.getpid(), unit=OTHER)
            assert worker.act("started", units=[own])["changed"] is False


def test_a_unit_without_a_server_is_ready_when_its_process_has_run_for_some_time(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    unit = {"name": UNIT, "revision": "old"}
    worker.state("active", process.pid)
    answer = worker.act("started", units=[unit])
    assert f"{UNIT} is not ready: process {process.pid} has run for 0." in answer["msg"]
    assert "s of 3 s" in answer["msg"]

    # The first process of the machine has run for longer than that.
    worker.state("active", 1, unit=OTHER)
    assert worker.act("started", units=[{"name": OTHER, "revision": ""}])["changed"] is False


def test_a_worker_that_never_gets_ready_fails_with_its_own_words(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    worker.state("inactive")
    worker.state("active", process.pid)
    worker.ready = [(503, b"no answer from Redis")]

    answer = worker.run("started", "old", timeout=7)

    assert answer["failed"] is True
    assert f"app1:8001 is not ready: {worker.url}/-/ready answers 503: no answer" in answer["msg"]
    assert JOURNAL in answer["msg"]
    assert clock[0] == pytest.approx(1007, abs=0.2)


def test_a_worker_whose_start_systemd_skips_fails_with_its_state(worker: Worker) -> None:
    """As on a host that is drained: systemctl says that all is well."""
    worker.state("inactive")
    answer = worker.run("started")
    assert "app1:8001 is not ready: it is inactive" in answer["msg"]
    assert JOURNAL in answer["msg"]


def test_a_worker_that_ends_by_itself_is_not_waited_for(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    worker.state("inactive")
    worker.state("activating", process.pid)
    worker.state("activating", restarts=1)

    answer = worker.run("started", "old", timeout=60)

    assert "app1:8001 failed: its process ended and systemd started it again" in answer["msg"]
    assert JOURNAL in answer["msg"]
    assert clock[0] < 1001


def test_a_worker_that_ended_by_itself_long_ago_is_as_good_as_any(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid, restarts=3)
    assert worker.run("started", "old")["units"][UNIT]["phase"] == "ready"
    assert worker.calls() == []


def test_a_port_where_nobody_listens_fails_with_the_reason(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    worker.url = "http://127.0.0.1:9"
    answer = worker.run("started", "old", timeout=0)
    assert "Connection refused" in answer["msg"]
    assert JOURNAL in answer["msg"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((0, b"-ERR unknown command 'GET'\r\n"), "-ERR unknown command"),
        ((503, b"\xff\xfe no text"), "503: \ufffd\ufffd no text"),
    ],
)
def test_a_port_of_another_program_fails_with_what_it_said(
    worker: Worker, process: subprocess.Popen[bytes], answer: tuple[int, bytes], said: str
) -> None:
    worker.state("active", process.pid)
    worker.ready = [answer]
    failure = worker.run("started", "old", timeout=0)["msg"]
    assert said in failure
    assert JOURNAL in failure


# roll


def test_a_roll_restarts_what_is_outdated_and_does_not_wait(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    worker.state("activating", process.pid, unit=OTHER)

    answer = worker.run("restarted", timeout=0, ports=(8001, 8002))

    assert answer["changed"] is True
    # A worker takes minutes to drain: what systemd is asked for, it does.
    assert worker.calls() == ["daemon-reload", f"restart --no-block {UNIT} {OTHER}"]
    assert worker.asked == []
    assert answer["diff"] == {
        "before": f"{UNIT}: old\n{OTHER}: old\n",
        "after": f"{UNIT}: new\n{OTHER}: new\n",
    }


def test_a_roll_leaves_alone_what_is_right(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid, unit_file="disabled")
    answer = worker.run("restarted", "old", timeout=0)
    assert answer["changed"] is False
    assert worker.calls() == []


def test_a_roll_restarts_a_process_that_shall_be_replaced_and_no_other(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    worker.run("restarted", "old", timeout=0, replaced_process=process.pid)
    assert worker.calls() == ["daemon-reload", f"restart --no-block {UNIT}"]
    # It has been restarted meanwhile.
    worker.run("restarted", "old", timeout=0, replaced_process=process.pid - 1)
    assert worker.calls() == []


@pytest.mark.parametrize("state", ["inactive", "failed", "deactivating"])
def test_a_roll_starts_what_does_not_run_any_more(
    worker: Worker, process: subprocess.Popen[bytes], state: str
) -> None:
    """What is on its way out would come back as systemd has read its unit before."""
    worker.state(state, process.pid if state == "deactivating" else 0)
    worker.run("restarted", "old", timeout=0)
    assert worker.calls() == ["daemon-reload", f"restart --no-block {UNIT}"]


@pytest.mark.parametrize(
    ("step", "state", "verb"),
    [
        ("restarted", "activating", "restart --no-block"),
        ("started", "inactive", "start --no-block"),
    ],
)
def test_a_release_that_mends_what_ended_again_and_again_is_not_blamed_for_it(
    worker: Worker, process: subprocess.Popen[bytes], step: str, state: str, verb: str
) -> None:
    """systemd 252 counts on where somebody restarts a unit that it was about to start itself."""
    worker.state(state, restarts=5)
    worker.state("active", process.pid)
    worker.run(step, "old")
    calls = worker.calls()
    assert sorted(calls[1:]) == sorted([f"reset-failed {UNIT}", f"{verb} {UNIT}"])
    # It may end once more until it is restarted; a start returns when it has already ended.
    assert (calls[-1] == f"reset-failed {UNIT}") == (step == "restarted")


# watch


@pytest.mark.parametrize(
    ("state", "runs", "revision", "answers", "phase", "sockets", "asked"),
    [
        # systemd has not come to it yet.
        ("active", True, "new", live(False, 212), "stopping", 0, ["/-/live"]),
        ("active", True, "new", live(True, 212), "draining", 212, ["/-/live"]),
        ("deactivating", True, "new", live(True, 3), "draining", 3, ["/-/live"]),
        ("deactivating", True, "new", (500, live(True, 3)[1]), "stopping", 0, ["/-/live"]),
        ("deactivating", True, "new", (200, b"not a worker's"), "stopping", 0, ["/-/live"]),
        # The one that is replaced, of the same revision.
        ("deactivating", True, "old", live(True, 7), "draining", 7, ["/-/live"]),
        ("inactive", False, "new", live(True, 9), "stopped", 0, []),
        ("activating", False, "new", live(True, 9), "starting", 0, []),
        ("activating", True, "old", live(True, 9), "starting", 0, []),
        ("active", True, "old", live(True, 9), "ready", 0, ["/-/ready"]),
    ],
)
def test_a_watch_tells_how_far_a_worker_is(
    worker: Worker,
    process: subprocess.Popen[bytes],
    state: str,
    runs: bool,
    revision: str,
    answers: tuple[int, bytes],
    phase: str,
    sockets: int,
    asked: list[str],
) -> None:
    worker.state(state, process.pid if runs else 0)
    worker.live = [answers]

    answer = worker.run("watched", revision, timeout=0)

    told = answer["units"][UNIT]
    assert (told["phase"], told["sockets"]) == (phase, sockets)
    assert worker.asked == asked
    assert answer["changed"] is False
    assert worker.calls() == []


def test_a_watch_tells_what_keeps_a_worker_from_being_ready(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.ready = [(503, b"no answer from Redis")]
    worker.state("active", process.pid)
    told = worker.run("watched", "old", timeout=0)["units"][UNIT]
    assert told["phase"] == "starting"
    assert told["reason"] == f"{worker.url}/-/ready answers 503: no answer from Redis"

    worker.state("inactive", unit=OTHER)
    told = worker.run("watched", timeout=0, ports=(8002,))["units"][OTHER]
    assert told["reason"] == "it is inactive"


@pytest.mark.parametrize("state", ["active", "deactivating"])
def test_a_watch_asks_nothing_of_a_unit_that_answers_nobody(
    worker: Worker, process: subprocess.Popen[bytes], state: str
) -> None:
    worker.state(state, process.pid)
    unit = {"name": UNIT, "revision": "new", "connected_to": [1]}
    answer = worker.act("watched", units=[unit])
    assert answer["units"][UNIT]["phase"] == "stopping"
    assert worker.asked == []


@pytest.mark.parametrize("step", ["watched", "restarted"])
def test_a_watch_ends_when_all_are_ready(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float], step: str
) -> None:
    worker.state("active", process.pid)
    for state, pid in (("deactivating", process.pid), ("activating", 0), ("active", process.pid)):
        worker.state(state, pid, unit=OTHER)

    answer = worker.run(step, "old", timeout=60, ports=(8001, 8002))

    assert {told["phase"] for told in answer["units"].values()} == {"ready"}
    assert 1000 < clock[0] < 1001


@pytest.mark.parametrize("step", ["watched", "restarted"])
def test_a_watch_does_not_wait_for_background_units_beside_a_worker(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float], step: str
) -> None:
    worker.state("active", process.pid)
    worker.state("deactivating", process.pid, unit=OTHER)
    units = [
        {"name": UNIT, "revision": "old", "url": worker.url},
        {"name": OTHER, "revision": "old", "connected_to": [1]},
    ]
    answer = worker.act(step, units=units, timeout=60)
    phases = {name: told["phase"] for name, told in answer["units"].items()}
    assert phases == {UNIT: "ready", OTHER: "stopping"}
    assert (
        worker.calls()
        == ["daemon-reload", f"restart --no-block {OTHER}"][: 2 * (step == "restarted")]
    )
    assert clock[0] < 1001


def test_those_beside_are_looked_at_and_neither_touched_nor_waited_for(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    unit = {"name": UNIT, "revision": "new", "url": worker.url}
    beside = {"name": OTHER, "revision": "new", "connected_to": [1]}
    arguments: Tree = {"units": [unit], "beside": [beside], "timeout": 1}
    worker.state("active", process.pid)
    worker.state("deactivating", process.pid, unit=OTHER)
    answer = worker.act("restarted", **arguments)
    assert worker.calls() == ["daemon-reload", f"restart --no-block {UNIT}"]
    assert answer["units"][OTHER]["phase"] == "stopping"

    worker.state("activating", restarts=1, unit=OTHER)
    # The first look is that of the state before.
    assert worker.act("restarted", **arguments)["failed"] is True


# The proof


@pytest.mark.parametrize("step", ["watched", "restarted"])
@pytest.mark.parametrize(
    ("proof", "found"),
    [
        ("echo from $0; echo waiting >&2", {"rc": 0, "output": "from worker\n"}),
        ("echo lost; exit 1", {"rc": 1, "output": "lost\n"}),
        # What a word means is the command's own affair.
        ("echo '$HOME'", {"rc": 0, "output": "$HOME\n"}),
        ("echo no token >&2; exit 2", {"rc": 2, "output": "no token\n"}),
    ],
)
def test_what_is_ready_is_proved_in_the_same_call(
    worker: Worker, process: subprocess.Popen[bytes], step: str, proof: str, found: Tree
) -> None:
    worker.state("activating")
    worker.state("active", process.pid)
    unit = {"name": UNIT, "revision": "old", "url": worker.url}
    answer = worker.act(step, units=[unit], timeout=5, proof=["sh", "-c", proof, "worker"])
    assert answer.get("failed", False) is False
    took = answer["proof"].pop("seconds")
    assert answer["proof"] == found
    assert took >= 0


def test_a_proof_runs_while_units_are_watched(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float], tmp_path: Path
) -> None:
    """And what it says is waited for, though the watch is over."""
    worker.state("active", process.pid)
    began = tmp_path / "began"
    unit = {"name": UNIT, "revision": "old", "url": worker.url}
    worker.live = [(200, b"{}")]
    # The clock of the watch is not that of the proof.
    proof = ["sh", "-c", f"touch {began}; echo proved"]
    answer = worker.act("watched", units=[unit], hold=6, proof=proof)
    assert answer.get("failed", False) is False
    assert answer["proof"]["output"] == "proved\n"
    assert clock[0] >= 1006
    assert began.exists()
    # The proof is silent on the channel layer; a question to /-/ready is a message there.
    assert set(worker.asked) == {"/-/live"}


def test_a_unit_that_ends_is_told_and_not_the_proof(
    worker: Worker, process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Its journal says more than sockets that were lost with it; and nobody waits for them."""
    worker.state("active", process.pid)
    worker.state("activating", restarts=1)
    unit = {"name": UNIT, "revision": "old", "url": worker.url}
    answer = worker.act("watched", units=[unit], hold=6, proof=["sleep", "60"])
    assert "its process ended and systemd started it again" in answer["msg"]
    assert JOURNAL in answer["msg"]


def test_a_proof_that_cannot_be_run_is_a_failure(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("active", process.pid)
    unit = {"name": UNIT, "revision": "old", "url": worker.url}
    answer = worker.act("watched", units=[unit], timeout=1, proof=["/no/such/program"])
    assert answer["msg"] == "/no/such/program cannot be run: No such file or directory"


@pytest.mark.parametrize(("state", "step"), [("activating", "watched"), ("inactive", "stopped")])
def test_what_is_not_ready_is_not_proved(
    worker: Worker, tmp_path: Path, state: str, step: str
) -> None:
    worker.state(state)
    unit = {"name": UNIT, "revision": "old", "url": worker.url}
    answer = worker.act(step, units=[unit], timeout=1, proof=["touch", str(tmp_path / "proved")])
    assert "proof" not in answer
    assert not (tmp_path / "proved").exists()


def test_a_watch_that_sees_no_end_is_no_failure(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    worker.state("deactivating", process.pid)
    worker.live = [live(True, 9), live(True, 8), live(True, 7)]

    answer = worker.run("watched", timeout=2)

    assert answer.get("failed", False) is False
    assert answer["units"][UNIT]["sockets"] == 7
    assert clock[0] == pytest.approx(1002, abs=0.2)
    assert worker.looks() > 3


@pytest.mark.parametrize(("state", "runs"), [("active", True), ("activating", False)])
def test_a_watch_fails_with_the_journal_when_systemd_has_started_a_worker_again(
    worker: Worker,
    process: subprocess.Popen[bytes],
    clock: list[float],
    state: str,
    runs: bool,
) -> None:
    worker.state("active", process.pid, unit=OTHER)
    worker.state("activating")
    worker.state("activating")
    worker.state(state, process.pid if runs else 0, restarts=1)

    answer = worker.run("watched", "old", timeout=60, ports=(8001, 8002))

    assert "app1:8001 failed: its process ended and systemd started it again" in answer["msg"]
    assert JOURNAL in answer["msg"]
    assert clock[0] < 1001, "it is said at once"


def test_what_the_former_process_did_is_no_failure(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("deactivating", process.pid, restarts=3)
    worker.live = [live(True, 9)]
    assert worker.run("watched", timeout=0)["units"][UNIT]["phase"] == "draining"


# stop, retire


@pytest.mark.parametrize(
    ("step", "disabled"), [("stopped", []), ("removed", [f"disable {UNIT} {OTHER}"])]
)
def test_units_are_stopped_at_once_and_watched(
    worker: Worker,
    process: subprocess.Popen[bytes],
    clock: list[float],
    step: str,
    disabled: list[str],
) -> None:
    worker.live = [(200, b'{"draining": true, "sockets": 3}')]
    for unit in (UNIT, OTHER):
        worker.state("active", process.pid, unit=unit)
        worker.state("deactivating", process.pid, unit=unit)
        worker.state("inactive", unit=unit)

    answer = worker.run(step, "", timeout=60, ports=(8001, 8002))

    assert worker.calls() == ["daemon-reload", *disabled, f"stop --no-block {UNIT} {OTHER}"]
    assert {told["phase"] for told in answer["units"].values()} == {"stopped"}
    assert clock[0] <= 1001, "it does not wait any longer"
    assert answer["changed"] is True
    assert answer["diff"] == {
        "before": f"{UNIT}: old\n{OTHER}: old\n",
        "after": f"{UNIT}: stopped\n{OTHER}: stopped\n",
    }


def test_how_many_sockets_a_worker_has_that_is_stopped_is_told(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    worker.live = [(200, b'{"draining": true, "sockets": 3}')]
    worker.state("active", process.pid)
    worker.state("deactivating", process.pid)
    told = worker.run("stopped", "", timeout=2)["units"][UNIT]
    assert (told["phase"], told["sockets"]) == ("draining", 3)


@pytest.mark.parametrize("state", ["inactive", "failed"])
@pytest.mark.parametrize(("step", "changed"), [("stopped", False), ("removed", True)])
def test_what_does_not_run_is_not_stopped(
    worker: Worker, state: str, step: str, changed: bool
) -> None:
    worker.state(state)
    answer = worker.run(step, "", timeout=0)
    assert answer["changed"] is changed
    forgotten = [f"reset-failed {UNIT}"] if state == "failed" else []
    wanted = ["daemon-reload", *forgotten, f"disable {UNIT}"]
    assert worker.calls() == (wanted if changed else [])


def test_what_is_about_to_start_again_is_stopped(worker: Worker) -> None:
    worker.state("activating", restarts=3)
    assert worker.run("stopped", "", timeout=0)["changed"] is True
    assert worker.calls()[-1] == f"stop --no-block {UNIT}"


@pytest.mark.parametrize(
    "step", ["gathered", "started", "restarted", "watched", "stopped", "removed"]
)
@pytest.mark.parametrize(
    ("active", "revision", "unit_file"),
    [
        ("inactive", "old", "disabled"),
        ("failed", "old", "enabled"),
        ("active", "new", "enabled"),
        ("active", "old", "enabled"),
        ("active", "old", "disabled"),
    ],
)
def test_check_mode_says_what_a_run_would_do_and_touches_nothing(
    worker: Worker,
    process: subprocess.Popen[bytes],
    step: str,
    active: str,
    revision: str,
    unit_file: str,
) -> None:
    for _ in range(2):
        worker.state(active, process.pid if active == "active" else 0, unit_file)
    # What a start brings.
    worker.state("active", process.pid, unit_file)

    predicted = worker.run(step, revision, check=True)

    assert worker.calls() == []
    assert worker.asked == (["/-/ready"] if step == "gathered" and active == "active" else [])
    done = worker.run(step, revision)
    for key in ("changed", "diff"):
        assert predicted[key] == done[key]


@pytest.mark.parametrize(
    ("step", "verb"),
    [
        ("started", "daemon-reload"),
        ("started", "enable"),
        ("started", "reset-failed"),
        ("started", "start"),
        ("restarted", "daemon-reload"),
        ("restarted", "restart"),
        ("stopped", "stop"),
        ("removed", "disable"),
        ("removed", "stop"),
    ],
)
def test_what_systemd_refuses_fails_with_the_journal(worker: Worker, step: str, verb: str) -> None:
    stops = step in ("stopped", "removed")
    worker.state(
        "activating" if stops else "inactive",
        unit_file="enabled" if stops else "disabled",
        restarts=1,
    )
    worker.fails(verb)

    answer = worker.run(step)

    assert answer["failed"] is True
    assert f"app1:8001 failed: systemctl {verb}: Job for" in answer["msg"]
    assert JOURNAL in answer["msg"]
    assert worker.calls()[-1].startswith(verb), "nothing is done after a failure"
    assert worker.asked == []


# Failing fast


@pytest.mark.parametrize("step", ["started", "restarted", "watched"])
@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"ExecMainCode": 1, "ExecMainStatus": 3}, "exited with status 3"),
        ({"ExecMainCode": 2, "ExecMainStatus": 11}, "killed by SIGSEGV"),
        ({"ExecMainCode": 3, "ExecMainStatus": 6}, "killed by SIGABRT"),
        ({"ExecMainCode": 2, "ExecMainStatus": 9, "Result": "oom-kill"}, "killed: out of memory"),
    ],
)
def test_a_process_that_exits_fails_at_once_while_systemd_still_waits_for_it(
    worker: Worker, clock: list[float], step: str, ended: Tree, said: str
) -> None:
    """ExecStartPost= waits on, and systemd restarts nothing before that gives up."""
    worker.state("inactive")
    worker.state("activating", ExecMainPID=99, **ended)
    answer = worker.run(step, "old", timeout=60)
    assert answer["failed"] is True
    assert answer["msg"].startswith(f"app1:8001 failed: {said}\nLast journal lines of {UNIT}:")
    assert answer["msg"].endswith(JOURNAL)
    assert answer["failure"] == {
        "unit": UNIT,
        "label": "app1:8001",
        "what": "failed",
        "reason": said,
        "journal": JOURNAL,
    }
    assert clock[0] < 1001


def test_what_the_replaced_process_exited_with_is_not_held_against_the_new_one(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """systemd was about to start it again, and has not come to the restart yet."""
    crashed: Tree = {"ExecMainPID": 99, "ExecMainCode": 1, "ExecMainStatus": 3}
    for _ in range(3):
        worker.state("activating", restarts=5, **crashed)
    worker.state("activating", process.pid, ExecMainPID=process.pid)
    worker.state("active", process.pid, ExecMainPID=process.pid)
    # reset-failed sets the counter back; this systemctl does not.
    for file in (worker.directory / f"states-{UNIT}").iterdir():
        if file.name > "001":
            file.write_text(file.read_text().replace("NRestarts=5", "NRestarts=0"))
    answer = worker.run("restarted", "old", timeout=60)
    assert answer["units"][UNIT]["phase"] == "ready"


def test_a_start_that_systemd_refuses_on_a_drained_host_fails_at_once(
    worker: Worker, clock: list[float]
) -> None:
    worker.state("inactive", ConditionResult="no", ConditionTimestampMonotonic=1, Job=7)
    worker.state("inactive", ConditionResult="no", ConditionTimestampMonotonic=1)
    answer = worker.run("started", timeout=60)
    assert "a condition of the unit is not met" in answer["msg"]
    assert clock[0] < 1001


def test_a_unit_that_was_never_started_was_not_refused(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """systemd says "no" of the condition of every unit that it has not tried to start yet."""
    worker.state("inactive", ConditionResult="no", ConditionTimestampMonotonic=0)
    worker.state("inactive", ConditionResult="no", ConditionTimestampMonotonic=0)
    worker.state("active", process.pid)
    assert worker.run("started", "old", timeout=60)["units"][UNIT]["phase"] == "ready"


def test_the_end_of_a_process_is_seen_before_systemd_is_asked_again(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float], at: dict[float, Any]
) -> None:
    worker.state("active", process.pid)
    worker.state("active", process.pid)
    worker.state("activating", ExecMainPID=process.pid, ExecMainCode=1, ExecMainStatus=3)

    def crash() -> None:
        process.kill()
        process.wait()

    at[1002.0] = crash
    answer = worker.act(
        "watched",
        units=[{"name": UNIT, "label": "app1:8001", "url": worker.url, "revision": "old"}],
        hold=60,
    )
    assert answer["msg"].startswith("app1:8001 failed: exited with status 3")
    assert clock[0] < 1002.3


def test_units_that_do_not_get_there_in_time_fail_with_the_journal(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    worker.state("deactivating", process.pid)
    late = {"fail_on_timeout": True}
    answer = worker.run("watched", timeout=2, options=late)
    said = f"app1:8001 is not ready: process {process.pid} has not ended\nLast journal lines"
    assert answer["msg"].startswith(said)
    answer = worker.run("stopped", timeout=2, options=late)
    assert answer["msg"].startswith(f"app1:8001 is not stopped: process {process.pid} has not")


# Holding


def test_units_that_stay_ready_are_asked_once_a_second(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    worker.state("active", process.pid)
    answer = worker.run("watched", "old", timeout=0, options={"hold": 6})
    assert answer.get("failed", False) is False
    assert clock[0] == pytest.approx(1006, abs=0.2)
    assert 6 <= len(worker.asked) <= 8


def test_a_unit_that_does_not_stay_ready_fails_at_once(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    worker.state("active", process.pid)
    worker.ready = [(200, b"ready"), (200, b"ready"), (503, b"no answer from Redis")]
    answer = worker.run("watched", "old", timeout=0, options={"hold": 60})
    assert answer["msg"].startswith("app1:8001 is no longer ready: ")
    assert "answers 503: no answer from Redis" in answer["msg"]
    assert clock[0] < 1003


# What it costs


def test_a_restart_asks_no_more_than_it_must(
    worker: Worker, process: subprocess.Popen[bytes], clock: list[float]
) -> None:
    """14 s to drain and 3 s to be ready: a program asked systemd 340 times for each unit here."""
    others = [f"channels-web@{port}.service" for port in (8001, 8002, 8003)]
    for unit in others:
        worker.state("active", process.pid, unit=unit)
        for _ in range(14):
            worker.state("deactivating", process.pid, unit=unit)
        for _ in range(6):
            worker.state("activating", process.pid, unit=unit)
        worker.state("active", process.pid, unit=unit)
    worker.live = [live(True, 9)]
    worker.ready = [(503, b"starting")] * 9 + [(200, b"ready")]
    answer = worker.run(
        "restarted", "old", timeout=60, ports=(8001, 8002, 8003), replaced_process=1
    )
    assert {told["phase"] for told in answer["units"].values()} == {"ready"}
    assert worker.looks() <= 25, "one fork for three units, once a second while they drain"
    assert worker.asked.count("/-/live") <= 3 * 17
    assert worker.asked.count("/-/ready") == 12
    assert clock[0] < 1020


# Listing


def test_units_that_a_host_has_and_that_are_not_wanted_are_listed(worker: Worker) -> None:
    former = "channels-worker@thumbnails.service"
    (worker.directory / "list-units").write_text(
        f"{UNIT} loaded active running Channels worker on port 8001\n"
        f"{OTHER} loaded active running Channels worker on port 8002\n"
        f"● {former} not-found failed failed {former}\n"
        "channels-web@8003.service loaded inactive dead Channels worker on port 8003\n"
        "channels-web@8004.service loaded inactive dead Channels worker on port 8004\n"
    )
    (worker.directory / "list-unit-files").write_text(
        "channels-celery.service enabled enabled\n"
        "channels-web@.service   indirect enabled\n"
        "channels-worker@.service indirect enabled\n"
    )
    worker.state("active", 1, unit=OTHER)
    worker.state("failed", unit=former, unit_file="")
    worker.state("inactive", unit="channels-web@8003.service")
    worker.state("inactive", unit="channels-web@8004.service", unit_file="disabled")
    worker.state("inactive", unit="channels-celery.service")

    answer = worker.act("listed", patterns=["channels-*"], units=[{"name": UNIT}])

    assert answer["changed"] is False
    assert [unit["name"] for unit in answer["surplus"]] == [
        "channels-celery.service",
        OTHER,
        "channels-web@8003.service",  # it would start with the host
        former,
    ]
    assert answer["unit_files"] == [
        "channels-celery.service",
        "channels-web@.service",
        "channels-worker@.service",
    ]
    assert worker.looks() == 1


def test_a_host_without_units_lists_none(worker: Worker) -> None:
    for kind in ("list-units", "list-unit-files"):
        (worker.directory / kind).write_text("")
    answer = worker.act("listed", patterns=["channels-*"], units=[{"name": UNIT}])
    assert (answer["surplus"], answer["unit_files"]) == ([], [])


def test_a_unit_that_failed_while_it_was_removed_is_forgotten(
    worker: Worker, process: subprocess.Popen[bytes]
) -> None:
    """systemd would list it for ever, and call the host degraded."""
    worker.state("active", process.pid)
    worker.state("failed")
    worker.run("removed", "", timeout=5)
    assert worker.calls()[-1] == f"reset-failed {UNIT}"


# Documentation


@pytest.mark.parametrize(
    "name", ["channels_units", "channels_roll", "channels_proof", "channels_retired"]
)
def test_every_option_is_documented_as_it_is_taken(name: str) -> None:
    own_module_utils()
    documented = yaml.safe_load(
        runpy.run_path(str(ROOT / "plugins" / "modules" / f"{name}.py"))["DOCUMENTATION"]
    )["options"]
    kind = "modules" if name in ("channels_units", "channels_retired") else "action"
    spec = runpy.run_path(str(ROOT / "plugins" / kind / f"{name}.py"))["ARGUMENT_SPEC"]
    assert comparable(documented, "suboptions") == comparable(spec, "options")


def comparable(options: Tree, below: str) -> Tree:
    """What of an option must agree."""
    keys = ("type", "elements", "default", "choices", "required")
    return {
        name: {
            **{key: option[key] for key in keys if option.get(key) is not None},
            **({"below": comparable(option[below], below)} if below in option else {}),
        }
        for name, option in options.items()
    }


def test_a_state_that_there_is_not_is_refused() -> None:
    answer = run_module("channels_units", {"state": "leapt"})
    assert answer["msg"].startswith("value of state must be one of: gathered, listed, started, ")
