"""A release is the same bytes for the same content, and other bytes for any other."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import build_environment

from .house import ROLES, defaults
from .projects import KIT_LOCK, django_project, fake_uv, write

PROGRAM = ROLES / "channels" / "files" / "build_release.py"
EXCLUDES = ",".join(defaults("channels")["channels_source_excludes"])
TARGETS = '[{"python": "3.11.2", "machine": "x86_64"}]'

Build = Callable[..., dict[str, Any]]
PROJECT = {f"application/{name}": text for name, text in django_project().items()}
FILES = {
    **PROJECT,
    "application/requirements.txt": "django==5.2\n",
    "application/shop/static/größe.css": "a {}\n",
    "kit/VERSION": "1.2.3\n",
    "kit/channels_kit/serving/asgi.py": "application = 1\n",
}


@pytest.fixture
def program() -> Any:
    spec = importlib.util.spec_from_file_location("build_release", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(
    program: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Build:
    """Run the program over tmp_path's application and kit, and return what it printed."""

    def build(
        root: Path = tmp_path, packages: tuple[str, ...] = (), exclude: str = EXCLUDES, **more: str
    ) -> dict[str, Any]:
        uv = fake_uv(tmp_path, ("django==5.2", "uvicorn==0.52.1", *packages))
        lock = tmp_path / "uv.lock"
        lock.write_text(KIT_LOCK)
        options = {
            "application": str(root / "application"),
            "kit": str(root / "kit"),
            "lock": str(lock),
            "uv": str(uv),
            "targets": TARGETS,
            "output": str(tmp_path / "releases"),
            "exclude": exclude,
            **more,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        monkeypatch.setattr(sys, "argv", ["build_release", *arguments])
        capsys.readouterr()
        assert program.main() == 0
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    return build


def write_all(root: Path, order: int = 1, time: int = 0) -> None:
    """Write an application and a kit, in an order and with a time of last change."""
    for name, text in sorted(FILES.items())[::order]:
        write(root, {name: text})
        if time:
            os.utime(root / name, (time, time))
    (root / "application/manage.py").chmod(0o755 if order == 1 else 0o700)


def walk_backwards(
    directory: Path, walk: Callable[..., Any] = os.walk, **options: Any
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk as another file system would: it gives names in an order of its own."""
    for parent, directories, files in walk(directory, **options):
        directories.sort(reverse=True)
        files.sort(reverse=True)
        yield parent, directories, files


def names(archive: str) -> list[str]:
    with tarfile.open(archive) as opened:
        return opened.getnames()


def content(archive: str, name: str) -> bytes:
    with tarfile.open(archive) as opened:
        file = opened.extractfile(name)
        assert file is not None
        return file.read()


def test_the_same_content_is_the_same_bytes(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever, wherever, in whatever order and by whomever the files were written."""
    write_all(tmp_path)
    first = build()
    packed = Path(first["archive"]).read_bytes()
    Path(first["archive"]).unlink()

    other = tmp_path / "elsewhere"
    before = os.umask(0o077)
    try:
        write_all(other, order=-1, time=1_000_000_000)
    finally:
        os.umask(before)
    monkeypatch.setattr(os, "walk", walk_backwards)
    second = build(other)

    assert first == second
    assert Path(second["archive"]).read_bytes() == packed
    assert Path(first["archive"]).name == f"{first['id']}.tar.gz"


def test_the_archive_holds_application_kit_and_packages(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    with tarfile.open(build()["archive"]) as archive:
        assert archive.getnames() == [
            "release.json",
            "requirements.txt",
            *sorted(f"app/{name[12:]}" for name in FILES if name.startswith("application/")),
            "kit/channels_kit/serving/asgi.py",
            "kit/site-packages/websockets/__init__.py",
        ]
        executable = [entry.name for entry in archive if entry.mode == 0o755]
        assert executable == ["app/manage.py"]
        assert {entry.mode for entry in archive} == {0o644, 0o755}
        assert {(entry.uid, entry.gid, entry.mtime) for entry in archive.getmembers()} == {
            (0, 0, 0)
        }


def test_the_release_says_what_it_is(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    text = 'from celery import Celery\napp = Celery("shop")\n'
    write(tmp_path, {"application/config/celery.py": text})
    release = build()
    described = {
        "application": "config.asgi:application",
        "settings_module": "config.settings",
        "root": ".",
        "static": True,
        "celery": "config.celery",
        "kit": "1.2.3",
        "python": "",
        "server": "uvicorn",
    }
    written = json.loads(content(release["archive"], "release.json"))
    assert len(written.pop("inputs")) == 20
    assert written == described
    assert {name: release[name] for name in described} == described
    assert content(release["archive"], "requirements.txt").decode() == release["requirements"]
    assert release["requirements"].startswith("django==5.2 \\\n    --hash=sha256:")


def test_the_operator_overrides_what_is_found(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    given = {"settings-module": "config.settings", "asgi": "shop.models:models"}
    release = build(**given)
    assert (release["application"], release["root"]) == ("shop.models:models", ".")


def test_a_changed_byte_is_another_release(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    ids = {build()["id"]}
    for path, text in (
        ("application/shop/models.py", "models = 2\n"),
        ("kit/channels_kit/new.py", ""),
    ):
        (tmp_path / path).write_text(text)
        ids.add(build()["id"])
    (tmp_path / "application/manage.py").chmod(0o644)
    ids.add(build()["id"])
    (tmp_path / "application/shop/models.py").rename(tmp_path / "application/shop/forms.py")
    ids.add(build()["id"])
    assert len(ids) == 5
    assert len(list((tmp_path / "releases").glob("*.tar.gz"))) == 5


def test_a_release_carries_the_version_of_the_kit(build: Build, tmp_path: Path) -> None:
    """Roles and kit belong together: a host is asked for it, and what is packed."""
    write_all(tmp_path)
    first = build()
    assert first["kit"] == "1.2.3"
    # Not every change of the library is another version.
    (tmp_path / "kit/channels_kit/serving/asgi.py").write_text("application = 2\n")
    second = build()
    assert (second["kit"], second["id"] == first["id"]) == ("1.2.3", False)
    (tmp_path / "kit/VERSION").write_text("1.3.0\n")
    assert build()["kit"] == "1.3.0"


def test_a_release_that_is_packed_is_read_back_as_it_was(
    program: Any,
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever application and kit are by then."""
    write_all(tmp_path)
    first = build()
    (tmp_path / "kit/channels_kit/serving/asgi.py").write_text("application = 2\n")
    build()

    arguments = [f"--release={first['id']}", f"--output={tmp_path / 'releases'}"]
    monkeypatch.setattr(sys, "argv", ["build_release", *arguments])
    assert program.main() == 0

    assert json.loads(capsys.readouterr().out) == first


def test_a_release_of_version_0_3_0_says_which_it_is(program: Any, tmp_path: Path) -> None:
    """It is refused for its version then, and not for what it lacks."""
    with tarfile.open(tmp_path / "old.tar.gz", "w:gz") as archive:
        for name in ("requirements.txt", "kit.txt"):
            (tmp_path / name).write_text("0.3.0\n")
            archive.add(tmp_path / name, name)
    described = program.archive.describe("old", tmp_path / "old.tar.gz")
    assert (described["kit"], described["requirements"]) == ("0.3.0", "0.3.0\n")


def test_other_packages_are_another_environment(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    first = build()
    (tmp_path / "application/shop/models.py").write_text("models = 2\n")
    same_packages = build()
    (tmp_path / "application/requirements.txt").write_text("django==5.2\nredis==7.0\n")
    other_packages = build(packages=("redis==7.0",))

    assert first["environment"] == same_packages["environment"] != other_packages["environment"]
    assert len({first["id"], same_packages["id"], other_packages["id"]}) == 3


def test_what_is_excluded_is_absent_and_changes_nothing(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    before = build()
    for name in (
        "application/shop/__pycache__/models.cpython-311.pyc",
        "application/shop/models.pyc",
        "application/db.sqlite3",
        "application/staticfiles/a.css",
        "application/shop.egg-info/PKG-INFO",
        "application/.env",
        "application/node_modules/a.js",
        "kit/channels_kit/serving/__pycache__/asgi.cpython-311.pyc",
        "kit/channels_kit/load/client.py",
    ):
        write(tmp_path, {name: "left out"})

    assert build() == before
    without = names(build(exclude="models.py,static")["archive"])
    assert "app/shop/models.py" not in without
    assert not [name for name in without if "static/" in name]
    assert "app/db.sqlite3" in without, "only what the operator excludes"


def test_a_link_stays_a_link(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "application/run.py").symlink_to("manage.py")
    with tarfile.open(build()["archive"]) as archive:
        link = archive.getmember("app/run.py")
    assert (link.issym(), link.linkname) == (True, "manage.py")


def test_a_project_without_manage_py_gets_one(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "application/manage.py").unlink()
    archive = build()["archive"]
    assert b'"config.settings"' in content(archive, "app/manage.py")


def refused(tmp_path: Path, **more: str) -> str:
    """Run the program as a play does, and return why it packs nothing."""
    options = {
        "application": str(tmp_path / "application"),
        "kit": str(tmp_path / "kit"),
        "lock": str(tmp_path / "uv.lock"),
        "uv": str(tmp_path / "uv"),
        "targets": TARGETS,
        "output": str(tmp_path / "releases"),
        **more,
    }
    result = subprocess.run(
        [sys.executable, PROGRAM, *(f"--{name}={value}" for name, value in options.items())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout
    assert not list((tmp_path / "releases").glob("*.tar.gz"))
    return result.stderr


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, application=str(tmp_path / "typo"))
    assert said.startswith(f"{tmp_path / 'typo'} is not a directory")


def test_what_uv_refuses_makes_no_release(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "uv.lock").write_text(KIT_LOCK)
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'no such package: shop' >&2\nexit 2\n")
    uv.chmod(0o755)
    assert refused(tmp_path) == "uv pip exited with status 2:\nno such package: shop\n"


@pytest.mark.parametrize(
    ("server", "packages", "fault"),
    [
        ("uvicorn", ("channels-redis==4.3.0", "redis==8.0.0"), "channels_redis_with_redis_8"),
        ("uvicorn", ("uvicorn==0.51.0",), "uvicorn_0_50"),
        ("daphne", ("daphne==4.1.2",), "daphne_4_2_1"),
    ],
)
def test_known_faults_are_refused_and_can_be_accepted(
    build: Build, tmp_path: Path, server: str, packages: tuple[str, ...], fault: str
) -> None:
    write_all(tmp_path)
    (tmp_path / "uv.lock").write_text(KIT_LOCK)
    fake_uv(tmp_path, ("django==5.2", *packages, *(["uvicorn==0.60.0"] * ("redis" in fault))))
    said = refused(tmp_path, server=server)
    assert said.startswith(f"{tmp_path / 'application/requirements.txt'}: ")
    assert f"add {fault} to channels_allow_known_faults" in said
    # One of another server is of no interest.
    if server == "daphne":
        assert build(packages=packages)["server"] == "uvicorn"


def test_an_accepted_fault_is_packed(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    allow = '["channels_redis_with_redis_8"]'
    release = build(packages=("channels-redis==4.3.0", "redis==8.0.0"), allow=allow)
    assert "redis==8.0.0" in release["requirements"]


def test_another_controller_takes_the_packages_of_the_release_that_runs(
    build: Build, tmp_path: Path
) -> None:
    """What is not locked has been resolved once, wherever that was."""
    write_all(tmp_path)
    (tmp_path / "application/requirements.txt").write_text("django\n")
    before = build()
    desk = tmp_path / "other desk"
    desk.mkdir()
    shutil.copy(before["archive"], desk)
    newer = {"packages": ("redis==7.0",), "output": str(desk)}
    again = build(former=before["id"], **newer)
    assert (again["id"], again["requirements"]) == (before["id"], before["requirements"])
    assert "redis==7.0" in build(former=before["id"], refresh="yes", **newer)["requirements"]
    # Other requirements are another question.
    (tmp_path / "application/requirements.txt").write_text("django\nredis\n")
    assert "redis==7.0" in build(former=before["id"], **newer)["requirements"]


def test_an_interrupted_write_leaves_no_half_archive(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path)
    write_bytes = Path.write_bytes

    def interrupted(path: Path, data: bytes) -> int:
        write_bytes(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert not list((tmp_path / "releases").glob("*.tar.gz"))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert len(names(build()["archive"])) == 2 + len(FILES)


def test_a_build_runs_in_a_copy_and_its_output_is_packed(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    write(tmp_path, {"application/.gitignore": "/dist/\n"})
    count = tmp_path / "count"
    commands = json.dumps(
        [
            f"echo >> {count}; mkdir -p dist node_modules; cat shop/models.py > dist/app.js",
            "echo x > node_modules/y; echo y > shop/made.py; echo old >> shop/__init__.py",
        ]
    )
    first = build(build=commands)
    packed = names(first["archive"])
    assert {"app/dist/app.js", "app/shop/made.py"} <= set(packed)
    assert not [name for name in packed if "node_modules" in name]
    assert content(first["archive"], "app/shop/__init__.py") == b"old\n"
    assert not (tmp_path / "application/dist").exists()
    # The same input is built once.
    assert build(build=commands) == first
    assert count.read_text() == "\n"
    (tmp_path / "application/shop/models.py").write_text("models = 2\n")
    assert content(build(build=commands)["archive"], "app/dist/app.js") == b"models = 2\n"
    # Only what is named.
    only = names(build(build=commands, includes='["dist"]')["archive"])
    assert "app/dist/app.js" in only
    assert "app/shop/made.py" not in only


def test_commands_of_python_get_the_packages_of_the_release(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    build(build='["echo 1 > a.txt"]')
    asked = (tmp_path / "uv.asked").read_text()
    assert "venv" not in asked
    release = build(build='["python3 -c \\"print(1, file=open(chr(97), chr(119)))\\""]')
    assert "app/a" in names(release["archive"])
    asked = (tmp_path / "uv.asked").read_text()
    assert "venv --quiet --no-project" in asked
    assert "--python=3.11" in asked


def test_a_command_that_fails_does_so_with_its_words(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "uv.lock").write_text(KIT_LOCK)
    fake_uv(tmp_path)
    said = refused(tmp_path, build='["echo building; echo no such file: app.scss >&2; exit 3"]')
    assert "exited with status 3:\nbuilding\nno such file: app.scss\n" in said
    said = refused(tmp_path, build='["true"]', includes='["dist"]')
    assert said.startswith("channels_source_includes has dist;")


def test_a_source_distribution_is_packed(build: Build, tmp_path: Path) -> None:
    write_all(tmp_path)
    sdist = tmp_path / "shop-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(tmp_path / "application", "shop-1.0")
    release = build(application=str(sdist))
    assert release["application"] == "config.asgi:application"
    assert "app/shop/models.py" in names(release["archive"])


def test_a_package_with_a_file_that_python_cannot_parse_is_packed(tmp_path: Path) -> None:
    """Some packages have templates of Python files, or files for Python 2."""
    (tmp_path / "old.py").write_text('raise ValueError, "no"\n')
    (tmp_path / "new.py").write_text("VALUE = 1\n")
    build_environment.compile_for(tmp_path, "/srv/site-packages")
    assert [path.name.split(".")[0] for path in tmp_path.glob("__pycache__/*.pyc")] == ["new"]
