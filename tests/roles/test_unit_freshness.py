"""Whether a unit runs with what is in its files: the comparison, and the module that makes it."""

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from .house import ROOT, Tree, run

LOGIC = runpy.run_path(str(ROOT / "plugins/module_utils/systemd_units.py"))
UNIT = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "MainPID": "42",
    "ExecMainStartTimestamp": "Sat 2026-11-28 00:00:10.500000 UTC",
    "ActiveEnterTimestamp": "Sat 2026-11-28 00:00:11.000000 UTC",
    "LimitNOFILE": "65536",
}
MIDNIGHT = 1795824000.0
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             unlimited            unlimited            processes
Max open files            1024                 20000                files
"""


def compare(
    changed: dict[str, float | None] | None = None, nofile: Any = None, **shown: str
) -> Tree:
    limits = nofile or LOGIC["Nofile"](process=65536)
    found: Tree = LOGIC["freshness"]({**UNIT, **shown}, changed or {}, limits)
    return found


# The comparison


@pytest.mark.parametrize(
    ("seconds", "stale"), [(10.4, False), (10.5, False), (10.500001, True), (3600, True)]
)
def test_a_process_is_stale_when_a_file_was_changed_after_its_start(
    seconds: float, stale: bool
) -> None:
    found = compare({"/old": MIDNIGHT, "/new": MIDNIGHT + seconds, "/none": None})
    assert found["stale"] is stale
    assert found["newest_file"] == "/new"
    assert found["newest_file_at"] == MIDNIGHT + seconds
    assert found["started_at"] == MIDNIGHT + 10.5
    assert found["missing_files"] == ["/none"]


@pytest.mark.parametrize("state", ["inactive", "failed", "activating", "deactivating"])
def test_what_does_not_run_is_not_stale(state: str) -> None:
    found = compare({"/new": MIDNIGHT + 3600}, ActiveState=state)
    assert (found["active"], found["stale"], found["started_at"]) == (False, False, None)
    assert found["active_state"] == state


def test_without_files_nothing_is_stale() -> None:
    found = compare()
    assert (found["stale"], found["newest_file"], found["newest_file_at"]) == (False, None, None)
    assert compare({"/none": None})["stale"] is False


@pytest.mark.parametrize("state", ["reloading", "refreshing"])
def test_a_unit_that_reloads_is_active(state: str) -> None:
    assert compare(ActiveState=state)["active"] is True


def test_a_unit_without_a_process_is_as_old_as_its_state() -> None:
    shown = {"ExecMainStartTimestamp": "", "MainPID": "0"}
    assert compare({"/file": MIDNIGHT + 10.9}, **shown)["stale"] is False
    assert compare({"/file": MIDNIGHT + 11.1}, **shown)["stale"] is True
    # Nobody knows: it is restarted.
    assert compare({"/file": MIDNIGHT}, **shown, ActiveEnterTimestamp="")["stale"] is True


def test_what_systemd_does_not_know_does_not_exist() -> None:
    found = LOGIC["freshness"](
        {"LoadState": "not-found", "ActiveState": "inactive"}, {}, LOGIC["Nofile"]()
    )
    assert (found["exists"], found["active"], found["enabled"]) == (False, False, False)
    assert compare()["exists"] is True


@pytest.mark.parametrize(
    ("state", "enabled"), [("enabled", True), ("static", True), ("disabled", False), ("", False)]
)
def test_whether_it_is_enabled(state: str, enabled: bool) -> None:
    assert compare(UnitFileState=state)["enabled"] is enabled


def test_a_unit_file_that_systemd_has_not_read_is_told() -> None:
    assert compare(NeedDaemonReload="yes")["need_daemon_reload"] is True
    assert compare()["need_daemon_reload"] is False


@pytest.mark.parametrize(
    ("read", "reload"),
    [("", True), ("/run/b.conf", True), ("/etc/a.conf", False), ("/run/b.conf /etc/a.conf", False)],
)
def test_a_drop_in_that_systemd_has_not_read_takes_a_daemon_reload(read: str, reload: bool) -> None:
    """systemd does not say so where the drop-in's directory is new."""
    shown = {**UNIT, "DropInPaths": read}
    limits = LOGIC["Nofile"](process=65536)
    found = LOGIC["freshness"](shown, {}, limits, ["/etc/a.conf"])
    assert found["need_daemon_reload"] is reload
    assert found["stale"] is False


