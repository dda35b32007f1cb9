"""Releases and the lock of a host, on a host of files in a directory and real processes."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .house import Tree, own_module_utils

own_module_utils()

from plugins.module_utils.channels_releases import (  # noqa: E402
    Layout,
    Lock,
    ReleaseError,
    Releases,
)

A, B, C, D, E, F = (digit * 12 for digit in "abcdef")
ADA = {"who": "ada@desk", "what": "deploy v1.2", "run": "desk:1:1"}
BOB = {"who": "bob@desk", "what": "rollback", "run": "desk:2:2"}
MANAGE = """#!/bin/sh
echo "$*" >> {root}/said
[ ! -e {root}/without ] || {{ echo "Unknown command: 'collectstatic'" >&2; exit 1; }}
[ ! -e {root}/own ] || cat {root}/own
[ ! -e {root}/refused ] || {{ echo "ImproperlyConfigured: no STATIC_ROOT" >&2; exit 1; }}
"""
SYSTEMCTL = """#!/bin/sh
[ "$1" = show ] && cat "{root}/units"
"""
USER = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


@dataclass
class Host:
    """A host; its paths are below a directory."""

    root: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(self.root / "srv" / "channels", self.root)

    @property
    def home(self) -> Path:
        return self.layout.home

    @property
    def lock(self) -> Lock:
        return Lock(self.layout)

    @property
    def releases(self) -> Releases:
        return Releases(self.layout, self.run)

    def run(self, command: Sequence[str]) -> str:
        environment = {**os.environ, "PATH": f"{self.root}:{os.environ['PATH']}"}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise ReleaseError(result.stderr)
        return result.stdout

    def list(self) -> list[Tree]:
        return self.releases.listed()

    def prune(self, keep: int) -> set[str]:
        """What is removed, below the directory."""
        announced = self.releases.prune(keep, check=True)
        removed = self.releases.prune(keep)
        assert announced == removed
        return {str(Path(path).relative_to(self.root)) for path in removed}

    def install(self, release: str, environment: str = "env0", deployed: int = 0) -> None:
        """Put a release there, and say when it was deployed."""
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

    def bring(self, name: str, files: Sequence[str]) -> None:
        """Put an archive there as the controller does."""
        archives = self.home / "archives"
        archives.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archives / f"{name}.tar.gz", "w:gz") as archive:
            for file in files:
                entry = tarfile.TarInfo(file)
                entry.size = 1
                archive.addfile(entry, io.BytesIO(b"#"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    for name, text in (("systemctl", SYSTEMCTL), ("channels-manage", MANAGE)):
        (tmp_path / name).write_text(text.format(root=tmp_path))
        (tmp_path / name).chmod(0o755)
    (tmp_path / "units").touch()
    for directory in ("etc/channels", "etc/systemd/system", "run", "var/log"):
        (tmp_path / directory).mkdir(parents=True)
    host = Host(tmp_path)
    yield host
    for process in host.processes:
        with process:
            process.kill()


RELEASE_FILES = ("app/manage.py", "kit/channels_kit/probe.py", "release.json")
PACKAGES = ("django/__init__.py", "django/__pycache__/a.pyc")


@pytest.mark.parametrize(
    ("name", "text"),
    [("release.json", '{"kit": "0.4.0", "root": "."}'), ("kit.txt", "0.4.0\n")],
)
def test_the_current_release_says_the_version_of_its_kit(host: Host, name: str, text: str) -> None:
    """The second one is how version 0.3.0 and before say it."""
    release = host.home / "releases" / A
    release.mkdir(parents=True)
    (host.home / "current").symlink_to(release)
    assert host.releases.kit() == ""
    (release / name).write_text(text)
    assert host.releases.kit() == "0.4.0"


# install


def test_a_release_is_unpacked_with_its_packages(host: Host) -> None:
    host.bring(A, RELEASE_FILES)
    host.bring("env", PACKAGES)

    assert host.releases.install(A, "env", USER)

    release = host.home / "releases" / A
    assert all((release / file).exists() for file in RELEASE_FILES)
    assert list((release / "app" / "__pycache__").glob("manage.*"))
    assert host.releases.installed() == [A]
    assert host.releases.environments() == ["env"]
    # Its interpreter is that of its packages; static files were collected before it appeared.
    asked = "import django; print(django.__file__)"
    found = host.run([str(release / "python"), "-c", asked])
    assert found.startswith(str(host.home / "environments" / "env"))
    said = (host.root / "said").read_text()
    collect = "collectstatic --settings=channels_kit.collected --no-input --verbosity 0"
    assert said == f"--release .{A} {collect}\n"
    assert not host.releases.install(A, "env", USER), "it is there"


def test_a_project_without_staticfiles_has_nothing_collected(host: Host) -> None:
    host.bring(A, RELEASE_FILES)
    host.bring("env", PACKAGES)
    assert host.releases.install(A, "env", USER, static=False)
    assert not (host.root / "said").exists()
    # Where it was thought to have them.
    host.bring(B, RELEASE_FILES)
    (host.root / "without").touch()
    assert host.releases.install(B, "env", USER)


@pytest.mark.parametrize(
    ("own", "linked"),
    [
        ("app/staticfiles", True),
        ("app/var/static", True),
        # It came with files.
        ("app", False),
        ("static", False),
        ("", False),
    ],
)
def test_the_projects_own_directory_of_static_files_leads_to_those_of_the_release(
    host: Host, own: str, linked: bool
) -> None:
    host.bring(A, RELEASE_FILES)
    host.bring("env", PACKAGES)
    told = str(host.home.resolve() / "releases" / f".{A}" / own) if own else ""
    (host.root / "own").write_text(f'noise\n{{"static_root": "{told}"}}\n')
    assert host.releases.install(A, "env", USER)
    release = host.home / "releases" / A
    path = release / (own or "app")
    assert path.is_symlink() == linked
    if linked:
        assert path.resolve() == (release / "static").resolve(), "as the release is named now"


def test_units_that_start_at_boot_are_told(host: Host) -> None:
    units = host.layout.units
    (units / "multi-user.target.wants").mkdir()
    for name in ("channels-process-beat.service", "channels-web@.service", "nginx.service"):
        (units / name).touch()
    link = units / "multi-user.target.wants" / "channels-process-beat.service"
    link.symlink_to(units / "channels-process-beat.service")
    assert host.releases.enabled() == ["channels-process-beat.service"]
    assert host.releases.unit_files() == ["channels-process-beat.service", "channels-web@.service"]


def test_the_application_reads_its_release_whatever_umask_root_has(host: Host) -> None:
    host.bring(A, RELEASE_FILES)
    host.bring("env", PACKAGES)
    before = os.umask(0o077)
    try:
        host.releases.install(A, "env", USER)
    finally:
        assert os.umask(before) == 0o077
    unreadable = [
        path
        for kind in ("releases", "environments")
        for path in (host.home / kind).rglob("*")
        if not path.is_symlink() and not path.stat().st_mode & (0o001 if path.is_dir() else 0o004)
    ]
    assert unreadable == []


# Makes a virtual environment as Python does, as much of it as is needed.
PYTHON = """\
#!/bin/sh
[ "$2" = venv ] || exit 0
for venv; do :; done
mkdir -p "$venv/bin" "$venv/lib/python3.12/site-packages"
echo "home = $(dirname "$0")" > "$venv/pyvenv.cfg"
cp "$0" "$venv/bin/python"
"""


def test_a_release_can_bring_its_python(host: Host) -> None:
    host.bring(A, RELEASE_FILES)
    host.bring("env", PACKAGES)
    python = "python-3.12.9-x86_64"
    with tarfile.open(host.home / "archives" / f"{python}.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("bin/python3")
        entry.size, entry.mode = len(PYTHON), 0o755
        archive.addfile(entry, io.BytesIO(PYTHON.encode()))
    assert host.releases.install(A, "env", USER, python=python)
    configuration = host.home / "environments/env/pyvenv.cfg"
    assert configuration.read_text() == f"home = {host.home}/pythons/{python}/bin\n"

    # It stays for as long as an environment needs it.
    host.make_current(A)
    (host.home / "pythons" / "python-3.11.0-x86_64").mkdir()
    host.bring("python-3.11.0-x86_64", ["bin/python3"])
    assert host.prune(2) == {
        "srv/channels/pythons/python-3.11.0-x86_64",
        "srv/channels/archives/python-3.11.0-x86_64.tar.gz",
    }


def test_a_release_of_the_same_packages_shares_them(host: Host) -> None:
    for name in (A, B):
        host.bring(name, RELEASE_FILES)
    host.bring("env", PACKAGES)
    host.releases.install(A, "env", USER)
    complete = host.home / "environments" / "env" / "complete"
    made = complete.stat().st_mtime_ns
    (host.home / "archives" / "env.tar.gz").unlink()
    host.releases.install(B, "env", USER)
    assert host.releases.installed() == [A, B]
    assert complete.stat().st_mtime_ns == made


def test_a_release_that_cannot_be_installed_is_not_there_and_the_next_run_installs_it(
    host: Host,
) -> None:
    host.bring(A, RELEASE_FILES)
    with pytest.raises(ReleaseError, match=r"env\.tar\.gz is missing"):
        host.releases.install(A, "env", USER)
    host.bring("env", PACKAGES)
    (host.root / "refused").touch()
    with pytest.raises(ReleaseError, match="ImproperlyConfigured: no STATIC_ROOT"):
        host.releases.install(A, "env", USER)
    assert host.releases.installed() == []
    # Nothing is left: where the disk was full, no later run would get further.
    assert list((host.home / "releases").iterdir()) == []
    (host.root / "refused").unlink()
    assert host.releases.install(A, "env", USER)
    assert host.releases.installed() == [A]


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


def test_processes_that_were_replaced_run_their_release_until_they_end(host: Host) -> None:
    """Its files are not removed, and make releases shows who is left."""
    control = host.root / "run" / "channels-web" / "8001"
    control.mkdir(parents=True)
    for release in (A, B, C):
        host.install(release, deployed=100)
    host.make_current(B)
    host.serve("channels-web@8002", f"{A}-01234567")
    former = host.processes[-1].pid
    (host.root / "units").unlink()
    host.serve("channels-web@8001", f"{B}-01234567")
    for pid in (former, host.processes[-1].pid):
        (control / f"{pid}.sock").touch()
    found = {each["release"]: each["runs"] for each in host.list()}
    assert found == {A: ["web@8001 (retired)"], B: ["web@8001"], C: []}
    host.prune(1)
    assert {each["release"] for each in host.list()} == {A, B}


def test_a_host_without_releases_has_an_empty_list(host: Host) -> None:
    assert host.list() == []


# switch, bad


def test_what_has_become_of_a_release_is_noted(host: Host) -> None:
    host.install(A, deployed=300)
    host.install(B, deployed=200)
    assert host.releases.mark_bad(B, "KeyError\nin the journal\n")
    assert not host.releases.mark_bad(B, "KeyError\nin the journal\n")
    assert {each["release"]: each["bad"] for each in host.list()} == {
        A: "",
        B: "KeyError\nin the journal",
    }
    # Who deploys it again knows better.
    assert host.releases.switch(B)
    first, second = host.list()
    assert (first["release"], first["bad"]) == (B, "")
    assert first["deployed"] > second["deployed"] == 300


def test_the_first_release_is_noted_too(host: Host) -> None:
    host.install(A)
    assert host.releases.switch(A)
    assert host.list()[0]["deployed"] > 0


def test_the_current_release_is_one_that_is_installed(host: Host) -> None:
    for release in (A, B):
        host.install(release)
        assert host.releases.switch(release)
        assert [each["release"] for each in host.list() if each["current"]] == [release]
        assert not host.releases.switch(release), "it is the current one"
    with pytest.raises(ReleaseError, match=f"release {C} is not installed"):
        host.releases.switch(C)
    assert (host.home / "current").resolve().name == B


def test_what_was_deployed_last_is_on_record_by_the_controllers_time(host: Host) -> None:
    for release in (A, B):
        host.install(release)
        host.releases.switch(release)
    assert [each["recorded"] for each in host.list()] == [0, 0], "no operation was completed"
    assert host.releases.record(A, 1_000, check=True)
    assert host.releases.record(A, 1_000)
    assert not host.releases.record(A, 1_000)
    assert host.releases.record(B, 2_000)
    assert {each["release"]: each["recorded"] for each in host.list()} == {A: 1_000, B: 2_000}
    # To switch is no deploy: that is on record when all hosts have done it.
    host.releases.switch(A)
    assert {each["release"]: each["recorded"] for each in host.list()} == {A: 1_000, B: 2_000}
    assert host.list()[0]["release"] == A
    assert host.list()[0]["deployed"] > 1_000_000_000, "its own clock orders what this host keeps"


def test_archives_are_told_apart_from_what_is_installed(host: Host) -> None:
    host.install(A)
    assert host.releases.archives() == [A, "env0"]
    (host.home / "archives" / f"{A}.tar.gz").unlink()
    assert host.releases.archives() == ["env0"]


# the lock and the audit log


def test_who_holds_the_lock_is_told_to_whoever_else_comes(host: Host) -> None:
    assert host.lock.take(ADA)
    there = host.layout.lock.stat().st_mtime - 12 * 60
    os.utime(host.layout.lock, (there, there))
    assert not host.lock.take(BOB)
    holder = host.lock.holder()
    assert 720 <= holder.pop("seconds") < 780
    assert holder == ADA


def test_the_same_run_may_take_the_lock_again_and_add_to_it(host: Host) -> None:
    assert host.lock.take(ADA)
    there = host.layout.lock.stat().st_mtime - 60
    os.utime(host.layout.lock, (there, there))
    assert host.lock.take({**ADA, "release": A})
    assert host.lock.take(ADA)
    holder = host.lock.holder()
    assert holder["release"] == A
    assert holder["seconds"] >= 60, "since it was taken"


def test_the_lock_of_a_run_that_has_ended_is_taken_over(host: Host) -> None:
    assert host.lock.take({**ADA, "release": A})
    assert not host.lock.take(BOB, instead_of="desk:3:3")
    assert host.lock.take(BOB, instead_of=ADA["run"])
    holder = host.lock.holder()
    assert holder["who"] == BOB["who"]
    assert "release" not in holder


def test_a_lock_that_is_being_written_is_somebodys(host: Host) -> None:
    host.layout.lock.touch()
    assert not host.lock.take(ADA)
    assert host.lock.holder()["who"] == "somebody"


def test_the_holder_alone_gives_the_lock_back(host: Host) -> None:
    assert not host.lock.give_back(BOB["run"], "failed"), "nobody has it"
    host.lock.take(ADA)
    assert not host.lock.give_back(BOB["run"], "failed")
    assert not host.layout.audit.exists(), "an operation that was refused has done nothing"
    assert host.lock.give_back(ADA["run"], "failed")
    assert host.lock.holder() == {}
    assert host.lock.take(BOB)


def test_a_lock_is_broken_whoever_has_it(host: Host) -> None:
    host.lock.take(ADA)
    assert host.lock.break_it()
    assert not host.lock.break_it()
    assert host.lock.take(BOB)


def test_the_audit_log_has_a_line_an_operation_with_its_release(host: Host) -> None:
    """That of one that failed, too: it is noted as soon as it is known."""
    host.lock.take(ADA)
    host.lock.take({**ADA, "release": A})
    host.lock.give_back(ADA["run"], "failed")
    host.lock.take(BOB)
    host.lock.give_back(BOB["run"], "ok")
    first, second = map(json.loads, host.layout.audit.read_text().splitlines())
    at = datetime.strptime(first.pop("at"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(tz=UTC) - at).total_seconds() < 60
    assert first.pop("seconds") < 60
    assert first == {
        "who": "ada@desk",
        "what": "deploy v1.2",
        "release": A,
        "result": "failed",
    }
    assert (second["who"], second["result"], second["release"]) == ("bob@desk", "ok", "")


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
    host.serve("channels-background@thumbnails", f"{E}-01234567")
    host.prune(2)
    assert {each["release"] for each in host.list()} == {A, E}
    host.prune(2)
    assert {each["release"] for each in host.list()} == {A, E}


def test_what_a_killed_installation_has_left_goes(host: Host) -> None:
    host.install(A, deployed=100)
    host.make_current(A)
    host.install(B, "env-b")
    (host.home / "releases" / B).rename(host.home / "releases" / f".{B}")
    (host.home / "archives" / ".ansible_tmp_b.tar.gz").touch()
    assert host.prune(5) == {
        f"srv/channels/releases/.{B}",
        "srv/channels/environments/env-b",
        *(f"srv/channels/archives/{name}.tar.gz" for name in (B, "env-b", ".ansible_tmp_b")),
    }


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
        host.releases.mark_bad(release, "no good")
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
    (files / "host.conf").write_text(f"CHANNELS_ENVIRONMENT_FILE={files}/89abcdef.env\n")

    assert host.prune(5) == {"etc/channels/00000000.env"}
