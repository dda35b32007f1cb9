"""The preflight refuses hosts that have less than the cluster needs, with three ways out."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .house import ROLES, ROOT, Run, Tree, read_yaml, run, run_module

CAPACITY: Tree = next(
    play for play in read_yaml(ROOT / "playbooks/preflight.yml") if play["name"] == "Capacity"
)

# By host: its group, what is wrong with it, and what is said of it.
SHORT: dict[str, tuple[str, Tree, str]] = {
    "files": (
        "channels",
        {"cluster_nofile": 2**31},
        r"open files: needs 2147483648, has \d+\.",
    ),
    "memory": (
        "channels",
        {"cluster_sockets_per_worker": 10**9, "cluster_nofile": 1024},
        r"memory: needs \d{7,} MiB, has \d+ MiB\.",
    ),
    "setting": (
        "postgres",
        {"base_sysctl": {"net.ipv4.no_such_setting": 1}},
        r"kernel setting net\.ipv4\.no_such_setting: needs writable, has missing\.",
    ),
    "sockets": (
        "channels",
        {"cluster_sockets_per_worker": 10},
        r"sockets of the cluster: needs 10000, has \d+\.",
    ),
    "messages": (
        "channels",
        {"cluster_messages_per_second": 100_000},
        r"deliveries of a worker: needs \d+ per second, has \d+ per second\.",
    ),
    "processors": (
        "channels",
        {"cluster_messages_per_second": 1_000_000},
        r"processors: needs \d+(\.\d+)?, has \d+(\.\d+)?\.",
    ),
    "taken": (
        "channels",
        {"cluster_first_worker_port": "PORT"},
        r"port PORT: needs free or channels-\*\.service, has [\w.-]+",
    ),
    "page": (
        "nginx",
        {"cluster_edge_http_port": "PORT"},
        r"port PORT: needs free or nginx\.service, has [\w.-]+",
    ),
    "edge": (
        "nginx",
        {"nginx_worker_connections": 64},
        r"connections of nginx: needs \d+, has \d+\.",
    ),
    "range": (
        "nginx",
        {"base_sysctl": {"net.ipv4.ip_local_port_range": "60000 60099"}},
        r"ports for connections to one worker: needs \d+, has 100\.",
    ),
    "clients": (
        "redis",
        {"redis_maxclients": 1},
        r"clients of Redis: needs \d+, has 1\.",
    ),
    "big": (
        "redis",
        {"redis_maxmemory": "90000gb"},
        r"memory: needs \d+ MiB, has \d+ MiB\.",
    ),
    "layer": (
        "redis",
        {"redis_instances": {"layer": {"port": "PORT"}}},
        r"port PORT: needs free or redis-server\*\.service, has [\w.-]+",
    ),
    "pools": (
        "postgres",
        {"postgres_max_connections": 5},
        r"connections of PostgreSQL: needs \d+, has 5\.",
    ),
    "database": (
        "postgres",
        {"cluster_postgres_port": "PORT"},
        r"port PORT: needs free or postgresql\*\.service, has [\w.-]+",
    ),
}
ENOUGH = {"enough": "channels", "balancer": "nginx", "store": "redis", "base": "postgres"}
FREE: Tree = {
    # No port of the machine that runs the tests.
    "cluster_first_worker_port": 1025,
    "cluster_edge_http_port": 1027,
    "nginx_local_port": 1028,
    "cluster_postgres_port": 1029,
    "redis_instances": {"layer": {"port": 1030}},
    "base_sysctl": {},
    "cluster_nofile": 20000,
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def with_port(tree: Any, port: int) -> Any:
    if isinstance(tree, dict):
        return {key: with_port(value, port) for key, value in tree.items()}
    return port if tree == "PORT" else tree


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, port: int) -> Run:
    """The preflight of a cluster in which every host but four has one thing less than it needs."""
    groups: Tree = {group: {"hosts": {}} for group in ("nginx", "channels", "postgres", "redis")}
    for host, (group, wrong, _) in SHORT.items():
        groups[group]["hosts"][host] = with_port(wrong, port)
    for host, group in ENOUGH.items():
        groups[group]["hosts"][host] = {}
    inventory = {
        "all": {
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": "/usr/bin/python3",
                "cluster_address": "10.0.0.1",
                "cluster_server_names": ["chat.example.org"],
                **FREE,
            },
            "children": groups,
        }
    }
    return run(tmp_path_factory.mktemp("terms"), inventory, [CAPACITY])


def said(run: Run) -> dict[str, list[str]]:
    """What is said of each host."""
    told = re.search(r"Nothing changed\.\n(.*?)\nSee docs", run.output.replace("\\n", "\n"), re.S)
    assert told, run.output
    found: dict[str, list[str]] = {}
    for line in told[1].splitlines():
        hosts, _, problem = line.strip().partition(": ")
        for host in hosts.split(", "):
            found.setdefault(host, []).append(problem)
    return found


@pytest.mark.parametrize("host", SHORT)
def test_a_host_that_has_less_than_it_needs_is_refused(short: Run, port: int, host: str) -> None:
    assert short.code != 0
    pattern = SHORT[host][2].replace("PORT", str(port))
    matching = [problem for problem in said(short)[host] if re.match(pattern, problem)]
    assert len(matching) == 1, said(short)[host]
    # What decides is named with its value.
    for name, value in with_port(SHORT[host][1], port).items():
        if name != "cluster_nofile" or host == "files":
            shown = "" if isinstance(value, dict) else rf" is {value}\b"
            assert re.search(rf"\b{name}\b{shown}", matching[0]), matching[0]
    assert re.search(r" Ways out: \(1\) .+; \(2\) .+; \(3\) .+", matching[0])


@pytest.mark.parametrize("host", ENOUGH)
def test_a_host_that_has_enough_is_not_named(short: Run, host: str) -> None:
    assert host not in said(short)


@pytest.mark.parametrize(
    "file", sorted(ROLES.glob("*/meta/terms.yml")), ids=lambda path: path.parts[-3]
)
def test_every_term_has_a_reason_and_three_ways_out(file: Path) -> None:
    terms = yaml.safe_load(file.read_text())["terms"]
    for term in terms:
        # What other roles need of the same thing is added to it.
        if term["term"] == "memory" and file.parts[-3] != "cluster":
            assert set(term) == {"term", "needs", "reason"}
            continue
        assert {"term", "needs", "has", "reason", "ways"} <= set(term)
        assert len(term["ways"]) == 3, term["term"]
        assert not term["reason"].strip().endswith("."), term["term"]


def test_what_a_host_has_is_read(port: int) -> None:
    found = run_module(
        "host_capacity_info",
        {"sysctls": ["net.core.somaxconn", "no.such.setting"], "paths": ["/", "/no/such/path"]},
    )
    assert found["changed"] is False
    host = found["host"]
    assert host["user_id"] == os.getuid()
    assert host["memory_mib"] > 100
    assert host["cores"] > 0
    assert host["open_files"] >= 1024
    assert host["listening"][str(port)]
    assert host["sysctls"]["no.such.setting"] == "missing"
    assert host["sysctls"]["net.core.somaxconn"] in ("writable", "read-only")
    # Others write meanwhile.
    assert host["disks"]["/no/such/path"].keys() == host["disks"]["/"].keys()


@pytest.mark.parametrize(
    ("capabilities", "users", "open_files"),
    [
        # The manager of the machine raises limits up to fs.nr_open; that of a container does not.
        ("000001ffffffffff", "0 0 4294967295", 1_048_576),
        ("00000000a80425fb", "0 0 4294967295", 20_000),
        ("000001ffffffffff", "0 100000 65536", 20_000),
    ],
)
def test_open_files_are_those_that_systemd_can_grant(
    tmp_path: Path, capabilities: str, users: str, open_files: int
) -> None:
    program = """
import json, runpy, sys
from pathlib import Path
names = runpy.run_path(sys.argv[1])
print(json.dumps(names["open_files"](Path(sys.argv[2]))))
"""
    (tmp_path / "sys/fs").mkdir(parents=True)
    (tmp_path / "sys/fs/nr_open").write_text("1048576\n")
    (tmp_path / "1").mkdir()
    (tmp_path / "1/limits").write_text("Max open files            1024     20000     files\n")
    (tmp_path / "1/status").write_text(f"CapEff:\t{capabilities}\n")
    (tmp_path / "1/uid_map").write_text(f"         {users}\n")
    module = ROOT / "plugins/modules/host_capacity_info.py"
    told = subprocess.run(
        [sys.executable, "-c", program, module, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout) == open_files
