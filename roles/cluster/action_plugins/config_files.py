"""Ansible action: render configuration files, then hand them to the module of the same name."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader


class ActionModule(ActionBase):
    """Gives each file its content: ``template`` rendered, or ``content`` as it is."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the module returns; secret files leave no trace in a diff."""
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
        # Else the module writes its arguments, contents and all, into the host's journal.
        task_vars = {**(task_vars or {}), "ansible_no_target_syslog": True}
        result.update(
            self._execute_module(
                module_name="config_files",
                module_args={"files": files, "command": self._task.args.get("command", [])},
                task_vars=task_vars,
            )
        )
        # The contents came with the arguments; the result shall not carry them again.
        result.pop("invocation", None)
        return result
