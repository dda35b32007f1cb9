"""make plan and make calibrate: what they accept, and what they print."""

import asyncio
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
import yaml
from plugins.test.values import cluster_figures

import calibrate
import plan
from calibration import estimates, hosts, remote
from calibration.check import Compared
from calibration.estimates import Exchange, Figure
from calibration.measuring import Door, Measuring
from tests.roles.house import ROOT, defaults, own_module_utils

PLAN_OPTIONS = ("sockets", "messages", "room", "spare", "host-memory", "host-cores", "back")


# Arguments


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("sockets", "abc", "SOCKETS is 'abc'; allowed: a whole number from 0, such as 100000"),
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
        ("sockets", "12k", "SOCKETS is '12k'; allowed: a whole number"),
        ("sockets", "1e9", "SOCKETS is '1e9'; allowed: a whole number"),
        ("sockets", "  ", "SOCKETS is '  '; allowed: a whole number"),
        ("sockets", "9" * 20, f"SOCKETS is {'9' * 20}; allowed: 1 to 10000000"),
        ("sockets", "9" * 5000, "allowed: a whole number"),
        ("messages", "10000001", "MESSAGES is 10000001; allowed: 0 to 10000000"),
        ("spare", "10000", "SPARE is 10000; allowed: 0 to 9999"),
        ("host-memory", "8 G", "HOST_MEMORY is '8 G'; allowed: a size, such as 8G"),
        ("host-memory", "1e9", "HOST_MEMORY is '1e9'; allowed: a size"),
        ("host-cores", "1000000000", "HOST_CORES is 1000000000; allowed: 1 to 1024"),
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


@pytest.mark.parametrize("option", ["room", "login"])
def test_what_an_adapter_takes_is_refused_without_one(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main(["staging", f"--{option}=x"]) == 2
    assert f"{option.upper()} is 'x', but nothing logs in: set ADAPTER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("adapter", "login", "said"),
    [
        ("chat", "", "ADAPTER is 'chat', which cannot be used: 'chat': expected MODULE:CLASS"),
        ("no_such:Thing", "", "no module 'no_such'"),
        ("chat.load_adapter:RoomAdapter", "nowhere", "The login of alice at nowhere failed: "),
        ("chat.load_adapter:RoomAdapter", "http://127.0.0.1:1", "at http://127.0.0.1:1 failed: "),
    ],
)
def test_an_adapter_that_cannot_log_in_is_named(adapter: str, login: str, said: str) -> None:
    inventory = {"users": {"alice": "secret"}, "source": str(ROOT / "app")}
    with pytest.raises(hosts.CalibrationError, match=re.escape(said)) as refused:
        calibrate.door_of(inventory, adapter, "lobby", login)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("option", ["force", "check"])
