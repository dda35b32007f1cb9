"""channels-manage: what it has systemd run, by what the role has written for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .house import ROLES

PROGRAM = ROLES / "channels" / "files" / "channels-manage"


class Host:
    """A host with a release; its systemd-run says how it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.release = self.bring("abc")
        (directory / "current").symlink_to(self.release)
        for name, text in (("id", "echo 0"), ("systemd-run", 'printf "%s\\n" "$@"')):
            (directory / name).write_text(f"#!/bin/sh\n{text}\n")
            (directory / name).chmod(0o755)
        self.program = directory / "channels-manage"
        text = PROGRAM.read_text()
        self.program.write_text(text.replace("/etc/channels/host.conf", f"{directory}/host.conf"))

    def bring(self, name: str, root: str = ".") -> Path:
        """Have a release, whose manage.py is in a directory of its application."""
        release = self.directory / "releases" / name
        release.mkdir(parents=True)
        (release / "release.json").write_text(json.dumps({"root": root}))
        (release / "python").symlink_to(sys.executable)
        return release

    def manage(self, *arguments: str, **settings: str) -> list[str]:
        given = {
            "CHANNELS_HOME": self.directory,
            "CHANNELS_USER": "channels",
            "CHANNELS_ENVIRONMENT_FILE": "/etc/channels/1.env",
            **settings,
        }
        lines = "".join(f'{name}="{value}"\n' for name, value in given.items())
        (self.directory / "host.conf").write_text(lines)
        environment = {**os.environ, "PATH": f"{self.directory}:{os.environ['PATH']}"}
        command = ["sh", str(self.program), *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return ended.stdout.splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_command_runs_on_the_running_release_as_the_workers_do(host: Host) -> None:
    said = host.manage("shell", "-c", "print('it  is')")
    python = str(host.release / "python")
    assert said[said.index(python) :] == [python, "manage.py", "shell", "-c", "print('it  is')"]
    assert "--uid=channels" in said
    assert "--property=EnvironmentFile=/etc/channels/1.env" in said
    assert f"--setenv=STATIC_ROOT={host.release}/static" in said
    # systemd-run takes the terminal if there is one, and else what it is given.
    assert {"--pty", "--pipe"} <= set(said)


def test_another_release_and_python_can_be_asked_for(host: Host) -> None:
    release = host.bring(".new", "backend")
    said = host.manage("--release", ".new", "--python", "-m", "channels_kit.overlay")
    python = f"{host.directory}/releases/.new/python"
    assert said[said.index(python) :] == [python, "-m", "channels_kit.overlay"]
    assert f"--working-directory={release}/app/backend" in said


def test_it_writes_where_the_processes_write(host: Host) -> None:
    project = f"{host.release}/app"
    said = host.manage("check", CHANNELS_WRITABLE="media var/cache")
    assert said.index(f"{host.release}/python") > max(
        said.index(f"--property={each}")
        for each in (
            *("StateDirectory=channels/media", "StateDirectory=channels/var/cache"),
            f"BindPaths=/var/lib/channels/media:{project}/media",
            f"BindPaths=/var/lib/channels/var/cache:{project}/var/cache",
        )
    )
    shared = host.manage("check", CHANNELS_WRITABLE="media", CHANNELS_WRITABLE_STORE="/srv/shared")
    assert f"--property=BindPaths=/srv/shared/media:{project}/media" in shared
    assert not any("StateDirectory" in word for word in shared)
    assert not any("BindPaths" in word for word in host.manage("check"))
