"""What the module channels_units and the action channels_roll know of the application's units.

No I/O: the module reads systemd, /proc and the workers, hands in what they answered and the time,
and asks here what to do next. So every rule can be tested by calls alone. The parts:

- :class:`Phase`, the words for how far a unit is, and :class:`State`, what the module can be asked
  to bring about;
- :class:`Unit`, what a unit shall be, and :class:`Status`, what it is;
- :func:`plan`, which units have to be enabled, started, restarted, stopped or disabled;
- :class:`Watch`, which asks no more than it must until all units are where they shall be.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

SHOW_INTERVAL = 0.25
"""Seconds between two questions to systemd while a unit is about to start or to stop."""

SLOW_SHOW_INTERVAL = 1.0
"""Seconds between two questions to systemd while every process runs; that one has ended is seen
in /proc, which costs no fork."""

PROCESS_INTERVAL = 0.1
"""Seconds between two looks into /proc."""

LIVE_INTERVAL = 1.0
"""Seconds between two questions how many sockets a worker that drains still has."""

READY_INTERVAL = 0.1
"""Seconds between the first two questions whether a unit is ready.

Each costs the worker a round trip to Redis and one to the database, so the interval grows.
"""

READY_INTERVAL_LIMIT = 0.5
SETTLED_SECONDS = 3.0
"""Seconds after which a process that answers nobody, and has no server, counts as ready."""

READY_INTERVAL_GROWTH = 1.5

HOLD_INTERVAL = 1.0
"""Seconds between two questions whether a unit that is ready still is."""


class Phase(StrEnum):
    """How far a unit is on its way from one process to the next."""

    DRAINING = "draining"
    """The former process closes its sockets, one after the other."""
    STOPPING = "stopping"
    """The former process has not ended yet, and does not say that it drains."""
    STOPPED = "stopped"
    """No process runs."""
    STARTING = "starting"
    """The new process starts, or runs and is not ready."""
    READY = "ready"
    """The new process takes work."""
    FAILED = "failed"
    """The new process ended by itself, or systemd did not start one."""


ON_THE_WAY_OUT = frozenset({Phase.DRAINING, Phase.STOPPING})
"""The phases of a process that shall end."""


class State(StrEnum):
    """What the module brings about: its option `state`."""

    GATHERED = "gathered"
    LISTED = "listed"
    STARTED = "started"
    RESTARTED = "restarted"
    RELOADED = "reloaded"
    WATCHED = "watched"
    STOPPED = "stopped"
    REMOVED = "removed"


STOPS = frozenset({State.STOPPED, State.REMOVED})
"""The states in which no process runs."""

ROLLS = frozenset({State.RESTARTED, State.RELOADED})
"""The states that replace processes."""

UNIT_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "label": {"type": "str"},
    "revision": {"type": "str", "default": ""},
    "url": {"type": "str"},
    "connected_to": {"type": "list", "elements": "int", "default": []},
    "replaced_process": {"type": "int", "default": 0},
}
"""The argument spec of one unit, for the module and for the action."""


@dataclass(frozen=True)
class Unit:
    """What a unit shall be."""

    name: str
    """systemd's name of it: ``channels-web@8001.service``."""
    label: str
    """What people call it: ``app1:8001``."""
    revision: str = ""
    """What its process must have been started with; empty where no process shall run."""
    url: str = ""
    """Where a worker answers, without a path; empty for a unit that answers nobody."""
    connected_to: Sequence[int] = ()
    """For a unit that answers nobody: ports of servers, of which it is connected to one when it
    takes work; none where that is not known."""
    replaced_process: int = 0
    """A process that shall run no longer, although its revision is the right one."""

    @classmethod
    def from_option(cls, option: Mapping[str, Any]) -> Unit:
        """Return the unit that an item of the option `units` describes."""
        given = {key: option[key] for key in UNIT_OPTIONS if option.get(key) is not None}
        return cls(**{"label": given["name"], **given})


