"""What module_utils/channels_units.py decides, by calls alone: no process, no clock, no systemd."""

import importlib
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from .house import own_module_utils

if TYPE_CHECKING:
    from plugins.module_utils import channels_units as core
else:
    own_module_utils()
    core = importlib.import_module("ansible.module_utils.channels_units")

WEB = core.Unit("web", "app1:8001", revision="new", url="http://10.0.0.10:8001")
CELERY = core.Unit("celery", "app1:celery", revision="new", connected_to=[6380])
OLD = core.Status("active", process=7, last_process=7, revision="old")
DRAINING = core.Status("deactivating", process=7, last_process=7, revision="old")
STARTING = core.Status("activating", process=8, last_process=8, revision="new")
NEW = core.Status("active", process=8, last_process=8, revision="new")


def watch(*units: Any, state: str = "restarted", **more: Any) -> Any:
    more = {"now": 0.0, "timeout": 60.0, **more}
    return core.Watch(units or [WEB], state=core.State(state), **more)


def phase(progress: Any) -> str:
    found: str = progress.phase
    return found


# The phases


def test_the_phases_are_those_that_an_operator_reads() -> None:
    assert [each.value for each in core.Phase] == [
        *("draining", "stopping", "stopped", "starting", "ready", "failed"),
    ]


def test_a_restart_goes_through_every_phase() -> None:
    seen = watch()
    web = seen.progress["web"]
    phases = []
    for now, status in enumerate((OLD, DRAINING, core.Status(queued=True), STARTING, NEW)):
        seen.shown({"web": status}, float(now))
        phases.append(phase(web))
        if status == DRAINING:
            seen.heard_live(web, {"draining": True, "sockets": 212}, float(now))
            phases.append(phase(web))
            assert web.sockets == 212
    seen.heard_ready(web, False, "503", 5.0)
    phases.append(phase(web))
    seen.heard_ready(web, True, "", 5.1)
    phases.append(phase(web))
    assert phases == [
        *("stopping", "stopping", "draining", "stopped", "starting", "starting", "starting"),
        "ready",
    ]
    assert web.sockets == 0
    assert seen.is_over(5.1)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (core.Status("activating", last_process=8, exit_code=1, exit_status=3), "status 3"),
        (core.Status("activating", last_process=8, exit_code=2, exit_status=6), "SIGABRT"),
        (core.Status("failed", last_process=8, exit_code=1, exit_status=203), "status 203"),
        (core.Status("activating", process=9, restarts=1), "systemd started it again"),
        (core.Status("inactive", condition_failed=True), "condition"),
        # Of the former process, or not at its end yet.
        (core.Status("activating", last_process=7, exit_code=1, exit_status=3), ""),
        (core.Status("failed", last_process=8, exit_code=1, queued=True), ""),
        (core.Status("inactive", last_process=8, exit_code=1), ""),
        (core.Status("inactive", condition_failed=True, queued=True), ""),
        (core.Status("deactivating", process=7, revision="old", restarts=3), ""),
    ],
)
def test_a_new_process_fails_by_its_own_end_alone(status: Any, why: str) -> None:
    seen = watch(former={"web": 7})
    seen.shown({"web": status}, 0.0)
    progress = seen.progress["web"]
    assert (phase(progress) == "failed") is bool(why)
    assert why in progress.reason
    assert seen.is_over(0.0) is bool(why)


def test_who_is_stopped_does_not_fail_by_its_end() -> None:
    seen = watch(state="stopped")
    seen.shown({"web": core.Status("activating", last_process=8, exit_code=1, restarts=4)}, 0.0)
    assert seen.failed is None
    seen.shown({"web": core.Status("failed")}, 1.0)
    assert seen.arrived


# A new process beside the former one

RELOADING = core.Status("reloading", process=7, last_process=7, revision="old")
FAILED: dict[str, Any] = {"reload_failed": True, "reload_status": 1}


def reloaded(*units: Any) -> Any:
    return watch(*units, state="reloaded", reloaded={"web"}, former={"web": 7})


def test_the_former_process_goes_on_until_the_new_one_takes_over() -> None:
    seen = reloaded()
    web = seen.progress["web"]
    for now, status in enumerate((core.Status("active", 7, "old", queued=True), RELOADING)):
        seen.shown({"web": status}, float(now))
        assert phase(web) == "starting"
        assert seen.live_due(float(now)) == [], "it does not drain"
        assert not seen.is_over(float(now))
    seen.shown({"web": NEW}, 2.0)
    seen.heard_ready(web, True, "", 2.1)
    assert phase(web) == "ready"
    assert seen.is_over(2.1)


