#!/usr/bin/python
"""Ansible module: start, restart, watch, stop and list the application's units on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_units
short_description: Start, restart, watch, stop and list the application's units
description:
  - Brings the systemd units of the application on a host to a state, and waits for it.
  - Reads the state from systemd and the running processes, not from files. So it also completes an
    interrupted run.
  - A worker is ready when it answers V(200) to C(/-/ready). A background unit
    is ready when its process is connected to the server that it takes its work from.
options:
  state:
    description:
      - V(gathered) returns the state of the units, and whether each is ready. Changes nothing,
        except with O(daemon_reload).
      - V(listed) returns the units of this host that match O(patterns) and are not in O(units).
        Changes nothing.
      - V(started) enables all units and starts those that do not run. Waits until each is ready,
        except units that ran before with another revision.
      - V(restarted) restarts the units that do not run the right process.
      - V(reloaded) starts a new process beside that of each worker that does not run the right one.
        The new one takes the port over when it is ready, and the former one keeps its sockets until
        M(channels_retired) drains it. Background units are restarted.
      - V(watched) waits until the units are ready, and until units without a revision are stopped.
        Changes nothing.
      - V(stopped) stops all units at once, so that clients do not reconnect to a worker that stops
        next.
      - V(removed) also disables them.
    type: str
    choices: [gathered, listed, started, restarted, reloaded, watched, stopped, removed]
    required: true
  units:
    description: The units.
    type: list
    elements: dict
    default: []
    suboptions: &unit
      name:
        description: Name of the unit in systemd, such as V(channels-web@8001.service).
        type: str
        required: true
      label:
        description: Name of the unit in messages, such as V(app1:8001). Default is the name.
        type: str
      revision:
        description:
          - Value of E(CHANNELS_KIT_REVISION) with which its process must have started.
          - Empty if no process shall run.
        type: str
        default: ""
      url:
        description: URL of a worker, without a path. A unit without a URL is a background unit.
        type: str
      connected_to:
        description:
          - For a background unit, ports of servers. It is ready when it is connected to one.
          - Without ports it is ready when its process has run for 3 s.
        type: list
        elements: int
        default: []
      replaced_process:
        description: ID of a process to replace although its revision is right.
        type: int
        default: 0
  beside:
    description:
      - Further units to observe. The module does not touch them or wait for them, but fails if one
        of their processes exits.
    type: list
    elements: dict
    default: []
    suboptions: *unit
  patterns:
    description: With O(state=listed), patterns of unit names for systemctl.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds to wait. With V(0), O(state=started) and O(state=watched) check once; other states
        do not wait.
      - If O(units) include a worker, the module does not wait for background units, except with
        O(state=started).
    type: float
    default: 0
  fail_on_timeout:
    description:
      - Whether the module fails if the units do not reach the state within O(timeout).
      - Set it to V(false) to check again later.
    type: bool
    default: true
  fail_on_exit:
    description:
      - Whether it is a failure if a new process exits.
      - Set it to V(false) during an outage. systemd starts the process again.
    type: bool
    default: true
  hold:
    description:
      - With O(state=watched), seconds for which the units must stay ready. They must be ready at
        the start. Fails as soon as one is not.
    type: float
    default: 0
  reloaded:
    description:
      - With O(state=watched), whether the workers get their new process beside the former one. That
        the former one runs until then is no drain.
    type: bool
    default: false
  daemon_reload:
    description:
      - With O(state=gathered), whether systemd first reads unit files and drop-ins that have
        changed since it read them.
      - In check mode it does not. The limits that the units would then have are not known.
    type: bool
    default: false
  proof:
    description:
      - A command that exits with 0 if the workers are proved. With O(state=restarted),
        O(state=reloaded) and O(state=watched) it runs when the units are ready. Its result does not
        fail the module.
      - With O(hold) it runs while the units are watched, and is waited for.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Channels Kit
"""

EXAMPLES = r"""
- name: Start a worker and a background unit, and wait until both are ready
  channels_units:
    state: started
    timeout: 60
    units:
      - name: channels-web@8001.service
        label: app1:8001
        url: http://10.0.0.10:8001
        revision: 0123456789ab-01234567
      - name: channels-process-thumbnails.service
        connected_to: [6379]
        revision: 0123456789ab-89abcdef

- name: List units that are not in the inventory
  channels_units:
    state: listed
    patterns: ["channels-web@*", "channels-process-*"]
    units: "{{ wanted }}"
  register: listing

- name: Stop and disable these units
  channels_units:
    state: removed
    units: "{{ listing.surplus }}"
    timeout: 300
"""

