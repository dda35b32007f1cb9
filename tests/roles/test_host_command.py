"""The action host_command: what ansible.builtin.command does, without a module."""

import json
import sys
from pathlib import Path

import pytest

from .house import ROLES, Tree, run

SECRET = "hunter2-is-a-secret"


def play(home: Path, *more: str, **task: object) -> Tree:
    """What one task registers; `output` is what Ansible said."""
    found = home / "found.json"
    save = {"content": "{{ found | to_json }}", "dest": str(found)}
    play = {
        "hosts": "host1",
        "gather_facts": False,
        "tasks": [
            {"name": "Test | Run", "register": "found", "ignore_errors": True, **task},
            {"name": "Test | Save", "ansible.builtin.copy": save, "check_mode": False},
        ],
    }
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    plugins = str(ROLES / "cluster" / "action_plugins")
    inventory = {"all": {"hosts": {"host1": {**host, "secret": SECRET}}}}
    answer = run(home, inventory, [play], *more, ANSIBLE_ACTION_PLUGINS=plugins)
    assert answer.code == 0, answer.output
    registered: Tree = json.loads(found.read_text())
    return {**registered, "output": answer.output}


def test_it_gives_words_and_input_as_they_are_and_tells_what_came_of_it(tmp_path: Path) -> None:
    words = ["sh", "-c", 'cat; echo "$1" >&2', "sh", "two  words $HOME 'größe'"]
    given = tmp_path / "given"
    given.write_text('{"first": 1}\nsecond')
    stdin = "{{ lookup('ansible.builtin.file', '" + str(given) + "') }}"
    found = play(tmp_path, host_command={"argv": words, "stdin": stdin})
    assert found["stdout"] == '{"first": 1}\nsecond'
    assert found["stderr"] == "two  words $HOME 'größe'"
    assert (found["rc"], found["changed"], found.get("failed", False)) == (0, True, False)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("sh -c 'echo said; echo why >&2; exit 3'", 3, "why"),
        ("/nowhere/program", 127, "/nowhere/program: not found"),
    ],
)
def test_a_command_that_fails_is_a_failure(
    tmp_path: Path, command: str, code: int, said: str
) -> None:
    found = play(tmp_path, host_command={"cmd": command})
    assert (found["rc"], found["failed"]) == (code, True)
    assert found["stderr"].endswith(said)
    assert found["msg"].endswith(f"ended with {code}")


def test_a_command_is_no_line_of_a_shell(tmp_path: Path) -> None:
    found = play(tmp_path, host_command={"cmd": "echo a; touch $HOME '*'"})
    assert found["stdout"] == "a; touch $HOME *"


def test_a_dry_run_runs_what_it_is_told_to_and_nothing_else(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    touch = {"cmd": f"touch {touched}"}
    found = play(tmp_path, "--check", host_command=touch)
    assert (found["skipped"], found["stdout"]) == (True, "")
    assert not touched.exists()
    play(tmp_path, "--check", host_command=touch, check_mode=False)
    assert touched.exists()


def test_what_it_is_given_as_input_is_in_no_output_however_verbose(tmp_path: Path) -> None:
    command = {"cmd": "sh -c 'cat >/dev/null'", "stdin": "{{ secret }}"}
    assert SECRET not in play(tmp_path, "-vvvv", host_command=command)["output"]
