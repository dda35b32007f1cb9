"""Run the operator's build in a clean copy of the application, once for the same input."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from packing import PackError
from packing.requirements import Answer
from packing.tree import NEVER, Entry, matches
from packing.uv import Target, Uv

# What is left of the output of a command that failed.
LINES = 40
# Commands that need the application's packages.
PYTHON = ("python", "python3", "manage.py", "django-admin", "./manage.py")


def built(
    commands: Sequence[str],
    entries: Sequence[Entry],
    outputs: Sequence[str],
    answer: Answer,
    target: Target,
    uv: Uv,
    cache: Path,
) -> list[Entry]:
    """Return what the commands make of the application.

    Args:
        commands: each is run by sh, in the top of the copy.
        entries: the application.
        outputs: paths of what to take; where there are none, all that is new or has changed.
        answer: the packages that commands of Python get.
        target: the hosts, whose Python such commands get if this machine has it.
        uv: makes their environment.
        cache: the directory that keeps what was made.

    Raises:
        PackError: a command failed; with its words.
    """
    needs_python = any(word in PYTHON for command in commands for word in command.split())
    key = _key(commands, entries, outputs, answer.text if needs_python else "")
    kept = cache.resolve() / "builds" / key
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            copy = Path(temporary, "application")
            copy.mkdir()
            for entry in entries:
                _copy(entry, copy)
            path = os.environ["PATH"]
            if needs_python:
                path = f"{_environment(Path(temporary), answer, target, uv)}:{path}"
            for command in commands:
                _run(command, copy, path)
            result = Path(temporary, "result")
            result.mkdir()
            _collect(copy, result, entries, outputs)
            result.rename(kept)
    os.utime(kept)
    return [Entry(name, kept / name) for name in _names(kept)]


def _run(command: str, directory: Path, path: str) -> None:
    environment = {**os.environ, "PATH": path, "CI": "true"}
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-LINES:])
        raise PackError(
            f"channels_build: {command!r} exited with status {done.returncode}:\n{said}"
        )


def _environment(temporary: Path, answer: Answer, target: Target, uv: Uv) -> Path:
    """Return the directory of the programs of an environment with the application's packages."""
    environment = temporary / "environment"
    make = ("venv", "--quiet", "--no-project", environment)
    try:
        uv.run(temporary, *make, f"--python={target.minor}")
    except PackError:
        uv.run(temporary, *make)
    uv.run(
        temporary,
        *("pip", "install", "--quiet", "--no-deps", f"--python={environment}"),
        *(f"--find-links={directory}" for directory in {wheel.parent for wheel in answer.wheels}),
        "--requirement=-",
        text=answer.text,
    )
    return environment / "bin"


def _collect(copy: Path, result: Path, entries: Sequence[Entry], outputs: Sequence[str]) -> None:
    """Take what the build has made."""
    for output in outputs:
        if not (copy / output).exists():
            raise PackError(
                f"channels_source_includes has {output}; the commands of channels_build do not"
                " create it. Correct the path or the commands"
            )
    before = {entry.name: entry for entry in entries}
    for name in _names(copy):
        inside = any(PurePosixPath(name).is_relative_to(output) for output in outputs)
        file = copy / name
        if (outputs and not inside) or file.is_symlink():
            continue
        if name in before and before[name].file.read_bytes() == file.read_bytes():
            continue
        target = result / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def _copy(entry: Entry, directory: Path) -> None:
    target = directory / entry.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.link:
        target.symlink_to(entry.link)
    else:
        shutil.copyfile(entry.file, target)
        target.chmod(0o755 if entry.executable else 0o644)


def _names(directory: Path) -> list[str]:
    found = []
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if not matches(name, NEVER)]
        found += [
            Path(parent, name).relative_to(directory).as_posix()
            for name in names
            if not matches(name, NEVER) and Path(parent, name).is_file()
        ]
    return sorted(found)


def _key(
    commands: Sequence[str], entries: Sequence[Entry], outputs: Sequence[str], requirements: str
) -> str:
    digest = hashlib.sha256(repr((list(commands), list(outputs), requirements)).encode())
    for entry in entries:
        content = entry.link.encode() if entry.link else entry.file.read_bytes()
        digest.update(f"{entry.name}\0{entry.executable}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:20]
