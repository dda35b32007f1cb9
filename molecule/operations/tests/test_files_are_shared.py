"""What is uploaded on one app host can be read on the other, and stays from release to release."""

import json
from collections.abc import Iterator

import pytest
from harness.cluster import Cluster

SHARED = {"channels_writable": ["media"], "channels_writable_store": "/srv/shared"}
WRITE = "open('media/hello', 'w').write('from the other host')"
READ = "print(open('media/hello').read())"


@pytest.fixture
def shared(cluster: Cluster) -> Iterator[Cluster]:
    run = cluster.converge("--tags=channels", "-e", json.dumps(SHARED))
    assert run.rc == 0, run.output
    yield cluster
    run = cluster.converge("--tags=channels")
    assert run.rc == 0, run.output
    cluster.hosts[cluster.group("channels")[0]].check_output("rm -rf /srv/shared/media")


def test_a_file_of_one_host_is_read_on_the_other(shared: Cluster) -> None:
    first, second = shared.group("channels")[:2]
    # As the application: its user, its directory, its release.
    shared.hosts[first].check_output("channels-manage shell -c %s", WRITE)
    said = shared.hosts[second].check_output("channels-manage shell -c %s", READ)
    assert "from the other host" in said
    for host in (first, second):
        service = shared.show(host, "channels-web@8001.service", "BindPaths")
        assert "/srv/shared/media:" in service["BindPaths"]
