"""List what is packed of a directory: what Git would know of it, and never what is private.

The list depends on the files alone, and not on the state of Git's index: an unchanged application
is the same release, whatever has been run in its directory.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packing import PackError

# Never packed, whatever Git knows of it: histories, environments, secrets, what editors leave.
NEVER = (
    *(".git", ".hg", ".svn", ".venv", "node_modules", ".env*", "__pycache__", "*.pyc"),
    *(".#*", "#*#", "*~", ".*.sw[a-p]", ".DS_Store"),
)
# What stands in a file that Git LFS has not brought, and the mode of a submodule in git's index.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SUBMODULE = "160000"
# A virtual environment of any name has this file.
ENVIRONMENT = "pyvenv.cfg"


@dataclass(frozen=True)
class Entry:
    """Something to pack.

    Attributes:
        name: its path in the release.
        file: where it is.
        link: what it points to, for a link that stays within the source; else empty.
    """

    name: str
    file: Path
    link: str = ""

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it. Other rights depend on who has checked it out."""
        return bool(self.file.stat().st_mode & stat.S_IXUSR)


def entries(top: Path, excludes: Sequence[str], outputs: Sequence[str] = ()) -> list[Entry]:
    """Return what is packed of a directory, in a fixed order.

    Args:
        top: the directory.
        excludes: patterns of the names that the operator leaves out.
        outputs: paths of what a build has made, packed though Git ignores them.

    Raises:
        PackError: files are not there; names them, and what brings them.
    """
    found: dict[str, Entry] = {}
    absent: list[str] = []
    for name in listed(top, "", absent):
        if not _left_out(name, excludes):
            found |= {entry.name: entry for entry in _entries(top, name, excludes)}
    for output in outputs:
        for file in _files_below(top / output):
            name = file.relative_to(top).as_posix()
            if not _left_out(name, ()):
                found |= {entry.name: entry for entry in _entries(top, name, ())}
    kept = _without_environments(found)
    # What Git does not know, a link to it leads nowhere.
    names = {entry.name for entry in kept}
    names |= {str(parent) for name in names for parent in PurePosixPath(name).parents}
    kept = [entry for entry in kept if not entry.link or _target(entry) in names]
    refuse_gaps(kept, [path for path in absent if not _left_out(path, excludes)])
    return kept


def listed(top: Path, prefix: str, absent: list[str]) -> Iterator[str]:
    """Yield the paths below a directory that Git knows or would add; of all without Git.

    Args:
        top: the directory of the source.
        prefix: where below it, with a slash at its end; for submodules.
        absent: gets the submodules that are not checked out.
    """
    directory = top / prefix
    # A submodule that somebody has copied has no repository of its own.
    alone = bool(prefix) and not (directory / ".git").exists()
    names = _by_git(directory, alone)
    if names is None:
        yield from (file.relative_to(top).as_posix() for file in _files_below(directory))
        return
    modules = set() if alone else _submodules(directory)
    for name in sorted({*names, *modules}):
        if name in modules or name.endswith("/"):  # a repository within this one
            inside = f"{prefix}{name.rstrip('/')}/"
            if (top / inside).is_dir() and any((top / inside).iterdir()):
                yield from listed(top, inside, absent)
            elif name in modules:
                absent.append(inside.rstrip("/"))
        else:
            yield prefix + name


def refuse_gaps(found: Sequence[Entry], absent: Sequence[str]) -> None:
    """Fail where files of the application are not there, and say what brings them.

    A release would be packed without them, and nobody would hear of it.
    """
    pointers = [entry.name for entry in found if not entry.link and _is_pointer(entry.file)]
    said = []
    if pointers:
        said = ["These files of the application are Git LFS pointers, not the files themselves:"]
        said += [*(f"  {name}" for name in pointers), "Run: git lfs install && git lfs pull"]
    if absent:
        said += ["These git submodules of the application are not checked out:"]
        said += [*(f"  {path}" for path in absent), "Run: git submodule update --init --recursive"]
    if said:
        raise PackError("\n".join(said))


