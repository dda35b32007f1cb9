"""Turn the source that an operator names into a directory."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

from packing import PackError

# What a source without a .gitignore has, and no release needs.
EXCLUDES = ("*.egg-info", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox", ".nox")


def directory(given: Path, output: Path) -> Path:
    """Return the directory of a source: itself, or what a wheel or an sdist holds.

    Raises:
        PackError: it is neither.
    """
    if given.is_dir():
        return given.resolve()
    if not given.is_file():
        raise PackError(f"{given} is not a directory, a wheel or a source distribution")
    kept = output / "sources" / hashlib.sha256(given.read_bytes()).hexdigest()[:20]
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            unpacked = Path(temporary, "unpacked")
            unpacked.mkdir()
            if given.suffix in (".whl", ".zip"):
                _unzip(given, unpacked)
            elif given.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
                _untar(given, unpacked)
            else:
                raise PackError(f"{given} is not a directory, a wheel or a source distribution")
            inside = list(unpacked.iterdir())
            # A source distribution has one directory, named after it.
            only = inside[0] if len(inside) == 1 and inside[0].is_dir() else unpacked
            if given.suffix == ".whl":
                _list_requirements(unpacked)
                only = unpacked
            only.rename(kept)
    os.utime(kept)
    return kept


def _unzip(file: Path, target: Path) -> None:
    with zipfile.ZipFile(file) as opened:
        opened.extractall(target)  # noqa: S202  zipfile takes ".." out of names


def _untar(file: Path, target: Path) -> None:
    """Unpack files and directories; Debian's Python 3.11 has no filters that make tarfile do it."""
    with tarfile.open(file) as opened:
        for member in opened:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise PackError(f"{file} contains a path outside the archive: {member.name}")
            content = opened.extractfile(member) if member.isfile() else None
            if content:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as written:
                    shutil.copyfileobj(content, written)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _list_requirements(wheel: Path) -> None:
    """Write down what a wheel requires where it is looked for, unless it brings a list."""
    metadata = next(wheel.glob("*.dist-info/METADATA"), None)
    listed = wheel / "requirements.txt"
    if metadata and not listed.exists():
        read = Parser().parsestr(metadata.read_text())
        wanted = [line for line in read.get_all("Requires-Dist", []) if "extra ==" not in line]
        listed.write_text("".join(f"{line}\n" for line in wanted))
