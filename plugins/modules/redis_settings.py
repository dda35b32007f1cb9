#!/usr/bin/python
"""Ansible module: apply a configuration to a running Redis instance."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_settings
short_description: Apply a configuration to a running Redis instance
description:
  - Validates a configuration before it is written. Starts a second Redis with it for a moment, on a
    socket in an empty directory. If Redis refuses the configuration, the module fails with the
    message of Redis and nothing changes.
  - Compares C(CONFIG GET *) of the second server with that of the running instance, and sets what
    differs with C(CONFIG SET). A setting that cannot change at run time needs a restart.
  - Queries the running instance, so it also corrects what an interrupted run or a manual change
    left.
  - Does not write the configuration. Use M(ansible.builtin.template) with the same content.
notes:
  - Directives that C(CONFIG GET) does not know, such as C(rename-command) and C(loadmodule), are
    listed in RV(not_compared). If there are any, restart the instance when its process is older
    than its file.
  - What the unit's command line sets (process id file, socket, supervision) and what Sentinel sets
    (C(replicaof)) is not compared.
options:
  address:
    description: Address on which the instance listens, as in the configuration.
    type: str
    required: true
  port:
    description: Port of the instance, as in the configuration.
    type: int
    required: true
  unit:
    description: The instance's unit.
    type: str
    required: true
  content:
    description: The configuration, as the file will hold it.
    type: str
    required: true
  login_user:
    description: ACL user of the administrator.
    type: str
    default: administrator
  login_password_file:
    description: A file that holds the administrator's password.
    type: path
    required: true
  run_as:
    description: System user of the second server, if the module runs as root.
    type: str
    default: redis
attributes:
  check_mode:
    support: full
    description: Can run in check mode; also starts the second server.
  diff_mode:
    support: full
    description: Shows the settings that differ. Passwords are left out.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Configure | Validate the configuration and apply it to the running instance
  redis_settings:
    address: 10.0.0.12
    port: 6379
    unit: redis-server@layer.service
    content: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"
    login_password_file: /etc/redis/administrator.password
  register: instance
  notify: Redis | Restart the instance  # which looks at instance.restart_required
"""

RETURN = r"""
running:
  description: Whether the instance runs.
  type: bool
  returned: success
set:
  description: Names of the settings that were set in the running instance.
  type: list
  elements: str
  returned: success
restart_required:
  description: Whether the instance runs and needs a restart to apply the configuration.
  type: bool
  returned: success
reasons:
  description: Why it needs a restart, such as settings that cannot change at run time.
  type: list
  elements: str
  returned: success
not_compared:
  description: Names of directives of the configuration that C(CONFIG GET) does not know.
  type: list
  elements: str
  returned: success
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.redis_client import (
    LoginError,
    Redis,
    RedisError,
    log_in,
    pairs,
    read_password,
)

# Settings of the second server that differ from the configuration.
OVERRIDDEN = {
    "port": "0",
    "tls-port": "0",
    "logfile": "",
    "pidfile": "",
    "aclfile": "",
    "requirepass": "",
    "daemonize": "no",
    "supervised": "no",
    "replicaof": "no one",
}
NOT_COMPARED = {
    *OVERRIDDEN,
    *("dir", "unixsocket", "unixsocketperm", "slaveof", "masterauth", "masteruser", "maxclients"),
}
"""Settings in which the second server says nothing of the first."""

LITERAL = ("port", "dir", "aclfile", "logfile")
"""Of these, those that are compared as the configuration writes them."""

KEPT_BY_REDIS = 32
"""Files that Redis keeps for itself: it lowers maxclients to what is left."""

DEFAULT_MAXCLIENTS = 10000
PATIENCE = 20.0
"""Seconds in which the second server must answer."""


def parse(content: str) -> dict[str, list[str]]:
    """Return the directives of a configuration: for each name, what follows it in each line."""
    directives: dict[str, list[str]] = {}
    for line in content.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            directives.setdefault(name.lower(), []).append(value.strip().strip("\"'"))
    return directives


def words_of(output: str) -> str:
    """Return what a server that did not start has to say."""
    _, found, fatal = output.partition("*** FATAL CONFIG FILE ERROR")
    lines = (fatal.splitlines()[1:] if found else output.splitlines()[-3:]) if output else []
    return " ".join(line.strip() for line in lines if line.strip()) or "no output"


class RefusedError(Exception):
    """Redis does not start with a configuration; the text has its words."""


def read_by_redis(program: str, content: str, run_as: str) -> dict[str, str]:
    """Return the settings of a server that has read a configuration.

    Raises:
        RefusedError: it has not.
    """
    directory = Path(tempfile.mkdtemp(prefix="channels-kit-redis-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam(run_as)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(directory, entry.pw_uid, entry.pw_gid)
    path = directory / "socket"
    command = [program, "-"]
    for name, value in {**OVERRIDDEN, "unixsocket": str(path), "dir": str(directory)}.items():
        command += [f"--{name}", *(value.split() or [""])]
    source, log = directory / "configuration", directory / "log"
    try:
        source.write_text(content)
        with source.open() as given, log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                # Without NOTIFY_SOCKET, above all.
                env={"PATH": os.environ.get("PATH", os.defpath)},
                **user,
            )
            try:
                return settings_at(path, process, log)
            finally:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(directory)


def settings_at(path: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    """Return the settings of a server that is being started."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RefusedError(words_of(log.read_text()))
        try:
            with Redis(str(path)) as server:
                found: dict[str, str] = pairs(server.ask("CONFIG", "GET", "*"))
                return found
        except OSError:
            time.sleep(0.01)
        except RedisError as error:
            raise RefusedError(str(error)) from error
    raise RefusedError(f"it did not answer within {PATIENCE:g} s")


