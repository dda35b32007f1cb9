"""The controller's archives do not pile up, and no deploy that runs loses one."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from .house import ROLES

PROGRAM = ROLES / "channels" / "files" / "prune_archives.py"
HOUR = 3600


def make(directory: Path, name: str, hours: float) -> Path:
    """Make a file, or a directory with a file in it, that was used so many hours ago."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        path.mkdir()
        (path / "file").touch()
    else:
        path.touch()
    then = time.time() - hours * HOUR
    os.utime(path, (then, then))
    return path


def prune(directory: Path, *arguments: str | Path) -> list[str]:
    command = [sys.executable, "-I", PROGRAM, f"--directory={directory}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    removed: list[str] = json.loads(result.stdout)["removed"]
    return removed


def names(paths: Iterable[Path]) -> list[str]:
    return sorted(path.name for path in paths)


def test_the_ones_that_were_used_last_stay(tmp_path: Path) -> None:
    # Made in an order that is neither that of their names nor that of their age.
    made = {
        hours: make(tmp_path, f"{hours * 7 % 31:02}.tar.gz", hours) for hours in range(100, 125)
    }
    assert prune(tmp_path) == names(made[hours] for hours in range(120, 125))
    assert names(tmp_path.iterdir()) == names(made[hours] for hours in range(100, 120))
    assert prune(tmp_path) == []
    assert prune(tmp_path, "--keep=2") == names(made[hours] for hours in range(102, 120))


def test_one_that_was_used_within_a_day_stays(tmp_path: Path) -> None:
    for number in range(4):
        make(tmp_path, f"young{number}.tar.gz", 23)
    make(tmp_path, "old.tar.gz", 25)
    assert prune(tmp_path, "--keep=1") == ["old.tar.gz"]
    assert len(list(tmp_path.iterdir())) == 4


def test_one_that_is_used_is_the_newest_from_then_on(tmp_path: Path) -> None:
    first, second, third = (make(tmp_path, f"{name}.tar.gz", 50 + name) for name in (1, 2, 3))
    assert prune(tmp_path, "--keep=1", "--used", third) == names([first, second])
    assert time.time() - third.stat().st_mtime < HOUR


def test_what_an_interrupted_run_has_left_goes(tmp_path: Path) -> None:
    left = ["a1.tar.123", "tmpx1y2/", "commits/0f.123/", ".e1.lock"]
    for name in left:
        make(tmp_path, name, 25)
    young = ["a2.tar.123", "tmpx3y4/", "commits/1f.123/", ".e2.lock"]
    for name in young:
        make(tmp_path, name, 23)
    kept = [make(tmp_path, name, 9999) for name in ("a1.tar.gz", "commits/0f/", "notes.txt")]
    assert prune(tmp_path) == sorted(name.rstrip("/") for name in left)
    assert all(path.exists() for path in [*kept, *(tmp_path / name for name in young)])


@pytest.mark.parametrize("kind", ["requirements", "wheels", "builds", "kit", "sources"])
def test_what_packing_keeps_goes_after_a_month(tmp_path: Path, kind: str) -> None:
    make(tmp_path, f"{kind}/young/", 29 * 24)
    make(tmp_path, f"{kind}/old/", 31 * 24)
    make(tmp_path, f"{kind}/old.json", 31 * 24)
    assert prune(tmp_path) == [f"{kind}/old", f"{kind}/old.json"]
    assert names((tmp_path / kind).iterdir()) == ["young"]


def test_a_lock_that_is_held_stays(tmp_path: Path) -> None:
    path = make(tmp_path, ".e1.lock", 25)
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune(tmp_path) == []
    assert prune(tmp_path) == [".e1.lock"]


@pytest.mark.parametrize("keep", ["0", "-1"])
def test_it_never_empties_the_directory(tmp_path: Path, keep: str) -> None:
    archive = make(tmp_path, "a.tar.gz", 99)
    command: list[str | Path] = [
        sys.executable,
        PROGRAM,
        f"--directory={tmp_path}",
        f"--keep={keep}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"--keep is {keep}; allowed: 1 or more" in result.stderr
    assert archive.exists()


def test_a_directory_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    assert prune(tmp_path / "none") == []