RETURN = r"""
units:
  description: State of each unit, by name.
  returned: always, except with O(state=listed)
  type: dict
  contains:
    active:
      description: Whether a process runs or is being started.
      type: bool
    enabled:
      description: Whether it starts at boot.
      type: bool
    up_to_date:
      description: Whether the right process runs.
      type: bool
    outdated:
      description: Whether a process runs that is not the right one.
      type: bool
    ready:
      description: >-
        Whether the running process is ready, even if it is outdated. With O(state=gathered).
      type: bool
    revision:
      description: Revision of its process; empty if none runs.
      type: str
    process:
      description: ID of its main process; 0 if none runs.
      type: int
    path:
      description: Path of its unit file; empty if there is none.
      type: str
    content:
      description: Content of the unit file.
      returned: if there is one
      type: str
    phase:
      description: >-
        Its phase after the wait: V(draining), V(stopping), V(stopped), V(starting), V(ready) or
        V(failed).
      type: str
    left:
      description: >-
        With O(state=reloaded), whether its process cannot be replaced and has to be restarted.
      type: bool
    replaceable:
      description: Whether a new process can be started beside its process.
      type: bool
    retired:
      description: IDs of its processes that a reload has replaced and that still run.
      type: list
      elements: int
    memory:
      description: Bytes of memory that its main process alone uses. With O(state=gathered).
      type: int
    memory_left:
      description: Bytes that the unit may still take; null if it has no limit.
      type: int
    nofile_stale:
      description: >-
        Whether a new process would get another hard open-file limit from systemd than the main
        process has. False for a process that systemd started with what it knows now: then the
        process itself has changed its limit. With O(state=gathered).
      type: bool
    sockets:
      description: Number of sockets that it still has while it drains.
      type: int
    reason:
      description: Why it is not ready.
      type: str
memory_available:
  description: Bytes of memory that the host can give to new processes.
  returned: with O(state=gathered)
  type: int
surplus:
  description: Units of the host that are not in O(units), in the format of O(units).
  returned: with O(state=listed)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the unit in systemd.
      type: str
unit_files:
  description: Names of the unit files that match the patterns, including templates.
  returned: with O(state=listed)
  type: list
  elements: str
proof:
  description: Result of the proof.
  returned: if it ran
  type: dict
  contains:
    rc:
      description: Exit status.
      type: int
    output:
      description: Output.
      type: str
    seconds:
      description: Duration in seconds.
      type: float
failure:
  description: The failure.
  returned: if a unit failed
  type: dict
  contains:
    unit:
      description: The unit.
      type: str
    label:
      description: Name of the unit in messages.
      type: str
    what:
      description: The kind of failure, such as V(failed) or V(is not ready).
      type: str
    reason:
      description: The reason, such as V(exited with status 3).
      type: str
    journal:
      description: The last journal lines of the unit.
      type: str
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.channels_processes import (
    can_be_replaced,
    is_there,
    memory_available,
    memory_of,
    others_of,
)
from ansible.module_utils.channels_units import (
    PROPERTIES,
    SETTLED_SECONDS,
    SHOW_INTERVAL,
    STOPS,
    UNIT_OPTIONS,
    Phase,
    Plan,
    Progress,
    State,
    Status,
    Unit,
    Watch,
    is_outdated,
    is_up_to_date,
    parse_names,
    parse_show,
    plan,
)
from ansible.module_utils.systemd_units import read_nofile, read_proc

RESTART_PATIENCE = 5.0
"""Seconds that systemd may take to start a process again; RestartSec= of the units is 1 s."""

READY_PATIENCE = 10.0
"""Seconds that a worker may take to say whether it is ready."""

LIVE_PATIENCE = 2.0
"""Seconds that a worker may take to say how many sockets it has."""

JOURNAL_LINES = 40

LOOKS = (State.STARTED, State.WATCHED)
"""The states that look at the units once even without a timeout."""

PROVED = (State.RESTARTED, State.RELOADED, State.WATCHED)
"""The states that a proof is run for."""

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": [each.value for each in State], "required": True},
    "units": {"type": "list", "elements": "dict", "default": [], "options": UNIT_OPTIONS},
    "beside": {"type": "list", "elements": "dict", "default": [], "options": UNIT_OPTIONS},
    "patterns": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 0.0},
    "fail_on_timeout": {"type": "bool", "default": True},
    "fail_on_exit": {"type": "bool", "default": True},
    "hold": {"type": "float", "default": 0.0},
    "reloaded": {"type": "bool", "default": False},
    "daemon_reload": {"type": "bool", "default": False},
    "proof": {"type": "list", "elements": "str", "default": []},
}


class Host:
    """The host: systemd, /proc and the workers."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        # Whether a long proof runs. Its sockets are silent, and so must be the channel layer: each
        # question to /-/ready sends a message, which ends the waiting that a time-out would end.
        self.is_silent = False

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a command and return its exit status and what it printed."""
        code, out, err = self.module.run_command(
            list(command), expand_user_and_vars=False, errors="replace"
        )
        return int(code), str(out), str(err)

    def systemctl(self, verb: str, *arguments: str, unit: Unit | None = None) -> str:
        """Run systemctl and return what it printed; fail where it refuses."""
        code, out, err = self.run("systemctl", verb, *arguments)
        # Of list-unit-files, 1 without a word says that no file fits the patterns.
        if code and not (verb == "list-unit-files" and not out + err):
            said = f"systemctl {verb}: {err.strip()}"
            if unit is None:
                self.module.fail_json(msg=said)
            self.fail(unit, "failed", said)
        return out

    def statuses(self, units: Iterable[Unit]) -> dict[str, Status]:
        """Ask systemd for all units by one call, and the processes for their revisions."""
        names = [unit.name for unit in units]
        if not names:
            return {}
        shown = parse_show(
            self.systemctl("show", f"--property={','.join(PROPERTIES)}", *names),
        )
        return {name: self.with_revision(Status.from_properties(shown[name])) for name in names}

    def with_revision(self, status: Status) -> Status:
        """Return the status with the revision of its process."""
        revision = running_revision(status.process) if status.process else ""
        return status.with_revision(revision)

    def nofile_is_stale(self, status: Status) -> bool:
        """Return whether a new process of a unit would get another limit of open files.

        If systemd started the process with the settings that it knows now, the limit was changed in
        the process itself. A new process would do the same: each run would replace it again.
        """
        limits = read_proc(status.process, "limits") if status.process else ""
        if not limits or not read_nofile(limits).is_stale(status.nofile):
            return False
        name = "UnitsLoadTimestampMonotonic"
        read = self.systemctl("show", f"--property={name}").strip().removeprefix(f"{name}=")
        return not read.isdecimal() or status.started < int(read)

    def readiness(self, unit: Unit, process: int) -> tuple[bool, str]:
        """Return whether a unit is ready, and what says so."""
        if unit.url:
            path = "/-/live" if self.is_silent else "/-/ready"
            status, answer = ask(unit.url, path, READY_PATIENCE)
            said = f"answers {status}: {answer}" if status else f"does not answer: {answer}"
            return status == 200, f"{unit.url}{path} {said.strip()}"
        if not unit.connected_to:
            seconds = seconds_since_start(process)
            said = f"process {process} has run for {seconds:.1f} s of {SETTLED_SECONDS:g} s"
            return seconds >= SETTLED_SECONDS, said
        connected = any(is_connected(process, port) for port in unit.connected_to)
        ports = " or ".join(map(str, unit.connected_to))
        return connected, f"process {process} has no connection to port {ports}"

    def live(self, unit: Unit) -> Mapping[str, Any]:
        """Return what a worker says of its sockets; nothing where it does not."""
        status, answer = ask(unit.url, "/-/live", LIVE_PATIENCE)
        with contextlib.suppress(ValueError):
            found = json.loads(answer) if status == 200 else {}
            if isinstance(found, dict) and isinstance(found.get("sockets"), int):
                return found
        return {}

    def journal(self, unit: Unit) -> str:
        """Return the last lines of a unit's journal."""
        # What a process said last, before it exited, may still be on its way.
        self.run("journalctl", "--sync")
        _, journal, _ = self.run(
            *("journalctl", "--no-pager", f"--lines={JOURNAL_LINES}", "--output=cat"),
            *("--unit", unit.name),
        )
        return journal.rstrip()

    def fail(self, unit: Unit, what: str, reason: str) -> NoReturn:
        """Fail because of a unit, with the end of its journal."""
        journal = self.journal(unit)
        failure = {"unit": unit.name, "label": unit.label, "what": what, "reason": reason}
        self.module.fail_json(
            msg=f"{unit.label} {what}: {reason}\nLast journal lines of {unit.name}:\n{journal}",
            failure={**failure, "journal": journal},
        )
        raise AssertionError("fail_json returned")


