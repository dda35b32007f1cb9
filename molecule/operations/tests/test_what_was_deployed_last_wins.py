"""What was deployed last wins, and any host that has it serves it; a drained host is named."""

from pathlib import Path

from harness.ansible import WATCHED, play
from harness.cluster import Cluster
from test_bad_releases_are_taken_back import append, application

__all__ = ["application"]


def without(host: str) -> list[str]:
    """Arguments of an operation that leaves a host out, as one that is down."""
    return [f"--limit=all,localhost,!{host}"]


def running_by_host(cluster: Cluster) -> dict[str, set[str]]:
    return {
        host: {each["release"] for each in listed if each["runs"]}
        for host, listed in cluster.releases().items()
    }


def test_a_host_that_was_away_gets_what_was_deployed_and_rolled_back_meanwhile(
    cluster: Cluster, application: Path
) -> None:
    first, second = cluster.group("channels")[:2]
    (before,) = cluster.running()
    append("chat/urls.py", "\n# Deployed while the first host was away.\n")(application)

    out = cluster.deploy("deploy", "--", "-e", f"channels_source={application}", *without(first))
    assert out.rc == 0, out.output
    (after,) = running_by_host(cluster)[second]
    assert running_by_host(cluster)[first] == {before}

    brought = cluster.converge()
    assert brought.rc == 0, brought.output
    assert f"{first} is on {before}" in brought.output
    assert cluster.running() == {after}

    # The first host is a new machine to the release: it never had the archive.
    back = cluster.deploy("rollback", "--", *without(first))
    assert back.rc == 0, back.output
    assert running_by_host(cluster) == {first: {after}, second: {before}}

    again = cluster.converge()
    assert again.rc == 0, again.output
    assert cluster.running() == {before}
    assert cluster.prove().rc == 0


def test_a_release_whose_archive_one_host_has_is_fetched_from_there(
    cluster: Cluster, application: Path, tmp_path: Path
) -> None:
    first = cluster.group("channels")[0]
    (before,) = cluster.running()
    append("chat/urls.py", "\n# Another one.\n")(application)
    source = f"channels_source={application}"
    # With the long proof as it is by default: a good release passes it.
    out = cluster.deploy("deploy", "--", "-e", source, *WATCHED)
    assert out.rc == 0, out.output

    home = cluster.fact("home", first)
    cluster.hosts[first].check_output(
        f"rm -r {home}/archives/{before}.tar.gz {home}/releases/{before}"
    )
    archives = tmp_path / "another_controller"
    back = cluster.deploy("rollback", before, "--", "-e", f"channels_archive_directory={archives}")
    assert back.rc == 0, back.output
    assert cluster.running() == {before}


def test_another_server_is_refused_until_a_deploy_brings_it(cluster: Cluster) -> None:
    processes = {worker.name: cluster.process_of(worker) for worker in cluster.workers}
    run = cluster.converge("-e", "channels_server=hypercorn")
    assert run.rc != 0
    said = " ".join(run.output.split())
    assert "was packed without hypercorn (channels_server). Nothing changed." in said
    assert "Run: make deploy" in said
    assert {worker.name: cluster.process_of(worker) for worker in cluster.workers} == processes


def test_a_drained_host_is_named_and_the_others_are_proved(cluster: Cluster) -> None:
    first = cluster.group("channels")[0]
    assert cluster.deploy("drain", first).rc == 0
    try:
        run = play(cluster.inventory, "playbooks/verify.yml")
        assert run.rc == 0, run.output
        said = " ".join(run.output.split())
        assert "Delivery verified. Proved: wires (" in said
        assert f". Drained: {first}." in said
    finally:
        assert cluster.deploy("undrain", first).rc == 0
    assert "Drained" not in play(cluster.inventory, "playbooks/verify.yml").output
