"""Ansible action for the tests: the kit's own config_files, but what it renders is written down."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

real = importlib.util.spec_from_file_location("real_config_files", os.environ["REAL_CONFIG_FILES"])
assert real is not None
assert real.loader is not None
module = importlib.util.module_from_spec(real)
real.loader.exec_module(module)


class ActionModule(module.ActionModule):  # type: ignore[misc, name-defined]
    def put(self, files: list[dict[str, Any]], task_vars: dict[str, Any]) -> dict[str, Any]:
        host = task_vars["inventory_hostname"]
        for file in files:
            name = file["path"].replace("/", "%")
            Path(os.environ["RENDERED"], host, name).write_text(json.dumps(file))
        return {"changed": False, "paths": []}