def running_revision(process: int) -> str:
    """Return the revision that a process was started with; empty if it has none or is gone."""
    try:
        environment = Path("/proc", str(process), "environ").read_bytes()
    except OSError:
        return ""
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"CHANNELS_KIT_REVISION":
            return value.decode()
    return ""


def seconds_since_start(process: int) -> float:
    """Return how long a process has been running; 0 if it is gone."""
    try:
        stat = Path("/proc", str(process), "stat").read_text()
        uptime = Path("/proc/uptime").read_text()
    except OSError:
        return 0.0
    # proc_pid_stat(5): the time of its start is the 22nd field, in ticks since the boot.
    ticks = int(stat.rpartition(")")[2].split()[19])
    return max(0.0, float(uptime.split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))


def ask(url: str, path: str, patience: float) -> tuple[int, str]:
    """Return a worker's status and answer; 0 and the reason where it gives none."""
    where = urlsplit(url)
    # Never by way of a proxy: the worker is on this host.
    connection = HTTPConnection(where.hostname or "", where.port, timeout=patience)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, HTTPException) as error:  # the latter: not a worker's answer
        return 0, str(error)
    finally:
        connection.close()


def is_connected(process: int, port: int) -> bool:
    """Return whether a process holds a TCP connection to a port of another one."""
    directory = Path("/proc", str(process))
    held = set()
    tables = []
    with contextlib.suppress(OSError):  # it has gone meanwhile
        for file in (directory / "fd").iterdir():
            with contextlib.suppress(OSError):  # this one has been closed
                held.add(str(file.readlink()))
        tables = [(directory / "net" / name).read_text() for name in ("tcp", "tcp6")]
    for line in (line.split() for table in tables for line in table.splitlines()[1:]):
        # proc_pid_net(5): remote address, state (01: established), inode.
        remote, state, inode = line[2], line[3], line[9]
        if state == "01" and int(remote[-4:], 16) == port and f"socket:[{inode}]" in held:
            return True
    return False


