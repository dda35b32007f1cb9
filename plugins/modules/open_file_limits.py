#!/usr/bin/python
"""Ansible module: read the open-file limits of running processes."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: open_file_limits
short_description: Read the open-file limits of running processes
description:
  - Reads the soft limit of open files of the main process of each running unit, and of each process
    with a given command line.
  - Reads the limits of processes, not of unit files. If systemd may not set a limit, it silently
    sets a lower one.
  - Changes nothing.
options:
  units:
    description: Names of units, or patterns of them.
    type: list
    elements: str
    default: []
  command_lines:
    description: Whole command lines. A process title, as nginx sets it, is a command line.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Reads the limits in check mode, too.
  diff_mode:
    support: none
    description: Has nothing to compare.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Limits | Read the open-file limits of every worker and of nginx
  open_file_limits:
    units: [channels-web@*.service]
    command_lines: ["nginx: worker process"]
  register: verify_limits
"""

RETURN = r"""
processes:
  description: The processes, ordered by unit, then by command line and process id.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The unit, or the command line and the process id.
      type: str
      sample: channels-web@8001.service
    nofile:
      description: The soft limit; V(-1) for no limit.
      type: int
      sample: 65536
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.channels_units import number, parse_show

LIMIT = re.compile(r"^Max open files +(\d+|unlimited)", re.M)
UNLIMITED = -1


def main_processes(shown: str) -> dict[str, int]:
    """Return the main process of each unit that has one, from the output of ``systemctl show``."""
    processes = {name: number(unit, "MainPID") for name, unit in parse_show(shown).items()}
    return {name: process for name, process in processes.items() if process}


def with_command_line(wanted: Iterable[str], proc: Path) -> Iterator[tuple[str, int]]:
    """Yield the processes that have one of the command lines, with a name for each."""
    processes = sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit())
    for command_line in wanted:
        for process in processes:
            try:
                words = (proc / str(process) / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            # A process title can have trailing spaces or null bytes.
            if words.rstrip(b"\0 ").replace(b"\0", b" ").decode(errors="replace") == command_line:
                yield f"{command_line} {process}", process


def limit_of(process: int, proc: Path) -> int | None:
    """Return the soft limit of a process, or None if the process has ended."""
    try:
        match = LIMIT.search((proc / str(process) / "limits").read_text())
    except OSError:
        return None
    if match is None:
        return None
    return UNLIMITED if match[1] == "unlimited" else int(match[1])


def limits(shown: str, command_lines: Iterable[str], proc: Path) -> list[dict[str, Any]]:
    """Return the processes and their limits."""
    processes = [
        *sorted(main_processes(shown).items()),
        *with_command_line(command_lines, proc),
    ]
    found = [(name, limit_of(process, proc)) for name, process in processes]
    return [{"name": name, "nofile": limit} for name, limit in found if limit is not None]


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "command_lines": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    shown = ""
    if module.params["units"]:
        systemctl = module.get_bin_path("systemctl", required=True)
        _, shown, _ = module.run_command(
            # For a pattern, systemctl show lists the units that systemd has loaded.
            [systemctl, "show", "--property=Id,MainPID", "--", *module.params["units"]],
            check_rc=True,
            expand_user_and_vars=False,
        )
    found = limits(shown, module.params["command_lines"], Path("/proc"))
    module.exit_json(changed=False, processes=found)


if __name__ == "__main__":
    main()
