"""Ansible module: run the application's units on a revision."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_worker
short_description: Run the application's units on a revision
description:
  - Enables units, starts at once all that do not run, restarts one after the other those whose
    process was started with another revision, and waits until each is ready. Asks the processes
    and not files, so an interrupted run is completed by the next one.
options:
  units:
    description: >-
      The units. unit is its name; revision what its process must have been started with, in
      C(CHANNELS_KIT_REVISION); url where a worker answers, without a path, and is asked whether it
      is ready; connected_to, for one that answers nobody, the port of the server it takes its work
      from, to which it is connected when it is ready.
    type: list
    elements: dict
    required: true
  timeout:
    description: Seconds to wait until a unit is ready.
    type: int
    required: true
  restart:
    description: Whether a unit that runs on another revision is restarted.
    type: bool
    default: true
"""

RETURN = r"""
outdated:
  description: The units that run on another revision, where restart is false.
  type: list
  elements: str
  returned: always
"""

import contextlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


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


def readiness(url: str) -> tuple[bool, str]:
    """Return whether the worker says that it is ready, and what it said."""
    try:
        # Never by way of a proxy: the worker is on this host.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/-/ready", timeout=10) as response:
            return response.status == 200, response.read().decode()
    except urllib.error.HTTPError as error:
        return False, f"{error.code} {error.read().decode()}"
    except (OSError, http.client.HTTPException) as error:  # the latter: not a worker's answer
        return False, str(error)


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

    def __init__(self, module: AnsibleModule, wanted: dict[str, Any]) -> None:
        self.module = module
        self.name: str = wanted["unit"]
        self.wanted: str = wanted["revision"]
        self.url: str | None = wanted.get("url")
        self.connected_to = int(wanted.get("connected_to", 0))
        state = self.state()
        # One whose start is under way, too: systemd would join a second start to the first.
        self.active = state["ActiveState"] in ("active", "activating")
        self.enabled = state["UnitFileState"] == "enabled"
        # What the process that runs was started with; empty where none runs.
        self.revision = running_revision(state["MainPID"]) if self.active else ""

    def state(self) -> dict[str, str]:
        """Return what systemd knows of it."""
        shown = self.systemctl("show", "--property=MainPID,ActiveState,UnitFileState", self.name)
        return dict(line.split("=", 1) for line in shown.splitlines())

    def fail(self, what: str) -> None:
        """Fail with the end of the unit's journal."""
        journalctl = ["journalctl", "--no-pager", "--lines=40", "--output=cat", "--unit", self.name]
        _, journal, _ = self.module.run_command(journalctl)
        self.module.fail_json(msg=f"{what}\nIts journal ends with:\n{journal}")

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl and return what it printed."""
        code, out, err = self.module.run_command(["systemctl", *arguments])
        if code:
            self.fail(f"{self.name}: systemctl {arguments[0]} failed: {err.strip()}")
        return str(out)

    def readiness(self) -> tuple[bool, str]:
        """Return whether it is ready, and what says so."""
        if self.url:
            ready, answer = readiness(self.url)
            return ready, f"{self.url}/-/ready says: {answer}"
        process = self.state()["MainPID"]
        return (
            is_connected(process, self.connected_to),
            f"its process, {process}, has no connection to port {self.connected_to}",
        )

    def wait_until_ready(self, seconds: int) -> None:
        """Wait until it is ready; fail with what it says instead."""
        deadline = time.monotonic() + seconds
        ready, answer = self.readiness()
        while not ready and time.monotonic() < deadline:
            time.sleep(0.2)
            ready, answer = self.readiness()
        if not ready:
            self.fail(f"{self.name} is not ready after {seconds} s; {answer}")


def main() -> None:
    """Act on the module's arguments."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True},
            "timeout": {"type": "int", "required": True},
            "restart": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    seconds: int = module.params["timeout"]
    units = [Unit(module, wanted) for wanted in module.params["units"]]

    enable = [unit for unit in units if not unit.enabled]
    start = [unit for unit in units if not unit.active]
    outdated = [unit for unit in units if unit.active and unit.revision != unit.wanted]
    restart = outdated if module.params["restart"] else []
    touched = [unit for unit in units if unit in enable + start + restart]
    result: dict[str, Any] = {
        "changed": bool(touched),
        "started": [unit.name for unit in start],
        "restarted": [unit.name for unit in restart],
        "outdated": [unit.name for unit in outdated if unit not in restart],
        "diff": {
            "before": "".join(
                f"{unit.name}: {unit.revision or 'not running'}\n" for unit in touched
            ),
            "after": "".join(f"{unit.name}: {unit.wanted}\n" for unit in touched),
        },
    }
    if module.check_mode:
        module.exit_json(**result)

    if touched:
        touched[0].systemctl("daemon-reload")
    if enable:
        enable[0].systemctl("enable", *(unit.name for unit in enable))
    if start:
        start[0].systemctl("start", *(unit.name for unit in start))
    for unit in restart:
        unit.systemctl("restart", unit.name)
        unit.wait_until_ready(seconds)
    # Those that a run before this one has touched and not waited for, too.
    for unit in units:
        if unit in start or unit.revision == unit.wanted:
            unit.wait_until_ready(seconds)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
