"""Ansible action: take and release the lock of a cluster for the user who runs Ansible.

The module of the same name does it on a host. This action adds the user, the controller and the
process. If an operation ended without releasing its lock (Ctrl-C, a lost connection), the next
operation of the same controller takes the lock over.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROCESS = "CHANNELS_KIT_PROCESS"
"""The environment variable that names the process of an operation of several runs of Ansible."""


def started(process: int) -> str:
    """Return when a process was started, in clock ticks since boot; empty if it is not there."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    # proc_pid_stat(5): the name, in parentheses, may hold anything; field 22 is the start.
    return stat.rpartition(")")[2].split()[19]


def run_of(process: int) -> str:
    """Return what tells an operation from any other: controller, process, start."""
    return f"{socket.gethostname()}:{process}:{started(process)}"


def has_ended(run: str) -> bool:
    """Return whether a run is one of this controller whose process is gone."""
    controller, _, rest = run.rpartition(":")[0].rpartition(":")
    if controller != socket.gethostname() or not rest.isdigit():
        return False
    return run_of(int(rest)) != run


def user() -> str:
    """Return who runs Ansible."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


def refusal(holder: Mapping[str, Any]) -> str:
    """Return what the next operator is told."""
    what = f" ({holder['what']})" if holder.get("what") else ""
    seconds = int(holder.get("seconds", 0))
    since = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
    return (
        f"Locked by {holder.get('who', 'somebody')} for {since}{what}. Nothing changed."
        " If abandoned: make unlock"
    )


class ActionModule(ActionBase):
    """Arguments: state, what, release, result; see the module."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the module says; for a refusal, with a message for the operator."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        # This runs in a fork of ansible-playbook.
        run = run_of(int(os.environ.get(PROCESS) or os.getppid()))
        owner = {"who": f"{user()}@{socket.gethostname()}", "run": run}
        owner |= {name: arguments[name] for name in ("what", "release") if name in arguments}
        asked = {"state": arguments["state"], "owner": owner}
        if "result" in arguments:
            asked["result"] = arguments["result"]
        answer = self.ask(asked, task_vars)
        if answer.get("refused") and has_ended(answer["holder"].get("run", "")):
            answer = self.ask({**asked, "instead_of": answer["holder"]["run"]}, task_vars)
        if answer.get("refused"):
            answer["msg"] = refusal(answer["holder"])
        return {**result, **answer, "owner": owner}

    def ask(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module on the host."""
        answer: dict[str, Any] = self._execute_module(
            "channels_lock", module_args=arguments, task_vars=task_vars
        )
        return answer
