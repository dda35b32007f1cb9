"""A server that is down stops a roll: before it begins, or in the middle; no release is blamed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.cluster import Cluster
from test_bad_releases_are_taken_back import HURRY, append, application

__all__ = ["application"]

UNITS = {
    "channel layer": "redis-server@layer.service",
    "broker": "redis-server@broker.service",
}


@contextmanager
def started_again(cluster: Cluster, unit: str) -> Iterator[None]:
    """Start a server at the end, however the test ends."""
    data = cluster.hosts[cluster.group("redis")[0]]
    try:
        yield
    finally:
        data.check_output("systemctl start %s", unit)
        cluster.wait_until_ready()


def processes(cluster: Cluster) -> dict[str, str]:
    return {worker.name: cluster.process_of(worker) for worker in cluster.workers}


def bad(cluster: Cluster) -> set[str]:
    return {each["release"] for all_ in cluster.releases().values() for each in all_ if each["bad"]}


@pytest.mark.parametrize("name", UNITS)
def test_a_server_that_is_down_before_stops_a_deploy_before_anybody_is_drained(
    cluster: Cluster, application: Path, name: str
) -> None:
    before, marked, unit = processes(cluster), bad(cluster), UNITS[name]
    append("chat/urls.py", "\n# A good release.\n")(application)
    with started_again(cluster, unit):
        data = cluster.group("redis")[0]
        cluster.hosts[data].check_output("systemctl stop %s", unit)
        run = cluster.deploy("deploy", "--", "-e", f"channels_source={application}")
        assert run.rc != 0
        assert f"{name} (" in run.output
        assert "No worker was touched and no release was marked as bad." in run.output
        assert processes(cluster) == before
        assert bad(cluster) == marked


def test_an_outage_in_the_middle_stops_the_roll_and_marks_nothing(
    cluster: Cluster, application: Path, tmp_path: Path
) -> None:
    running, marked, unit = cluster.running(), bad(cluster), UNITS["channel layer"]
    data = cluster.group("redis")[0]
    append("chat/urls.py", "\n# Another good release.\n")(application)
    hook = tmp_path / "outage.yml"
    hook.write_text(
        f"- name: Outage\n  delegate_to: {data}\n"
        f"  ansible.builtin.systemd_service:\n    name: {unit}\n    state: stopped\n"
    )
    hooks = f'{{"channels_hooks": {{"before_restart": ["{hook}"]}}}}'
    with started_again(cluster, unit):
        run = cluster.deploy(
            "deploy", "--", "-e", f"channels_source={application}", "-e", hooks, *HURRY
        )
        assert run.rc != 0
        assert "The release is not the cause, and was not marked as bad:" in run.output
        assert "no answer from channel layer (" in run.output
        assert "Put back: " in run.output
        assert "Delivery NOT verified" in run.output
        assert cluster.running() == running
        assert bad(cluster) == marked
    assert cluster.prove().rc == 0
    out = cluster.deploy("deploy", "--", "-e", f"channels_source={application}")
    assert out.rc == 0, out.output
    assert cluster.deploy("rollback").rc == 0
    assert cluster.running() == running
