"""Ansible action: restart the units of a host worker by worker, or stop them.

What it does on the host is the module ``channels_units``; its options are documented in
``plugins/modules/channels_roll.py``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

from ansible.module_utils.channels_units import (
    ON_THE_WAY_OUT,
    UNIT_OPTIONS,
    Phase,
    State,
    Unit,
)

REPORT_SECONDS = 2.0
"""Seconds between two lines that say how many sockets are left."""

LONG_REPORT_SECONDS = 5.0
"""The same, for a worker that has been draining for longer than LONG_DRAIN_SECONDS."""

LONG_DRAIN_SECONDS = 20.0

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {
        "type": "str",
        "choices": [each.value for each in (State.RESTARTED, State.STOPPED, State.REMOVED)],
        "default": State.RESTARTED.value,
    },
    "units": {"type": "list", "elements": "dict", "required": True, "options": UNIT_OPTIONS},
    "number": {"type": "int", "default": 1},
    "total": {"type": "int"},
    "stop_timeout": {"type": "float", "required": True},
    "ready_timeout": {"type": "float", "default": 60.0},
    "canary_seconds": {"type": "float", "default": 0.0},
    "proof": {"type": "list", "elements": "str", "default": []},
    "canary_proof": {"type": "list", "elements": "str", "default": []},
}

Option = dict[str, Any]
"""A unit as the module takes it."""


class RollError(Exception):
    """The roll goes no further; the message says why."""


@dataclass
class Turn:
    """The units that are restarted, or stopped, together, and what was last found of them."""

    position: str
    """Which turn it is: ``3/7``; empty where units are stopped."""
    units: list[Option]
    began: float = field(default_factory=lambda: time.monotonic())
    found: dict[str, Any] = field(default_factory=dict)
    """The last answer of the module."""

    @property
    def title(self) -> str:
        """What every message begins with: ``3/7 app2:8002``."""
        return f"{self.position} {' '.join(unit['label'] for unit in self.units)}".strip()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    @property
    def told(self) -> list[dict[str, Any]]:
        """What the last answer says of each unit."""
        return [self.found["units"][unit["name"]] for unit in self.units]

    @property
    def phases(self) -> set[str]:
        """The phases that the units are in."""
        return {told["phase"] for told in self.told}

    @property
    def sockets(self) -> int:
        """How many sockets they still have."""
        return sum(told["sockets"] for told in self.told)

    @property
    def is_background(self) -> bool:
        """Whether its units answer nobody."""
        return not any(unit["url"] for unit in self.units)


class ActionModule(ActionBase):
    """Restarts workers one after the other, each until delivery is proved."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what was done; fail with the journal of the unit that failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        _, self.options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        self.units: list[Option] = [
            asdict(Unit.from_option(each)) for each in self.options["units"]
        ]
        self.workers = [unit for unit in self.units if unit["url"]]
        self.background = [unit for unit in self.units if not unit["url"]]
        # The turn of the background units, from when they are restarted beside a worker.
        self.background_turn: Turn | None = None
        # Workers that were not ready before the roll came to them, as the proof names them.
        self.joined: list[str] = []
        self.changed = False
        self.restarted: list[str] = []
        self.differences: list[dict[str, str]] = []
        try:
            if self.options["state"] != State.RESTARTED:
                self.stop(State(self.options["state"]))
            elif self._task.check_mode:
                self.ask(State.RESTARTED, self.turn(0, self.units))
            else:
                self.roll()
        except RollError as error:
            result["failed"] = True
            result["msg"] = str(error)
        result.update(changed=self.changed, restarted=self.restarted, diff=self.differences)
        return result

    # The roll

    def roll(self) -> None:
        """Restart one worker after the other, and the background units beside the second one."""
        for index, worker in enumerate(self.workers):
            turn = self.turn(index, [worker])
            self.drain(turn)
            self.wait_until_ready(turn)
            self.prove(turn)
            self.watch_canary(turn)
        if self.background:
            turn = self.background_turn or self.turn(len(self.workers), self.background)
            self.drain(turn)
            self.wait_until_ready(turn)

    def drain(self, turn: Turn) -> None:
        """Restart a turn's units; return when their former processes have ended."""
        if not turn.found:
            joining = self.background if self.takes_background(turn) else []
            self.ask(State.RESTARTED, turn, joining, timeout=REPORT_SECONDS)
        while turn.phases & ON_THE_WAY_OUT:
            if turn.seconds >= self.options["stop_timeout"]:
                # Fails, with the journal, unless that was the last moment.
                self.ask(State.WATCHED, turn, fail_on_timeout=True)
                return
            self.say_sockets(turn)
            self.ask(State.WATCHED, turn, timeout=report_seconds(turn))

    def takes_background(self, turn: Turn) -> bool:
        """Whether the background units are restarted beside a turn's worker.

        Nobody is connected to them, so they keep nobody waiting. But not beside the canary, which
        may show that the release is bad.
        """
        joins = not turn.is_background and not self.is_canary(turn) and not self.background_turn
        if joins and self.background:
            self.background_turn = self.turn(len(self.workers), self.background)
            return True
        return False

    def wait_until_ready(self, turn: Turn) -> None:
        """Wait until the new processes of a turn take work; not at all without a timeout."""
        if not self.options["ready_timeout"]:
            return
        deadline = time.monotonic() + self.options["ready_timeout"]
        if turn.phases != {Phase.READY}:
            self.say(turn, "starting")
        while turn.phases != {Phase.READY}:
            left = deadline - time.monotonic()
            if left > 0:
                self.ask(State.WATCHED, turn, timeout=min(REPORT_SECONDS, left))
            else:
                self.ask(State.WATCHED, turn, fail_on_timeout=True)
        proving = turn.found.get("proof", {}).get("seconds", 0.0)
        self.say(turn, f"ready after {turn.seconds - proving:.1f} s")

    def prove(self, turn: Turn) -> None:
        """Fail where the proof has failed; the module ran it when the worker was ready."""
        proof = turn.found.get("proof")
        if proof is None:
            return
        if proof["rc"]:
            raise RollError(f"{turn.title} failed: not proved\n{proof['output']}")
        self.say(turn, f"proved in {proof['seconds']:.1f} s{words_of(proof)}")

    def watch_canary(self, turn: Turn) -> None:
        """Watch the first worker of the cluster for some time before the next one is touched.

        The long proof runs meanwhile: it holds its sockets open for longer than the time-outs that
        end sockets of a bad release.
        """
        seconds = self.options["canary_seconds"]
        if self.is_canary(turn) and self.options["proof"] and seconds:
            turn.found.pop("proof", None)
            self.ask(State.WATCHED, turn, hold=seconds)
            self.say(turn, f"canary ready for {seconds:g} s")
            self.prove(turn)

    def is_canary(self, turn: Turn) -> bool:
        """Whether a turn is that of the first worker of the cluster."""
        return self.options["number"] == 1 and turn.units == self.workers[:1]

    def turn(self, index: int, units: list[Option]) -> Turn:
        """Return the turn of units, the first of which stands at an index of the roll."""
        number = self.options["number"]
        total = self.options["total"] or number + len(self.units) - 1
        return Turn(f"{number + index}/{total}", units)

    # Stopping

    def stop(self, state: State) -> None:
        """Stop all units at once, and say how far they are until they have."""
        turn = Turn("", [{**unit, "revision": ""} for unit in self.units])
        self.ask(state, turn, timeout=REPORT_SECONDS)
        if self._task.check_mode or not self.changed:
            return
        while turn.phases != {Phase.STOPPED}:
            self.say_sockets(turn)
            left = max(self.options["stop_timeout"] - turn.seconds, 0.0)
            seconds = report_seconds(turn)
            if left > seconds:
                self.ask(state, turn, timeout=seconds)
            else:
                # At least one look: without a timeout there is none.
                self.ask(state, turn, timeout=left or 0.1, fail_on_timeout=True)
        self.say(turn, f"stopped after {turn.seconds:.1f} s")

    # The host, and the operator

    def ask(
        self,
        state: State,
        turn: Turn,
        joining: Sequence[Option] = (),
        *,
        timeout: float = 0.0,
        fail_on_timeout: bool = False,
        hold: float = 0.0,
    ) -> None:
        """Run the module channels_units for a turn's units, and keep its answer in the turn.

        Raises:
            RollError: it failed, or the host cannot be reached.
        """
        units = [*turn.units, *joining]
        beside = self.background_turn.units if self.background_turn else []
        try:
            found: dict[str, Any] = self._execute_module(
                module_name="channels_units",
                module_args={
                    "state": state.value,
                    "units": units,
                    "beside": [unit for unit in beside if unit not in units],
                    "timeout": timeout,
                    "fail_on_timeout": fail_on_timeout,
                    # Whoever does not wait for units has a reason why they cannot be ready.
                    "fail_on_exit": self.options["ready_timeout"] > 0,
                    "hold": hold,
                    "proof": self.proof_of(turn, "canary_proof" if hold else "proof"),
                },
                task_vars=self.task_vars,
            )
        except unreachable_errors() as error:
            # Ansible rescues no host that is unreachable, and the others must be put back.
            raise RollError(f"{turn.title} failed: host unreachable\n{error}") from error
        if found.get("failed"):
            raise RollError(reason_of(turn, found))
        turn.found = found
        if self.background_turn:
            self.background_turn.found = {"units": found["units"]}
        if found.get("changed"):
            self.changed = True
            self.differences.append(found.get("diff", {}))
            if state == State.RESTARTED and not self._task.check_mode:
                self.restarted += [unit["name"] for unit in units]

    def proof_of(self, turn: Turn, option: str) -> list[str]:
        """Return the proof of a turn's worker, whom it names from then on."""
        proof: list[str] = self.options[option]
        if not proof or len(turn.units) != 1 or turn.is_background:
            return []
        (worker,) = turn.units
        named = f"--worker={worker['label']}={worker['url']}"
        if named not in [*proof, *self.joined]:
            self.joined.append(named)
        return [*proof, *self.joined]

    def say_sockets(self, turn: Turn) -> None:
        """Say how many sockets are left, if any."""
        if turn.sockets:
            self.say(turn, f"draining: {turn.sockets} sockets left, {turn.seconds:.0f} s")

    def say(self, turn: Turn, text: str) -> None:
        """Say how far a turn is, on the operator's terminal."""
        self._display.display(f"  {turn.title} {text}")


