"""make plan and make calibrate: what they accept, and what they print."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

import calibrate
import plan
from calibration import estimates, hosts, remote
from calibration.check import Compared
from calibration.estimates import Exchange, Figure
from calibration.measuring import Door
from tests.roles.house import defaults

PLAN_OPTIONS = ("sockets", "messages", "room", "spare", "host-memory", "host-cores", "back")


# Arguments


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("sockets", "abc", "SOCKETS is 'abc'; allowed: a whole number, such as 100000"),
        ("sockets", "-5", "SOCKETS is '-5'; allowed"),
        ("sockets", "0", "SOCKETS is 0; allowed: 1 to"),
        ("room", "0", "ROOM is 0; allowed: 1 to"),
        ("room", "1.5", "ROOM is '1.5'; allowed"),
        ("messages", "many", "MESSAGES is 'many'; allowed"),
        ("spare", "-1", "SPARE is '-1'; allowed"),
        ("host-memory", "8X", "HOST_MEMORY is '8X'; allowed: a size, such as 8G"),
        ("host-memory", "0", "HOST_MEMORY is 0 MiB; allowed: 256M to"),
        ("host-cores", "0", "HOST_CORES is 0; allowed: 1 to"),
        ("back", "soon", "BACK is 'soon'; allowed"),
        ("back", "0", "BACK is 0; allowed: 1 to"),
        ("back", "10000001", "BACK is 10000001; allowed: 1 to"),
        ("sockets", "١٢", "SOCKETS is '١٢'; allowed"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_before_ansible_runs(
    option: str,
    value: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: pytest.fail("Ansible ran"))
    assert plan.main(["staging", f"--{option}={value}"]) == 1
    assert message in capsys.readouterr().err


def test_numbers_may_have_spaces_and_memory_a_unit() -> None:
    assert plan.number("SOCKETS", "100 000") == 100_000
    assert plan.number("SOCKETS", "100_000") == 100_000
    assert plan.number("SOCKETS", "") is None
    assert plan.mebibytes("HOST_MEMORY", "8G") == 8192
    assert plan.mebibytes("HOST_MEMORY", "512") == 512


@pytest.mark.parametrize("option", ["force", "check"])
def test_force_and_check_are_yes_or_nothing(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main(["staging", f"--{option}=no"]) == 2
    assert f"{option.upper()} is 'no'; allowed: yes, or nothing" in capsys.readouterr().err


# What is printed


def worker(host: str, port: int) -> dict[str, Any]:
    return {"name": f"{host}:{port}", "host": host, "port": port, "url": f"http://10.0.0.1:{port}"}


def values(app_hosts: int = 2, **changed: Any) -> dict[str, Any]:
    """What Ansible tells of an inventory."""
    names = [f"app{number}" for number in range(1, app_hosts + 1)]
    host = {
        "workers": [worker(name, port) for name in names for port in (8001, 8002)],
        "workers_per_host": 2,
        "processes": 1,
        "sockets_per_worker": 5000,
        "handshakes_per_worker": None,
        "drain_pace": 50,
        "roll_limit": "50%",
        "edge_tls": False,
        "statement": {"sockets": 10_000, "spare": 1, "messages": 100, "room": 50},
        "figures": defaults("cluster")["cluster_figures"],
        "cores": 4,
        "memory_mib": 8192,
        **changed,
    }
    line = {"variable": "", "unit": "connections", "reason": "because", "source": "a page"}
    table = {
        "database_connections": {"value": 40, "derived": 40, "overridden": False, **line},
        "postgres_connections": {
            **line,
            "variable": "postgres_max_connections",
            "value": 300,
            "derived": 200,
            "overridden": True,
        },
    }
    return {
        "groups": {"channels": names, "nginx": ["lb1"]},
        "hosts": dict.fromkeys([*names, "lb1"], host),
        "table": table,
        "errors": {},
        "refused": [],
    }


Asked = list[dict[str, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What Ansible was asked for; it answers with the hosts that were asked for."""
    calls: Asked = []

    def read_values(_inventory: Path, **variables: Any) -> dict[str, Any]:
        calls.append(variables)
        given = variables.get("values_variables", {})
        statement = {
            "sockets": given.get("cluster_sockets", 10_000),
            "spare": given.get("cluster_spare_hosts", 1),
            "messages": given.get("cluster_messages_per_second", 100),
            "room": given.get("cluster_room_size", 50),
        }
        count = variables.get("values_counts", {}).get("channels", 2)
        return values(count, statement=statement)

    monkeypatch.setattr(plan, "read_values", read_values)
    return calls


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert plan.main(["staging", *arguments]) == 0
    return capsys.readouterr().out


