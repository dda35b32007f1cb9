"""A packed release is examined on the controller, and stops a deploy that would fail."""

import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from packing.python import interpreter

from ..kit.wrong_applications import ENVIRONMENT, GOOD, PASSWORD, SECRET_KEY, SUBJECT

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "roles" / "channels" / "files" / "examine_release.py"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ENVIRONMENT_NAME = f"packages-{PYTHON}-{platform.machine()}"
PACKAGES = next(Path(sys.executable).parents[1].glob("lib/python3*/site-packages"))
WRONG = 'DEBUG = True\nraise RuntimeError("refused " + os.environ["DATABASE_URL"])\n'


def pack(archive: Path, files: dict[str, str], trees: dict[str, Path] | None = None) -> None:
    with tarfile.open(archive, "w:gz") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            packed.addfile(entry, io.BytesIO(content.encode()))
        for name, tree in (trees or {}).items():
            packed.add(tree, name, filter=lambda each: None if "__pycache__" in each.name else each)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """The packages of this checkout's own environment, as an archive of a few bytes."""
    directory = tmp_path / "releases"
    directory.mkdir()
    pack(directory / f"{ENVIRONMENT_NAME}.tar.gz", {"packages.pth": f"{PACKAGES}\n"})
    return directory


def release(archives: Path, name: str, settings: str = "") -> Path:
    files = {f"app/site/{path}": textwrap.dedent(content) for path, content in GOOD.items()}
    files["app/site/shop/settings.py"] += settings
    archive = archives / f"{name}.tar.gz"
    pack(archive, files, {"kit/channels_kit": ROOT / "kit" / "channels_kit"})
    return archive


def run(archives: Path, archive: Path, **changes: str) -> dict[str, Any]:
    options = {
        "release": str(archive),
        "environment": str(archives / f"{ENVIRONMENT_NAME}.tar.gz"),
        "root": "site",
        "python-version": PYTHON,
        "machine": platform.machine(),
        **changes,
    }
    result = subprocess.run(
        [sys.executable, str(PROGRAM), *(f"--{key}={value}" for key, value in options.items())],
        input=json.dumps(SUBJECT),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_a_release_is_examined_in_packages_that_are_unpacked_once(archives: Path) -> None:
    archive = release(archives, "good")
    assert run(archives, archive)["obstacles"] == []
    environment = archives / "examined" / ENVIRONMENT_NAME
    (environment / "kept").touch()
    start = time.monotonic()
    assert run(archives, archive)["obstacles"] == []
    assert (environment / "kept").exists()
    assert time.monotonic() - start < 60


def test_packages_that_no_release_needs_are_removed(archives: Path) -> None:
    (archives / "examined" / "former").mkdir(parents=True)
    run(archives, release(archives, "good"))
    assert not (archives / "examined" / "former").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python-version": "3.99"}, "the hosts run Python 3.99, and this machine has none"),
        ({"machine": "sparc64"}, "the hosts are sparc64 and this machine is"),
    ],
)
def test_what_this_machine_cannot_run_is_said(
    archives: Path, changes: dict[str, str], words: str
) -> None:
    answer = run(archives, release(archives, "good"), **changes)
    assert words in answer["unexamined"]


@pytest.mark.parametrize(
    ("variable", "place"),
    [("UV_PYTHON_INSTALL_DIR", "cpython-3.98.1-linux"), ("PYENV_ROOT", "versions/3.98.1")],
)
def test_a_python_that_uv_or_pyenv_keeps_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, place: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    assert interpreter("3.98", tmp_path / "pythons") == ""
    python = tmp_path / place / "bin" / "python3.98"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho 3.98 {python}\n")
    python.chmod(0o755)
    assert interpreter("3.98", tmp_path / "pythons") == str(python)


def test_a_python_that_was_brought_for_the_hosts_is_found(tmp_path: Path) -> None:
    name = f"cpython-3.98.1-linux-{platform.machine()}-gnu"
    python = tmp_path / name / "bin" / "python3.98"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho 3.98 {python}\n")
    python.chmod(0o755)
    assert interpreter("3.98", tmp_path) == str(python)


def test_what_only_the_controller_has_installed_is_missing(archives: Path, tmp_path: Path) -> None:
    """The packages of .venv are not the application's."""
    pack(archives / f"{ENVIRONMENT_NAME}.tar.gz", {"empty.pth": ""})
    named = {each["what"] for each in run(archives, release(archives, "good"))["obstacles"]}
    assert "django" in named


def ansible_playbook(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), *arguments],
        cwd=ROOT,
        env={**os.environ, "CHANNELS_KIT_MITOGEN": "no"},
        text=True,
        capture_output=True,
        timeout=300,
    )


