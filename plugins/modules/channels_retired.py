#!/usr/bin/python
"""Ansible module: drain and bring back worker processes that a reload has replaced."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_retired
short_description: Drain or bring back worker processes that a reload has replaced
description:
  - A reload starts a new process beside that of a worker. The former one is retired then. It does
    not listen, and serves the sockets that it has until it is told to drain.
options:
  state:
    description:
      - V(drained) has retired processes close their sockets and end, and waits for it.
      - V(resumed) gives the port back to the C(process) of each unit, and has the process drain
        that took it over. Nobody who was connected before is closed. Waits until it has ended.
    type: str
    choices: [drained, resumed]
    required: true
  units:
    description: The workers' units.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit in systemd, such as V(channels-web@8001.service).
        type: str
        required: true
      label:
        description: Name of the unit in messages, such as V(app1:8001). Default is the name.
        type: str
      process:
        description: With O(state=resumed), ID of the process that gets the port back.
        type: int
        default: 0
  release:
    description: Path of the release whose kit commands the processes.
    type: path
    required: true
  idle_only:
    description: With O(state=drained), whether only processes without sockets and requests end.
    type: bool
    default: false
  timeout:
    description: Seconds to wait until the processes have ended. V(0) does not wait.
    type: float
    default: 0
  fail_on_timeout:
    description:
      - Whether the module fails if a process has not ended within O(timeout).
      - Set it to V(false) to check again later.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Channels Kit
"""

EXAMPLES = r"""
- name: Close the sockets of the processes that a deploy has replaced
  channels_retired:
    state: drained
    release: /srv/channels/releases/0123456789ab
    timeout: 450
    units:
      - name: channels-web@8001.service
        label: app1:8001
"""

RETURN = r"""
units:
  description: The retired processes that are left, by unit.
  returned: always
  type: dict
  contains:
    processes:
      description: Their IDs.
      type: list
      elements: int
    sockets:
      description: Number of sockets and requests that they have.
      type: int
busy:
  description: With O(idle_only), names of the units with a process that has sockets or requests.
  returned: always
  type: list
  elements: str
resumed:
  description: Names of the units whose former process has the port again.
  returned: always
  type: list
  elements: str
lost:
  description: >-
    With O(state=resumed), names of the units whose former process cannot get the port back. They
    have to be restarted.
  returned: always
  type: list
  elements: str
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.channels_processes import is_there, processes_of

INTERVAL = 0.1
"""Seconds between two looks whether a process has ended."""

RETIRED, DRAINING = "retired", "draining"

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["drained", "resumed"], "required": True},
    "units": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "label": {"type": "str"},
            "process": {"type": "int", "default": 0},
        },
    },
    "release": {"type": "path", "required": True},
    "idle_only": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 0.0},
    "fail_on_timeout": {"type": "bool", "default": True},
}

Found = list[dict[str, Any]]


class Host:
    """The processes of the host's workers."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.release = module.params["release"]

    def command(self, verb: str, unit: str, process: int = 0) -> tuple[int, str, str]:
        """Run a command of channels_kit.serving.retired."""
        code, out, err = self.module.run_command(
            [
                *(f"{self.release}/python", "-S", "-m", "channels_kit.serving.retired", verb, unit),
                *([f"--process={process}"] if process else []),
            ],
            environ_update={"PYTHONPATH": f"{self.release}/kit"},
            cwd="/",
            expand_user_and_vars=False,
            errors="replace",
        )
        return int(code), str(out), str(err)

    def retired(self, unit: str) -> Found:
        """Return the retired processes of a unit."""
        # One process is the main one: no program needs to be started to know that.
        if len(processes_of(unit)) < 2:
            return []
        code, out, err = self.command("list", unit)
        if code:
            self.module.fail_json(msg=f"{unit}: {err.strip() or out.strip()}")
        found: Found = json.loads(out)
        return found

    def main(self, unit: str) -> int:
        """Return the process of a unit that listens; 0 where none does."""
        code, out, _ = self.command("main", unit)
        return int(json.loads(out)["pid"]) if code == 0 else 0

    def drain(self, unit: Mapping[str, Any], process: int = 0) -> None:
        """Have the retired processes of a unit drain, or one of them."""
        code, out, err = self.command("drain", unit["name"], process)
        # 3: it has ended meanwhile.
        if code not in (0, 3):
            said = err.strip() or out.strip()
            self.module.fail_json(msg=f"{unit['label']} cannot be drained: {said}")


def in_hand(process: Mapping[str, Any]) -> int:
    """Return what a drain of a process waits for."""
    return int(process["sockets"]) + int(process["requests"])


def wait(processes: Mapping[str, list[int]], timeout: float) -> None:
    """Wait until processes have ended, or the time is up."""
    deadline = time.monotonic() + timeout
    left = {process for each in processes.values() for process in each}
    while left and time.monotonic() < deadline:
        time.sleep(INTERVAL)
        left = {process for process in left if is_there(process)}


def bring_back(host: Host, unit: Mapping[str, Any], check: bool) -> list[int] | None:
    """Give a process its port back; return what drains then, None where it cannot be done."""
    wanted = [each["pid"] for each in host.retired(unit["name"]) if each["state"] == RETIRED]
    if unit["process"] not in wanted:
        return None
    if check:
        return []
    following = host.main(unit["name"])
    code, _, _ = host.command("resume", unit["name"], unit["process"])
    if code:
        return None
    if not following:
        return []
    host.drain(unit, following)
    return [following]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    host = Host(module)
    units = [{**unit, "label": unit["label"] or unit["name"]} for unit in module.params["units"]]
    labels = {unit["name"]: unit["label"] for unit in units}
    draining: dict[str, list[int]] = {}
    resumed, lost, changed, busy = [], [], [], []
    for unit in units:
        if module.params["state"] == "resumed":
            found = bring_back(host, unit, module.check_mode)
            if found is None:
                lost.append(unit["name"])
                continue
            resumed.append(unit["name"])
            changed.append(unit["label"])
            draining[unit["name"]] = found
            continue
        left = host.retired(unit["name"])
        chosen = [each for each in left if not (module.params["idle_only"] and in_hand(each))]
        if len(chosen) < len(left):
            busy.append(unit["name"])
        draining[unit["name"]] = [each["pid"] for each in chosen]
        if told := [each["pid"] for each in chosen if each["state"] == RETIRED]:
            changed.append(unit["label"])
            if not module.check_mode:
                # Each by itself where another one shall not be told.
                for process in told if len(chosen) < len(left) else [0]:
                    host.drain(unit, process)
    if not module.check_mode:
        wait(draining, module.params["timeout"])
    units_left: dict[str, dict[str, Any]] = {}
    for name, processes in draining.items():
        left = [each for each in host.retired(name) if each["pid"] in processes]
        units_left[name] = {
            "processes": [each["pid"] for each in left],
            "sockets": sum(map(in_hand, left)),
        }
    late = [name for name, each in units_left.items() if each["processes"]]
    waited = module.params["timeout"] and not module.check_mode
    if late and waited and module.params["fail_on_timeout"]:
        last = units_left[late[0]]
        module.fail_json(
            msg=f"{labels[late[0]]} is not drained: process {last['processes'][0]} still has"
            f" {last['sockets']} sockets or requests",
            units=units_left,
        )
    verb = "retired process drained" if module.params["state"] == "drained" else "put back"
    module.exit_json(
        changed=bool(changed),
        units=units_left,
        busy=busy,
        resumed=resumed,
        lost=lost,
        diff={"before": "", "after": "".join(f"{label}: {verb}\n" for label in changed)},
    )


if __name__ == "__main__":
    main()
