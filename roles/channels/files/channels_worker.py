"""Look at the application's units on a host, start and stop them, bring one to a revision.

What the action channels_worker runs there, with its arguments in JSON after it; prints JSON. It
asks systemd and the processes, and not files, what runs; so an interrupted run is completed by the
next one. The arguments:

units
    unit is its name; revision what its process must have been started with, in
    CHANNELS_KIT_REVISION, or empty where none shall run; url where a worker answers, without a
    path, and is asked whether it is ready; connected_to, for one that answers nobody, the port of
    the server it takes its work from, to which it is connected when it is ready; replaced, a
    process that shall run no longer although its revision is right.
step
    look changes nothing, and asks those that run whether they are ready. start enables all units,
    starts at once those that do not run, and waits until each is ready. roll restarts those of
    which the right process does not run, and watches them. watch looks for some time, returns early
    where all are stopped, or all are ready that people are connected to (of background units alone,
    all), and fails where the process of one has ended by itself. stop stops all at once, so that
    nobody who leaves one comes to the next, and watches them; retire does so and disables them.
timeout
    Seconds to wait for readiness, at start; to look at most, otherwise.
beside
    Units that a roll or a watch looks at, too; neither touched nor waited for.
proof
    A command that ends with 0 where messages arrive. A roll or a watch that ends with all ready
    runs it at once.
check
    Touch nothing, and tell what would be changed.

The answer:

changed, diff
    As Ansible shows them.
units
    By name: whether it runs (active), whether it does with the right process (right) or with
    another one (outdated), the revision of its process, its process, its unit file and what stands
    there; after a look, whether it is ready, with whatever process; and, once watched, its phase
    (draining, stopping, stopped, starting, ready, failed), the sockets it has and what it says.
proof
    Where it was run: its exit code (rc), what it printed (output) and the seconds it took.
failed, msg
    What went wrong, with the end of the unit's journal.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

INTERVAL = 0.05
"""Seconds between two looks."""

STEPS = ("look", "start", "roll", "watch", "stop", "retire")

PATIENCE = 10.0
"""Seconds that one question may take."""


class FailedError(Exception):
    """Something went wrong: the message tells what."""


def run(*command: str) -> tuple[int, str, str]:
    """Run a command and return its exit code and what it printed."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise FailedError(f"{command[0]}: {error.strerror}") from error
    return done.returncode, done.stdout, done.stderr


def running_revision(process: str) -> str:
    """Return the revision that a process was started with; empty if it has none or is gone."""
    try:
        environment = Path("/proc", process, "environ").read_bytes()
    except OSError:
        return ""
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"CHANNELS_KIT_REVISION":
            return value.decode()
    return ""


def ask(url: str, path: str) -> tuple[int, str]:
    """Return a worker's status and answer; 0 and the reason where it gives none."""
    where = urlsplit(url)
    # Never by way of a proxy: the worker is on this host.
    connection = HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:  # the latter: not a worker's answer
        return 0, str(error)
    finally:
        connection.close()


def is_connected(process: str, port: int) -> bool:
    """Return whether a process holds a TCP connection to a port of another one."""
    held = set()
    tables = []
    with contextlib.suppress(OSError):  # it has gone meanwhile
        for file in Path("/proc", process, "fd").iterdir():
            with contextlib.suppress(OSError):  # this one has been closed
                held.add(str(file.readlink()))
        tables = [Path("/proc", process, "net", name).read_text() for name in ("tcp", "tcp6")]
    for line in (line.split() for table in tables for line in table.splitlines()[1:]):
        # proc_pid_net(5): remote address, state (01: established), inode.
        remote, state, inode = line[2], line[3], line[9]
        if state == "01" and int(remote[-4:], 16) == port and f"socket:[{inode}]" in held:
            return True
    return False


