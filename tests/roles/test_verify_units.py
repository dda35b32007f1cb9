"""Verify of hosts that somebody else has set up: what an inventory names, and what nginx does."""

import json
import re
import runpy
import socket
import subprocess
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
import yaml

from .house import ROOT, Tree, checks_of, read_yaml

_OWN = str(ROOT / "plugins" / "module_utils")
if _OWN not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN)

from ansible.module_utils import (  # noqa: E402
    host_checks,
    host_kernel,
    host_nginx,
    host_readings,
    nginx_config,
)

UNITS = ROOT / "templates" / "verify_units.yml"
CONF = """\
# configuration file /etc/nginx/nginx.conf:
http {
    upstream app { server 10.0.0.1:8001; server 10.0.0.2; server unix:/run/app.sock; }
    server { listen 80 default_server; server_name _; return 301 https://$host$request_uri; }
    server {
        listen 443 ssl; server_name chat.example.org *.chat.example.org;
        location / { try_files $uri @app; }
        location @app { proxy_pass http://app; proxy_read_timeout 1h; }
        location /ws/ { proxy_pass http://10.0.0.9:9000; proxy_read_timeout 1d; }
        location = /ws/exact/ { proxy_pass http://unix:/run/exact.sock:/; }
        location ^~ /ws/static/ { root /srv; }
        location ~ ^/ws/r[0-9]+/ { proxy_pass http://rooms; }
        location /nested/ { location /nested/ws/ { proxy_pass http://$backend; } }
    }
    server { listen [::]:443; server_name other.example.org; location / { proxy_pass http://no; } }
}
"""


@pytest.mark.parametrize(
    ("url", "place", "members"),
    [
        (
            "https://chat.example.org/any/",
            "location @app of chat.example.org",
            ["10.0.0.1:8001", "10.0.0.2:80", "unix:/run/app.sock"],
        ),
        ("wss://chat.example.org/ws/chat/", "location /ws/ of", ["10.0.0.9:9000"]),
        ("https://a.chat.example.org/ws/", "location /ws/ of", ["10.0.0.9:9000"]),
        (
            "https://chat.example.org/ws/exact/",
            "location = /ws/exact/ of",
            ["unix:/run/exact.sock"],
        ),
        ("https://chat.example.org/ws/r1/", "location ~ ^/ws/r[0-9]+/ of", ["rooms:80"]),
        ("https://chat.example.org/nested/ws/", "location /nested/ws/ of", ["$backend:80"]),
        # A load balancer is in front, and has another port.
        ("http://chat.example.org:8080/ws/", "location /ws/ of", ["10.0.0.9:9000"]),
        ("https://other.example.org/ws/", "location / of other.example.org", ["no:80"]),
        # Nothing is passed on.
        ("https://chat.example.org/ws/static/", None, None),
        ("http://chat.example.org/ws/", None, None),
    ],
)
def test_the_place_of_a_url_is_the_one_that_nginx_chooses(
    url: str, place: str | None, members: list[str] | None
) -> None:
    directives = nginx_config.parse_dump(CONF)
    found = nginx_config.location_of(directives, url)
    if place is None:
        assert found is None
        return
    assert found is not None
    assert found.name.startswith(place)
    assert nginx_config.members_of(directives, found.passes) == members


def test_what_holds_at_a_url_is_inherited_and_nothing_of_another_location_is() -> None:
    directives = nginx_config.parse_dump(CONF)
    named, sockets = (
        nginx_config.location_of(directives, f"https://chat.example.org{path}")
        for path in ("/x", "/ws/")
    )
    assert named is not None
    assert sockets is not None
    timeouts = (named.holds["proxy_read_timeout"], sockets.holds["proxy_read_timeout"])
    assert timeouts == ("1h", "1d")


def test_a_server_that_takes_no_connection_is_told_with_its_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "app.sock"))
        unix.listen()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        assert host_nginx.why_no_connection(place) == ""
        assert host_nginx.why_no_connection(f"unix:{tmp_path}/app.sock") == ""
    assert host_nginx.why_no_connection(place) == "connection refused"
    assert host_nginx.why_no_connection("unix:/nowhere") == "no such file or directory"


def test_the_sockets_that_nginx_can_hold_are_limited_by_files_and_by_connections(
    tmp_path: Path,
) -> None:
    (tmp_path / "uptime").write_text("1000.00 2000.00\n")
    for process, title in (("7", "worker process"), ("8", "worker process is shutting down")):
        directory = tmp_path / process
        directory.mkdir()
        (directory / "cmdline").write_bytes(f"nginx: {title}\0".encode())
        (directory / "stat").write_text(f"{process} (nginx) {'0 ' * 50}")
        (directory / "limits").write_text("Max open files            512     512     files\n")
    for connections, sockets in (("768", 256), ("100", 50)):
        directives = nginx_config.parse(f"events {{ worker_connections {connections}; }}")
        found = host_readings.Readings()
        host_nginx.read_workers(found, directives, tmp_path)
        told = {each["key"]: each["value"] for each in found.found}
        assert told == {"open files of a worker": 512, "sockets that it can hold": sockets}


def test_outgoing_ports_are_those_of_the_range_less_the_reserved(tmp_path: Path) -> None:
    directory = tmp_path / "net/ipv4"
    directory.mkdir(parents=True)
    (directory / "ip_local_port_range").write_text("32768\t60999\n")
    (directory / "ip_local_reserved_ports").write_text("40000-40009\n")
    assert host_kernel.outgoing_ports(tmp_path) == 28222


