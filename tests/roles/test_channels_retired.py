"""The module channels_retired: a command of the tests' own, and real processes."""

import importlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .house import Tree, own_module_utils, run_module

UNIT, OTHER = "channels-web@8001.service", "channels-web@8002.service"

# Answers "list" by the processes that still run of those that the test has written.
PROGRAM = """#!{python}
import json, os, signal, sys
from pathlib import Path

home = Path("{home}")
arguments = sys.argv[sys.argv.index("channels_kit.serving.retired") + 1:]
with (home / "calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
verb, unit, *more = arguments
known = json.loads((home / f"{{unit}}.json").read_text())
named = [int(word.partition("=")[2]) for word in more]
if verb in known.get("refuses", []):
    sys.exit("it is draining")
if verb == "main":
    print(json.dumps({{"pid": known["main"], "state": "serving"}}))
    sys.exit()
if verb == "resume":
    known["retired"] = [each for each in known["retired"] if each["pid"] not in named]
    bad = {{"pid": known["main"], "sockets": 1, "requests": 0, "state": "retired"}}
    known["retired"].append(bad)
    known["main"] = named[0]
for each in known["retired"]:
    if verb == "drain" and each["pid"] in (named or [each["pid"]]):
        each["state"] = "draining"
        if known.get("ends", True):
            os.kill(each["pid"], signal.SIGKILL)
(home / f"{{unit}}.json").write_text(json.dumps(known))

def runs(pid):
    try:
        return Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

print(json.dumps([each for each in known["retired"] if runs(each["pid"])]))
"""


@dataclass
class Host:
    """A host with workers whose processes were replaced."""

    home: Path
    spawn: Callable[[], int]
    processes: list[int] = field(default_factory=list)

    def unit(self, name: str, *retired: str, **more: object) -> list[int]:
        """Have a unit with a main process and retired ones in these states; return their IDs."""
        pids = [self.spawn() for _ in retired]
        main = self.spawn()
        control = self.home / "channels-web" / name.partition("@")[2].partition(".")[0]
        control.mkdir(parents=True)
        for pid in (main, *pids):
            (control / f"{pid}.sock").touch()
        known = [
            {"pid": pid, "sockets": 4, "requests": 1, "state": state}
            if state != "idle"
            else {"pid": pid, "sockets": 0, "requests": 0, "state": "retired"}
            for pid, state in zip(pids, retired, strict=True)
        ]
        told = {"main": main, "retired": known, **more}
        (self.home / f"{name}.json").write_text(json.dumps(told))
        return [main, *pids]

    def calls(self) -> list[str]:
        file = self.home / "calls"
        found = file.read_text().splitlines() if file.exists() else []
        return [line for line in found if not line.startswith(("list", "main"))]

    def run(self, state: str, *units: Tree, check: bool = False, **more: object) -> Tree:
        arguments = {"state": state, "units": list(units), "release": str(self.home), **more}
        return run_module("channels_retired", arguments, check)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    own_module_utils()
    processes = importlib.import_module("ansible.module_utils.channels_processes")
    monkeypatch.setattr(processes, "RUN", tmp_path)
    python = tmp_path / "python"
    python.write_text(PROGRAM.format(python="/usr/bin/python3", home=tmp_path))
    python.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def spawn() -> int:
        started.append(subprocess.Popen(["/bin/sleep", "60"]))
        return started[-1].pid

    yield Host(tmp_path, spawn)
    for process in started:
        process.kill()
        process.wait()


WEB = {"name": UNIT, "label": "app1:8001"}


def test_replaced_processes_drain_and_are_waited_for(host: Host) -> None:
    main, *_ = host.unit(UNIT, "retired", "retired")
    answer = host.run("drained", WEB, timeout=30)
    assert answer["changed"] is True
    assert answer["units"] == {UNIT: {"processes": [], "sockets": 0}}
    assert host.calls() == [f"drain {UNIT}"]
    assert answer["diff"]["after"] == "app1:8001: retired process drained\n"
    assert Path(f"/proc/{main}").exists(), "who listens goes on"
    again = host.run("drained", WEB, timeout=30)
    assert again["changed"] is False


def test_where_nothing_was_replaced_no_program_is_started(host: Host) -> None:
    host.unit(UNIT)
    answer = host.run("drained", WEB, {"name": OTHER}, timeout=30)
    assert answer["changed"] is False
    assert not (host.home / "calls").exists()


def test_what_drains_already_is_waited_for_and_not_told_again(host: Host) -> None:
    _, retired = host.unit(UNIT, "draining")
    os.kill(retired, 9)
    answer = host.run("drained", WEB, timeout=30)
    assert answer["changed"] is False
    assert host.calls() == []


def test_processes_without_sockets_may_end_alone(host: Host) -> None:
    _, idle, busy = host.unit(UNIT, "idle", "retired")
    host.unit(OTHER, "idle")
    answer = host.run("drained", WEB, {"name": OTHER}, idle_only=True, timeout=30)
    assert answer["busy"] == [UNIT]
    assert answer["units"][UNIT] == {"processes": [], "sockets": 0}
    assert f"drain {UNIT} --process={idle}" in host.calls()
    assert Path(f"/proc/{busy}/stat").read_text().split()[2] != "Z"
    assert host.run("drained", WEB, timeout=30)["busy"] == []


def test_sockets_that_are_left_are_counted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    _, retired = host.unit(UNIT, "retired", ends=False)
    answer = host.run("drained", WEB, timeout=2, fail_on_timeout=False)
    assert answer["units"] == {UNIT: {"processes": [retired], "sockets": 5}}
    late = host.run("drained", WEB, timeout=2)
    assert late["failed"] is True
    said = f"app1:8001 is not drained: process {retired} still has 5 sockets or requests"
    assert late["msg"] == said


def test_the_former_process_gets_its_port_back_and_the_new_one_drains(host: Host) -> None:
    """And no process of an earlier roll is touched."""
    new, earlier, former = host.unit(UNIT, "retired", "retired")
    answer = host.run("resumed", {**WEB, "process": former}, timeout=30)
    assert host.calls() == [
        f"resume {UNIT} --process={former}",
        f"drain {UNIT} --process={new}",
    ]
    assert (answer["changed"], answer["resumed"], answer["lost"]) == (True, [UNIT], [])
    assert answer["units"] == {UNIT: {"processes": [], "sockets": 0}}
    assert Path(f"/proc/{earlier}/stat").read_text().split()[2] != "Z"


@pytest.mark.parametrize("case", ["draining", "refused", "gone"])
def test_a_process_that_cannot_have_its_port_back_is_named(host: Host, case: str) -> None:
    refuses = ["resume"] if case == "refused" else []
    _, former = host.unit(UNIT, "draining" if case == "draining" else "retired", refuses=refuses)
    if case == "gone":
        os.kill(former, 9)
    answer = host.run("resumed", {**WEB, "process": former}, timeout=30)
    assert (answer["changed"], answer["resumed"], answer["lost"]) == (False, [], [UNIT])
    assert not [call for call in host.calls() if call.startswith("drain")]


@pytest.mark.parametrize("state", ["drained", "resumed"])
def test_a_dry_run_says_what_would_be_done(host: Host, state: str) -> None:
    _, former = host.unit(UNIT, "retired")
    answer = host.run(state, {**WEB, "process": former}, check=True, timeout=30)
    assert answer["changed"] is True
    assert host.calls() == []