def words_of(proof: dict[str, Any]) -> str:
    """Return what a proof says it has proved: the last line of its report."""
    last = (proof["output"].splitlines() or [""])[-1]
    return f": {last.removeprefix('Proved: ')}" if last.startswith("Proved: ") else ""


def reason_of(turn: Turn, found: dict[str, Any]) -> str:
    """Return why the module failed, with the last journal lines of the unit."""
    failure = found.get("failure")
    if failure is None:
        said = found.get("module_stderr") or found.get("module_stdout") or ""
        return f"{turn.title} failed: {found.get('msg', 'no answer')}\n{said}".strip()
    what = f"{turn.position} {failure['label']} {failure['what']}: {failure['reason']}".strip()
    return f"{what}\nLast journal lines of {failure['unit']}:\n{failure['journal']}"


def unreachable_errors() -> tuple[type[Exception], ...]:
    """Return what is raised where the host cannot be reached, by Ansible and by Mitogen."""
    mitogen = sys.modules.get("mitogen.core")
    return (AnsibleConnectionFailure, *([mitogen.ChannelError] if mitogen else []))


def report_seconds(turn: Turn) -> float:
    """Return how long one look lasts at units that have been draining for some time."""
    return REPORT_SECONDS if turn.seconds < LONG_DRAIN_SECONDS else LONG_REPORT_SECONDS