class Unit:
    """One unit, and what runs there."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.name: str = wanted["unit"]
        self.wanted: str = wanted["revision"]
        self.url: str | None = wanted.get("url")
        self.connected_to = int(wanted.get("connected_to", 0))
        self.replaced: str = wanted.get("replaced", "0")
        self.ready = False
        self.phase = ""
        self.sockets = 0
        self.answer = ""
        self.read()

    def read(self) -> None:
        """Ask systemd and the process."""
        properties = "MainPID,ActiveState,UnitFileState,NRestarts,FragmentPath,NeedDaemonReload"
        shown = self.systemctl("show", f"--property={properties}", self.name)
        state = dict(line.split("=", 1) for line in shown.splitlines())
        self.process = state["MainPID"]
        self.state = state["ActiveState"]
        # One whose start is under way, too: systemd would join a second start to the first.
        self.active = self.state in ("active", "activating", "reloading")
        # One that is about to start again by itself, too.
        self.runs = self.state not in ("inactive", "failed")
        self.enabled = state["UnitFileState"] == "enabled"
        self.restarts = int(state.get("NRestarts") or 0)
        self.path = state["FragmentPath"]
        # systemd has read its file, if at all, before that was written.
        self.stale = state["NeedDaemonReload"] == "yes" or not self.path
        # What the process that runs was started with; empty where none runs.
        self.revision = running_revision(self.process) if self.process != "0" else ""
        wanted = self.revision == self.wanted and self.process != self.replaced
        self.right = self.active and wanted
        self.outdated = self.active and not wanted

    def look(self, fresh: bool) -> None:
        """Find out how far it is; one that is fresh has failed if it was started again."""
        self.read()
        self.sockets = 0
        if self.state == "active" and not self.outdated:
            ready, self.answer = self.readiness()
            self.phase = "ready" if ready else "starting"
        elif self.state == "deactivating" or (self.outdated and self.revision):
            status, body = ask(self.url, "/-/live") if self.url else (0, "")
            self.phase = "stopping"
            with contextlib.suppress(ValueError, KeyError):
                live = json.loads(body) if status == 200 else {}
                if live["draining"]:
                    self.phase = "draining"
                    self.sockets = live["sockets"]
        else:
            self.phase = "starting" if self.runs else "stopped"
            self.answer = f"it is {self.state}"
        if fresh and self.restarts and self.phase in ("starting", "ready"):
            self.phase = "failed"
            self.answer = "its process has ended by itself"

    def told(self) -> dict[str, Any]:
        """Return what is known of it."""
        state = ("active", "right", "outdated", "ready", "revision", "process", "path")
        told = {name: getattr(self, name) for name in (*state, "phase", "sockets", "answer")}
        with contextlib.suppress(OSError):  # there is none yet
            told["content"] = Path(self.path).read_text() if self.path else ""
        return told

    def fail(self, what: str) -> None:
        """Fail with the end of the unit's journal."""
        journalctl = ["journalctl", "--no-pager", "--lines=40", "--output=cat", "--unit", self.name]
        _, journal, _ = run(*journalctl)
        raise FailedError(f"{what}\nIts journal ends with:\n{journal}")

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl and return what it printed."""
        code, out, err = run("systemctl", *arguments)
        if code:
            self.fail(f"{self.name}: systemctl {arguments[0]} failed: {err.strip()}")
        return out

    def readiness(self) -> tuple[bool, str]:
        """Return whether it is ready, and what says so."""
        if self.url:
            status, answer = ask(self.url, "/-/ready")
            return status == 200, f"{self.url}/-/ready says: {status or ''} {answer}"
        return (
            is_connected(self.process, self.connected_to),
            f"its process, {self.process}, has no connection to port {self.connected_to}",
        )

    def wait_until_ready(self, seconds: int, fresh: bool) -> None:
        """Wait until it is ready; fail with what it says instead."""
        deadline = time.monotonic() + seconds
        self.look(fresh)
        while self.phase not in ("ready", "failed") and time.monotonic() < deadline:
            time.sleep(INTERVAL)
            self.look(fresh)
        if self.phase != "ready":
            self.fail(f"{self.name} is not ready; {self.answer}")


def act(
    units: list[dict[str, Any]],
    step: str,
    timeout: int = 0,
    beside: Sequence[dict[str, Any]] = (),
    proof: Sequence[str] = (),
    check: bool = False,
) -> dict[str, Any]:
    """Take a step, and return the answer.

    Raises:
        FailedError: systemd refuses, or a unit is not ready, or there is no such step.
    """
    if step not in STEPS:
        raise FailedError(f"{step!r} is no step; there are {', '.join(STEPS)}")
    every = [Unit(wanted) for wanted in units]
    others = [Unit(wanted) for wanted in beside]
    result: dict[str, Any] = {}

    if step == "look":
        for unit in every:
            if unit.active:
                unit.ready, unit.answer = unit.readiness()
    enable = [unit for unit in every if step == "start" and not unit.enabled]
    start = [unit for unit in every if step == "start" and not unit.active]
    restart = [unit for unit in every if step == "roll" and not unit.right]
    stop = [unit for unit in every if step in ("stop", "retire") and unit.runs]
    disable = [unit for unit in every if step == "retire" and unit.enabled]
    touched = [unit for unit in every if unit in enable + start + restart + stop + disable]
    result["changed"] = bool(touched)
    result["diff"] = {
        "before": "".join(f"{unit.name}: {unit.revision or 'not running'}\n" for unit in touched),
        "after": "".join(f"{unit.name}: {unit.wanted or 'stopped'}\n" for unit in touched),
    }
    if not check:
        if any(unit.stale for unit in touched):
            touched[0].systemctl("daemon-reload")
        if enable:
            enable[0].systemctl("enable", *(unit.name for unit in enable))
        if start:
            count_anew(start)
            start[0].systemctl("start", *(unit.name for unit in start))
        if restart:
            restart[0].systemctl("restart", "--no-block", *(unit.name for unit in restart))
            count_anew(restart)
        if disable:
            disable[0].systemctl("disable", *(unit.name for unit in disable))
        if stop:
            stop[0].systemctl("stop", "--no-block", *(unit.name for unit in stop))
        if step == "start":
            # Those that a run before this one has started and not waited for, too.
            for unit in every:
                if unit in start or not unit.outdated:
                    unit.wait_until_ready(timeout, unit in start)
        if step == "watch" or (step in ("roll", "stop", "retire") and timeout):
            ready = watch(every, others, timeout)
            for unit in every + others:
                if unit.phase == "failed":
                    unit.fail(f"{unit.name} is not ready; {unit.answer}")
            if ready and proof:
                began = time.monotonic()
                code, out, err = run(*proof)
                took = time.monotonic() - began
                result["proof"] = {"rc": code, "output": out or err, "seconds": took}
    result["units"] = {unit.name: unit.told() for unit in every + others}
    return result


def count_anew(units: list[Unit]) -> None:
    """Have systemd forget how often it has started units again by itself.

    It does so when somebody starts one, but not where it was about to do that itself: where the
    process ends again and again, and now the release comes that mends it.
    """
    counted = [unit for unit in units if unit.restarts]
    if counted:
        counted[0].systemctl("reset-failed", *(unit.name for unit in counted))


def watch(units: list[Unit], beside: list[Unit], seconds: int) -> bool:
    """Look until all are stopped, or ready; until one has failed, or the time is up.

    Nobody is connected to those without a URL: beside one that has one they are not waited for.

    Returns:
        Whether those that are waited for are ready.
    """
    deadline = time.monotonic() + seconds
    awaited = [unit for unit in units if unit.url] or units
    while True:
        for unit in units + beside:
            unit.look(fresh=True)
        ready = {unit.phase for unit in awaited} == {"ready"}
        phases = {unit.phase for unit in units + beside}
        if ready or phases == {"stopped"} or "failed" in phases or time.monotonic() >= deadline:
            return ready
        time.sleep(INTERVAL)


def main(arguments: str) -> int:
    """Act on arguments in JSON, and print the answer."""
    try:
        answer = act(**json.loads(arguments))
    except FailedError as error:
        answer = {"failed": True, "msg": str(error)}
    print(json.dumps(answer))
    return 1 if "failed" in answer else 0
