"""Which release is chosen, by what the app hosts have."""

from typing import Any

from plugins.filter.releases import (
    channels_hosts,
    release_holder,
    release_lines,
    release_selected,
)

A, B, C, D = (digit * 12 for digit in "abcd")


def release(name: str, deployed: float = 0, bad: str = "", runs: tuple[str, ...] = ()) -> Any:
    return {"release": name, "deployed": deployed, "bad": bad, "current": False, "runs": [*runs]}


def host(name: str, current: str, *releases: Any, serves: bool = True) -> Any:
    return {"host": name, "current": current, "serves": serves, "releases": list(releases)}


def test_the_release_that_runs_is_not_that_of_a_host_on_which_nothing_does() -> None:
    """As after a deploy that has failed while the first host was drained."""
    hosts = [host("app1", A, serves=False), host("app2", B)]
    assert release_selected(hosts, "running") == B
    assert release_selected(hosts[:1], "running") == A, "better than none"


def test_where_nothing_has_run_the_application_is_packed() -> None:
    assert release_selected([host("app1", "")], "running") == "new"
    assert release_selected([], "running") == "new"
    assert release_selected([host("app1", A)], "new") == "new"


def test_a_rollback_goes_to_the_last_deployed_one_that_is_not_current_and_not_bad() -> None:
    hosts = [host("app1", A, release(A, 400), release(B, 300), release(C, 200), release(D, 0))]
    assert release_selected(hosts, "previous") == B
    bad = [host("app1", A, release(A, 400), release(B, 300, bad="no"), release(C, 200))]
    assert release_selected(bad, "previous") == C
    assert release_selected([host("app1", A, release(A, 400), release(D, 0))], "previous") == ""


def test_any_host_knows_what_ran_before() -> None:
    """The first one may be a new machine."""
    hosts = [host("app1", A, release(A, 500)), host("app2", A, release(A, 400), release(B, 300))]
    assert release_selected(hosts, "previous") == B
    assert release_holder(hosts, B) == "app2"
    assert release_holder(hosts, C) == ""
    marked = [host("app1", A, release(B, 300, bad="no")), host("app2", A, release(B, 300))]
    assert release_selected(marked, "previous") == ""


def test_a_host_that_has_not_answered_is_left_out() -> None:
    hostvars = {
        "app1": {"_channels_host": {"unreachable": True}},
        "app2": {"_channels_host": {"current": A}},
        "app3": {},
    }
    assert channels_hosts(["app1", "app2", "app3"], hostvars) == [{"current": A, "host": "app2"}]


def test_the_releases_are_shown_a_line_each() -> None:
    current = {**release(A, 2, runs=("web@8001", "web@8002")), "current": True}
    hosts = [host("app1", A, current, release(B, 1, bad="crashed\nat import"))]
    assert release_lines(hosts) == [
        f"app1  {A}  runs web@8001 web@8002, current",
        f"app1  {B}  does not run, bad: crashed",
    ]
