"""Readings of units and of their processes: limits, environment, memory, files, answers."""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import os
import re
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.host_readings import EVERY, Readings, output_of

UNIT = "unit"
PROCESS = "process"

PROPERTIES = {
    "LoadState": "load state",
    "ActiveState": "state",
    "UnitFileState": "enabled",
    "NRestarts": "restarts",
    "NeedDaemonReload": "need daemon-reload",
    "DropInPaths": "drop-ins",
    "MemoryHigh": "MemoryHigh",
    "MemoryMax": "MemoryMax",
    "MemorySwapMax": "MemorySwapMax",
    "CPUQuotaPerSecUSec": "CPUQuota",
    "TasksMax": "TasksMax",
    "LimitNOFILE": "LimitNOFILE",
    "FragmentPath": "unit file",
}
"""What is read of a unit, and the key of its reading."""

FURTHER = ("Id", "MainPID", "ControlGroup", "MemoryCurrent", "SubState")

MOST_PROCESSES = 4096
"""Processes of a host that are looked at: PostgreSQL has one for each connection."""

ANSWER_SECONDS = 3.0
"""Seconds that a worker has to say whether it is ready."""

LIMIT = re.compile(r"^(Max [a-z ]+?) {2,}(\S+) +(\S+)", re.M)
LIMITS = {"Max open files": "open files", "Max processes": "processes"}

# Of their URLs nothing but scheme, address and the number of a database is shown.
SHOWN_SCHEMES = ("redis", "rediss", "postgres", "postgresql")


def read_units(
    readings: Readings,
    units: Sequence[str],
    environment: Sequence[str],
    salt: str,
    proc: Path = Path("/proc"),
    cgroups: Path = Path("/sys/fs/cgroup"),
) -> None:
    """Read units, by name or pattern, and all processes of each.

    Args:
        readings: collects what is read.
        units: names of units, or patterns of them.
        environment: names of variables to read of each unit's main process.
        salt: of the hashes of their values.
        proc: for tests.
        cgroups: for tests.
    """
    if not units:
        return
    source = "systemctl show"
    try:
        shown = output_of(
            ["systemctl", "show", f"--property={','.join([*PROPERTIES, *FURTHER])}", "--", *units]
        )
    except Exception as error:
        for unit in units:
            readings.unreadable(UNIT, unit, EVERY, source, str(error))
            readings.unreadable(PROCESS, unit, EVERY, source, str(error))
        return
    left = MOST_PROCESSES
    found = list(parse_units(shown))
    running = [
        each["Id"] for each in found if each.get("ActiveState") not in ("inactive", "failed")
    ]
    for pattern in units:
        there = sorted(fnmatch.filter(running, pattern))
        readings.add(UNIT, f"units {pattern}", "running", there, f"{source} '{pattern}'")
    for properties in found:
        unit = properties["Id"]
        read_unit(readings, unit, properties)
        main = properties.get("MainPID", "0")
        processes = list(processes_of(properties, proc, cgroups))[:left]
        left -= len(processes)
        if main == "0":
            readings.absent(PROCESS, unit, EVERY, source, "no process runs")
        else:
            read_processes(readings, unit, main, processes, proc)
            with readings.reading(PROCESS, unit, f"/proc/{main}/environ", "environment"):
                read_environment(readings, unit, main, environment, salt, proc)


def parse_units(shown: str) -> Iterator[dict[str, str]]:
    """Yield the properties of each unit that ``systemctl show`` printed, each once."""
    seen = set()
    for block in shown.strip().split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in properties and properties["Id"] not in seen:
            seen.add(properties["Id"])
            yield properties


def read_unit(readings: Readings, unit: str, properties: Mapping[str, str]) -> None:
    """Read what systemd says of a unit."""
    for name, key in PROPERTIES.items():
        value: Any = properties.get(name)
        if value is None:
            readings.unreadable(UNIT, unit, key, f"systemctl show {unit}", f"no {name}")
            continue
        if name == "DropInPaths":
            value = value.split()
        elif value.isdigit():
            value = int(value)
        readings.add(UNIT, unit, key, value, f"systemctl show {unit} ({name})")
    used = properties.get("MemoryCurrent", "")
    if used.isdigit():
        readings.add(
            UNIT, unit, "memory in bytes", int(used), f"systemctl show {unit} (MemoryCurrent)"
        )


def processes_of(properties: Mapping[str, str], proc: Path, cgroups: Path) -> Iterator[str]:
    """Yield the ids of a unit's processes, those of groups below it too, its main process first."""
    main, group = properties.get("MainPID", "0"), properties.get("ControlGroup", "")
    if main != "0":
        yield main
    found: list[str] = []
    roots = [cgroups / group.lstrip("/"), cgroups / "systemd" / group.lstrip("/")]
    # The path is escaped: system-channels\x2dweb.slice.
    for root in roots if group else []:
        for directory, _, files in os.walk(root):
            if "cgroup.procs" in files:
                # The group may end meanwhile. One of threads has no list of processes: cgroups(7).
                with suppress(OSError):
                    found += (Path(directory) / "cgroup.procs").read_text().split()
        if found:
            break
    yield from (each for each in dict.fromkeys(found) if each != main)