PROPERTIES = (
    "Id",
    "MainPID",
    "ActiveState",
    "UnitFileState",
    "NRestarts",
    "FragmentPath",
    "NeedDaemonReload",
    "ExecMainPID",
    "ExecMainCode",
    "ExecMainStatus",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "Job",
    "Result",
    "ExecReload",
    "ReloadResult",
    "MemoryMax",
    "MemoryCurrent",
    "LimitNOFILE",
    "ExecMainStartTimestampMonotonic",
)
"""What systemd is asked of a unit: systemctl show --property."""

EXITED, KILLED, DUMPED = 1, 2, 3
"""ExecMainCode: CLD_EXITED, CLD_KILLED and CLD_DUMPED of sigaction(2)."""

CANNOT_BE_REPLACED = 3
"""Exit status of a reload: the running process cannot be replaced, and has to be restarted."""


@dataclass(frozen=True)
class Status:
    """What systemd and the process say of a unit."""

    active_state: str = "inactive"
    process: int = 0
    """The main process; 0 where none runs."""
    revision: str = ""
    """What the main process was started with; empty where it does not say."""
    enabled: bool = False
    restarts: int = 0
    """How often systemd has started it again by itself."""
    path: str = ""
    """Its unit file; empty where systemd knows none."""
    changed: bool = False
    """Whether the unit file or a drop-in has changed since systemd read it."""
    stale: bool = True
    """Whether systemd has to read the unit file, for the first time or again."""
    last_process: int = 0
    """The main process, even if it has ended."""
    exit_code: int = 0
    """How the last main process ended: EXITED, KILLED or DUMPED; 0 where it runs."""
    exit_status: int = 0
    """Its exit status, or the signal that ended it."""
    out_of_memory: bool = False
    condition_failed: bool = False
    """Whether systemd refused the last start because of a condition of the unit."""
    queued: bool = False
    """Whether systemd has a job for the unit."""
    reload_failed: bool = False
    """Whether the last reload failed."""
    reload_status: int = 0
    """The exit status of the last reload."""
    memory_left: int | None = None
    """Bytes that the unit may still take; None where it has no limit."""
    nofile: str = ""
    """LimitNOFILE= of the unit, as systemd has read it."""
    started: int = 0
    """When the main process was started, in microseconds of the monotonic clock."""

    @classmethod
    def from_properties(cls, shown: Mapping[str, str]) -> Status:
        """Return the status that ``systemctl show`` prints, without the revision."""
        path = shown.get("FragmentPath", "")
        changed = shown.get("NeedDaemonReload") == "yes"
        return cls(
            active_state=shown["ActiveState"],
            process=number(shown, "MainPID"),
            enabled=shown.get("UnitFileState") == "enabled",
            restarts=number(shown, "NRestarts"),
            path=path,
            changed=changed,
            stale=changed or not path,
            last_process=number(shown, "ExecMainPID"),
            exit_code=number(shown, "ExecMainCode"),
            exit_status=number(shown, "ExecMainStatus"),
            out_of_memory=shown.get("Result") == "oom-kill",
            condition_failed=(
                shown.get("ConditionResult") == "no"
                and number(shown, "ConditionTimestampMonotonic") > 0
            ),
            queued=number(shown, "Job") > 0,
            reload_failed=shown.get("ReloadResult", "success") != "success",
            reload_status=exit_status(shown.get("ExecReload", "")),
            memory_left=memory_left(shown),
            nofile=shown.get("LimitNOFILE", ""),
            started=number(shown, "ExecMainStartTimestampMonotonic"),
        )

    def with_revision(self, revision: str) -> Status:
        """Return the same status with the revision of the process."""
        return replace(self, revision=revision)

    @property
    def active(self) -> bool:
        """Whether a process runs or is being started.

        A start that is under way counts: systemd would join a second one to it.
        """
        return self.active_state in ("active", "activating", "reloading")

    @property
    def runs(self) -> bool:
        """Whether it must be stopped before it is stopped; a restart that is due counts."""
        return self.active_state not in ("inactive", "failed")

    @property
    def exit_reason(self) -> str:
        """How the last main process ended."""
        if self.out_of_memory:
            return "killed: out of memory"
        if self.exit_code == EXITED:
            return f"exited with status {self.exit_status}"
        if self.exit_code in (KILLED, DUMPED):
            try:
                name = signal.Signals(self.exit_status).name
            except ValueError:
                name = f"signal {self.exit_status}"
            return f"killed by {name}"
        return "its process ended and systemd started it again"


