#!/usr/bin/python
"""Ansible module: read what a host has, before anything changes there."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_capacity_info
short_description: Read what a host has, before anything changes there
description:
  - Reads memory, processors, limits of the kernel, ports in use, free space and the clock. It needs
    nothing that a role installs.
  - Changes nothing.
options:
  sysctls:
    description: Names of kernel settings. Reads whether each is there and can be changed.
    type: list
    elements: str
    default: []
  paths:
    description:
      - Directories whose file systems are read. Of a directory that does not exist, the nearest one
        above it.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Reads in check mode, too.
  diff_mode:
    support: none
    description: Has nothing to compare.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Login | Read what the host has
  host_capacity_info:
    sysctls: [net.core.somaxconn]
    paths: [/srv/channels]
  register: host_read
"""

RETURN = r"""
host:
  description: What the host has.
  type: dict
  returned: success
  contains:
    user_id:
      description: The user that modules run as.
      type: int
    path:
      description: E(PATH) of modules.
      type: str
    cores:
      description: Processors that the host may use, whole or in part.
      type: float
    memory_mib:
      description: Memory of the host, or what its control group allows.
      type: int
    open_files:
      description: Open files that systemd can grant a process.
      type: int
    file_max:
      description: Open files of all processes together.
      type: int
    conntrack_max:
      description: Connections that the firewall can follow; 0 if its module is not loaded.
      type: int
    listening:
      description: Units or programs that listen, by port.
      type: dict
    sysctls:
      description: Kernel settings, each V(writable), V(missing) or V(read-only).
      type: dict
    disks:
      description: Free MiB, free inodes and whether the file system is read-only, by path.
      type: dict
    clock:
      description: Seconds since 1970.
      type: float
"""

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

CAP_SYS_RESOURCE = 1 << 24
"""The capability to raise limits: capabilities(7)."""

ALL_USERS = 4294967295
"""The size of the user namespace of the machine itself: user_namespaces(7)."""

LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "sysctls": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    host = read(module.params["sysctls"], module.params["paths"])
    module.exit_json(changed=False, host=host)


def read(sysctls: Iterable[str], paths: Iterable[str], root: Path = Path("/")) -> dict[str, Any]:
    """Return what the host has; ``root`` is where its /proc and /sys are."""
    proc = root / "proc"
    return {
        "user_id": os.getuid(),
        "path": os.environ.get("PATH", ""),
        "cores": cores(root),
        "memory_mib": memory(root),
        "open_files": open_files(proc),
        "file_max": number(proc / "sys/fs/file-max"),
        "conntrack_max": number(proc / "sys/net/netfilter/nf_conntrack_max"),
        "listening": listening(proc),
        "sysctls": {name: setting(proc / "sys", name) for name in sysctls},
        "disks": {path: disk(path) for path in paths},
        "clock": time.time(),
    }


def number(path: Path) -> int:
    """Return the number in a file; 0 without one."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def cores(root: Path) -> float:
    """Return the processors that the host may use, by affinity and by its control group."""
    allowed = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
        return allowed if quota == "max" else min(allowed, int(quota) / int(period))
    except (OSError, ValueError):
        return allowed


def memory(root: Path) -> int:
    """Return the MiB of memory, or of those that the control group of the host allows."""
    found = re.search(r"^MemTotal: +(\d+) kB", (root / "proc/meminfo").read_text(), re.M)
    total = int(found[1]) // 1024 if found else 0
    limit = number(root / "sys/fs/cgroup/memory.max") // 2**20
    return min(total, limit) if limit else total


def open_files(proc: Path) -> int:
    """Return how many open files systemd can grant a process.

    The manager of the machine may raise limits up to fs.nr_open. In a container it mostly may not,
    and grants no more than it has itself.
    """
    most = number(proc / "sys/fs/nr_open")
    found = re.search(r"^Max open files +\S+ +(\d+)", (proc / "1/limits").read_text(), re.M)
    own = int(found[1]) if found else most
    return most if raises_limits(proc) else min(own, most)


def raises_limits(proc: Path) -> bool:
    """Return whether the manager of the host may raise limits."""
    effective = re.search(r"^CapEff:\s+(\w+)", (proc / "1/status").read_text(), re.M)
    users = (proc / "1/uid_map").read_text().split()
    machine = users[:1] == ["0"] and users[1:] == ["0", str(ALL_USERS)]
    return bool(machine and effective and int(effective[1], 16) & CAP_SYS_RESOURCE)


def listening(proc: Path) -> dict[str, str]:
    """Return the unit or program that listens on each TCP port."""
    ports: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == LISTEN:
                ports[words[9]] = str(int(words[1].rpartition(":")[2], 16))
    owners = dict.fromkeys(ports.values(), "a program")
    for inode, process in sockets(proc, set(ports)):
        owners[ports[inode]] = owner(proc / process)
    return owners


def sockets(proc: Path, wanted: set[str]) -> Iterable[tuple[str, str]]:
    """Yield the inode of each wanted socket, with a process that has it."""
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            files = list((directory / "fd").iterdir())
        except OSError:  # it has ended
            continue
        for file in files:
            try:
                target = str(file.readlink())
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] in wanted:
                yield target[8:-1], directory.name


def owner(process: Path) -> str:
    """Return the unit of a process, or its program."""
    try:
        units = re.findall(r"/([^/\n]+\.(?:service|socket))", (process / "cgroup").read_text())
        return str(units[-1]) if units else (process / "comm").read_text().strip()
    except OSError:
        return "a program"


def setting(root: Path, name: str) -> str:
    """Return whether a kernel setting is there and can be changed."""
    path = root / name.replace(".", "/")
    if not path.exists():
        return "missing"
    return "writable" if os.access(path, os.W_OK) else "read-only"


def disk(path: str) -> dict[str, Any]:
    """Return the free space of the file system that a directory is on, or would be."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    return {
        "free_mib": found.f_bavail * found.f_frsize // 2**20,
        # Some file systems have no number of inodes.
        "free_inodes": found.f_favail if found.f_files else 2**31,
        "read_only": bool(found.f_flag & os.ST_RDONLY),
    }


if __name__ == "__main__":
    main()
