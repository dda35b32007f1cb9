#!/usr/bin/python
"""Ansible module: reload a running PostgreSQL server if its files changed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_settings
short_description: Reload a running PostgreSQL server if its files changed
description:
  - Compares the time of the last reload with the time of change of the files. Reloads the server if
    a file is newer, and waits until the reload is done.
  - Returns which settings need a restart. Does not restart the server, and reports a change until
    it is restarted.
  - Queries the running server, so it also completes an interrupted run.
  - Fails with the server's message if the server finds an error in a file. The previous settings
    stay in effect.
notes:
  - Run this module as root. It calls C(psql) as the system user O(run_as), which connects through
    the local socket. The rules of pg_hba.conf that are in effect may not allow root yet.
options:
  data_directory:
    description: Data directory of the server. Its postmaster.pid names the socket to connect to.
    type: path
    required: true
  user:
    description: Database superuser to connect as.
    type: str
    default: postgres
  run_as:
    description: System user that C(psql) runs as, if the module runs as root.
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
    description: Can run in check mode; does not reload the server.
  diff_mode:
    support: none
    description: The tasks that write the files show their diff.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Configure | Reload the server if its files are newer
  postgres_settings:
    data_directory: /var/lib/postgresql/15/main
    files:
      - /etc/postgresql/15/main/conf.d/channels-kit.conf
      - /etc/postgresql/15/main/pg_hba.conf
  register: server
  notify: PostgreSQL | Restart the server  # when server.pending_restart
"""

RETURN = r"""
reloaded:
  description: Whether the server reloaded its files, or would reload them in check mode.
  type: bool
  returned: success
pending_restart:
  description: Names of the settings that change only with a restart of the server.
  type: list
  elements: str
  returned: success
overridden:
  description: Names of settings in O(files) that another file overrides. A warning names them too.
  type: list
  elements: str
  returned: success
"""

import json
import os
import pwd
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
            module.fail_json(msg=f"PostgreSQL is not running: {error}")
        # Its fourth and fifth line; a server that is being started has fewer.
        port, sockets = [*lines, "", "", "", "", ""][3:5]
        self.command = [
            *self.drop_privileges(),
            *(module.get_bin_path("psql", required=True), "--no-psqlrc", "--quiet"),
            *("--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--no-password"),
            f"--host={sockets}",
            f"--port={port}",
            f"--username={module.params['user']}",
            *("--dbname=postgres", "--file=-"),
        ]

    def drop_privileges(self) -> list[str]:
        """Return the command prefix that runs a program as the system user O(run_as)."""
        if os.geteuid() != 0:
            return []
        try:
            user = pwd.getpwnam(self.module.params["run_as"])
        except KeyError:
            self.module.fail_json(msg=f"There is no system user {self.module.params['run_as']}.")
        program = self.module.get_bin_path("setpriv", required=True)
        return [
            program,
            *(f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"),
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
            self.module.fail_json(msg=f"Querying PostgreSQL failed: {error.strip()}")
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
            msg=f"PostgreSQL did not reload its files within {PATIENCE:g} s. See its log."
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
            "run_as": {"type": "str", "default": "postgres"},
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
            msg="PostgreSQL refused its files; the previous settings stay in effect:\n"
            + "\n".join(found)
        )
    stale = changed_at > float(state["loaded"])
    if stale and not module.check_mode:
        server.reload(float(state["loaded"]))
        state = server.state()
    names = overridden(state, files)
    if names:
        module.warn(f"Another PostgreSQL configuration file overrides {', '.join(names)}.")
    module.exit_json(
        changed=stale or bool(state["pending_restart"]),
        reloaded=stale,
        pending_restart=state["pending_restart"],
        overridden=names,
    )


if __name__ == "__main__":
    main()
