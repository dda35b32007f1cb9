"""A release is the same bytes for the same content, and other bytes for any other."""

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .house import ROLES, defaults

PROGRAM = ROLES / "channels" / "files" / "build_release.py"
EXCLUDES = ",".join(defaults("channels")["channels_source_excludes"])

Build = Callable[..., dict[str, str]]


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
        root: Path = tmp_path, requirements: str = "django==5.2\n", exclude: str = EXCLUDES
    ) -> dict[str, str]:
        (tmp_path / "exported").write_text(requirements)
        uv = tmp_path / "uv"
        uv.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked\ncat {tmp_path}/exported\n')
        uv.chmod(0o755)
        arguments = [f"--application={root / 'application'}", f"--kit={root / 'kit'}"]
        arguments += [f"--uv={uv}", "--lock=/locked", "--package=shop", "--extra=daphne"]
        arguments += [f"--output={tmp_path / 'releases'}", f"--exclude={exclude}"]
        monkeypatch.setattr(sys, "argv", ["build_release", *arguments])
        capsys.readouterr()
        assert program.main() == 0
        printed: dict[str, str] = json.loads(capsys.readouterr().out)
        return printed

    return build


FILES = {
    "application/manage.py": "print('manage')\n",
    "application/chat/consumers.py": "consumers = 1\n",
    "application/chat/models.py": "models = 1\n",
    "application/accounts/models.py": "models = 1\n",
    "application/chat/static/größe.css": "a {}\n",
    "kit/VERSION": "1.2.3\n",
    "kit/channels_kit/serving/asgi.py": "application = 1\n",
}


def write(root: Path, order: int = 1, time: int = 0) -> None:
    """Write an application and a kit, in an order and with a time of last change."""
    for name, text in sorted(FILES.items())[::order]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if time:
            os.utime(path, (time, time))
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


