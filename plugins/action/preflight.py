"""Ansible action: check every variable of every host before anything is changed.

Hosts in none of the groups of ``by_group`` belong to somebody else: their variables are not read.
For each other host it reads ``meta/argument_specs.yml`` of the roles that run there (types,
choices, what is required), then the rules of ``meta/preflight.yml``: ``variable``, ``that`` (an
expression that must hold) and ``allowed`` (in words). All problems are reported at once, each with
the variable, its value and what is allowed; secrets are not shown.
"""

from __future__ import annotations

import difflib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import add_all_plugin_dirs

TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "path": "a path",
}
# Variables of the role cluster that may differ between hosts.
PER_HOST = {"cluster_address", "cluster_nofile", "cluster_workers"}
# Prefixes that no role of somebody else has. Exporters and other roles for nginx, PostgreSQL and
# Redis have the prefixes of the kit's roles: redis_exporter_port is no mistake.
OWN_PREFIXES = ("channels_", "cluster_")
NOT_SET = "not set"

# The Python type that a value must have: nothing converts it before a template uses it.
SHAPES: Mapping[str, Any] = {
    "str": (str, int, float),
    "int": int,
    "float": (int, float),
    "bool": bool,
    "path": str,
    "list": list,
    "dict": Mapping,
}


@dataclass(frozen=True)
class Role:
    """What a role says of its variables."""

    name: str
    path: Path
    defaults: Mapping[str, Any]
    private: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Any]]
    rules: tuple[Mapping[str, str], ...]


def in_words(option: Mapping[str, Any]) -> str:
    """Return what an option of an argument spec allows."""
    words = TYPES[option.get("type", "str")]
    if option.get("elements"):
        words += f" of {TYPES[option['elements']].split(' ', 1)[1]}s"
    if option.get("choices"):
        words = "one of " + ", ".join(map(str, option["choices"]))
    return words


def shown(value: Any, option: Mapping[str, Any]) -> str:
    """Return a value as a problem may show it."""
    return "(a secret, not shown)" if option.get("no_log") else repr(value)


