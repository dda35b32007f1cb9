"""Take an application as it was at a commit of its repository.

Prints ``{"application": ..., "commit": ...}``: the directory, as it was, in its whole repository,
and the commit's full name. What is not in the repository is not in it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

KEPT = 5
"""How many commits stay on the controller, the last ones that were taken."""


def git(directory: Path, *arguments: str) -> bytes:
    """Return what git prints.

    Raises:
        CalledProcessError: it failed; its words are in stderr.
    """
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def submodules(top: Path, commit: str, directory: Path, excludes: list[str]) -> list[str]:
    """Return the submodules below a directory at a commit; git packs none of them."""
    listed = git(top, "ls-tree", "-r", "-z", commit, "--", f"./{directory}").decode()
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry]
    return [
        path
        for told, path in entries
        if told.split()[1] == "commit"
        and not any(fnmatch.fnmatchcase(name, e) for name in Path(path).parts for e in excludes)
    ]


def unpack(archive: bytes, directory: Path) -> None:
    """Unpack what git has packed; Debian's Python 3.11 has no filters that make tarfile do it.

    Raises:
        CalledProcessError: it failed; tar's words are in stderr.
    """
    command = ["tar", "--extract", "--file=-", f"--directory={directory}"]
    subprocess.run(command, check=True, input=archive, capture_output=True)


def main() -> int:
    """Take what the command line names."""
    parser = argparse.ArgumentParser(description="Take an application as it was at a commit.")
    parser.add_argument("--application", type=Path, required=True)
    parser.add_argument("--reference", required=True, help="a commit, a tag or a branch")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--exclude", default="", help="names or patterns, separated by commas")
    arguments = parser.parse_args()
    application = arguments.application.resolve()
    try:
        top = Path(git(application, "rev-parse", "--show-toplevel").decode().strip())
        name = f"{arguments.reference}^{{commit}}"
        commit = git(top, "rev-parse", "--verify", "--end-of-options", name).decode().strip()
        found = submodules(top, commit, application.relative_to(top), arguments.exclude.split(","))
        if found:
            print(
                f"Commit {commit[:12]} has git submodules, which REF= does not support:"
                f" {', '.join(found)}\n"
                "Check the commit out with its submodules, and deploy without REF=.",
                file=sys.stderr,
            )
            return 1
        taken = arguments.output.resolve() / "commits" / commit
        if not taken.is_dir():
            temporary = taken.with_name(f"{commit}.{os.getpid()}")
            temporary.mkdir(parents=True)
            unpack(git(top, "archive", commit), temporary)
            temporary.rename(taken)
        taken.touch()
        others = sorted(taken.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]
        for path in others:
            shutil.rmtree(path)
    except subprocess.CalledProcessError as error:
        print(
            f"Cannot read {arguments.reference} from the repository of {application}:\n"
            f"{error.stderr.decode().strip()}",
            file=sys.stderr,
        )
        return 1
    directories = {
        "application": str(taken / application.relative_to(top)),
    }
    print(json.dumps({**directories, "commit": commit}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