def test_a_reload_that_failed_is_a_failure_and_the_former_process_goes_on() -> None:
    seen = reloaded()
    seen.shown({"web": core.Status("active", 7, "old", last_process=7, **FAILED)}, 1.0)
    assert phase(seen.progress["web"]) == "failed"
    assert seen.progress["web"].reason == "no new process took over; the former one goes on"
    assert seen.is_over(1.0)


def test_an_earlier_reload_that_failed_is_none_of_this_one() -> None:
    seen = reloaded()
    seen.shown({"web": core.Status("active", 7, "old", queued=True, **FAILED)}, 0.0)
    assert phase(seen.progress["web"]) == "starting"
    # systemd has heard that the reload ended, and not yet who is the main process.
    seen.shown({"web": core.Status("active", 7, "old")}, 1.0)
    assert phase(seen.progress["web"]) == "starting"
    assert not seen.is_over(1.0)


def test_a_process_that_cannot_be_replaced_is_no_failure_and_not_waited_for() -> None:
    seen = reloaded()
    left: dict[str, Any] = {**FAILED, "reload_status": core.CANNOT_BE_REPLACED}
    seen.shown({"web": core.Status("active", 7, "old", **left)}, 1.0)
    assert seen.failed is None
    assert seen.progress["web"].is_left
    assert seen.is_over(1.0)


def test_workers_are_reloaded_and_what_answers_nobody_is_restarted() -> None:
    right = core.Unit("right", "right", revision="old", url="http://10.0.0.10:8002")
    made = core.plan(
        core.State.RELOADED, [WEB, CELERY, right], dict.fromkeys(["web", "celery", "right"], OLD)
    )
    assert (made.replace, made.restart, made.start) == (["web"], ["celery"], [])
    assert made.touched == {"web", "celery"}
    assert made.reload


def test_systemd_forgets_the_restarts_of_before_a_reload() -> None:
    """Else the new process is blamed for them."""
    restarted = core.Status("active", 7, "old", restarts=2)
    assert core.plan(core.State.RELOADED, [WEB], {"web": restarted}).recount == ["web"]


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ("{ path=/x ; argv[]=/x -- a ; pid=9 ; code=exited ; status=3 }", 3),
        ("{ path=/x ; argv[]=/x ; pid=0 ; code=(null) ; status=0/0 }", 0),
        ("", 0),
    ],
)
def test_the_exit_status_of_a_reload_is_read(shown: str, status: int) -> None:
    properties = {"ActiveState": "active", "ExecReload": shown, "ReloadResult": "exit-code"}
    found = core.Status.from_properties(properties)
    assert (found.reload_failed, found.reload_status) == (True, status)


@pytest.mark.parametrize(
    ("limit", "current", "left"),
    [
        ("infinity", "100", None),
        ("1000", "400", 600),
        ("1000", "1200", 0),
        ("1000", "[not set]", None),
    ],
)
def test_what_a_unit_may_still_take_follows_from_its_limit(
    limit: str, current: str, left: int | None
) -> None:
    shown = {"ActiveState": "active", "MemoryMax": limit, "MemoryCurrent": current}
    assert core.Status.from_properties(shown).memory_left == left


# The intervals


def asked_at(seen: Any, until: float, ready_at: float) -> dict[str, list[float]]:
    """When each question is asked of a unit that is ready from some time on."""
    asked: dict[str, list[float]] = {"show": [], "ready": [], "live": []}
    now = 0.0
    while now < until:
        if seen.show_due(now):
            asked["show"].append(now)
            seen.shown({"web": NEW}, now)
        for each in seen.ready_due(now):
            asked["ready"].append(now)
            seen.heard_ready(each, now >= ready_at, "503", now)
        if seen.is_over(now):
            break
        later = seen.wake_at(now)
        assert later > now
        now = later
        seen.looked_at_processes([], now)
    return asked


