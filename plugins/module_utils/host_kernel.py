"""Readings of the kernel: settings, listening ports, file systems, and of the clock."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ansible.module_utils.host_readings import (
    EVERY,
    AbsentError,
    Readings,
    UnreadableError,
    output_of,
)

KERNEL = "kernel"
PORT = "port"
DISK = "disk"
CLOCK = "clock"

# Settings of modules that are not loaded everywhere: no setting, no limit.
OPTIONAL = ("net.netfilter.", "net.nf_")

CONNTRACK = "net.netfilter.nf_conntrack_count"


def read_settings(readings: Readings, names: Sequence[str], root: Path = Path("/proc/sys")) -> None:
    """Read settings of the kernel by their names in sysctl."""
    for name in names:
        path = root / name.replace(".", "/")
        with readings.reading(KERNEL, "kernel", str(path), name):
            try:
                value = " ".join(path.read_text().split())
            except FileNotFoundError as error:
                if name.startswith(OPTIONAL):
                    raise AbsentError("the module of the kernel is not loaded") from error
                raise UnreadableError("the kernel has no such setting") from error
            readings.add(
                KERNEL, "kernel", name, int(value) if value.isdigit() else value, str(path)
            )
    with readings.reading(KERNEL, "kernel", str(root / "fs/file-nr"), "open files"):
        used = (root / "fs/file-nr").read_text().split()[0]
        readings.add(KERNEL, "kernel", "open files", int(used), str(root / "fs/file-nr"))


def read_ports(readings: Readings, root: Path = Path("/proc/sys")) -> None:
    """Read the listening ports with their queues, and the ports of outgoing connections."""
    source = "ss -ltn"
    with readings.reading(PORT, EVERY, source):
        listening = parse_listening(output_of(["ss", "-ltnH"]))
        for port, sockets in sorted(listening.items()):
            backlog = min(limit for _, _, limit in sockets)
            waiting = max(queue for _, queue, _ in sockets)
            where = f"{source} ({', '.join(address for address, _, _ in sockets)})"
            readings.add(PORT, f"port {port}", "backlog", backlog, where)
            readings.add(PORT, f"port {port}", "waiting", waiting, where)
    source = "net.ipv4.ip_local_port_range, ip_local_reserved_ports"
    with readings.reading(KERNEL, "kernel", source, "ports that outgoing connections take"):
        taken = outgoing_ranges(root)
        readings.add(KERNEL, "kernel", "ports that outgoing connections take", taken, source)


def outgoing_ranges(root: Path = Path("/proc/sys")) -> list[str]:
    """Return the ports that outgoing connections take, as ranges."""
    bounds = (root / "net/ipv4/ip_local_port_range").read_text().split()
    reserved = (root / "net/ipv4/ip_local_reserved_ports").read_text()
    return list(subtracted((int(bounds[0]), int(bounds[1])), ranges(reserved)))


def outgoing_ports(root: Path = Path("/proc/sys")) -> int:
    """Return how many connections the host can open to one address and port."""
    bounds = [tuple(map(int, each.split("-"))) for each in outgoing_ranges(root)]
    return sum(last - first + 1 for first, last in bounds)


def parse_listening(shown: str) -> dict[int, list[tuple[str, int, int]]]:
    """Return address, queue and limit of the queue of each listening socket, by port."""
    found: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for line in shown.splitlines():
        words = line.split()
        if len(words) < 4 or words[0] != "LISTEN":
            continue
        port = words[3].rpartition(":")[2]
        if port.isdigit():
            found[int(port)].append((words[3], int(words[1]), int(words[2])))
    return dict(found)


def ranges(text: str) -> list[tuple[int, int]]:
    """Return the ranges in a setting such as ``8001-8002,9000``."""
    found = []
    for each in re.split(r"[,\s]+", text.strip()):
        if each:
            first, _, last = each.partition("-")
            found.append((int(first), int(last or first)))
    return sorted(found)


def subtracted(whole: tuple[int, int], parts: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield what is left of a range without others, each as ``FIRST-LAST``."""
    first, last = whole
    for begin, end in parts:
        if end < first or begin > last:
            continue
        if begin > first:
            yield f"{first}-{begin - 1}"
        first = max(first, end + 1)
    if first <= last:
        yield f"{first}-{last}"


