"""The processes are asked, not the files: systemd lowers what it may not grant without a word."""

import pytest
from harness.cluster import Cluster

HOSTS = ("app1", "app2", "data1", "lb1")


def test_the_inventory_asks_for_what_the_machine_grants(cluster: Cluster) -> None:
    ceiling = cluster.variables["staging_nofile_ceiling"]
    assert {facts["nofile"] for facts in cluster.facts.values()} == {min(65536, ceiling)}


def test_of_every_worker(cluster: Cluster) -> None:
    limit = cluster.fact("nofile")
    assert len(cluster.workers) == 4
    found = {w.name: cluster.nofile_of(w.host, cluster.process_of(w)) for w in cluster.workers}
    assert found == {worker.name: (limit, limit) for worker in cluster.workers}


def test_of_every_nginx_worker(cluster: Cluster) -> None:
    limit = cluster.fact("nofile")
    lb1 = cluster.hosts["lb1"]
    processes = lb1.check_output("pgrep --full '^nginx: worker process$'").split()
    # worker_processes auto: one for each processor.
    assert len(processes) == int(lb1.check_output("nproc"))
    found = {process: cluster.nofile_of("lb1", process) for process in processes}
    assert found == dict.fromkeys(processes, (limit, limit))


@pytest.mark.parametrize("instance", ["layer", "broker"])
def test_of_redis(cluster: Cluster, instance: str) -> None:
    limit = cluster.fact("nofile")
    process = cluster.show("data1", f"redis-server@{instance}.service", "MainPID")["MainPID"]
    assert cluster.nofile_of("data1", process) == (limit, limit)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "shell", [("bash", "-lc"), ("sudo", "-i", "bash", "-c")], ids=["person", "root"]
)
def test_of_a_login_shell(cluster: Cluster, host: str, shell: tuple[str, ...]) -> None:
    limit = cluster.fact("nofile")
    # A session of its own: one that shares a connection may have begun under other limits.
    result = cluster.ssh(host, *shell, "ulimit -Sn; ulimit -Hn", options=("-o", "ControlPath=none"))
    assert result.stdout.split() == [str(limit), str(limit)], result.stderr
