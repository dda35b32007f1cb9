"""What a run has written and not applied, because it was killed or failed, the next one applies."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from harness.ansible import Run
from harness.cluster import Cluster
from harness.wait import eventually
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

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


BAD_SETTINGS = {
    "net.ipv4.no_such_setting": (
        "kernel setting net.ipv4.no_such_setting: needs writable, has missing.",
        {"user": False, "firewall": False, "limits": False, "journal": False, "kernel": False},
    ),
    "net.ipv4.tcp_max_syn_backlog": (
        'setting key "net.ipv4.tcp_max_syn_backlog": Invalid argument',
        {"user": True, "firewall": True, "limits": True, "journal": True, "kernel": True},
    ),
}
"""By setting: what a run says that fails at it, and what it has made by then."""


def test_a_bad_kernel_setting_fails_and_the_next_run_does_all(cluster: Cluster) -> None:
    with bare(cluster):
        for bad, (words, left) in BAD_SETTINGS.items():
            settings = {"net.core.somaxconn": 4096, bad: "words"}
            run = cluster.converge(
                *("--tags=base", "--limit=data1,localhost"),
                f"--extra-vars={{'base_sysctl': {settings}}}",
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
        on.check_output(f"[ ! -d {directory} ] || rmdir --ignore-fail-on-non-empty {directory}")

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
        assert cluster.nofile_of("lb1", in_effect(cluster)[1])[0] == 4096
        remove()
        run = cluster.converge(PARTS)
        assert run.rc == 0, run.output
        assert cluster.nofile_of("lb1", in_effect(cluster)[1]) == (limit, limit)


WEB, THUMBNAILS = "channels-web@8001.service", "channels-process-thumbnails.service"
DROP_IN = "[Service]\\nLimitNOFILE=4096\\n"


@pytest.fixture(scope="module")
def tidy(cluster: Cluster) -> None:
    """Let a run remove the releases that other tests have left."""
    run = cluster.converge("--tags=channels")
    assert run.rc == 0, run.output


def mains(cluster: Cluster) -> dict[tuple[str, str], str]:
    """Return the processes of all workers and of a background unit."""
    units = [(worker.host, worker.unit) for worker in cluster.workers]
    units += [(host, THUMBNAILS) for host in cluster.group("channels")]
    return {each: cluster.show(*each, "MainPID")["MainPID"] for each in units}


def limits(cluster: Cluster) -> set[tuple[int, int]]:
    """Return the limits of these processes."""
    return {cluster.nofile_of(host, main) for (host, _), main in mains(cluster).items()}


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
def test_processes_with_the_limit_of_a_removed_drop_in_are_replaced(
    cluster: Cluster, read: bool
) -> None:
    app1, limit = cluster.hosts["app1"], cluster.fact("nofile")
    tag = "--tags=channels"
    with ExitStack() as stack:
        remove = [
            stack.enter_context(drop_in(cluster, "app1", unit, DROP_IN))
            for unit in (WEB, THUMBNAILS)
        ]
        app1.check_output(f"systemctl restart {WEB} {THUMBNAILS}")
        cluster.wait_until_ready()
        low, started = mains(cluster), since(cluster)
        assert limits(cluster) == {(4096, 4096), (limit, limit)}
        if not read:
            # A new process would get what these have got.
            kept = cluster.converge(tag)
            assert kept.rc == 0, kept.output
            assert (counts(kept), mains(cluster)) == ({}, low)

        for each in remove:
            each()
        if read:
            app1.check_output("systemctl daemon-reload")
        with of_worker(cluster, "app1:8001") as client:
            if not read:
                dry = cluster.converge(tag, "--check")
                assert dry.rc == 0, dry.output
                assert set(counts(dry)) == {"app1"}
                assert mains(cluster) == low
            run = cluster.converge(tag)
            assert run.rc == 0, run.output
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=30)
        # Drained by the process that was replaced, and the unit was never stopped.
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1012
        assert since(cluster) == started
        now = mains(cluster)
        assert {each for each in now if now[each] != low[each]} == {
            ("app1", WEB),
            ("app1", THUMBNAILS),
        }
        assert limits(cluster) == {(limit, limit)}


def since(cluster: Cluster) -> str:
    """Return since when the worker's unit has been active."""
    name = "ActiveEnterTimestampMonotonic"
    return cluster.show("app1", WEB, name)[name]


