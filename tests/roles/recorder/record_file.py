"""Ansible action for the tests: what a task that writes files would write, written down."""

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: files, each with path, template or content, vars and what else a host is told."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        render = lookup_loader.get(
            "ansible.builtin.template", loader=self._loader, templar=self._templar
        )
        for wanted in self._task.args["files"]:
            file = dict(wanted)
            if (template := file.pop("template", None)) is not None:
                known = {**variables, **file.pop("vars", {})}
                known["ansible_search_path"] = self._task.get_search_path()
                file["content"] = render.run([template], known)[0]
            name = file["path"].replace("/", "%")
            directory = Path(os.environ["RENDERED"], variables["inventory_hostname"])
            (directory / name).write_text(json.dumps(file))
        return {**result, "changed": False, "paths": []}
