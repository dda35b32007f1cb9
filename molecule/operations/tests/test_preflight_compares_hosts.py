"""What a host does not have is said before anything changes, with three ways out."""

import json
import re
from collections.abc import Iterator

import pytest
from harness.ansible import Run
from harness.cluster import Cluster

# By host: ports that another program takes, each as another role's port.
TAKEN = {"app1": [9001], "lb1": [9002], "data1": [9003, 9004]}
STATED = {
    "base_sysctl": {"net.ipv4.no_such_setting": 1, "net.ipv4.ip_local_port_range": "60000 60009"},
    "cluster_edge_http_port": 9002,
    "cluster_first_worker_port": 9001,
    "cluster_messages_per_second": 1_000_000,
    "cluster_nofile": 1_000_000,
    "cluster_postgres_port": 9004,
    "cluster_redis_layer_port": 9003,
    "cluster_sockets_per_worker": 50,
    "nginx_worker_connections": 64,
    "postgres_max_connections": 20,
    "redis_maxmemory": "9000gb",
}
SHORT = [
    (r"app1, app2, data1, lb1|data1, app1.*|lb1, .*", r"open files: needs 1000000, has \d+\."),
    (r".*app2.*", r"kernel setting net\.ipv4\.no_such_setting: needs writable, has missing\."),
    (r"app1, app2", r"sockets of the cluster: needs 10000, has 100\."),
    (r"app1, app2", r"deliveries of a worker: needs \d+ per second, has \d+ per second\."),
    (r"app1, app2", r"processors: needs [\d.]+, has [\d.]+\."),
    (r"app1", r"port 9001: needs free or channels-\*\.service, has taken-9001\.service\."),
    (r"lb1", r"port 9002: needs free or nginx\.service, has taken-9002\.service\."),
    (r"lb1", r"connections of nginx: needs \d+, has \d+\."),
    (r"lb1", r"ports for connections to one worker: needs 50, has 10\."),
    (r"data1", r"memory: needs \d{7,} MiB, has \d+ MiB\."),
    (r"data1", r"connections of PostgreSQL: needs \d+, has 20\."),
    (r"data1", r"port 9003: needs free or redis-server\*\.service, has taken-9003\.service\."),
    (r"data1", r"port 9004: needs free or postgresql\*\.service, has taken-9004\.service\."),
]


def contents(cluster: Cluster) -> dict[str, str]:
    """A hash of all files in /etc of each host."""
    command = "find /etc -type f -print0 | sort --zero-terminated | xargs -0 sha256sum | sha256sum"
    return {name: host.check_output(command) for name, host in cluster.hosts.items()}


@pytest.fixture(scope="module")
def refused(cluster: Cluster) -> Iterator[tuple[Run, dict[str, str], dict[str, str]]]:
    """A run that states more than the hosts have, and what is in /etc before and after it."""
    for host, ports in TAKEN.items():
        for port in ports:
            cluster.hosts[host].check_output(
                f"systemd-run --unit=taken-{port} python3 -m http.server --bind 127.0.0.1 {port}"
                " && timeout 30 sh -c"
                f" 'until ss -ltn | grep -q 127.0.0.1:{port}; do sleep 0.1; done'"
            )
    before = contents(cluster)
    try:
        run = cluster.converge(f"--extra-vars={json.dumps(STATED)}")
        yield run, before, contents(cluster)
    finally:
        for host, ports in TAKEN.items():
            for port in ports:
                cluster.hosts[host].check_output(f"systemctl stop taken-{port}")


@pytest.mark.parametrize(("hosts", "problem"), SHORT, ids=[each[1][:30] for each in SHORT])
def test_what_a_host_does_not_have_is_said(
    refused: tuple[Run, dict[str, str], dict[str, str]], hosts: str, problem: str
) -> None:
    output = refused[0].output.replace("\\n", "\n")
    said = [line.strip() for line in output.splitlines() if re.search(problem, line)]
    assert said, output
    assert re.fullmatch(rf"({hosts}): {problem} .+ Ways out: \(1\) .+; \(2\) .+; \(3\) .+", said[0])


def test_nothing_changed(refused: tuple[Run, dict[str, str], dict[str, str]]) -> None:
    run, before, after = refused
    assert run.rc != 0
    assert "Nothing changed." in run.output
    assert run.changed == {}
    assert after == before
