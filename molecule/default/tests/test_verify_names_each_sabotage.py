"""Many things are broken at once, each by itself. Verify names each of them, and nothing else."""

import fnmatch
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from harness.cluster import Cluster
from harness.verify import READING, Result, command, verify

BOTH = '{"verify_hold": 0}'

CONF = "/etc/nginx/nginx.conf"
RUN = "/run/systemd/system"
REDIS = "redis-cli -h {address} --user administrator --no-auth-warning"

# As the administrator, whose password is on no command line.
AS_ADMINISTRATOR = "REDISCLI_AUTH=$(cat /etc/redis/administrator.password) " + REDIS
PSQL = "setpriv --reuid=postgres --regid=postgres --clear-groups psql -qtA -p {postgres} -c"
ADDED_RULE = "host all all 0.0.0.0/0 md5"


def drop_in(unit: str, lines: str) -> str:
    """Return a command that writes a drop-in of nobody, and starts the unit with it."""
    directory = f"{RUN}/{unit}.d"
    return (
        f"mkdir -p {directory} && printf '[Service]\\n{lines}\\n' > {directory}/sabotage.conf"
        f" && systemctl daemon-reload && systemctl restart {unit}"
    )


def without_drop_in(unit: str) -> str:
    return f"rm -rf {RUN}/{unit}.d && systemctl daemon-reload && systemctl restart {unit}"


def of_environment(unit: str, expression: str) -> tuple[str, str]:
    """Return how a unit is started with another environment, and how it is repaired."""
    file = f"/run/{unit}.env"
    written = f"sed '{expression}' $(ls -t /etc/channels/*.env | head -1) > {file}"
    return (
        f"{written} && {drop_in(unit, f'EnvironmentFile={file}')}",
        f"{without_drop_in(unit)} && rm -f {file}",
    )


@dataclass(frozen=True)
class Red:
    """A verdict: subject, term, what is expected and what is there; patterns."""

    subject: str
    term: str
    expected: str
    effective: str


@dataclass(frozen=True)
class Sabotage:
    """Something that is broken on a host.

    Attributes:
        host: where.
        breaks: the command.
        mends: the command that undoes it.
        reds: what verify has to say of it.
    """

    host: str
    breaks: str
    mends: str
    reds: tuple[Red, ...]


DROP_IN = ("drop-ins", "none*", "*sabotage.conf")
WEB1, WEB2 = "channels-web@8001.service", "channels-web@8002.service"
THUMBNAILS, CELERY = "channels-process-thumbnails.service", "channels-process-celery.service"
LOCATIONS = ("location / of *", "location @socket of *", "location ^~ /-/probe/ of *")
OTHER_DATABASE = of_environment(WEB1, r"s#^\(CHANNEL_LAYER_URL=.*\)/0\"#\1/7\"#")
OTHER_TOKEN = of_environment(
    WEB2,
    's#^CHANNELS_KIT_PROBE_TOKEN=.*#CHANNELS_KIT_PROBE_TOKEN="a-token-of-last-year"#;'
    ' s#^CHANNEL_LAYER_CAPACITY=.*#CHANNEL_LAYER_CAPACITY="7"#;'
    " $ a CHANNELS_KIT_REVISION=0123456789ab-01234567",
)


def nginx(expression: str, *reds: Red) -> Sabotage:
    """Return a change of nginx.conf; the configuration before is kept once."""
    return Sabotage(
        "lb1",
        f"cp -n {CONF} /root/nginx.conf.before; sed -i '{expression}' {CONF}",
        f"[ ! -e /root/nginx.conf.before ] || mv /root/nginx.conf.before {CONF}",
        reds,
    )


DATABASE = "a worker uses another database of Redis"

