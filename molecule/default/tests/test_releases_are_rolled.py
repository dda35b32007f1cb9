"""A deploy, and back: the same bytes everywhere, one worker after the other, the lock, the log."""

import json
from pathlib import Path

from harness.cluster import Cluster
from test_bad_releases_are_taken_back import append, application, releases, running

__all__ = ["application"]


def test_a_release_goes_out_and_comes_back(cluster: Cluster, application: Path) -> None:
    (before,) = running(cluster)
    append("chat/urls.py", "\n# Another release.\n")(application)

    out = cluster.deploy("deploy", "--", "-e", f"channels_source={application}")
    assert out.rc == 0, out.output
    (after,) = running(cluster)
    assert after != before
    for index, worker in enumerate(cluster.workers):
        assert f"{worker.host} {worker.port}: proved" in out.output, index
    assert cluster.prove().rc == 0

    back = cluster.deploy("rollback")
    assert back.rc == 0, back.output
    assert running(cluster) == {before}
    for host, found in releases(cluster).items():
        left = next(each for each in found if each["release"] == after)
        assert "rolled back" in str(left["bad"]), host
        log = cluster.hosts[host].check_output("tail -n 2 /var/log/channels-deploys.log")
        lines = [json.loads(line) for line in log.splitlines()]
        assert [(line["release"], line["what"], line["result"]) for line in lines] == [
            (after, "deploy", "ok"),
            (before, "rollback", "ok"),
        ]


def test_two_operators_do_not_deploy_at_once(cluster: Cluster) -> None:
    host = cluster.hosts[cluster.group("channels")[0]]
    taken = """echo '{"who": "ann@laptop", "what": "deploy v2"}' | channels-releases lock"""
    host.check_output(taken)
    try:
        run = cluster.deploy("restart")
        assert run.rc != 0
        assert "ann@laptop is at it" in run.output
        assert "make unlock" in run.output
        assert host.file("/run/channels-deploy.lock").exists
    finally:
        host.check_output("channels-releases unlock")
