"""Limits follow from what the cluster must carry: one number is changed, and everything follows."""

import re
from math import ceil
from typing import Any

import pytest

from .house import ROOT, Tree, defaults, options, private
from .rendered import Cluster, render
from .test_templates import address, inventory

GROUPS = {
    "nginx": ["lb1"],
    "channels": ["app1", "app2", "app3"],
    "postgres": ["data1"],
    "redis": ["data1"],
}
HOSTS = {
    host: address(f"10.0.0.{number}")
    for number, host in enumerate(["lb1", "app1", "app2", "app3", "data1"], 1)
}
TABLE: dict[str, Tree] = private("cluster")["cluster_capacity"]
# Handshakes of a worker: 80 % of what was measured.
PACE = int(0.8 * defaults("cluster")["cluster_figures"]["handshakes_per_second"]["value"])


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cluster]:
    return render(
        tmp_path_factory.mktemp("capacity"),
        {
            "small": inventory(GROUPS, HOSTS, cluster_sockets=10_000),
            "large": inventory(GROUPS, HOSTS, cluster_sockets=160_000),
            # One line is overridden, and what depends on it follows.
            "line": inventory(
                GROUPS, HOSTS, cluster_sockets=10_000, cluster_sockets_per_worker=90_000
            ),
            "busy": inventory(
                GROUPS,
                HOSTS,
                cluster_messages_per_second=2000,
                cluster_figures={
                    "inventory": "busy",
                }
                | {
                    name: {"low": 1, "value": 500, "high": 600}
                    for name in (
                        *("socket_kib", "edge_socket_kib", "worker_mib", "handshakes_per_second"),
                        *("deliveries_per_second", "delivery_microseconds"),
                    )
                },
            ),
        },
    )


def found(pattern: str, text: str) -> list[int]:
    return [int(each) for each in re.findall(pattern, text, re.M)]


def limits(cluster: Cluster) -> dict[str, Any]:
    """Every limit of the rendered files that follows from the statement."""
    edge, app, data = (
        {path: file.content for path, file in cluster[host].items()}
        for host in ("lb1", "app1", "data1")
    )
    nginx = edge["/etc/nginx/nginx.conf"]
    unit = app["/etc/systemd/system/channels-web@.service"]
    (environment,) = (text for path, text in app.items() if path.endswith(".env"))
    sysctl = edge["/etc/sysctl.d/60-channels-kit.conf"]
    redis = data["/etc/redis/redis-layer.conf"]
    drop_in = data["/etc/systemd/system/redis-server@.service.d/channels-kit.conf"]
    (postgres,) = (
        text for path, text in data.items() if "/main/conf.d/" in path and "postgresql" in path
    )
    return {
        "sockets of a worker": found(r"MAX_SOCKETS=\W*(\d+)", environment),
        "drain window": found(r"DRAIN_WINDOW=\W*(\d+)", environment),
        "drain pace": found(r"DRAIN_PACE=\W*(\d+)", environment),
        "layer capacity": found(r"CHANNEL_LAYER_CAPACITY=\W*(\d+)", environment),
        "open files of a worker": found(r"^LimitNOFILE=(\d+)", unit),
        "memory of a worker": re.findall(r"^Memory(?:High|Max)=(.+)", unit, re.M),
        "open files of nginx": found(r"^worker_rlimit_nofile (\d+)", nginx),
        "open files of Redis": found(r"^LimitNOFILE=(\d+)", drop_in),
        "open files of a login": found(
            r"^\* +- +nofile +(\d+)", edge["/etc/security/limits.d/60-channels-kit.conf"]
        ),
        "connections of nginx": found(r"^ +worker_connections (\d+)", nginx),
        "handshakes": found(r"zone=handshakes:1m rate=(\d+)r/s", nginx),
        "backlog of nginx": sorted(set(found(r"backlog=(\d+)", nginx))),
        "backlog of a worker": sorted(set(found(r"--backlog (\d+)", unit))),
        "backlog of the kernel": found(r"^net.core.somaxconn = (\d+)", sysctl),
        "clients of Redis": found(r"^maxclients (\d+)", redis),
        "memory of Redis": found(r"^maxmemory (\d+)mb", redis),
        "buffer of Redis": found(r"^client-output-buffer-limit pubsub (\d+)mb", redis),
        "connections of PostgreSQL": found(r"^max_connections = (\d+)", postgres),
    }


SMALL: dict[str, list[Any]] = {
    "sockets of a worker": [2500],
    "drain window": [ceil(2500 / PACE)],
    "drain pace": [PACE],
    "layer capacity": [2000],
    "open files of a worker": [65536],
    # The figures are the sample's.
    "memory of a worker": ["infinity", "infinity"],
    "open files of nginx": [65536],
    "open files of Redis": [65536],
    "open files of a login": [65536],
    "connections of nginx": [20512],
    "handshakes": [6 * PACE],
    "backlog of nginx": [8192],
    "backlog of a worker": [8192],
    "backlog of the kernel": [8192],
    "clients of Redis": [10000],
    "memory of Redis": [256],
    "buffer of Redis": [32],
    "connections of PostgreSQL": [200],
}


def test_ten_thousand_sockets(clusters: dict[str, Cluster]) -> None:
    # Two of three hosts carry them, each with two workers.
    assert limits(clusters["small"]) == SMALL


def test_with_another_number_of_sockets_everything_follows(clusters: dict[str, Cluster]) -> None:
    assert limits(clusters["large"]) == {
        **limits(clusters["small"]),
        "sockets of a worker": [40_000],
        "drain window": [ceil(40_000 / PACE)],
        "connections of nginx": [320_512],
        **{
            f"open files of {what}": [320_768] for what in ("a worker", "nginx", "Redis", "a login")
        },
        **{f"backlog of {what}": [32768] for what in ("a worker", "nginx", "the kernel")},
    }


def test_what_depends_on_an_overridden_line_follows(clusters: dict[str, Cluster]) -> None:
    assert limits(clusters["line"]) == {
        **limits(clusters["small"]),
        "sockets of a worker": [90_000],
        "drain window": [ceil(90_000 / PACE)],
        **{f"open files of {what}": [90_256] for what in ("a worker", "nginx", "Redis", "a login")},
        **{f"backlog of {what}": [32768] for what in ("a worker", "nginx", "the kernel")},
    }


def test_messages_and_figures_change_what_follows_from_them(clusters: dict[str, Cluster]) -> None:
    assert limits(clusters["busy"]) == {
        **limits(clusters["small"]),
        "layer capacity": [20_000],
        "memory of Redis": [256],
        "buffer of Redis": [79],
        # Two processes of 500 MiB, and one and a half times 2500 sockets of 500 KiB.
        "memory of a worker": ["2832M", "5664M"],
        "drain pace": [400],
        "drain window": [7],
        "handshakes": [2400],
    }


@pytest.mark.parametrize("name", TABLE)
def test_every_line_has_a_reason_and_a_source(name: str) -> None:
    line = TABLE[name]
    assert set(line) - {"variable"} == {"value", "unit", "reason", "source"}
    assert line["reason"] == line["reason"].strip()
    assert not line["reason"].endswith(".")


def test_every_variable_of_the_table_has_its_line_as_its_default() -> None:
    for name, line in TABLE.items():
        if variable := line.get("variable"):
            role = variable.split("_")[0]
            assert variable in options(role)
            default = (ROOT / "roles" / role / "defaults" / "main.yml").read_text()
            assert f'\n{variable}: "{{{{ cluster_capacity.{name}.value }}}}"\n' in default
