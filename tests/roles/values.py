"""The preflight and the templates in this process, and the programs that read what is written.

A value is data here, as `!unsafe` is in an inventory: what stands between braces is no template.
"""

import ctypes
import ctypes.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import (
    action_loader,
    filter_loader,
    init_plugin_loader,
    test_loader,
)
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from .house import ROLE_NAMES, ROLES, ROOT, Tree
from .quick.quick_ansible import do_once
from .rendered import RELEASE

do_once()

SECRET = "a-secret-of-the-tests-and-nobody-else"
ROLES_OF = {"app1": "channels", "cache1": "redis", "db1": "postgres", "lb1": "nginx"}
HOSTS: Tree = {
    "app1": {"cluster_address": "10.0.0.1"},
    "cache1": {"cluster_address": "10.0.0.2"},
    "db1": {"cluster_address": "10.0.0.3"},
    "lb1": {"cluster_address": "10.0.0.4"},
}
COMMON: Tree = {
    "cluster_server_names": ["chat.example.org"],
    "channels_secret_key": f"{SECRET}-secret-key",
    "channels_probe_token": f"{SECRET}-probe",
    "postgres_password": f"{SECRET}-postgres",
    "redis_layer_password": f"{SECRET}-layer",
    "redis_broker_password": f"{SECRET}-broker",
}


class House:
    """A small cluster whose variables a test may change."""

    def __init__(self, directory: Path, own_servers: bool = True, **common: Any) -> None:
        if AnsibleCollectionConfig.collection_finder is None:
            init_plugin_loader([])
        action_loader.add_directory(str(ROOT / "plugins" / "action"))
        filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
        test_loader.add_directory(str(ROOT / "plugins" / "test"))
        members = {role: [host] for host, role in ROLES_OF.items()}
        if not own_servers:
            members.update(postgres=[], redis=[])
        inventory = {
            "all": {"hosts": HOSTS, "vars": {**COMMON, **common}},
            **{group: {"hosts": dict.fromkeys(hosts)} for group, hosts in members.items()},
        }
        file = directory / "hosts.yml"
        file.write_text(yaml.safe_dump(inventory))
        self.loader = DataLoader()
        self.loader.set_basedir(str(ROOT))
        self.inventory = InventoryManager(loader=self.loader, sources=[str(file)])
        variables = VariableManager(loader=self.loader, inventory=self.inventory)
        hostvars = HostVars(
            inventory=self.inventory, variable_manager=variables, loader=self.loader
        )
        self.action = action_loader.get("preflight", class_only=True)(
            task=SimpleNamespace(args={}, async_val=0),
            connection=None,
            play_context=None,
            loader=self.loader,
            templar=Templar(loader=self.loader, variables={}),
            shared_loader_obj=None,
        )
        self.known = {name: self.action.load(ROLES / name) for name in ROLE_NAMES}
        self.task_vars: Tree = {
            "groups": self.inventory.get_groups_dict(),
            "hostvars": hostvars,
            "playbook_dir": str(ROOT),
            "ansible_playbook_python": sys.executable,
        }

    def roles(self, host: str) -> list[str]:
        groups = self.task_vars["groups"]
        own = [ROLES_OF[host]] if host in groups.get(ROLES_OF[host], ()) else []
        return ["cluster", "base", *own]

    def problems(self, host: str, only: str = "", **values: Any) -> list[str]:
        """What the preflight says of a host that has these values; of one variable alone."""
        roles = [self.known[name] for name in self.roles(host)]
        if only:
            roles = [
                replace(
                    role,
                    options={name: each for name, each in role.options.items() if name == only},
                    rules=tuple(rule for rule in role.rules if rule["variable"] == only),
                    ports=(),
                )
                for role in roles
            ]
            # Of a variable that two roles check, its own role says it.
            roles = [role for role in roles if only in role.options]
            assert roles, f"{host} has not {only}"
        with self.having(host, values):
            return list(self.action.problems(host, roles, self.known, self.task_vars))

    def disagreements(self, **addresses: str) -> list[str]:
        """What the preflight says of all hosts together."""
        return list(
            self.action.disagreements(
                list(HOSTS), self.known["cluster"], self.task_vars["hostvars"]
            )
        )

    def having(self, host: str, values: Mapping[str, Any]) -> Any:
        return _Having(self.inventory.get_host(host).vars, values)

    def render(
        self, host: str, role: str, text: str, values: Mapping[str, Any], **more: Any
    ) -> Any:
        """Evaluate a template with the variables that a role has on a host."""
        with self.having(host, values):
            given = self.task_vars["hostvars"].raw_get(host)
            variables = {
                **self.known["cluster"].defaults,
                **self.known["cluster"].private,
                **self.known[role].defaults,
                **given,
                **self.known[role].private,
                **self.task_vars,
                "inventory_hostname": host,
                "group_names": given.get("group_names", []),
                "role_path": str(ROLES / role),
                "ansible_search_path": [str(ROLES / role)],
                "ansible_managed": "Ansible managed",
                "channels_release": RELEASE,
                "_postgres_clusters": {
                    "stdout_lines": ["15 main 5432 online postgres /var/lib/postgresql /var/log"]
                },
                **more,
            }
            templar = self.action._templar.copy_with_new_env(available_variables=variables)
            return templar.template(trust_as_template(text))

    def file(
        self, host: str, role: str, template: str, values: Mapping[str, Any], **more: Any
    ) -> str:
        """Return what a template of a role makes of values."""
        lookup = "{{ lookup('ansible.builtin.template', '" + template + "') }}"
        return str(self.render(host, role, lookup, values, **more))