def test_a_container_has_the_clock_of_its_machine(tmp_path: Path) -> None:
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd/container").write_text("docker")
    with pytest.raises(host_readings.AbsentError):
        host_kernel.read_synchronised(host_readings.Readings(), tmp_path)


def test_the_last_reports_are_kept_with_their_pages_and_nothing_else_goes(tmp_path: Path) -> None:
    action = runpy.run_path(str(ROOT / "plugins" / "action" / "verify_report.py"))
    for number in range(action["KEPT"] + 1):
        for suffix in ("json", "html"):
            (tmp_path / f"20250101T0000{number:02}Z.{suffix}").write_text("{}")
    (tmp_path / "notes.json").write_text("mine")
    new = action["write"](tmp_path, {"verdict": "verified"})
    kept = sorted(tmp_path.glob("2*.json"))
    assert len(kept) == action["KEPT"]
    assert kept[0].name == "20250101T000002Z.json"
    assert kept[-1] == new
    assert sorted(tmp_path.glob("*.html"))[0].name == "20250101T000002Z.html"
    assert (tmp_path / "notes.json").exists()


def test_every_check_is_one() -> None:
    checks = checks_of(UNITS)
    assert len(checks) > 30
    assert [mistake for each in checks for mistake in host_checks.mistakes(each)] == []


def test_every_name_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "verify.md").read_text()
    names = read_yaml(UNITS)["variables"]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert set(re.findall(r"`(units_\w+)`", text)) <= set(names)


def verified(tmp_path: Path, gone: Tree | None = None, **names: Any) -> tuple[int, str, Tree]:
    """Verify this machine, where no unit runs by systemd, and another one if there is."""
    local = {"ansible_connection": "local", "ansible_become": False}
    hosts = {"here": {**local, **names}, **({"gone": gone} if gone else {})}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    command = [
        *("scripts/verify", str(inventory), "--"),
        *("-e", '{"verify_parts": ["reading"]}', "-e", f"verify_directory={tmp_path}"),
    ]
    ended = subprocess.run(
        ["env", f"UNITS={inventory}", *command], capture_output=True, text=True, cwd=ROOT
    )
    reports = sorted(tmp_path.glob("*.json"))
    report = json.loads(reports[0].read_text()) if reports else {}
    return ended.returncode, ended.stdout + ended.stderr, report


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"units_ngnix": "nginx.service"}, "units_ngnix"),
        ({"units_sockets": "many"}, "units_sockets"),
        ({"units_redis": [{"port": 6379}]}, "missing required arguments: unit"),
    ],
)
def test_what_no_inventory_may_give_is_refused(tmp_path: Path, names: Tree, said: str) -> None:
    code, output, report = verified(tmp_path, **names)
    assert code == 2, output
    assert said in output
    assert "See docs/verify.md. Nothing was read." in output
    assert report == {}


def test_a_host_of_which_nothing_is_named_is_no_success(tmp_path: Path) -> None:
    code, output, report = verified(tmp_path)
    (unread,) = [each for each in report["checks"] if each["term"] == "names of units"]
    assert unread["status"] == "unreadable"
    assert "--limit" in unread["message"]
    assert code != 0, output


def test_a_host_that_cannot_be_reached_is_a_line_of_the_report(tmp_path: Path) -> None:
    nowhere = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    code, output, report = verified(tmp_path, gone=nowhere)
    (check,) = [each for each in report["checks"] if each["host"] == "gone"]
    assert (check["term"], check["status"]) == ("reading", "unreadable")
    assert check["message"].startswith("the host cannot be reached: ")
    # As SSH has said it.
    assert check["message"].endswith("Connection refused")
    assert code != 0, output


@pytest.mark.parametrize(
    ("known", "wanted", "said"),
    [
        ({"_verify_read": {"checks": []}}, True, ""),
        ({"_channels_host": {"current": "a"}}, False, ""),
        ({"_verify_read": {"checks": []}, "verify_unread": "Task: why"}, True, "Task: why"),
        ({"verify_unread": "Task: why"}, False, "Task: why"),
        (
            {"_channels_host": {"unreachable": True, "msg": "no route"}},
            False,
            "the host cannot be reached: no route",
        ),
        ({"_verify_read": {"failed": True, "msg": "why"}}, True, "why"),
        ({}, True, "it was not asked: see the output of Ansible"),
    ],
)
def test_why_a_host_was_not_read_is_what_has_happened(known: Tree, wanted: bool, said: str) -> None:
    action = runpy.run_path(str(ROOT / "plugins" / "action" / "verify_report.py"))
    assert action["why_unread"](known, wanted) == said


def test_what_cannot_be_read_is_said_of_each_term(tmp_path: Path) -> None:
    nobody = {"unit": "redis-of-nobody.service", "port": 1}
    code, output, report = verified(
        tmp_path, units_web=["of-nobody@*.service"], units_redis=[nobody]
    )
    assert code != 0, output
    of_units = [
        each
        for each in report["checks"]
        if each["subject"] in ("of-nobody@*.service", nobody["unit"])
    ]
    assert len(of_units) > 10
    assert {each["status"] for each in of_units} == {"unreadable"}
    assert all(each["message"] for each in of_units)
    (clients,) = [each for each in of_units if each["term"] == "maxclients"]
    assert "cannot connect to 127.0.0.1:1" in clients["message"]