def test_force_and_check_are_yes_or_nothing(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main(["staging", f"--{option}=no"]) == 2
    assert f"{option.upper()} is 'no'; allowed: yes, or nothing" in capsys.readouterr().err


# Inventories, as Ansible reads them


def written(directory: Path, **changed: Any) -> Path:
    """An inventory whose hosts nobody can reach."""
    hosts = {
        name: {"cluster_address": f"127.0.0.{number}", "ansible_host": "127.0.0.1"}
        for number, name in enumerate(("lb1", "app1"), 2)
    }
    groups: dict[str, Any] = {"nginx": {"hosts": {"lb1": {}}}, "channels": {"hosts": {"app1": {}}}}
    given = {"ansible_port": 1, "cluster_server_names": ["chat.example.org"], **changed}
    tree = {"all": {"hosts": hosts, "vars": given, "children": groups}}
    (directory / "hosts.yml").write_text(yaml.safe_dump(tree))
    return directory


@pytest.mark.parametrize("program", [plan, calibrate])
@pytest.mark.parametrize("content", ["all: {hosts: {app1:", "- app1\n"])
def test_a_broken_file_of_an_inventory_is_named(
    program: Any, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (written(tmp_path) / "generated.yml").write_text(content)
    assert program.main([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"Ansible cannot read {tmp_path}" in said
    assert "generated.yml" in said


def test_hosts_that_do_not_answer_are_planned_with_what_is_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "--sockets=1000", environment=str(written(tmp_path)))
    assert text.startswith("You need 2 app hosts with 2 workers each, 1 edge and 1 Redis instance")
    assert f"Run it with what they have: make plan ENV={tmp_path} SOCKETS=1000 HOST_CORES=" in text
    assert "connections of the pools; your own server" in text


def test_a_calibration_names_a_host_that_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main([str(written(tmp_path))]) == 1
    said = capsys.readouterr().err
    assert re.match(r"(lb1|app1) does not answer: .*port 1", said), said
    assert not (tmp_path / "group_vars").exists()


@pytest.mark.parametrize("program", [plan, calibrate])
def test_a_value_that_ansible_cannot_evaluate_is_named(
    program: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, cluster_first_worker_port="{{ nothing }}")
    assert program.main([str(tmp_path)]) == 1
    assert re.search(r"^workers: .*'nothing' is undefined", capsys.readouterr().err, re.MULTILINE)


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
        "layer": "",
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

    def read_values(_inventory: Path, *_: Any, **variables: Any) -> dict[str, Any]:
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


def printed(
    capsys: pytest.CaptureFixture[str], *arguments: str, environment: str = "staging"
) -> str:
    assert plan.main([environment, *arguments]) == 0
    return capsys.readouterr().out


def test_an_inventory_that_the_preflight_refuses_has_no_plan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ["cluster_spare_hosts is 2; allowed: an integer from 0"]

    def run_ansible(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        told = {**values(), "refused": refused}
        Path(json.loads(command[-1])["values_file"]).write_text(json.dumps(told))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(hosts, "run", run_ansible)
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
    assert " 1 core and 4.0 GiB each" in text
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
    said = re.fullmatch(
        r"You need (\d+) app hosts with 2 workers each, 1 edge and 1 Redis instance, to carry"
        r" 100 000 sockets, 100 messages/s and rooms of 50, with 1 app host to spare\.",
        lines[0],
    )
    assert said, lines[0]
    hosts = int(said[1])
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
    assert "40 connections of the pools; max_connections 300" in text
    assert "because [a page]" in text


def test_an_inventory_that_does_not_carry_it_is_told_what_is_enough(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"sockets": 10_000, "spare": 1, "messages": 20, "room": 50}
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: values(statement=quiet))
    text = printed(capsys).splitlines()
    assert text[0].startswith("This inventory carries 10 000 sockets, 20 messages/s ")
    busy = {"sockets": 10_000, "spare": 1, "messages": 400, "room": 50}
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: values(statement=busy))
    text = printed(capsys).splitlines()
    assert text[0].startswith("This inventory does NOT carry 10 000 sockets, 400 messages/s ")
    assert " Short: " in text[0]
    assert re.match(r"Enough are \d+ app hosts with 2 workers each, 1 edge and ", text[1])
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


@pytest.mark.parametrize(
    ("layer", "measured", "inventory", "said"),
    [
        ("fanout", "core", "", "another channel layer: fanout instead of core."),
        ("fanout", "core", "prod", "another channel layer: fanout instead of core."),
        ("", "fanout", "prod", "of the application instead of fanout."),
        ("fanout", "fanout", "prod", ""),
        # Nobody knows which one the application has; the plan asks for a calibration anyway.
        ("", "core", "", ""),
    ],
)
def test_figures_of_another_layer_are_said_to_be(
    layer: str,
    measured: str,
    inventory: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = defaults("cluster")["cluster_figures"]
    figures = {**known, "measured": {**known["measured"], "layer": measured}}
    if inventory:
        figures["inventory"] = inventory
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: values(layer=layer, figures=figures))
    text = printed(capsys)
    assert said in text
    assert ("another channel layer" in text) is bool(said)


def test_the_time_of_a_deploy_is_of_the_planned_workers_and_of_100(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys)
    assert "Time of a deploy (channels_roll_limit: 50%)" in text
    # A wave is not limited by spare hosts; drains are: one host of two, or one of fifty, at a time.
    small, large = re.findall(r"^  (\d+ workers, \d+ at once: .*)$", text, re.MULTILINE)
    assert small.startswith("4 workers, 2 at once: ")
    assert "(2 rounds of drains; a worker closes 2500 at 50 a second)" in small
    assert large.startswith("100 workers, 50 at once: ")
    assert "(50 rounds of drains; " in large


def uneven() -> dict[str, Any]:
    """What Ansible tells of an inventory with three workers on one host, and one on the other."""
    workers = [*(worker("app1", 8001 + n) for n in range(3)), worker("app2", 8001)]
    busy = {"sockets": 10_000, "spare": 1, "messages": 2000, "room": 50}
    return values(workers=workers, statement=busy)


def test_the_host_with_the_most_workers_is_the_one_that_is_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: uneven())
    text = printed(capsys)
    assert "  workers      4, 1 to 3 a host" in text
    # One worker is left, and has all sockets. A host may have three such workers.
    assert "30000 sockets of " in " ".join(text.split())
    assert "7500 clients; " in text
    assert "app hosts with 2 workers each" in text.splitlines()[1]


def test_what_no_host_has_told_is_no_fact(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = values(cores=None, memory_mib=None)
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: silent)
    text = printed(capsys)
    # With cores and memory, it would be the question for another cluster.
    assert "hosts are as ASSUMED below. When they answer, run: make plan\n" in text
    assert "ASSUMED, because no host answered" in text
    text = printed(capsys, "--back=60", environment="production")
    assert "When they answer, run: make plan ENV=production BACK=60\n" in text
    text = printed(capsys, "--sockets=100 000", "--spare=2", "--host-memory=8G")
    wanted = "make plan SOCKETS='100 000' SPARE=2 HOST_MEMORY=8G HOST_CORES=2\n"
    assert f"Run it with what they have: {wanted}" in text
    # Edges are hosts of their own.
    edge = {**values()["hosts"]["lb1"], "cores": None}
    half = values()
    half["hosts"]["lb1"] = edge
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: half)
    text = printed(capsys)
    assert "if the hosts are as ASSUMED below" in text
    assert re.search(r"app hosts .* read from 2 of 2 hosts", text)
    assert re.search(r"edges .* ASSUMED", text)
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: values())
    assert "ASSUMED" not in printed(capsys)
    text = printed(capsys, "--host-cores=4")
    assert "4 cores and 8.0 GiB each, cores as given, the rest read from 2 of 2 hosts" in text


