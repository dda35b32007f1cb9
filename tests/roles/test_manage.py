"""make manage: a management command on an app host, over the connection that Ansible uses."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .house import ROOT

HOSTS: dict[str, Any] = {
    "nginx": {"hosts": {"lb1": {}}},
    "channels": {
        "hosts": {
            "app1": {"ansible_host": "10.0.0.{{ number }}", "number": 11},
            "app2": {"ansible_host": "10.0.0.12", "ansible_port": 2222},
        },
        "vars": {
            "ansible_user": "deploy",
            "ansible_ssh_common_args": '-o UserKnownHostsFile="/a b/known"',
            "ansible_become": True,
        },
    },
}


class Desk:
    """An inventory, and an ssh that says how it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("ssh", "su"):
            program = directory / name
            program.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
            program.chmod(0o755)

    def manage(self, *arguments: str, **variables: Any) -> "subprocess.CompletedProcess[str]":
        inventory = self.directory / "hosts.yml"
        channels = HOSTS["channels"]
        given = {**channels, "vars": {**channels["vars"], **variables}}
        inventory.write_text(yaml.safe_dump({**HOSTS, "channels": given}))
        return subprocess.run(
            [sys.executable, ROOT / "scripts" / "management.py", inventory, *arguments],
            env={**os.environ, "PATH": f"{self.directory}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_command_is_run_on_the_first_app_host(desk: Desk) -> None:
    ended = desk.manage("--", "shell", "-c", "print('it is')")
    assert ended.stdout.splitlines() == [
        *("ssh", "-o", "UserKnownHostsFile=/a b/known", "deploy@10.0.0.11"),
        "sudo /usr/local/sbin/channels-manage shell -c 'print('\"'\"'it is'\"'\"')'",
    ], ended.stderr


def test_a_host_can_be_named_and_python_can_be_run(desk: Desk) -> None:
    ended = desk.manage(
        *("--host", "app2", "--python", "--", "-m", "channels_kit.overlay"),
        ansible_become_method="su",
    )
    assert ended.stdout.splitlines()[-4:] == [
        *("-o", "UserKnownHostsFile=/a b/known", "deploy@10.0.0.12"),
        "su -c '/usr/local/sbin/channels-manage --python -m channels_kit.overlay' root",
    ], ended.stderr
    assert ended.stdout.splitlines()[1:3] == ["-p", "2222"]


def test_root_becomes_nobody_else(desk: Desk) -> None:
    ended = desk.manage("--", "check", ansible_user="root")
    assert ended.stdout.splitlines()[-2:] == [
        *("root@10.0.0.11", "/usr/local/sbin/channels-manage check")
    ], ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "lb1", "--", "check"), "HOST='lb1' is not an app host. App hosts: app1 app2"),
        (("--host", "app9", "--", "check"), "HOST='app9' is not an app host. App hosts: app1 app2"),
        ((), 'make manage CMD="createsuperuser"'),
    ],
)
def test_a_mistake_is_answered(desk: Desk, arguments: tuple[str, ...], said: str) -> None:
    ended = desk.manage(*arguments)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stdout == ""


def test_another_way_to_become_root_is_refused_with_what_to_run(desk: Desk) -> None:
    ended = desk.manage("--", "check", ansible_become_method="runas", ansible_become_user="x")
    assert ended.returncode == 1
    assert "Run as root on app1: /usr/local/sbin/channels-manage check" in ended.stderr
