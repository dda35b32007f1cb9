"""What the actions that read files of meta/ share; it runs on the controller alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.loader import add_all_plugin_dirs
from ansible.template import trust_as_template

# Variables of the cluster that many expressions use: they are evaluated once, in this order. Each
# use would read the inventory of all hosts again.
SETTLED = (
    "cluster_app_addresses",
    "cluster_edge_addresses",
    "cluster_web_workers",
    "cluster_capacity",
)


def load(path: Path) -> Any:
    """Return the content of a YAML file, whose expressions are not evaluated; None without one.

    Ansible's own loader warns of each key that an entry has in place of a merged one (``<<``).
    """
    return _trusted(yaml.safe_load(path.read_text())) if path.exists() else None


def _trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, list):
        return [_trusted(each) for each in value]
    if isinstance(value, dict):
        return {name: _trusted(each) for name, each in value.items()}
    return value


def templars_of(
    templar: Any, roles: Path, names: Sequence[str], task_vars: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what evaluates expressions on a host as each role of a directory itself would."""
    cluster = [load(roles / "cluster" / part / "main.yml") or {} for part in ("defaults", "vars")]
    found = {name: _templar_of(templar, roles / name, cluster, task_vars) for name in names}
    known = _settled(next(iter(found.values()))) if found else {}
    return {
        name: own.copy_with_new_env(available_variables={**own.available_variables, **known})
        for name, own in found.items()
    }


def _settled(templar: Any) -> dict[str, Any]:
    """Return the values of the variables in SETTLED, but for those that cannot be evaluated.

    These are reported where they are used.
    """
    found: dict[str, Any] = {}
    for name in SETTLED:
        own = templar.copy_with_new_env(
            available_variables={**templar.available_variables, **found}
        )
        with suppress(AnsibleError, KeyError):
            found[name] = own.template(own.available_variables[name])
    return found


def _templar_of(
    templar: Any, role: Path, cluster: Sequence[Mapping[str, Any]], task_vars: Mapping[str, Any]
) -> Any:
    """Return what evaluates as one role would, with defaults and variables of the role cluster."""
    add_all_plugin_dirs(str(role))
    variables = {
        **cluster[0],
        **(load(role / "defaults/main.yml") or {}),
        **task_vars,
        **cluster[1],
        **(load(role / "vars/main.yml") or {}),
        "role_path": str(role),
        "ansible_search_path": [str(role)],
    }
    return templar.copy_with_new_env(available_variables=variables)


def ports_of(templar: Any, role: Path) -> list[int]:
    """Return the ports that a role's services listen on, as ``meta/ports.yml`` has them."""
    entries = load(role / "meta/ports.yml") or []
    return [int(port) for entry in entries for port in templar.template(entry["ports"])]
