"""Ansible action: prove a wave of a roll, and say how long it took.

Its options are documented in ``plugins/modules/channels_proof.py``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

from ansible.module_utils.channels_controller import TIMES, unreachable_errors, words_of

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "proof": {"type": "list", "elements": "str", "required": True},
    "title": {"type": "str", "required": True},
    "workers": {"type": "list", "elements": "str", "default": []},
    "seconds": {"type": "float", "default": 0.0},
    "is_last": {"type": "bool", "default": False},
}

WORKERS_NAMED = 4
"""Workers that a line names."""


class ActionModule(ActionBase):
    """Runs a proof on a host, and adds up what the roll and its proofs take."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the proof came to; fail where it has failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        _, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True}
        began, title = time.time(), " ".join([options["title"], *named(options["workers"])])
        try:
            found: dict[str, Any] = self._execute_module(
                module_name="ansible.builtin.command",
                module_args={"argv": options["proof"]},
                task_vars=known,
            )
        except unreachable_errors() as error:
            said = f"{title} failed: host unreachable\n{error}"
            return {**result, "failed": True, "msg": said}
        now = time.time()
        proving = now - began
        output = "\n".join(filter(None, (found.get("stdout"), found.get("stderr"))))
        result["changed"] = False
        if found.get("failed") or found.get("rc"):
            said = output or str(found.get("msg", ""))
            return {**result, "failed": True, "msg": f"{title} failed: not proved\n{said}"}
        earlier = known.get("ansible_facts", {}).get(TIMES)
        earlier = earlier or {"began": began - options["seconds"], "proving": 0.0}
        times = {"began": earlier["began"], "proving": earlier["proving"] + proving}
        result["ansible_facts"] = {TIMES: times}
        wave = options["seconds"] + proving
        took = f"{wave:.1f} s, {share(proving, wave)}"
        if not options["seconds"]:
            took = f"proved in {proving:.1f} s"
        self.say(f"{title}: {took}{words_of(found.get('stdout', ''))}")
        if options["is_last"]:
            whole = now - times["began"]
            self.say(f"rolled in {whole:.1f} s, {share(times['proving'], whole)}")
        return result

    def say(self, text: str) -> None:
        """Say something on the operator's terminal."""
        self._display.display(f"  {text}")


def named(workers: list[str]) -> list[str]:
    """Return the names of a few workers; of more, how many they are."""
    return workers if len(workers) <= WORKERS_NAMED else [f"({len(workers)} workers)"]


def share(proving: float, whole: float) -> str:
    """Return how much of the time a proof has taken."""
    return f"of which the proof took {proving:.1f} s ({100 * proving / max(whole, 0.1):.0f} %)"
