"""What is in effect is told from what was printed, and compared with what is stated."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import ansible.module_utils
import pytest

from .house import ROLES, ROOT, checks_of

_OWN = str(ROOT / "plugins" / "module_utils")
if _OWN not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN)

from ansible.module_utils import (  # noqa: E402
    host_checks,
    host_kernel,
    host_processes,
    host_readings,
    host_servers,
    nginx_config,
    verify_report,
)

DUMP = """\
# configuration file /etc/nginx/nginx.conf:
worker_rlimit_nofile 65536;
events { worker_connections 1024; }
http {
    # "a comment; with marks }"
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    proxy_read_timeout 1h;
    proxy_set_header Host $host;
    include conf.d/*.conf;
}
# configuration file /etc/nginx/conf.d/site.conf:
upstream app { least_conn; server 10.0.0.1:8001 max_fails=0; server 10.0.0.2:8001 down; }
server {
    server_name chat.example.org www.example.org;
    location / { proxy_pass http://app; }
    location /ws/ {
        proxy_pass http://app;
        proxy_http_version 1.1;
        proxy_read_timeout 1d;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
    }
    location /files/ { root /srv; }
}
"""


def reading(key: str, value: Any, subject: str = "web@1", **further: Any) -> dict[str, Any]:
    return {
        "kind": "process",
        "subject": subject,
        "process": "main",
        "key": key,
        "value": value,
        "source": "/proc/1",
        "state": "read",
        "reason": "",
        **further,
    }


def check(comparison: str, expected: Any, **further: Any) -> dict[str, Any]:
    return {
        "term": "t",
        "of": "process",
        "subjects": ["web@1"],
        "read": "k",
        "is": comparison,
        "expected": expected,
        **further,
    }


def statuses(given: dict[str, Any], *readings: dict[str, Any]) -> list[str]:
    return [each["status"] for each in host_checks.evaluate(given, readings, "app1")]


def test_nginx_is_read_with_its_included_files_and_what_is_inherited() -> None:
    directives = nginx_config.parse_dump(DUMP)
    assert nginx_config.value_of(directives, "events", "worker_connections") == "1024"
    assert nginx_config.upstreams(directives) == {"app": ["10.0.0.1:8001"]}
    pages, sockets = nginx_config.locations(directives)
    assert (pages.name, sockets.name) == (
        "location / of chat.example.org",
        "location /ws/ of chat.example.org",
    )
    assert (pages.holds["proxy_read_timeout"], sockets.holds["proxy_read_timeout"]) == ("1h", "1d")
    assert (pages.holds["proxy_http_version"], sockets.holds["proxy_http_version"]) == (
        "1.0",
        "1.1",
    )
    # A location that sets one header has none of those around it.
    assert "connection" not in pages.headers
    assert "host" not in sockets.headers


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("$connection_upgrade", "upgrade"),
        ("$http_upgrade", "websocket"),
        ("", ""),
        ("$host", "$host"),
    ],
)
def test_a_header_of_a_handshake_is_looked_up_in_maps(text: str, told: str) -> None:
    assert nginx_config.in_a_handshake(nginx_config.parse_dump(DUMP), text) == told


@pytest.mark.parametrize("text", ["http {", "}", "events { worker_connections 1 \n"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(nginx_config.ConfigurationError):
        nginx_config.parse(text)


@pytest.mark.parametrize(
    ("text", "told"), [("500ms", 0.5), ("1h 30m", 5400), ("60", 60), ("off", None), ("4k", None)]
)
def test_times_of_nginx(text: str, told: float | None) -> None:
    assert nginx_config.seconds(text) == told


@pytest.mark.parametrize(
    ("comparison", "expected", "right", "wrong"),
    [
        ("equal", 65536, 65536, 1024),
        ("at_least", 1000, "unlimited", 999),
        ("at_most", 10, 10, 11),
        ("one_of", ["enabled", "static"], "static", "disabled"),
        ("none", None, [], ["a.service"]),
        ("only", ["/etc/*.conf"], ["/etc/a.conf"], ["/etc/a.conf", "/run/b.conf"]),
        ("same_items", ["a", "b"], ["b", "a"], ["a"]),
        ("same_ranges", "8001-8001,9000", "8001,9000", "8001"),
        ("same_size", "256mb", "268435456", "1gb"),
        ("same_size", "pubsub 32mb 0 0", "normal 0 0 0 pubsub 33554432 0 0", "pubsub 1 0 0"),
        ("same_memory", "512M", 536870912, "infinity"),
        ("same_memory", "infinity", "infinity", 536870912),
        ("same_setting", "1min", "60 s", "61 s"),
        ("same_setting", 60, "60 s", "7200 s"),
        ("same_setting", "256MB", "32768 8kB", "16384 8kB"),
        ("same_setting", True, "on", "off"),
        ("outside", [8001], ["1024-8000", "8002-65535"], ["1024-65535"]),
    ],
)
def test_a_comparison(comparison: str, expected: Any, right: Any, wrong: Any) -> None:
    given = check(comparison, expected)
    assert statuses(given, reading("k", right)) == ["ok"]
    assert statuses(given, reading("k", wrong)) == ["failed"]


def test_what_is_not_read_is_said() -> None:
    given = check("equal", 1)
    assert statuses(given) == ["unreadable"]
    assert statuses(given, reading("k", None, state="unreadable", reason="no")) == ["unreadable"]
    assert statuses({**given, "subjects": ["web@*"]}) == ["unreadable"]
    # One failure that stands for every key of a subject, or of every subject.
    assert statuses(given, reading("*", None, "*", state="unreadable")) == ["unreadable"]
    assert statuses(given, reading("k", None, state="absent", reason="no")) == ["skipped"]
    assert statuses(given, reading("k", "x", "web@2")) == ["unreadable"]
    assert statuses(check("at_least", 5), reading("k", "a lot")) == ["unreadable"]


def test_a_share_is_compared_and_is_a_head_room() -> None:
    given = check("at_most_percent", 90, limit="most")
    few, many = reading("k", 90), reading("k", 91)
    most = reading("most", 100)
    (verdict,) = host_checks.evaluate(given, [few, most], "app1")
    assert (verdict["status"], verdict["used"], verdict["limit"]) == ("ok", 90, 100)
    assert statuses(given, many, most) == ["failed"]


def test_each_variable_that_differs_is_named_and_no_secret_is() -> None:
    value, other = (
        "redis://channels:a-very-secret-word@10.0.0.3:6379/0",
        "redis://channels:a-very-secret-word@10.0.0.3:6379/1",
    )
    told, stale = (host_processes.told_of(each, "salt") for each in (value, other))
    given = check("same_values", {"LAYER": told, "SAME": "x"}, term="variable")
    (verdict,) = host_checks.evaluate(given, [reading("k", {"LAYER": stale, "SAME": "x"})], "app1")
    assert (verdict["term"], verdict["status"]) == ("variable LAYER", "failed")
    assert verdict["expected"].startswith("redis://10.0.0.3:6379/0 (hash ")
    assert verdict["effective"].startswith("redis://10.0.0.3:6379/1 (hash ")
    assert "secret" not in str(verdict)
    assert host_processes.told_of(value, "another salt") != told


def test_what_most_hosts_have_is_expected_of_all() -> None:
    found = [
        {"term": "release", "effective": value, "status": "ok", "compare": "everywhere"}
        for value in ("a", "a", "b")
    ]
    host_checks.agree(found)
    assert [each["status"] for each in found] == ["ok", "ok", "failed"]
    tie = [{**each, "status": "ok", "compare": "everywhere"} for each in found[1:]]
    host_checks.agree(tie)
    assert [each["status"] for each in tie] == ["failed", "failed"]


def test_clocks_that_differ_by_more_than_the_question_took() -> None:
    moments = {"a": (100.0, 101.0, 100.5), "b": (100.0, 101.0, 100.9), "c": (100.0, 101.0, 160.0)}
    found = {each["host"]: each["status"] for each in host_checks.clocks(moments, 1.0)}
    assert found == {"a": "ok", "b": "ok", "c": "failed"}


def test_nothing_checked_is_no_success() -> None:
    assert host_checks.verdict_of([], []) == "incomplete"
    assert host_checks.verdict_of([{"status": "skipped"}], []) == "incomplete"
    assert host_checks.verdict_of([{"status": "ok"}], []) == "verified"
    assert host_checks.verdict_of([{"status": "ok"}, {"status": "unreadable"}], []) == "incomplete"
    assert host_checks.verdict_of([{"status": "unreadable"}], [{"status": "failed"}]) == "failed"


def test_listening_ports_and_the_rest_of_a_range() -> None:
    shown = "LISTEN 0 128 0.0.0.0:80 0.0.0.0:*\nLISTEN 3 4096 [::]:80 [::]:*\n"
    assert host_kernel.parse_listening(shown) == {
        80: [("0.0.0.0:80", 0, 128), ("[::]:80", 3, 4096)]
    }
    left = host_kernel.subtracted((1024, 9000), host_kernel.ranges("8001-8002,8010\n"))
    assert list(left) == ["1024-8000", "8003-8009", "8011-9000"]


def test_the_clock_and_the_rules_of_postgresql() -> None:
    shown = (
        "Reference ID    : 7F7F0101 ()\nSystem time     : 0.750000000 seconds slow of NTP time\n"
    )
    found = host_kernel.parse_tracking(f"{shown}Leap status     : Normal\n")
    assert found == {"offset in seconds": 0.75, "synchronised": "Normal"}
    rule = ("host", ["channels"], ["+channels"], "10.0.0.1", "255.255.255.255", "scram-sha-256")
    words = "host channels +channels 10.0.0.1/32 scram-sha-256"
    assert host_servers.rule_in_words(*rule) == words


def test_a_program_that_does_not_answer_is_given_up() -> None:
    with pytest.raises(host_readings.UnreadableError, match="no answer within"):
        host_readings.output_of(["sleep", "60"], seconds=0.1)
    with pytest.raises(host_readings.UnreadableError, match="cannot be run"):
        host_readings.output_of(["/no/such/program"])


def test_processes_with_the_same_value_are_one_reading(tmp_path: Path) -> None:
    for process, files in (("1", 65536), ("2", 1024), ("3", 1024)):
        directory = tmp_path / process
        (directory / "fd").mkdir(parents=True)
        line = f"Max open files            {files}                {files}                files\n"
        (directory / "limits").write_text(line)
        (directory / "status").write_text("VmRSS:\t 100 kB\nVmSwap:\t 1 kB\n")
        (directory / "cmdline").write_bytes(b"nginx: worker process\0" if process != "1" else b"x")
    found = host_readings.Readings()
    host_processes.read_processes(found, "nginx.service", "1", ["1", "2", "3"], tmp_path)
    limits = [each for each in found.found if each["key"] == "open files"]
    assert [(each["process"], each["value"], each["source"]) for each in limits] == [
        ("main", 65536, "/proc/1/limits"),
        ("nginx: worker process", 1024, "/proc/2/limits and 1 more"),
    ]


@pytest.mark.parametrize("role", ["base", "channels", "nginx", "postgres", "redis"])
def test_every_check_of_a_role_is_one(role: str) -> None:
    checks = checks_of(ROLES / role / "meta" / "verify.yml")
    assert len(checks) > 10
    assert [mistake for each in checks for mistake in host_checks.mistakes(each)] == []


def test_the_report_ends_with_its_verdict() -> None:
    verdict = {
        "host": "app1",
        "kind": "process",
        "subject": "web",
        "term": "open files",
        "expected": "65536",
        "effective": "1024",
        "source": "/proc/1/limits",
        "status": "failed",
        "message": "too few",
        "advice": "Do this: web.",
    }
    other = {**verdict, "host": "app2", "term": "processes"}
    skipped = {"name": "origin", "subject": "edge", "status": "skipped", "message": ""}
    report = verify_report.report_of(
        [
            *(verdict, {**verdict, "status": "ok"}, {**other, "message": "too many"}),
            {**verdict, "status": "skipped"},
        ],
        None,
        [skipped],
    )
    assert list(verify_report.lines(report, "x.json")) == [
        "failed  app1  web  open files: expected 65536, effective 1024 (/proc/1/limits)",
        "        Too few. Do this: web.",
        "failed  app2  web  processes: expected 65536, effective 1024 (/proc/1/limits)",
        "        Too many. Do this: web.",
        "ok: 1 process",
        "does not apply, not counted: 1 behaviour, 1 process",
        "NOT verified: 2 of 3 checks failed. Report: x.json",
    ]


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["ok", "ok", "skipped"], "Verified: 2 checks. Report: x.json"),
        (["failed", "ok", "skipped"], "NOT verified: 1 of 2 checks failed. Report: x.json"),
        (["failed", "unreadable", "skipped"], "1 of 2 checks failed. 1 could not be read."),
        (["unreadable", "ok", "skipped"], "Incomplete: 1 of 2 checks could not be read."),
        (["skipped"], "Incomplete: nothing was checked."),
    ],
)
def test_what_does_not_apply_is_counted_in_no_verdict(statuses: list[str], said: str) -> None:
    behaviour = [
        {"name": "page /", "subject": "edge", "status": status, "message": "", "seconds": None}
        for status in statuses
    ]
    report = verify_report.report_of([], None, behaviour)
    assert said in verify_report.last_line(report, "x.json")


def test_the_same_advice_is_given_once_and_each_finding_stays() -> None:
    units = ("web@1.service", "web@2.service")
    checks = [
        {
            "host": host,
            "kind": "unit",
            "subject": unit,
            "term": "state",
            "expected": "active",
            "effective": "inactive",
            "source": "systemctl show",
            "status": "failed",
            "message": "the unit does not run",
            "advice": f"Read journalctl -u {unit}.",
        }
        for host in ("app1", "app2")
        for unit in units
    ]
    told = list(verify_report.lines(verify_report.report_of(checks, None, []), "x.json"))
    assert [line for line in told if line.startswith("failed")] == [
        f"failed  {host}  {unit}  state: expected active, effective inactive (systemctl show)"
        for host in ("app1", "app2")
        for unit in units
    ]
    assert told.count("        The unit does not run. Read journalctl -u UNIT.") == 1
    assert len(told) == 4 + 1 + 2


def test_shared_advice_keeps_the_name_of_a_subject_that_is_no_unit() -> None:
    check = {
        "kind": "nginx",
        "subject": "nginx",
        "term": "configuration",
        "expected": "in effect",
        "effective": "changed",
        "source": "nginx -T",
        "status": "failed",
        "message": "other files",
        "advice": "Run nginx -t.",
    }
    told = list(verify_report.folded([{**check, "host": "lb1"}, {**check, "host": "lb2"}]))
    assert told[-1] == "        Other files. Run nginx -t."


@contextmanager
def answering(said: bytes) -> Iterator[int]:
    """A port on which somebody says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        thread = Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"HTTP/1.0 503 Busy\r\n\r\n", "503"),
        # Another program has the port of the worker.
        (b"SSH-2.0-OpenSSH_9.2\r\n", "an answer that is not HTTP"),
        (b"", "remote end closed connection without response"),
    ],
)
def test_whatever_a_port_answers_is_a_reading(said: bytes, answer: str) -> None:
    found = host_readings.Readings()
    with answering(said) as port:
        url = f"http://127.0.0.1:{port}/-/ready"
        host_processes.read_answers(found, [{"subject": "web", "url": url}])
    assert [each["value"] for each in found.found] == [answer]


def test_the_password_of_somebody_elses_redis_may_be_short(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("short\n")
    found = host_readings.Readings()
    with answering(b"-WRONGPASS no\r\n") as port:
        instance = {"subject": "redis", "address": "127.0.0.1", "port": port}
        host_servers.read_redis(found, {**instance, "password_file": str(file)})
    assert [each["reason"] for each in found.found] == ["Redis answered: WRONGPASS no"]


def test_a_control_group_that_has_no_list_of_processes_hides_no_others(tmp_path: Path) -> None:
    group = tmp_path / "system.slice/web.service"
    (group / "main/gone").mkdir(parents=True)
    (group / "main/cgroup.procs").write_text("12\n")
    (group / "main/gone/cgroup.procs").symlink_to("nowhere")
    properties = {"MainPID": "11", "ControlGroup": "/system.slice/web.service"}
    found = host_processes.processes_of(properties, tmp_path / "proc", tmp_path)
    assert list(found) == ["11", "12"]
