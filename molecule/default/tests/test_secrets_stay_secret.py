import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest
from cluster import APPLICATION_SECRETS, SECRETS
from harness.cluster import Cluster
from harness.wait import eventually
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

HOSTS = ("app1", "app2", "data1", "lb1")
PLACES = (
    *("/etc", "/srv", "/var/lib", "/var/log", "/usr/local", "/run"),
    *("/tmp", "/var/tmp", "/root", "/home"),
)


def lines_with_secrets(cluster: Cluster, text: str) -> list[str]:
    """Return the lines of a text that hold a secret, with its name in its place."""
    found = []
    for line in text.splitlines():
        shown = line
        for name, secret in cluster.secrets.items():
            shown = shown.replace(secret, f"({name})")
        if shown != line:
            found.append(shown)
    return found


def files_with_secrets(cluster: Cluster, host: str, user: str) -> list[str]:
    """Return the files of a host in which a user finds a secret."""
    # The secrets come by standard input: a command line is read by everybody.
    result = cluster.ssh(
        host,
        *("sudo", "-u", user, "grep", "--recursive", "--text", "--files-with-matches"),
        *("--no-messages", "--fixed-strings", "--devices=skip", "--file=-", *PLACES),
        stdin="".join(f"{secret}\n" for secret in cluster.secrets.values()),
    )
    # 2: something could not be read, which is what being nobody is about.
    assert result.returncode in (0, 1, 2), result.stderr
    return sorted(result.stdout.splitlines())


def test_every_secret_is_long_enough_to_be_looked_for(cluster: Cluster) -> None:
    assert len(cluster.secrets) == len((*SECRETS, *APPLICATION_SECRETS)) + 2
    assert all(len(secret) >= 16 for secret in cluster.secrets.values())
    assert len(set(cluster.secrets.values())) == len((*SECRETS, *APPLICATION_SECRETS)) + 2


@pytest.mark.parametrize("host", HOSTS)
def test_in_no_unit(cluster: Cluster, host: str) -> None:
    shell = cluster.hosts[host]
    patterns = "'channels-*' 'nginx*' 'redis-server@*' 'postgresql@*'"
    units = shell.check_output(
        f"systemctl list-units --all --plain --no-legend {patterns} | awk '{{print $1}}'"
    ).split()
    assert len(units) >= 2, units
    text = "\n".join(
        shell.check_output(command + " " + " ".join(units))
        for command in ("systemctl cat", "systemctl show --property=Environment,ExecStart")
    )
    assert "# /" in text
    assert lines_with_secrets(cluster, text) == []


@pytest.mark.parametrize("host", HOSTS)
def test_on_no_command_line(cluster: Cluster, host: str) -> None:
    processes = cluster.hosts[host].check_output("ps -e -ww -o args")
    assert "/sbin/init" in processes
    assert lines_with_secrets(cluster, processes) == []


@pytest.mark.parametrize("host", HOSTS)
def test_in_no_file_but_the_environment_of_the_workers(cluster: Cluster, host: str) -> None:
    assert files_with_secrets(cluster, host, "nobody") == []
    holders = cluster.ssh(host, "sh", "-c", "ls /etc/channels/*.env").stdout.split()
    assert len(holders) == (1 if host in cluster.group("channels") else 0)
    assert files_with_secrets(cluster, host, "root") == holders
    for path in holders:
        file = cluster.hosts[host].file(path)
        assert (file.user, file.group, file.mode) == ("root", "root", 0o600)


@pytest.mark.parametrize("host", HOSTS)
def test_not_in_the_journal(cluster: Cluster, host: str) -> None:
    # With every field: the command lines of who wrote are among them.
    read = ("journalctl", "--no-pager", "--all", "--output=export")
    journal = cluster.ssh(host, "sudo", *read).stdout
    assert "_CMDLINE=" in journal
    assert lines_with_secrets(cluster, journal) == []


def log_of(cluster: Cluster, host: str) -> str:
    """Return all that a host's programs have logged."""
    read = "journalctl --no-pager --all --output=cat; find /var/log -name '*.log' -exec cat {} +"
    return cluster.ssh(host, "sudo", "sh", "-c", read).stdout


def test_a_query_string_is_in_no_log(cluster: Cluster) -> None:
    marker = f"query{uuid.uuid4().hex}"
    path = f"path{uuid.uuid4().hex}"
    for page in ("/login/", f"/{path}/", "/static/chat/none.css", "/-/ready"):
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{cluster.origin}{page}?token={marker}", timeout=10)
    websocket = cluster.origin.replace("http", "ws", 1)
    for page in ("/ws/chat/lobby/", f"/ws/{path}/", "/-/probe/run/endpoint/"):
        with (
            suppress(InvalidStatus),
            connect(f"{websocket}{page}?token={marker}", origin=cluster.origin, proxy=None) as one,
        ):
            one.close()

    logs = {host: log_of(cluster, host) for host in cluster.hosts}
    assert path in logs["lb1"], "the edge's log says nothing of these requests"
    assert [host for host, log in logs.items() if marker in log] == []


@pytest.fixture
def cluster_without_a_worker(cluster: Cluster) -> Iterator[Cluster]:
    worker = cluster.workers[0]
    cluster.hosts[worker.host].check_output("systemctl stop %s", worker.unit)
    yield cluster
    cluster.hosts[worker.host].check_output("systemctl start %s", worker.unit)
    cluster.wait_until_ready()


def test_a_query_string_is_not_in_the_errors_of_the_edge(cluster_without_a_worker: Cluster) -> None:
    cluster = cluster_without_a_worker
    marker, path = f"query{uuid.uuid4().hex}", f"path{uuid.uuid4().hex}"
    down = f"{cluster.workers[0].address}:{cluster.workers[0].port}"

    def ask() -> str:
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{cluster.origin}/{path}/?token={marker}", timeout=10)
        log: str = cluster.hosts["lb1"].check_output("grep %s /var/log/nginx/access.log", path)
        return log

    # The access log names every worker that was tried: "ADDRESS:PORT, ADDRESS:PORT".
    eventually(ask, lambda log: f'"{down}, ' in log, "the edge tries the worker that is down")
    assert marker not in log_of(cluster, "lb1")