def test_an_inventory_that_the_preflight_refuses_has_no_plan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ["cluster_spare_hosts is 2; allowed: an integer from 0"]

    def run_ansible(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        told = {**values(), "refused": refused}
        Path(json.loads(command[-1])["values_file"]).write_text(json.dumps(told))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run_ansible)
    assert plan.main(["staging"]) == 1
    ended = capsys.readouterr()
    assert refused[0] in ended.err
    assert "carries it" not in ended.out


def test_a_plan_asks_for_no_more_workers_than_the_preflight_allows(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "--sockets=1000", "--host-cores=1000", "--host-memory=4T")
    assert asked[-1]["values_variables"]["cluster_workers_per_host"] == plan.MOST_WORKERS


def test_a_host_of_one_core(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--sockets=1000", "--host-cores=1", "--host-memory=4G")
    assert " 1 core, " in text
    assert "another machine: 1 core and" in text


def test_a_refusal_names_an_argument_that_the_command_has(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(["staging", "--host-memory=300M", "--host-cores=2"]) == 1
    assert "memory of an edge" in (text := capsys.readouterr().err)
    assert text.rstrip().endswith("Change HOST_MEMORY")


def test_the_answer_comes_first_then_what_binds(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "--sockets=100000", "--messages=100", "--room=50")
    lines = text.splitlines()
    assert lines[0].startswith("100 000 sockets, 100 messages/s, rooms of 50, 1 spare app host: ")
    hosts = int(lines[0].rsplit(": ", 1)[1].split()[0])
    assert f"  workers      {2 * hosts}, 2 a host" in lines
    assert any(line.startswith("Binding constraint: ") for line in lines)
    assert "5 000/s (100 messages/s x 50 sockets)" in text
    # The limits are of as many hosts as are planned, and are not derived a second time.
    assert asked[-1]["values_counts"] == {"channels": hosts, "nginx": 1}
    assert asked[-1]["values_variables"]["cluster_sockets"] == 100_000
    assert asked[-1]["values_contact"] is False


def test_what_an_inventory_overrides_shows(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys)
    assert "postgres_max_connections (set; the table has 200)" in text
    assert "40 connections of the pools, max_connections 300" in text
    assert "because [a page]" in text


def test_an_inventory_that_does_not_carry_it_is_told_what_is_enough(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"sockets": 10_000, "spare": 1, "messages": 20, "room": 50}
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: values(statement=quiet))
    text = printed(capsys).splitlines()
    assert text[0].endswith("this inventory carries it")
    busy = {"sockets": 10_000, "spare": 1, "messages": 400, "room": 50}
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: values(statement=busy))
    text = printed(capsys).splitlines()
    assert "this inventory does NOT carry it. Short: " in text[0]
    assert text[1].startswith("Enough: ")
    assert any("SHORT" in line for line in text)


def test_the_plan_says_what_its_figures_are(
    asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(capsys, "--host-cores=8", "--host-memory=16G")
    assert "Figures: DEFAULTS, not from your hosts" in text
    assert "Run make calibrate" in text
    assert "another machine: 8 cores and 16.0 GiB instead of" in text
    assert "measured up to" in text
    own = {**defaults("cluster")["cluster_figures"], "inventory": "prod"}
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: values(figures=own))
    assert "Figures: measured for this inventory" in printed(capsys)


def test_the_time_of_a_deploy_is_of_the_planned_workers_and_of_100(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys)
    assert "Time of a deploy (channels_roll_limit: 50%; 1 spare app host)" in text
    assert "  4 workers, 2 at once: " in text
    assert "  100 workers, 2 at once: " in text


# Figures


