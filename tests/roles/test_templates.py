"""What the roles write means what the inventory says."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import product
from math import ceil
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from channels_kit.serving.retired import directory_of
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.sockets import CLOSE_TIMEOUT

from .formats import (
    Directive,
    Guard,
    parse_environment_file,
    parse_guards,
    parse_nginx,
    parse_unit,
)
from .house import ROLE_NAMES, ROLES, Tree, defaults, private
from .rendered import RELEASE, Cluster, Written, render

SECRETS = {
    "channels_probe_token": "probe-token.of_the~tests",
    # All that preflight allows in a secret.
    "channels_secret_key": "secret-key" + "".join(map(chr, range(0x21, 0x7F))),
    "postgres_password": "postgres-password:@?#%&'\"\\$`{}",
    "redis_broker_password": "broker-password:@?#%&'\"\\$`{}",
    "redis_layer_password": "layer-password:@?#%&'\"\\$`{}",
}
# What `openssl rand -base64` gives.
SLASHED = {name: "slashed/" + value for name, value in SECRETS.items() if name.endswith("password")}
AWKWARD = {
    "QUOTES": "a \"double\" and a 'single' one",
    "BACKSLASHES": r"C:\new\$HOME\\",
    "DOLLARS": "$HOME ${HOME} $$",
    "BACKTICKS": "`id`",
    "SPACES": "a  b # no comment ; nor this",
    "PERCENT": "100 %i",
    "UNICODE": "größer",
    "EMPTY": "",
    "NUMBER": 5,
}
AROUND = "  spaces around  "


def inventory(groups: Tree, hosts: Tree, **variables: Any) -> Tree:
    """An inventory whose values are data, and no templates."""
    common = {"cluster_server_names": ["chat.example.org"], **SECRETS, **variables}
    return {
        "all": {"hosts": hosts, "vars": {name: raw(value) for name, value in common.items()}},
        **{group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()},
    }


def raw(value: Any) -> Any:
    """A value that Ansible does not read as a template."""
    if isinstance(value, dict):
        return {key: raw(inner) for key, inner in value.items()}
    return f"{{% raw %}}{value}{{% endraw %}}" if isinstance(value, str) and "{" in value else value


def address(value: str, **more: Any) -> Tree:
    return {"cluster_address": value, **more}


INVENTORIES = {
    # As `make up` has it: two app hosts with two workers each.
    "staging": inventory(
        {"nginx": ["lb1"], "channels": ["app1", "app2"], "postgres": ["data1"], "redis": ["data1"]},
        {
            "app1": address("10.0.0.10"),
            "app2": address("10.0.0.11"),
            "data1": address("10.0.0.12"),
            "lb1": address("10.0.0.13"),
        },
        **SLASHED,
        channels_environment={**AWKWARD, "AROUND": AROUND},
        channels_celery_application="config",
        channels_processes={
            "celery": {"celery": "worker", "queues": ["celery", "mail"], "concurrency": 4},
            "beat": {"celery": "beat"},
            "thumbnails": {"runworker": ["thumbnails", "-a.b"], "instances": 2},
        },
        channels_server="daphne",
        channels_writable=["media"],
        channels_writable_store="per-host",
        channels_stop_timeout=90,
        channels_ready_timeout=33,
        cluster_nofile=20000,
        nginx_http_snippet="# of the operator's\nresolver 10.0.0.1;\n",
        nginx_server_snippet="location /of-mine/ {\n    return 204;\n}\n",
        postgres_settings={"log_line_prefix": "it's %m "},
    ),
    # Both families, two edges, a host that carries more than the others.
    "six": inventory(
        {
            "nginx": ["lb1", "lb2"],
            "channels": ["app1", "app2"],
            "postgres": ["data1"],
            "redis": ["data1"],
        },
        {
            "app1": address("fd00::a1", cluster_workers=3),
            "app2": address("10.0.0.2"),
            "data1": address("fd00::d1"),
            "lb1": address("fd00::b1"),
            "lb2": address("10.0.0.9"),
        },
        channels_drain_pace=40,
        cluster_sockets_per_worker=2500,
        channels_server="hypercorn",
        cluster_first_worker_port=9000,
        cluster_edge_http_port=8080,
        cluster_server_names=["chat.example.org", "fd00::b1"],
    ),
    # All on one, and nothing said that need not be.
    "minimal": inventory(
        {role: ["one"] for role in ("nginx", "channels", "postgres", "redis")},
        {"one": address("192.0.2.1")},
    ),
}

# Values that are templates, and name parts of the cluster.
INVENTORIES["parts"] = inventory(
    {"nginx": ["lb1"], "channels": ["app1"], "postgres": ["data1"], "redis": ["data1"]},
    {
        "app1": address("10.0.0.1"),
        "data1": address("10.0.0.2"),
        "lb1": address("fd00::b1"),
    },
    cluster_edge_http_port=8080,
    cluster_server_names=["chat.example.org", ".example.net", "fd00::b1"],
    channels_settings_overlay=True,
    channels_writable=["media", "var/cache"],
    channels_writable_store="/srv/shared",
)
INVENTORIES["parts"]["all"]["vars"]["channels_environment"] = {
    "MY_DATABASE": "{{ cluster.database.url }}",
    "MY_DOMAIN": "{{ cluster.domain }}",
    "MY_LAYER": "{{ cluster.layer.host }}:{{ cluster.layer.port }}"
    " {{ cluster.layer.user }} {{ cluster.layer.password }}",
    "MY_MEDIA": "{{ cluster.media_root }}",
    "MY_ORIGINS": "{{ cluster.origins }}",
    "MY_STATIC": "{{ cluster.static_root }}",
}

# By inventory: the workers as the edge shall know them.
WORKERS = {
    "staging": {f"10.0.0.{host}:{port}" for host, port in product((10, 11), (8001, 8002))},
    "six": {f"[fd00::a1]:{port}" for port in (9000, 9001, 9002)}
    | {f"10.0.0.2:{port}" for port in (9000, 9001)},
    "minimal": {"192.0.2.1:8001", "192.0.2.1:8002"},
    "parts": {"10.0.0.1:8001", "10.0.0.1:8002"},
}
EDGES = {"staging": ["lb1"], "six": ["lb1", "lb2"], "minimal": ["one"], "parts": ["lb1"]}
APPS = {
    "staging": ["app1", "app2"],
    "six": ["app1", "app2"],
    "minimal": ["one"],
    "parts": ["app1"],
}
DATA = {"staging": "data1", "six": "data1", "minimal": "one", "parts": "data1"}
NOFILE = {"staging": 20000, "six": 65536, "minimal": 65536, "parts": 65536}
SERVERS = {"staging": "daphne", "six": "hypercorn", "minimal": "uvicorn", "parts": "uvicorn"}

every_inventory = pytest.mark.parametrize("name", INVENTORIES)
every_edge = pytest.mark.parametrize(
    ("name", "host"), [(name, host) for name, hosts in EDGES.items() for host in hosts]
)
every_app = pytest.mark.parametrize(
    ("name", "host"), [(name, host) for name, hosts in APPS.items() for host in hosts]
)


def address_of(name: str, host: str) -> str:
    found: str = INVENTORIES[name]["all"]["hosts"][host]["cluster_address"]
    return found


def addresses_of(name: str, hosts: list[str]) -> set[str]:
    return {address_of(name, host) for host in hosts}


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cluster]:
    return render(tmp_path_factory.mktemp("rendered"), INVENTORIES)


def every_file(clusters: dict[str, Cluster]) -> Iterator[tuple[str, str, Written]]:
    for name, cluster in clusters.items():
        for host, files in cluster.items():
            for file in files.values():
                yield name, host, file


# Named after what is in it.
ENVIRONMENT_FILE = "/etc/channels/*.env"


def path_of(file: Written) -> str:
    return re.sub(r"^/etc/channels/[0-9a-f]{8}\.env$", ENVIRONMENT_FILE, file.path)


def environment_file(files: Mapping[str, Written]) -> Written:
    (found,) = (file for file in files.values() if path_of(file) == ENVIRONMENT_FILE)
    return found


# All of them


def test_every_host_gets_the_files_of_its_roles(clusters: dict[str, Cluster]) -> None:
    common = {
        "/etc/security/limits.d/60-channels-kit.conf",
        "/etc/sysctl.d/60-channels-kit.conf",
        "/etc/systemd/journald.conf.d/channels-kit.conf",
        "/etc/channels-kit.nft",
        "/etc/systemd/system/channels-firewall.service",
        "/etc/systemd/system/chrony.service.d/channels-kit.conf",
    }
    app = {
        ENVIRONMENT_FILE,
        "/etc/channels/drained",
        "/etc/channels/host.conf",
        "/etc/channels/layer-bridge",
        "/etc/systemd/system/channels-web@.service",
    }
    processes = {f"/etc/systemd/system/{name}" for name in PROCESSES}
    edge = {
        "/etc/nginx/nginx.conf",
        "/etc/systemd/system/nginx.service.d/channels-kit.conf",
    }
    data = {
        "/etc/postgresql/15/main/conf.d/channels-kit.conf",
        "/etc/postgresql/15/main/pg_hba.conf",
        "/etc/postgresql-common/createcluster.d/channels-kit.conf",
        "/etc/systemd/system/postgresql@15-main.service.d/channels-kit.conf",
        "/etc/systemd/system/redis-server@.service.d/channels-kit-supervision.conf",
        "/etc/systemd/system/redis-server@.service.d/channels-kit.conf",
        "/etc/redis/redis-layer.conf",
        "/etc/redis/redis-broker.conf",
    }
    for name, cluster in clusters.items():
        for host, files in cluster.items():
            assert {path_of(file) for file in files.values()} == (
                common
                | (app if host in APPS[name] else set())
                | (processes if host in APPS[name] and name == "staging" else set())
                | (edge if host in EDGES[name] else set())
                | (data if host == DATA[name] else set())
            ), f"{name}: {host}"
    templates = [path.name for role in ROLE_NAMES for path in (ROLES / role).glob("templates/*")]
    parts = {"process.j2", "firewall-rules.nft.j2", "result.j2"}
    parts |= {"health.conf.j2", "client_limits.conf.j2", "real_ip.conf.j2"}
    parts |= {"tls.conf.j2", "acme.conf.j2", "redirect.conf.j2"}
    # Two instances of Redis have one redis.conf; the processes have one template. What is drained
    # has none, nor has the bridge of two layers.
    assert (
        len([name for name in templates if name not in parts])
        == len(common | app | edge | data) - 3 + 1
    )


def test_no_file_holds_what_a_template_has_left_over(clusters: dict[str, Cluster]) -> None:
    for name, host, file in every_file(clusters):
        if path_of(file) != ENVIRONMENT_FILE:
            assert not re.search(r"\{\{|\}\}|\{%|%\}|\bNone\b|\bUndefined\b", file.content), (
                f"{name}: {host}: {file.path}"
            )
        assert "Ansible managed" in file.content


def test_a_secret_stands_only_in_files_that_others_cannot_read(
    clusters: dict[str, Cluster],
) -> None:
    found = set()
    for name, host, file in every_file(clusters):
        for secret in {**SECRETS, **(SLASHED if name == "staging" else {})}.values():
            # Its first letters are in clear however it is quoted.
            if secret.removeprefix("slashed/")[:13] in file.content:
                found.add(path_of(file))
                assert file.secret, f"{name}: {host}: the diff of {file.path} shows it"
                assert file.mode.endswith("00"), f"{name}: {host}: others read {file.path}"
    assert found == {ENVIRONMENT_FILE}


def test_what_has_a_checker_is_checked(clusters: dict[str, Cluster]) -> None:
    checked = {file.path for _, _, file in every_file(clusters) if "%s" in file.validate}
    assert checked == {
        "/etc/channels-kit.nft",
        "/etc/nginx/nginx.conf",
        "/etc/postgresql/15/main/conf.d/channels-kit.conf",
        "/etc/systemd/system/channels-firewall.service",
        "/etc/systemd/system/channels-web@.service",
        *(f"/etc/systemd/system/{name}" for name in PROCESSES),
    }


# base


@every_inventory
def test_no_outgoing_connection_takes_the_port_of_a_worker(
    clusters: dict[str, Cluster], name: str
) -> None:
    ports = {int(worker.rsplit(":", 1)[1]) for worker in WORKERS[name]}
    for files in clusters[name].values():
        lines = files["/etc/sysctl.d/60-channels-kit.conf"].lines
        settings = dict(line.split(" = ") for line in lines)
        first, last = map(int, settings["net.ipv4.ip_local_reserved_ports"].split("-"))
        assert ports <= set(range(first, last + 1))
        assert int(settings["net.core.somaxconn"]) >= 4096
        lowest, highest = map(int, settings["net.ipv4.ip_local_port_range"].split())
        assert highest - lowest > 50_000, "a socket that is proxied takes one"


@every_inventory
def test_a_login_may_open_what_the_inventory_says(clusters: dict[str, Cluster], name: str) -> None:
    for files in clusters[name].values():
        lines = files["/etc/security/limits.d/60-channels-kit.conf"].lines
        assert [line.split() for line in lines] == [
            [who, "-", "nofile", str(NOFILE[name])] for who in ("*", "root")
        ]


@every_inventory
def test_the_firewall_guards_exactly_the_ports_of_a_hosts_groups(
    clusters: dict[str, Cluster], name: str
) -> None:
    apps, edges = addresses_of(name, APPS[name]), addresses_of(name, EDGES[name])
    for host, files in clusters[name].items():
        wanted = set()
        if host in APPS[name]:
            own = f"{address_of(name, host)}"
            ports = {
                int(worker.rsplit(":", 1)[1])
                for worker in WORKERS[name]
                if worker.rsplit(":", 1)[0].strip("[]") == own
            }
            wanted |= guards(ports, apps | edges)
        if host == DATA[name]:
            wanted |= guards({5432}, apps) | guards({6379, 6380}, apps)
        found = parse_guards(files["/etc/channels-kit.nft"].lines)
        assert set(found) == wanted, host
        assert len(found) == len(wanted), "a rule stands there twice"
        for place, guard in enumerate(found):
            if guard.verdict == "accept":
                rejected = [rule.ports for rule in found[:place] if rule.verdict != "accept"]
                assert guard.ports not in rejected, "refused before it is accepted"


def guards(ports: set[int], sources: set[str]) -> set[Guard]:
    """The rules that let sources, and nobody else, reach ports."""
    four = frozenset(source for source in sources if ":" not in source)
    six = frozenset(sources) - four
    families = {"ip": four, "ip6": six}
    return {
        Guard(frozenset(ports), family, members, "accept")
        for family, members in families.items()
        if members
    } | {Guard(frozenset(ports), "", frozenset(), "reject with tcp reset")}


def test_the_firewall_replaces_its_own_table_alone(clusters: dict[str, Cluster]) -> None:
    for _, _, file in every_file(clusters):
        if file.path != "/etc/channels-kit.nft":
            continue
        assert file.content.startswith("#!/usr/sbin/nft -f\n")
        assert file.content.count("{") == file.content.count("}")
        assert "flush ruleset" not in file.content
        assert file.lines[:3] == [
            "table inet channels_kit",
            "delete table inet channels_kit",
            "table inet channels_kit {",
        ]
        assert "type filter hook input priority filter; policy accept;" in file.lines
        assert file.lines.index("iif lo accept") < file.lines.index(
            "ct state established,related accept"
        )


def test_the_unit_of_the_firewall_loads_the_file_that_is_written(
    clusters: dict[str, Cluster],
) -> None:
    files = clusters["minimal"]["one"]
    unit = parse_unit(files["/etc/systemd/system/channels-firewall.service"].content)
    for key in ("ExecStart", "ExecReload"):
        assert unit["Service"][key] == ["/usr/sbin/nft --file /etc/channels-kit.nft"]
    assert "network-pre.target" in unit["Unit"]["Before"][0]
    assert unit["Install"]["WantedBy"] == ["sysinit.target"]


def test_the_loaded_firewall_names_its_rules(clusters: dict[str, Cluster]) -> None:
    """What a run asks the kernel for is in the file, and is another one for other rules."""
    revisions: dict[str, str] = {}
    for name, host, file in every_file(clusters):
        if file.path == "/etc/channels-kit.nft":
            (revision,) = re.findall(r"^    chain (revision_[0-9a-f]{12}) \{$", file.content, re.M)
            rules = file.content.partition("chain input {")[2]
            assert revisions.setdefault(rules, revision) == revision, f"{name}: {host}"
    assert len(set(revisions.values())) == len(revisions) > 3


def test_the_journal_is_what_the_inventory_says(clusters: dict[str, Cluster]) -> None:
    files = clusters["minimal"]["one"]
    journal = parse_unit(files["/etc/systemd/journald.conf.d/channels-kit.conf"].content)
    assert journal == {"Journal": {"Storage": ["persistent"], "SystemMaxUse": ["500M"]}}


# nginx


def nginx(clusters: dict[str, Cluster], name: str, host: str) -> Directive:
    return parse_nginx(clusters[name][host]["/etc/nginx/nginx.conf"].content)


@every_edge
def test_the_edge_balances_over_exactly_the_workers(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    (upstream,) = nginx(clusters, name, host).all("http", "upstream")
    servers = upstream.values("server")
    assert sorted(server[0] for server in servers) == sorted(WORKERS[name])
    # Without shared memory each nginx worker would count its own sockets.
    assert [zone[0] for zone in upstream.values("zone")] == upstream.words[1:]
    assert upstream.values("least_conn") == [[]]
    for server in servers:
        assert server[1:] == ["max_fails=0"]


@every_edge
def test_the_edge_passes_websockets_on(clusters: dict[str, Cluster], name: str, host: str) -> None:
    conf = nginx(clusters, name, host)
    by_variable = {one.words[2]: one for one in conf.all("http", "map")}
    upgrade, connection, host_and_port = (
        by_variable[name] for name in ("$upgrade", "$connection_upgrade", "$host_and_port")
    )
    # No other protocol: a worker that takes one speaks to the client past the edge.
    assert upgrade.words[1:] == ["$request_method $http_upgrade", "$upgrade"]
    assert [one.words for one in upgrade.block] == [
        ["default", ""],
        ["GET websocket", "websocket"],
    ]
    assert connection.words[1:] == ["$upgrade", "$connection_upgrade"]
    assert [one.words for one in connection.block] == [["default", "upgrade"], ["", ""]]
    assert host_and_port.words[1:] == ["$http_host", "$host_and_port"]
    assert conf.value("http", "proxy_http_version") == "1.1"
    headers = dict(conf.values("http", "proxy_set_header"))
    assert headers["Upgrade"] == "$upgrade"
    assert headers["Connection"] == "$connection_upgrade"
    # Of its own, what the client claims is not passed on.
    assert headers["X-Forwarded-For"] == headers["X-Real-IP"] == "$remote_addr"
    assert headers["X-Forwarded-Proto"] == "$client_scheme"
    assert headers["Host"] == headers["X-Forwarded-Host"] == "$host_and_port"
    # One header set further in would put an end to all that are set further out.
    inner = [one for server in conf.all("http", "server") for one in server.below()]
    assert not [one for one in inner if one.name == "proxy_set_header"]
    assert conf.value("http", "proxy_read_timeout") == "86400s"
    # Only the check of a balancer has a shorter one.
    health = [one for one in inner if one.words == ["location", "=", "/-/health/worker"]]
    assert {id(one) for one in inner if one.name == "proxy_read_timeout"} == {
        id(one) for check in health for one in check.block if one.name == "proxy_read_timeout"
    }
    assert "http_503" in conf.value("http", "proxy_next_upstream").split()
    assert "non_idempotent" not in conf.value("http", "proxy_next_upstream")


@every_edge
def test_the_edges_share_the_handshakes_that_the_workers_can_take(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    conf = nginx(clusters, name, host)
    # 80 % of what was measured for one worker.
    each = int(defaults("cluster")["cluster_figures"]["handshakes_per_second"]["value"] * 0.8)
    rate = each * len(WORKERS[name]) // len(EDGES[name])
    one = min(20, rate // 2)
    zones = {key: (zone, limit) for key, zone, limit in conf.values("http", "limit_req_zone")}
    assert zones == {
        "$handshake": ("zone=handshakes:1m", f"rate={rate}r/s"),
        "$client_handshake": ("zone=handshakes_of_client:10m", f"rate={one}r/s"),
    }
    _, known, _ = conf.all("http", "server")
    assert known.values("limit_req") == [
        ["zone=handshakes_of_client", f"burst={3 * one}", "nodelay"],
        ["zone=handshakes", f"burst={5 * rate}"],
    ]


@every_edge
def test_the_edge_logs_no_query_string(clusters: dict[str, Cluster], name: str, host: str) -> None:
    conf = nginx(clusters, name, host)
    formats = {one.words[1]: " ".join(one.words[2:]) for one in conf.all("http", "log_format")}
    logs = [one.words[1:] for one in conf.below() if one.name == "access_log"]
    assert formats
    assert logs
    for log in logs:  # without a format it would be `combined`, which has $request
        assert log == ["off"] or log[1] in formats
    for text in formats.values():
        variables = set(re.findall(r"\$\{?(\w+)", text))
        assert "uri" in variables
        telling = {"request", "request_uri", "args", "query_string", "is_args"}
        telling |= {"http_cookie", "http_authorization", "http_referer", "request_body"}
        assert variables.isdisjoint(telling | {f"arg_{name}" for name in ("token", "key")})


@every_edge
def test_the_edge_has_the_files_that_the_inventory_says(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    conf = nginx(clusters, name, host)
    limit, sockets = (
        int(conf.value("worker_rlimit_nofile")),
        int(conf.value("events", "worker_connections")),
    )
    assert limit == NOFILE[name]
    # Both sides of all sockets, whichever process gets them.
    assert 2 * defaults("cluster")["cluster_sockets"] < sockets < limit or sockets == limit - 256


@every_edge
def test_the_edge_answers_to_its_names_alone(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    unknown, known, _ = nginx(clusters, name, host).all("http", "server")
    port = {"six": "8080", "parts": "8080"}.get(name, "80")
    assert [listen[:2] for listen in unknown.values("listen")] == [
        [port, "default_server"],
        [f"[::]:{port}", "default_server"],
    ]
    locations = {" ".join(one.words[1:]): one for one in unknown.all("location")}
    inside = {"= /-/health/worker", "@healthy", "@no_worker"}
    assert locations.keys() == {"/", "= /-/edge", "= /-/health", *inside}
    assert locations["= /-/health/worker"].values("internal") == [[]]
    assert locations["/"].value("return") == "421"
    assert [listen[0] for listen in known.values("listen")] == [port, f"[::]:{port}"]
    own = address_of(name, host)
    names = known.values("server_name")[0]
    assert "chat.example.org" in names
    assert (f"[{own}]" if ":" in own else own) in names
    assert len(names) == len(set(names))


@every_edge
def test_the_edge_keeps_the_workers_own_pages_inside(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    _, known, _ = nginx(clusters, name, host).all("http", "server")
    locations = {" ".join(one.words[1:]): one for one in known.all("location")}
    assert locations["^~ /-/"].value("return") == "404"
    for path in ("/", "/static/", "^~ /-/probe/"):
        assert locations[path].value("proxy_pass") == "http://channels"
    zone = known.value("location", "proxy_cache")
    assert f"keys_zone={zone}:" in nginx(clusters, name, host).value("http", "proxy_cache_path")


@every_edge
def test_the_edge_tells_its_own_host_alone_which_configuration_is_in_effect(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    conf = nginx(clusters, name, host)
    _, _, local = conf.all("http", "server")
    assert local.values("listen") == [["127.0.0.1:7980"]]
    locations = {" ".join(one.words[1:]): one for one in local.all("location")}
    status, answer = locations["= /generation"].values("return")[0]
    generation, process = answer.split()
    assert (status, process) == ("200", "$pid")
    assert locations["/"].value("return") == "404"
    told = dict(conf.values("http", "proxy_set_header"))["X-Edge-Generation"].split()
    assert told == [host, generation, "3600"]


def test_the_operators_own_lines_are_where_they_belong(clusters: dict[str, Cluster]) -> None:
    conf = nginx(clusters, "staging", "lb1")
    assert conf.value("http", "resolver") == "10.0.0.1"
    _, known, _ = conf.all("http", "server")
    assert ["/of-mine/"] in known.values("location")


# channels


def worker_unit(clusters: dict[str, Cluster], name: str, host: str) -> Any:
    return parse_unit(clusters[name][host]["/etc/systemd/system/channels-web@.service"].content)


STOP = {"staging": 90, "six": 15, "minimal": 15, "parts": 15}


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@every_app
def test_a_worker_may_open_what_the_inventory_says(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    assert worker_unit(clusters, name, host)["Service"]["LimitNOFILE"] == [str(NOFILE[name])]


@every_app
def test_a_worker_is_not_killed_while_it_drains(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    service = worker_unit(clusters, name, host)["Service"]
    drain = shlex.split(service["ExecStop"][0])
    given_up = int(option(drain, "--timeout"))
    (killed,) = map(int, service["TimeoutStopSec"])
    settings = ServingSettings.from_environment(web_env(clusters, name))
    # The last socket is closed, its client has answered or not, and the application has ended.
    assert settings.drain_window + CLOSE_TIMEOUT < given_up < killed
    # What the server does on SIGTERM has its own time.
    graceful = int(option(shlex.split(service["ExecStart"][0]), "--timeout-graceful-shutdown"))
    assert 0 < graceful < STOP[name] == killed - given_up


PROCESSES = [
    *("channels-process-beat.service", "channels-process-celery.service"),
    "channels-process-thumbnails@.service",
]


@pytest.mark.parametrize("unit", PROCESSES)
def test_background_work_has_the_time_to_stop_that_the_inventory_says(
    clusters: dict[str, Cluster], unit: str
) -> None:
    files = clusters["staging"]["app1"]
    service = parse_unit(files[f"/etc/systemd/system/{unit}"].content)["Service"]
    assert service["TimeoutStopSec"] == [str(STOP["staging"])]
    assert "ExecStop" not in service


def test_a_beat_keeps_its_times_where_it_may_write(clusters: dict[str, Cluster]) -> None:
    files = clusters["staging"]["app1"]
    unit = parse_unit(files["/etc/systemd/system/channels-process-beat.service"].content)
    service = unit["Service"]
    directories = " ".join(service["StateDirectory"]).split()
    command = shlex.split(service["ExecStart"][0])
    (schedule,) = (word for word in command if word.startswith("--schedule="))
    assert schedule in {f"--schedule=/var/lib/{each}/schedule" for each in directories}


@every_app
def test_a_worker_that_stops_drains_its_own_process(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    service = worker_unit(clusters, name, host)["Service"]
    drain = shlex.split(service["ExecStop"][0])
    assert drain[1:3] == ["-m", "channels_kit.serving.drain"]
    # systemd knows the process, and whether there still is one.
    assert "--process=${MAINPID}" in drain
    # Where it is known to answer.
    (url,) = (word for word in drain if word.startswith("http"))
    assert url in shlex.split(service["ExecStartPost"][0])


@every_app
def test_a_worker_is_replaced_by_what_a_restart_would_start(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    service = worker_unit(clusters, name, host)["Service"]
    words = shlex.split(service["ExecReload"][0])
    end = words.index("--")
    reload, command = words[:end], words[end + 1 :]
    assert reload[1:3] == ["-m", "channels_kit.serving.beside"]
    assert option(reload, "--process") == "${MAINPID}"
    assert command == shlex.split(service["ExecStart"][0])
    # It gives up before systemd would kill it, and leave the new process.
    assert int(option(reload, "--timeout")) < int(service["TimeoutStartSec"][0])
    # The new process says that it is the main one, and is none that systemd has started.
    assert service["NotifyAccess"] == ["all"]
    # One directory for all processes of a unit; what stops them finds the retired ones.
    directory = f"%t/{service['RuntimeDirectory'][0]}"
    assert f"CHANNELS_KIT_CONTROL_DIRECTORY={directory}" in service["Environment"]
    assert option(shlex.split(service["ExecStop"][0]), "--control") == directory
    assert str(directory_of("channels-web@8001.service")) == (
        directory.replace("%t", "/run").replace("%i", "8001")
    )


# 80 % of the handshakes that were measured for one worker.
PACE = int(defaults("cluster")["cluster_figures"]["handshakes_per_second"]["value"] * 0.8)
DRAINS = {
    # Sockets, sockets a second, seconds.
    "staging": (5000, PACE, ceil(5000 / PACE)),
    "six": (2500, 40, 63),
    "minimal": (5000, PACE, ceil(5000 / PACE)),
    "parts": (5000, PACE, ceil(5000 / PACE)),
}


@every_inventory
def test_a_worker_is_told_how_many_sockets_it_takes_and_how_it_closes_them(
    clusters: dict[str, Cluster], name: str
) -> None:
    settings = ServingSettings.from_environment(web_env(clusters, name))
    told = (settings.max_sockets, settings.drain_pace, settings.drain_window)
    assert told == DRAINS[name]
    # Even a worker that is full is drained at its pace.
    assert settings.drain_window >= settings.max_sockets / settings.drain_pace
    assert settings.max_sockets <= NOFILE[name] * 0.8


@every_app
def test_a_worker_that_is_slow_to_start_is_reported_before_systemd_kills_it(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    service = worker_unit(clusters, name, host)["Service"]
    wait = shlex.split(service["ExecStartPost"][0])
    ready = {"staging": 33}.get(name, defaults("channels")["channels_ready_timeout"])
    assert int(option(wait, "--timeout")) == ready
    assert int(service["TimeoutStartSec"][0]) > ready
    own = address_of(name, host)
    url = f"http://[{own}]:%i/-/live" if ":" in own else f"http://{own}:%i/-/live"
    assert url in wait


@every_app
def test_a_worker_listens_where_the_edge_looks_for_it(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    unit = worker_unit(clusters, name, host)
    command = shlex.split(unit["Service"]["ExecStart"][0])
    assert option(command, "--host") == address_of(name, host)
    assert option(command, "--port") == "%i"
    edges = {address_of(name, edge) for edge in EDGES[name]}
    assert set(option(command, "--forwarded-allow-ips").split(",")) == edges
    assert f"CHANNELS_KIT_WORKER={host}:%i" in unit["Service"]["Environment"]
    assert command[1:3] == ["-m", f"channels_kit.serving.{SERVERS[name]}"]
    assert (
        int(option(command, "--ws-max-size")) == defaults("channels")["channels_websocket_max_size"]
    )


def web_env(clusters: dict[str, Cluster], name: str) -> dict[str, str]:
    return parse_environment_file(environment_file(clusters[name][APPS[name][0]]).content)


def test_the_environment_means_what_the_operator_wrote(clusters: dict[str, Cluster]) -> None:
    """Whatever characters it has, after systemd has read it by its own rules."""
    read = web_env(clusters, "staging")
    assert {key: read[key] for key in AWKWARD} == {key: str(text) for key, text in AWKWARD.items()}


def test_spaces_around_a_value_of_the_environment_are_kept(clusters: dict[str, Cluster]) -> None:
    assert web_env(clusters, "staging")["AROUND"] == AROUND


@every_inventory
def test_the_application_is_told_its_secrets_as_they_are(
    clusters: dict[str, Cluster], name: str
) -> None:
    read = web_env(clusters, name)
    assert read["SECRET_KEY"] == SECRETS["channels_secret_key"]
    assert read["CHANNELS_KIT_PROBE_TOKEN"] == SECRETS["channels_probe_token"]
    assert read["ALLOWED_HOSTS"].split(",")[0] == "chat.example.org"
    file = environment_file(clusters[name][APPS[name][0]])
    assert (file.mode, file.owner, file.group, file.secret) == ("0600", "root", "root", True)


def test_an_application_finds_the_parts_under_the_names_that_frameworks_use(
    clusters: dict[str, Cluster],
) -> None:
    read = web_env(clusters, "staging")
    url = urlsplit(read["DATABASE_URL"])
    assert (read["POSTGRES_HOST"], read["POSTGRES_PORT"]) == (url.hostname, str(url.port))
    assert (read["POSTGRES_USER"], read["POSTGRES_DB"]) == (url.username, url.path[1:])
    # In a URL it is quoted, and by itself it is not.
    assert read["POSTGRES_PASSWORD"] == SLASHED["postgres_password"] == unquote(url.password or "")
    assert read["DJANGO_SECRET_KEY"] == read["SECRET_KEY"]
    assert read["DJANGO_ALLOWED_HOSTS"] == read["ALLOWED_HOSTS"]
    assert read["CELERY_BROKER_URL"] == read["BROKER_URL"]
    assert read["REDIS_URL"] == read["CHANNEL_LAYER_URL"]
    # What libpq reads by itself, and what is read in many ways.
    assert not {"PGPASSWORD", "PGHOST", "DEBUG", "DJANGO_DEBUG", "STATIC_ROOT"} & set(read)


def test_the_inventory_may_name_the_parts_of_the_cluster(clusters: dict[str, Cluster]) -> None:
    read = web_env(clusters, "parts")
    assert read["MY_DATABASE"] == read["DATABASE_URL"]
    assert read["MY_LAYER"] == f"10.0.0.2:6379 channels {SECRETS['redis_layer_password']}"
    assert read["MY_ORIGINS"] == read["CSRF_TRUSTED_ORIGINS"]
    assert read["MY_ORIGINS"].split(",") == [
        *("http://chat.example.org:8080", "https://chat.example.org"),
        *("http://example.net:8080", "https://example.net"),
        *("http://*.example.net:8080", "https://*.example.net"),
        *("http://[fd00::b1]:8080", "https://[fd00::b1]"),
    ]
    assert read["MY_DOMAIN"] == "chat.example.org"
    assert read["MY_STATIC"] == f"/srv/channels/releases/{RELEASE['id']}/static"
    assert read["MY_MEDIA"] == "/srv/shared/media"


def test_the_overlay_is_in_front_of_the_settings_where_it_is_asked_for(
    clusters: dict[str, Cluster],
) -> None:
    read = web_env(clusters, "parts")
    assert read["DJANGO_SETTINGS_MODULE"] == "channels_kit.overlay"
    assert read["CHANNELS_KIT_SETTINGS"] == "config.settings"
    assert read["CHANNELS_KIT_DATABASE_URL"] == read["DATABASE_URL"]
    assert read["CHANNELS_KIT_LAYER_URL"] == read["CHANNEL_LAYER_URL"]
    assert read["CHANNELS_KIT_BROKER_URL"] == read["BROKER_URL"]
    assert read["CHANNELS_KIT_ALLOWED_HOSTS"] == read["ALLOWED_HOSTS"]
    assert read["CHANNELS_KIT_MEDIA_ROOT"] == "/srv/shared/media"
    without = web_env(clusters, "staging")
    assert without["DJANGO_SETTINGS_MODULE"] == "config.settings"
    assert not {name for name in without if re.search("KIT_(SETTINGS|DATABASE|LAYER)", name)}


def test_directories_that_are_written_to_are_where_the_project_has_them(
    clusters: dict[str, Cluster],
) -> None:
    project = f"/srv/channels/releases/{RELEASE['id']}/app"
    for name, host, source in (
        ("parts", "app1", "/srv/shared"),
        ("minimal", "one", "/var/lib/channels"),
    ):
        unit = worker_unit(clusters, name, host)
        names = ["media", "var/cache"] if name == "parts" else []
        assert unit["Service"].get("BindPaths", []) == [
            f"{source}/{each}:{project}/{each}" for each in names
        ]
    shared = worker_unit(clusters, "parts", "app1")
    assert shared["Unit"]["RequiresMountsFor"] == ["/srv/shared"]
    assert "StateDirectory" not in shared["Service"]
    # By its own path too: cluster.media_root.
    assert shared["Service"]["ReadWritePaths"] == ["/srv/shared/media", "/srv/shared/var/cache"]
    own = worker_unit(clusters, "staging", "app1")
    assert own["Service"]["StateDirectory"] == ["channels/media"]
    assert own["Service"]["BindPaths"] == [f"/var/lib/channels/media:{project}/media"]


URLS = {
    "CHANNEL_LAYER_URL": ("redis", 6379, "redis_layer_password", "/0"),
    "BROKER_URL": ("redis", 6380, "redis_broker_password", "/0"),
    "DATABASE_URL": ("postgresql", 5432, "postgres_password", "/channels"),
}


@pytest.mark.parametrize("variable", URLS)
@pytest.mark.parametrize("name", ["staging", "six", "minimal"])
def test_the_urls_lead_to_the_data(clusters: dict[str, Cluster], name: str, variable: str) -> None:
    scheme, port, password, path = URLS[variable]
    url = urlsplit(web_env(clusters, name)[variable])
    assert (url.scheme, url.hostname, url.port, url.path) == (
        scheme,
        address_of(name, DATA[name]),
        port,
        path,
    )
    secret = {**SECRETS, **(SLASHED if name == "staging" else {})}[password]
    assert unquote(url.password or "") == secret
    # Each password of PostgreSQL has a login of its own, so that the former one is good meanwhile.
    login = f"channels_{hashlib.sha256(secret.encode()).hexdigest()[:8]}"
    assert url.username == (login if variable == "DATABASE_URL" else "channels")


@every_app
def test_every_worker_of_a_cluster_has_the_same_environment(
    clusters: dict[str, Cluster], name: str, host: str
) -> None:
    read = parse_environment_file(environment_file(clusters[name][host]).content)
    assert read == web_env(clusters, name)


UNITS = {
    "channels-web@.service": "--port %i",
    "channels-process-beat.service": "-m celery --app config beat",
    "channels-process-celery.service": "-m celery --app config worker --concurrency=4",
    "channels-process-thumbnails@.service": "manage.py runworker -- thumbnails -a.b",
}
every_unit = pytest.mark.parametrize(
    ("name", "host", "unit"),
    [
        (name, host, unit)
        for name, hosts in APPS.items()
        for host in hosts
        for unit in UNITS
        if name == "staging" or "web" in unit
    ],
)


@every_unit
def test_every_process_says_which_revision_it_is_and_may_do_as_little(
    clusters: dict[str, Cluster], name: str, host: str, unit: str
) -> None:
    service = parse_unit(clusters[name][host][f"/etc/systemd/system/{unit}"].content)["Service"]
    assert UNITS[unit] in service["ExecStart"][0]
    assert service["EnvironmentFile"] == [environment_file(clusters[name][host]).path]
    assert service["LimitNOFILE"] == [str(NOFILE[name])]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["User"] == ["channels"]


@every_unit
def test_a_process_stays_with_its_release_and_its_environment(
    clusters: dict[str, Cluster], name: str, host: str, unit: str
) -> None:
    """Whatever the current one is; so a unit that is put back brings back both."""
    content = clusters[name][host][f"/etc/systemd/system/{unit}"].content
    service = parse_unit(content)["Service"]
    release = f"/srv/channels/releases/{RELEASE['id']}"
    assert service["WorkingDirectory"] == [f"{release}/app"]
    for key in ("ExecStart", "ExecStartPost", "ExecStop"):
        for command in service.get(key, []):
            assert shlex.split(command)[0] == f"{release}/python"
    assert "/srv/channels/current" not in content
    environment = environment_file(clusters[name][host])
    digest = hashlib.sha256(environment.content.encode()).hexdigest()
    assert environment.path == f"/etc/channels/{digest[:8]}.env"


@every_unit
def test_a_process_whose_unit_is_another_one_has_another_revision(
    clusters: dict[str, Cluster], name: str, host: str, unit: str
) -> None:
    content = clusters[name][host][f"/etc/systemd/system/{unit}"].content
    (line,) = re.findall(r"^Environment=CHANNELS_KIT_REVISION=(.*)$", content, re.M)
    release, _, digest = line.partition("-")
    assert release == RELEASE["id"]
    rest = content.replace(line, "@REVISION@")
    assert digest == hashlib.sha256(rest.encode()).hexdigest()[:8]


@every_unit
def test_nothing_starts_on_a_host_that_is_drained(
    clusters: dict[str, Cluster], name: str, host: str, unit: str
) -> None:
    parsed = parse_unit(clusters[name][host][f"/etc/systemd/system/{unit}"].content)["Unit"]
    assert parsed["ConditionPathExists"] == [f"!{private('channels')['_channels_drained_file']}"]


def test_management_commands_run_as_the_workers_do(clusters: dict[str, Cluster]) -> None:
    """By the programs of the role, which read what is written for them."""
    files = clusters["minimal"]["one"]
    settings = dict(line.split("=", 1) for line in files["/etc/channels/host.conf"].lines)
    assert settings == {
        "CHANNELS_HOME": "/srv/channels",
        "CHANNELS_USER": "channels",
        "CHANNELS_ENVIRONMENT_FILE": environment_file(files).path,
        "CHANNELS_CHECKS": shlex.quote(
            json.dumps({"pages": ["/"], "sockets": [], "site": "http://chat.example.org"})
        ),
        "CHANNELS_WRITABLE": '""',
        "CHANNELS_WRITABLE_STORE": "",
    }
    programs = [
        ROLES / "channels" / "files" / name for name in ("channels-manage", "channels-prove")
    ]
    for program in programs:
        text = program.read_text()
        assert ". /etc/channels/host.conf" in text
        used = set(re.findall(r"CHANNELS_(?!KIT_)[A-Z_]+", text))
        assert used <= set(settings)


# postgres


@every_inventory
def test_the_database_lets_in_exactly_the_app_hosts(
    clusters: dict[str, Cluster], name: str
) -> None:
    file = clusters[name][DATA[name]]["/etc/postgresql/15/main/pg_hba.conf"]
    assert (file.mode, file.owner, file.group) == ("0640", "postgres", "postgres")
    local, *hosts = (line.split() for line in file.lines)
    assert local == ["local", "all", "postgres", "peer", "map=channels_kit"]
    assert sorted(hosts) == sorted(
        # Whoever logs in for the application's role, by whichever password.
        ["host", '"channels"', "+channels", f"{app}/{128 if ':' in app else 32}", "scram-sha-256"]
        for app in addresses_of(name, APPS[name])
    )


@every_inventory
def test_the_database_has_room_for_every_worker(clusters: dict[str, Cluster], name: str) -> None:
    lines = clusters[name][DATA[name]]["/etc/postgresql/15/main/conf.d/channels-kit.conf"].lines
    settings = dict(line.split(" = ") for line in lines)
    assert settings["listen_addresses"] == f"'{address_of(name, DATA[name])}'"
    assert settings["port"] == "5432"
    assert int(settings["max_connections"]) >= 20 + 10 * len(WORKERS[name])
    assert settings["password_encryption"] == "scram-sha-256"
    if name == "staging":
        assert settings["log_line_prefix"] == "'it''s %m '"


# redis


def redis(clusters: dict[str, Cluster], name: str, instance: str) -> dict[str, str]:
    lines = clusters[name][DATA[name]][f"/etc/redis/redis-{instance}.conf"].lines
    settings = dict(line.split(" ", 1) for line in lines)
    assert len(settings) == len(lines), "a setting stands there twice"
    return settings


@every_inventory
@pytest.mark.parametrize(("instance", "port"), [("layer", "6379"), ("broker", "6380")])
def test_an_instance_of_redis_is_reached_and_never_forgets_in_silence(
    clusters: dict[str, Cluster], name: str, instance: str, port: str
) -> None:
    settings = redis(clusters, name, instance)
    assert settings["bind"] == address_of(name, DATA[name])
    assert settings["port"] == port
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["maxmemory"] == "256mb"
    assert int(settings["maxclients"]) <= NOFILE[name] - 32
    assert int(settings["maxclients"]) >= 256 * len(WORKERS[name])
    assert settings["aclfile"] == f"/etc/redis/{instance}.acl"
    assert settings["dbfilename"].startswith(instance)
    assert settings["appenddirname"].startswith(instance)
    files = clusters[name][DATA[name]]
    unit = parse_unit(
        files["/etc/systemd/system/redis-server@.service.d/channels-kit.conf"].content
    )
    assert unit == {"Service": {"LimitNOFILE": [str(NOFILE[name])]}}


def test_only_the_broker_is_written_to_disk(clusters: dict[str, Cluster]) -> None:
    layer, broker = (redis(clusters, "minimal", name) for name in ("layer", "broker"))
    assert (layer["save"], layer["appendonly"]) == ('""', "no")
    assert (broker["appendonly"], broker["appendfsync"]) == ("yes", "everysec")
