"""A deploy, and back: the same bytes everywhere, worker by worker, the lock, the log."""

import json
from pathlib import Path

import pytest
from harness.ansible import play
from harness.cluster import Cluster
from test_bad_releases_are_taken_back import append, application

__all__ = ["application"]


def test_a_release_goes_out_and_comes_back(cluster: Cluster, application: Path) -> None:
    (before,) = cluster.running()
    append("chat/urls.py", "\n# Another release.\n")(application)

    out = cluster.deploy("deploy", "--", "-e", f"channels_source={application}")
    assert out.rc == 0, out.output
    (after,) = cluster.running()
    assert after != before
    # The canary, three waves, and every pair at the end.
    for worker in cluster.workers:
        assert f"pairs from and to {worker.name})" in out.output
    assert "every worker: " in out.output
    assert "  rolled in " in out.output
    assert cluster.prove().rc == 0

    back = cluster.deploy("rollback")
    assert back.rc == 0, back.output
    assert cluster.running() == {before}
    for host, found in cluster.releases().items():
        left = next(each for each in found if each["release"] == after)
        assert "rolled back" in str(left["bad"]), host
        log = cluster.hosts[host].check_output("tail -n 2 /var/log/channels-deploys.log")
        lines = [json.loads(line) for line in log.splitlines()]
        assert [(line["release"], line["what"], line["result"]) for line in lines] == [
            (after, "deploy", "ok"),
            (before, "rollback", "ok"),
        ]


LOCK = "/run/channels-deploy.lock"
ANN = '{"who": "ann@laptop", "what": "deploy v2", "run": "laptop:1:1"}'


@pytest.mark.parametrize("index", [0, 1])
def test_two_operators_do_not_change_the_cluster_at_once(cluster: Cluster, index: int) -> None:
    """Wherever the lock is: the first host may have been away when it was taken."""
    locked = cluster.group("channels")[index]
    cluster.hosts[locked].check_output("echo %s > %s", ANN, LOCK)
    try:
        for run in (cluster.deploy("restart"), cluster.converge()):
            assert run.rc != 0
            assert "Locked by ann@laptop for" in run.output
            assert "(deploy v2). Nothing changed. If abandoned: make unlock" in run.output
            assert cluster.hosts[locked].file(LOCK).exists
            others = set(cluster.group("channels")) - {locked}
            assert not [host for host in others if cluster.hosts[host].file(LOCK).exists]
    finally:
        unlocked = play(cluster.inventory, "playbooks/unlock.yml")
    assert unlocked.rc == 0
    assert "Removed the lock of ann@laptop (deploy v2)." in unlocked.output
    assert not cluster.hosts[locked].file(LOCK).exists