def carry_out(host: Host, made: Plan, units: Mapping[str, Unit]) -> None:
    """Have systemd do what was planned; it does not wait for what takes time."""

    def call(verb: str, names: Sequence[str], *options: str) -> None:
        if names:
            host.systemctl(verb, *options, *names, unit=units[names[0]])

    if made.reload:
        touched = next(unit for name, unit in units.items() if name in made.touched)
        host.systemctl("daemon-reload", unit=touched)
    call("enable", made.enable)
    if not made.restart:
        call("reset-failed", [*made.reset, *made.recount])
    call("reload", made.replace, "--no-block")
    call("start", made.start, "--no-block")
    call("restart", made.restart, "--no-block")
    if made.restart:
        # A unit may end once more before systemd comes to its restart.
        call("reset-failed", [*made.reset, *made.recount])
    call("disable", made.disable)
    call("stop", made.stop, "--no-block")


def wait(host: Host, watch: Watch) -> None:
    """Ask what is due until the watch is over."""
    while True:
        now = time.monotonic()
        if watch.show_due(now):
            units = [each.unit for each in watch.progress.values()]
            watch.shown(host.statuses(units), now)
        for each in watch.ready_due(now):
            ready, said = host.readiness(each.unit, each.status.process)
            watch.heard_ready(each, ready, said, time.monotonic())
        for each in watch.live_due(now):
            watch.heard_live(each, host.live(each.unit), time.monotonic())
        now = time.monotonic()
        if watch.is_over(now):
            return
        time.sleep(watch.wake_at(now) - now)
        processes = watch.processes()
        ended = [name for name, process in processes.items() if not is_there(process)]
        watch.looked_at_processes(ended, time.monotonic())


