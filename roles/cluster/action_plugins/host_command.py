"""Ansible action: run a command on a host, without a module.

``ansible.builtin.command`` sends a module of 170 KB, which the host compiles before it runs
anything: 0.3 s of its processor. What a deploy asks a host for is one command after the other.
"""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Arguments: argv, or cmd (split as a shell would, and given to none); stdin.

    As with ``ansible.builtin.command``: it returns rc, and stdout and stderr without the end of
    their last line, fails where rc is not 0, is a change unless ``changed_when`` says otherwise,
    and is skipped in a dry run.
    """

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the command did and said."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return {**result, "skipped": True, "rc": 0, "stdout": "", "stderr": ""}
        arguments = self._task.args
        argv = arguments.get("argv") or shlex.split(arguments["cmd"])
        # Never empty: without input, a terminal would be opened that mixes stdout and stderr.
        stdin = f"{arguments.get('stdin', '')}\n".encode()
        found = self._low_level_execute_command(shlex.join(map(str, argv)), in_data=stdin)
        for stream in ("stdout", "stderr"):
            found[stream] = found[stream].rstrip("\r\n")
        result.update(found, changed=True)
        if found["rc"]:
            result.update(failed=True, msg=f"{argv[0]} ended with {found['rc']}")
        return result
