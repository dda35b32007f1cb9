"""Runs of ansible-playbook, and what they say they did."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# A roll's canary is watched for no longer than a test needs, and the long proof is as short. What a
# test passes itself comes after it, and wins.
BRIEFLY = ("-e", '{"channels_canary_seconds": 2}')

# As long as the roles' defaults have it: for tests of what shows late.
WATCHED = ("-e", '{"channels_canary_seconds": 12}')

_TASK = re.compile(r"(?:TASK|RUNNING HANDLER) \[(?:[a-z_]+ : )?(.*)\] \*+")
_CHANGED = re.compile(r"changed: \[([^]]+)\]")
_RECAP = re.compile(r"(\S+)\s+: (ok=\d+ .*)")


@dataclass(frozen=True)
class Run:
    """A run of a playbook.

    Attributes:
        rc: the exit code.
        output: all that was printed.
    """

    rc: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """What was counted, by host: ok, changed, failed, ..."""
        _, _, recap = self.output.partition("PLAY RECAP")
        return {
            host: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in _RECAP.findall(recap)
        }

    @property
    def changed(self) -> dict[str, set[str]]:
        """The tasks and handlers that changed something, by host."""
        found: dict[str, set[str]] = {}
        task = ""
        for line in self.output.splitlines():
            if match := _TASK.match(line):
                task = match[1]
            elif match := _CHANGED.match(line):
                found.setdefault(match[1], set()).add(task)
        # The counts are the truth: nothing was overlooked.
        counted = {host for host, counts in self.recap.items() if counts["changed"]}
        assert set(found) == counted, f"{found} was read, but the recap says {counted}"
        return found


def environment(**further: str) -> dict[str, str]:
    """Return the environment of a run: the repository's settings, and no colours of Molecule's."""
    return {
        **{name: value for name, value in os.environ.items() if name != "ANSIBLE_FORCE_COLOR"},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        **further,
    }


def play(inventory: Path, playbook: str, *arguments: str) -> Run:
    """Run a playbook of the repository as an operator does."""
    program = ROOT / "scripts" / "ansible-playbook"
    return run(program, "-i", inventory, playbook, *BRIEFLY, *arguments)


def deploy(inventory: Path, *arguments: str) -> Run:
    """Deploy, roll back or restart as an operator does, by the program behind these verbs."""
    verb, further = arguments, ()
    if "--" in arguments:
        at = arguments.index("--")
        verb, further = arguments[:at], arguments[at + 1 :]
    return run(ROOT / "scripts" / "operate", inventory, *verb, "--", *BRIEFLY, *further)


def run(*command: str | Path, **variables: str) -> Run:
    """Run a command of the repository, with variables of the environment."""
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Run(result.returncode, result.stdout)


def read_facts(inventory: Path) -> dict[str, dict[str, Any]]:
    """Return what the inventory and the defaults come to, by host."""
    result = subprocess.run(
        ["ansible-playbook", "-i", inventory, "molecule/harness/facts.yml"],
        cwd=ROOT,
        env=environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json"),
        capture_output=True,
        text=True,
        check=True,
    )
    hosts = json.loads(result.stdout)["plays"][0]["tasks"][-1]["hosts"]
    return {host: told["msg"] for host, told in hosts.items()}
