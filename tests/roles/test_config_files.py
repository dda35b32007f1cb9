"""The action config_files and its program: all files or none, and no secret in sight."""

import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .house import ROLES, Tree, run, run_program

PROGRAM = ROLES / "cluster" / "files" / "config_files.py"
SECRET = "hunter2-is-a-secret"
ME = {
    "owner": pwd.getpwuid(os.geteuid()).pw_name,
    "group": grp.getgrgid(os.getegid()).gr_name,
}
REFUSE = "sh -c 'echo \"$1:3: no such directive\" >&2; exit 1' checker %s"

Put = Callable[..., Tree]


@pytest.fixture
def put() -> Put:
    def put(*files: Tree, check: bool = False, command: tuple[str, ...] = ()) -> Tree:
        wanted = [{**ME, **file} for file in files]
        return run_program(PROGRAM, {"files": wanted, "command": command}, check=check)

    return put


def file(path: Path, content: str = "one\n", **more: Any) -> Tree:
    return {"path": str(path), "content": content, **more}


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_it_writes_and_a_second_run_changes_nothing(put: Put, tmp_path: Path) -> None:
    path = tmp_path / "new" / "dir" / "a.conf"
    other = tmp_path / "b.conf"
    wanted = (file(path, "größer\n"), file(other, mode="0600"))

    first, second = put(*wanted), put(*wanted)

    assert first["changed"] is True
    assert first["paths"] == [str(path), str(other)]
    assert path.read_bytes() == "größer\n".encode()
    assert (mode(path), mode(other)) == ("0644", "0600")
    assert (second["changed"], second["paths"], second["diff"]) == (False, [], [])


def test_only_what_differs_is_replaced(put: Put, tmp_path: Path) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    put(file(same), file(other))
    inode = same.stat().st_ino

    answer = put(file(same), file(other, "two\n"))

    assert answer["paths"] == [str(other)]
    assert answer["diff"][0]["before"] == "one\n"
    assert answer["diff"][0]["after"] == "two\n"
    assert same.stat().st_ino == inode