def test_a_figure_is_the_median_and_the_range_of_repetitions() -> None:
    assert Figure.of([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)
    assert Figure(1234.5, 0.012345, 10).as_json() == {"value": 1230, "low": 0.0123, "high": 10}


def test_a_slope_has_the_range_of_slopes_without_one_reading() -> None:
    exact = estimates.slope_figure([(x, 100 + 32 * x) for x in (0, 50, 100, 150)])
    assert exact.value == pytest.approx(32)
    assert exact.low == pytest.approx(32)
    noisy = estimates.slope_figure([(0, 100), (50, 1700), (100, 3900), (150, 4900)])
    assert noisy.low < noisy.value < noisy.high


def exchange(workers: int, members: int) -> Exchange:
    """A run whose costs are known: 900 + 5 a member to send, 1000 + 150 a socket to receive."""
    room, sent = workers * members, 100
    receive = 1000 + 150 * members
    redis = 200 + 100 * workers + 4 * room
    return Exchange(
        workers,
        members,
        sent,
        sender=sent * (900 + 5 * room + receive) / 1e6,
        receivers=(sent * receive / 1e6,) * (workers - 1),
        redis=sent * redis / 1e6,
    )


def test_costs_of_messages_are_told_apart() -> None:
    found = estimates.message_costs(
        [exchange(4, 4)] * 3, [exchange(4, 44)] * 3, [exchange(1, 44)] * 3
    )
    assert {name: round(figure.value, 6) for name, figure in found.items()} == {
        "message_microseconds": 1000,
        "delivery_microseconds": 150,
        "send_microseconds": 900,
        "send_member_microseconds": 5,
        "redis_member_microseconds": 4,
        "redis_message_microseconds": 200,
        "redis_worker_microseconds": 100,
    }


def test_nothing_costs_less_than_nothing() -> None:
    assert estimates.line((1, 5), (10, 95)) == (0.0, 9.5)
    assert estimates.line((1, 5), (10, 4)) == (4.5, 0.0)


def test_an_error_is_of_the_prediction() -> None:
    assert Compared("x", 120, 100, "ms").error == pytest.approx(20)


# The file


class Measured:
    def __init__(self) -> None:
        self.figures = {"socket_kib": Figure(30.123, 29, 31)}
        self.measured = {"workers": 4}


def test_what_was_not_measured_is_a_default_and_says_so(tmp_path: Path) -> None:
    shape = {"cores": 2, "memory_mib": 4096, "model": "CPU", "hosts_on_machine": 4}
    former = {"edge_socket_kib": {"value": 12, "low": 11, "high": 13}}
    figures = calibrate.content_of(Measured(), {"kit": "1"}, shape, former, "prod")  # type: ignore[arg-type]
    assert figures["socket_kib"] == {"value": 30.1, "low": 29, "high": 31}
    assert figures["worker_mib"]["default"] is True
    assert figures["inventory"] == "prod"
    # What an earlier calibration has measured stays.
    assert figures["edge_socket_kib"] == former["edge_socket_kib"]
    assert figures["machine"] == "2 cores of CPU, 4096 MiB, shared by 4 hosts of the cluster"
    assert any("default, not measured" in line for line in calibrate.table_of(figures))

    file = calibrate.write(tmp_path, figures)
    assert file == tmp_path / "group_vars" / "all" / "calibration.yml"
    assert yaml.safe_load(file.read_text()) == {"cluster_figures": figures}


def test_every_figure_of_the_defaults_is_in_the_table_and_the_other_way_round() -> None:
    figures = defaults("cluster")["cluster_figures"]
    names = {name for name, each in figures.items() if isinstance(each, dict) and "value" in each}
    assert names == set(calibrate.LABELS)


def test_the_first_socket_that_stays_open_is_measured_else_the_probe() -> None:
    checks = [
        {"path": "/ws/private/", "close": 4001},
        {"path": "/ws/refused/", "status": 403},
        {"path": "/ws/open/", "headers": {"X-Client": "probe"}},
        "/ws/other/",
    ]
    door, _ = calibrate.door_of({"sockets": checks}, "", "", "")
    assert (door.path, door.headers) == ("/ws/open/", {"X-Client": "probe"})
    door, why = calibrate.door_of({"sockets": checks[:2]}, "", "", "")
    assert door.is_probe
    assert door.words == "the probe endpoint"
    assert "stays open without a login" in why
    # A token in the query is in no message and in no file.
    assert Door("/ws/", "?token=secret").words == "/ws/"


# The program on a host


class Worker:
    """Answers WebSockets: a hello, then everything that it is told, to all."""

    def __init__(self) -> None:
        self.clients: list[asyncio.StreamWriter] = []
        self.asked: list[str] = []
        self.status = b"101 Switching Protocols"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        if head.startswith("GET /-/live"):
            body = json.dumps({"sockets": len(self.clients), "draining": False})
            writer.write(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())
            writer.close()
            return
        writer.write(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        if not self.status.startswith(b"101"):
            writer.close()
            return
        self.clients.append(writer)
        writer.write(self.frame(b'{"type": "hello"}') + b"\x89\x00")
        try:
            while frame := await reader.readexactly(2):
                text = await reader.readexactly(4 + (frame[1] & 0x7F))
                if frame[0] & 0x0F == 8:
                    break
                if frame[0] & 0x0F == 1:
                    for client in self.clients:
                        client.write(self.frame(b'{"type": "message", ' + text[5:]))
        except asyncio.IncompleteReadError:
            pass
        self.clients.remove(writer)
        writer.close()

    @staticmethod
    def frame(text: bytes) -> bytes:
        return b"\x81" + bytes([len(text)]) + text


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Worker, str]]:
    made = Worker()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        yield made, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def target(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "path": "/ws/", "host": "chat.example.org", "headers": {}, **more}


