"""Which release is chosen, by what the app hosts have."""

from typing import Any

import pytest
from plugins.filter.releases import (
    channels_hosts,
    release_holder,
    release_is_first,
    release_left,
    release_lines,
    release_refusal,
    release_selected,
    release_time,
)

A, B, C, D = (digit * 12 for digit in "abcd")


def release(
    name: str, deployed: float = 0, bad: str = "", runs: tuple[str, ...] = (), recorded: int = 0
) -> Any:
    told = {"release": name, "deployed": deployed or float(recorded), "recorded": recorded}
    return {**told, "bad": bad, "current": False, "runs": [*runs]}


def host(name: str, current: str, *releases: Any, serves: bool = True) -> Any:
    told = {"host": name, "current": current, "serves": serves, "drained": False}
    return {**told, "releases": list(releases), "archives": [each["release"] for each in releases]}


def both_orders(*hosts: Any) -> list[list[Any]]:
    return [list(hosts), list(reversed(hosts))]


# What was deployed last


def test_what_was_deployed_last_wins_whatever_the_order_of_the_hosts() -> None:
    """As after a host that was away during a deploy, and serves what ran before."""
    away = host("app1", A, release(A, recorded=100))
    here = host("app2", B, release(A, recorded=100), release(B, recorded=200))
    for hosts in both_orders(away, here):
        assert release_selected(hosts, "running") == B
        assert release_selected(hosts, "previous") == A


def test_the_controllers_time_counts_and_not_a_hosts_clock() -> None:
    away = host("app1", A, release(A, deployed=9_000_000, recorded=100))
    here = host("app2", B, release(A, 50, recorded=100), release(B, 60, recorded=200))
    for hosts in both_orders(away, here):
        assert release_selected(hosts, "running") == B


def test_a_release_that_was_rolled_back_does_not_win_over_the_rollback() -> None:
    away = host("app1", B, release(A, recorded=100), release(B, recorded=200))
    here = host("app2", A, release(A, recorded=300), release(B, recorded=200, bad="rolled back"))
    for hosts in both_orders(away, here):
        assert release_selected(hosts, "running") == A
        assert release_time(hosts, A, "running", 900.5) == 300


def test_what_an_operation_did_not_complete_does_not_win() -> None:
    """A host is current on B since a deploy that was interrupted, or not put back."""
    half = host("app1", B, release(A, recorded=100), release(B, deployed=9_000))
    rest = host("app2", A, release(A, recorded=100))
    for hosts in both_orders(half, rest):
        assert release_selected(hosts, "running") == A
        # A rollback completes the way back, and goes no further.
        assert release_selected(hosts, "previous") == A
        assert release_left(hosts, A) == [B]


def test_a_rollback_that_was_interrupted_goes_to_the_same_release_again() -> None:
    known = (release(A, recorded=100), release(B, recorded=200), release(C, recorded=300))
    half, rest = host("app1", B, *known), host("app2", C, *known)
    for hosts in both_orders(half, rest):
        assert release_selected(hosts, "running") == C
        assert release_selected(hosts, "previous") == B
        assert release_left(hosts, B) == [C]


def test_a_host_that_was_away_is_not_what_a_rollback_leaves() -> None:
    away = host("app1", A, release(A, recorded=100))
    here = host("app2", C, *(release(name, recorded=t) for name, t in ((B, 200), (C, 300))))
    for hosts in both_orders(away, here):
        assert release_selected(hosts, "previous") == B
        assert release_left(hosts, B) == [C]


def test_the_record_counts_where_every_host_is_on_its_way_to_another_release() -> None:
    """A rollback to A that was interrupted: nobody has proved that A runs."""
    hosts = [host("app1", ""), host("app2", A, release(A, recorded=100), release(B, recorded=200))]
    assert release_selected(hosts, "running") == B
    assert release_selected(hosts, "previous") == A


def test_what_was_never_completed_is_nothing_to_go_back_to() -> None:
    hosts = [host("app1", A, release(A, 100, recorded=100), release(B, deployed=9_000))]
    assert release_selected(hosts, "previous") == ""
    before = release(C, deployed=50)  # before there were records
    hosts = [host("app1", A, release(A, 100, recorded=100), release(B, deployed=9_000), before)]
    assert release_selected(hosts, "previous") == C


def test_two_hosts_on_different_releases_of_one_time_are_refused() -> None:
    hosts = [host("app1", A, release(A, recorded=100)), host("app2", B, release(B, recorded=100))]
    assert release_selected(hosts, "running") == ""


# Without a record


def test_without_a_record_the_release_that_all_hosts_run_is_the_one() -> None:
    hosts = [host("app1", A, release(A, 100)), host("app2", A, release(A, 200))]
    assert release_selected(hosts, "running") == A


def test_without_a_record_a_host_that_has_had_both_knows_which_is_later() -> None:
    """Only times of one host are compared: another one's clock may differ."""
    away = host("app1", A, release(A, 9_000_000))
    here = host("app2", B, release(A, 100), release(B, 200))
    for hosts in both_orders(away, here):
        assert release_selected(hosts, "running") == B
        assert release_selected(hosts, "previous") == A


@pytest.mark.parametrize(
    "hosts",
    [
        [host("app1", A, release(A, 100)), host("app2", B, release(B, 200))],
        [
            host("app1", A, release(A, 300), release(B, 200)),
            host("app2", B, release(A, 100), release(B, 200)),
        ],
    ],
    ids=["neither knows the other", "each knows it otherwise"],
)
def test_where_it_cannot_be_known_it_is_refused_with_what_to_run(hosts: list[Any]) -> None:
    for wanted in ("running", "previous"):
        assert release_selected(hosts, wanted) == ""
        said = release_refusal(hosts, wanted)
        assert f"app1: {A}, app2: {B}" in said
        assert "Nothing changed." in said
        assert "make deploy" in said
        assert "make rollback RELEASE=" in said
    assert release_selected(hosts, "new") == "new"
    assert release_selected(hosts, A) == A


