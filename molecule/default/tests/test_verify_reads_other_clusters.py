"""Verify of hosts that somebody else has set up: the units and servers of this cluster are theirs.

nginx gets the configuration of a tutorial, and what else tutorials leave as it is gets broken.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from harness.cluster import Cluster
from harness.verify import READING, Result, command, verify

WEB = "channels-web@8001.service"
LAYER = "redis-server@layer.service"
SOCKET = "/ws/chat/lobby/"
CONF = "/etc/nginx/nginx.conf"
KEPT = "/root/nginx.conf.kept"
PASSWORD_FILE = "/etc/redis/administrator.password"
DROP_IN = f"/run/systemd/system/{WEB}.d"
TUTORIAL = """\
worker_rlimit_nofile 512;
events {{ worker_connections 768; }}
http {{
    upstream chat {{ server {app1}:8001; server {app1}:8999; }}
    server {{
        listen 80 default_server;
        location / {{ root /var/www/html; }}
        location /ws/ {{
            proxy_pass http://chat;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def redis(cluster: Cluster, words: str) -> str:
    address, port = cluster.fact("address", "data1"), cluster.fact("redis_layer_port")
    return (
        f"REDISCLI_AUTH=$(cat {PASSWORD_FILE}) redis-cli -h {address} -p {port}"
        f" --user administrator --no-auth-warning {words}"
    )


@pytest.fixture(scope="module")
def names(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The names of the units, as an operator gives them."""
    layer = {
        "unit": LAYER,
        "address": cluster.fact("address", "data1"),
        "port": cluster.fact("redis_layer_port"),
        "user": "administrator",
        "password_file": PASSWORD_FILE,
    }
    database = {"unit": "postgresql@*-main.service", "port": cluster.fact("postgres_port")}
    given = {
        "channels": {"units_web": ["channels-web@*.service"]},
        "nginx": {"units_nginx": "nginx.service"},
        "redis": {"units_redis": [layer]},
        "postgres": {"units_postgres": [database]},
        "all": {
            "units_edge_urls": [str(cluster.origin)],
            "units_check_sockets": [{"path": SOCKET, "close": 4001}],
            "units_sockets": 1000,
            "units_nofile": cluster.fact("nofile"),
            "units_redis_maxclients": 1000,
        },
    }
    file = tmp_path_factory.mktemp("units") / "units.yml"
    file.write_text(yaml.safe_dump({group: {"vars": each} for group, each in given.items()}))
    return file


@pytest.fixture(scope="module")
def good(cluster: Cluster, names: Path) -> Result:
    for host in cluster.hosts:
        # Of tests before: units that were killed count their restarts.
        command(cluster, host, "systemctl reset-failed")
    return verify(cluster, UNITS=str(names))


@pytest.fixture(scope="module")
def bad(cluster: Cluster, names: Path, good: Result) -> Result:
    """What verify says of all that is broken; then it is mended."""
    (maxclients,) = {each["effective"] for each in good.of("ok") if each["term"] == "maxclients"}
    conf = TUTORIAL.format(app1=cluster.fact("address", "app1"))
    with ExitStack() as stack:
        stack.callback(cluster.wait_until_ready)
        for host, breaks, mends in (
            (
                "lb1",
                f"cp -a {CONF} {KEPT} && cat > {CONF} <<'END' && nginx -tq\n{conf}END\n"
                "systemctl reload nginx",
                f"mv {KEPT} {CONF} && systemctl reload nginx",
            ),
            (
                "app1",
                f"mkdir -p {DROP_IN} && printf '[Service]\\nLimitNOFILE=1024\\n' > {DROP_IN}/x.conf"
                f" && systemctl daemon-reload && systemctl restart {WEB}",
                f"rm -rf {DROP_IN} && systemctl daemon-reload && systemctl restart {WEB}",
            ),
            (
                "data1",
                redis(cluster, "CONFIG SET maxmemory-policy allkeys-lru maxclients 500"),
                redis(cluster, f"CONFIG SET maxmemory-policy noeviction maxclients {maxclients}"),
            ),
        ):
            stack.callback(command, cluster, host, mends)
            command(cluster, host, breaks)
        return verify(cluster, UNITS=str(names))


def test_good_ones_are_good(good: Result) -> None:
    assert good.report["verdict"] == "verified", good.text
    assert good.code == 0
    found = {(each["host"], each["term"]) for each in good.of("ok")}
    assert {
        ("app1", "open files"),
        ("lb1", "proxy_read_timeout"),
        ("lb1", "upstream members that take no connection"),
        ("lb1", "sockets that outgoing ports allow"),
        ("data1", "maxmemory-policy"),
        ("data1", "connections"),
    } <= found
    assert {each["name"] for each in good.report["behaviour"]} >= {f"socket {SOCKET}"}


def test_each_trap_is_named_with_both_values_and_its_host(cluster: Cluster, bad: Result) -> None:
    url = f"{cluster.origin}{SOCKET}"
    member = f"{cluster.fact('address', 'app1')}:8999 (connection refused)"
    assert {
        (each["host"], each["subject"], each["term"], each["expected"], each["effective"])
        for each in bad.of("failed")
    } == {
        ("app1", WEB, "open files", f"at least {cluster.fact('nofile')}", "1024"),
        ("lb1", url, "proxy_read_timeout", "at least 3600", "60"),
        ("lb1", url, "proxy_http_version", "1.1", "1.0"),
        ("lb1", url, "Upgrade of a handshake", "websocket", '""'),
        ("lb1", url, "Connection of a handshake", "upgrade", '""'),
        ("lb1", url, "upstream members that take no connection", "none", member),
        ("lb1", "nginx", "worker_connections", "at most 100 % of 512", "768"),
        ("lb1", "nginx", "sockets that nginx can hold", "at least 1000", "256"),
        ("data1", LAYER, "maxmemory-policy", "noeviction", "allkeys-lru"),
        ("data1", LAYER, "maxclients", "at least 1000", "500"),
    }, bad.text
    assert bad.of("unreadable") == []
    assert bad.code == 1
    behaviour = {each["name"]: each["status"] for each in bad.report["behaviour"]}
    assert behaviour[f"socket {SOCKET}"] == "failed"


def test_what_is_not_read_without_root_is_said(cluster: Cluster, names: Path, bad: Result) -> None:
    without_root = "ansible_become=false"
    result = verify(cluster, "-e", READING, "-e", without_root, UNITS=str(names))
    assert (result.code, result.report["verdict"]) == (2, "incomplete"), result.text
    unread = {(each["host"], each["term"]) for each in result.of("unreadable")}
    assert {
        ("lb1", "proxy_read_timeout"),
        ("data1", "maxmemory-policy"),
        ("data1", "connections"),
    } <= unread
    assert all(each["message"] for each in result.of("unreadable"))
    # What everybody may read is read all the same.
    assert ("app1", "open files") in {(each["host"], each["term"]) for each in result.of("ok")}
    assert "not read (" in result.text