def number(shown: Mapping[str, str], name: str) -> int:
    """Return a property that is a number; 0 where systemd shows none."""
    value = shown.get(name, "")
    return int(value) if value.isdecimal() else 0


def exit_status(command: str) -> int:
    """Return the exit status of a command of a unit, as ``systemctl show`` prints it; 0: none."""
    found = re.findall(r"; code=\S+ ; status=(\d+)", command)
    return int(found[-1]) if found else 0


def memory_left(shown: Mapping[str, str]) -> int | None:
    """Return how many bytes a unit may still take; None where it has no limit."""
    limit, current = shown.get("MemoryMax", ""), number(shown, "MemoryCurrent")
    return max(int(limit) - current, 0) if limit.isdecimal() and current else None


def parse_show(text: str) -> dict[str, dict[str, str]]:
    """Return the properties that ``systemctl show`` prints, by the unit's Id."""
    found = {}
    for block in text.strip().split("\n\n"):
        shown = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in shown:
            found[shown["Id"]] = shown
    return found


def parse_names(text: str) -> list[str]:
    """Return the services that ``systemctl list-units`` or ``list-unit-files`` prints."""
    # Some versions put a mark before the name of a unit that failed or is not found.
    words = (line.split() for line in text.splitlines())
    return [word for line in words for word in line[:2] if word.endswith(".service")]


def is_up_to_date(unit: Unit, status: Status) -> bool:
    """Return whether the right process runs."""
    return status.active and has_right_process(unit, status)


def is_outdated(unit: Unit, status: Status) -> bool:
    """Return whether another process than the right one runs."""
    return status.active and not has_right_process(unit, status)


def has_right_process(unit: Unit, status: Status) -> bool:
    """Return whether the process is of the revision and is not to be replaced."""
    replaced = unit.replaced_process and status.process == unit.replaced_process
    return status.revision == unit.revision and not replaced


@dataclass(frozen=True)
class Plan:
    """What has to be done, by verb of systemctl; names of units."""

    enable: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    replace: list[str] = field(default_factory=list)
    """Workers that get a new process beside the running one: systemctl reload."""
    disable: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    """Units of which systemd forgets that they failed."""
    recount: list[str] = field(default_factory=list)
    """Units of which systemd forgets how often it has restarted them; no change."""
    reload: bool = False
    """Whether systemd has to read the unit files first."""

    @property
    def touched(self) -> set[str]:
        """The units that are changed."""
        started = {*self.enable, *self.start, *self.restart, *self.replace}
        return {*started, *self.disable, *self.stop, *self.reset}


def plan(state: State, units: Sequence[Unit], statuses: Mapping[str, Status]) -> Plan:
    """Return what brings units from what they are to a state."""

    def those(condition: Mapping[str, bool]) -> list[str]:
        return [unit.name for unit in units if condition[unit.name]]

    known = {unit.name: statuses[unit.name] for unit in units}
    runs = {name: status.runs for name, status in known.items()}
    enabled = {name: status.enabled for name, status in known.items()}
    made = Plan()
    if state == State.STARTED:
        made = Plan(
            enable=those({name: not each for name, each in enabled.items()}),
            start=those({name: not status.active for name, status in known.items()}),
        )
    elif state == State.RESTARTED:
        made = Plan(
            restart=those({unit.name: not is_up_to_date(unit, known[unit.name]) for unit in units})
        )
    elif state == State.RELOADED:
        outdated = {unit.name: not is_up_to_date(unit, known[unit.name]) for unit in units}
        # A unit that answers nobody has no sockets to keep.
        made = Plan(
            replace=those({unit.name: outdated[unit.name] and bool(unit.url) for unit in units}),
            restart=those({unit.name: outdated[unit.name] and not unit.url for unit in units}),
        )
    elif state == State.STOPPED:
        made = Plan(stop=those(runs))
    elif state == State.REMOVED:
        failed = {name: status.active_state == "failed" for name, status in known.items()}
        made = Plan(stop=those(runs), disable=those(enabled), reset=those(failed))
    # systemd does not reset its count of restarts if a unit is started while an automatic restart
    # is due. The new process would then be blamed for the failures of the old one: a release that
    # fixes a crash loop, or a background process that ended when this run restarted Redis.
    judged = set(runs) if state in ROLLS else set(made.start)
    return replace(
        made,
        recount=those({name: each.restarts > 0 and name in judged for name, each in known.items()}),
        reload=any(known[name].stale for name in made.touched),
    )


