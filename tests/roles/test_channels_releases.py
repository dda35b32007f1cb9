"""The program channels-releases, on a host of files in a directory and real processes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pytest

from .house import ROLES, Tree

TEMPLATE = ROLES / "channels" / "templates" / "channels-releases.j2"
A, B, C, D, E, F = (digit * 12 for digit in "abcdef")
ADA = {"who": "ada@desk", "what": "deploy v1.2", "run": "1"}
BOB = {"who": "bob@desk", "what": "rollback", "run": "2"}

SYSTEMCTL = """#!/bin/sh
[ "$1" = show ] && cat "{root}/units"
"""


@dataclass
class Host:
    """A host; the paths of the program are below a directory."""

    root: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.root / "srv" / "channels"

    @property
    def lock(self) -> Path:
        return self.root / "run" / "channels-deploy.lock"

    def run(self, *arguments: str, told: object = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, self.root / "channels-releases", *arguments],
            input=told if isinstance(told, str) else json.dumps(told),
            # Nine hours ahead.
            env={**os.environ, "PATH": f"{self.root}:{os.environ['PATH']}", "TZ": "UTC-9"},
            capture_output=True,
            text=True,
            check=False,
        )

    def list(self) -> list[Tree]:
        found: list[Tree] = json.loads(self.run("list").stdout)
        return found

    def prune(self, keep: int) -> set[str]:
        """What it says that it has removed, below the directory."""
        result = self.run("prune", str(keep))
        assert result.returncode == 0, result.stderr
        return {str(Path(line).relative_to(self.root)) for line in result.stdout.splitlines()}

    def settle(self, told: Tree, result: str = "ok") -> "subprocess.CompletedProcess[str]":
        for directory in ("archives", "environments"):
            (self.home / directory).mkdir(parents=True, exist_ok=True)
        return self.run("settle", A, "5", told={**told, "result": result})

    def install(self, release: str, environment: str = "env0", deployed: int = 0) -> None:
        """Put a release there as install-release does, and say when it was deployed."""
        directory = self.home / "releases" / release
        (directory / "app").mkdir(parents=True)
        venv = self.home / "environments" / environment
        (directory / "python").write_text(f'#!/bin/sh\nexec {venv}/bin/python "$@"\n')
        venv.mkdir(parents=True, exist_ok=True)
        (self.home / "archives").mkdir(exist_ok=True)
        for name in (release, environment):
            (self.home / "archives" / f"{name}.tar.gz").touch()
        if deployed:
            note = self.home / "deployed" / release
            note.parent.mkdir(exist_ok=True)
            note.touch()
            os.utime(note, (deployed, deployed))

    def make_current(self, release: str) -> None:
        (self.home / "current").symlink_to(self.home / "releases" / release)

    def serve(self, unit: str, revision: str) -> None:
        """Run a process of a unit."""
        self.processes.append(
            subprocess.Popen(["/bin/sleep", "60"], env={"CHANNELS_KIT_REVISION": revision})
        )
        self.show(unit, self.processes[-1].pid)

    def show(self, unit: str, process: int) -> None:
        """Have systemctl show a unit."""
        with (self.root / "units").open("a") as units:
            units.write(f"MainPID={process}\nId={unit}.service\n\n")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    jinja = jinja2.Environment(autoescape=False, keep_trailing_newline=True)
    jinja.filters["comment"] = lambda text: f"# {text}"
    variables = {
        "ansible_managed": "Ansible managed",
        "cluster_home": "/srv/channels",
        "_channels_lock_file": "/run/channels-deploy.lock",
    }
    program = jinja.from_string(TEMPLATE.read_text()).render(variables)
    here, count = re.subn(r'Path\("/(?!proc")', f'Path("{tmp_path}/', program)
    assert count == 6, "another path is to be replaced"
    (tmp_path / "channels-releases").write_text(here)
    (tmp_path / "systemctl").write_text(SYSTEMCTL.format(root=tmp_path))
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "units").touch()
    for directory in ("etc/channels", "etc/systemd/system", "run", "usr/local/sbin", "var/log"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "usr/local/sbin/channels-manage").touch()
    host = Host(tmp_path)
    yield host
    for process in host.processes:
        with process:
            process.kill()


# list


def test_releases_are_listed_the_last_deployed_first(host: Host) -> None:
    for release, deployed in ((A, 300), (B, 500), (C, 0), (D, 400)):
        host.install(release, deployed=deployed)
    host.make_current(D)
    (host.home / "releases" / f".{E}").mkdir()  # an installation that was interrupted
    assert [each["release"] for each in host.list()] == [B, D, A, C]
    assert [each["deployed"] for each in host.list()] == [500, 400, 300, 0]
    assert [each["release"] for each in host.list() if each["current"]] == [D]


def test_what_runs_is_asked_of_the_processes(host: Host) -> None:
    """Not of the link: where a deploy was interrupted, both run."""
    host.install(A)
    host.install(B)
    host.make_current(B)
    host.serve("channels-web@8002", f"{A}-01234567")
    host.serve("channels-web@8001", f"{A}-01234567")
    host.serve("channels-celery", f"{B}-89abcdef")
    # One of another origin, one that is starting, and one that has gone.
    host.processes.append(subprocess.Popen(["/bin/sleep", "60"], env={"OTHER": A}))
    host.show("channels-web@8003", host.processes[-1].pid)
    host.show("channels-web@8004", 0)
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    host.show("channels-web@8005", gone.pid)

    found = {each["release"]: each["runs"] for each in host.list()}

    assert found == {A: ["web@8001", "web@8002"], B: ["celery"]}


def test_a_host_without_releases_has_an_empty_list(host: Host) -> None:
    assert host.list() == []


# switch, bad


def test_what_has_become_of_a_release_is_noted(host: Host) -> None:
    host.install(A, deployed=300)
    host.install(B, deployed=200)
    assert host.run("bad", B, told="KeyError\nin the journal\n").returncode == 0
    assert {each["release"]: each["bad"] for each in host.list()} == {
        A: "",
        B: "KeyError\nin the journal",
    }
    # Who deploys it again knows better.
    assert host.run("switch", B).returncode == 0
    first, second = host.list()
    assert (first["release"], first["bad"]) == (B, "")
    assert first["deployed"] > second["deployed"] == 300


def test_the_first_release_is_noted_too(host: Host) -> None:
    host.install(A)
    assert host.run("switch", A).returncode == 0
    assert host.list()[0]["deployed"] > 0


def test_the_current_release_is_one_that_is_installed(host: Host) -> None:
    for release in (A, B):
        host.install(release)
        assert host.run("switch", release).returncode == 0
        assert [each["release"] for each in host.list() if each["current"]] == [release]
    refused = host.run("switch", C)
    assert (refused.returncode, refused.stderr) == (1, f"{C} is not installed\n")
    assert (host.home / "current").resolve().name == B


# settle


def test_the_audit_log_has_a_line_an_operation(host: Host) -> None:
    for operation in (ADA, BOB):
        assert host.settle(operation).returncode == 0
    log = (host.root / "var/log/channels-deploys.log").read_text()
    first, second = map(json.loads, log.splitlines())
    at = datetime.strptime(first.pop("at"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(tz=UTC) - at).total_seconds() < 60
    assert first == {**ADA, "release": A, "result": "ok"}
    assert second["who"] == "bob@desk"


def test_only_a_success_removes_releases(host: Host) -> None:
    """After a failure, the lock may be another operator's, whose release is installed already."""
    host.install(A)
    assert host.settle(ADA, "failed").returncode == 0
    assert [each["release"] for each in host.list()] == [A]
    assert host.settle(ADA).returncode == 0
    assert host.list() == []


