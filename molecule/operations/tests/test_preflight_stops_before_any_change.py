from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import KIT_GROUPS, read_groups
from harness.ansible import Run
from harness.cluster import Cluster

Inventory = dict[str, Any]
Edit = Callable[[Inventory, Inventory], None]


@pytest.fixture
def variant(cluster: Cluster, tmp_path: Path) -> Callable[[Edit], Path]:
    """Make an inventory that differs from the cluster's."""

    def make(edit: Edit) -> Path:
        groups = read_groups(cluster.inventory)
        hosts = {group: {"hosts": dict.fromkeys(groups[group])} for group in KIT_GROUPS}
        generated = yaml.safe_load((cluster.inventory / "generated.yml").read_text())
        edit(hosts, generated["all"])
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
        (tmp_path / "generated.yml").write_text(yaml.safe_dump(generated))
        (tmp_path / "group_vars").symlink_to((cluster.inventory / "group_vars").resolve())
        return tmp_path

    return make


def assert_stopped(cluster: Cluster, run: Run, *words: str) -> None:
    assert run.rc != 0
    assert "Nothing changed." in run.output
    for word in words:
        assert word in " ".join(run.output.split())
    # No other host was spoken to.
    assert set(run.recap) == {"localhost"}, run.recap
    assert run.recap["localhost"]["changed"] == 0
    assert [name for name, secret in cluster.secrets.items() if secret in run.output] == []


def test_on_a_value_of_the_wrong_type(cluster: Cluster) -> None:
    run = cluster.converge("--extra-vars=cluster_nofile=many")
    assert_stopped(cluster, run, "cluster_nofile is 'many'; allowed: an integer")


def test_on_a_value_out_of_range(cluster: Cluster) -> None:
    run = cluster.converge('--extra-vars={"nginx_proxy_read_timeout": 59}')
    allowed = "allowed: 60 to 604800 seconds"
    assert_stopped(cluster, run, f"nginx_proxy_read_timeout is 59; {allowed}")


def test_on_a_group_without_hosts(cluster: Cluster, variant: Callable[[Edit], Path]) -> None:
    def edit(hosts: Inventory, _: Inventory) -> None:
        hosts["channels"]["hosts"] = {}

    run = cluster.converge(inventory=variant(edit))
    assert_stopped(cluster, run, "the group channels is empty; allowed: at least one host")


def test_on_a_secret_that_is_not_set(cluster: Cluster, variant: Callable[[Edit], Path]) -> None:
    def edit(_: Inventory, generated: Inventory) -> None:
        del generated["vars"]["channels_probe_token"]

    run = cluster.converge(inventory=variant(edit))
    assert_stopped(cluster, run, "channels_probe_token is not set; allowed: a string")


def test_on_a_secret_that_is_empty(cluster: Cluster) -> None:
    run = cluster.converge("--extra-vars=channels_probe_token=")
    assert_stopped(cluster, run, "channels_probe_token is empty; allowed: a string")


def test_on_a_secret_that_is_too_weak_and_does_not_show_it(cluster: Cluster) -> None:
    run = cluster.converge("--extra-vars=channels_probe_token=guessable")
    assert_stopped(
        cluster, run, "channels_probe_token is (a secret, not shown); allowed: 16 to 1000 letters"
    )
    assert "guessable" not in run.output