@dataclass
class Progress:
    """How far a watched unit is."""

    unit: Unit
    wanted: Phase
    """READY or STOPPED."""
    fresh: bool
    """Whether its process is a new one, which must not end."""
    former: int
    """The process before the one that it shall get; that it ends is no failure."""
    reloads: bool = False
    """Whether the new process is started beside the former one, which goes on until then."""
    status: Status = field(default_factory=Status)
    phase: Phase = Phase.STOPPED
    reason: str = ""
    """Why it is not ready, in words."""
    sockets: int = 0
    """How many it still has, while it drains."""
    ready: bool = False
    """The last answer to the question whether its process is ready."""
    asked: int = 0
    """How often its process has been asked since it started."""
    ready_at: float = 0.0
    """When it is asked next whether it is ready."""
    live_at: float = 0.0
    """When it is asked next how many sockets it has."""
    gone: int = -1
    """A process that /proc no longer has, whatever systemd still says of it."""

    @property
    def may_be_ready(self) -> bool:
        """Whether its process is the right one, and systemd has started it."""
        return (
            self.wanted == Phase.READY
            and self.status.active_state == "active"
            and self.status.process != self.gone
            and not is_outdated(self.unit, self.status)
        )

    @property
    def on_the_way_out(self) -> bool:
        """Whether the former process still runs."""
        status = self.status
        if self.wanted == Phase.STOPPED:
            return (status.active and status.process > 0) or status.active_state == "deactivating"
        outdated = is_outdated(self.unit, status) and bool(status.revision) and not self.reloads
        return outdated or status.active_state == "deactivating"

    @property
    def reload_ended(self) -> bool:
        """Whether systemd has given up the reload, and the former process goes on."""
        status = self.status
        return (
            self.reloads
            and status.active_state == "active"
            and not status.queued
            and status.reload_failed
            and is_outdated(self.unit, status)
        )

    @property
    def is_left(self) -> bool:
        """Whether its process cannot be replaced, and has to be restarted."""
        return self.reload_ended and self.status.reload_status == CANNOT_BE_REPLACED

    @property
    def ended_by_itself(self) -> str:
        """How the new process ended; empty where it has not."""
        status = self.status
        if not self.fresh or self.wanted != Phase.READY:
            return ""
        if self.reload_ended and not self.is_left:
            return "no new process took over; the former one goes on"
        if status.restarts and status.active and not self.on_the_way_out:
            return status.exit_reason
        new = status.last_process not in (0, self.former, self.unit.replaced_process)
        # Where systemd is about to start it again, still waits for ExecStartPost=, or ends the
        # processes that the new one had replaced.
        if (
            status.active_state in ("activating", "deactivating")
            and not status.process
            and status.exit_code
            and new
        ):
            return status.exit_reason
        if status.active_state == "failed" and not status.queued and new:
            return status.exit_reason
        if status.active_state == "inactive" and not status.queued and status.condition_failed:
            return "systemd does not start it: a condition of the unit is not met"
        return ""

    def see(self, status: Status) -> None:
        """Take what systemd and the process say."""
        if status.process != self.status.process or status.active_state != self.status.active_state:
            self.ready, self.asked, self.ready_at, self.live_at = False, 0, 0.0, 0.0
        self.status = status
        self.judge()

    def judge(self) -> None:
        """Derive the phase from what is known."""
        if ended := self.ended_by_itself:
            self.phase, self.reason = Phase.FAILED, ended
        elif self.may_be_ready:
            self.phase = Phase.READY if self.ready else Phase.STARTING
        elif self.on_the_way_out:
            if self.phase not in ON_THE_WAY_OUT:
                self.phase = Phase.STOPPING
            self.reason = f"process {self.status.process} has not ended"
        else:
            self.phase = Phase.STARTING if self.status.runs else Phase.STOPPED
            self.reason = f"it is {self.status.active_state}"
        if self.phase != Phase.DRAINING:
            self.sockets = 0

    def hear_ready(self, ready: bool, said: str, now: float, ask_again_after: float) -> None:
        """Take the answer to the question whether it is ready."""
        self.ready, self.reason = ready, "" if ready else said
        growing = READY_INTERVAL * READY_INTERVAL_GROWTH**self.asked
        self.ready_at = now + (ask_again_after if ready else min(growing, READY_INTERVAL_LIMIT))
        self.asked += 1
        self.judge()

    def hear_live(self, draining: bool, sockets: int, now: float) -> None:
        """Take the answer to the question how many sockets it still has."""
        self.live_at = now + LIVE_INTERVAL
        if self.phase in ON_THE_WAY_OUT:
            self.phase = Phase.DRAINING if draining else Phase.STOPPING
            self.sockets = sockets if draining else 0