class ActionModule(ActionBase):
    """The action; runs on the controller alone."""

    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ok, or fail with every problem in words."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        every: list[str] = self._task.args["every_host"]
        by_group: dict[str, list[str]] = self._task.args["by_group"]
        required_groups: list[str] = self._task.args["required_groups"]
        directory = Path(self._task.args["roles_directory"])
        roles = {
            name: self.load(directory / name)
            for name in {*every, *itertools.chain(*by_group.values())}
        }

        groups = task_vars["groups"]
        hosts_by_problem: dict[str, list[str]] = defaultdict(list)
        for group in required_groups:
            if not groups.get(group):
                problem = f"the group {group} is empty; allowed: at least one host"
                hosts_by_problem[problem].append("inventory")
        hosts = [
            host
            for host in groups["all"]
            if any(host in groups.get(group, ()) for group in by_group)
        ]
        for host in hosts:
            names = [
                *every,
                *(
                    role
                    for group in by_group
                    if host in groups.get(group, ())
                    for role in by_group[group]
                ),
            ]
            for problem in self.problems(host, [roles[name] for name in names], roles, task_vars):
                hosts_by_problem[problem].append(host)

        for problem in self.disagreements(hosts, roles["cluster"], task_vars["hostvars"]):
            hosts_by_problem[problem].append("inventory")

        if hosts_by_problem:
            lines = [
                f"{', '.join(hosts)}: {problem}" for problem, hosts in hosts_by_problem.items()
            ]
            count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
            result["failed"] = True
            result["msg"] = f"Preflight found {count}. Nothing changed.\n" + "\n".join(lines)
        return result

    def load(self, path: Path) -> Role:
        """Return what the role in a directory says of its variables."""
        add_all_plugin_dirs(str(path))

        def read(file: str) -> Any:
            if not (path / file).exists():
                return None
            return self._loader.load_from_file(str(path / file), trusted_as_template=True)

        specs = read("meta/argument_specs.yml")
        return Role(
            name=path.name,
            defaults=read("defaults/main.yml") or {},
            private=read("vars/main.yml") or {},
            path=path,
            options={
                name: option
                for entry in specs["argument_specs"].values()
                for name, option in entry["options"].items()
            },
            rules=tuple(read("meta/preflight.yml") or ()),
        )

    def problems(
        self, host: str, roles: list[Role], known: Mapping[str, Role], task_vars: Mapping[str, Any]
    ) -> Iterator[str]:
        """Yield the problems of a host's variables."""
        hostvars = task_vars["hostvars"]
        given = hostvars.raw_get(host)
        shared = {
            name: task_vars[name]
            for name in ("groups", "hostvars", "playbook_dir", "ansible_playbook_python")
        }
        own = {"inventory_hostname": host, "group_names": given.get("group_names", [])}
        cluster = known["cluster"].defaults
        options = {name: each for role in known.values() for name, each in role.options.items()}
        bad: set[str] = set()
        for role in roles:
            variables = {**cluster, **role.defaults, **given, **role.private, **shared, **own}
            variables["role_path"] = str(role.path)
            templar = self._templar.copy_with_new_env(available_variables=variables)
            # Required variables first: others are derived from them.
            for name in sorted(role.options, key=lambda name: not options[name].get("required")):
                problem = self.problem_of(name, options[name], variables, templar, bad)
                if problem:
                    bad.add(name)
                    yield problem
            for rule in role.rules:
                name = rule["variable"]
                # One problem for each variable: its type was wrong.
                if name in bad:
                    continue
                if name not in variables:
                    bad.add(name)
                    yield f"{name} is not set; allowed: {rule['allowed']}"
                    continue
                try:
                    if not templar.evaluate_conditional(rule["that"]):
                        value = shown(templar.template(variables[name]), options[name])
                        yield f"{name} is {value}; allowed: {rule['allowed']}"
                except AnsibleError as error:
                    # A rule that uses a wrong variable cannot be evaluated; that one is reported.
                    if not any(other in rule["that"] for other in bad):
                        yield f"{name} cannot be checked: {error.message}"

        prefixes = tuple(f"{name}_" for name in known)
        for name in given:
            if name.startswith(prefixes) and name not in options:
                is_own = name.startswith(OWN_PREFIXES)
                # Another role's variable is not one or two letters from one of the kit's.
                near = difflib.get_close_matches(name, options, n=1, cutoff=0.8 if is_own else 0.9)
                if not near and not is_own:
                    continue
                role_name = name.split("_")[0]
                hint = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"see roles/{role_name}/meta/argument_specs.yml"
                )
                yield f"{name} is not a variable of the role {role_name}; {hint}"

    def disagreements(self, hosts: list[str], cluster: Role, hostvars: Any) -> Iterator[str]:
        """Yield the shared variables whose values differ between hosts."""
        given = {host: hostvars.raw_get(host) for host in hosts}
        for name in sorted(cluster.options.keys() - PER_HOST):
            hosts_by_value: dict[str, list[str]] = defaultdict(list)
            for host in hosts:
                value = repr(given[host][name]) if name in given[host] else NOT_SET
                hosts_by_value[value].append(host)
            if len(hosts_by_value) > 1:
                hidden = cluster.options[name].get("no_log")
                values = " but ".join(
                    f"{'a secret' if hidden and value != NOT_SET else value} on {', '.join(where)}"
                    for value, where in hosts_by_value.items()
                )
                allowed = "the same value on every host; set it for the group all"
                yield f"{name} is {values}; allowed: {allowed}"

    def problem_of(
        self,
        name: str,
        option: Mapping[str, Any],
        variables: Mapping[str, Any],
        templar: Any,
        bad: set[str],
    ) -> str | None:
        """Return what is wrong with the type of one variable, or None; ``bad`` were reported."""
        allowed = f"{in_words(option)}: {option['description']}"
        if name not in variables:
            return f"{name} is not set; allowed: {allowed}" if option.get("required") else None
        try:
            value = templar.template(variables[name])
        except AnsibleError as error:
            if any(other in error.message for other in bad):
                return None
            return f"{name} cannot be read: {error.message}"
        if value is None or (option.get("required") and value in ("", [])):
            return f"{name} is empty; allowed: {allowed}"
        spec = {key: option[key] for key in ("type", "elements", "choices") if key in option}
        converts = not ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
        if converts and isinstance(value, SHAPES[option.get("type", "str")]):
            return None
        # The validator converts ('30' to 30, 'a,b' to a list), but templates get the raw value.
        quoted = converts and option.get("type") in ("int", "float", "bool")
        hint = f" (pass it without quotes: -e '{{\"{name}\": {value}}}')" if quoted else ""
        return f"{name} is {shown(value, option)}; allowed: {allowed}{hint}"
