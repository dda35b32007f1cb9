"""An application is taken as it was at a commit, and not as it lies there."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from .house import ROLES

PROGRAM = ROLES / "channels" / "files" / "take_commit.py"


@dataclass
class Repository:
    """A repository with an application, its lock beside it, and what is taken from it."""

    top: Path
    output: Path

    def git(self, *arguments: str) -> str:
        # Nobody's configuration but what is said here.
        nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        result = subprocess.run(
            ["git", *author, "-C", str(self.top), *arguments],
            env={**os.environ, **nobody},
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, text: str) -> str:
        """Commit an application and a lock of some words, and return the commit's name."""
        self.write("src/manage.py", f"print('{text}')\n")
        self.write("uv.lock", f"# {text}\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", text)
        return self.git("rev-parse", "HEAD")

    def take(
        self, reference: str, application: str = "src", exclude: str = "*.pyc"
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                *(sys.executable, PROGRAM),
                f"--application={self.top / application}",
                *(f"--reference={reference}", f"--output={self.output}"),
                f"--exclude={exclude}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    def taken(self, reference: str) -> tuple[str, str, str]:
        """The commit that is taken, and what stands in its application and its lock."""
        result = self.take(reference)
        assert result.returncode == 0, result.stderr
        told = json.loads(result.stdout)
        application = Path(told["application"])
        return (
            told["commit"],
            (application / "manage.py").read_text(),
            (application.parent / "uv.lock").read_text(),
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "repository", tmp_path / "output")
    repository.top.mkdir()
    repository.git("init", "--quiet", "--initial-branch=main")
    return repository


@pytest.fixture
def first(repository: Repository) -> str:
    """The first of two commits: a tag names it, and a branch."""
    first = repository.commit("first")
    repository.git("tag", "--annotate", "v1.0", "--message", "The first one")
    repository.git("branch", "maintained")
    repository.commit("second")
    return first


@pytest.mark.parametrize("reference", ["v1.0", "maintained", "main~1", "HEAD^"])
def test_a_tag_a_branch_or_a_commit_is_taken(
    repository: Repository, first: str, reference: str
) -> None:
    assert repository.taken(reference) == (first, "print('first')\n", "# first\n")


def test_a_commit_is_taken_by_its_name_in_short(repository: Repository, first: str) -> None:
    assert repository.taken(first[:10])[0] == first


def test_a_branch_that_has_moved_on_is_taken_as_it_is_now(
    repository: Repository, first: str
) -> None:
    assert repository.taken("main")[1] == "print('second')\n"
    third = repository.commit("third")
    assert repository.taken("main") == (third, "print('third')\n", "# third\n")
    assert repository.taken("v1.0")[0] == first


def test_what_is_not_committed_is_not_taken(repository: Repository, first: str) -> None:
    repository.write("src/manage.py", "print('not yet')\n")
    repository.write("src/secret.env", "KEY=1\n")
    told = json.loads(repository.take("HEAD").stdout)
    application = Path(told["application"])
    assert [path.name for path in application.iterdir()] == ["manage.py"]
    assert (application / "manage.py").read_text() == "print('second')\n"
    # Nor is anything of the operator's put away.
    assert (repository.top / "src/manage.py").read_text() == "print('not yet')\n"
    assert repository.git("status", "--short").split("\n")[-1] == "?? src/secret.env"


def test_what_is_taken_is_as_executable_as_it_was(repository: Repository) -> None:
    repository.write("src/run", "#!/bin/sh\n")
    (repository.top / "src/run").chmod(0o755)
    (repository.top / "src/link").symlink_to("/etc/hosts")
    repository.commit("a program")
    application = Path(json.loads(repository.take("main").stdout)["application"])
    assert os.access(application / "run", os.X_OK)
    assert not os.access(application / "manage.py", os.X_OK)
    assert (application / "link").readlink() == Path("/etc/hosts")


def test_a_commit_is_unpacked_once(repository: Repository, first: str) -> None:
    repository.taken("v1.0")
    (commit,) = (repository.output / "commits").iterdir()
    assert commit.name == first
    (commit / "src" / "manage.py").write_text("print('taken before')\n")
    assert repository.taken(first)[1] == "print('taken before')\n"


@pytest.mark.parametrize("reference", ["v9.9", "--help", "main:src"])
def test_a_reference_that_there_is_none_of_fails_with_the_words_of_git(
    repository: Repository, first: str, reference: str
) -> None:
    result = repository.take(reference)
    assert result.returncode == 1
    assert result.stdout == ""
    said, words = result.stderr.split("\n", 1)
    application = repository.top / "src"
    assert said == f"Cannot read {reference} from the repository of {application}:"
    assert "fatal:" in words or "error:" in words
    assert "Traceback" not in words
    assert not repository.output.exists()


def test_an_application_outside_a_repository_fails_with_the_words_of_git(
    repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    result = repository.take("main", application="../elsewhere")
    assert result.returncode == 1
    assert "not a git repository" in result.stderr


def test_submodules_of_the_application_are_refused_by_name(
    repository: Repository, first: str
) -> None:
    """git packs an empty directory in their place."""
    for path in ("src/vendor/form lib", "docs/theme"):
        entry = f"160000,{first},{path}"
        repository.git("update-index", "--add", "--cacheinfo", entry)
    repository.git("commit", "--quiet", "--message", "submodules")
    result = repository.take("main")
    assert result.returncode == 1
    commit = repository.git("rev-parse", "main")
    assert result.stderr.splitlines()[0] == (
        f"Commit {commit[:12]} has git submodules, which REF= does not support: src/vendor/form lib"
    )
    assert not repository.output.exists()
    assert repository.take("main", exclude="*.pyc,vendor").returncode == 0
    assert repository.take("v1.0").returncode == 0


def test_the_last_ones_that_were_taken_stay(repository: Repository) -> None:
    commits = [repository.commit(f"number {number}") for number in range(7)]
    for number, commit in enumerate([*commits[:5], commits[0], *commits[5:]]):
        repository.taken(commit)
        # A clock that tells them apart.
        os.utime(repository.output / "commits" / commit, (number, number))
    kept = {path.name for path in (repository.output / "commits").iterdir()}
    assert kept == {commits[0], *commits[3:]}
