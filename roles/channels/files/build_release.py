"""Pack a release: the application, the kit's library, and the list of Python packages.

Run on the controller. The list of packages, as pip reads it, is what uv exports from the lock. The
archive is the same bytes for the same content, whenever and wherever it is packed, and its name is
a hash of them. With --release an archive that has been packed before is read instead.

Prints ``{"id": ..., "archive": ..., "environment": ..., "requirements": ..., "kit": ...}``;
environment names the virtual environment that the packages make, so that releases which need the
same ones share it; kit is the version of the library.
"""

from __future__ import annotations

import argparse
import fnmatch
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# Where a release says which version of the kit it carries.
KIT_VERSION = "kit.txt"
# What stands in a file that Git LFS has not brought, and the mode of a submodule in git's index.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SUBMODULE = "160000 "
# The load tool drives a cluster; no host of one has it.
KIT_EXCLUDES = ("__pycache__", "*.pyc", "load")


def files(directory: Path, excludes: Sequence[str]) -> Iterator[Path]:
    """Yield the files below a directory in a fixed order, without those whose name is excluded."""
    for parent, directories, names in os.walk(directory, followlinks=True):
        directories[:] = sorted(name for name in directories if not matches(name, excludes))
        for name in sorted(names):
            if not matches(name, excludes):
                yield Path(parent, name)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name fits one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def add(archive: tarfile.TarFile, name: str, content: bytes, executable: bool = False) -> None:
    """Add a file that is root's, without a time: neither shall make two releases differ."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o755 if executable else 0o644
    archive.addfile(entry, io.BytesIO(content))


def pack(application: Path, kit: Path, requirements: bytes, excludes: Sequence[str]) -> bytes:
    """Return the archive: application, kit and list of packages."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "requirements.txt", requirements)
        add(archive, KIT_VERSION, (kit / "VERSION").read_bytes())
        for source, target, left_out in (
            (application, Path("app"), excludes),
            (kit / "channels_kit", Path("kit/channels_kit"), KIT_EXCLUDES),
        ):
            for file in files(source, left_out):
                name = str(target / file.relative_to(source))
                add(archive, name, file.read_bytes(), os.access(file, os.X_OK))
    return buffer.getvalue()


def gaps(application: Path, excludes: Sequence[str]) -> list[str]:
    """Return which files of the application are not there, and what brings them, in lines.

    A release would be packed without them, and nobody would hear of it.
    """
    pointers = [
        f"  {file.relative_to(application)}"
        for file in files(application, excludes)
        if file.read_bytes().startswith(LFS_POINTER)
    ]
    absent = [
        f"  {path}"
        for path in submodules(application)
        if not any(matches(name, excludes) for name in Path(path).parts)
        and not any(Path(application, path).glob("*"))
    ]
    said = []
    if pointers:
        said = ["These files of the application are Git LFS pointers, not the files themselves:"]
        said += [*pointers, "Run: git lfs install && git lfs pull"]
    if absent:
        said += ["These git submodules of the application are not checked out:", *absent]
        said += ["Run: git submodule update --init --recursive"]
    return said


def submodules(application: Path) -> list[str]:
    """Return the git submodules below a directory; none where it is in no repository."""
    command = ["git", "-C", str(application), "ls-files", "--stage", "-z"]
    try:
        found = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return []
    entries = [entry.split("\t", 1) for entry in found.split("\0") if entry]
    return [path for mode, path in entries if mode.startswith(SUBMODULE)]


def requirements_of(lock: Path, uv: Path, package: str, extra: str) -> bytes:
    """Return what a package of a locked workspace needs, with hashes, as pip reads it."""
    quiet = ("--quiet", "--frozen", "--no-dev", "--no-emit-workspace", "--no-header")
    wanted = (f"--package={package}", f"--extra={extra}", f"--project={lock}")
    command = [str(uv), "export", *quiet, "--no-annotate", *wanted]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def describe(release: str, archive: Path) -> dict[str, str]:
    """Return what a play has to know of a packed release."""
    with tarfile.open(archive) as packed:
        texts = {name: packed.extractfile(name) for name in ("requirements.txt", KIT_VERSION)}
        requirements, kit = (file.read() if file else b"" for file in texts.values())
    return {
        "id": release,
        "archive": str(archive),
        "environment": hashlib.sha256(requirements).hexdigest()[:12],
        "requirements": requirements.decode(),
        "kit": kit.decode().strip(),
    }


def main() -> int:
    """Pack or read what the command line names."""
    parser = argparse.ArgumentParser(description="Pack a release of the application.")
    parser.add_argument("--application", type=Path)
    parser.add_argument("--kit", type=Path, help="the directory of VERSION and channels_kit/")
    parser.add_argument("--release", help="one that is packed; no application and no kit is read")
    parser.add_argument("--lock", type=Path, help="the directory of uv.lock")
    parser.add_argument("--uv", type=Path)
    parser.add_argument("--package", help="of the lock, which the application is")
    parser.add_argument("--extra", help="of that package: the server")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--exclude", default="", help="names or patterns, separated by commas")
    arguments = parser.parse_args()
    directory = arguments.output.resolve()
    if arguments.release:
        archive = directory / f"{arguments.release}.tar.gz"
        print(json.dumps(describe(arguments.release, archive)))
        return 0
    for source in (arguments.application, arguments.kit):
        if not source.is_dir():
            print(f"{source} is not a directory", file=sys.stderr)
            return 1
    excludes = arguments.exclude.split(",")
    if missing := gaps(arguments.application, excludes):
        print("\n".join(missing), file=sys.stderr)
        return 1

    try:
        requirements = requirements_of(
            arguments.lock, arguments.uv, arguments.package, arguments.extra
        )
    except subprocess.CalledProcessError as error:
        return int(error.returncode)  # uv has said why
    content = pack(arguments.application, arguments.kit, requirements, excludes)
    release = hashlib.sha256(content).hexdigest()[:12]
    archive = directory / f"{release}.tar.gz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        temporary = archive.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(gzip.compress(content, mtime=0))
        temporary.replace(archive)
    print(json.dumps(describe(release, archive)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
