#!/usr/bin/python
"""Ansible module: read what is in effect on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_state_info
short_description: Read what is in effect on a host
description:
  - Reads limits and environment of processes, states of units, settings of the kernel, listening
    ports, file systems, the clock, and the settings with which nginx, Redis and PostgreSQL run.
  - Reads running processes, not the files that configure them. Each reading says its source.
  - Changes nothing. Each look ends after some seconds. What cannot be read is returned as
    unreadable, with the reason.
options:
  units:
    description: Names of units, or patterns of them.
    type: list
    elements: str
    default: []
  environment:
    description: Names of environment variables to read of each unit's main process.
    type: list
    elements: str
    default: []
  salt:
    description:
      - Salt of the hashes that are returned in place of the variables' values. Of a URL of Redis or
        PostgreSQL, address, port and database are returned too.
    type: str
    default: ""
  answers:
    description: Workers to ask whether they are ready; each with subject and url.
    type: list
    elements: dict
    default: []
    options:
      subject:
        description: Name of the unit.
        type: str
        required: true
      url:
        description: What to ask.
        type: str
        required: true
  sysctls:
    description: Names of settings of the kernel.
    type: list
    elements: str
    default: []
  firewall:
    description: Names of chains of the table inet channels_kit that must be loaded.
    type: list
    elements: str
    default: []
  ports:
    description: Whether to read the listening ports.
    type: bool
    default: false
  clock:
    description: Whether to read how far the clock is from its sources.
    type: bool
    default: false
  failed:
    description: Whether to list the units that failed.
    type: bool
    default: false
  disks:
    description:
      - Directories; each with path, and optionally the unit whose main process sees it in its own
        namespace. With required false, a directory that does not exist is not reported.
    type: list
    elements: dict
    default: []
    options:
      path:
        description: The directory.
        type: path
        required: true
      unit:
        description: A unit.
        type: str
        default: ""
      required:
        description: Whether the directory must exist.
        type: bool
        default: true
  nginx:
    description: Binaries of nginx, each with the URL at which it reports its configuration.
    type: list
    elements: dict
    default: []
    options:
      binary:
        description: The program.
        type: str
        default: nginx
      generation_url:
        description: The URL.
        type: str
        default: ""
      urls:
        description:
          - Where sockets are opened. Read is what holds there, and whether each server behind it
            takes a connection.
        type: list
        elements: str
        default: []
  redis:
    description: Instances of Redis.
    type: list
    elements: dict
    default: []
    options:
      subject:
        description: Name in the readings.
        type: str
        required: true
      address:
        description: Address.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
      user:
        description: Name of the user; by default the user default.
        type: str
        default: ""
      password:
        description: The user's password.
        type: str
        default: ""
      password_file:
        description: File on the host with the password.
        type: path
      settings:
        description: Names of settings.
        type: list
        elements: str
        default: []
  postgres:
    description: Servers of PostgreSQL on this host.
    type: list
    elements: dict
    default: []
    options:
      subject:
        description: Name in the readings.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
      sockets:
        description: Directory of the server's socket.
        type: path
        required: true
      settings:
        description: Names of settings.
        type: list
        elements: str
        default: []
attributes:
  check_mode:
    support: full
    description: Reads the same in check mode.
  diff_mode:
    support: none
    description: Has nothing to compare.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Read | Read the limits of every worker, and the queues of the kernel
  host_state_info:
    units: [channels-web@*.service]
    sysctls: [net.core.somaxconn]
  register: state
"""

RETURN = r"""
readings:
  description:
    - "What was read. Each has kind, subject, process, key, value, source and state (read,
      unreadable or absent); where it is not read, the reason."
  type: list
  elements: dict
  returned: success
clock:
  description: The host's clock at the end, in seconds since 1970.
  type: float
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_kernel import (
    KERNEL,
    now,
    read_clock,
    read_disks,
    read_ports,
    read_settings,
)
from ansible.module_utils.host_nginx import read_nginx
from ansible.module_utils.host_processes import UNIT, read_answers, read_units
from ansible.module_utils.host_readings import Readings, output_of
from ansible.module_utils.host_servers import read_postgres, read_redis


def read_failed(readings: Readings) -> None:
    """Read which units failed."""
    source = "systemctl list-units --failed"
    with readings.reading(UNIT, "host", source, "failed units"):
        listed = output_of(
            ["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--full"]
        )
        names = [line.split()[0] for line in listed.splitlines() if line.strip()]
        readings.add(UNIT, "host", "failed units", names, source)


def read_firewall(readings: Readings, chain: str) -> None:
    """Read whether a chain is loaded."""
    source = "nft list table inet channels_kit"
    with readings.reading(KERNEL, "firewall", source, "rules"):
        table = output_of(["nft", "list", "tables"])
        loaded = ""
        if "inet channels_kit" in table:
            loaded = output_of(["nft", "list", "table", "inet", "channels_kit"])
        state = (
            "loaded" if f"chain {chain} " in loaded else "other rules" if loaded else "not loaded"
        )
        readings.add(KERNEL, "firewall", "rules", state, source)


def main() -> None:
    """Act as a module."""
    texts = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "units": texts,
            "environment": texts,
            "salt": {"type": "str", "default": "", "no_log": False},
            "answers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "subject": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                },
            },
            "sysctls": texts,
            "firewall": texts,
            "ports": {"type": "bool", "default": False},
            "clock": {"type": "bool", "default": False},
            "failed": {"type": "bool", "default": False},
            "disks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "unit": {"type": "str", "default": ""},
                    "required": {"type": "bool", "default": True},
                },
            },
            "nginx": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "binary": {"type": "str", "default": "nginx"},
                    "generation_url": {"type": "str", "default": ""},
                    "urls": texts,
                },
            },
            "redis": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "subject": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "user": {"type": "str", "default": ""},
                    "password": {"type": "str", "default": "", "no_log": True},
                    "password_file": {"type": "path", "no_log": False},
                    "settings": texts,
                },
            },
            "postgres": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "subject": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "sockets": {"type": "path", "required": True},
                    "settings": texts,
                },
            },
        },
        supports_check_mode=True,
    )
    asked = module.params
    readings = Readings()
    read_units(readings, asked["units"], asked["environment"], asked["salt"])
    read_answers(readings, asked["answers"])
    read_settings(readings, asked["sysctls"])
    for chain in asked["firewall"]:
        read_firewall(readings, chain)
    if asked["failed"]:
        read_failed(readings)
    if asked["ports"]:
        read_ports(readings)
    if asked["clock"]:
        read_clock(readings)
    read_disks(readings, asked["disks"])
    for each in asked["nginx"]:
        read_nginx(readings, each["binary"], each["generation_url"], each["urls"])
    for each in asked["redis"]:
        read_redis(readings, each)
    for each in asked["postgres"]:
        read_postgres(readings, each)
    module.exit_json(changed=False, readings=readings.found, clock=now())


if __name__ == "__main__":
    main()