def test_a_record_counts_more_than_what_a_host_without_one_says() -> None:
    old = host("app1", A, release(A, 9_000_000), release(B, 100))
    new = host("app2", B, release(B, recorded=200))
    for hosts in both_orders(old, new):
        assert release_selected(hosts, "running") == B
        assert release_selected(hosts, "previous") == A


def test_the_release_that_runs_is_not_that_of_a_host_on_which_nothing_does() -> None:
    """As after a deploy that has failed while the first host was drained."""
    hosts = [host("app1", A, serves=False), host("app2", B)]
    assert release_selected(hosts, "running") == B
    assert release_selected(hosts[:1], "running") == A, "better than none"


def test_a_first_start_that_was_not_completed_is_not_kept() -> None:
    """The application may have been mended since."""
    failed = {**host("app1", A, release(A, 100)), "kit": "0.4.0"}
    idle = {**host("app2", "", serves=False), "kit": ""}
    for hosts in both_orders(failed, idle):
        assert release_is_first(hosts, "0.4.0")
        assert release_selected(hosts, "running", "0.4.0") == "new"
    # Once one was complete, it is kept.
    complete = {**host("app2", B, release(B, recorded=100)), "kit": "0.4.0"}
    assert release_selected([failed, complete], "running", "0.4.0") == B
    # What an earlier version has left may have no record.
    assert release_selected([{**failed, "kit": "0.1.0"}], "running", "0.4.0") == A


def test_where_nothing_has_run_the_application_is_packed() -> None:
    assert release_selected([host("app1", "")], "running") == "new"
    assert release_selected([], "running") == "new"
    assert release_selected([host("app1", A)], "new") == "new"


# When


def test_a_deploy_is_later_than_any_before_even_by_a_clock_that_is_slow() -> None:
    hosts = [host("app1", A, release(A, recorded=500)), host("app2", B, release(B, recorded=900))]
    assert release_time(hosts, C, "new", 1000.7) == 1000
    assert release_time(hosts, C, "new", 200.0) == 901
    assert release_time(hosts, A, A, 200.0) == 901
    assert release_time([], C, "new", 200.0) == 200


def test_a_run_that_brings_no_other_release_keeps_its_time() -> None:
    hosts = [host("app1", A, release(A, recorded=500)), host("app2", "")]
    assert release_time(hosts, A, "running", 1000) == 500
    assert release_time([host("app1", A, release(A, 500))], A, "running", 1000) == 1000


# Back


def test_a_rollback_goes_to_the_last_deployed_one_that_is_not_current_and_not_bad() -> None:
    hosts = [host("app1", A, release(A, 400), release(B, 300), release(C, 200), release(D, 0))]
    assert release_selected(hosts, "previous") == B
    bad = [host("app1", A, release(A, 400), release(B, 300, bad="no"), release(C, 200))]
    assert release_selected(bad, "previous") == C
    assert release_selected([host("app1", A, release(A, 400), release(D, 0))], "previous") == ""
    assert "There is no release to roll back to" in release_refusal(bad[:0], "previous")


def test_any_host_knows_what_ran_before() -> None:
    """The first one may be a new machine."""
    hosts = [host("app1", A, release(A, 500)), host("app2", A, release(A, 400), release(B, 300))]
    assert release_selected(hosts, "previous") == B
    assert release_holder(hosts, B) == "app2"
    assert release_holder(hosts, C) == ""
    marked = [host("app1", A, release(B, 300, bad="no")), host("app2", A, release(B, 300))]
    assert release_selected(marked, "previous") == ""


def test_a_release_is_fetched_from_a_host_that_has_its_archive() -> None:
    without = {**host("app1", A, release(A, 500)), "archives": []}
    assert release_holder([without, host("app2", A, release(A, 400))], A) == "app2"
    assert release_holder([without], A) == ""


def test_a_host_that_has_not_answered_is_left_out() -> None:
    hostvars = {
        "app1": {"_channels_host": {"unreachable": True}},
        "app2": {"_channels_host": {"current": A}},
        "app3": {},
    }
    assert channels_hosts(["app1", "app2", "app3"], hostvars) == [{"current": A, "host": "app2"}]


def test_the_releases_are_shown_a_line_each() -> None:
    current = {**release(A, 2, runs=("web@8001", "web@8002")), "current": True}
    hosts = [
        host("app1", A, current, release(B, 1, bad="crashed\nat import")),
        host("app2", ""),
        {**host("app3", A, {**release(A, 2), "current": True}), "drained": True},
    ]
    assert release_lines(hosts) == [
        f"app1  {A}  runs web@8001 web@8002, current",
        f"app1  {B}  does not run, bad: crashed",
        "app2  has no release",
        "app3  is drained",
        f"app3  {A}  does not run, current",
    ]


def test_what_hosts_that_are_left_out_have_told_counts_whoever_asked_them() -> None:
    """Ansible registers the task with every host of the play, also where it was skipped."""
    asked = {"item": "app3", "current": B}
    skipped = {"item": "app3", "skipped": True}
    hostvars = {
        "app1": {
            "_channels_host": {"current": A},
            "_channels_hosts_left_out": {"results": [asked]},
        },
        "app2": {
            "_channels_host": {"current": A},
            "_channels_hosts_left_out": {"results": [skipped]},
        },
        "app3": {},
    }
    found = {each["host"]: each["current"] for each in channels_hosts(list(hostvars), hostvars)}
    assert found == {"app1": A, "app2": A, "app3": B}
