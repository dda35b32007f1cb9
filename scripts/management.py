"""Run a management command of the application on the running release, on one app host.

Uses SSH as Ansible does for that host, so that a command can ask for a password.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "/usr/local/sbin/channels-manage"
BECOME = {"sudo": ["sudo"], "doas": ["doas"]}

# What Ansible knows of the connection to a host, evaluated by Ansible itself.
CONNECTION = {
    "host": "{{ inventory_hostname }}",
    "address": "{{ ansible_host | default(inventory_hostname) }}",
    "user": "{{ ansible_user | default('') }}",
    "port": "{{ ansible_port | default('') }}",
    "key": "{{ ansible_ssh_private_key_file | default('') }}",
    "arguments": (
        "{{ ansible_ssh_common_args | default('') }} {{ ansible_ssh_extra_args | default('') }}"
    ),
    "connection": "{{ ansible_connection | default('ssh') }}",
    "become": "{{ ansible_become | default(false) }}",
    "method": "{{ ansible_become_method | default('sudo') }}",
    "app_hosts": "{{ groups['channels'] | default([]) | join(' ') }}",
}


class ManageError(Exception):
    """A message for the operator; printed without a traceback."""


def find_inventory(environment: str) -> Path:
    """Return the inventory of an environment.

    Raises:
        ManageError: there is none.
    """
    all_of_them = (ROOT / "inventories").resolve()
    for path in (all_of_them / environment, Path(environment)):
        # The directory of all inventories, or one above it, is none: they would be one cluster.
        if environment and path.exists() and not all_of_them.is_relative_to(path.resolve()):
            return path
    known = " ".join(sorted(path.name for path in all_of_them.iterdir()))
    raise ManageError(f"There is no inventory '{environment}'. ENV= takes one of: {known}")


def find_running_inventory(environment: str) -> Path:
    """Return the inventory of an environment whose hosts can be asked.

    Raises:
        ManageError: there is none.
    """
    path = find_inventory(environment)
    # make up writes the addresses of its hosts there.
    staging = (ROOT / "inventories" / "staging").resolve()
    if path.resolve() == staging and not (path / "generated.yml").exists():
        raise ManageError("There is no staging cluster. Start one: make up")
    return path


def connection_of(inventory: Path, host: str) -> dict[str, Any]:
    """Return how Ansible reaches an app host: the given one, or the first.

    Raises:
        ManageError: Ansible cannot read the inventory, or it is no app host.
    """
    command = [
        *(str(Path(sys.executable).with_name("ansible")), "--inventory", str(inventory)),
        *(host or "channels[0]", "--module-name", "ansible.builtin.debug"),
        *("--args", json.dumps({"msg": CONNECTION})),
    ]
    quiet = {
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **quiet}, capture_output=True, text=True, check=False
    )
    _, found, answer = ended.stdout.partition("SUCCESS => ")
    if ended.returncode or not found:
        if "Could not match supplied host pattern" in ended.stderr or not ended.returncode:
            if not host:
                raise ManageError(f"{inventory} has no host in the group channels.")
            # Which there are; the same message as for a host of another group.
            known = connection_of(inventory, "")["app_hosts"]
            raise ManageError(f"HOST='{host}' is not an app host. App hosts: {known}")
        raise ManageError(f"Ansible cannot read {inventory}:\n{ended.stdout}{ended.stderr}")
    told: dict[str, Any] = json.loads(answer)["msg"]
    if told["host"] not in told["app_hosts"].split():
        raise ManageError(f"HOST='{host}' is not an app host. App hosts: {told['app_hosts']}")
    return told


def command_line(told: dict[str, Any], words: list[str], terminal: bool) -> list[str]:
    """Return the command that runs channels-manage with words on a host.

    Raises:
        ManageError: it needs another way to become root.
    """
    return reach(told, [PROGRAM, *words], terminal)


def reach(told: dict[str, Any], run: list[str], terminal: bool) -> list[str]:
    """Return the command that runs a command on a host as root.

    Raises:
        ManageError: it needs another way to become root.
    """
    if told["user"] != "root" and str(told["become"]).lower() in ("true", "yes", "1"):
        if told["method"] == "su":
            run = ["su", "-c", shlex.join(run), "root"]
        elif told["method"] in BECOME:
            run = [*BECOME[told["method"]], *run]
        else:
            raise ManageError(
                f"The become method {told['method']} cannot be used here. Run as root on"
                f" {told['host']}: {shlex.join(run)}"
            )
    if told["connection"] == "local":
        return run
    options = ["-t"] if terminal else []
    options += ["-i", told["key"]] if told["key"] else []
    options += ["-p", str(told["port"])] if told["port"] else []
    options += shlex.split(told["arguments"])
    where = f"{told['user']}@{told['address']}" if told["user"] else told["address"]
    return ["ssh", *options, where, shlex.join(run)]


def main() -> int:
    """Become the command."""
    parser = argparse.ArgumentParser(
        description="Run a management command on an app host.",
        usage="management.py ENVIRONMENT [--host HOST] [--python] -- COMMAND [ARGUMENT ...]",
    )
    parser.add_argument("environment", help="a directory of inventories/")
    parser.add_argument("--host", default="", help="default: the first app host")
    parser.add_argument("--python", action="store_true", help="the arguments are Python's")
    # What follows -- is the command's, whatever it looks like.
    own, _, rest = "\0".join(sys.argv[1:]).partition("\0--\0")
    arguments = parser.parse_args(own.removesuffix("\0--").split("\0"))
    given = rest.split("\0") if rest else []
    try:
        if not given:
            raise ManageError('Which command? make manage CMD="createsuperuser"')
        told = connection_of(find_running_inventory(arguments.environment), arguments.host)
        words = [*(["--python"] if arguments.python else []), *given]
        command = command_line(told, words, sys.stdin.isatty() and sys.stdout.isatty())
    except ManageError as error:
        print(error, file=sys.stderr)
        return 1
    os.execvp(command[0], command)  # noqa: S606
    return 0  # not reached


if __name__ == "__main__":
    sys.exit(main())
