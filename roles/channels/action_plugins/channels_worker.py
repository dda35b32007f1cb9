"""Ansible action: look at the application's units on a host, start and stop them.

What it does there, and which arguments it takes, ``files/channels_worker.py`` tells. That is a
program of the standard library, and no module: what Ansible puts around one takes a host 0.3 s
before it begins, for each worker of a deploy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROGRAM = Path(__file__).parents[1] / "files" / "channels_worker.py"


class ActionModule(ActionBase):
    """Runs the program with the task's arguments."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the program answers."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = json.dumps({**self._task.args, "check": self._task.check_mode})
        program = f"{PROGRAM.read_text()}\nraise SystemExit(main({arguments!r}))\n".encode()
        found = self._low_level_execute_command("python3 -I -", in_data=program)
        try:
            return {**result, **json.loads(found["stdout"])}
        except ValueError:
            said = found["stderr"] or found["stdout"]
            return {**result, "failed": True, "msg": f"channels_worker.py failed:\n{said}"}