async def test_sockets_are_opened_told_and_closed(served: tuple[Worker, str]) -> None:
    made, url = served
    agent = remote.Agent()
    opened = await agent.answer(
        {"do": "open", "targets": [target(url)] * 5, "at_once": 2, "hello": True}
    )
    assert (opened["opened"], opened["refused"]) == (5, {})
    assert all("Host: chat.example.org" in head for head in made.asked)
    assert (await agent.answer({"do": "live", "urls": [url]}))[0]["sockets"] == 5

    said = await agent.answer(
        {"do": "say", "senders": [0, 1], "rate": 50, "seconds": 0.2, "members": 5}
    )
    assert (said["sent"], said["expected"], said["delivered"]) == (10, 50, 50)
    assert 0 < said["p50"] <= said["p99"] < 5

    assert await agent.answer({"do": "close"}) == {"lost": 0}
    assert made.clients == []


async def test_a_refused_handshake_is_counted_by_its_status(served: tuple[Worker, str]) -> None:
    made, url = served
    made.status = b"503 Service Unavailable"
    agent = remote.Agent()
    opened = await agent.answer({"do": "open", "targets": [target(url)] * 3, "at_once": 3})
    assert (opened["opened"], opened["refused"]) == (0, {"503": 3})


async def test_a_worker_that_does_not_answer_is_none() -> None:
    assert await remote.live("http://127.0.0.1:1") is None


def test_processor_time_and_memory_are_of_the_units_processes(tmp_path: Path) -> None:
    own = Path("/proc/self/cgroup").read_text().strip().rsplit("/", 1)[-1]
    found = remote.sample([own, "no-such.service"])
    assert found[own]["processes"] >= 1
    assert found[own]["cpu"] > 0
    assert found[own]["pss"] > 1000
    assert found["no-such.service"]["processes"] == 0


def test_the_machine_is_told_apart_by_its_boot() -> None:
    host = remote.host()
    assert host["cores"] >= 1
    assert host["memory_mib"] > 100
    assert len(host["boot"]) == 36


async def test_the_program_runs_from_standard_input_and_ends_with_it() -> None:
    here = {"host": "app1", "connection": "local", "user": "root", "become": False}
    async with hosts.Host(here) as host:
        assert (await host.ask("host"))["cores"] >= 1
        with pytest.raises(hosts.CalibrationError, match="app1: open failed: TypeError"):
            await host.ask("open")
        process = host.process
    assert process is not None
    assert process.returncode == 0


async def test_a_host_that_does_not_answer_is_named() -> None:
    gone = {"host": "app1", "connection": "local", "user": "root", "become": False}
    host = hosts.Host(gone)
    async with host:
        assert host.process is not None
        host.process.kill()
        await host.process.wait()
        with pytest.raises(hosts.CalibrationError, match="app1 does not answer"):
            await host.ask("host")
