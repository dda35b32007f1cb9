"""What scripts/deploy asks Ansible for, verb by verb, and how it ends."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible.parsing.splitter import parse_kv

from .house import ROOT

ANSIBLE = """#!/bin/bash
printf '%s\\0' "$@" >> calls
printf '\\n' >> calls
case "$*" in *"$(cat fails 2>/dev/null || echo none)"*) exit 2 ;; esac
"""


@dataclass
class Call:
    """A run of ansible-playbook: what stands on its command line."""

    words: list[str]

    @property
    def playbook(self) -> str:
        (playbook,) = (word for word in self.words if word.startswith("playbooks/"))
        return playbook

    @property
    def variables(self) -> dict[str, str]:
        """What Ansible makes of -e NAME=VALUE."""
        found: dict[str, str] = {}
        for option, value in zip(self.words, self.words[1:], strict=False):
            if option == "-e":
                found.update(parse_kv(value))
        return found


@dataclass
class Desk:
    """A copy of the program with another Ansible."""

    directory: Path

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.directory / "scripts" / "deploy", *arguments],
            env={**os.environ, "USER": "ada"},
            capture_output=True,
            text=True,
            check=False,
        )

    def fails(self, playbook: str) -> None:
        (self.directory / "fails").write_text(playbook)

    def calls(self) -> list[Call]:
        file = self.directory / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [Call(line.split("\0")[:-1]) for line in lines]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    for name in ("scripts", ".venv/bin", "inventories/staging"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("ansible-playbook", "deploy", "lib.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    ansible = tmp_path / ".venv" / "bin" / "ansible-playbook"
    ansible.write_text(ANSIBLE)
    ansible.chmod(0o755)
    return Desk(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "operation", "playbook", "variables"),
    [
        # make gives an empty word where nothing is said.
        (("deploy", ""), "deploy", "deploy", {"release": "new", "reference": ""}),
        (("deploy", "v1.2"), "deploy v1.2", "deploy", {"release": "new", "reference": "v1.2"}),
        (("rollback", ""), "rollback", "deploy", {"release": "previous"}),
        (("rollback", "abc"), "rollback abc", "deploy", {"release": "abc"}),
        (("restart",), "restart", "deploy", {"release": "running", "restart": "true"}),
        (("upgrade",), "upgrade", "upgrade", {"release": "new", "upgrade": "true"}),
    ],
)
def test_a_verb_is_a_playbook_and_what_it_is_told(
    desk: Desk,
    arguments: tuple[str, ...],
    operation: str,
    playbook: str,
    variables: dict[str, str],
) -> None:
    result = desk.run("staging", *arguments)

    assert result.returncode == 0, result.stderr
    (call,) = desk.calls()
    assert call.words[:2] == ["-i", "inventories/staging"]
    assert call.playbook == f"playbooks/{playbook}.yml"
    told = call.variables
    # Two runs of one operator are told apart.
    assert told.pop("deploy_run")
    wanted = {f"deploy_{name}": value for name, value in variables.items()}
    assert told == {**wanted, "deploy_operation": operation}
    assert f"{arguments[0]}: done in" in result.stdout


def test_further_arguments_are_ansibles(desk: Desk) -> None:
    desk.run("staging", "deploy", "v1.2", "--", "-e", "channels_source=/elsewhere", "-v")
    desk.run("staging", "restart", "--", "-v")
    first, second = desk.calls()
    assert first.variables["channels_source"] == "/elsewhere"
    assert first.variables["deploy_reference"] == "v1.2"
    assert "-v" in first.words
    assert "-v" in second.words
    assert "--" not in first.words + second.words


def test_an_inventory_may_be_elsewhere(desk: Desk) -> None:
    desk.run("/an/inventory", "deploy")
    assert desk.calls()[0].words[:2] == ["-i", "/an/inventory"]


@pytest.mark.parametrize("failing", ["playbooks/deploy.yml", "playbooks/"])
def test_what_fails_is_settled_and_what_runs_is_shown(desk: Desk, failing: str) -> None:
    """Even where what follows fails, too."""
    desk.fails(failing)

    result = desk.run("staging", "rollback", "abc")

    assert result.returncode == 1
    deploy, settle, releases = desk.calls()
    assert [call.playbook for call in (settle, releases)] == [
        "playbooks/settle.yml",
        "playbooks/releases.yml",
    ]
    # Who gives the lock back is who has taken it.
    assert settle.variables == {**deploy.variables, "deploy_result": "failed"}
    assert "rollback: FAILED after" in result.stderr
    assert "done in" not in result.stdout


def test_a_verb_that_there_is_none_of_is_answered_with_the_usage(desk: Desk) -> None:
    result = desk.run("staging", "depoly")
    assert result.returncode == 1
    assert result.stderr.startswith("usage: scripts/deploy ENV deploy [REF] | rollback")
    assert desk.calls() == []