# lock, unlock


def test_who_holds_the_lock_is_told_to_whoever_else_comes(host: Host) -> None:
    assert host.run("lock", told=ADA).returncode == 0
    before = host.lock.stat().st_mtime
    os.utime(host.lock, (before - 12 * 60, before - 12 * 60))

    refused = host.run("lock", told=BOB)

    assert refused.returncode == 1
    assert refused.stderr.startswith("ada@desk is at it for 12 min: deploy v1.2. Nothing was")
    assert "make unlock" in refused.stderr
    assert json.loads(host.lock.read_text()) == ADA


def test_the_same_operator_with_another_deploy_is_somebody_else(host: Host) -> None:
    host.run("lock", told=ADA)
    assert host.run("lock", told={**ADA, "run": "2"}).returncode == 1


def test_the_same_run_may_take_the_lock_again(host: Host) -> None:
    host.run("lock", told=ADA)
    assert host.run("lock", told=dict(reversed(ADA.items()))).returncode == 0


def test_a_lock_that_is_being_written_is_somebodys(host: Host) -> None:
    host.lock.touch()
    refused = host.run("lock", told=ADA)
    assert refused.returncode == 1
    assert refused.stderr.startswith("somebody is at it for 0 min: ?.")


def test_the_holder_alone_gives_the_lock_back(host: Host) -> None:
    host.run("lock", told=ADA)
    # As after a deploy that was refused: its end is no failure.
    assert host.settle(BOB, "failed").returncode == 0
    assert host.lock.exists()
    assert host.settle(ADA, "failed").returncode == 0
    assert not host.lock.exists()
    assert host.run("lock", told=BOB).returncode == 0


