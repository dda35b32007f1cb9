from collections.abc import Iterator

import pytest
from harness.ansible import Run
from harness.cluster import Cluster

NOFILE = 16000
# What other tests have installed is removed by whichever run comes next.
SHOWN = ("MainPID", "ActiveEnterTimestampMonotonic")
PRUNED = "Prune | Remove old releases and environments"


def test_a_dry_run_finds_nothing_to_change(cluster: Cluster) -> None:
    run = cluster.converge("--check", "--diff")
    assert run.rc == 0, run.output
    assert set(run.recap) == {"localhost", *cluster.hosts}
    for host, counts in run.recap.items():
        assert counts["failed"] == counts["unreachable"] == 0, f"{host}: {counts}\n{run.output}"
        assert run.changed.get(host, set()) <= {PRUNED}, f"{host}: {counts}\n{run.output}"
    assert [name for name, secret in cluster.secrets.items() if secret in run.output] == []


@pytest.fixture(scope="module")
def before(cluster: Cluster) -> dict[str, dict[str, str]]:
    """What systemd said of every worker before these tests changed anything."""
    return {w.name: cluster.show(w.host, w.unit, *SHOWN) for w in cluster.workers}


@pytest.fixture(scope="module")
def lowered(cluster: Cluster, before: dict[str, dict[str, str]]) -> Iterator[Run]:
    """Another cluster_nofile, until these tests are over."""
    assert cluster.fact("nofile") != NOFILE
    yield cluster.converge(f'--extra-vars={{"cluster_nofile": {NOFILE}}}')
    restored = cluster.converge()
    assert restored.rc == 0, restored.output


def test_a_new_limit_changes_what_depends_on_it_and_nothing_else(
    cluster: Cluster, lowered: Run
) -> None:
    assert lowered.rc == 0, lowered.output
    base = {"Configure | Write the configuration files"}
    app = base | {
        "Switch | Write the unit files",
        "Roll | Replace the units until they are ready",
        "Drain | End the processes that have no clients",
    }
    redis = {
        "Configure | Write the units' drop-ins",
        "Configure | Check whether the instances run with their files",
        "Redis | Restart outdated instances",
    }
    nginx = {
        "Nginx | Write the configuration",
        "Nginx | Compare the configuration in effect",
        "Nginx | Reload nginx",
    }
    assert {host: tasks - {PRUNED} for host, tasks in lowered.changed.items()} == {
        "app1": app,
        "app2": app,
        "data1": base | redis,
        "lb1": base | nginx,
    }


def test_a_new_limit_is_that_of_every_process(cluster: Cluster, lowered: Run) -> None:
    assert lowered.rc == 0, lowered.output
    processes = {w.name: (w.host, cluster.process_of(w)) for w in cluster.workers}
    for instance in ("layer", "broker"):
        process = cluster.show("data1", f"redis-server@{instance}.service", "MainPID")["MainPID"]
        processes[instance] = ("data1", process)
    nginx = cluster.hosts["lb1"].check_output("pgrep --full '^nginx: worker process$'").split()
    processes |= {f"nginx {process}": ("lb1", process) for process in nginx}
    found = {name: cluster.nofile_of(*where) for name, where in processes.items()}
    assert found == dict.fromkeys(processes, (NOFILE, NOFILE))
    for host in cluster.hosts:
        shell = cluster.ssh(host, "bash", "-lc", "ulimit -n", options=("-o", "ControlPath=none"))
        assert shell.stdout.strip() == str(NOFILE), host


def test_new_processes_took_over_and_no_unit_was_stopped(
    cluster: Cluster, before: dict[str, dict[str, str]], lowered: Run
) -> None:
    """Nobody is closed by a setting that changes but once, when the former processes drain."""
    assert lowered.rc == 0, lowered.output
    for worker in cluster.workers:
        former, found = before[worker.name], cluster.show(worker.host, worker.unit, *SHOWN)
        assert found["MainPID"] != former["MainPID"], worker.name
        assert found["ActiveEnterTimestampMonotonic"] == former["ActiveEnterTimestampMonotonic"]
        # The former one has ended.
        control = f"/run/channels-web/{worker.port}"
        assert (
            cluster.hosts[worker.host].check_output(f"ls {control}") == f"{found['MainPID']}.sock"
        )
