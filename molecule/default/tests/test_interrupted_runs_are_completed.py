"""What a run has written and not applied, because it was killed or failed, the next one applies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from harness.ansible import Run
from harness.cluster import Cluster
from harness.wait import eventually
from test_limits_are_what_the_inventory_says import nofile_of

PARTS = "--tags=base,nginx"
SYSCTL = "/etc/sysctl.d/60-channels-kit.conf"
JOURNAL = "/etc/systemd/journald.conf.d/channels-kit.conf"
NGINX = "/etc/nginx/nginx.conf"
LIMITS = "/etc/security/limits.d/60-channels-kit.conf"
TABLE = "inet channels_kit"

ASK = """\
import urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open("http://127.0.0.1:7980/generation", timeout=10).read().decode())
"""


def in_effect(cluster: Cluster) -> tuple[str, str]:
    """Return the configuration that nginx has read, and the process of one of its workers."""
    generation, process = cluster.python("lb1", ASK).split()
    return generation, process


def comparable(cluster: Cluster) -> dict[str, str]:
    """Return what is in effect, by what it is."""
    data1, lb1 = cluster.hosts["data1"], cluster.hosts["lb1"]
    return {
        "kernel": lb1.check_output(
            "sysctl --values net.core.somaxconn net.ipv4.tcp_max_syn_backlog"
        ),
        "firewall": data1.check_output(f"nft list table {TABLE}"),
        "nginx": in_effect(cluster)[0],
    }


def journal_of(cluster: Cluster) -> int:
    name = "ExecMainStartTimestampMonotonic"
    return int(cluster.show("lb1", "systemd-journald.service", name)[name])


def test_what_was_written_and_not_applied_is_applied(cluster: Cluster) -> None:
    before, journal = comparable(cluster), journal_of(cluster)
    data1, lb1 = cluster.hosts["data1"], cluster.hosts["lb1"]
    paths = (SYSCTL, JOURNAL, NGINX)
    files = {path: lb1.file(path).sha256sum for path in paths}
    generation = before["nginx"]

    # The files are the wanted ones; in effect is what was there before them.
    lb1.check_output("sysctl --quiet --write net.core.somaxconn=128")
    lb1.check_output("touch %s", JOURNAL)
    data1.check_output(f"nft delete table {TABLE}")
    data1.check_output(f"nft add table {TABLE}")
    former = "f" * 12
    lb1.check_output(
        f"sed --in-place=.wanted 's/{generation}/{former}/' {NGINX} && systemctl reload nginx"
    )
    # A reload is over before the file is read.
    eventually(lambda: in_effect(cluster)[0], former.__eq__, "the former configuration")
    lb1.check_output(f"mv {NGINX}.wanted {NGINX}")
    address, port = cluster.fact("address", "data1"), cluster.fact("postgres_port")
    assert cluster.connect_from("lb1", address, port) == "open"
    assert {path: lb1.file(path).sha256sum for path in paths} == files

    # What differs: the firewall of data1; kernel, journal and nginx of lb1.
    dry = cluster.converge(PARTS, "--check")
    assert dry.rc == 0, dry.output
    assert counts(dry) == {"data1": 1, "lb1": 3}
    assert in_effect(cluster)[0] == former

    # Each of them, and the handler that applies it.
    run = cluster.converge(PARTS)
    assert run.rc == 0, run.output
    assert counts(run) == {"data1": 2, "lb1": 6}
    assert comparable(cluster) == before
    assert journal_of(cluster) > journal
    assert cluster.connect_from("lb1", address, port) == "ConnectionRefusedError"
    assert {path: lb1.file(path).sha256sum for path in paths} == files

    again = cluster.converge(PARTS)
    assert again.rc == 0, again.output
    assert counts(again) == {}


def counts(run: Run) -> dict[str, int]:
    """Return how many tasks and handlers changed something, by host."""
    changed = {host: recap["changed"] for host, recap in run.recap.items()}
    return {host: number for host, number in changed.items() if number}


BARE = "128"
"""Connections that wait for accept(2) on a host that the role has not set up."""


@contextmanager
def bare(cluster: Cluster) -> Iterator[None]:
    """Take from a host what the role base has made there, as far as nothing stands on it."""
    data1 = cluster.hosts["data1"]
    data1.check_output(
        f"systemctl disable --now channels-firewall.service; userdel channels;"
        f" rm --force {SYSCTL} {JOURNAL} /etc/channels-kit.nft"
        f" /etc/systemd/system/channels-firewall.service {LIMITS};"
        f" systemctl daemon-reload; sysctl --quiet --write net.core.somaxconn={BARE}"
    )
    yield
    assert data1.file(SYSCTL).exists


def made(cluster: Cluster) -> dict[str, bool]:
    """Return which of the things that the role base makes are there, in effect."""
    data1 = cluster.hosts["data1"]
    return {
        "user": data1.run("getent passwd channels").rc == 0,
        "firewall": data1.run(f"nft list table {TABLE}").rc == 0,
        "at boot": data1.run("systemctl is-enabled channels-firewall.service").rc == 0,
        "limits": data1.file(LIMITS).exists,
        "journal": data1.file(JOURNAL).exists,
        "kernel": data1.check_output("sysctl --values net.core.somaxconn") != BARE,
    }


@pytest.mark.parametrize(
    ("bad", "words", "left"),
    [
        (
            "net.ipv4.no_such_setting",
            "kernel setting net.ipv4.no_such_setting: needs there, has missing.",
            {"user": False, "firewall": False, "limits": False, "journal": False, "kernel": False},
        ),
        (
            "net.ipv4.tcp_max_syn_backlog",
            'setting key "net.ipv4.tcp_max_syn_backlog": Invalid argument',
            {"user": True, "firewall": True, "limits": True, "journal": True, "kernel": True},
        ),
    ],
    ids=["unknown-name", "unknown-value"],
)
def test_a_bad_kernel_setting_fails_and_the_next_run_does_all(
    cluster: Cluster, bad: str, words: str, left: dict[str, bool]
) -> None:
    with bare(cluster):
        settings = {"net.core.somaxconn": 4096, bad: "words"}
        run = cluster.converge(
            "--tags=base", "--limit=data1,localhost", f"--extra-vars={{'base_sysctl': {settings}}}"
        )
        assert run.rc != 0
        assert words in run.output
        assert run.recap["data1"]["failed"] == 1
        # At boot comes after all of it.
        assert made(cluster) == {**left, "at boot": False}
        assert cluster.hosts["data1"].file(SYSCTL).exists == left["kernel"]
        good = cluster.converge(PARTS)
        assert good.rc == 0, good.output
        assert set(made(cluster).values()) == {True}, made(cluster)
    again = cluster.converge(PARTS)
    assert again.rc == 0, again.output
    assert counts(again) == {}


@contextmanager
def drop_in(cluster: Cluster, host: str, unit: str, content: str) -> Iterator[Callable[[], None]]:
    """Let a unit have further settings; yield what takes them away, unread by systemd."""
    directory = f"/etc/systemd/system/{unit}.d"
    on = cluster.hosts[host]
    on.check_output(f"mkdir -p {directory} && printf '{content}' > {directory}/test.conf")
    on.check_output("systemctl daemon-reload")

    def remove() -> None:
        # The role's own drop-in may be beside it.
        on.check_output(f"rm --force {directory}/test.conf")
        on.check_output(f"rmdir --ignore-fail-on-non-empty {directory}")

    try:
        yield remove
    finally:
        remove()
        on.check_output("systemctl daemon-reload")


def test_nginx_with_a_former_limit_of_its_unit_gets_the_present_one(cluster: Cluster) -> None:
    lb1, limit = cluster.hosts["lb1"], cluster.fact("nofile")
    with drop_in(cluster, "lb1", "nginx.service", "[Service]\\nLimitNOFILE=4096\\n") as remove:
        lb1.check_output("systemctl restart nginx.service")
        # Where it may not raise it: a container's nginx.
        assert nofile_of(cluster, "lb1", in_effect(cluster)[1])[0] == 4096
        remove()
        run = cluster.converge(PARTS)
        assert run.rc == 0, run.output
        assert nofile_of(cluster, "lb1", in_effect(cluster)[1]) == (limit, limit)
        again = cluster.converge(PARTS)
        assert again.rc == 0, again.output
        assert counts(again) == {}


def test_nginx_that_does_not_run_is_started(cluster: Cluster) -> None:
    lb1 = cluster.hosts["lb1"]
    generation, _ = in_effect(cluster)
    lb1.check_output("systemctl disable --now nginx.service")
    run = cluster.converge("--tags=nginx")
    assert run.rc == 0, run.output
    assert counts(run) == {"lb1": 1}
    assert lb1.service("nginx").is_enabled
    assert in_effect(cluster)[0] == generation


def test_a_reload_that_fails_is_reported_and_made_up_for(cluster: Cluster) -> None:
    """No check before can see it: another process has the port, and does not listen."""
    before = in_effect(cluster)
    on = cluster.hosts["lb1"]
    program = (
        "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 7990)); time.sleep(600)"
    )
    on.check_output(f'systemd-run --unit=taken python3 -c "{program}"')
    try:
        run = cluster.converge("--tags=nginx", "--extra-vars={'nginx_local_port': 7990}")
    finally:
        on.check_output("systemctl stop taken")
    assert run.rc != 0
    assert "bind() to 127.0.0.1:7990 failed (98: " in run.output
    assert in_effect(cluster) == before
    good = cluster.converge("--tags=nginx")
    assert good.rc == 0, good.output
    # The file alone: nginx has had the wanted one all the time.
    assert counts(good) == {"lb1": 1}
    assert in_effect(cluster) == before


def test_the_clock_is_kept_where_it_is_the_hosts_own(cluster: Cluster) -> None:
    lb1 = cluster.hosts["lb1"]
    assert not lb1.service("chrony").is_running, "a container's clock is the machine's"
    own = "[Unit]\nConditionCapability=\n"
    own += "[Service]\nType=simple\nExecStart=\nExecStart=sleep infinity\n"
    with drop_in(cluster, "lb1", "chrony.service", own):
        run = cluster.converge("--tags=base")
        assert run.rc == 0, run.output
        assert counts(run) == {"lb1": 1}
        assert lb1.service("chrony").is_running
        lb1.check_output("systemctl stop chrony.service")
    # systemd keeps the outcome of the last start, and verify reads it.
    lb1.check_output("systemctl start chrony.service")
    assert not lb1.service("chrony").is_running


def test_only_the_host_itself_hears_which_configuration_is_in_effect(cluster: Cluster) -> None:
    address = cluster.fact("address", "lb1")
    found = {host: cluster.connect_from(host, address, 7980) for host in cluster.hosts}
    assert set(found.values()) == {"ConnectionRefusedError"}
