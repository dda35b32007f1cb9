from collections.abc import Iterator
from itertools import product

import pytest
from harness.cluster import Cluster, Proof

LAYER = "redis-server@layer.service"
PARTS = ("directly", "through the edge")


def every_pair(cluster: Cluster) -> set[tuple[str, str]]:
    names = [worker.name for worker in cluster.workers]
    return set(product(names, names))


@pytest.fixture
def cluster_without_layer(cluster: Cluster) -> Iterator[Cluster]:
    data1 = cluster.hosts["data1"]
    data1.check_output("systemctl stop %s", LAYER)
    yield cluster
    data1.check_output("systemctl start %s", LAYER)
    cluster.wait_until_ready()


@pytest.fixture(scope="module")
def proof(cluster: Cluster) -> Proof:
    return cluster.prove(hold=10)


@pytest.mark.parametrize("part", PARTS)
def test_what_any_worker_sends_arrives_on_every_worker(
    cluster: Cluster, proof: Proof, part: str
) -> None:
    assert proof.rc == 0, proof.text
    assert proof.report["proved"] == ["wires", "pages", "sockets"]
    assert proof.proved(part) == every_pair(cluster)
    pairs = proof.proved(part)
    # Within a host and between hosts, and no worker was left out of the list.
    hosts = {(sender.split(":")[0], receiver.split(":")[0]) for sender, receiver in pairs}
    assert hosts == set(product(cluster.group("channels"), repeat=2))
    assert len(pairs) == 16


def test_without_the_channel_layer_every_pair_is_missing_until_it_is_back(
    cluster_without_layer: Cluster,
) -> None:
    cluster = cluster_without_layer
    proof = cluster.prove()
    assert proof.rc == 1, proof.text
    for part in PARTS:
        pairs = proof.part(part)["pairs"]
        assert pairs, f"{part}: no pair is accounted for"
        assert not any(pair["delivered"] for pair in pairs), f"{part}: delivered without a layer"
    for sender, receiver in every_pair(cluster):
        assert f"{sender} -> {receiver}: 0 of 5 delivered" in proof.text

    cluster.hosts["data1"].check_output("systemctl start %s", LAYER)
    cluster.wait_until_ready()
    proof = cluster.prove()
    assert proof.rc == 0, proof.text
    assert all(proof.proved(part) == every_pair(cluster) for part in PARTS)
