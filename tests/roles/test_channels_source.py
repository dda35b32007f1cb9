"""The module channels_source: a commit of a Git repository, on the controller."""

import base64
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .house import Tree
from .modules import run_module
from .projects import git, write

TOKEN = "glpat-0123456789abcdef"


@pytest.fixture(autouse=True)
def git_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"gitconfig": '[protocol "file"]\n\tallow = always\n'})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    origin = write(tmp_path / "origin", {"manage.py": "print('first')\n"})
    git(origin, "init", "--quiet", "--initial-branch=main")
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--message", "first")
    git(origin, "tag", "v1.0")
    commit(origin, "second")
    return origin


def commit(origin: Path, text: str) -> str:
    write(origin, {"manage.py": f"print('{text}')\n"})
    git(origin, "commit", "--quiet", "--all", "--message", text)
    return git(origin, "rev-parse", "HEAD")


def take(tmp_path: Path, url: str, reference: str = "", token: str = "") -> Tree:
    directory = str(tmp_path / "kept")
    return run_module(
        "channels_source", url=url, reference=reference, token=token, directory=directory
    )


def text_of(answer: Tree) -> str:
    return Path(answer["path"], "manage.py").read_text()


def test_a_tag_a_branch_and_the_default_branch(tmp_path: Path, origin: Path) -> None:
    url = f"file://{origin}"
    first = take(tmp_path, url, "v1.0")
    assert (text_of(first), first["commit"]) == (
        "print('first')\n",
        git(origin, "rev-parse", "v1.0"),
    )
    assert (
        text_of(take(tmp_path, url)) == text_of(take(tmp_path, url, "main")) == "print('second')\n"
    )
    assert text_of(take(tmp_path, url, first["commit"][:12])) == "print('first')\n"
    assert not first["changed"]


def test_a_branch_that_has_moved_on(tmp_path: Path, origin: Path) -> None:
    url = f"file://{origin}"
    take(tmp_path, url)
    third = commit(origin, "third")
    again = take(tmp_path, url)
    assert (again["commit"], text_of(again)) == (third, "print('third')\n")


def test_submodules_come_along(tmp_path: Path, origin: Path) -> None:
    library = write(tmp_path / "library", {"forms.py": "1\n"})
    git(library, "init", "--quiet")
    git(library, "add", "--all")
    git(library, "commit", "--quiet", "--message", "forms")
    git(origin, "submodule", "--quiet", "add", "../library", "vendor/forms")
    git(origin, "commit", "--quiet", "--all", "--message", "forms")
    assert Path(take(tmp_path, f"file://{origin}")["path"], "vendor/forms/forms.py").is_file()


def test_the_last_commits_stay(tmp_path: Path, origin: Path) -> None:
    url = f"file://{origin}"
    for number in range(7):
        commit(origin, f"number {number}")
        last = take(tmp_path, url)
    kept = [path for path in Path(last["path"]).parent.iterdir() if len(path.name) == 40]
    assert len(kept) == 5
    assert Path(last["path"]) in kept


@pytest.mark.parametrize("reference", ["v9.9", "--upload-pack=x"])
def test_a_reference_that_there_is_none_of(tmp_path: Path, origin: Path, reference: str) -> None:
    answer = take(tmp_path, f"file://{origin}", reference)
    assert answer["failed"]
    assert answer["msg"].startswith(
        f"Cannot take {reference} of file://{origin}. Nothing changed.\n"
    )


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a bare repository to whoever has the token."""

    def do_GET(self) -> None:
        told = self.headers.get("Authorization", "")
        given = base64.b64decode(told.removeprefix("Basic ")).decode().partition(":")[2]
        if given != TOKEN:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def private(tmp_path: Path, origin: Path) -> Iterator[str]:
    """The URL of a repository that asks for the token."""
    git(tmp_path, "clone", "--quiet", "--bare", str(origin), "served/shop.git")
    git(tmp_path / "served/shop.git", "update-server-info")
    handler = functools.partial(Server, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/shop.git"
        server.shutdown()
        thread.join()


def test_a_token_opens_a_private_repository_and_is_kept_nowhere(
    tmp_path: Path, private: str
) -> None:
    answer = take(tmp_path, private, token=TOKEN)
    assert text_of(answer) == "print('second')\n"
    assert TOKEN not in answer["output"]
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize("token", ["", "wrong-token-1234567890"])
def test_without_the_right_token_it_fails_and_asks_nobody(
    tmp_path: Path, private: str, token: str
) -> None:
    answer = take(tmp_path, private, token=token)
    assert answer["failed"]
    assert "Nothing changed" in answer["msg"]
    assert "Traceback" not in answer["output"]
    if token:
        assert token not in answer["output"]
