import pytest
from harness.cluster import Cluster
from harness.wait import eventually


@pytest.mark.parametrize("index", [0, 3], ids=["on-the-first-host", "on-the-last-host"])
def test_systemd_starts_a_killed_worker_again(cluster: Cluster, index: int) -> None:
    worker = cluster.workers[index]
    watched = ("MainPID", "NRestarts")
    before = cluster.show(worker.host, worker.unit, *watched)
    others = {other.name: cluster.process_of(other) for other in cluster.workers if other != worker}

    cluster.hosts[worker.host].check_output("kill -KILL %s", before["MainPID"])
    eventually(
        lambda: cluster.show(worker.host, worker.unit, "NRestarts")["NRestarts"],
        lambda restarts: restarts != before["NRestarts"],
        f"{worker.name} is started again",
    )
    cluster.wait_until_ready()

    after = cluster.show(worker.host, worker.unit, *watched)
    assert after["MainPID"] not in (before["MainPID"], "0")
    assert int(after["NRestarts"]) == int(before["NRestarts"]) + 1
    assert others == {
        other.name: cluster.process_of(other) for other in cluster.workers if other != worker
    }
    # nginx leaves a worker that refused out for a few seconds, no longer.
    eventually(cluster.prove, lambda proof: proof.rc == 0, "the proof is complete again")