def test_readiness_is_asked_for_with_a_growing_interval() -> None:
    asked = asked_at(watch(), until=60.0, ready_at=10.0)["ready"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps[0] == pytest.approx(0.1)
    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(0.5)
    assert len(asked) < 26, "200 by a question every 50 ms"


def test_systemd_is_asked_once_a_second_while_every_process_runs() -> None:
    assert len(asked_at(watch(), until=60.0, ready_at=10.0)["show"]) == 11


def test_a_new_process_is_asked_early_again() -> None:
    seen = watch()
    web = seen.progress["web"]
    for now in range(10):
        seen.shown({"web": NEW}, float(now))
        seen.heard_ready(web, False, "503", float(now))
    seen.shown({"web": core.Status("active", process=9, revision="new")}, 10.0)
    seen.heard_ready(web, False, "503", 10.0)
    assert web.ready_at == pytest.approx(10.1)


def test_sockets_are_counted_once_a_second() -> None:
    seen = watch()
    web = seen.progress["web"]
    counted = 0
    for tick in range(100):
        seen.shown({"web": DRAINING}, tick / 10)
        if seen.live_due(tick / 10):
            counted += 1
            seen.heard_live(web, {"draining": True, "sockets": 1}, tick / 10)
    assert counted == 10


def test_a_unit_that_answers_nobody_is_not_asked_for_its_sockets() -> None:
    seen = watch(CELERY)
    seen.shown({"celery": DRAINING}, 0.0)
    assert seen.live_due(0.0) == []


@pytest.mark.parametrize(("status", "wait"), [(NEW, 1.0), (STARTING, 0.25), (core.Status(), 0.25)])
def test_what_is_about_to_change_is_asked_about_sooner(status: Any, wait: float) -> None:
    seen = watch()
    seen.shown({"web": status}, 3.0)
    assert seen.show_at == pytest.approx(3.0 + wait)


def test_a_process_that_is_gone_has_systemd_asked_at_once_and_only_once() -> None:
    seen = watch()
    seen.shown({"web": DRAINING}, 0.0)
    assert seen.processes() == {"web": 7}
    seen.looked_at_processes(["web"], 0.3)
    assert seen.show_due(0.3)
    # systemd has not noticed yet.
    seen.shown({"web": DRAINING}, 0.3)
    assert seen.processes() == {}
    assert not seen.show_due(0.4)
    assert seen.show_due(0.55)


def test_a_process_that_is_gone_is_not_ready_whatever_systemd_says() -> None:
    seen = watch(hold=6.0)
    seen.shown({"web": NEW}, 0.0)
    seen.heard_ready(seen.progress["web"], True, "", 0.0)
    assert not seen.is_over(0.0)
    seen.looked_at_processes(["web"], 0.1)
    seen.shown({"web": NEW}, 0.1)
    assert seen.lost is seen.progress["web"]


def test_a_watch_always_takes_one_look() -> None:
    seen = watch(timeout=0.0)
    assert not seen.is_over(100.0)
    seen.shown({"web": OLD}, 100.0)
    assert seen.is_over(100.0)


def test_a_start_waits_for_a_process_that_has_no_revision_yet() -> None:
    just_forked = core.Status("activating", process=8, last_process=8, revision="")
    seen = watch(state="started", fresh={"web"})
    seen.shown({"web": just_forked}, 0.0)
    assert not seen.is_over(0.0)


def test_a_start_does_not_wait_for_a_unit_that_ran_before_with_another_revision() -> None:
    seen = watch(state="started", fresh=set())
    seen.shown({"web": OLD}, 0.0)
    assert seen.is_over(0.0)


# The plan


def planned(state: str, statuses: Mapping[str, Any], *units: Any) -> dict[str, Any]:
    made = core.plan(core.State(state), units or [WEB], statuses)
    return {name: value for name, value in vars(made).items() if value}


@pytest.mark.parametrize(
    ("state", "status", "made"),
    [
        ("gathered", OLD, {}),
        ("watched", OLD, {}),
        ("started", core.Status(stale=False), {"enable": ["web"], "start": ["web"]}),
        ("started", core.Status("active", enabled=True), {}),
        ("restarted", OLD, {"restart": ["web"], "reload": True}),
        ("restarted", NEW, {}),
        ("stopped", NEW, {"stop": ["web"], "reload": True}),
        ("stopped", core.Status("failed"), {}),
        ("removed", core.Status("failed", stale=False), {"reset": ["web"]}),
        (
            "removed",
            core.Status("active", enabled=True, stale=False),
            {"stop": ["web"], "disable": ["web"]},
        ),
    ],
)
def test_only_what_must_be_done_is_planned(state: str, status: Any, made: dict[str, Any]) -> None:
    assert planned(state, {"web": status}) == made


# What systemd prints


def test_units_are_told_apart_by_their_names_and_not_by_their_order() -> None:
    """systemd shows what it does not know first."""
    text = "MainPID=0\nId=b.service\nJob=\n\n\nId=a.service\nMainPID=12\nEnvironment=A=1\n"
    shown = core.parse_show(text)
    assert shown["a.service"] == {"Id": "a.service", "MainPID": "12", "Environment": "A=1"}
    assert shown["b.service"]["Job"] == ""


def test_a_property_that_this_systemd_does_not_have_is_no_error() -> None:
    status = core.Status.from_properties({"ActiveState": "active", "NRestarts": "[not set]"})
    assert (status.restarts, status.stale, status.queued) == (0, True, False)