SABOTAGES = {
    "a drop-in lowers the open files": Sabotage(
        "app1",
        drop_in(WEB1, "LimitNOFILE=1024"),
        without_drop_in(WEB1),
        (Red(WEB1, *DROP_IN), Red(WEB1, "open files", "{nofile}", "1024")),
    ),
    "a worker listens and hangs": Sabotage(
        "app1",
        f"systemctl kill --signal=STOP {WEB2}",
        f"systemctl kill --signal=CONT {WEB2}",
        (Red(WEB2, "answer", "200", "no answer within 3 s"),),
    ),
    "a unit is stopped": Sabotage(
        "app1",
        f"systemctl stop {THUMBNAILS}",
        f"systemctl start {THUMBNAILS}",
        (Red(THUMBNAILS, "state", "active", "inactive"),),
    ),
    "a unit file is not read": Sabotage(
        "app1",
        f"touch /etc/systemd/system/{CELERY} && systemctl show -p NeedDaemonReload {CELERY}",
        "systemctl daemon-reload",
        (Red(CELERY, "unit file changed since systemd read it", "no", "yes"),),
    ),
    "outgoing connections take the workers' ports": Sabotage(
        "app1",
        "sysctl -w net.ipv4.ip_local_port_range='1024 65535' net.ipv4.ip_local_reserved_ports=",
        "sysctl -p /etc/sysctl.d/60-channels-kit.conf",
        (
            Red("kernel", "net.ipv4.ip_local_port_range", "10240 65535", "1024 65535"),
            Red("kernel", "net.ipv4.ip_local_reserved_ports", "8001-8002", ""),
            Red("kernel", "ports of outgoing connections", "*8001, 8002", "*with 8001, 8002"),
        ),
    ),
    "the directory of the releases is read-only": Sabotage(
        "app1",
        "mount --bind /srv/channels /srv/channels && mount -o remount,bind,ro /srv/channels",
        "umount --lazy /srv/channels",
        (Red("/srv/channels", "mount", "writable", "read-only"),),
    ),
    DATABASE: Sabotage(
        "app2",
        *OTHER_DATABASE,
        (
            Red(WEB1, *DROP_IN),
            Red(WEB1, "environment variable CHANNEL_LAYER_URL", "redis://*/0 *", "redis://*/7 *"),
        ),
    ),
    "a worker has another token, release and capacity of the layer": Sabotage(
        "app2",
        *OTHER_TOKEN,
        (
            Red(WEB2, *DROP_IN),
            Red(WEB2, "environment variable CHANNELS_KIT_PROBE_TOKEN", "(hash *)", "(hash *)"),
            Red(WEB2, "environment variable CHANNEL_LAYER_CAPACITY", "(hash *)", "(hash *)"),
            Red(WEB2, "release", "{release}", "0123456789ab"),
        ),
    ),
    "a unit runs and is disabled": Sabotage(
        "app2",
        f"systemctl disable {THUMBNAILS}",
        f"systemctl enable {THUMBNAILS}",
        (Red(THUMBNAILS, "start at boot", "enabled or *", "disabled"),),
    ),
    "a unit of nobody runs": Sabotage(
        "app2",
        "systemd-run --unit=channels-process-stray sleep 1000",
        "systemctl stop channels-process-stray.service",
        (
            Red(
                "units channels-process-[*]",
                "units that the inventory does not have",
                "none but *",
                "channels-process-stray.service",
            ),
        ),
    ),
    "a unit failed": Sabotage(
        "app2",
        "systemd-run --wait --unit=sabotage false || true",
        "systemctl reset-failed sabotage.service",
        (Red("host", "failed units", "none", "sabotage.service"),),
    ),
    "nginx closes idle sockets after 60 s": nginx(
        "s/proxy_read_timeout .*s;/proxy_read_timeout 60s;/",
        *(Red(location, "proxy_read_timeout", "86400", "60") for location in LOCATIONS),
    ),
    "nginx passes on no Connection": nginx(
        's/proxy_set_header Connection .*;/proxy_set_header Connection "";/',
        *(Red(each, "Connection of a handshake", "upgrade", '""') for each in LOCATIONS),
    ),
    "nginx speaks HTTP 1.0": nginx(
        "s/proxy_http_version 1.1;/proxy_http_version 1.0;/",
        *(Red(location, "proxy_http_version", "1.1", "1.0") for location in LOCATIONS),
    ),
    "an upstream member is missing": nginx(
        "/server {app2}:8002 max_fails=0;/d",
        Red(
            "upstream channels", "upstream members", "*{app2}:8002*", "3 of 4: {app2}:8002 missing"
        ),
    ),
    "nginx has few connections": nginx(
        "s/worker_connections .*;/worker_connections 512;/",
        Red("nginx", "worker_connections", "*", "512"),
    ),
    "the queues of nginx are short": Sabotage(
        "lb1",
        "sysctl -w net.core.somaxconn=128 && systemctl restart nginx",
        "sysctl -p /etc/sysctl.d/60-channels-kit.conf && systemctl restart nginx",
        (
            Red("kernel", "net.core.somaxconn", "*", "128"),
            Red("port 80", "listen backlog", "at least *", "128"),
            Red("port 443", "listen backlog", "at least *", "128"),
        ),
    ),
    "Redis evicts": Sabotage(
        "data1",
        f"{AS_ADMINISTRATOR} -p {{layer}} CONFIG SET maxmemory-policy allkeys-lru",
        f"{AS_ADMINISTRATOR} -p {{layer}} CONFIG SET maxmemory-policy noeviction",
        (Red("redis-server@layer.service", "maxmemory-policy", "noeviction", "allkeys-lru"),),
    ),
    "Redis takes few clients": Sabotage(
        "data1",
        f"{AS_ADMINISTRATOR} -p {{broker}} CONFIG SET maxclients 500",
        f"{AS_ADMINISTRATOR} -p {{broker}} CONFIG SET maxclients {{maxclients}}",
        (Red("redis-server@broker.service", "maxclients", "*", "500"),),
    ),
    "the broker is not kept on disk": Sabotage(
        "data1",
        f"{AS_ADMINISTRATOR} -p {{broker}} CONFIG SET appendonly no",
        f"{AS_ADMINISTRATOR} -p {{broker}} CONFIG SET appendonly yes",
        (Red("redis-server@broker.service", "appendonly", "yes", "no"),),
    ),
    "systemd limits the memory of Redis": Sabotage(
        "data1",
        "systemctl set-property --runtime redis-server@layer.service MemoryMax=512M"
        " && systemctl daemon-reload",
        "rm -r /run/systemd/system.control/redis-server@layer.service.d && systemctl daemon-reload",
        (
            Red("redis-server@layer.service", "MemoryMax", "*", "536870912"),
            Red("redis-server@layer.service", "drop-ins", "none but *", "*50-MemoryMax.conf"),
        ),
    ),
    "PostgreSQL lets everybody in": Sabotage(
        "data1",
        f"echo '{ADDED_RULE}' >> $({PSQL} 'SHOW hba_file') && {PSQL} 'SELECT pg_reload_conf()'",
        f"sed -i '/^host all all 0.0.0.0/d' $({PSQL} 'SHOW hba_file')"
        f" && {PSQL} 'SELECT pg_reload_conf()'",
        (Red("PostgreSQL", "access rules", "none but *", "host all all 0.0.0.0/0 md5"),),
    ),
    "PostgreSQL keeps dead clients": Sabotage(
        "data1",
        f"{PSQL} 'ALTER SYSTEM SET tcp_keepalives_idle = 7200'"
        f" -c 'ALTER SYSTEM SET max_connections = 77' -c 'SELECT pg_reload_conf()'",
        f"{PSQL} 'ALTER SYSTEM RESET tcp_keepalives_idle'"
        f" -c 'ALTER SYSTEM RESET max_connections' -c 'SELECT pg_reload_conf()'",
        (
            Red("PostgreSQL", "tcp_keepalives_idle", "60 s", "7200 s"),
            Red("PostgreSQL", "settings that need a restart", "none", "max_connections"),
        ),
    ),
    "the firewall is gone": Sabotage(
        "data1",
        "nft delete table inet channels_kit",
        "nft --file /etc/channels-kit.nft",
        (Red("firewall", "firewall", "loaded", "not loaded"),),
    ),
}