def test_a_lock_is_broken_with_the_name_of_its_holder(host: Host) -> None:
    host.run("lock", told=ADA)
    broken = host.run("unlock", told="")
    assert (broken.returncode, json.loads(broken.stdout)) == (0, ADA)
    assert not host.lock.exists()


def test_where_there_is_no_lock_there_is_none_to_break(host: Host) -> None:
    unlocked = host.run("unlock")
    assert (unlocked.returncode, unlocked.stdout) == (0, "")


# prune


def test_the_last_ones_that_were_deployed_are_kept(host: Host) -> None:
    for release, deployed in ((A, 100), (B, 200), (C, 300), (D, 400), (E, 0)):
        host.install(release, deployed=deployed)
    host.make_current(D)
    host.serve("channels-web@8001", f"{D}-01234567")

    # E was never deployed: no rollback goes there.
    assert host.prune(5) == {f"srv/channels/releases/{E}", f"srv/channels/archives/{E}.tar.gz"}
    assert host.prune(3) == {f"srv/channels/releases/{A}", f"srv/channels/archives/{A}.tar.gz"}
    assert {each["release"] for each in host.list()} == {D, C, B}
    assert host.prune(3) == set(), "nothing is left to do"


def test_what_runs_and_what_is_current_is_kept_whenever_it_was_deployed(host: Host) -> None:
    for release, deployed in ((A, 100), (B, 200), (C, 300), (D, 400), (E, 0)):
        host.install(release, deployed=deployed)
    host.make_current(A)
    host.serve("channels-worker@thumbnails", f"{E}-01234567")
    host.prune(2)
    assert {each["release"] for each in host.list()} == {A, E}
    host.prune(2)
    assert {each["release"] for each in host.list()} == {A, E}


def test_they_count_among_those_that_are_kept(host: Host) -> None:
    for release, deployed in ((A, 100), (B, 200), (C, 300), (D, 400)):
        host.install(release, deployed=deployed)
    host.make_current(A)
    host.prune(3)
    assert {each["release"] for each in host.list()} == {A, C, D}


def test_bad_ones_take_no_place_of_those_to_go_back_to(host: Host) -> None:
    for release, deployed in ((A, 100), (B, 200), (C, 300), (D, 400)):
        host.install(release, deployed=deployed)
    host.make_current(B)
    for release in (C, D):
        host.run("bad", release, told="no good")
    host.prune(2)
    assert {each["release"] for each in host.list()} == {A, B, C, D}
    host.prune(1)
    assert {each["release"] for each in host.list()} == {B, D}


def test_an_environment_goes_with_the_last_release_that_needs_it(host: Host) -> None:
    host.install(A, "env-a", deployed=100)
    host.install(B, "env-b", deployed=200)
    host.install(C, "env-b", deployed=300)
    host.install(D, "env-d", deployed=400)
    host.make_current(D)
    removed = host.prune(2)
    assert removed == {
        *(f"srv/channels/releases/{release}" for release in (A, B)),
        *(f"srv/channels/archives/{name}.tar.gz" for name in (A, B, "env-a")),
        "srv/channels/environments/env-a",
    }
    assert (host.home / "environments" / "env-b").is_dir()
    assert host.prune(1) >= {"srv/channels/environments/env-b"}


def test_an_environment_file_goes_when_nothing_names_it(host: Host) -> None:
    host.install(A, deployed=100)
    host.make_current(A)
    files = host.root / "etc" / "channels"
    for name in ("01234567.env", "89abcdef.env", "00000000.env"):
        (files / name).touch()
    (files / "drained").touch()
    unit = host.root / "etc/systemd/system/channels-web@.service"
    unit.write_text(f"EnvironmentFile={files}/01234567.env\n")
    # What is not the kit's keeps nothing.
    (host.root / "etc/systemd/system/other.service").write_text(f"{files}/00000000.env\n")
    manage = host.root / "usr/local/sbin/channels-manage"
    manage.write_text(f"--property=EnvironmentFile={files}/89abcdef.env\n")

    assert host.prune(5) == {"etc/channels/00000000.env"}


# All of them


@pytest.mark.parametrize(
    "arguments", [[], ["list", "x"], ["switch"], ["bad"], ["prune"], ["unlock", "--brake"]]
)
def test_wrong_usage_is_answered_with_the_usage(host: Host, arguments: list[str]) -> None:
    result = host.run(*arguments, told="")
    assert result.returncode == 1
    assert "usage: channels-releases list" in result.stderr
