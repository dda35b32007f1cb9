"""The action channels_roll: some workers after the other, proved, and none after a failure."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from mitogen.core import ChannelError

from .house import ROOT, Tree

PLUGIN = ROOT / "plugins" / "action" / "channels_roll.py"
PROOF = [
    "channels-prove",
    "current",
    *(f"--worker=app1:{port}=http://10.0.0.10:{port}" for port in (8001, 8002, 8003)),
]


@dataclass
class Life:
    """What becomes of a unit that is restarted: seconds of its phases, one after the other."""

    draining: float = 0
    stopping: float = 0
    starting: float = 0
    sockets: int = 0
    # Why channels_units fails with that unit; after how many seconds of readiness
    # it does, and after how many it is not ready any more.
    failure: str = ""
    fails_after: float = float("inf")
    # Its process cannot be replaced.
    is_left: bool = False
    ready_for: float = float("inf")

    def phase(self, age: float) -> str:
        for phase in ("draining", "stopping", "starting"):
            lasts: float = getattr(self, phase)
            if age < lasts:
                return phase
            age -= lasts
        return "failed" if age >= self.fails_after else "ready" if age < self.ready_for else "busy"

    def left(self, age: float) -> int:
        return round(self.sockets * (1 - age / self.draining)) if age < self.draining else 0


@dataclass
class Host:
    """A host as the action sees it, by what channels_units tells of it."""

    lives: dict[str, Life] = field(default_factory=dict)
    # Of the proofs, one after the other; the last one for ever.
    proofs: list[Tree] = field(default_factory=lambda: [{"rc": 0}])
    refusal: str = ""
    crash: Tree | None = None
    # Nothing runs there.
    idle: bool = False
    # From when on it answers nobody.
    unreachable_at: float = float("inf")
    unreachable: type[Exception] = AnsibleConnectionFailure
    stopping: bool = False
    now: float = 1000.0
    born: dict[str, float] = field(default_factory=dict)
    # What was done, without the looks.
    done: list[str] = field(default_factory=list)
    proved: list[list[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    calls: int = 0
    # By unit, until when its replaced process lives, and with how many sockets it began.
    retired: dict[str, tuple[float, int]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def execute(self, module_name: str, module_args: Tree, task_vars: Tree) -> Tree:
        """What the module channels_units would do on the host."""
        assert task_vars["inventory_hostname"] == "app1"
        if module_name == "channels_retired":
            return self.command_retired(**module_args)
        assert module_name == "channels_units"
        self.calls += 1
        assert self.calls < 1000, "it never ends"
        if self.unreachable_at <= self.now:
            raise self.unreachable("Connection timed out")
        names = [name(unit) for unit in module_args["units"]]
        beside = [name(unit) for unit in module_args["beside"]]
        assert not set(names) & set(beside)
        state, timeout = module_args["state"], module_args["timeout"]
        self.now += 0.5  # what a call takes
        stops = state in ("stopped", "removed")
        if state in ("restarted", "reloaded") or (stops and not self.stopping):
            self.done.append(f"{state} {' '.join(names)}")
            self.born.update(dict.fromkeys(names, self.now))
            self.stopping = stops
            if self.refusal:
                return {"failed": True, "msg": self.refusal}
            if self.crash:
                return self.crash
        until = self.now + timeout
        hold = module_args["hold"]
        watched = timeout > 0 or state == "watched"
        awaited = [each for each in names if "web" in each] or names
        if module_args["reloaded"]:
            awaited = [each for each in awaited if not self.lives.setdefault(each, Life()).is_left]
        end = {"stopped"} if stops else {"ready"}
        while watched and self.now < until and self.phases(awaited) != end:
            self.now += 0.5
        held = self.now + hold
        while hold and self.now < held and self.phases(awaited) == end:
            self.now += 0.5
        for each in names + beside:
            if self.phase(each) == "failed" and module_args["fail_on_exit"]:
                return failure(each, "failed", self.lives[each].failure)
        for each in awaited:
            if {self.phase(each)} != end and (hold or module_args["fail_on_timeout"]):
                what = "is no longer ready" if hold else f"is not {min(end)}"
                return failure(each, what, "503 no answer from Redis")
        told = {f"{each}.service": self.told(each, watched) for each in names + beside}
        if module_args["reloaded"]:
            for each in names:
                told[f"{each}.service"]["left"] = self.lives[each].is_left
        changed = bool(names) and not self.idle and state != "watched"
        answer: Tree = {"changed": changed, "diff": {"after": state}, "units": told}
        if watched and module_args["proof"] and self.phases(awaited) == {"ready"}:
            self.proved.append(module_args["proof"])
            self.done.append("proof")
            self.now += 0.5
            proof = self.proofs.pop(0) if len(self.proofs) > 1 else self.proofs[0]
            if proof.get("failed"):
                return proof
            answer["proof"] = {"seconds": 0.5, "output": "", **proof}
        return answer

    def command_retired(
        self, state: str, units: list[Tree], timeout: float, fail_on_timeout: bool, **more: Any
    ) -> Tree:
        """What the module channels_retired would do on the host."""
        assert more == {"release": "/srv/release", "idle_only": False}
        names = [name(unit) for unit in units]
        if state == "resumed":
            self.done += [f"resumed {name(unit)} {unit['process']}" for unit in units]
            none: Tree = {"processes": [], "sockets": 0}
            resumed = [unit["name"] for unit in units if name(unit) not in self.lost]
            lost = [unit["name"] for unit in units if name(unit) in self.lost]
            left = {unit["name"]: none for unit in units}
            common = {"changed": True, "units": left, "busy": []}
            return {**common, "resumed": resumed, "lost": lost}
        self.done.append(f"drained {' '.join(names)}")
        there = [each for each in names if self.retired.get(each, (0.0, 0))[0] > self.now]
        until = max((self.retired[each][0] for each in there), default=self.now)
        self.now = min(self.now + timeout, until)
        told: Tree = {}
        for each in names:
            end, sockets = self.retired.get(each, (0.0, 0))
            runs = end > self.now
            of: Tree = {"processes": [77] if runs else [], "sockets": sockets if runs else 0}
            told[f"{each}.service"] = of
        if fail_on_timeout and any(each["processes"] for each in told.values()):
            return {"failed": True, "msg": "process 77 still has 5 sockets or requests"}
        return {"changed": bool(there), "units": told, "busy": [], "resumed": [], "lost": []}

    def phase(self, unit: str) -> str:
        age = self.now - self.born[unit]
        phase = self.lives.setdefault(unit, Life()).phase(age)
        return "stopped" if self.stopping and phase in ("starting", "ready") else phase

    def phases(self, units: list[str]) -> set[str]:
        return {self.phase(unit) for unit in units}

    def told(self, unit: str, looked_at: bool) -> Tree:
        phase = self.phase(unit)
        # A roll that does not watch does not say how far they are.
        seen = phase if looked_at else ""
        return {
            "phase": seen,
            "sockets": self.lives[unit].left(self.now - self.born[unit]) if seen else 0,
        }


def failure(unit: str, what: str, reason: str) -> Tree:
    """What the module says where it fails because of a unit."""
    journal = f"journal of {unit}"
    told = {"unit": f"{unit}.service", "label": label(unit), "what": what, "reason": reason}
    return {"failed": True, "msg": "", "failure": {**told, "journal": journal}}


def label(unit: str) -> str:
    return f"app1:{unit.removeprefix('channels-').rpartition('@')[2]}"


def worker(port: int) -> Tree:
    return {
        "name": f"channels-web@{port}.service",
        "label": f"app1:{port}",
        "url": f"http://10.0.0.10:{port}",
    }


THUMBNAILS = {
    "name": "channels-background@thumbnails.service",
    "label": "app1:thumbnails",
    "connected_to": [6379],
}
CELERY = {"name": "channels-celery.service", "label": "app1:celery", "connected_to": [6380]}
EVERY = [worker(8001), worker(8002), worker(8003), THUMBNAILS, CELERY]


def name(unit: Tree) -> str:
    return str(unit["name"]).removesuffix(".service")


@pytest.fixture
def host() -> Host:
    return Host()


Roll = Callable[..., Tree]


@pytest.fixture
def roll(host: Host, monkeypatch: pytest.MonkeyPatch) -> Roll:
    spec = importlib.util.spec_from_file_location("channels_roll", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "channels_roll", module)
    spec.loader.exec_module(module)
    clock = SimpleNamespace(monotonic=lambda: host.now, time=lambda: 500.0 + host.now)
    monkeypatch.setattr(module, "time", clock)

    def run(
        units: list[Tree], check: bool = False, proof: list[str] | None = PROOF, **more: Any
    ) -> Tree:
        arguments = {
            "units": units,
            "number": 1,
            "total": len(units),
            "stop_timeout": "450",
            "ready_timeout": 60,
            "canary_seconds": 6,
            **({} if proof is None else {"proof": proof}),
            **more,
        }
        task = SimpleNamespace(args=arguments, check_mode=check, async_val=0)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
        rest: Tree = dict.fromkeys(("play_context", "loader", "templar"))
        action = module.ActionModule(task=task, connection=connection, **rest)
        monkeypatch.setattr(action, "_execute_module", host.execute)
        monkeypatch.setattr(action, "_display", SimpleNamespace(display=host.said.append))
        answer: Tree = action.run(task_vars={"inventory_hostname": "app1"})
        return answer

    return run


def test_workers_are_restarted_and_proved_one_after_the_other(host: Host, roll: Roll) -> None:
    answer = roll([worker(8001), worker(8002), worker(8003)])

    assert host.done == [
        *("restarted channels-web@8001", "proof"),
        *("restarted channels-web@8002", "proof"),
        *("restarted channels-web@8003", "proof"),
    ]
    assert answer.get("failed", False) is False
    assert answer["changed"] is True
    assert answer["restarted"] == [f"channels-web@{port}.service" for port in (8001, 8002, 8003)]


def test_a_worker_is_touched_when_the_one_before_is_ready(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8001"] = Life(draining=30, stopping=5, starting=5, sockets=212)
    roll([worker(8001), worker(8002)])
    assert host.born["channels-web@8002"] >= host.born["channels-web@8001"] + 40


def test_background_units_are_restarted_on_a_later_host_beside_its_worker(
    host: Host, roll: Roll
) -> None:
    roll([worker(8001), CELERY], number=6, total=7)
    assert host.done == ["restarted channels-web@8001 channels-celery", "proof"]


def test_background_units_are_not_restarted_beside_the_canary(host: Host, roll: Roll) -> None:
    """It may show that the release is bad."""
    roll([worker(8001), CELERY])
    assert host.done == ["restarted channels-web@8001", "proof", "restarted channels-celery"]


def test_background_units_are_restarted_at_once_beside_the_second_worker(
    host: Host, roll: Roll
) -> None:
    """Whom they do not keep waiting; and nobody proves them."""
    host.lives["channels-celery"] = Life(stopping=10, starting=5)
    answer = roll(EVERY)
    assert host.done == [
        *("restarted channels-web@8001", "proof"),
        *("restarted channels-web@8002 channels-background@thumbnails channels-celery", "proof"),
        *("restarted channels-web@8003", "proof"),
    ]
    # They are waited for last, together.
    assert host.said[-3:] == [
        "  3/5 app1:8003 proved in 0.5 s",
        "  4/5 app1:thumbnails app1:celery starting",
        "  4/5 app1:thumbnails app1:celery ready after 15.5 s",
    ]
    assert host.phases(["channels-celery", "channels-background@thumbnails"]) == {"ready"}
    assert not [line for line in host.said if "draining" in line], "nobody is connected to them"
    assert len(answer["restarted"]) == 5


def test_background_units_that_are_ready_with_the_last_worker_are_not_asked_again(
    host: Host, roll: Roll
) -> None:
    roll([worker(8001), worker(8002), THUMBNAILS], number=4, total=6)
    assert host.calls == 2
    assert host.said[-1] == "  6/6 app1:thumbnails ready after 2.0 s"


def test_background_units_alone_are_restarted_once(host: Host, roll: Roll) -> None:
    host.lives["channels-celery"] = Life(stopping=10)
    assert roll([THUMBNAILS, CELERY]).get("failed", False) is False
    assert host.done == ["restarted channels-background@thumbnails channels-celery"]
    assert host.phase("channels-celery") == "ready"


def test_phases_are_said_with_number_host_and_unit(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8002"] = Life(draining=6, stopping=1, starting=5, sockets=300)
    roll([worker(8002), THUMBNAILS], number="3", total="7")
    assert host.said == [
        "  3/7 app1:8002 draining: 200 sockets left, 2 s",
        "  3/7 app1:8002 draining: 75 sockets left, 5 s",
        "  3/7 app1:8002 starting",
        "  3/7 app1:8002 ready after 12.5 s",
        "  3/7 app1:8002 proved in 0.5 s",
        "  4/7 app1:thumbnails ready after 13.0 s",
    ]


# The canary


def test_the_first_worker_of_the_cluster_is_watched_once(host: Host, roll: Roll) -> None:
    roll([worker(8001), worker(8002)])
    assert [line for line in host.said if "canary" in line] == [
        "  1/2 app1:8001 canary ready for 6 s"
    ]
    assert host.born["channels-web@8002"] >= host.born["channels-web@8001"] + 6


def test_the_first_worker_of_a_later_host_is_not_watched(host: Host, roll: Roll) -> None:
    roll([worker(8001), worker(8002)], number=3, total=4)
    assert not [line for line in host.said if "canary" in line]
    assert host.now < 1006


@pytest.mark.parametrize(
    ("life", "said"),
    [
        (Life(fails_after=5, failure="exited with status 3"), "failed: exited with status 3"),
        (Life(ready_for=5.5), "is no longer ready: 503 no answer from Redis"),
    ],
)
def test_after_a_canary_that_does_not_hold_nothing_is_touched(
    host: Host, roll: Roll, life: Life, said: str
) -> None:
    host.lives["channels-web@8001"] = life
    answer = roll(EVERY)
    assert answer["failed"] is True
    assert answer["msg"].startswith("1/5 app1:8001 ")
    assert said in answer["msg"]
    assert host.done == ["restarted channels-web@8001", "proof"]


# Proofs


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"rc": 1, "output": "app1 -> app2: lost"},
            "not proved\napp1 -> app2: lost",
        ),
        ({"failed": True, "msg": "no such program"}, "no such program"),
    ],
)
def test_after_a_worker_that_is_not_proved_none_is_touched(
    host: Host, roll: Roll, found: Tree, said: str
) -> None:
    host.proofs = [{"rc": 0}, found]
    answer = roll([worker(8001), worker(8002), worker(8003)], number=2, total=4)
    assert answer["failed"] is True
    assert answer["msg"] == f"3/4 app1:8002 failed: {said}"
    assert host.done[-2:] == ["restarted channels-web@8002", "proof"]


def test_the_proof_is_the_one_that_is_given(host: Host, roll: Roll) -> None:
    roll(EVERY)
    assert host.proved == [PROOF] * 3


def test_the_long_proof_runs_while_the_canary_is_watched(host: Host, roll: Roll) -> None:
    long = [*PROOF, "--long"]
    roll(EVERY, canary_proof=long)
    assert host.proved == [PROOF, long, PROOF, PROOF]
    assert host.done[:3] == ["restarted channels-web@8001", "proof", "proof"]


def test_after_a_canary_whose_long_proof_is_red_nothing_is_touched(host: Host, roll: Roll) -> None:
    output = "/ws/ on app1:8001: closed with 1011 after 6.0 s"
    host.proofs = [{"rc": 0}, {"rc": 1, "output": output}]
    answer = roll(EVERY, canary_proof=PROOF)
    assert answer["failed"] is True
    assert answer["msg"] == f"1/5 app1:8001 failed: not proved\n{output}"
    assert host.done == ["restarted channels-web@8001", "proof", "proof"]


def test_what_was_proved_is_said(host: Host, roll: Roll) -> None:
    output = "directly: ...\n\nProved: wires (4 of 4 pairs), pages (/ on 2 workers)."
    host.proofs = [{"rc": 0, "output": output}]
    roll([worker(8002)], number=2, total=2)
    assert host.said[-1] == (
        "  2/2 app1:8002 proved in 0.5 s: wires (4 of 4 pairs), pages (/ on 2 workers)."
    )


def test_a_canary_that_is_not_proved_is_not_watched(host: Host, roll: Roll) -> None:
    host.proofs = [{"rc": 1, "output": "lost"}]
    roll(EVERY)
    assert host.now < 1006
    assert host.done == ["restarted channels-web@8001", "proof"]


def test_without_a_proof_none_is_made_and_no_canary_watched(host: Host, roll: Roll) -> None:
    """As where workers are put back: the gate is behind them."""
    assert roll(EVERY, proof=None).get("failed", False) is False
    assert "proof" not in host.done
    assert not [line for line in host.said if "canary" in line]


# Failures


def test_a_worker_that_ends_by_itself_fails_with_its_own_words(host: Host, roll: Roll) -> None:
    ended = "exited with status 3"
    host.lives["channels-web@8002"] = Life(starting=3, fails_after=0, failure=ended)
    answer = roll([worker(8001), worker(8002), worker(8003)])
    assert answer["failed"] is True
    assert answer["msg"] == (
        "2/3 app1:8002 failed: exited with status 3\n"
        "Last journal lines of channels-web@8002.service:\njournal of channels-web@8002"
    )
    assert host.done[-1] == "restarted channels-web@8002"


def test_what_systemd_refuses_is_a_failure(host: Host, roll: Roll) -> None:
    host.refusal = "systemctl restart failed: Job for channels-web@8001.service"
    assert roll([worker(8001)])["msg"] == f"1/1 app1:8001 failed: {host.refusal}"
    assert host.done == ["restarted channels-web@8001"]


@pytest.mark.parametrize(
    ("starting", "said"),
    [(1, "3/5 app1:celery failed: exited"), (20, "4/5 app1:celery failed: exited")],
)
def test_background_units_that_fail_are_found_while_workers_are_watched_or_at_the_end(
    host: Host, roll: Roll, starting: float, said: str
) -> None:
    host.lives["channels-celery"] = Life(starting=starting, fails_after=0, failure="exited")
    assert roll(EVERY)["msg"].splitlines()[0] == said
    assert host.done[-1] in ("restarted channels-web@8003", "proof")


def test_a_worker_that_never_gets_ready_fails_at_its_deadline(host: Host, roll: Roll) -> None:
    """Which begins when it starts: what it takes to drain is none of that."""
    host.lives["channels-web@8001"] = Life(draining=200, starting=10_000, sockets=10_000)
    answer = roll([worker(8001), worker(8002)])
    assert answer["msg"].startswith("1/2 app1:8001 is not ready: ")
    assert answer["msg"].endswith("journal of channels-web@8001")
    assert host.done == ["restarted channels-web@8001"]
    assert 260 < host.now - 1000 < 270


@pytest.mark.parametrize("proof", [None, PROOF])
def test_a_worker_that_is_ready_at_the_last_moment_is_no_failure(
    host: Host, roll: Roll, proof: list[str] | None
) -> None:
    # Between the last watch and the start that would fail.
    host.lives["channels-web@8001"] = Life(starting=62.2)
    answer = roll([worker(8001), CELERY], proof=proof, number=2)
    assert host.done == [
        "restarted channels-web@8001 channels-celery",
        *(["proof"] if proof else []),
    ]
    assert answer.get("failed", False) is False
    assert host.said[-1].startswith("  3/2 app1:celery ready")


def test_without_a_ready_timeout_workers_are_put_back_that_do_not_get_ready(
    host: Host, roll: Roll
) -> None:
    """As in an outage: each runs what it ran, one after the other."""
    for port in (8001, 8002):
        host.lives[f"channels-web@{port}"] = Life(draining=20, starting=10_000, sockets=100)
    host.lives["channels-celery"] = Life(fails_after=0, failure="exited with status 1")
    answer = roll([worker(8001), worker(8002), CELERY], proof=None, ready_timeout=0)
    assert answer.get("failed", False) is False
    assert host.done == [
        "restarted channels-web@8001",
        "restarted channels-web@8002 channels-celery",
    ]
    assert host.born["channels-web@8002"] >= host.born["channels-web@8001"] + 20
    assert host.now < 1060


def test_a_worker_that_never_stops_fails_when_systemd_should_have_killed_it(
    host: Host, roll: Roll
) -> None:
    host.lives["channels-web@8001"] = Life(stopping=10_000)
    answer = roll([worker(8001), worker(8002)])
    assert answer["failed"] is True
    assert answer["msg"].startswith("1/2 app1:8001 is not ready: ")
    assert 450 < host.now - 1000 < 460
    assert "restarted channels-web@8002" not in host.done


# Stopping


@pytest.mark.parametrize("step", ["stopped", "removed"])
def test_units_are_stopped_at_once_and_it_is_said_how_far_they_are(
    host: Host, roll: Roll, step: str
) -> None:
    host.lives["channels-web@8001"] = Life(draining=5, stopping=1, sockets=100)
    host.lives["channels-web@8002"] = Life(draining=3, sockets=200)
    answer = roll([worker(8001), worker(8002), CELERY], state=step)
    assert host.done == [f"{step} channels-web@8001 channels-web@8002 channels-celery"]
    assert host.said == [
        "  app1:8001 app1:8002 app1:celery draining: 127 sockets left, 2 s",
        "  app1:8001 app1:8002 app1:celery draining: 10 sockets left, 5 s",
        "  app1:8001 app1:8002 app1:celery stopped after 6.5 s",
    ]
    assert answer["changed"] is True
    assert answer.get("failed", False) is False


def test_where_nothing_runs_nothing_is_said(host: Host, roll: Roll) -> None:
    host.idle = True
    assert roll([worker(8001)], state="stopped")["changed"] is False
    assert host.said == []


def test_a_dry_run_says_what_would_be_stopped(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8001"] = Life(draining=100, sockets=100)
    assert roll([worker(8001)], state="stopped", check=True)["changed"] is True
    # A dry run of channels_units' own.
    assert host.calls == 1


def test_a_unit_that_does_not_stop_is_a_failure(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8001"] = Life(stopping=10_000)
    answer = roll([worker(8001)], state="stopped")
    assert answer["failed"] is True
    assert answer["msg"].startswith("app1:8001 is not stopped: ")
    assert 450 <= host.now - 1000 < 460


def test_a_stop_that_systemd_refuses_is_a_failure(host: Host, roll: Roll) -> None:
    host.refusal = "systemctl stop failed: no such unit"
    assert roll([worker(8001)], state="stopped")["msg"] == f"app1:8001 failed: {host.refusal}"


# Nothing to do


def test_a_host_without_outdated_units_is_not_changed(host: Host, roll: Roll) -> None:
    answer = roll([])
    assert (answer["changed"], answer["restarted"]) == (False, [])
    assert host.calls == 0


def test_check_mode_asks_what_would_be_restarted_and_touches_nothing(
    host: Host, roll: Roll
) -> None:
    answer = roll(EVERY, check=True)
    assert answer["changed"] is True
    assert answer["diff"] == [{"after": "restarted"}]
    # A dry run of channels_units' own.
    assert host.calls == 1
    assert answer["restarted"] == []
    assert host.said == []


# The host


@pytest.mark.parametrize("error", [AnsibleConnectionFailure, ChannelError])
def test_a_host_that_becomes_unreachable_ends_the_roll(
    host: Host, roll: Roll, error: type[Exception]
) -> None:
    """As a failure: Ansible would put no host back after an unreachable one."""
    host.unreachable = error
    host.lives["channels-web@8002"] = Life(draining=60, sockets=1000)
    host.unreachable_at = 1020
    answer = roll(EVERY)
    assert answer["failed"] is True
    assert answer["msg"] == "2/5 app1:8002 failed: host unreachable\nConnection timed out"
    assert host.done[-1].startswith("restarted channels-web@8002")


def test_a_module_that_crashes_is_a_failure_with_what_it_said(host: Host, roll: Roll) -> None:
    host.crash = {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "No space left"}
    said = "1/1 app1:8001 failed: MODULE FAILURE\nNo space left"
    assert roll([worker(8001)])["msg"] == said


def test_a_long_drain_is_reported_less_often(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8001"] = Life(draining=200, sockets=10_000)
    roll([worker(8001)])
    assert 40 <= len([line for line in host.said if "draining" in line]) < 50


# Waves


def test_the_workers_of_a_wave_are_restarted_at_once(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8002"] = Life(draining=20, sockets=100)
    answer = roll([worker(8002), worker(8003), CELERY], number=2, total=6, at_once=3, proof=None)
    assert host.done == ["restarted channels-web@8002 channels-web@8003 channels-celery"]
    assert host.said[-2].startswith("  2/6 app1:8002 app1:8003 ready after ")
    assert answer["seconds"] > 20


def test_new_processes_are_started_beside_the_former_ones(host: Host, roll: Roll) -> None:
    """What the former ones do until then is no drain."""
    for port in (8002, 8003):
        host.lives[f"channels-web@{port}"] = Life(starting=3)
    answer = roll(
        [worker(8002), worker(8003)],
        proof=None,
        state="reloaded",
        number=2,
        total=6,
        at_once=2,
    )
    assert host.done == ["reloaded channels-web@8002 channels-web@8003"]
    assert host.said == [
        "  2/6 app1:8002 app1:8003 starting",
        "  2/6 app1:8002 app1:8003 ready after 3.5 s",
    ]
    assert (answer.get("failed", False), answer["left"]) == (False, [])
    assert answer["changed"] is True


def test_workers_that_cannot_be_replaced_are_left_to_later_waves(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8002"] = Life(is_left=True, starting=10_000)
    answer = roll(
        [worker(8002), worker(8003)],
        proof=None,
        state="reloaded",
        number=2,
        total=6,
        at_once=2,
    )
    assert answer.get("failed", False) is False
    assert answer["left"] == ["channels-web@8002.service"]
    assert answer["ansible_facts"] == {"_channels_left_units": ["channels-web@8002.service"]}
    assert "restarted channels-web@8002" not in host.done


def test_a_canary_that_cannot_be_replaced_is_restarted_at_once(host: Host, roll: Roll) -> None:
    """It is alone, and nobody else is touched before it is proved."""
    host.lives["channels-web@8001"] = Life(is_left=True)
    answer = roll([worker(8001)], state="reloaded")
    assert host.done[:3] == ["reloaded channels-web@8001", "restarted channels-web@8001", "proof"]
    assert answer["left"] == []


def test_the_roll_begins_with_the_canary(host: Host, roll: Roll) -> None:
    """Its proofs count, the long one too."""
    facts = roll([worker(8001)], state="reloaded", canary_proof=PROOF)["ansible_facts"]
    assert facts == {"_channels_roll_times": {"began": 1500.0, "proving": 1.0}}
    assert "ansible_facts" not in roll([worker(8001)], state="reloaded", number=2, proof=None)


def test_a_reload_that_failed_is_a_failure(host: Host, roll: Roll) -> None:
    host.lives["channels-web@8002"] = Life(fails_after=0, failure="no new process took over")
    answer = roll([worker(8002), worker(8003)], state="reloaded", number=2, total=6, at_once=2)
    assert answer["failed"] is True
    assert answer["msg"].startswith("2/6 app1:8002 failed: no new process took over\n")


def test_a_reload_may_fail_by_itself_before_it_is_given_up(host: Host, roll: Roll) -> None:
    """What took over after that would not be put back."""
    host.lives["channels-web@8002"] = Life(starting=10_000)
    answer = roll([worker(8002)], state="reloaded", number=2, total=6, proof=None)
    assert answer["msg"].startswith("2/6 app1:8002 is not ready: ")
    assert 75 <= host.now - 1000 < 80


def test_background_units_of_a_wave_are_not_waited_for(host: Host, roll: Roll) -> None:
    host.lives["channels-celery"] = Life(stopping=100)
    waited = {"awaits_background": False, "number": 2, "total": 6, "proof": None}
    assert roll([worker(8002), CELERY], **waited).get("failed", False) is False
    assert roll([THUMBNAILS], **waited).get("failed", False) is False
    assert host.now < 1010
    assert host.done[-1] == "restarted channels-background@thumbnails"


# Processes that were replaced

DRAIN = {"state": "drained", "release": "/srv/release"}


def test_replaced_processes_drain_and_it_is_said_how_far_they_are(host: Host, roll: Roll) -> None:
    host.retired = {"channels-web@8001": (1005.0, 80), "channels-web@8002": (1003.0, 40)}
    answer = roll([worker(8001), worker(8002)], at_once=2, **DRAIN)
    assert set(host.done) == {"drained channels-web@8001 channels-web@8002"}
    assert host.said == [
        "  app1:8001 app1:8002 draining: 120 sockets left, 2 s",
        "  app1:8001 app1:8002 draining: 80 sockets left, 4 s",
        "  app1:8001 app1:8002 drained after 5.0 s",
    ]
    assert answer["changed"] is True


def test_a_dry_run_waits_for_no_replaced_process(host: Host, roll: Roll) -> None:
    host.retired = {"channels-web@8001": (9000.0, 5)}
    assert roll([worker(8001)], check=True, **DRAIN)["changed"] is True
    assert host.now < 1010


def test_no_more_replaced_processes_drain_at_once_than_the_limit(host: Host, roll: Roll) -> None:
    roll([worker(8001), worker(8002)], at_once=1, **DRAIN)
    assert host.done == ["drained channels-web@8001", "drained channels-web@8002"]
    assert host.said == [], "there were none"


def test_a_replaced_process_that_does_not_end_is_a_failure(host: Host, roll: Roll) -> None:
    host.retired = {"channels-web@8001": (9000.0, 5)}
    answer = roll([worker(8001)], **DRAIN)
    assert answer["failed"] is True
    assert answer["msg"] == "app1:8001 failed: process 77 still has 5 sockets or requests"
    assert 450 <= host.now - 1000 < 470


def test_former_processes_get_their_ports_back_all_at_once(host: Host, roll: Roll) -> None:
    host.lost = ["channels-web@8002"]
    units = [{**worker(port), "replaced_process": 40 + port % 10} for port in (8001, 8002)]
    answer = roll(units, state="resumed", release="/srv/release")
    assert host.done == ["resumed channels-web@8001 41", "resumed channels-web@8002 42"]
    assert host.said == ["  app1:8001: the former processes have the ports"]
    assert answer["resumed"] == ["channels-web@8001.service"]
    assert answer["lost"] == ["channels-web@8002.service"]
