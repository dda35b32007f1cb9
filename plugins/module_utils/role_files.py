"""What the actions that read files of meta/ share; it runs on the controller alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.loader import add_all_plugin_dirs


def load(loader: Any, path: Path) -> Any:
    """Return the content of a YAML file, whose expressions are not evaluated; None without one."""
    if not path.exists():
        return None
    return loader.load_from_file(str(path), trusted_as_template=True)


def templar_of(templar: Any, loader: Any, role: Path, task_vars: Mapping[str, Any]) -> Any:
    """Return what evaluates expressions on a host as the role in a directory itself would."""
    add_all_plugin_dirs(str(role))
    cluster = role.parent / "cluster"
    variables = {
        **(load(loader, cluster / "defaults/main.yml") or {}),
        **(load(loader, role / "defaults/main.yml") or {}),
        **task_vars,
        **(load(loader, cluster / "vars/main.yml") or {}),
        **(load(loader, role / "vars/main.yml") or {}),
        "role_path": str(role),
        "ansible_search_path": [str(role)],
    }
    return templar.copy_with_new_env(available_variables=variables)


def ports_of(templar: Any, loader: Any, role: Path) -> list[int]:
    """Return the ports that a role's services listen on, as ``meta/ports.yml`` has them."""
    entries = load(loader, role / "meta/ports.yml") or []
    return [int(port) for entry in entries for port in templar.template(entry["ports"])]