def wanted_phase(state: State, unit: Unit) -> Phase:
    """Return the phase that a unit is in at the end: READY or STOPPED."""
    stops = state in STOPS or (state == State.WATCHED and not unit.revision)
    return Phase.STOPPED if stops else Phase.READY


class Watch:
    """Which questions are due until all units are where they shall be.

    The caller asks what is due (:meth:`show_due`, :meth:`ready_due`, :meth:`live_due`,
    :meth:`processes`), hands in the answers (:meth:`shown`, :meth:`heard_ready`,
    :meth:`heard_live`, :meth:`process_ended`), and sleeps until :meth:`wake_at`; until
    :meth:`is_over`.

    Args:
        units: those to wait for. Units without a URL are not waited for beside a worker: nobody is
            connected to them.
        beside: further units to look at; that one of them fails ends the watch, too.
        state: what was asked for; decides whether the units shall be ready or stopped.
        now: the clock when the watch begins; all times are its seconds.
        timeout: seconds until it ends whatever is the case, after one look at least.
        hold: seconds that the units, ready from the start, must stay ready; 0 where it ends as
            soon as they are ready.
        fresh: names of the units whose process is a new one; None for all.
        former: the process that each unit had before it was restarted, by name.
        reloaded: names of the workers that get their new process beside the former one.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        beside: Sequence[Unit] = (),
        *,
        state: State,
        now: float,
        timeout: float,
        hold: float = 0.0,
        fresh: set[str] | None = None,
        former: Mapping[str, int] | None = None,
        reloaded: Collection[str] = (),
    ) -> None:
        self.hold = hold
        # When the watch ends; with a hold, not before that is over.
        self.deadline = now + max(timeout, hold)
        self.holds_until = now + hold
        # When systemd is asked next, and when /proc.
        self.show_at = now
        self.process_at = now + PROCESS_INTERVAL
        self.progress = {
            unit.name: Progress(
                unit=unit,
                wanted=wanted_phase(state, unit),
                fresh=fresh is None or unit.name in fresh,
                former=(former or {}).get(unit.name, 0),
                reloads=unit.name in reloaded,
            )
            for unit in [*units, *beside]
        }
        own = [self.progress[unit.name] for unit in units]
        workers = [each for each in own if each.unit.url and each.wanted == Phase.READY]
        # Those that the watch waits for. A start waits for all, except for a unit that ran before
        # with another revision: that one waits for its own restart.
        self.awaited = own if state == State.STARTED else workers or own
        self.leaves_outdated = state == State.STARTED
        self.looked = False

    # What is due

    def show_due(self, now: float) -> bool:
        """Whether systemd is to be asked for all units, by one question."""
        return now >= self.show_at

    def ready_due(self, now: float) -> list[Progress]:
        """Return the units that are to be asked whether they are ready."""
        return [each for each in self._may_be_asked() if now >= each.ready_at]

    def live_due(self, now: float) -> list[Progress]:
        """Return the workers that are to be asked how many sockets they have."""
        return [each for each in self._may_drain() if now >= each.live_at]

    def processes(self) -> dict[str, int]:
        """Return the processes by unit: that one ends is the news that systemd is asked for."""
        return {
            name: each.status.process
            for name, each in self.progress.items()
            if each.status.process not in (0, each.gone)
        }

    def wake_at(self, now: float) -> float:
        """Return when something is due again."""
        due = [self.show_at, self.process_at, self.deadline]
        due += [each.ready_at for each in self._may_be_asked()]
        due += [each.live_at for each in self._may_drain()]
        return max(now, min(due))

    def _may_be_asked(self) -> Iterator[Progress]:
        for each in self.progress.values():
            if each.may_be_ready and (self.hold or not each.ready) and not self._is_left(each):
                yield each

    def _may_drain(self) -> Iterator[Progress]:
        for each in self.progress.values():
            if each.unit.url and each.phase in ON_THE_WAY_OUT and not self._is_left(each):
                yield each

    def _is_left(self, progress: Progress) -> bool:
        # A new process has no revision before systemd has replaced itself by the program.
        ran_before = self.leaves_outdated and not progress.fresh
        return ran_before and is_outdated(progress.unit, progress.status)

    # Answers

    def shown(self, statuses: Mapping[str, Status], now: float) -> None:
        """Take what systemd and the processes say of every unit."""
        for name, each in self.progress.items():
            each.see(statuses[name])
        # While a process runs, its end is seen in /proc; what has none is about to change.
        settled = all(
            each.status.process not in (0, each.gone)
            and each.status.active_state in ("active", "deactivating")
            for each in self.progress.values()
        )
        self.show_at = now + (SLOW_SHOW_INTERVAL if settled else SHOW_INTERVAL)
        self.looked = True

    def heard_ready(self, progress: Progress, ready: bool, said: str, now: float) -> None:
        """Take a unit's answer to the question whether it is ready, and what it said."""
        progress.hear_ready(ready, said, now, HOLD_INTERVAL)

    def heard_live(self, progress: Progress, live: Mapping[str, Any], now: float) -> None:
        """Take a worker's answer about its sockets; empty where it gave none."""
        progress.hear_live(bool(live.get("draining")), int(live.get("sockets", 0)), now)

    def looked_at_processes(self, ended: Sequence[str], now: float) -> None:
        """Take which units' processes are no longer in /proc: systemd is asked at once."""
        self.process_at = now + PROCESS_INTERVAL
        for name in ended:
            each = self.progress[name]
            each.gone = each.status.process
            self.show_at = now

    # The end

    @property
    def failed(self) -> Progress | None:
        """A unit that will not get where it shall be by itself."""
        for each in self.progress.values():
            if each.phase == Phase.FAILED:
                return each
        return None

    @property
    def arrived(self) -> bool:
        """Whether all that are waited for are where they shall be."""
        return not self.missing

    @property
    def missing(self) -> list[Progress]:
        """Those that are waited for and are not where they shall be."""
        return [
            each
            for each in self.awaited
            if each.phase != each.wanted and not self._is_left(each) and not each.is_left
        ]

    @property
    def lost(self) -> Progress | None:
        """In a hold, a unit that is no longer ready."""
        return next(iter(self.missing), None) if self.hold and self.looked else None

    def is_over(self, now: float) -> bool:
        """Whether nothing is left to wait for, or no time."""
        if not self.looked:
            return False
        if self.failed or self.lost or now >= self.deadline:
            return True
        return self.arrived and now >= self.holds_until
