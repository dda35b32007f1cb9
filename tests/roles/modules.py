"""Run a module of plugins/modules/ in this process, as Ansible would on a host."""

import io
import json
import runpy
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from typing import Any

from ansible.module_utils.testing import patch_module_args

from .house import ROOT, Tree, own_module_utils


def run_module(name: str, check: bool = False, **arguments: Any) -> Tree:
    """Return what a module answers; its ``output`` is all that it printed."""
    own_module_utils()
    given: Mapping[str, Any] = {
        **arguments,
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        "_ansible_syslog_facility": "LOG_USER",
        "_ansible_no_log": False,
        "_ansible_target_log_info": None,
    }
    output = io.StringIO()
    with patch_module_args(dict(given)), redirect_stdout(output), suppress(SystemExit):
        runpy.run_path(str(ROOT / "plugins" / "modules" / f"{name}.py"), run_name="__main__")
    answer: Tree = json.loads(output.getvalue().splitlines()[-1])
    answer["output"] = output.getvalue()
    return answer
