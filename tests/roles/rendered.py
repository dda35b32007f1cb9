"""Every file that the roles would write, rendered by Ansible from the roles as they are.

The roles are copied by links. Only their tasks are others: those that write files, and nothing
else. Each is handed to the action in recorder/, which writes down what the host would get.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .house import ROLE_NAMES, ROLES, Tree, finish, start, tasks, yaml_files

RECORDER = Path(__file__).with_name("recorder")
RELEASE = {
    "id": "0123456789ab",
    "archive": "/archive.tar.gz",
    "environment": "ba9876543210",
    "requirements": "",
    "kit": "456789abcdef",
    "application": "config.asgi:application",
    "settings_module": "config.settings",
    "root": ".",
    "server": "uvicorn",
    "static": True,
    "celery": "config",
}
# Its directory: edge_certificate.
CERTIFICATE = "0123456789ab"
POSTGRES = "15 main 5432 online postgres /var/lib/postgresql/15/main /var/log/postgresql"


@dataclass(frozen=True)
class Written:
    """A file as a host would get it."""

    path: str
    content: str
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    validate: str = ""
    secret: bool = False

    @property
    def lines(self) -> list[str]:
        """Those that are no comment and not empty."""
        lines = (line.strip() for line in self.content.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


# By host, then by path.
Cluster = Mapping[str, Mapping[str, Written]]


# What a task keeps beside its module.
KEPT = ("name", "vars", "loop", "loop_control")
COPY = "ansible.builtin.copy"
TEMPLATE = "ansible.builtin.template"


def file_tasks(role: str) -> list[Tree]:
    """The tasks of a role that write files, as tasks of the recorder."""
    found = []
    for file in yaml_files(ROLES / role / "tasks"):
        for task in tasks(file):
            # What is delegated is the controller's, and no file of a host.
            if "delegate_to" not in task and (files := files_of(task)) is not None:
                kept = {key: task[key] for key in KEPT if key in task}
                found.append({**kept, "record_file": {"files": files}})
    assert found or role == "cluster", f"{role} writes no file"
    return found


def files_of(task: Tree) -> Any:
    """The files that a task writes as the recorder takes them; None where it writes none."""
    module = next((name for name in (TEMPLATE, COPY) if name in task), None)
    if module is None:
        return None
    file = dict(task[module])
    source = file.pop("src", None)
    # A file of the role that is copied as it is has a test of its own, if it is a program.
    if module == COPY and "content" not in file:
        return None
    file["path"] = file.pop("dest")
    if module == TEMPLATE:
        file["template"] = source
    if task.get("no_log"):
        file["secret"] = True
    return [file]


def link_roles(directory: Path) -> None:
    """Make the roles of the house again, with other tasks."""
    for role in ROLE_NAMES:
        copy = directory / role
        copy.mkdir(parents=True)
        for part in ("defaults", "vars", "templates", "meta", "files"):
            if (ROLES / role / part).exists():
                (copy / part).symlink_to(ROLES / role / part)
        (copy / "tasks").mkdir()
        (copy / "tasks" / "main.yml").write_text(
            yaml.safe_dump(file_tasks(role), allow_unicode=True)
        )


def nginx_configurations(clusters: Mapping[str, Cluster]) -> dict[str, str]:
    """Return what nginx gets on the edge lb1 of each cluster."""
    return {
        name: cluster["lb1"]["/etc/nginx/nginx.conf"].content for name, cluster in clusters.items()
    }


def render(directory: Path, inventories: Mapping[str, Tree]) -> dict[str, Cluster]:
    """Render every file of every host of every inventory; one run an inventory, all at once."""
    link_roles(directory / "roles")
    play = {
        "name": "Render",
        "hosts": "all",
        "gather_facts": False,
        "vars": {
            "channels_release": RELEASE,
            "_nginx_certificate": {"id": CERTIFICATE},
            "_channels_host": {"current": "", "drained": False},
            "_channels_lock": {"owner": {"who": "ada@desk"}},
            # As on a bare host, where every file is missing.
            "_base_compared": {"different": "{{ _base_contents.keys() | list }}"},
            "_channels_units_compared": {
                "different": "{{ _channels_unit_contents.keys() | list }}"
            },
            "_postgres_clusters": {"stdout_lines": [POSTGRES]},
        },
        "tasks": [
            {
                "name": f"Render | Render {role}",
                "ansible.builtin.include_role": {"name": role, "rolespec_validate": False},
                **({} if role == "base" else {"when": f"'{role}' in group_names"}),
            }
            for role in ROLE_NAMES
            if role != "cluster"
        ],
    }
    processes = {}
    for name, inventory in inventories.items():
        hosts = {host for group in inventory.values() for host in group["hosts"]}
        for host in hosts:
            (directory / name / "rendered" / host).mkdir(parents=True)
        processes[name] = start(
            directory / name,
            inventory,
            [play],
            RENDERED=str(directory / name / "rendered"),
            ANSIBLE_ROLES_PATH=str(directory / "roles"),
            ANSIBLE_ACTION_PLUGINS=str(RECORDER),
        )
    # All end before one is judged: none is left running.
    runs = {name: finish(process) for name, process in processes.items()}
    for name, run in runs.items():
        assert run.code == 0, f"{name}: {run.output}"
    return {name: read(directory / name / "rendered") for name in inventories}


def read(directory: Path) -> Cluster:
    """What the recorder has written down."""
    cluster: dict[str, dict[str, Written]] = {}
    for host in directory.iterdir():
        files: list[Any] = [json.loads(file.read_text()) for file in host.iterdir()]
        cluster[host.name] = {file["path"]: Written(**file) for file in files}
    return cluster