def test_the_limits_are_of_as_many_workers_as_are_planned(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "--sockets=1000", "--host-cores=8", "--host-memory=16G")
    # An inventory may set both.
    given = asked[-1]["values_variables"]
    assert (given["cluster_workers_per_host"], given["cluster_workers"]) == (8, 8)


def told_by_ansible(monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]) -> None:
    def run_ansible(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        Path(json.loads(command[-1])["values_file"]).write_text(json.dumps(content))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(hosts, "run", run_ansible)


def test_a_value_that_cannot_be_evaluated_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = values(statement=None)
    broken["errors"] = {"statement": "app1: 'nothing' is undefined", "users": "app1: no vault"}
    told_by_ansible(monkeypatch, broken)
    assert plan.main(["staging"]) == 1
    said = capsys.readouterr().err
    assert "statement: app1: 'nothing' is undefined" in said
    # A plan needs no users.
    assert "users" not in said


def test_limits_that_nobody_can_evaluate_are_one_line_for_each_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = values()
    broken["errors"] = {
        "nofile": "lb1: 'ceiling' is undefined",
        # No limit follows from what only make calibrate asks for.
        "users": "app1: no vault",
        "redis_maxclients": "data1: 'ceiling' is undefined",
        "somaxconn": "lb1: no number",
    }
    for host in broken["hosts"].values():
        host["users"] = None
    monkeypatch.setattr(plan, "read_values", lambda *_, **__: broken)
    said = [line for line in printed(capsys).splitlines() if "evaluated:" in line]
    assert said == [
        "  nofile and redis_maxclients cannot be evaluated: 'ceiling' is undefined",
        "  somaxconn cannot be evaluated: no number",
    ]


def test_staging_has_a_plan_before_make_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = tmp_path / "staging"
    ignored = shutil.ignore_patterns("generated.yml")
    shutil.copytree(ROOT / "inventories" / "staging", inventory, ignore=ignored)
    text = printed(capsys, environment=str(inventory))
    assert re.search(r"^  nofile +65536 ", text, re.MULTILINE)
    assert "cannot be evaluated" not in text


@pytest.mark.parametrize("group", ["channels", "nginx"])
def test_a_cluster_without_a_host_of_a_group_has_no_plan(
    group: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = values()
    empty["groups"][group] = []
    told_by_ansible(monkeypatch, empty)
    assert plan.main(["staging"]) == 1
    assert f"the group {group} is empty; allowed: at least one host" in capsys.readouterr().err


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
        self.measured: dict[str, Any] = {"workers": 4}


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
    assert list(file.parent.iterdir()) == [file]


def test_figures_that_are_noise_are_none_that_the_preflight_refuses() -> None:
    measured = Measured()
    # A worker that was not restarted has memory of earlier sockets.
    measured.measured["handshake"] = "/ws/of noise/"
    measured.figures = {
        "handshakes_per_second": Figure(0, -1, 0),
        "socket_kib": Figure(-0.1, -2, 0.3),
        "worker_mib": Figure(60, -1, 61),
        "delivery_microseconds": Figure(0, 0, 0),
    }
    shape = {"cores": 2, "memory_mib": 4096, "model": "CPU", "hosts_on_machine": 4}
    figures = calibrate.content_of(measured, {}, shape, {}, "prod")  # type: ignore[arg-type]
    assert cluster_figures(figures)
    assert figures["socket_kib"]["default"]
    assert figures["worker_mib"] == {"value": 60, "low": 0.001, "high": 61}
    assert figures["handshakes_per_second"]["default"]
    assert figures["measured"]["handshake"] == "/ws/chat/lobby/ of the sample"


@pytest.mark.parametrize(
    ("found", "former", "said"),
    [
        (True, {}, "/ws/own/"),
        (True, {"default": False}, "/ws/own/"),
        # The door of this measurement is not where the figures are from.
        (False, {"default": False}, "/ws/former/"),
        (False, {"default": True}, "/ws/chat/lobby/ of the sample"),
        (False, {}, "/ws/chat/lobby/ of the sample"),
    ],
)
def test_the_handshakes_are_those_of_the_figures(
    found: bool, former: dict[str, bool], said: str
) -> None:
    measured = Measured()
    if found:
        measured.figures["handshakes_per_second"] = Figure(300, 290, 310)
        measured.measured["handshake"] = "/ws/own/"
    shape = {"cores": 2, "memory_mib": 4096, "model": "CPU", "hosts_on_machine": 1}
    rate = {"value": 100, "low": 90, "high": 110, **former}
    earlier = {"handshakes_per_second": rate, "measured": {"handshake": "/ws/former/"}}
    known = earlier if former else {}
    figures = calibrate.content_of(measured, {}, shape, known, "prod")  # type: ignore[arg-type]
    assert figures["measured"]["handshake"] == said


def test_figures_that_cannot_be_written_leave_the_former_ones(tmp_path: Path) -> None:
    file = calibrate.write(tmp_path, {"date": "1"})
    former = file.read_text()
    # Where the new ones are written before they take the place.
    file.with_suffix(".new").mkdir()
    with pytest.raises(hosts.CalibrationError, match=r"were not written to .*calibration\.yml"):
        calibrate.write(tmp_path, {"date": "2"})
    assert file.read_text() == former


@pytest.mark.parametrize(
    ("limit", "present", "count"), [(5000, 0, 400), (100, 0, 90), (500, 400, 90), (36, 0, 32)]
)
def test_a_tenth_of_the_free_places_of_a_worker_stays_free(
    limit: int, present: int, count: int
) -> None:
    assert calibrate.room_for(limit, present) == count


@pytest.mark.parametrize(("limit", "present"), [(10, 0), (5000, 4990), (5000, 6000)])
def test_a_worker_with_too_few_free_places_is_not_measured(limit: int, present: int) -> None:
    said = f"cluster_sockets_per_worker is {limit}, and a worker has {present} sockets"
    with pytest.raises(hosts.CalibrationError, match=said):
        calibrate.room_for(limit, present)


# The cluster before


class Answers:
    """A host, as far as a calibration asks before it measures."""

    name = "app1"

    def __init__(self, locked: str = "", **state: Any) -> None:
        self.locked = locked
        self.state = {"draining": False, "sockets": 0, "beside": 0, "revision": "a-1", **state}
        self.asked: list[str] = []

    async def ask(self, kind: str, **request: Any) -> Any:
        self.asked.append(kind)
        states = [self.state, {**self.state, "beside": 0, "revision": "a-1"}]
        return {"locked": self.locked, "live": states, "host": {"boot": "1"}}[kind]


def looked_at(host: Answers, other: str = "app1") -> Any:
    """Look at two workers, the second one on another host where one is named."""
    first = {"workers": [worker("app1", 8001), worker(other, 8002)], "names": ["chat"]}
    inventory = {
        "groups": {"channels": ["app1"]},
        "hosts": {"app1": {**first, "edge_tls": False}},
    }
    answering: Any = {"app1": host, other: host}
    return calibrate.look(calibrate.cluster_of(inventory, answering, Door()), False)


async def test_a_cluster_that_is_at_rest_is_measured() -> None:
    assert await looked_at(Answers()) == ({"app1": {"boot": "1"}}, 0)
    # The unit file of another host has another hash.
    both = {name: {"boot": "1"} for name in ("app1", "app2")}
    assert await looked_at(Answers(revision="a-2"), "app2") == (both, 0)


async def test_another_release_on_another_host_is_not_measured() -> None:
    with pytest.raises(hosts.CalibrationError, match="run different releases"):
        await looked_at(Answers(revision="b-2"), "app2")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"locked": "ann@laptop (deploy v2)"}, "Locked by ann@laptop (deploy v2) on app1"),
        # Its clients would be closed, and nobody sees them at the port.
        ({"beside": 1}, "A deploy is not complete"),
        # The restart would start another release than that which runs.
        ({"revision": "b-1"}, "A deploy is not complete"),
        # Nor with other settings.
        ({"revision": "a-2"}, "A deploy is not complete"),
        ({"draining": True}, "Workers that drain or do not answer: app1:8001"),
        ({"sockets": 2}, "4 clients are connected"),
    ],
)
async def test_no_worker_is_restarted_whose_state_would_change(
    state: dict[str, Any], said: str
) -> None:
    host = Answers(**state)
    with pytest.raises(hosts.CalibrationError, match=re.escape(said)) as refused:
        await looked_at(host)
    assert "Nothing was measured." in str(refused.value)
    assert "restart" not in host.asked