def play(archives: Path, archive: Path) -> subprocess.CompletedProcess[str]:
    """Run the tasks of the role, as select_release.yml includes them."""
    (archives.parent / "subject.json").write_text(
        json.dumps({"_channels_examined_subject": SUBJECT})
    )
    content = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "channels_archive_directory": str(archives),
                "channels_release": {
                    "id": "r1",
                    "archive": str(archive),
                    "environment": "packages",
                    "requirements": "",
                    "root": "site",
                },
                "cluster_home": "/srv/channels",
                "_channels_host": {"python": PYTHON, "machine": platform.machine()},
            },
            "tasks": [
                {
                    "ansible.builtin.include_role": {
                        "name": "channels",
                        "tasks_from": "examine",
                        "rolespec_validate": False,
                    }
                }
            ],
        }
    ]
    file = archives.parent / "play.json"
    file.write_text(json.dumps(content))
    return ansible_playbook(
        *("-i", "localhost,", "-c", "local", "-vvv"),
        *("-e", f"@{archives.parent / 'subject.json'}", str(file)),
    )


def test_obstacles_stop_the_run_and_show_no_secret(archives: Path) -> None:
    result = play(archives, release(archives, "wrong", WRONG))
    assert result.returncode == 2, result.stdout
    assert "The application has 2 obstacles. Nothing changed." in result.stdout
    assert "channels_settings_overlay: true" in result.stdout
    assert "refused (not shown)" in result.stdout
    for secret in (PASSWORD, SECRET_KEY):
        assert secret not in result.stdout + result.stderr


def test_a_good_application_passes(archives: Path) -> None:
    result = play(archives, release(archives, "good"))
    assert result.returncode == 0, result.stdout
    assert "changed=0" in result.stdout


def test_an_examination_that_fails_itself_is_told_without_secrets(archives: Path) -> None:
    result = play(archives, archives / "nothing.tar.gz")
    assert result.returncode == 0, result.stdout
    assert "The application was not examined: examine_release.py exited with" in result.stdout
    assert ENVIRONMENT["SECRET_KEY"] not in result.stdout + result.stderr


def test_the_role_tells_what_the_cluster_would_give(tmp_path: Path) -> None:
    """The subject that the role's variables make is one that the program reads."""
    sys.path.insert(0, str(ROOT / "kit"))
    from channels_kit.examine.finding import Subject
    from channels_kit.examine.rules import is_writable

    hosts = {
        name: {"cluster_address": f"10.0.0.{number}"}
        for number, name in enumerate(("lb1", "app1", "app2", "data1"), 1)
    }
    inventory = {
        "all": {
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "cluster_server_names": ["shop.example.org"],
                "channels_settings_overlay": True,
                "channels_writable": ["media"],
                "channels_writable_store": "/srv/shared",
                "channels_secret_key": SECRET_KEY,
                "channels_jwt_key": "j" * 40,
                "sample_jwt_key": "j" * 40,
                "channels_probe_token": "p" * 40,
                "postgres_password": PASSWORD,
                "redis_layer_password": PASSWORD,
                "redis_broker_password": PASSWORD,
                "channels_release": {
                    "id": "r1",
                    "application": "shop.asgi:application",
                    "settings_module": "shop.settings",
                    "root": ".",
                },
            },
            "hosts": hosts,
        },
        "nginx": {"hosts": {"lb1": {}}},
        "channels": {"hosts": {"app1": {}, "app2": {}}},
        "postgres": {"hosts": {"data1": {}}},
        "redis": {"hosts": {"data1": {}}},
    }
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    copy = {
        "ansible.builtin.copy": {
            "content": "{{ _channels_examined_subject | to_json }}",
            "dest": str(tmp_path / "subject.json"),
            "mode": "0600",
        }
    }
    tasks = [
        {
            "ansible.builtin.import_role": {
                "name": "channels",
                "tasks_from": "state",
                "rolespec_validate": False,
            },
            "when": False,
        },
        copy,
    ]
    (tmp_path / "play.json").write_text(
        json.dumps([{"hosts": "app1", "gather_facts": False, "tasks": tasks}])
    )
    result = ansible_playbook("-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.json"))
    assert result.returncode == 0, result.stdout + result.stderr
    subject = Subject.read(json.loads((tmp_path / "subject.json").read_text()))
    assert subject.application == "shop.asgi:application"
    assert (subject.hosts, subject.workers, subject.local) == (2, 4, False)
    assert subject.domains == ["shop.example.org"]
    assert subject.environment["SECRET_KEY"] == SECRET_KEY
    assert subject.environment["DATABASE_URL"].endswith("@10.0.0.4:5432/channels")
    assert "data1" in subject.names
    # With the overlay, MEDIA_ROOT is where the directory of the project really is.
    assert subject.environment["CHANNELS_KIT_MEDIA_ROOT"] == "/srv/shared/media"
    assert is_writable("/srv/shared/media/photos", subject)
    assert is_writable("media", subject)
    assert not is_writable("/srv/shared", subject)