def test_a_mode_alone_is_changed_and_reported(put: Put, tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    put(file(path))
    inode = path.stat().st_ino

    answer = put(file(path, mode="0600"))

    assert answer["paths"] == [str(path)]
    assert mode(path) == "0600"
    assert path.stat().st_ino == inode
    assert put(file(path, mode="0600"))["changed"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_owner_alone_is_changed_and_reported(put: Put, tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    put(file(path, mode="0640"))

    answer = put(file(path, mode="0640", owner="nobody", group="nogroup"))

    assert answer["paths"] == [str(path)]
    assert (path.owner(), path.group(), mode(path)) == ("nobody", "nogroup", "0640")


def test_a_file_that_its_checker_refuses_keeps_all_as_they_were(put: Put, tmp_path: Path) -> None:
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    put(file(first), file(second))

    answer = put(file(first, "two\n"), file(second, "two\n", validate=REFUSE))

    assert answer["failed"] is True
    # The checker read a candidate; the operator knows the file.
    assert f"{second}:3: no such directive" in answer["msg"]
    assert f"{second} was not replaced, nor any other file" in answer["msg"]
    assert (first.read_text(), second.read_text()) == ("one\n", "one\n")
    assert listing(tmp_path) == ["first.conf", "second.conf"]


def test_the_checker_reads_what_will_be(put: Put, tmp_path: Path) -> None:
    """Under the file's own name, which is what systemd tells the type of a unit by."""
    path, seen = tmp_path / "a.service", tmp_path / "seen"

    put(file(path, "two\n", validate=f"cp -r %s {seen}"))
    assert seen.read_text() == path.read_text() == "two\n"
    put(file(path, "three\n", validate="sh -c 'case $1 in */a.service) ;; *) exit 1; esac' x %s"))
    assert path.read_text() == "three\n"


def test_an_equal_file_is_not_checked_again(put: Put, tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    put(file(path))
    assert put(file(path, validate=REFUSE)).get("failed", False) is False


def test_check_mode_writes_nothing_and_misses_nothing(put: Put, tmp_path: Path) -> None:
    """Directory, owner and checker are what the run itself would have made by then."""
    path = tmp_path / "missing" / "a.conf"
    wanted = file(path, owner="not-made-yet", group="not-made-yet", validate="not-installed %s")
    there = tmp_path / "there"
    put(file(there))

    answer = put(wanted, file(there), check=True)

    assert answer["changed"] is True
    assert answer["paths"] == [str(path)]
    assert answer["diff"][0]["after"] == "one\n"
    assert listing(tmp_path) == ["there"]


def test_check_mode_tells_of_a_mode_and_leaves_it(put: Put, tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    put(file(path))
    assert put(file(path, mode="0600"), check=True)["paths"] == [str(path)]
    assert mode(path) == "0644"


def test_check_mode_tells_what_a_checker_refuses(put: Put, tmp_path: Path) -> None:
    answer = put(file(tmp_path / "a.conf", validate=REFUSE), check=True)
    assert "no such directive" in answer["msg"]
    assert listing(tmp_path) == []


def test_a_link_is_replaced_and_its_target_spared(put: Put, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("one\n")
    link.symlink_to(target)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")

    answer = put(file(link), file(dangling))

    assert answer["paths"] == [str(link), str(dangling)]
    assert not link.is_symlink()
    assert not dangling.is_symlink()
    assert target.read_text() == "one\n"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_of_another_encoding_or_line_end_is_replaced(put: Put, tmp_path: Path) -> None:
    latin, windows = tmp_path / "latin", tmp_path / "windows"
    latin.write_bytes("größer\n".encode("latin-1"))
    windows.write_bytes(b"one\r\n")

    answer = put(file(latin), file(windows))

    assert answer["paths"] == [str(latin), str(windows)]
    assert latin.read_bytes() == windows.read_bytes() == b"one\n"


@pytest.mark.parametrize("reason", ["owner", "directory"])
def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(
    put: Put, tmp_path: Path, reason: str
) -> None:
    path = tmp_path / "a.conf"
    wanted = file(path, SECRET, secret=True)
    if reason == "owner":
        wanted["owner"] = "no-such-user"
    else:
        path.mkdir()

    before = listing(tmp_path)
    assert {"owner": "no-such-user", "directory": str(path)}[reason] in put(wanted)["msg"]
    assert listing(tmp_path) == before


def test_a_command_is_run_once_all_are_in_place(put: Put, tmp_path: Path) -> None:
    path, said = tmp_path / "a.conf", tmp_path / "said"
    command = ("sh", "-c", f"cat {path} >> {said}")
    for _ in range(2):  # whether or not anything was replaced
        assert put(file(path), command=command)["changed"] is True
    assert said.read_text() == "one\none\n"

    refused = put(file(path, "two\n", validate=REFUSE), command=command)
    predicted = put(file(path, "two\n"), command=command, check=True)
    assert (refused["failed"], predicted["changed"]) == (True, True)
    assert said.read_text() == "one\none\n"


def test_a_command_that_fails_is_a_failure_in_its_words(put: Put, tmp_path: Path) -> None:
    answer = put(file(tmp_path / "a"), command=("sh", "-c", "echo no such release >&2; exit 1"))
    assert answer["failed"] is True
    assert "no such release" in answer["msg"]


def test_a_run_of_ansible_shows_no_secret(tmp_path: Path) -> None:
    """Neither in the diff nor in the invocation nor in the words of a failure, however verbose."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "open.conf.j2").write_text("{{ word }} of {{ inventory_hostname }}\n")
    hidden, open_file = tmp_path / "hidden", tmp_path / "open.conf"
    secret = {"path": str(hidden), "content": "{{ password }}", "secret": True, **ME}
    rendered = {"path": str(open_file), "template": "open.conf.j2", "vars": {"word": "seen"}, **ME}

    def task(name: str, files: list[Tree], **more: Any) -> Tree:
        return {"name": name, "config_files": {"files": files}, "ignore_errors": True, **more}

    play = {
        "hosts": "host1",
        "gather_facts": False,
        "vars": {"password": SECRET},
        "tasks": [
            task("Test | Write", [{**secret, "mode": "0600"}, rendered], diff=True),
            task("Test | Write another", [{**secret, "content": f"{SECRET}-2"}], diff=True),
            task("Test | Refuse", [{**secret, "content": f"{SECRET}-3", "validate": "false %s"}]),
            task("Test | Refuse both", [{**secret, "template": "open.conf.j2"}]),
        ],
    }
    host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ this_python }}"}
    answer = run(
        tmp_path,
        {"all": {"hosts": {"host1": host}}},
        [play],
        "-vvv",
        "-e",
        "this_python={{ ansible_playbook_python }}",
        ANSIBLE_ACTION_PLUGINS=str(ROLES / "cluster" / "action_plugins"),
    )

    assert hidden.read_text() == f"{SECRET}-2"
    assert open_file.read_text() == "seen of host1\n"
    assert "+seen of host1" in answer.output, "the diff of an open file is shown"
    assert "another one, not shown" in answer.output
    assert f"{hidden} was not replaced" in answer.output
    assert "give either template or content" in answer.output
    assert SECRET not in answer.output
