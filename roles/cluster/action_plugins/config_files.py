"""Ansible action: put a set of configuration files in place, all or none.

It renders them; what it does on the host, ``files/config_files.py`` tells. That is a program of the
standard library, and no module: what Ansible puts around one takes a host 0.3 s before it begins,
and a role that has nothing to change is little else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader

PROGRAM = Path(__file__).parents[1] / "files" / "config_files.py"


class ActionModule(ActionBase):
    """Arguments: files, and command; as the program takes them.

    A file has ``template`` and ``vars``, which are rendered, or ``content``, which stays as it is.
    """

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the program answers; secret files leave no trace in a diff."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        render = lookup_loader.get(
            "ansible.builtin.template", loader=self._loader, templar=self._templar
        )
        files = []
        for wanted in self._task.args["files"]:
            file = dict(wanted)
            template = file.pop("template", None)
            if (template is None) == ("content" not in file):
                raise AnsibleActionFail(f"{file.get('path')}: give either template or content")
            if template is not None:
                variables = {**(task_vars or {}), **file.pop("vars", {})}
                variables["ansible_search_path"] = self._task.get_search_path()
                file["content"] = render.run([template], variables)[0]
            files.append(file)
        return {**result, **self.put(files, task_vars or {})}

    def put(self, files: list[dict[str, Any]], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Put rendered files in place on the host."""
        arguments = {
            "files": files,
            "command": self._task.args.get("command", []),
            "check": self._task.check_mode,
        }
        # By standard input alone: what is a secret is on no command line. And isolated: root
        # imports nothing from the home of who logs in.
        call = f"\nraise SystemExit(main({json.dumps(arguments)!r}))\n"
        program = f"{PROGRAM.read_text()}{call}".encode()
        found = self._low_level_execute_command("python3 -I -", in_data=program)
        try:
            answer: dict[str, Any] = json.loads(found["stdout"])
        except ValueError:
            said = found["stderr"] or found["stdout"]
            return {"failed": True, "msg": f"config_files.py failed:\n{said}"}
        return answer
