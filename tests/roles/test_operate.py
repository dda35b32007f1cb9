"""What scripts/operate asks Ansible for, verb by verb, and how it ends."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible.parsing.splitter import parse_kv

from .house import ROOT

ANSIBLE = """#!/bin/bash
printf '%s\\0' "$CHANNELS_KIT_PROCESS" "$@" >> calls
printf '\\n' >> calls
result=$(grep -o 'deploy_result_file=[^ ]*' <<< "$*" | cut -d = -f 2)
[ ! -e says ] || cp says "$result"
if [ -e waits ]; then
    rm waits
    trap 'kill $!; exit 99' INT
    sleep 60 &
    touch waiting
    wait $!
fi
case "$*" in *"$(cat fails 2>/dev/null || echo none)"*) exit 2 ;; esac
"""


@dataclass
class Call:
    """A run of ansible-playbook: what stands on its command line."""

    process: str
    words: list[str]

    @property
    def playbook(self) -> str:
        (playbook,) = (word for word in self.words if word.endswith(".yml"))
        return playbook

    @property
    def variables(self) -> dict[str, str]:
        """What Ansible makes of -e NAME=VALUE."""
        found: dict[str, str] = {}
        for option, value in zip(self.words, self.words[1:], strict=False):
            if option == "-e":
                found.update(parse_kv(value))
        # Where the last words are; another file each time.
        assert found.pop("deploy_result_file")
        return found


@dataclass
class Desk:
    """A copy of the program with another Ansible."""

    directory: Path

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.directory / "scripts" / "operate", *arguments],
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
        calls = [line.split("\0")[:-1] for line in lines]
        return [Call(process, words) for process, *words in calls]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    for name in ("scripts", ".venv/bin", "inventories/staging"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("ansible-playbook", "operate", "lib.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "inventories/staging/generated.yml").touch()
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
        (("upgrade",), "upgrade", "site", {"release": "new", "upgrade": "true"}),
        (("converge",), "converge", "site", {}),
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
    assert call.playbook.removeprefix("playbooks/") == f"{playbook}.yml"
    told = call.variables
    # What changes what runs ends with a proof, even where nothing was to be restarted.
    assert (told.pop("deploy_proves", "false") == "true") == (operation != "converge")
    wanted = {f"deploy_{name}": value for name, value in variables.items()}
    assert told == {**wanted, "deploy_operation": operation}
    assert f"{arguments[0]}: done in" in result.stdout


def test_a_deploy_can_resolve_packages_anew(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFRESH", "yes")
    desk.run("staging", "deploy")
    (call,) = desk.calls()
    assert call.variables["deploy_refresh"] == "yes"


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
    elsewhere = desk.directory / "elsewhere"
    elsewhere.mkdir()
    desk.run(str(elsewhere), "deploy")
    assert desk.calls()[0].words[:2] == ["-i", str(elsewhere)]


@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_a_host_is_drained_and_brought_back(desk: Desk, verb: str) -> None:
    assert desk.run("staging", verb, "app1").returncode == 0
    (call,) = desk.calls()
    assert call.playbook == f"playbooks/{verb}.yml"
    assert call.variables == {"drain_host": "app1", "deploy_operation": f"{verb} app1"}


@pytest.mark.parametrize("name", ["prodcution", "", ".", "..", "/", "../.."])
def test_an_inventory_that_is_not_there_is_refused(desk: Desk, name: str) -> None:
    """Nor are all inventories taken for one."""
    result = desk.run(name, "deploy")
    assert result.returncode == 1
    assert result.stderr == f"There is no inventory '{name}'. ENV= takes one of: staging\n"
    assert desk.calls() == []


@pytest.mark.parametrize("name", ["prodcution", ""])
@pytest.mark.parametrize("verb", ["check", "verify", "releases", "unlock"])
def test_make_refuses_an_inventory_that_is_not_there(verb: str, name: str) -> None:
    result = subprocess.run(
        ["make", "--no-print-directory", "--assume-old=tools", verb, f"ENV={name}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"There is no inventory '{name}'. ENV= takes one of: ")
    assert result.stdout == ""


# Where a variable of each is named in the help: at the goal, and above all goals of its section.
TAKEN = {
    "plan": "ENV SOCKETS MESSAGES ROOM SPARE HOST_MEMORY HOST_CORES BACK",
    "deploy": "ENV REF REFRESH WITHOUT",
    "status": "no variables",
    "down up": "EDGE_PORT STAGING_RELEASE",
}


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Let make print what it would run for an operator, who calls it from no other make."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "--assume-old=tools", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=own | environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("goals", "given", "name"),
    [
        ("plan", "sockets=5", "sockets"),
        ("plan", "UNITS=units.yml", "UNITS"),
        ("deploy", "RFE=v1", "RFE"),
        ("status", "ENV=prod", "ENV"),
        ("down up", "EDGE_PRT=8090", "EDGE_PRT"),
    ],
)
def test_make_refuses_a_variable_that_a_goal_does_not_take(
    goals: str, given: str, name: str
) -> None:
    result = make(*goals.split(), given)
    assert result.returncode == 2
    said = f"make {goals} does not take {name}. It takes {TAKEN[goals]}. Nothing was done."
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "environment", "runs"),
    [
        (["plan", "ENV=prod", "SOCKETS=5", "BACK=60"], {}, '--sockets="5"'),
        # As CI may call it.
        (["plan", "SOCKETS=5"], {"MAKEFLAGS": "-j4 --silent"}, '--sockets="5"'),
        (["verify", "ENV=~/a b.yml", "UNITS=units of b.yml"], {}, 'scripts/verify "~/a b.yml"'),
        (["logs", "HOST=app1", "UNIT=channels-web@*"], {}, '"channels-web@*"'),
        (["down", "up", "EDGE_PORT=8090", "ENV=staging"], {}, "scripts/up 8090"),
        # The other make has taken it.
        (["status", "jobs=4"], {"MAKELEVEL": "1"}, "cluster.py status"),
        # No goal: the help.
        (["sockets=5"], {}, "awk"),
    ],
)
def test_make_passes_on_what_a_goal_takes(
    arguments: list[str], environment: dict[str, str], runs: str
) -> None:
    result = make(*arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert runs in result.stdout


def test_make_says_first_that_there_is_no_such_goal() -> None:
    assert "No rule to make target 'plam'" in make("plam", "SOCKETS=5").stderr


@pytest.mark.parametrize("failing", ["playbooks/deploy.yml", "playbooks/"])
def test_after_a_failure_the_lock_is_given_back_and_what_runs_is_shown(
    desk: Desk, failing: str
) -> None:
    """Even where what follows fails, too."""
    desk.fails(failing)

    result = desk.run("staging", "rollback", "abc")

    assert result.returncode == 1
    deploy, unlock, releases = desk.calls()
    assert [call.playbook for call in (unlock, releases)] == [
        "playbooks/release_lock.yml",
        "playbooks/releases.yml",
    ]
    assert unlock.variables == {**deploy.variables, "deploy_result": "failed"}
    # Who gives the lock back is who has taken it.
    assert unlock.process == deploy.process != ""
    assert "rollback: FAILED after" in result.stderr
    assert result.stderr.endswith("See the error above. Fix the cause and retry.\n")
    assert "done in" not in result.stdout


def test_the_last_words_are_what_failed_and_what_was_put_back(desk: Desk) -> None:
    desk.fails("playbooks/deploy.yml")
    said = "app1 failed\nPut back: app1.\nFix the cause and retry.\n"
    (desk.directory / "says").write_text(said)
    result = desk.run("staging", "deploy")
    assert result.stderr.endswith(f" s.\n{said}")


def test_what_fails_after_the_roll_does_not_end_with_the_words_of_the_roll(desk: Desk) -> None:
    """As where the edge is not configured: the roll has said that delivery is verified."""
    desk.fails("site.yml")
    (desk.directory / "says").write_text("Delivery verified.\n")
    result = desk.run("staging", "upgrade")
    assert result.stderr.endswith(
        "The roll was complete: Delivery verified.\n"
        "A later step failed: see the error above. Fix the cause and retry.\n"
    )


def test_a_success_without_a_look_at_delivery_does_not_claim_one(desk: Desk) -> None:
    result = desk.run("staging", "deploy")
    assert result.stdout.splitlines()[-1].endswith(
        "What runs where: make releases. To undo it: make rollback"
    )
    assert "verified" not in result.stdout


@pytest.mark.parametrize("inside", [True, False], ids=["inventories", "elsewhere"])
def test_the_next_command_is_for_the_same_cluster(desk: Desk, inside: bool) -> None:
    directory = desk.directory / ("inventories/prod" if inside else "elsewhere/prod")
    directory.mkdir(parents=True)
    given = ("prod", str(directory)) if inside else (str(directory),)
    for name in given:
        said = desk.run(name, "drain", "app3").stdout
        env = "prod" if inside else "elsewhere/prod"
        assert said.endswith(f"app3 stays stopped until: make undrain ENV={env} HOST=app3\n")


def test_ctrl_c_gives_the_lock_back_and_says_what_to_do(desk: Desk) -> None:
    (desk.directory / "waits").touch()
    program = [str(desk.directory / "scripts" / "operate"), "staging", "deploy"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        deadline = time.monotonic() + 20
        while not (desk.directory / "waiting").exists():
            assert time.monotonic() < deadline
        # As a terminal does, to every process in the foreground.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert [call.playbook for call in desk.calls()] == [
        "playbooks/deploy.yml",
        "playbooks/release_lock.yml",
        "playbooks/releases.yml",
    ]
    assert "deploy: interrupted after" in errors
    assert errors.endswith("Run the same command again: it completes what this one left.\n")


@pytest.mark.parametrize(
    ("without", "limit"),
    [
        ("app1", "all,!app1"),
        ("app1,app2", "all,!app1,!app2"),
        (" app1, app2 ", "all,!app1,!app2"),
        ("app1 app2,", "all,!app1,!app2"),
        ("app*", "all,!app*"),
        ("", None),
        (" , ", None),
    ],
)
def test_hosts_that_are_down_are_left_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, without: str, limit: str | None
) -> None:
    """Also when the lock is released after a failure. What runs is shown of every host."""
    monkeypatch.setenv("WITHOUT", without)
    desk.fails("playbooks/deploy.yml")
    desk.run("staging", "deploy")
    deploy, unlock, releases = desk.calls()
    for call in (deploy, unlock):
        found = dict(zip(call.words, call.words[1:], strict=False)).get("--limit")
        assert found == limit
    assert "--limit" not in releases.words


def test_an_unknown_verb_is_answered_with_the_usage(desk: Desk) -> None:
    result = desk.run("staging", "depoly")
    assert result.returncode == 2
    assert result.stderr.startswith("usage: scripts/operate ENV deploy [REF] | rollback")
    assert desk.calls() == []


def test_a_staging_cluster_that_was_not_started_is_not_operated(desk: Desk) -> None:
    (desk.directory / "inventories/staging/generated.yml").unlink()
    result = desk.run("staging", "converge")
    assert result.returncode == 1
    assert result.stderr == "There is no staging cluster. Start one: make up\n"
    assert desk.calls() == []