def failure_of(watch: Watch, fail_on_timeout: bool) -> tuple[Progress, str] | None:
    """Return the unit that is to blame and what is wrong with it, if anything."""
    if watch.failed:
        return watch.failed, "failed"
    if watch.lost:
        return watch.lost, "is no longer ready"
    if watch.missing and fail_on_timeout:
        missing = watch.missing[0]
        return missing, f"is not {missing.wanted.value}"
    return None


def described(unit: Unit, status: Status, progress: Progress | None) -> dict[str, Any]:
    """Return what is known of a unit."""
    told: dict[str, Any] = {
        "active": status.active,
        "enabled": status.enabled,
        "up_to_date": is_up_to_date(unit, status),
        "outdated": is_outdated(unit, status),
        "ready": progress.phase == Phase.READY if progress else False,
        "revision": status.revision,
        "process": status.process,
        "path": status.path,
        "phase": progress.phase.value if progress else "",
        "sockets": progress.sockets if progress else 0,
        "reason": progress.reason if progress else "",
        "left": progress.is_left if progress else False,
        "replaceable": bool(unit.url) and can_be_replaced(unit.name, status.process),
        "retired": others_of(unit.name, status.process) if unit.url else [],
        "memory_left": status.memory_left,
    }
    with contextlib.suppress(OSError):  # there is none yet
        told["content"] = Path(status.path).read_text() if status.path else ""
    return told


def listing(host: Host, patterns: list[str], wanted: set[str]) -> dict[str, Any]:
    """Return the units and unit files that match patterns, of the former those not wanted."""
    if not patterns:
        return {"surplus": [], "unit_files": []}
    # Of the instances of a template, those that run and those that start with the host: systemd
    # has read both kinds.
    options = ("--plain", "--no-legend", "--full")
    loaded = parse_names(host.systemctl("list-units", "--all", *options, *patterns))
    files = parse_names(host.systemctl("list-unit-files", *options, *patterns))
    others = [Unit(name, name) for name in sorted({*loaded, *files} - wanted) if "@." not in name]
    statuses = host.statuses(others)
    # Apart from those that systemd only remembers because something mentions them.
    surplus = [
        {"name": name}
        for name, status in statuses.items()
        if status.enabled or status.active_state != "inactive"
    ]
    return {"surplus": surplus, "unit_files": sorted(files)}


def judged_units(state: State, made: Plan, fail_on_exit: bool) -> set[str] | None:
    """Return the units of which a process must not exit; None for all."""
    if not fail_on_exit:
        return set()
    # With a start, others may have ended long ago, and are as good as any now.
    return set(made.start) if state == State.STARTED else None


