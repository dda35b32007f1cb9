#!/usr/bin/python
"""Ansible module: check whether a unit runs with the current content of its files."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: unit_freshness
short_description: Check whether a unit runs with the current content of its files
description:
  - Compares the start time of a unit's main process with the time of change of the files that it
    reads at its start. A process that is older than a file runs with an old configuration, for
    example because an earlier run was interrupted before the restart.
  - Also returns whether the unit is active and enabled, whether systemd has read its unit file, and
    whether its process has the open-file limit of the unit.
  - Changes nothing and returns C(changed=false). Set C(changed_when) to one of the returned values
    to notify a handler that restarts the unit.
notes:
  - A file's last change is its ctime, which a rename sets and no program can set back. A change of
    its mode or owner counts too.
  - A reload does not start a new process. Do not list files that a reload applies.
  - Do not list files that the service itself writes.
  - A process reads its files shortly after its start. If a file changes in that time, the unit
    counts as stale although it may have read the new file. A change is never missed.
options:
  unit:
    description: The unit, with its suffix.
    type: str
    required: true
  files:
    description:
      - Files that the main process reads at its start, and the unit file and its drop-ins.
      - A missing file is listed in RV(missing_files), and does not make the unit stale.
    type: list
    elements: path
    default: []
  drop_ins:
    description:
      - Drop-ins of the unit that a daemon-reload applies, without a new process.
      - Where systemd has not read one that is there, RV(need_daemon_reload) is true. It says so by
        itself only where the drop-in's directory is not new.
    type: list
    elements: path
    default: []
requirements:
  - systemd 247 or later on the host.
attributes:
  check_mode:
    support: full
    description: Can run in check mode, and does the same.
  diff_mode:
    support: none
    description: Has nothing to compare.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Configure | Compare the journal's process with its configuration
  unit_freshness:
    unit: systemd-journald.service
    files: [/etc/systemd/journald.conf.d/channels-kit.conf]
  register: journal
  changed_when: journal.stale
  notify: Base | Restart the journal

- name: Configure | Compare an instance of Redis with its files
  unit_freshness:
    unit: redis-server@layer.service
    files:
      - /etc/redis/redis-layer.conf
      - /etc/systemd/system/redis-server@.service.d/channels-kit.conf
  register: instance
  changed_when: instance.stale or instance.need_daemon_reload or instance.nofile_stale
  notify: Redis | Restart the instance
"""

RETURN = r"""
exists:
  description: Whether systemd finds the unit.
  type: bool
  returned: success
active:
  description: Whether the unit is active; true while it reloads, false while it starts or stops.
  type: bool
  returned: success
active_state:
  description: The unit's state in systemd's word, such as C(active), C(failed) or C(activating).
  type: str
  returned: success
enabled:
  description: Whether the unit starts at boot, or as a dependency of another unit.
  type: bool
  returned: success
need_daemon_reload:
  description: >-
    Whether the unit file or a drop-in changed after systemd read it, or systemd has not read one of
    O(drop_ins).
  type: bool
  returned: success
started_at:
  description: >-
    Start time of the main process, in seconds since 1970. For an active oneshot unit, the start
    time of the process that ran. None if the unit is not active.
  type: float
  returned: success
newest_file:
  description: The file that changed last; none if there is no file.
  type: str
  returned: success
newest_file_at:
  description: When it was changed, in seconds since 1970.
  type: float
  returned: success
missing_files:
  description: Files that do not exist.
  type: list
  elements: str
  returned: success
stale:
  description: >-
    Whether the unit is active and started before the newest file changed. False if it is not
    active, because it reads the files at its start.
  type: bool
  returned: success
nofile:
  description: >-
    Hard open-file limit of the main process; none if it is infinite or if no main process runs.
  type: int
  returned: success
nofile_granted:
  description: >-
    Hard open-file limit that a process of the unit would get if it started now: C(LimitNOFILE=) of
    the unit as systemd has read it, or less if the machine does not let systemd raise its own
    limit.
  type: int
  returned: success
nofile_stale:
  description: Whether the main process has another open-file limit than RV(nofile_granted).
  type: bool
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.systemd_units import (
    PROPERTIES,
    freshness,
    parse_properties,
    read_nofile,
    read_proc,
)


def read_changed(path: str) -> float | None:
    """Return when a file was changed last; None where there is none."""
    try:
        return Path(path).stat().st_ctime
    except FileNotFoundError:
        return None


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "drop_ins": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    command = [
        *(module.get_bin_path("systemctl", required=True), "show", "--timestamp=us+utc"),
        *(f"--property={','.join(PROPERTIES)}", "--", module.params["unit"]),
    ]
    code, shown, error = module.run_command(command, environ_update={"LC_ALL": "C.UTF-8"})
    if code:
        module.fail_json(msg=f"systemctl show exited with status {code}: {error.strip()}")
    # The files come last: one that changes meanwhile is seen as changed.
    properties = parse_properties(shown)
    process = int(properties.get("MainPID", "0"))
    nofile = read_nofile(read_proc(process, "limits") if process else "")
    changed = {path: read_changed(path) for path in module.params["files"]}
    drop_ins = [path for path in module.params["drop_ins"] if Path(path).exists()]
    module.exit_json(changed=False, **freshness(properties, changed, nofile, drop_ins))


if __name__ == "__main__":
    main()
