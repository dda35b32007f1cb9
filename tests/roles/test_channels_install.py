"""The action channels_install and the program install-release, on a host that is a directory."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .house import ROLES, Run, Tree, run

FILES = ROLES / "channels" / "files"
PACKAGES = "packages-3.11"
MANAGE = """#!/bin/sh
echo "$*" >> "$SAID"
[ ! -e "$REFUSED" ] || { echo "ImproperlyConfigured: no STATIC_ROOT" >&2; exit 1; }
"""

Install = Callable[..., Run]


def pack(tmp_path: Path, text: str = "manage = 1\n") -> Path:
    """A release of an application of one file."""
    for name, content in (("app/manage.py", text), ("kit/probe.py", "probe = 1\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    program = [sys.executable, str(FILES / "build_release.py"), f"--application={tmp_path / 'app'}"]
    options = [f"--kit={tmp_path / 'kit'}", f"--output={tmp_path / 'packed'}", "--uv=/bin/true"]
    result = subprocess.run([*program, *options, "--lock=/"], capture_output=True, check=True)
    return Path(json.loads(result.stdout)["archive"])


def pack_environment(tmp_path: Path) -> Path:
    """Packages as the controller packs them, compiled already."""
    path = tmp_path / "packed" / f"{PACKAGES}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("django/__pycache__/a.pyc", "django/__init__.py"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"#"))
    return path


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Install archives, in a run of Ansible on this machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "channels-manage").write_text(MANAGE)
    (programs / "channels-manage").chmod(0o755)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}

    def install(*archives: Path, check: bool = False) -> Run:
        release = archives[0].name.removesuffix(".tar.gz")
        arguments: Tree = {
            "archives": [str(path) for path in archives],
            "arguments": [str(tmp_path / "host"), release, PACKAGES, user],
        }
        return run(
            tmp_path / "run",
            {"all": {"hosts": {"host1": host}}},
            [
                {
                    "hosts": "host1",
                    "gather_facts": False,
                    "tasks": [{"name": "Test | Install", "channels_install": arguments}],
                }
            ],
            *(["--check"] if check else []),
            ANSIBLE_ACTION_PLUGINS=str(ROLES / "channels" / "action_plugins"),
            PATH=f"{programs}:{os.environ['PATH']}",
            SAID=str(tmp_path / "said"),
            REFUSED=str(tmp_path / "refused"),
        )

    return install


def below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_release_and_its_packages_are_brought_and_unpacked(
    install: Install, tmp_path: Path
) -> None:
    archive, packages = pack(tmp_path), pack_environment(tmp_path)
    name = archive.name.removesuffix(".tar.gz")

    answer = install(archive, packages)

    assert answer.code == 0, answer.output
    assert "changed=1" in answer.output
    host = tmp_path / "host"
    release = host / "releases" / name
    assert {"app/manage.py", "kit/channels_kit/probe.py", "kit.txt", "python"} <= below(release)
    assert [path for path in below(release) if path.startswith("app/__pycache__/manage.")]
    assert [path.name for path in (host / "releases").iterdir()] == [name]
    assert (host / "environments" / PACKAGES / "complete").exists()
    # Its interpreter is that of its packages; static files were collected before it appeared.
    asked = "import django; print(django.__file__)"
    found = subprocess.run(
        [release / "python", "-c", asked], capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(host / "environments" / PACKAGES))
    assert (
        tmp_path / "said"
    ).read_text() == f"--release .{name} collectstatic --no-input --verbosity 0\n"
    # For the controller, and for another host.
    for path in (archive, packages):
        assert (host / "archives" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "run" / "remote").iterdir()), "nothing is left of the way there"


def test_a_release_of_the_same_packages_shares_them(install: Install, tmp_path: Path) -> None:
    assert install(pack(tmp_path), pack_environment(tmp_path)).code == 0
    complete = tmp_path / "host" / "environments" / PACKAGES / "complete"
    made = complete.stat().st_mtime_ns
    answer = install(pack(tmp_path, "manage = 2\n"))
    assert answer.code == 0, answer.output
    assert len(list((tmp_path / "host" / "releases").iterdir())) == 2
    assert complete.stat().st_mtime_ns == made


def test_what_is_refused_leaves_no_release_and_the_next_run_makes_it_anew(
    install: Install, tmp_path: Path
) -> None:
    archive, packages = pack(tmp_path), pack_environment(tmp_path)
    (tmp_path / "refused").touch()
    answer = install(archive, packages)
    assert answer.code != 0
    assert f"{archive.name} was not installed" in answer.output
    assert "ImproperlyConfigured: no STATIC_ROOT" in answer.output
    release = tmp_path / "host" / "releases" / archive.name.removesuffix(".tar.gz")
    assert not release.exists()
    assert not list((tmp_path / "run" / "remote").iterdir())

    (tmp_path / "refused").unlink()
    assert install(archive, packages).code == 0
    assert release.is_dir()


def test_a_dry_run_brings_nothing(install: Install, tmp_path: Path) -> None:
    answer = install(pack(tmp_path), check=True)
    assert "changed=1" in answer.output
    assert not (tmp_path / "host").exists()
