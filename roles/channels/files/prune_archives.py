"""Remove archives of releases and of Python packages that nobody has used for long.

Run on the controller. The archives that are given as used are marked as used now. Of all archives
the newest stay, by when they were used last, and each that was used within a day, so that no
deploy that runs loses its own. What an interrupted run has left behind goes with them, and what
packing keeps and nobody has used for a month. A release that is not here any more is fetched from a
host that has it.

Prints ``{"removed": [...]}``: the names that were removed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ARCHIVES = "*.tar.gz"
KEEP = 20
DAY = 24 * 60 * 60.0
MONTH = 30 * DAY
# What packing keeps: resolved packages, built wheels, output of builds, unpacked sources.
KEPT = ("requirements", "wheels", "builds", "kit", "sources", "repositories", "pythons")


def prune(directory: Path, keep: int, now: float) -> list[str]:
    """Remove what is not needed; return the names of what was removed.

    Args:
        directory: where the archives are.
        keep: how many stay, however old.
        now: seconds since 1970.
    """
    archives = sorted(directory.glob(ARCHIVES), key=last_used, reverse=True)
    unwanted = [*archives[keep:], *leftovers(directory)]
    unwanted = [path for path in unwanted if now - last_used(path) >= DAY]
    kept = [path for kind in KEPT for path in directory.glob(f"{kind}/*")]
    unwanted += [path for path in kept if now - last_used(path) >= MONTH]
    removed = []
    for path in unwanted:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        removed.append(str(path.relative_to(directory)))
    return sorted(removed)


def last_used(path: Path) -> float:
    """Return when an archive was used last; infinity where somebody has just removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def leftovers(directory: Path) -> Iterator[Path]:
    """Yield what belongs to a run that packs, or that was interrupted."""
    # What is written before it gets its name: NAME.tar.PROCESS, a directory, COMMIT.PROCESS.
    yield from (path for path in directory.glob("*.tar.*") if path.suffix[1:].isdigit())
    yield from (path for path in directory.glob("tmp*") if path.is_dir())
    yield from (path for path in directory.glob("commits/*.*") if path.suffix[1:].isdigit())
    for path in directory.glob(".*.lock"):
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # somebody packs
            yield path


def main() -> int:
    """Prune what the command line names."""
    parser = argparse.ArgumentParser(description="Remove archives that are not used any more.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--keep", type=int, default=KEEP, help="how many stay (default: 20)")
    parser.add_argument("--used", type=Path, nargs="*", default=[], help="archives in use now")
    arguments = parser.parse_args()
    if arguments.keep < 1:
        parser.error(f"--keep is {arguments.keep}; allowed: 1 or more")
    for archive in arguments.used:
        os.utime(archive)
    removed = prune(arguments.directory, arguments.keep, time.time())
    print(json.dumps({"removed": removed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
