"""A worker that the inventory no longer has is stopped and disabled; nobody else is touched."""

from collections.abc import Iterator

import pytest
from harness.cluster import Cluster

SURPLUS = "channels-web@8099.service"
STATE = ("ActiveState", "UnitFileState")


@pytest.fixture
def host_with_a_surplus_worker(cluster: Cluster) -> Iterator[str]:
    host = cluster.workers[0].host
    cluster.hosts[host].check_output("systemctl enable --now %s", SURPLUS)
    yield host
    cluster.hosts[host].check_output("systemctl disable --now %s", SURPLUS)


def test_a_run_stops_and_disables_it(cluster: Cluster, host_with_a_surplus_worker: str) -> None:
    host = host_with_a_surplus_worker
    assert cluster.show(host, SURPLUS, *STATE)["ActiveState"] == "active"
    others = {worker.name: cluster.process_of(worker) for worker in cluster.workers}

    run = cluster.converge("--tags=retire")

    assert run.rc == 0, run.output
    assert run.changed == {host: {"Retire | Stop and disable these units"}}
    after = cluster.show(host, SURPLUS, *STATE)
    assert after == {"ActiveState": "inactive", "UnitFileState": "disabled"}
    assert others == {worker.name: cluster.process_of(worker) for worker in cluster.workers}
    assert cluster.converge("--tags=retire").changed == {}
