"""The values that make plan prints: those of the roles, as Ansible evaluates them for a host."""

import json
from pathlib import Path
from typing import Any

import pytest

from .house import ROOT, Tree, finish, start
from .test_capacity_table import TABLE
from .test_templates import address, inventory

GROUPS = {
    "nginx": ["lb1"],
    "channels": ["app1", "app2"],
    "postgres": ["data1"],
    "redis": ["data1"],
}
HOSTS = {
    host: address(f"10.0.0.{number}")
    for number, host in enumerate(["lb1", "app1", "app2", "data1"], 1)
}
ASKED = {
    "as it is": {},
    "others": {
        "values_variables": {"cluster_sockets": 160_000},
        "values_counts": {"channels": 5, "nginx": 3},
    },
    "fewer": {"values_counts": {"channels": 1}},
    "refused": {},
    "asked otherwise": {"values_variables": {"cluster_sockets": 160_000, "cluster_spare_hosts": 1}},
}
WRONG = {"cluster_sockets": "many", "cluster_spare_hosts": 2, "redis_maxmemory": "lots"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """What the runs write, none of which contacts a host."""
    home = tmp_path_factory.mktemp("values")
    playbook = {"ansible.builtin.import_playbook": str(ROOT / "playbooks" / "values.yml")}
    common = {"postgres_max_connections": 300, "cluster_sockets": 20_000}
    processes = {}
    for name, variables in ASKED.items():
        file = home / f"{name}.json"
        more = json.dumps({"values_file": str(file), "values_contact": False, **variables})
        wrong = WRONG if name in ("refused", "asked otherwise") else {}
        given = inventory(GROUPS, HOSTS, **{**common, **wrong})
        processes[name] = start(home / name, given, [playbook], "--extra-vars", more)
    found = {}
    for name, process in processes.items():
        run = finish(process)
        assert run.code == 0, run.output
        file = home / f"{name}.json"
        # Connections and users are in it.
        assert file.stat().st_mode & 0o777 == 0o600
        found[name] = json.loads(file.read_text())
        assert found[name]["errors"] == {}
    return found


def line(told: Tree, name: str) -> Any:
    return told["table"][name]


def test_a_line_that_an_inventory_overrides_has_both_values(told: Tree) -> None:
    connections = line(told["as it is"], "postgres_connections")
    assert (connections["value"], connections["derived"]) == (300, 200)
    assert connections["overridden"]
    assert connections["variable"] == "postgres_max_connections"
    assert not line(told["as it is"], "nofile")["overridden"]


def test_every_line_of_the_table_is_evaluated_in_its_order(told: Tree) -> None:
    assert list(told["as it is"]["table"]) == list(TABLE)


def test_values_are_those_of_the_host_and_its_roles(told: Tree) -> None:
    hosts = told["as it is"]["hosts"]
    assert hosts["app1"]["server"] == "uvicorn"
    # The role of the edge has it, and no other.
    assert hosts["lb1"]["handshakes_per_second"] > 0
    assert hosts["app1"]["handshakes_per_second"] == 0
    assert [worker["name"] for worker in hosts["data1"]["workers"]] == [
        *("app1:8001", "app1:8002", "app2:8001", "app2:8002")
    ]
    assert hosts["app1"]["statement"]["sockets"] == 20_000


def test_limits_of_planned_hosts_follow_from_as_many_hosts(told: Tree) -> None:
    planned = told["others"]
    assert len(planned["groups"]["channels"]) == 5
    # What the planned ones have is what the first one has.
    assert sorted(planned["hosts"]) == ["app1", "app2", "data1", "lb1"]
    # Four of five hosts with two workers each carry 160 000; two of three edges, too.
    assert line(planned, "sockets_per_worker")["value"] == 20_000
    assert line(planned, "edge_sockets")["value"] == 80_000
    first = planned["hosts"]["app1"]
    assert len({worker["address"] for worker in first["workers"]}) == 5


def test_a_host_that_is_not_planned_is_gone(told: Tree) -> None:
    fewer = told["fewer"]
    assert fewer["groups"]["channels"] == ["app1"]
    assert "app2" not in fewer["hosts"]
    # Nothing to spare, so one host carries all.
    assert line(fewer, "sockets_per_worker")["value"] == 10_000


def test_what_the_preflight_refuses_is_told_in_its_words(told: Tree) -> None:
    assert told["as it is"]["refused"] == []
    assert [text.split(";")[0] for text in told["refused"]["refused"]] == [
        "cluster_sockets is 'many'",
        "cluster_spare_hosts is 2",
        "redis_maxmemory is 'lots'",
    ]
    assert "less than the number of hosts in the group channels" in told["refused"]["refused"][1]


def test_what_is_asked_for_takes_the_place_of_a_refused_value(told: Tree) -> None:
    (text,) = told["asked otherwise"]["refused"]
    assert text.startswith("redis_maxmemory is 'lots'")


def test_a_host_on_which_no_module_runs_has_its_values_all_the_same(tmp_path: Path) -> None:
    # A failure, and no host that cannot be reached.
    fails = {"ansible_connection": "local", "ansible_python_interpreter": "/bin/false"}
    given = inventory(GROUPS, HOSTS, **fails)
    playbook = {"ansible.builtin.import_playbook": str(ROOT / "playbooks" / "values.yml")}
    file = tmp_path / "values.json"
    more = json.dumps({"values_file": str(file)})
    run = finish(start(tmp_path / "home", given, [playbook], "--extra-vars", more))
    assert run.code == 0, run.output
    app1 = json.loads(file.read_text())["hosts"]["app1"]
    assert app1["cores"] is None
    assert app1["statement"]["sockets"] == 10_000
