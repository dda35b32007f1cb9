"""Ansible action: replace, restart, drain or stop the units of a host, and say how far they are.

What it does on the host are the modules ``channels_units`` and ``channels_retired``; its options
are documented in ``plugins/modules/channels_roll.py``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

from ansible.module_utils.channels_controller import TIMES, unreachable_errors, words_of
from ansible.module_utils.channels_units import (
    ON_THE_WAY_OUT,
    ROLLS,
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

RELOAD_GRACE = 15.0
"""Seconds that a reload has to fail by itself after the timeout: a process that took over later
would not be put back."""

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {
        "type": "str",
        "choices": [
            *(State.RESTARTED.value, State.RELOADED.value, "drained", "resumed"),
            *(State.STOPPED.value, State.REMOVED.value),
        ],
        "default": State.RESTARTED.value,
    },
    "units": {"type": "list", "elements": "dict", "required": True, "options": UNIT_OPTIONS},
    "number": {"type": "int", "default": 1},
    "total": {"type": "int"},
    "at_once": {"type": "int", "default": 1},
    "awaits_background": {"type": "bool", "default": True},
    "release": {"type": "path"},
    "idle_only": {"type": "bool", "default": False},
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
    reloads: bool = False
    """Whether its workers get their new process beside the former one."""

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
    """Replaces or restarts workers, some at once, until they are ready or proved."""

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
        self.changed = False
        self.restarted: list[str] = []
        # Units whose process cannot be replaced: those that the next waves restart.
        self.left: list[str] = []
        # Seconds that proofs took.
        self.proving = 0.0
        self.differences: list[dict[str, str]] = []
        began, state = time.monotonic(), self.options["state"]
        facts: dict[str, Any] = {}
        try:
            if state in ("drained", "resumed"):
                result.update(self.command_retired(state))
            elif state not in ROLLS:
                self.stop(State(state))
            elif self._task.check_mode:
                self.ask(State(state), self.turn(0, self.units))
            else:
                self.roll(State(state))
        except RollError as error:
            result["failed"] = True
            result["msg"] = str(error)
        seconds = time.monotonic() - began
        if self.left:
            earlier = self.task_vars.get("ansible_facts", {}).get("_channels_left_units", [])
            facts["_channels_left_units"] = [*earlier, *self.left]
        if state in ROLLS and self.options["number"] == 1:
            # The roll begins; channels_proof goes on from here.
            facts[TIMES] = {"began": time.time() - seconds, "proving": self.proving}
        if facts:
            result["ansible_facts"] = facts
        result.update(
            changed=self.changed,
            restarted=self.restarted,
            left=self.left,
            seconds=seconds,
            diff=self.differences,
        )
        return result

    # The roll

    def roll(self, state: State) -> None:
        """Replace some workers after the other, and the background units beside the second ones."""
        size = self.options["at_once"]
        turns = [self.workers[first : first + size] for first in range(0, len(self.workers), size)]
        for index, workers in enumerate(turns):
            turn = self.turn(index, workers)
            self.drain(turn, state)
            self.wait_until_ready(turn)
            if self.left and self.is_canary(turn):
                # Nobody else is touched meanwhile.
                self.left = []
                turn = self.turn(index, workers)
                self.drain(turn, State.RESTARTED)
                self.wait_until_ready(turn)
            self.prove(turn)
            self.watch_canary(turn)
        if self.background:
            turn = self.background_turn or self.turn(len(turns), self.background)
            self.drain(turn, state)
            if self.options["awaits_background"]:
                self.wait_until_ready(turn)

    def drain(self, turn: Turn, state: State) -> None:
        """Replace a turn's processes; return when those that end before the new ones have."""
        if not turn.found:
            joining = self.background if self.takes_background(turn) else []
            self.ask(state, turn, joining, timeout=REPORT_SECONDS)
        if turn.is_background and not self.options["awaits_background"]:
            return
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
        if turn.reloads:
            deadline += RELOAD_GRACE
        if not self.is_ready(turn):
            self.say(turn, "starting")
        while not self.is_ready(turn):
            left = deadline - time.monotonic()
            if left > 0:
                self.ask(State.WATCHED, turn, timeout=min(REPORT_SECONDS, left))
            else:
                self.ask(State.WATCHED, turn, fail_on_timeout=True)
        if left := [unit["name"] for unit in turn.units if self.is_left(turn, unit)]:
            self.left += left
            self.say(turn, f"cannot be replaced, and is restarted later: {' '.join(left)}")
            if len(left) == len(turn.units):
                return
        proving = turn.found.get("proof", {}).get("seconds", 0.0)
        self.say(turn, f"ready after {turn.seconds - proving:.1f} s")

    @staticmethod
    def is_left(turn: Turn, unit: Option) -> bool:
        """Whether a unit's process cannot be replaced."""
        return bool(turn.found["units"][unit["name"]].get("left"))

    def is_ready(self, turn: Turn) -> bool:
        """Whether all of a turn are ready, but for those that cannot be replaced."""
        return all(told["phase"] == Phase.READY or told.get("left", False) for told in turn.told)

    def prove(self, turn: Turn) -> None:
        """Fail where the proof has failed; the module ran it when the worker was ready."""
        proof = turn.found.get("proof")
        if proof is None:
            return
        self.proving += proof["seconds"]
        if proof["rc"]:
            raise RollError(f"{turn.title} failed: not proved\n{proof['output']}")
        self.say(turn, f"proved in {proof['seconds']:.1f} s{words_of(proof['output'])}")

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

    # Processes that were replaced

    def command_retired(self, state: str) -> dict[str, Any]:
        """Have retired processes drain, or bring them back; say how far they are."""
        resumed: list[str] = []
        lost: list[str] = []
        busy: list[str] = []
        size = len(self.units) if state == "resumed" else self.options["at_once"]
        for first in range(0, len(self.units), max(size, 1)):
            turn = Turn("", self.units[first : first + size])
            self.ask_retired(state, turn, report_seconds(turn))
            if self._task.check_mode:
                continue
            while state == "drained" and any(told["processes"] for told in turn.told):
                if turn.sockets:
                    self.say(turn, f"draining: {turn.sockets} sockets left, {turn.seconds:.0f} s")
                late = turn.seconds >= self.options["stop_timeout"]
                self.ask_retired(state, turn, report_seconds(turn), fail_on_timeout=late)
            resumed += turn.found["resumed"]
            lost += turn.found["lost"]
            busy += [name for name in turn.found["busy"] if name not in busy]
            if state == "drained" and turn.found["was_there"]:
                self.say(turn, f"drained after {turn.seconds:.1f} s")
        if resumed:
            labels = [unit["label"] for unit in self.units if unit["name"] in resumed]
            self._display.display(f"  {' '.join(labels)}: the former processes have the ports")
        return {"resumed": resumed, "lost": lost, "busy": busy}

    def ask_retired(
        self, state: str, turn: Turn, timeout: float, *, fail_on_timeout: bool = False
    ) -> None:
        """Run the module channels_retired for a turn's units, and keep its answer in the turn.

        Raises:
            RollError: it failed, or the host cannot be reached.
        """
        found = self.run_module(
            turn,
            "channels_retired",
            {
                "state": state,
                "units": [
                    {
                        "name": unit["name"],
                        "label": unit["label"],
                        "process": unit["replaced_process"],
                    }
                    for unit in turn.units
                ],
                "release": self.options["release"],
                "idle_only": self.options["idle_only"],
                # What takes over a port for a moment has few sockets.
                "timeout": self.options["stop_timeout"] if state == "resumed" else timeout,
                "fail_on_timeout": fail_on_timeout,
            },
        )
        if found.get("failed"):
            raise RollError(f"{turn.title} failed: {found.get('msg', 'no answer')}")
        was_there = turn.found.get("was_there", False) or bool(found.get("changed"))
        turn.found = {**found, "was_there": was_there}
        self.keep_changes(found)

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
        if state in ROLLS:
            turn.reloads = state == State.RELOADED
        units = [*turn.units, *joining]
        beside = self.background_turn.units if self.background_turn else []
        found = self.run_module(
            turn,
            "channels_units",
            {
                "state": state.value,
                "units": units,
                "beside": [unit for unit in beside if unit not in units],
                "reloaded": turn.reloads,
                "timeout": timeout,
                "fail_on_timeout": fail_on_timeout,
                # Whoever does not wait for units has a reason why they cannot be ready.
                "fail_on_exit": self.options["ready_timeout"] > 0,
                "hold": hold,
                "proof": self.proof_of(turn, "canary_proof" if hold else "proof"),
            },
        )
        if found.get("failed"):
            raise RollError(reason_of(turn, found))
        turn.found = found
        if self.background_turn:
            self.background_turn.found = {"units": found["units"]}
        self.keep_changes(found)
        if found.get("changed") and state in ROLLS and not self._task.check_mode:
            self.restarted += [unit["name"] for unit in units]

    def run_module(self, turn: Turn, name: str, arguments: Option) -> dict[str, Any]:
        """Run a module on the host and return its answer.

        Raises:
            RollError: the host cannot be reached.
        """
        try:
            found: dict[str, Any] = self._execute_module(
                module_name=name, module_args=arguments, task_vars=self.task_vars
            )
        except unreachable_errors() as error:
            raise RollError(f"{turn.title} failed: host unreachable\n{error}") from error
        return found

    def keep_changes(self, found: dict[str, Any]) -> None:
        """Note what a module has changed."""
        if found.get("changed"):
            self.changed = True
            self.differences.append(found.get("diff", {}))

    def proof_of(self, turn: Turn, option: str) -> list[str]:
        """Return the proof of a turn's workers; nobody proves background units."""
        proof: list[str] = self.options[option]
        return [] if turn.is_background else proof

    def say_sockets(self, turn: Turn) -> None:
        """Say how many sockets are left, if any."""
        if turn.sockets:
            self.say(turn, f"draining: {turn.sockets} sockets left, {turn.seconds:.0f} s")

    def say(self, turn: Turn, text: str) -> None:
        """Say how far a turn is, on the operator's terminal."""
        self._display.display(f"  {turn.title} {text}")


def reason_of(turn: Turn, found: dict[str, Any]) -> str:
    """Return why the module failed, with the last journal lines of the unit."""
    failure = found.get("failure")
    if failure is None:
        said = found.get("module_stderr") or found.get("module_stdout") or ""
        return f"{turn.title} failed: {found.get('msg', 'no answer')}\n{said}".strip()
    what = f"{turn.position} {failure['label']} {failure['what']}: {failure['reason']}".strip()
    return f"{what}\nLast journal lines of {failure['unit']}:\n{failure['journal']}"


def report_seconds(turn: Turn) -> float:
    """Return how long one look lasts at units that have been draining for some time."""
    return REPORT_SECONDS if turn.seconds < LONG_DRAIN_SECONDS else LONG_REPORT_SECONDS
