#!/usr/bin/python
"""Ansible module: bring a running PostgreSQL server to what is in its files."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_settings
short_description: Bring a running PostgreSQL server to what is in its files
description:
  - Compares when the server has read its files with when they were changed, and lets it read them
    again where they are newer. It waits until the server has done so.
  - Tells which settings take a restart. It does not restart the server, and is a change until
    somebody does.
  - Asks the running server, so it finds what an interrupted run left.
  - Where the server finds a mistake in a file, the module fails with its words, and the server goes
    on with what it has.
notes:
  - Run it as the system user C(postgres). It calls C(psql), which connects through the local
    socket.
options:
  data_directory:
    description: The server's data. What runs there tells its socket, whatever the files say.
    type: path
    required: true
  user:
    description: The superuser.
    type: str
    default: postgres
  files:
    description: The files that the server reads when it is reloaded.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    support: full
    description: Can run in check mode and tells what it would do.
  diff_mode:
    support: none
    description: The files are compared by the tasks that write them.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Configure | Let the server read its files where it has former ones
  postgres_settings:
    data_directory: /var/lib/postgresql/15/main
    files:
      - /etc/postgresql/15/main/conf.d/channels-kit.conf
      - /etc/postgresql/15/main/pg_hba.conf
  become: true
  become_user: postgres
  register: server
  notify: PostgreSQL | Restart the server  # when server.pending_restart
"""

RETURN = r"""
reloaded:
  description: Whether the server has read its files again, or would in check mode.
  type: bool
  returned: success
pending_restart:
  description: Names of the settings that the server has otherwise until it is restarted.
  type: list
  elements: str
  returned: success
overridden:
  description: Names of settings of O(files) that another file overrides; a warning names them, too.
  type: list
  elements: str
  returned: success
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PATIENCE = 30.0
"""Seconds in which the server must have read its files."""

INTERVAL = 0.02

LOADED = "SELECT extract(epoch FROM pg_conf_load_time())"

# The server calls it an error, too, that a setting takes a restart, in these two ways.
STATE = """
SELECT json_build_object(
    'loaded', extract(epoch FROM pg_conf_load_time()),
    'pending_restart', ARRAY(SELECT name FROM pg_settings WHERE pending_restart ORDER BY name),
    'files', (SELECT json_agg(json_build_object(
            'file', f.sourcefile, 'line', f.sourceline, 'name', name,
            'applied', applied, 'error', error) ORDER BY seqno)
        FROM pg_file_settings AS f LEFT JOIN pg_settings USING (name)
        WHERE error IS NULL OR NOT (
            error LIKE '%cannot be changed without restarting the server'
            OR error = 'setting could not be applied' AND coalesce(context, '') = 'postmaster')),
    'rules', (SELECT json_agg(json_build_object('line', line_number, 'error', error))
        FROM pg_hba_file_rules WHERE error IS NOT NULL),
    'rules_file', current_setting('hba_file'))
"""


class Server:
    """A running server.

    Args:
        module: the module that asks it.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        lock = Path(module.params["data_directory"]) / "postmaster.pid"
        try:
            lines = lock.read_text().splitlines()
        except OSError as error:
            module.fail_json(msg=f"No PostgreSQL server runs: {error}")
        # Its fourth and fifth line; a server that is being started has fewer.
        port, sockets = [*lines, "", "", "", "", ""][3:5]
        self.command = [
            *(module.get_bin_path("psql", required=True), "--no-psqlrc", "--quiet"),
            *("--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--no-password"),
            f"--host={sockets}",
            f"--port={port}",
            f"--username={module.params['user']}",
            *("--dbname=postgres", "--file=-"),
        ]

    def ask(self, query: str) -> str:
        """Return the answer to a query; fail with the words of the server."""
        code, answer, error = self.module.run_command(
            self.command,
            data=query,
            # Some of its words are compared.
            environ_update={"PGOPTIONS": "-c lc_messages=C", "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        if code:
            self.module.fail_json(msg=f"PostgreSQL cannot be asked: {error.strip()}")
        return str(answer).strip()

    def state(self) -> dict[str, Any]:
        """Return what the server has in effect and what it finds in its files."""
        found: dict[str, Any] = json.loads(self.ask(STATE))
        return found

    def reload(self, before: float) -> None:
        """Let the server read its files; return when it has.

        Args:
            before: when it has read them last.
        """
        self.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if float(self.ask(LOADED)) > before:
                return
            time.sleep(INTERVAL)
        self.module.fail_json(
            msg=f"PostgreSQL has not read its files within {PATIENCE:g} s; its log says why."
        )


def problems(state: dict[str, Any]) -> list[str]:
    """Return the mistakes that the server finds in its files."""
    settings = [
        f"{entry['file']}:{entry['line']}: {entry['name'] or ''} {entry['error']}".replace(
            ":  ", ": "
        )
        for entry in state["files"] or []
        if entry["error"]
    ]
    rules = [
        f"{state['rules_file']}:{entry['line']}: {entry['error']}" for entry in state["rules"] or []
    ]
    return settings + rules


def overridden(state: dict[str, Any], files: list[str]) -> list[str]:
    """Return the names of settings in files that have no effect because another one is later."""
    applied = {entry["name"]: entry["file"] for entry in state["files"] or [] if entry["applied"]}
    return sorted(
        {
            entry["name"]
            for entry in state["files"] or []
            if entry["file"] in files
            and not entry["applied"]
            and entry["name"] in applied
            and applied[entry["name"]] not in files
        }
    )


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "data_directory": {"type": "path", "required": True},
            "user": {"type": "str", "default": "postgres"},
            "files": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    files = [os.path.realpath(file) for file in module.params["files"]]
    # The time of a change of the file itself, which a rename sets and no program can set back.
    changed_at = max(
        (Path(file).stat().st_ctime for file in files if Path(file).exists()), default=0
    )
    server = Server(module)
    state = server.state()
    if found := problems(state):
        module.fail_json(
            msg="PostgreSQL refuses its files and goes on with what it has:\n" + "\n".join(found)
        )
    stale = changed_at > float(state["loaded"])
    if stale and not module.check_mode:
        server.reload(float(state["loaded"]))
        state = server.state()
    names = overridden(state, files)
    if names:
        module.warn(f"Another file of PostgreSQL's overrides {', '.join(names)}.")
    module.exit_json(
        changed=stale or bool(state["pending_restart"]),
        reloaded=stale,
        pending_restart=state["pending_restart"],
        overridden=names,
    )


if __name__ == "__main__":
    main()