def test_the_lock_is_where_operations_take_it() -> None:
    own_module_utils()
    layout = importlib.import_module("ansible.module_utils.channels_releases").Layout(Path("/"))
    assert layout.lock == remote.LOCK


def test_who_holds_the_lock_is_read_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LOCK", tmp_path / "lock")
    assert remote.locked() == ""
    remote.LOCK.write_text(json.dumps({"who": "ann@laptop", "what": "deploy v2"}))
    assert remote.locked() == "ann@laptop (deploy v2)"
    remote.LOCK.write_text("{")
    assert remote.locked() == "somebody (an operation)"


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


async def test_handshakes_of_the_probe_are_no_figure_of_the_application() -> None:
    said: list[str] = []
    cluster: Any = SimpleNamespace(workers=[], door=Door())
    measuring = Measuring(cluster, said.append)
    await measuring.handshakes()
    assert measuring.figures == {}
    assert "handshake" not in measuring.measured
    assert "set ADAPTER and LOGIN" in said[0]


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


async def test_the_program_ends_in_the_middle_of_a_request_when_the_connection_does() -> None:
    here = {"host": "app1", "connection": "local", "user": "root", "become": False}
    async with hosts.Host(here) as host:
        assert await host.ask("live", urls=[]) == []
        process = host.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"do": "wait", "seconds": 20}\n')
        process.stdin.close()
        # Nothing is answered to nobody.
        assert await process.stdout.read() == b""


async def test_the_program_ends_where_nobody_asks() -> None:
    text = inspect.getsource(remote)
    assert f"SILENCE = {remote.SILENCE}" in text
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text.replace(f"SILENCE = {remote.SILENCE}", "SILENCE = 0.1")),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    # Its standard input stays open.
    assert await process.wait() != 0


async def test_a_token_that_is_not_there_is_said(
    served: tuple[Worker, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, url = served
    monkeypatch.setattr(remote, "ENVIRONMENTS", tmp_path)
    with pytest.raises(LookupError, match="run make converge"):
        await remote.Agent().answer(
            {"do": "open", "targets": [target(url, token=True)], "at_once": 1}
        )


async def test_a_host_that_does_not_answer_is_named() -> None:
    gone = {"host": "app1", "connection": "local", "user": "root", "become": False}
    host = hosts.Host(gone)
    async with host:
        assert host.process is not None
        host.process.kill()
        await host.process.wait()
        with pytest.raises(hosts.CalibrationError, match="app1 does not answer"):
            await host.ask("host")