def bring(host: Host, state: State, parameters: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Bring units to a state, and return the answer."""
    every = [Unit.from_option(each) for each in parameters["units"]]
    others = [Unit.from_option(each) for each in parameters["beside"]]
    units = {unit.name: unit for unit in [*every, *others]}
    statuses = host.statuses(units.values())
    unread = [unit for unit in every if parameters["daemon_reload"] and statuses[unit.name].changed]
    if state == State.GATHERED:
        if unread and not check:
            host.systemctl("daemon-reload", unit=unread[0])
            statuses = host.statuses(units.values())
        statuses = settled(host, units.values(), statuses)
    made = plan(state, every, statuses)
    touched = [unit for unit in every if unit.name in made.touched]
    reloads = state == State.RELOADED or parameters["reloaded"]
    answer: dict[str, Any] = {
        "changed": bool(touched or unread),
        "diff": difference(state, touched, statuses) if touched or not unread else reading(unread),
    }
    watch = None
    if not check:
        carry_out(host, made, units)
        timeout = parameters["timeout"]
        if state in LOOKS or (timeout > 0 and state != State.GATHERED):
            watch = Watch(
                every,
                others,
                state=state,
                now=time.monotonic(),
                timeout=timeout,
                hold=parameters["hold"],
                fresh=judged_units(state, made, parameters["fail_on_exit"]),
                former={
                    name: statuses[name].last_process
                    for name in [*made.start, *made.restart, *made.replace]
                },
                reloaded=[unit.name for unit in every if unit.url] if reloads else [],
            )
            command = parameters["proof"] if state in PROVED else []
            beside = Proof(host, command) if command and parameters["hold"] else None
            host.is_silent = beside is not None
            wait(host, watch)
            host.is_silent = False
            if found := failure_of(watch, parameters["fail_on_timeout"]):
                if beside:
                    beside.stop()
                host.fail(found[0].unit, found[1], found[0].reason)
            if state == State.REMOVED:
                forget(host, watch)
            if command and watch.arrived:
                answer["proof"] = (beside or Proof(host, command)).result()
    answer["units"] = {
        name: described(unit, watch.progress[name].status, watch.progress[name])
        if watch
        else described(unit, statuses[name], None)
        for name, unit in units.items()
    }
    if state == State.GATHERED:
        for name, told in answer["units"].items():
            if told["active"]:
                ready, said = host.readiness(units[name], told["process"])
                told["ready"], told["reason"] = ready, "" if ready else said
                told["memory"] = memory_of(told["process"])
                told["nofile_stale"] = host.nofile_is_stale(statuses[name])
        answer["memory_available"] = memory_available()
    return answer


def settled(host: Host, units: Iterable[Unit], statuses: dict[str, Status]) -> dict[str, Status]:
    """Return the statuses when each unit that is active has a process with a revision.

    A process that has ended with a server, such as Redis, has none until systemd has started it
    again. It counted as outdated, and was restarted once more. One that does not come back in time
    still counts so.
    """
    deadline = time.monotonic() + RESTART_PATIENCE
    while time.monotonic() < deadline and any(
        status.active and not status.revision for status in statuses.values()
    ):
        time.sleep(SHOW_INTERVAL)
        statuses = host.statuses(units)
    return statuses


def forget(host: Host, watch: Watch) -> None:
    """Have systemd forget units that failed while they stopped, and are there no longer."""
    failed = [n for n, each in watch.progress.items() if each.status.active_state == "failed"]
    if failed:
        host.systemctl("reset-failed", *failed, unit=watch.progress[failed[0]].unit)


def difference(
    state: State, touched: Sequence[Unit], statuses: Mapping[str, Status]
) -> dict[str, str]:
    """Return what changes, as Ansible shows it."""
    before = [f"{unit.name}: {statuses[unit.name].revision or 'not running'}\n" for unit in touched]
    wanted = {unit.name: "" if state in STOPS else unit.revision for unit in touched}
    after = [f"{unit.name}: {wanted[unit.name] or 'stopped'}\n" for unit in touched]
    return {"before": "".join(before), "after": "".join(after)}


def reading(unread: Sequence[Unit]) -> dict[str, str]:
    """Return the difference, as Ansible shows it, if systemd only reads files of units again."""
    after = "read by systemd; a process with another open-file limit is replaced"
    return {
        "before": "".join(f"{unit.name}: changed since systemd read it\n" for unit in unread),
        "after": "".join(f"{unit.name}: {after}\n" for unit in unread),
    }


class Proof:
    """A proof that has been started."""

    def __init__(self, host: Host, command: Sequence[str]) -> None:
        self.began = time.monotonic()
        # Files: a pipe that nobody reads while the units are watched could fill up.
        self.out = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it has been read
        self.err = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err
            )
        except OSError as error:
            self.close()
            host.module.fail_json(msg=f"{command[0]} cannot be run: {error.strerror}")

    def result(self) -> dict[str, Any]:
        """Wait for it and return what it came to."""
        code = self.process.wait()
        seconds = time.monotonic() - self.began
        output = self.read(self.out) or self.read(self.err)
        self.close()
        return {"rc": code, "output": output, "seconds": seconds}

    def stop(self) -> None:
        """End it: what it would say is of no interest any more."""
        self.process.terminate()
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Close its files."""
        self.out.close()
        self.err.close()

    @staticmethod
    def read(file: IO[bytes]) -> str:
        """Return what a file holds."""
        file.seek(0)
        return file.read().decode(errors="replace")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    host = Host(module)
    state = State(module.params["state"])
    if state == State.LISTED:
        wanted = {unit["name"] for unit in module.params["units"]}
        answer = {"changed": False, **listing(host, module.params["patterns"], wanted)}
    else:
        answer = bring(host, state, module.params, module.check_mode)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
