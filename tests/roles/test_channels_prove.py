"""The program channels-prove: it starts the proof so that no package of the application is seen."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..kit.cluster import Cluster, Redis
from .house import ROLES, ROOT

TOKEN = "a-token-of-the-tests"
NAMES = ("app1:8001", "app2:8002")

# Runs what it is given as systemd would: with nothing of its own environment.
SYSTEMD_RUN = """\
#!/bin/sh
echo "$*" > "$(dirname "$0")/arguments"
set -- "$@" --end
while [ "${1#--}" != "$1" ]; do
    case "$1" in
    --setenv=*) environment="$environment${environment:+
}${1#--setenv=}" ;;
    --working-directory=*) cd "${1#*=}" ;;
    esac
    shift
done
for argument do
    shift
    [ "$argument" = --end ] || set -- "$@" "$argument"
done
IFS='
'
exec env -i $environment "$@"
"""

# What an application may pin, or a site may have: it would break whoever imports it.
POISON = "raise ImportError('the application has a version of its own')\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Redis() as redis, Cluster(redis, TOKEN, NAMES) as cluster:
        yield cluster


class Host:
    """An app host: a release with the kit and its packages, and an environment of poison."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        kit = self.home / "releases" / "r1" / "kit"
        shutil.copytree(
            ROOT / "kit" / "channels_kit",
            kit / "channels_kit",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        spec = find_spec("websockets")
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, kit / "site-packages" / "websockets")
        (self.home / "current").symlink_to("releases/r1")
        venv = directory / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        (packages,) = venv.glob("lib/python3*/site-packages")
        for name in ("websockets", "channels", "django", "prometheus_client"):
            (packages / f"{name}.py").write_text(POISON)
        # As a profiler's or a tracer's: it runs with every Python of the environment.
        (packages / "hook.pth").write_text("import os; os._exit(9)\n")
        python = kit.parent / "python"
        python.write_text(f'#!/bin/sh\nexec {venv}/bin/python "$@"\n')
        python.chmod(0o755)
        self.configuration = directory / "etc"
        self.configuration.mkdir()
        (self.configuration / "1.env").write_text('CHANNELS_KIT_PROBE_TOKEN="a-former-one"\n')
        (self.configuration / "2.env").write_text(f'CHANNELS_KIT_PROBE_TOKEN="{TOKEN}"\n')
        self.programs = directory / "bin"
        self.programs.mkdir()
        (self.programs / "systemd-run").write_text(SYSTEMD_RUN)
        text = (ROLES / "channels" / "files" / "channels-prove").read_text()
        assert text.count("/etc/channels/") == 2
        (self.programs / "channels-prove").write_text(
            text.replace("/etc/channels/", f"{self.configuration}/")
        )
        for program in self.programs.iterdir():
            program.chmod(0o755)
        self.check(pages=[], sockets=[])

    def check(self, **checks: object) -> None:
        """Have the proof look at pages and sockets."""
        (self.configuration / "host.conf").write_text(
            f"CHANNELS_HOME={self.home}\nCHANNELS_USER=channels\n"
            f"CHANNELS_CHECKS={shlex.quote(json.dumps(checks))}\n"
        )

    def prove(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.programs / "channels-prove", *arguments],
            env={"PATH": f"{self.programs}:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(tmp_path_factory.mktemp("host"))


def test_packages_of_the_application_are_not_seen(host: Host, cluster: Cluster) -> None:
    host.check(pages=["/", "/$HOME/it's;100%25?x=$(id)&y=~*"], sockets=["/still/"])
    ended = host.prove("current", "--hold=0", *cluster.arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == (
        "Proved: wires (4 of 4 pairs), pages (/, /$HOME/it's;100%25?x=$(id)&y=~* on 2 workers),"
        " sockets (/still/ on 2 workers)."
    )
    arguments = (host.programs / "arguments").read_text()
    assert "--uid=channels" in arguments
    assert TOKEN not in arguments


def test_the_current_release_has_to_run_everywhere(host: Host, cluster: Cluster) -> None:
    host.check(pages=["/"])
    shutil.copytree(host.home / "releases" / "r1", host.home / "releases" / "r3", symlinks=True)
    host.home.joinpath("current").unlink()
    host.home.joinpath("current").symlink_to("releases/r3")
    try:
        former = host.prove("current", "--hold=0", *cluster.arguments)
        rolling = host.prove("releases/r3", "--hold=0", *cluster.arguments)
    finally:
        host.home.joinpath("current").unlink()
        host.home.joinpath("current").symlink_to("releases/r1")
    assert former.returncode == 1
    assert "app1:8001: runs r1, not release r3\n" in former.stdout
    assert rolling.returncode == 0, rolling.stderr
    assert "Not checked: pages (no worker runs release r3)" in rolling.stdout


def test_checks_of_the_inventory_take_the_place_of_those_on_the_host(
    host: Host, cluster: Cluster
) -> None:
    host.check(pages=["/"])
    ended = host.prove(
        "current", "--hold=0", *cluster.arguments, CHANNELS_CHECKS='{"pages": ["/it\'s/"]}'
    )
    assert "pages (/it's/ on 2 workers)" in ended.stdout, ended.stderr


def test_without_a_release_it_says_so(host: Host) -> None:
    ended = host.prove("releases/none")
    assert ended.returncode == 2
    assert ended.stderr == f"No release at {host.home}/releases/none\n"
