"""What a systemd unit runs with, compared with the files that it was configured by.

The text of ``systemctl show`` and of ``/proc`` goes in, a comparison comes out. Only
:func:`read_proc` and :func:`read_nofile` read, from ``/proc``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

MANAGER = 1
"""The process of the service manager."""

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "DropInPaths",
    "MainPID",
    "ExecMainStartTimestamp",
    "ActiveEnterTimestamp",
    "LimitNOFILE",
)
"""What systemctl is asked for."""

ACTIVE = ("active", "reloading", "refreshing")
"""States of a unit whose start has ended and whose stop has not begun."""

ENABLED = ("enabled", "enabled-runtime", "alias", "static", "indirect", "generated")
"""States of a unit file that systemd starts by itself, or that something else pulls in."""

CAP_SYS_RESOURCE = 24


def parse_properties(shown: str) -> dict[str, str]:
    """Return what ``systemctl show`` printed, by property."""
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def parse_timestamp(text: str) -> float | None:
    """Return a moment of ``--timestamp=us+utc`` in seconds since 1970; None where there is none."""
    words = text.split()
    if len(words) != 4 or words[3] != "UTC":
        return None
    form = "%Y-%m-%d %H:%M:%S.%f" if "." in words[2] else "%Y-%m-%d %H:%M:%S"
    # Without the name of the day, which strptime reads in the language of the host.
    moment = datetime.strptime(f"{words[1]} {words[2]}", form)
    return moment.replace(tzinfo=timezone.utc).timestamp()  # noqa: UP017 - hosts may have 3.9


def parse_number(text: str) -> int | None:
    """Return a limit; None for one that is infinite or not known."""
    return int(text) if text.isdigit() else None


def parse_nofile(limits: str) -> int | None:
    """Return the hard limit of open files in ``/proc/PID/limits``."""
    match = re.search(r"^Max open files +\S+ +(\S+)", limits, re.M)
    return parse_number(match[1]) if match else None


def can_raise_limits(status: str) -> bool:
    """Return whether ``/proc/PID/status`` names the capability to raise a hard limit."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.M)
    return bool(match and int(match[1], 16) >> CAP_SYS_RESOURCE & 1)


@dataclass(frozen=True)
class Nofile:
    """Hard limits of open files; None where one is infinite or not known.

    Attributes:
        process: what the unit's main process has.
        manager: what the service manager itself has.
        can_raise: whether the service manager may give more than it has.
    """

    process: int | None = None
    manager: int | None = None
    can_raise: bool = True

    def granted(self, asked: str) -> int | None:
        """Return what a new process would get; asked is LimitNOFILE of ``systemctl show``.

        The manager gives less than was asked for, without an error, if it may not raise its own.
        """
        wanted = parse_number(asked)
        if self.can_raise or self.manager is None:
            return wanted
        return self.manager if wanted is None else min(wanted, self.manager)

    def is_stale(self, asked: str) -> bool:
        """Return whether a new process would get another limit than the running one has."""
        return self.process != self.granted(asked)


def read_proc(process: int, file: str) -> str:
    """Return a file of a process; nothing where the process has ended."""
    try:
        return Path("/proc", str(process), file).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def read_nofile(limits: str) -> Nofile:
    """Return the limits of a process, given its ``/proc/PID/limits``, and of the manager."""
    return Nofile(
        process=parse_nofile(limits),
        manager=parse_nofile(read_proc(MANAGER, "limits")),
        can_raise=can_raise_limits(read_proc(MANAGER, "status")),
    )


def freshness(
    shown: Mapping[str, str],
    changed: Mapping[str, float | None],
    nofile: Nofile,
    drop_ins: Collection[str] = (),
) -> dict[str, object]:
    """Compare a unit with its files.

    Args:
        shown: the properties of the unit.
        changed: by path, when a file was changed last; None where there is no file.
        nofile: the limits that processes have.
        drop_ins: drop-ins that are there.

    Returns:
        What the module unit_freshness returns.
    """
    active = shown.get("ActiveState") in ACTIVE
    runs = shown.get("MainPID", "0") != "0"
    started = parse_timestamp(shown.get("ExecMainStartTimestamp", ""))
    if started is None:
        # A unit without a process, such as a target, or one whose process is not known.
        started = parse_timestamp(shown.get("ActiveEnterTimestamp", ""))
    moments = {path: moment for path, moment in changed.items() if moment is not None}
    newest = max(moments, key=lambda path: moments[path], default=None)
    asked = shown.get("LimitNOFILE", "")
    # Of a unit that it has loaded, systemd 252 does not see a drop-in in a directory that is new.
    not_read = not set(drop_ins) <= set(shown.get("DropInPaths", "").split())
    return {
        "exists": shown.get("LoadState") not in (None, "not-found"),
        "active": active,
        "active_state": shown.get("ActiveState", "inactive"),
        "enabled": shown.get("UnitFileState") in ENABLED,
        "need_daemon_reload": shown.get("NeedDaemonReload") == "yes" or not_read,
        "started_at": started if active else None,
        "newest_file": newest,
        "newest_file_at": moments[newest] if newest else None,
        "missing_files": sorted(path for path, moment in changed.items() if moment is None),
        "stale": bool(active and newest and (started is None or moments[newest] > started)),
        "nofile": nofile.process,
        "nofile_granted": nofile.granted(asked),
        "nofile_stale": active and runs and nofile.is_stale(asked),
    }