def open_files(process_id: str) -> int | None:
    """Return how many files a process may open; None where that is not known."""
    try:
        limits = Path("/proc", process_id, "limits").read_text()
    except OSError:
        return None
    match = re.search(r"^Max open files +(\d+)", limits, re.M)
    return int(match[1]) if match else None


def differences(
    wanted: Mapping[str, str],
    found: Mapping[str, str],
    directives: Mapping[str, list[str]],
    nofile: int | None,
) -> dict[str, str]:
    """Return the settings that an instance has otherwise than it shall, with what they shall be.

    Args:
        wanted: the settings of a server that has read the configuration.
        found: the settings of the running instance.
        directives: the configuration.
        nofile: how many files the running instance may open.
    """
    differing = {
        name: value
        for name, value in wanted.items()
        if name not in NOT_COMPARED and name in found and found[name] != value
    }
    for name in LITERAL:
        if name in directives and name in found and found[name] != directives[name][-1]:
            differing[name] = directives[name][-1]
    maxclients = int(directives.get("maxclients", [str(DEFAULT_MAXCLIENTS)])[-1])
    # What it lowers by itself is right again when it is restarted with more files.
    granted = maxclients if nofile is None else min(maxclients, nofile - KEPT_BY_REDIS)
    if int(found.get("maxclients", granted)) != granted:
        differing["maxclients"] = str(granted)
    return differing


def hidden(name: str) -> bool:
    """Return whether a setting may hold a secret."""
    return bool(re.search(r"pass|auth|user", name))


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "unit": {"type": "str", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
            "login_user": {"type": "str", "default": "administrator"},
            "login_password_file": {"type": "path", "required": True, "no_log": False},
            "run_as": {"type": "str", "default": "redis"},
        },
        supports_check_mode=True,
    )
    content = module.params["content"]
    directives = parse(content)
    program = module.get_bin_path("redis-server", required=True)
    try:
        wanted = read_by_redis(program, content, module.params["run_as"])
    except RefusedError as error:
        unit = module.params["unit"]
        module.fail_json(msg=f"Redis refused the settings of {unit}; nothing changed: {error}")
    result: dict[str, Any] = {
        "running": False,
        "set": [],
        "reasons": [],
        "not_compared": sorted(set(directives) - set(wanted) - NOT_COMPARED),
        "diff": {"before": "", "after": ""},
    }
    try:
        password = read_password(module.params["login_password_file"])
    except (OSError, ValueError):
        # A dry run has not made it. The empty one may be in effect.
        password = ""
    try:
        server = log_in(
            module.params["address"], module.params["port"], module.params["login_user"], password
        )
        if server is not None:
            with server:
                result["running"] = True
                compare(server, wanted, directives, result, module.check_mode)
        elif is_active(module):
            result["running"] = True
            result["reasons"].append(
                f"nothing listens at {module.params['address']} port {module.params['port']}"
            )
    except LoginError as error:
        result["running"] = True
        result["reasons"].append(str(error))
    except (RedisError, OSError) as error:
        module.fail_json(msg=f"Reading the settings of the running instance failed: {error}")
    restart = bool(result["reasons"])
    module.exit_json(changed=restart or bool(result["set"]), restart_required=restart, **result)


def is_active(module: AnsibleModule) -> bool:
    """Return whether the unit is active."""
    systemctl = module.get_bin_path("systemctl")
    if systemctl is None:
        return False
    code, _, _ = module.run_command([systemctl, "is-active", "--quiet", module.params["unit"]])
    return bool(code == 0)


def compare(
    server: Redis,
    wanted: Mapping[str, str],
    directives: Mapping[str, list[str]],
    result: dict[str, Any],
    check: bool,
) -> None:
    """Set what differs, and note what cannot be set."""
    found = pairs(server.ask("CONFIG", "GET", "*"))
    information = server.ask("INFO", "server")
    process = re.search(r"^process_id:(\d+)", information, re.M)
    nofile = open_files(process[1]) if process else None
    for name, value in sorted(differences(wanted, found, directives, nofile).items()):
        if not hidden(name):
            result["diff"]["before"] += f"{name} {found[name]}\n"
            result["diff"]["after"] += f"{name} {value}\n"
        if check:
            result["set"].append(name)
            continue
        try:
            server.ask("CONFIG", "SET", name, value)
        except RedisError as error:
            result["reasons"].append(f"{name}: {error}")
        else:
            result["set"].append(name)


if __name__ == "__main__":
    main()
