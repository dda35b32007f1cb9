"""Run a packed application's own checks on the controller, before anything changes.

The packages are those of the hosts, built for their Python and machine, and unpacked once for each
list of packages. Standard input is what ``python -m channels_kit.examine`` reads, with the
environment of the application: it never stands on a command line. Prints that program's answer; or
``{"unexamined": WHY}`` where this machine cannot run what the hosts run.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from packing.python import interpreter

TIMEOUT = 600
"""Seconds after which an examination is given up; each start of the application has its own."""


def unpack(archive: Path, directory: Path) -> None:
    """Unpack an archive of the kit's own."""
    with tarfile.open(archive) as packed:
        # Python before 3.11.4, as Debian 12 has it, knows no filter and ignores this.
        packed.extraction_filter = getattr(tarfile, "tar_filter", None)
        packed.extractall(directory)  # noqa: S202  packed by the kit


def unpack_environment(archive: Path, python: str, version: str) -> Path:
    """Return a virtual environment with the packages of an archive, made once."""
    home = archive.parent / "examined"
    home.mkdir(exist_ok=True)
    name = archive.name.removesuffix(".tar.gz")
    target = home / name
    with (home / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            shutil.rmtree(target, ignore_errors=True)
            packages = target / "lib" / f"python{version}" / "site-packages"
            packages.mkdir(parents=True)
            unpack(archive, packages)
            (target / "bin").mkdir()
            (target / "bin" / "python").symlink_to(python)
            (target / "pyvenv.cfg").write_text(f"home = {Path(python).parent}\n")
            (target / "complete").touch()
    # Other lists of packages, of releases that are gone: the archives' own pruning is by name.
    for other in home.iterdir():
        if other.is_dir() and not (home.parent / f"{other.name}.tar.gz").exists():
            shutil.rmtree(other, ignore_errors=True)
    return target


def examine(archive: Path, environment: Path, root: str, request: bytes) -> int:
    """Unpack a release and examine it; the answer goes to standard output."""
    with tempfile.TemporaryDirectory(prefix="channels-examined-") as name:
        release = Path(name)
        unpack(archive, release)
        result = subprocess.run(
            [
                *(environment / "bin" / "python", "-m", "channels_kit.examine"),
                f"--root={release / 'app' / root}",
            ],
            input=request,
            cwd=release,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": str(release / "kit"),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            timeout=TIMEOUT,
            stdout=subprocess.PIPE,
        )
    sys.stdout.buffer.write(result.stdout)
    return result.returncode


def main() -> int:
    """Examine the release that the command line names."""
    parser = argparse.ArgumentParser(description="Examine a packed release.")
    parser.add_argument("--release", type=Path, required=True, help="its archive")
    parser.add_argument("--environment", type=Path, required=True, help="that of its packages")
    parser.add_argument("--root", default=".", help="the directory of manage.py below app/")
    parser.add_argument("--python-version", required=True, help="the hosts', such as 3.11")
    parser.add_argument("--machine", required=True, help="the hosts', such as x86_64")
    arguments = parser.parse_args()
    version, machine = arguments.python_version, arguments.machine
    request = sys.stdin.buffer.read()
    python = interpreter(version, arguments.environment.parent / "pythons")
    why = ""
    if machine != platform.machine():
        why = f"the hosts are {machine} and this machine is {platform.machine()}."
    elif not python:
        why = (
            f"the hosts run Python {version}, and this machine has none of this version. Install"
            f" one, and deploy again: {Path(sys.executable).with_name('uv')} python install"
            f" {version}"
        )
    if why:
        print(json.dumps({"unexamined": why}))
        return 0
    environment = unpack_environment(arguments.environment, python, version)
    return examine(arguments.release, environment, arguments.root, request)


if __name__ == "__main__":
    sys.exit(main())