class _Having:
    """Gives a host variables for a while."""

    def __init__(self, variables: dict[str, Any], values: Mapping[str, Any]) -> None:
        self.variables, self.values = variables, values
        self.former: dict[str, Any] = {}

    def __enter__(self) -> None:
        self.former = dict(self.variables)
        self.variables.update(self.values)

    def __exit__(self, *exception: object) -> None:
        self.variables.clear()
        self.variables.update(self.former)


class Systemd:
    """What systemd itself makes of a text: the functions of its shared library."""

    def __init__(self) -> None:
        (library,) = [
            path
            for directory in ("/usr/lib", "/lib")
            for path in Path(directory).glob("**/systemd/libsystemd-shared-*.so")
        ][:1]
        self.library = ctypes.CDLL(str(library))
        self.libc = ctypes.CDLL(ctypes.util.find_library("c"))
        self.libc.fopen.restype = ctypes.c_void_p
        self.libc.fclose.argtypes = [ctypes.c_void_p]
        self.library.load_env_file.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p)),
        ]

    def environment(self, file: Path) -> dict[str, str]:
        """Read a file as EnvironmentFile= does."""
        stream = self.libc.fopen(bytes(file), b"re")
        found = ctypes.POINTER(ctypes.c_char_p)()
        try:
            code = self.library.load_env_file(stream, None, ctypes.byref(found))
        finally:
            self.libc.fclose(stream)
        assert code >= 0, os.strerror(-code)
        pairs: list[list[str]] = []
        while found and (text := found[len(pairs)]) is not None:
            assert self.library.env_value_is_valid(text)
            pairs.append(text.decode().split("=", 1))
        # Names that are none are left out, with a warning.
        return {
            name: value for name, value in pairs if self.library.env_name_is_valid(name.encode())
        }

    def size(self, text: str) -> bool:
        """Return whether journald.conf takes a size."""
        size = ctypes.c_uint64()
        code: int = self.library.parse_size(
            text.encode(), ctypes.c_uint64(1024), ctypes.byref(size)
        )
        return code >= 0

    def unit_name(self, name: str) -> bool:
        """Return whether a unit may have a name: a plain one or an instance."""
        return bool(self.library.unit_name_is_valid(name.encode(), 5))


def run(*command: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def each(values: Sequence[Any]) -> Iterator[Any]:
    """Yield values; nothing that was looked at is no success."""
    assert values, "no value was tried"
    yield from values