def read_processes(
    readings: Readings, unit: str, main: str, processes: Iterable[str], proc: Path
) -> None:
    """Read limits and memory of every process of a unit.

    Processes with the same title and the same value are one reading, which names them.
    """
    grouped: dict[tuple[str, str, Any], list[str]] = defaultdict(list)
    files: dict[str, int] = {}
    resident = swapped = 0
    for process in processes:
        title = "main" if process == main else title_of(proc / process)
        try:
            limits = (proc / process / "limits").read_text()
            status = (proc / process / "status").read_text()
        except OSError:  # it has ended
            continue
        for name, soft, _ in LIMIT.findall(limits):
            if name in LIMITS:
                value = int(soft) if soft.isdigit() else soft
                grouped[title, LIMITS[name], value].append(process)
        resident += kilobytes(status, "VmRSS")
        swapped += kilobytes(status, "VmSwap")
        try:
            files[title] = max(
                files.get(title, 0), sum(1 for _ in os.scandir(proc / process / "fd"))
            )
        except OSError:
            continue
    for (title, key, value), ids in grouped.items():
        readings.add(PROCESS, unit, key, value, source_of(ids, "limits"), title)
    for title, count in files.items():
        readings.add(PROCESS, unit, "files in use", count, f"/proc/PID/fd of {unit}", title)
    if grouped:
        where = f"/proc/PID/status of {unit}"
        readings.add(PROCESS, unit, "memory KiB", resident, where, "all")
        readings.add(PROCESS, unit, "swapped KiB", swapped, where, "all")


def source_of(ids: Sequence[str], file: str) -> str:
    """Return where a value of some processes was read."""
    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"/proc/{ids[0]}/{file}{more}"


def title_of(process: Path) -> str:
    """Return what kind of process this is: the title that nginx or PostgreSQL gives, or child."""
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:
        return "child"
    title = words.rstrip(b"\0 ").replace(b"\0", b" ").decode(errors="replace")
    if title.startswith("nginx: "):
        return title
    return "postgres" if title.startswith("postgres: ") else "child"


def kilobytes(status: str, name: str) -> int:
    """Return a number of ``/proc/PID/status``; 0 where the kernel does not say it."""
    match = re.search(rf"^{name}:\s+(\d+) kB", status, re.M)
    return int(match[1]) if match else 0


def read_environment(
    readings: Readings, unit: str, main: str, names: Sequence[str], salt: str, proc: Path
) -> None:
    """Read variables of a unit's main process; of their values a hash, with this run's salt."""
    found = parse_environment((proc / main / "environ").read_bytes())
    source = f"/proc/{main}/environ"
    told = {name: told_of(found[name], salt) for name in names if name in found}
    readings.add(PROCESS, unit, "environment", told, source, "main")
    revision = found.get("CHANNELS_KIT_REVISION", "")
    if revision:
        # The release, and a hash of the unit file.
        readings.add(PROCESS, unit, "release", revision.rpartition("-")[0], source, "main")


def parse_environment(content: bytes) -> dict[str, str]:
    """Return the variables in ``/proc/PID/environ``."""
    pairs = [each.split("=", 1) for each in content.decode(errors="replace").split("\0") if each]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def told_of(value: str, salt: str) -> str:
    """Return what may be told of a variable's value: a hash, and of a server's URL where it leads.

    The hash has a salt of this run alone: nobody can look it up, and no two reports have the same.
    """
    digest = hmac.new(salt.encode(), value.encode(errors="replace"), hashlib.sha256)
    return f"{where_it_leads(value)} (hash {digest.hexdigest()[:8]})".lstrip()


def where_it_leads(value: str) -> str:
    """Return the URL of a server without user, password and options; nothing of other values."""
    try:
        parts = urlsplit(value)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    if parts.scheme not in SHOWN_SCHEMES or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def read_answers(readings: Readings, asked: Sequence[Mapping[str, str]]) -> None:
    """Ask each worker whether it is ready, all at once.

    Args:
        readings: collects what is read.
        asked: subject and URL of each.
    """
    if not asked:
        return
    with ThreadPoolExecutor(min(16, len(asked))) as pool:
        answers = list(pool.map(lambda each: answer_of(each["url"]), asked))
    for each, answer in zip(asked, answers, strict=False):
        readings.add(PROCESS, each["subject"], "answer", answer, f"GET {each['url']}", "main")


def answer_of(url: str, seconds: float = ANSWER_SECONDS) -> str:
    """Return the status of an answer, or why there is none. A proxy of the host is not used."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=seconds) as response:
            return str(response.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            return f"no answer within {seconds:g} s"
        return str(getattr(reason, "strerror", None) or reason).lower()
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except OSError as error:
        return str(error.strerror or error).lower()
    except HTTPException:
        return "an answer that is not HTTP"
