"""Ansible action: bring a host's units to their revision, one worker after the other; or stop them.

Each worker: drained and stopped (its unit does that), started, ready, and, where a ``proof`` is
given, proved. The first one of the cluster is the canary: it is watched for some time before the
next one is touched. The background units are restarted beside the first one that is not the
canary: nobody is connected to them.

To stop, all at once: nobody who leaves one worker shall come to the next one of the host.

Every phase is said as it comes: ``3/7 app2 8002: draining, 212 sockets left, 14 s``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ansible.plugins.action import ActionBase

WATCH_SECONDS = 2
"""Seconds of one look at a host; as often it is said how many sockets are left."""


class ActionModule(ActionBase):
    """Arguments: units, step (roll, stop, retire), number (of the first, from 1), total, seconds.

    Of those, ``stop_timeout`` a unit may take to stop, ``timeout`` to be ready then, and for
    ``canary_seconds`` the first one is watched from then on.

    ``units`` are those of the action ``channels_worker``; a worker has a ``name``, too. ``proof``
    is a command that ends with 0 where messages arrive; a worker that it does not name is added.
    """

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what was restarted; fail with the journal of the one that is not ready."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        arguments = self._task.args
        if arguments.get("step", "roll") != "roll":
            return {**result, **self.stop(arguments["step"], arguments["units"])}
        result["changed"] = bool(arguments["units"])
        result["restarted"] = []
        if self._task.check_mode:
            return result
        workers = [unit for unit in arguments["units"] if "url" in unit]
        background = [unit for unit in arguments["units"] if "url" not in unit]
        number, total = int(arguments["number"]), int(arguments["total"])
        # Grows by workers that were not ready before this roll came to them.
        proof: list[str] = arguments.get("proof", [])
        # The background units, from when they are restarted beside a worker.
        beside: list[dict[str, Any]] = []
        for batch in [[unit] for unit in workers] + ([background] if background else []):
            names = " ".join(name_of(unit) for unit in batch)
            self.label = f"{number}/{total} {self.task_vars['inventory_hostname']} {names}"
            result["restarted"] += [unit["unit"] for unit in batch]
            is_worker = batch is not background
            own: list[str] = []
            if is_worker and "proof" in arguments:
                named = f"--worker={batch[0]['name']}={batch[0]['url']}"
                own = proof = proof if named in proof else [*proof, named]
            if is_worker or not beside:
                more = background if is_worker and number > 1 and not beside else []
                began = time.monotonic()
                found = self.ask("roll", [*batch, *more], WATCH_SECONDS, beside, own)
                beside = beside or more
            failed, found = self.wait(batch, beside, found, began, own)
            if not failed and own and number == 1:
                failed = self.watch_the_canary(batch, time.monotonic())
            if failed:
                result["failed"] = True
                result["msg"] = f"{self.label}: {failed}"
                return result
            number += len(batch)
        return result

    def say(self, text: str) -> None:
        """Say a phase on the operator's terminal."""
        self._display.display(f"  {self.label}: {text}")

    def ask(
        self,
        step: str,
        units: list[dict[str, Any]],
        timeout: int = 0,
        beside: Sequence[dict[str, Any]] = (),
        proof: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Have the action channels_worker take a step on the host."""
        task = self._task.copy()
        task.args = {
            "step": step,
            "units": units,
            "timeout": timeout,
            "beside": [unit for unit in beside if unit not in units],
            "proof": [*proof],
        }
        worker = self._shared_loader_obj.action_loader.get(
            "channels_worker",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
        )
        found: dict[str, Any] = worker.run(task_vars=self.task_vars)
        return found

    def wait(
        self,
        units: list[dict[str, Any]],
        beside: list[dict[str, Any]],
        found: dict[str, Any],
        began: float,
        proof: Sequence[str],
    ) -> tuple[str, dict[str, Any]]:
        """Wait until units that are being restarted are ready, and proved if there is a proof.

        Returns:
            What is wrong, if anything, and what the last call has found, of those beside them, too.
        """
        phase = ""
        deadline = None
        last = began + float(self._task.args["stop_timeout"]) + float(self._task.args["timeout"])
        while not found.get("failed"):
            now = time.monotonic()
            told = [found["units"][unit["unit"]] for unit in units]
            phases = {unit["phase"] for unit in told}
            if phases == {"ready"}:
                if proof and "proof" not in found:
                    found = self.ask("watch", units, WATCH_SECONDS, beside, proof)
                    continue
                took = found["proof"]["seconds"] if proof else 0
                self.say(f"ready, {now - began - took:.1f} s")
                if proof and found["proof"]["rc"]:
                    return f"messages do not arrive:\n{found['proof']['output']}", found
                if proof:
                    self.say(f"proved, {took:.1f} s")
                return "", found
            sockets = sum(unit["sockets"] for unit in told)
            if phases & {"draining", "stopping"}:
                if sockets:
                    self.say(f"draining, {sockets} sockets left, {now - began:.0f} s")
            elif phases & {"starting", "stopped"}:
                if phase != "starting":
                    self.say("starting")
                    phase = "starting"
                deadline = deadline or now + int(self._task.args["timeout"])
            if now >= (deadline or last):
                # Fails, with the journal, unless one has not even ended.
                found = self.ask("start", units, 0, beside)
                told = [found.get("units", {}).get(unit["unit"], {}) for unit in units]
                if any(unit.get("outdated") for unit in told):
                    return f"not stopped within {now - began:.0f} s", found
                continue
            found = self.ask("watch", units, WATCH_SECONDS, beside, proof)
        return str(found.get("msg", found)), found

    def stop(self, step: str, units: list[dict[str, Any]]) -> dict[str, Any]:
        """Stop units, and say how far they are until they have."""
        self.label = f"{self.task_vars['inventory_hostname']} {' '.join(map(name_of, units))}"
        began = time.monotonic()
        last = began + float(self._task.args["stop_timeout"])
        found = self.ask(step, units, WATCH_SECONDS)
        changed = bool(found.get("changed"))
        if not found.get("failed") and (self._task.check_mode or not changed):
            return {"changed": changed}
        while not found.get("failed"):
            passed = time.monotonic() - began
            left = [unit for unit in found["units"].values() if unit["phase"] != "stopped"]
            if not left:
                self.say(f"stopped, {passed:.1f} s")
                return {"changed": changed}
            if time.monotonic() >= last:
                return {"failed": True, "msg": f"{self.label}: not stopped within {passed:.0f} s"}
            sockets = sum(unit["sockets"] for unit in left)
            if sockets:
                self.say(f"draining, {sockets} sockets left, {passed:.0f} s")
            found = self.ask("watch", units, WATCH_SECONDS)
        return {"failed": True, "msg": f"{self.label}: {found.get('msg', found)}"}

    def watch_the_canary(self, units: list[dict[str, Any]], ready: float) -> str:
        """Watch the first worker until it has been ready for some time; return what is wrong."""
        seconds = float(self._task.args["canary_seconds"])
        until = ready + seconds
        while time.monotonic() < until:
            time.sleep(max(min(1.0, until - time.monotonic()), 0.0))
            # Fails where its process has ended by itself.
            found = self.ask("watch", units, WATCH_SECONDS)
            if found.get("failed"):
                return str(found["msg"])
            for told in found["units"].values():
                if told["phase"] != "ready":
                    return f"it was ready and is no longer; {told['answer']}"
        self.say(f"the canary holds, {seconds:g} s")
        return ""


def name_of(unit: dict[str, Any]) -> str:
    """Return how a unit is called in one word: 8002, thumbnails, celery."""
    stem: str = unit["unit"].removesuffix(".service").removeprefix("channels-")
    return stem.rpartition("@")[2]
