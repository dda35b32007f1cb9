"""Take an application as it was at a commit of its repository.

Prints ``{"application": ..., "lock": ..., "commit": ...}``: the two directories, as they were, and
the commit's full name. What is not in the repository is not in them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path


def git(directory: Path, *arguments: str) -> bytes:
    """Return what git prints.

    Raises:
        CalledProcessError: it failed; its words are in stderr.
    """
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def main() -> int:
    """Take what the command line names."""
    parser = argparse.ArgumentParser(description="Take an application as it was at a commit.")
    parser.add_argument("--application", type=Path, required=True)
    parser.add_argument("--lock", type=Path, required=True, help="the directory of uv.lock")
    parser.add_argument("--reference", required=True, help="a commit, a tag or a branch")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    application, lock = arguments.application.resolve(), arguments.lock.resolve()
    try:
        top = Path(git(application, "rev-parse", "--show-toplevel").decode().strip())
        name = f"{arguments.reference}^{{commit}}"
        commit = git(top, "rev-parse", "--verify", "--end-of-options", name).decode().strip()
        taken = arguments.output.resolve() / "commits" / commit
        if not taken.is_dir():
            temporary = taken.with_name(f"{commit}.{os.getpid()}")
            with tarfile.open(fileobj=io.BytesIO(git(top, "archive", commit))) as archive:
                archive.extractall(temporary, filter="data")
            temporary.rename(taken)
    except subprocess.CalledProcessError as error:
        print(f"{arguments.reference} cannot be taken from the repository of {application}:")
        print(error.stderr.decode().strip())
        return 1
    if not lock.is_relative_to(top):
        print(f"{lock} is not in the repository of {application}, {top}")
        return 1
    directories = {
        "application": str(taken / application.relative_to(top)),
        "lock": str(taken / lock.relative_to(top)),
    }
    print(json.dumps({**directories, "commit": commit}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