@contextmanager
def of_worker(cluster: Cluster, name: str) -> Iterator[ClientConnection]:
    """Open sockets through the edge until a worker has one; yield that."""
    with ExitStack() as stack:
        for number in range(40):
            client, worker = stack.enter_context(cluster.probe_socket("removed", f"{number}"))
            if worker == name:
                break
        assert worker == name
        yield client


@pytest.mark.usefixtures("tidy")
def test_a_process_that_changes_its_limit_itself_is_not_replaced(cluster: Cluster) -> None:
    app1, limit = cluster.hosts["app1"], cluster.fact("nofile")
    # With what systemd has read last.
    app1.check_output(f"systemctl restart {THUMBNAILS}")
    before = mains(cluster)
    lower = f"prlimit --pid {before['app1', THUMBNAILS]} --nofile=2048:2048"
    app1.check_output(f"runuser -u {cluster.fact('user')} -- {lower}")
    assert limits(cluster) == {(2048, 2048), (limit, limit)}
    run = cluster.converge("--tags=channels")
    assert run.rc == 0, run.output
    assert (counts(run), mains(cluster)) == ({}, before)
    app1.check_output(f"systemctl restart {THUMBNAILS}")


def test_a_unit_file_that_hands_have_changed_is_restored_with_its_processes(
    cluster: Cluster,
) -> None:
    app1, limit = cluster.hosts["app1"], cluster.fact("nofile")
    file = f"/etc/systemd/system/{THUMBNAILS}"
    app1.check_output(f"sed -i s/LimitNOFILE=.*/LimitNOFILE=2048/ {file}")
    app1.check_output(f"systemctl daemon-reload && systemctl restart {THUMBNAILS}")
    low = mains(cluster)
    run = cluster.converge("--tags=channels")
    assert run.rc == 0, run.output
    now = mains(cluster)
    assert [each for each in now if now[each] != low[each]] == [("app1", THUMBNAILS)]
    assert limits(cluster) == {(limit, limit)}
    assert cluster.show("app1", THUMBNAILS, "NeedDaemonReload")["NeedDaemonReload"] == "no"


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
    # The file, that nginx has not read it, and the reload.
    assert counts(good) == {"lb1": 3}
    assert in_effect(cluster)[0] == before[0]


def test_a_configuration_that_somebody_edited_does_not_stay_in_effect(cluster: Cluster) -> None:
    lb1 = cluster.hosts["lb1"]
    generation, former = in_effect(cluster)
    lb1.check_output(
        f"sed --in-place=.wanted 's/proxy_read_timeout .*/proxy_read_timeout 61s;/' {NGINX}"
        " && systemctl reload nginx"
    )
    edited = eventually(lambda: in_effect(cluster)[1], lambda now: now != former, "a reload")
    # As after a run that ended between the file and the reload.
    lb1.check_output(f"mv {NGINX}.wanted {NGINX}")
    run = cluster.converge("--tags=nginx")
    assert run.rc == 0, run.output
    # That it is not in effect, and the reload.
    assert counts(run) == {"lb1": 2}
    assert in_effect(cluster) != (generation, edited)


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


def test_afterwards_a_run_changes_nothing(cluster: Cluster) -> None:
    """Once for all that were completed above."""
    before, processes = comparable(cluster), mains(cluster)
    again = cluster.converge("--tags=base,nginx,channels")
    assert again.rc == 0, again.output
    assert (counts(again), comparable(cluster), mains(cluster)) == ({}, before, processes)