def _target(entry: Entry) -> str:
    return os.path.normpath(PurePosixPath(entry.name).parent / entry.link)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name fits one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _left_out(name: str, excludes: Sequence[str]) -> bool:
    return any(matches(part, (*NEVER, *excludes)) for part in PurePosixPath(name).parts)


def _by_git(directory: Path, alone: bool) -> list[str] | None:
    """Return what Git would know below a directory, also one that is in no repository.

    None where there is no Git.

    Args:
        directory: where to look.
        alone: whether it stands for itself, whatever repository it is in.
    """
    list_files = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    try:
        ignored = _git("-C", str(directory), "check-ignore", "--quiet", ".")
        # Of a directory that its repository ignores, Git knows nothing: it stands for itself.
        if ignored.returncode == 1 and not alone:
            told = _git("-C", str(directory), *list_files)
            if told.returncode == 0:
                return [name for name in told.stdout.decode().split("\0") if name]
        with tempfile.TemporaryDirectory() as empty:
            _git("init", "--quiet", "--bare", empty)
            tree = (f"--git-dir={empty}", f"--work-tree={directory}")
            told = _git("-C", str(directory), *tree, *list_files)
    except OSError:
        return None
    if told.returncode:
        return None
    return [name for name in told.stdout.decode().split("\0") if name]


def _submodules(directory: Path) -> set[str]:
    """Return the submodules below a directory, by Git's index and by .gitmodules."""
    staged = _git("-C", str(directory), "ls-files", "--stage", "-z").stdout.decode()
    pairs = [entry.split("\t", 1) for entry in staged.split("\0") if "\t" in entry]
    found = {path for told, path in pairs if told.startswith(SUBMODULE)}
    if (directory / ".gitmodules").is_file():
        options = ("--file=.gitmodules", "-z", "--get-regexp", r"\.path$")
        told = _git("-C", str(directory), "config", *options).stdout.decode()
        found |= {entry.split("\n", 1)[1] for entry in told.split("\0") if "\n" in entry}
    return found


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # A hook may have set Git's own variables, which are of another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=environment)


def _entries(top: Path, name: str, excludes: Sequence[str]) -> Iterator[Entry]:
    """Yield what a path is packed as: a file, a link within the source, or what a link leads to."""
    file = top / name
    if file.is_symlink():
        target = file.resolve()
        if not target.exists():
            return  # an editor's lock, or a link to what is not there
        if target.is_relative_to(top.resolve()):
            yield Entry(name, file, os.path.relpath(target, file.parent.resolve()))
            return
        if target.is_dir():
            for inside in _files_below(target):
                below = f"{name}/{inside.relative_to(target).as_posix()}"
                if not _left_out(below, excludes) and inside.is_file():
                    yield Entry(below, inside)
            return
    if file.is_file():  # no FIFO, no socket, none that is deleted and not yet committed
        yield Entry(name, file)


def _files_below(directory: Path) -> Iterator[Path]:
    if directory.is_file():
        yield directory
    for parent, directories, names in os.walk(directory):
        links = [name for name in directories if Path(parent, name).is_symlink()]
        directories[:] = sorted(
            name for name in directories if name not in links and not matches(name, NEVER)
        )
        yield from (Path(parent, name) for name in sorted([*names, *links]))


def _without_environments(found: dict[str, Entry]) -> list[Entry]:
    """Return the entries in order, without virtual environments."""
    environments = {
        str(PurePosixPath(name).parent) for name in found if name.endswith(f"/{ENVIRONMENT}")
    }
    return [
        found[name]
        for name in sorted(found)
        if environments.isdisjoint(str(parent) for parent in PurePosixPath(name).parents)
    ]


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(LFS_POINTER)) == LFS_POINTER
