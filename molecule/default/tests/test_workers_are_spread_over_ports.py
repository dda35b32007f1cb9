import uuid
from collections import Counter
from contextlib import ExitStack

import pytest
from harness.cluster import Cluster


@pytest.mark.parametrize("host", ["app1", "app2"])
def test_one_unit_one_process_one_port(cluster: Cluster, host: str) -> None:
    shell = cluster.hosts[host]
    workers = [worker for worker in cluster.workers if worker.host == host]
    units = shell.check_output(
        "systemctl list-units --all --plain --no-legend 'channels-web@*' | awk '{print $1, $3, $4}'"
    )
    assert sorted(units.splitlines()) == [f"{worker.unit} active running" for worker in workers]
    # "LISTEN 0 4096 172.18.0.10:8001 0.0.0.0:* users:(("uvicorn",pid=123,fd=6))"
    listening: dict[str, list[str]] = {}
    sockets = shell.check_output("ss --no-header --listening --tcp --numeric --processes")
    for line in sockets.splitlines():
        if "uvicorn" in line or "python" in line:
            processes = [part.split("=")[1] for part in line.split(",") if part.startswith("pid=")]
            listening[line.split()[3]] = processes
    assert listening == {
        f"{worker.address}:{worker.port}": [cluster.process_of(worker)] for worker in workers
    }


def test_least_conn_spreads_sockets_and_fills_gaps(cluster: Cluster) -> None:
    run = uuid.uuid4().hex
    workers = [worker.name for worker in cluster.workers]
    with ExitStack() as rest, ExitStack() as emptied:
        gap = workers[0]
        served: Counter[str] = Counter()
        for number in range(8):
            with ExitStack() as one:
                _, worker = one.enter_context(cluster.probe_socket(run, f"socket-{number}"))
                served[worker] += 1
                (emptied if worker == gap else rest).push(one.pop_all())
        # One more or less: a request of somebody else that is on its way counts as well.
        assert set(served) == set(workers)
        assert all(1 <= count <= 3 for count in served.values()), served

        # Round robin would go on in turn; least_conn knows who has none.
        emptied.close()
        for number in range(served[gap]):
            _, worker = rest.enter_context(cluster.probe_socket(run, f"late-{number}"))
            assert worker == gap, f"{worker} got a socket while {gap} had {number}; {served}"
