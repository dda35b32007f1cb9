"""Install a release's Python packages for a host, and pack them.

Run on the controller, so that every host gets the same bytes and none asks a package registry. The
list of packages with their hashes, as pip reads it, is standard input; only wheels are installed,
those of an index and those that the release brings, so no code of a package runs. Prints the path
of the archive, which unpacks into ``site-packages``.
"""

from __future__ import annotations

import argparse
import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

from packing import PackError, python
from packing import archive as releases
from packing.uv import Uv


def install(
    uv: Path, requirements: bytes, version: str, machine: str, target: Path, wheels: Path
) -> None:
    """Install the packages for another machine's Python into a directory."""
    subprocess.run(
        [
            *(uv, "pip", "install", "--quiet", "--target", target, "--no-deps"),
            *("--require-hashes", "--only-binary", ":all:", "--link-mode", "copy"),
            *("--find-links", wheels),
            *("--python-version", version, "--python-platform", f"{machine}-unknown-linux-gnu"),
            *("--requirement", "-"),
        ],
        input=requirements,
        check=True,
    )


def compile_for(target: Path, final: str) -> None:
    """Compile the modules as they will stand on the host.

    Checked by nothing at run time: the files of an environment never change. Packages have files
    that this Python cannot parse, such as templates: these are of no concern until one is imported.
    """
    subprocess.run(
        [
            *(sys.executable, "-m", "compileall", "-qq", "-j", "0"),
            *("--invalidation-mode", "unchecked-hash", "-s", target, "-p", final, target),
        ],
        check=False,
    )


def main() -> int:
    """Build what the command line names, unless it is there."""
    parser = argparse.ArgumentParser(description="Pack a release's Python packages.")
    parser.add_argument("--uv", type=Path, required=True)
    parser.add_argument("--name", required=True, help="what the archive is called")
    parser.add_argument("--release", type=Path, help="the archive that brings wheels")
    parser.add_argument("--python-version", required=True, help="the host's, such as 3.11")
    parser.add_argument("--python", default="", help="the full version of one that uv brings")
    parser.add_argument("--machine", required=True, help="the host's, such as x86_64")
    parser.add_argument("--final", required=True, help="where it is unpacked on the host")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    requirements = sys.stdin.buffer.read()
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    if arguments.python:
        python.bring(Uv(arguments.uv), arguments.python, arguments.machine, output)
    archive = output / f"{arguments.name}.tar.gz"
    # Several hosts may ask for it at once: the first one builds.
    with (output / f".{arguments.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            with (
                tempfile.TemporaryDirectory(dir=output) as directory,
                tempfile.TemporaryDirectory(dir=output) as brought,
            ):
                target, wheels = Path(directory), Path(brought)
                if arguments.release:
                    releases.unpack_wheels(arguments.release, wheels)
                version = arguments.python_version
                install(arguments.uv, requirements, version, arguments.machine, target, wheels)
                # Another Python's bytecode is of no use to the host, which then compiles.
                if version == f"{sys.version_info.major}.{sys.version_info.minor}":
                    compile_for(target, arguments.final)
                # bin/ holds scripts that would start the controller's Python.
                releases.pack_directory(
                    target, archive, 1, lambda path: path.parts[0] not in ("bin", ".lock")
                )
    print(archive)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PackError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} exited with status {error.returncode}. See its output above.")