def test_the_same_content_is_the_same_bytes(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever, wherever, in whatever order and by whomever the files were written."""
    write(tmp_path)
    first = build()
    content = Path(first["archive"]).read_bytes()
    Path(first["archive"]).unlink()

    other = tmp_path / "elsewhere"
    before = os.umask(0o077)
    try:
        write(other, order=-1, time=1_000_000_000)
    finally:
        os.umask(before)
    monkeypatch.setattr(os, "walk", walk_backwards)
    second = build(other)

    assert first == second
    assert Path(second["archive"]).read_bytes() == content
    assert Path(first["archive"]).name == f"{first['id']}.tar.gz"


def test_the_packages_are_those_of_the_lock_for_the_server(build: Build, tmp_path: Path) -> None:
    write(tmp_path)
    build()
    command, *options = (tmp_path / "asked").read_text().split()
    assert command == "export"
    # As it is locked, whatever pyproject.toml says by now; and nothing that is for tests.
    assert {"--frozen", "--no-dev", "--no-emit-workspace"} <= set(options)
    assert {"--project=/locked", "--package=shop", "--extra=daphne"} <= set(options)


def test_what_uv_refuses_makes_no_release(tmp_path: Path) -> None:
    write(tmp_path)
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'no such package: shop' >&2\nexit 2\n")
    uv.chmod(0o755)
    arguments = [f"--{name}={tmp_path / name}" for name in ("application", "kit", "uv", "lock")]
    result = subprocess.run(
        [sys.executable, str(PROGRAM), f"--output={tmp_path / 'releases'}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (2, "no such package: shop\n")
    assert not (tmp_path / "releases").exists()


def test_the_archive_holds_application_kit_and_packages(build: Build, tmp_path: Path) -> None:
    write(tmp_path)
    with tarfile.open(build()["archive"]) as archive:
        assert archive.getnames() == [
            "requirements.txt",
            "kit.txt",
            "app/manage.py",
            "app/accounts/models.py",
            "app/chat/consumers.py",
            "app/chat/models.py",
            "app/chat/static/größe.css",
            "kit/channels_kit/serving/asgi.py",
        ]
        executable = [entry.name for entry in archive if entry.mode == 0o755]
        assert executable == ["app/manage.py"]
        assert {entry.mode for entry in archive} == {0o644, 0o755}
        assert {(entry.uid, entry.gid, entry.mtime) for entry in archive.getmembers()} == {
            (0, 0, 0)
        }
        packages = archive.extractfile("requirements.txt")
        assert packages is not None
        assert packages.read() == b"django==5.2\n"


def test_a_changed_byte_is_another_release(build: Build, tmp_path: Path) -> None:
    write(tmp_path)
    ids = {build()["id"]}
    for path, text in (
        ("application/chat/models.py", "models = 2\n"),
        ("kit/channels_kit/new.py", ""),
    ):
        (tmp_path / path).write_text(text)
        ids.add(build()["id"])
    (tmp_path / "application/manage.py").chmod(0o644)
    ids.add(build()["id"])
    (tmp_path / "application/chat/models.py").rename(tmp_path / "application/chat/forms.py")
    ids.add(build()["id"])
    assert len(ids) == 5
    assert len(list((tmp_path / "releases").iterdir())) == 5


def test_a_release_carries_the_version_of_the_kit(build: Build, tmp_path: Path) -> None:
    """Roles and kit belong together: a host is asked for it, and what is packed."""
    write(tmp_path)
    first = build()
    assert first["kit"] == "1.2.3"
    with tarfile.open(first["archive"]) as archive:
        version = archive.extractfile("kit.txt")
        assert version is not None
        assert version.read() == b"1.2.3\n"
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
    write(tmp_path)
    first = build(requirements="django==5.2 \\\n    --hash=sha256:00\n")
    assert first["requirements"] == "django==5.2 \\\n    --hash=sha256:00\n"
    (tmp_path / "kit/channels_kit/serving/asgi.py").write_text("application = 2\n")
    build()

    arguments = [f"--release={first['id']}", f"--output={tmp_path / 'releases'}"]
    monkeypatch.setattr(sys, "argv", ["build_release", *arguments])
    assert program.main() == 0

    assert json.loads(capsys.readouterr().out) == first


def test_other_packages_are_another_environment(build: Build, tmp_path: Path) -> None:
    write(tmp_path)
    first = build()
    (tmp_path / "application/chat/models.py").write_text("models = 2\n")
    same_packages = build()
    other_packages = build(requirements="django==6.0\n")

    assert first["environment"] == same_packages["environment"] != other_packages["environment"]
    assert len({first["id"], same_packages["id"], other_packages["id"]}) == 3


def test_what_is_excluded_is_absent_and_changes_nothing(build: Build, tmp_path: Path) -> None:
    write(tmp_path)
    before = build()
    for name in (
        "application/chat/__pycache__/models.cpython-311.pyc",
        "application/chat/models.pyc",
        "application/db.sqlite3",
        "application/staticfiles/a.css",
        "application/chat.egg-info/PKG-INFO",
        "kit/channels_kit/serving/__pycache__/asgi.cpython-311.pyc",
        "kit/channels_kit/load/client.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("left out")

    assert build() == before
    without = names(build(exclude="models.py,static")["archive"])
    assert "app/chat/models.py" not in without
    assert not [name for name in without if "static/" in name]
    assert "app/db.sqlite3" in without, "only what the operator excludes"


def test_a_linked_directory_is_packed_or_refused(build: Build, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/tags.py").write_text("tags = 1\n")
    (tmp_path / "application/shared").symlink_to(tmp_path / "shared")
    assert "app/shared/tags.py" in names(build()["archive"])


@pytest.mark.parametrize("missing", ["application", "kit"])
def test_a_missing_directory_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path)
    directories = {"application": tmp_path / "application", "kit": tmp_path / "kit"}
    directories[missing] = tmp_path / "typo"
    arguments = [f"--{name}={path}" for name, path in directories.items()]
    result = subprocess.run(
        [sys.executable, str(PROGRAM), f"--output={tmp_path / 'releases'}", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == f"{tmp_path / 'typo'} is not a directory\n"
    assert not (tmp_path / "releases").exists()


def test_an_interrupted_write_leaves_no_half_archive(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    write_bytes = Path.write_bytes

    def interrupted(path: Path, data: bytes) -> int:
        write_bytes(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert not list((tmp_path / "releases").glob("*.tar.gz"))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert len(names(build()["archive"])) == 1 + len(FILES)


POINTER = f"""\
version https://git-lfs.github.com/spec/v1
oid sha256:{"0" * 64}
size 12345
"""


def test_git_lfs_pointers_are_refused_by_name(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkout without git-lfs has a few lines of text where a file should be."""
    write(tmp_path)
    for name in ("logo.png", "font.woff"):
        (tmp_path / "application" / "static").mkdir(exist_ok=True)
        (tmp_path / "application" / "static" / name).write_text(POINTER)
    with pytest.raises(AssertionError):
        build()
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "These files of the application are Git LFS pointers, not the files themselves:",
        "  static/font.woff",
        "  static/logo.png",
        "Run: git lfs install && git lfs pull",
    ]
    build(exclude="static")


def test_a_submodule_that_is_not_checked_out_is_refused_by_name(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    application = tmp_path / "application"
    git = ("git", "-C", str(application))
    subprocess.run([*git, "init", "--quiet"], check=True)
    entry = f"160000,{'1' * 40},vendor/forms"
    subprocess.run([*git, "update-index", "--add", "--cacheinfo", entry], check=True)
    (application / "vendor" / "forms").mkdir(parents=True)
    with pytest.raises(AssertionError):
        build()
    assert capsys.readouterr().err.splitlines() == [
        "These git submodules of the application are not checked out:",
        "  vendor/forms",
        "Run: git submodule update --init --recursive",
    ]
    build(exclude="vendor")
    (application / "vendor" / "forms" / "forms.py").touch()
    build()
