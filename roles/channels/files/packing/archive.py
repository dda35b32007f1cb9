"""Write and read a release's archive: the same bytes for the same content."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

from packing.tree import Entry, matches

# What says of a release what it is. Releases of version 0.3.0 and before have the second alone.
DESCRIPTION = "release.json"
KIT_VERSION = "kit.txt"
REQUIREMENTS = "requirements.txt"
# The load tool drives a cluster; no host of one has it.
KIT_EXCLUDES = ("__pycache__", "*.pyc", "load")

MANAGE = """\
#!/usr/bin/env python
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
"""The manage.py of an application that has none, such as one in a wheel."""


class Archive:
    """A release's archive while it is written."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, content: bytes, executable: bool = False) -> None:
        """Add a file that is root's, without a time: neither shall make two releases differ."""
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        entry.mode = 0o755 if executable else 0o644
        self._tar.addfile(entry, io.BytesIO(content))

    def add_entry(self, below: str, entry: Entry) -> None:
        """Add a file or a link of the application."""
        if not entry.link:
            self.add(f"{below}/{entry.name}", entry.file.read_bytes(), entry.executable)
            return
        link = tarfile.TarInfo(f"{below}/{entry.name}")
        link.type = tarfile.SYMTYPE
        link.linkname = entry.link
        link.mode = 0o777
        self._tar.addfile(link)

    def add_directory(self, below: str, directory: Path) -> None:
        """Add what a directory of the kit's holds."""
        for file in kit_files(directory):
            name = file.relative_to(directory).as_posix()
            self.add(f"{below}/{name}", file.read_bytes(), os.access(file, os.X_OK))

    def content(self) -> bytes:
        """Return the bytes, uncompressed. Nothing can be added after it."""
        self._tar.close()
        return self._buffer.getvalue()


def kit_files(directory: Path) -> Iterator[Path]:
    """Yield the files of the kit in a fixed order."""
    for parent, directories, names in os.walk(directory, followlinks=True):
        directories[:] = sorted(name for name in directories if not matches(name, KIT_EXCLUDES))
        yield from (Path(parent, name) for name in sorted(names) if not matches(name, KIT_EXCLUDES))


def keep(content: bytes, directory: Path) -> tuple[str, Path]:
    """Write a release's archive unless it is there; return the release's name and the path."""
    release = hashlib.sha256(content).hexdigest()[:12]
    archive = directory / f"{release}.tar.gz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        temporary = archive.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
        temporary.replace(archive)
    return release, archive


def pack_directory(
    source: Path, archive: Path, compresslevel: int, is_packed: Callable[[PurePath], bool]
) -> None:
    """Pack a directory: the same bytes for the same files, in one rename.

    Args:
        source: the directory.
        archive: what is written.
        compresslevel: of gzip.
        is_packed: returns whether a path below the directory comes along.
    """

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry if is_packed(PurePath(entry.name)) else None

    temporary = archive.with_suffix(f".{os.getpid()}")
    with (
        temporary.open("wb") as file,
        gzip.GzipFile(
            filename="", fileobj=file, mode="wb", compresslevel=compresslevel, mtime=0
        ) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(source.iterdir()):
            tar.add(path, path.name, filter=anonymous)
    temporary.replace(archive)


def describe(release: str, archive: Path) -> dict[str, Any]:
    """Return what a play has to know of a packed release."""
    with tarfile.open(archive) as packed:
        texts = {name: _text(packed, name) for name in (DESCRIPTION, REQUIREMENTS, KIT_VERSION)}
    described = json.loads(texts[DESCRIPTION] or "{}")
    return {
        "kit": texts[KIT_VERSION].strip(),
        "python": "",
        **described,
        "id": release,
        "archive": str(archive),
        "environment": hashlib.sha256(texts[REQUIREMENTS].encode()).hexdigest()[:12],
        "requirements": texts[REQUIREMENTS],
    }


def unpack_wheels(archive: Path, directory: Path) -> None:
    """Unpack the wheels of a release into a directory."""
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.name.startswith("app/"):
                break
            name = Path(member.name)
            file = packed.extractfile(member) if member.isfile() else None
            if file and name.parent == Path("wheels"):
                (directory / name.name).write_bytes(file.read())


def _text(packed: tarfile.TarFile, name: str) -> str:
    # The description stands in front: an archive is not read to its end for a file it may lack.
    for member in packed:
        if member.name == name:
            file = packed.extractfile(member)
            return file.read().decode() if file else ""
        if member.name.startswith("app/"):
            break
    return ""
