"""roles/channels/tasks/users.yml on this machine: what an operator reads where it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-and-more"

UNKNOWN = "Unknown command: 'ensure_users'\nType 'manage.py help' for usage.\n"
REFUSED = (
    f"Traceback (most recent call last):\n  ...\nCommandError: {SECRET!r} is a bad password.\n"
)


def run(directory: Path, said: str, status: int) -> subprocess.CompletedProcess[str]:
    """Run the tasks with a command that says something."""
    manage = directory / "channels-manage"
    (directory / "said").write_text(said)
    stream = "&2" if status else "&1"
    manage.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {directory}/said >{stream}\nexit {status}\n")
    manage.chmod(0o755)
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {
                "channels_users": {"ada": SECRET},
                "channels_release": {"id": "r1"},
                "ansible_python_interpreter": sys.executable,
            },
            "tasks": [
                {
                    "ansible.builtin.include_role": {
                        "name": "channels",
                        "tasks_from": "users",
                        "rolespec_validate": False,
                    }
                }
            ],
        }
    ]
    (directory / "play.json").write_text(json.dumps(play))
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            *("-i", "localhost,", "-c", "local", "-vvv", str(directory / "play.json")),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{directory}:{os.environ['PATH']}",
            "CHANNELS_KIT_MITOGEN": "no",
        },
        text=True,
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (UNKNOWN, "Unknown command: 'ensure_users'"),
        (REFUSED, "CommandError: '(not shown)' is a bad password."),
        ("", "no output"),
    ],
    ids=["unknown", "refused", "silent"],
)
def test_a_failure_is_readable_and_shows_no_secret(tmp_path: Path, said: str, words: str) -> None:
    result = run(tmp_path, said, 1)
    assert result.returncode != 0
    assert words in result.stdout
    assert "exited with status 1" in result.stdout
    assert "channels_users needs this command in the application" in result.stdout
    assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ("created ada\n", 1),
        ("unchanged ada\n", 0),
        # An application that prints while its settings are imported.
        ("created the cache\nunchanged ada\n", 0),
        ("settings updated\nupdated ada\n", 1),
    ],
)
def test_users_are_created(tmp_path: Path, said: str, changed: int) -> None:
    result = run(tmp_path, said, 0)
    assert result.returncode == 0, result.stdout
    assert f"changed={changed} " in result.stdout
    assert SECRET not in result.stdout + result.stderr