def read_disks(readings: Readings, asked: Sequence[Mapping[str, str]]) -> None:
    """Read the file systems of directories, as processes see them.

    Args:
        readings: collects what is read.
        asked: path of each, and optionally unit, whose main process sees it in its own namespace.
    """
    for each in asked:
        path, unit = each["path"], each.get("unit", "")
        with readings.reading(DISK, path, f"statvfs {path}"):
            root = root_of(unit) if unit else "/"
            seen = path if root == "/" else f"{root}{path}"
            if not each.get("required", True) and not os.path.lexists(seen):
                raise AbsentError("there is no such directory")
            # In a program of its own: a file system whose server is dead holds up who asks.
            told = output_of(["stat", "--file-system", "--format=%a %b %d %c", seen]).split()
            free, blocks, free_inodes, inodes = map(int, told)
            source = f"stat --file-system {seen}"
            used = round(100 * (1 - free / blocks), 1) if blocks else 0.0
            readings.add(DISK, path, "space used %", used, source)
            if inodes:
                share = round(100 * (1 - free_inodes / inodes), 1)
                readings.add(DISK, path, "inodes used %", share, source)
            readings.add(DISK, path, "writable", writable(seen), f"{seen}, its mount")


def root_of(unit: str) -> str:
    """Return the root directory that a unit's main process sees."""
    shown = output_of(["systemctl", "show", "--property=MainPID", "--value", "--", unit]).strip()
    if shown in ("", "0"):
        raise UnreadableError(f"{unit} has no process")
    return f"/proc/{shown}/root"


def writable(path: str) -> str:
    """Return whether the file system of a directory can be written to."""
    return "read-only" if os.statvfs(path).f_flag & os.ST_RDONLY else "writable"


def read_clock(readings: Readings) -> None:
    """Read how far the clock is from those that it is set by."""
    source = "chronyc tracking"
    with readings.reading(CLOCK, "clock", source):
        unit = output_of(
            [
                "systemctl",
                "show",
                "--property=LoadState,ActiveState,ConditionResult",
                "chrony.service",
            ]
        )
        state = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
        if state.get("LoadState") != "loaded":
            read_synchronised(readings)
            return
        if state.get("ActiveState") != "active" and state.get("ConditionResult") == "no":
            raise AbsentError("the machine that this host runs on sets the clock")
        tracking = parse_tracking(output_of(["chronyc", "-n", "tracking"]))
        for key, value in tracking.items():
            readings.add(CLOCK, "clock", key, value, source)


def read_synchronised(readings: Readings, run: Path = Path("/run")) -> None:
    """Read whether anything sets the clock, on a host without chrony."""
    if (run / "systemd/container").exists():
        raise AbsentError("the machine that this host runs on sets the clock")
    source = "timedatectl show"
    told = output_of(["timedatectl", "show", "--property=NTPSynchronized", "--value"]).strip()
    state = "Normal" if told == "yes" else "Not synchronised"
    readings.add(CLOCK, "clock", "synchronised", state, source)
    readings.absent(CLOCK, "clock", "offset in seconds", source, "without chrony, nothing says it")


def parse_tracking(shown: str) -> dict[str, float | str]:
    """Return the offset in seconds, and whether the clock is set at all."""
    fields = dict(
        re.split(r"\s*:\s*", line, maxsplit=1) for line in shown.splitlines() if ":" in line
    )
    found: dict[str, float | str] = {}
    offset = re.match(r"([0-9.]+) seconds", fields.get("System time", ""))
    if offset:
        found["offset in seconds"] = float(offset[1])
    if "Leap status" in fields:
        found["synchronised"] = fields["Leap status"]
    if not found:
        raise UnreadableError("chronyc says nothing of an offset")
    return found


def now() -> float:
    """Return the host's own clock."""
    return time.time()