@pytest.mark.parametrize(
    ("asked", "process", "manager", "can_raise", "granted", "stale"),
    [
        ("65536", 65536, 20000, True, 65536, False),
        ("65536", 20000, 20000, True, 65536, True),
        # The machine gives no more, and a restart would not help.
        ("65536", 20000, 20000, False, 20000, False),
        ("65536", 1024, 20000, False, 20000, True),
        ("10000", 20000, 20000, False, 10000, True),
        ("infinity", None, None, True, None, False),
        ("infinity", 20000, 20000, False, 20000, False),
    ],
)
def test_the_limit_is_what_a_restart_would_give(
    asked: str,
    process: int | None,
    manager: int | None,
    can_raise: bool,
    granted: int | None,
    stale: bool,
) -> None:
    nofile = LOGIC["Nofile"](process=process, manager=manager, can_raise=can_raise)
    found = compare(nofile=nofile, LimitNOFILE=asked)
    assert (found["nofile"], found["nofile_granted"]) == (process, granted)
    assert found["nofile_stale"] is stale
    assert compare(nofile=nofile, LimitNOFILE=asked, MainPID="0")["nofile_stale"] is False


def test_what_the_kernel_tells_is_read() -> None:
    assert LOGIC["parse_nofile"](LIMITS) == 20000
    assert LOGIC["parse_nofile"](LIMITS.replace("20000", "unlimited")) is None
    assert LOGIC["parse_nofile"]("") is None
    assert LOGIC["can_raise_limits"]("Name:\tinit\nCapEff:\t000001ffffffffff\n") is True
    assert LOGIC["can_raise_limits"](f"CapEff:\t{1 << 24:016x}\n") is True
    assert LOGIC["can_raise_limits"](f"CapEff:\t{~(1 << 24) & (1 << 41) - 1:016x}\n") is False
    assert LOGIC["can_raise_limits"]("CapEff:\t00000000a82c35fb\n") is False


def test_a_moment_is_read_in_every_form() -> None:
    read = LOGIC["parse_timestamp"]
    assert read("Sat 2026-11-28 00:00:10.500000 UTC") == MIDNIGHT + 10.5
    # Whatever the host calls a day.
    assert read("Sa 2026-11-28 00:00:10 UTC") == MIDNIGHT + 10
    assert read("") is None
    assert read("n/a") is None


# The module

SYSTEMCTL = """\
#!/bin/sh
printf '%s\\n' "$*" > {asked}
cat {shown}
exit {code}
"""


def ask(directory: Path, shown: str, files: list[Path], *more: str, code: int = 0) -> Any:
    """Run the module where systemctl answers what it is told to."""
    asked, answer = directory / "asked", directory / "shown"
    answer.write_text(shown)
    programs = directory / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(asked=asked, shown=answer, code=code))
    systemctl.chmod(0o755)
    play = {
        "name": "Ask",
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "environment": {"PATH": f"{programs}:{os.environ['PATH']}"},
        "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
        "tasks": [
            {
                "name": "Ask | Ask",
                "unit_freshness": {"unit": "one.service", "files": list(map(str, files))},
                "register": "found",
            },
            {
                "name": "Ask | Keep it",
                "ansible.builtin.copy": {
                    "dest": str(directory / "found.json"),
                    "content": "{{ found | to_json }}",
                    "mode": "0600",
                },
                "check_mode": False,
            },
        ],
    }
    inventory = {"all": {"hosts": {"one": None}}}
    return run(directory / "run", inventory, [play], *more)


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_the_module_asks_systemd_and_looks_at_the_files(tmp_path: Path, more: list[str]) -> None:
    file = tmp_path / "configuration"
    file.write_text("of now")
    # A date that a program has set is not believed.
    os.utime(file, (0, 0))
    shown = "\n".join(f"{name}={value}" for name, value in {**UNIT, "MainPID": "0"}.items())
    done = ask(tmp_path, shown, [file, tmp_path / "none"], *more)
    assert done.code == 0, done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["changed"] is False
    assert found["newest_file"] == str(file)
    assert found["newest_file_at"] == pytest.approx(file.stat().st_ctime)
    assert found["stale"] is (file.stat().st_ctime > MIDNIGHT + 10.5)
    assert found["missing_files"] == [str(tmp_path / "none")]
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "show"
    assert asked[-2:] == ["--", "one.service"]


def test_the_module_fails_with_the_words_of_systemctl(tmp_path: Path) -> None:
    done = ask(tmp_path, "", [], code=3)
    assert done.code != 0
    assert "systemctl show exited with status 3" in done.output
