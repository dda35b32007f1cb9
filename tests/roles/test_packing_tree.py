"""What is packed of a directory is what Git would know, and never an operator's own."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from packing import PackError, tree

from .projects import git, write

FILES = {
    "manage.py": "1\n",
    "shop/models.py": "1\n",
    "shop/static/größe und mehr.css": "1\n",
    ".gitignore": "*.log\n/media/\n/static/dist/\n",
}
# Never packed: Git knows none of it, or it is never the application's.
NEVER = {
    ".env": "SECRET=1\n",
    ".env.production": "SECRET=1\n",
    ".venv/lib/django.py": "1\n",
    "shop/node_modules/left/index.js": "1\n",
    "env/pyvenv.cfg": "1\n",
    "env/lib/django.py": "1\n",
    "shop/__pycache__/models.cpython-311.pyc": "1\n",
    "shop/models.py~": "1\n",
    "shop/.models.py.swp": "1\n",
}
IGNORED = {"debug.log": "1\n", "media/a.png": "1\n", "static/dist/app.js": "1\n"}


def names(top: Path, *excludes: str, outputs: tuple[str, ...] = ()) -> list[str]:
    return [entry.name for entry in tree.entries(top, excludes, outputs)]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return write(tmp_path / "top", {**FILES, **NEVER, **IGNORED})


@pytest.fixture
def repository(top: Path) -> Path:
    git(top, "init", "--quiet")
    git(top, "add", "--force", "--all")
    git(top, "rm", "--quiet", "-r", "--cached", *IGNORED)
    git(top, "commit", "--quiet", "--message", "all of it")
    return top


def test_what_git_ignores_is_not_packed_and_what_it_would_add_is(repository: Path) -> None:
    write(repository, {"shop/new.py": "1\n"})
    assert names(repository) == sorted([*FILES, "shop/new.py"])
    (repository / "shop/models.py").unlink()
    assert "shop/models.py" not in names(repository)


def test_a_tracked_file_is_packed_though_a_pattern_ignores_it(repository: Path) -> None:
    git(repository, "add", "--force", "debug.log")
    assert "debug.log" in names(repository)


def test_a_directory_that_is_no_repository_has_its_gitignore_honoured(top: Path) -> None:
    write(top, {"shop/.gitignore": "*.tmp\n", "shop/a.tmp": "1\n"})
    assert names(top) == sorted([*FILES, "shop/.gitignore"])
    assert not list(top.glob(".git/*"))


def test_a_directory_that_its_repository_ignores_stands_for_itself(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    write(tmp_path, {".gitignore": "/copies/\n"})
    top = write(tmp_path / "copies/shop", {**FILES, **IGNORED})
    assert names(top) == sorted(FILES)


def test_a_directory_within_a_repository(repository: Path) -> None:
    assert names(repository / "shop") == ["models.py", "static/größe und mehr.css"]


def test_without_git_everything_is_packed_but_what_never_is(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert names(top) == sorted([*FILES, *IGNORED])


def test_named_outputs_are_packed_though_git_ignores_them(repository: Path) -> None:
    write(repository, {"static/dist/deep/b.js": "1\n", "static/dist/node_modules/c.js": "1\n"})
    packed = names(repository, "*.js", outputs=("static/dist",))
    assert [name for name in packed if "dist" in name] == [
        "static/dist/app.js",
        "static/dist/deep/b.js",
    ]


def test_the_operator_s_excludes(repository: Path) -> None:
    assert "shop/models.py" not in names(repository, "models.py")
    assert not [name for name in names(repository, "static") if "static/" in name]


def test_fifos_sockets_and_links_of_editors_are_not_packed(repository: Path) -> None:
    os.mkfifo(repository / "shop/pipe")
    (repository / "shop/.#models.py").symlink_to("ada@desk.4711:1")
    (repository / "shop/dangling.py").symlink_to("nowhere.py")
    with socket.socket(socket.AF_UNIX) as listener:
        # A socket's path may have 107 bytes.
        here = os.open(repository / "shop", os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/s")
        assert names(repository) == sorted(FILES)
        os.close(here)


def test_links_within_the_source_stay_links(repository: Path) -> None:
    (repository / "run.py").symlink_to("manage.py")
    (repository / "shop/assets").symlink_to("static")
    (repository / "shop/all").symlink_to(repository / "shop/static")
    (repository / "log").symlink_to("debug.log")
    (repository / "secret").symlink_to(".env")
    links = {entry.name: entry.link for entry in tree.entries(repository, ()) if entry.link}
    assert links == {"run.py": "manage.py", "shop/assets": "static", "shop/all": "static"}


def test_what_a_link_out_of_the_source_leads_to_is_packed(tmp_path: Path, repository: Path) -> None:
    write(tmp_path / "shared", {"tags.py": "1\n", ".env": "1\n", "a.pyc": "1\n"})
    (repository / "shared").symlink_to(tmp_path / "shared")
    (repository / "one.py").symlink_to(tmp_path / "shared/tags.py")
    found = {entry.name: entry for entry in tree.entries(repository, ())}
    assert {"shared/tags.py", "one.py"} <= set(found)
    assert not {"shared/.env", "shared/a.pyc"} & set(found)
    assert not found["one.py"].link


def test_executable_modes_are_the_owner_s(repository: Path) -> None:
    (repository / "manage.py").chmod(0o700)
    (repository / "shop/models.py").chmod(0o640)
    modes = {entry.name: entry.executable for entry in tree.entries(repository, ())}
    assert modes["manage.py"]
    assert not modes["shop/models.py"]


def test_git_status_changes_nothing(repository: Path) -> None:
    before = names(repository)
    for file in repository.rglob("*.py"):
        os.utime(file, (1, 1))
    git(repository, "status")
    git(repository, "gc", "--quiet")
    assert names(repository) == before


def test_submodules_come_along(tmp_path: Path, repository: Path) -> None:
    library = write(
        tmp_path / "library", {"forms.py": "1\n", "b.log": "1\n", ".gitignore": "*.log"}
    )
    git(library, "init", "--quiet")
    git(library, "add", "forms.py", ".gitignore")
    git(library, "commit", "--quiet", "--message", "forms")
    git(repository, "submodule", "--quiet", "add", str(library), "vendor/forms")
    packed = names(repository)
    assert {"vendor/forms/forms.py", "vendor/forms/.gitignore"} <= set(packed)
    assert "vendor/forms/b.log" not in packed


@pytest.mark.parametrize("known_by", ["index", ".gitmodules"])
def test_a_submodule_that_is_not_checked_out_is_refused(repository: Path, known_by: str) -> None:
    if known_by == "index":
        entry = f"160000,{'1' * 40},vendor/forms"
        git(repository, "update-index", "--add", "--cacheinfo", entry)
    else:
        text = '[submodule "forms"]\n\tpath = vendor/forms\n\turl = https://git.test/forms\n'
        write(repository, {".gitmodules": text})
    (repository / "vendor/forms").mkdir(parents=True)
    with pytest.raises(PackError) as refused:
        names(repository)
    assert str(refused.value).splitlines() == [
        "These git submodules of the application are not checked out:",
        "  vendor/forms",
        "Run: git submodule update --init --recursive",
    ]
    assert names(repository, "vendor")
    write(repository, {"vendor/forms/forms.py": "1\n"})
    assert "vendor/forms/forms.py" in names(repository)


def test_pointers_of_git_lfs_are_refused(repository: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n"
    write(repository, {"static/logo.png": pointer, "static/font.woff": pointer})
    with pytest.raises(PackError) as refused:
        names(repository)
    assert str(refused.value).splitlines() == [
        "These files of the application are Git LFS pointers, not the files themselves:",
        "  static/font.woff",
        "  static/logo.png",
        "Run: git lfs install && git lfs pull",
    ]
    assert names(repository, "static")


def test_a_hook_of_git_that_packs_reads_the_right_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "add", "--force", "debug.log")
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "-C", str(other), "init", "--quiet"], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert names(repository) == sorted([*FILES, "debug.log"])