class Words(dict[str, str]):
    """What the commands and the verdicts of a cluster have in braces."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(
            app2=cluster.fact("address", "app2"),
            address=cluster.fact("address", "data1"),
            layer=str(cluster.fact("redis_layer_port")),
            broker=str(cluster.fact("redis_broker_port")),
            postgres=str(cluster.fact("postgres_port")),
            nofile=str(cluster.fact("nofile")),
        )

    def fill(self, text: str) -> str:
        """Put them in; other braces stay."""
        for name, value in self.items():
            text = text.replace(f"{{{name}}}", value)
        return text


def on_every_host(cluster: Cluster, commands: list[tuple[str, str]]) -> None:
    """Run the commands of each host in their order, and those of several hosts at once."""

    def of(host: str) -> None:
        for where, text in commands:
            if where == host:
                command(cluster, host, text)

    with ThreadPoolExecutor() as pool:
        list(pool.map(of, dict.fromkeys(host for host, _ in commands)))


@pytest.fixture(scope="module")
def words(cluster: Cluster) -> Words:
    return Words(cluster)


@pytest.fixture(scope="module")
def whole(cluster: Cluster, words: Words) -> Result:
    """The cluster before anything is broken."""
    for host in cluster.hosts:
        # Of tests before: units that were killed count their restarts.
        command(cluster, host, "systemctl reset-failed")
    result = verify(cluster, "-e", READING)
    (words["release"],) = {
        check["effective"] for check in result.of("ok") if check["term"] == "current release"
    }
    (words["maxclients"],) = {
        check["effective"] for check in result.of("ok") if check["term"] == "maxclients"
    }
    return result


@pytest.fixture(scope="module")
def broken(cluster: Cluster, words: Words, whole: Result) -> Result:
    """What verify says while everything is broken; then all of it is mended."""
    with ExitStack() as stack:
        stack.callback(mend, cluster, words)
        on_every_host(cluster, [(s.host, words.fill(s.breaks)) for s in SABOTAGES.values()])
        return verify(cluster, "-e", READING)


@pytest.fixture(scope="module")
def split(
    cluster: Cluster,
    words: Words,
    broken: Result,
    tmp_path_factory: pytest.TempPathFactory,
) -> Result:
    """What verify says of delivery, and of what cannot be read.

    One worker is on another database of Redis, the file of nginx is newer than its processes, and
    the machine does not grant what the inventory asks for on one host.
    """
    sabotage = SABOTAGES[DATABASE]
    extra = tmp_path_factory.mktemp("inventory") / "nofile.yml"
    extra.write_text(yaml.safe_dump({"all": {"hosts": {"data1": {"cluster_nofile": 1048576}}}}))
    with ExitStack() as stack:
        stack.callback(command, cluster, "app2", words.fill(sabotage.mends))
        stack.callback(command, cluster, "lb1", "systemctl reload nginx")
        command(cluster, "app2", words.fill(sabotage.breaks))
        command(cluster, "lb1", f"echo '# Changed by hand.' >> {CONF}")
        result = verify(cluster, "-i", str(extra), "-e", BOTH)
        command(cluster, "lb1", f"sed -i '$ d' {CONF}")
    cluster.wait_until_ready()
    return result


def mend(cluster: Cluster, words: Words) -> None:
    on_every_host(cluster, [(s.host, words.fill(s.mends)) for s in SABOTAGES.values()])
    command(cluster, "lb1", "systemctl reload nginx")
    cluster.wait_until_ready()


def fits(check: dict[str, Any], host: str, red: Red, words: Words) -> bool:
    wanted = (host, red.subject, red.term, red.expected, red.effective)
    found = (check[name] for name in ("host", "subject", "term", "expected", "effective"))
    return all(
        fnmatch.fnmatchcase(value, words.fill(pattern))
        for value, pattern in zip(found, wanted, strict=True)
    )


def test_a_whole_cluster_is_verified(whole: Result) -> None:
    assert whole.report["verdict"] == "verified", whole.text
    assert whole.code == 0
    assert {check["host"] for check in whole.of("ok")} >= {"app1", "app2", "data1", "lb1"}


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_named_with_both_values(broken: Result, words: Words, name: str) -> None:
    sabotage = SABOTAGES[name]
    for red in sabotage.reds:
        found = [c for c in broken.of("failed") if fits(c, sabotage.host, red, words)]
        assert len(found) == 1, f"{red}\n{broken.text}"
        (check,) = found
        assert check["source"], check
        assert check["message"], check
        # And in the words for the terminal.
        line = f"failed  {check['host']}  {check['subject']}  {check['term']}: expected "
        assert line in broken.text


def test_nothing_else_is_red(broken: Result, words: Words) -> None:
    others = [
        check
        for check in broken.of("failed")
        if not any(
            fits(check, each.host, red, words) for each in SABOTAGES.values() for red in each.reds
        )
    ]
    assert others == []
    assert broken.of("unreadable") == []
    assert broken.code == 1


def test_no_secret_is_in_the_report(cluster: Cluster, broken: Result) -> None:
    text = json.dumps(broken.report) + broken.text
    assert [name for name, secret in cluster.secrets.items() if secret in text] == []
    assert "a-token-of-last-year" not in text


def test_a_split_matrix_names_the_pairs(split: Result) -> None:
    cells = split.report["matrix"]["cells"]
    wrong = {(c["from"], c["to"]) for c in cells if c["status"] != "ok" and c["way"] == "directly"}
    names = split.report["matrix"]["workers"]
    lost = "app2:8001"
    assert wrong == {
        pair for name in names if name != lost for pair in ((name, lost), (lost, name))
    }
    assert f"{lost} -> app1:8001: 0 of " in split.text


def test_a_limit_that_the_machine_does_not_grant_is_named(split: Result, words: Words) -> None:
    units = {"redis-server@layer.service", "redis-server@broker.service"}
    found = {
        check["subject"]: (check["expected"], check["effective"])
        for check in split.of("failed")
        if check["host"] == "data1" and check["term"] == "open files"
    }
    assert found == dict.fromkeys(units, ("1048576", words["nofile"]))


def test_a_file_that_nginx_has_not_read_proves_nothing(split: Result) -> None:
    (check,) = [check for check in split.of("failed") if check["kind"] == "nginx"]
    assert check["term"] == "configuration"
    assert check["effective"] == f"{CONF} was changed after nginx read it"
    unread = {check["term"] for check in split.of("unreadable") if check["kind"] == "nginx"}
    assert {"proxy_read_timeout", "upstream members", "worker_connections"} <= unread


def test_afterwards_the_cluster_is_whole(cluster: Cluster, split: Result) -> None:
    result = verify(cluster, "-e", READING)
    assert result.report["verdict"] == "verified", result.text
