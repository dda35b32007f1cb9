"""Ansible action: bring archives of the controller to a host, and unpack them there.

One step where copy and script would be four calls of modules, each of which takes a host about
0.3 s: a deploy waits for it. How a release is unpacked is in the release: its ``install-release``.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Arguments: archives (the release's first), and what install-release takes after them."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return that it was done; fail with what the installer said."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result["changed"] = True
        if self._task.check_mode:
            return result
        shell = self._connection._shell
        # Ansible removes it, however this ends.
        directory = self._make_tmp_path()
        for archive in self._task.args["archives"]:
            remote = shell.join_path(directory, Path(archive).name)
            self._transfer_file(archive, remote)
        release = Path(self._task.args["archives"][0]).name
        arguments = [directory, *map(str, self._task.args["arguments"])]
        found = self._low_level_execute_command(
            f"cd {shlex.quote(directory)} && tar --extract --gzip --file {shlex.quote(release)}"
            f" install-release && sh install-release {shlex.join(arguments)}"
        )
        if found["rc"]:
            result["failed"] = True
            result["msg"] = f"{release} was not installed:\n{found['stdout']}{found['stderr']}"
        return result
