"""What /proc and the runtime directory say of a worker's processes.

While a reload replaces a worker, its unit has more than one process: the main one, which listens,
and those that it has retired, which serve the sockets that they have. Each has a control socket in
the unit's runtime directory, named by its process ID: `channels_kit.serving.control`.
"""

from __future__ import annotations

import re
from pathlib import Path

PROC = Path("/proc")
RUN = Path("/run")

UNIT = re.compile(r"channels-web@([0-9]+)\.service")


def directory_of(unit: str, run: Path | None = None) -> Path | None:
    """Return where the processes of a worker's unit have their control sockets; None: no worker."""
    match = UNIT.fullmatch(unit)
    return (run or RUN) / "channels-web" / match[1] if match else None


def is_there(process: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        stat = (PROC / str(process) / "stat").read_text()
    except OSError:
        return False
    # proc_pid_stat(5): the state follows the name, which may hold anything, in parentheses.
    return stat.rpartition(")")[2].split()[0] != "Z"


def processes_of(unit: str, run: Path | None = None) -> list[int]:
    """Return the processes of a worker's unit that have a control socket and run."""
    directory = directory_of(unit, run)
    try:
        names = [path.stem for path in directory.glob("*.sock")] if directory else []
    except OSError:
        names = []
    return sorted(int(name) for name in names if name.isdecimal() and is_there(int(name)))


def can_be_replaced(unit: str, main: int) -> bool:
    """Return whether a new process can be started beside the main one."""
    return main in processes_of(unit)


def others_of(unit: str, main: int, run: Path | None = None) -> list[int]:
    """Return the processes of a unit beside the main one: those that a reload has replaced."""
    return [process for process in processes_of(unit, run) if process != main]


def memory_of(process: int) -> int:
    """Return the bytes of memory that a process has for itself; 0 where it is gone."""
    try:
        text = (PROC / str(process) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * sum(map(int, re.findall(r"^(?:Private_\w+|SwapPss): +(\d+) kB", text, re.M)))


def memory_available() -> int:
    """Return the bytes of memory that the host can give to new processes."""
    text = (PROC / "meminfo").read_text()
    match = re.search(r"^MemAvailable: +(\d+) kB", text, re.M)
    return 1024 * int(match[1]) if match else 0
