"""The module open_file_limits: what processes run with, told from all that is printed beside it."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .house import Tree, run_module

SLEEPER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
"""
SHOW = """\
#!/bin/sh
printf 'Id=channels-web@8002.service\\nMainPID={second}\\n\\n'
printf 'Id=channels-web@8001.service\\nMainPID={first}\\n\\n'
printf 'Id=channels-web@8003.service\\nMainPID=0\\n'
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, "512"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started


def read(**arguments: list[str]) -> Tree:
    return run_module("open_file_limits", arguments)


def test_the_main_process_of_each_running_unit_is_read(
    process: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(SHOW.format(first=process.pid, second=os.getpid()))
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert read(units=["channels-web@*.service"])["processes"] == [
        {"name": "channels-web@8001.service", "nofile": 512},
        {"name": "channels-web@8002.service", "nofile": own},
    ]


def test_processes_are_found_by_their_whole_command_line(process: subprocess.Popen[str]) -> None:
    command_line = " ".join([sys.executable, "-c", SLEEPER, "512"])
    assert read(command_lines=[command_line])["processes"] == [
        {"name": f"{command_line} {process.pid}", "nofile": 512}
    ]
    assert read(command_lines=[command_line[:-1]])["processes"] == []
