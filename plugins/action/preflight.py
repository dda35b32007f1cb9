"""Ansible action: check every variable of every host before anything is changed.

The action does not read the variables of hosts that are in none of the groups of ``by_group``.
For each other host it reads ``meta/argument_specs.yml`` of the roles that run there (types,
choices, what is required), then the rules of ``meta/preflight.yml``: ``variable``, ``that`` (an
expression that must hold) and ``allowed`` (in words), then the ports that the roles take on the
host (``meta/ports.yml``). Variables of earlier versions (``meta/replaced.yml``) are refused with
what to set instead. All problems are reported at once, each with the variable, its value and what
is allowed; secrets are not shown.
"""

from __future__ import annotations

import difflib
import ipaddress
import itertools
import re
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
    "raw": "a value",
}
# Variables of the role cluster that may differ between hosts.
PER_HOST = {"cluster_address", "cluster_nofile", "cluster_workers"}
# Prefixes that only the kit's variables have. Other roles, such as exporters for nginx, PostgreSQL
# and Redis, also use the prefixes nginx_, postgres_ and redis_: redis_exporter_port is accepted.
OWN_PREFIXES = ("channels_", "cluster_")
NOT_SET = "not set"
MOST_SHOWN = 300
"""Characters of a value that a problem shows: cluster_figures has two thousand."""

# The end of the description of an option that an inventory must not set.
DERIVED = "Derived; do not set."
# Units, nginx.conf and the arguments of channels-prove contain the host's name. channels-prove
# allows 100 characters for the name and the port.
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,93}")

# The Python type that a value must have: nothing converts it before a template uses it.
SHAPES: Mapping[str, Any] = {
    "str": (str, int, float),
    "int": int,
    "float": (int, float),
    "bool": bool,
    "path": str,
    "list": list,
    "dict": Mapping,
    # A rule says what it may be.
    "raw": object,
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
    ports: tuple[Mapping[str, Any], ...]
    replaced: Mapping[str, str]


def in_words(option: Mapping[str, Any]) -> str:
    """Return what an option of an argument spec allows."""
    words = TYPES[option.get("type", "str")]
    if option.get("elements"):
        words += f" of {TYPES[option['elements']].split(' ', 1)[1]}s"
    if option.get("choices"):
        words = "one of " + ", ".join(map(str, option["choices"]))
    return words


def has_shape(value: Any, shape: str, secret: bool) -> bool:
    """Return whether a value is of a type as templates use it."""
    if isinstance(value, bool):
        return shape == "bool"
    # YAML reads 0123 as 83 and 12:30 as 750. A secret without quotes may change its value.
    if secret and shape == "str":
        return isinstance(value, str)
    return isinstance(value, SHAPES[shape])


def shown(value: Any, option: Mapping[str, Any]) -> str:
    """Return a value as a problem may show it."""
    if option.get("no_log"):
        return "(a secret, not shown)"
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def ports_of(entry: Mapping[str, Any], templar: Any) -> Iterator[tuple[int, str]]:
    """Yield the ports that a service listens on, each with the variable that sets it."""
    try:
        ports = [int(port) for port in templar.template(entry["ports"])]
    except (AnsibleError, TypeError, ValueError):
        # The ports are derived from an invalid variable, which is reported itself.
        return
    yield from ((port, entry["variable"]) for port in ports)


def port_conflicts(taken: list[tuple[int, str]]) -> Iterator[str]:
    """Yield a problem for each port that two services of a host use."""
    first: dict[int, str] = {}
    found: dict[tuple[str, str], int] = {}
    for port, variable in taken:
        other = first.setdefault(port, variable)
        if other != variable:
            found.setdefault((variable, other), port)
    for (variable, other), port in found.items():
        allowed = "a port that no other service on the host uses"
        yield f"{variable} and {other} both use port {port}; allowed: {allowed}"


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
            ports=tuple(read("meta/ports.yml") or ()),
            replaced=read("meta/replaced.yml") or {},
        )

    def problems(
        self, host: str, roles: list[Role], known: Mapping[str, Role], task_vars: Mapping[str, Any]
    ) -> Iterator[str]:
        """Yield the problems of a host's variables."""
        if not HOST_NAME.fullmatch(host):
            allowed = (
                "up to 94 letters, digits, dots, underscores, colons and dashes,"
                " beginning with a letter or a digit"
            )
            yield f"the host's name in the inventory is {host!r}; allowed: {allowed}"
        hostvars = task_vars["hostvars"]
        given = hostvars.raw_get(host)
        shared = {
            name: task_vars[name]
            for name in ("groups", "hostvars", "playbook_dir", "ansible_playbook_python")
        }
        own = {"inventory_hostname": host, "group_names": given.get("group_names", [])}
        cluster = {**known["cluster"].defaults, **known["cluster"].private}
        options = {name: each for role in known.values() for name, each in role.options.items()}
        bad: set[str] = set()
        refused: set[str] = set()
        taken: list[tuple[int, str]] = []
        for role in roles:
            variables = {**cluster, **role.defaults, **given, **role.private, **shared, **own}
            variables["role_path"] = str(role.path)
            templar = self._templar.copy_with_new_env(available_variables=variables)
            # Required variables first: others are derived from them.
            # This role can also have rules for variables of other roles that it reads.
            others = [rule["variable"] for rule in role.rules if rule["variable"] in variables]
            names = dict.fromkeys([*role.options, *others])
            for name in sorted(names, key=lambda name: not options[name].get("required")):
                problem = self.problem_of(name, options[name], variables, templar, bad | refused)
                if problem:
                    bad.add(name)
                    yield problem
            for rule in role.rules:
                name = rule["variable"]
                # Report one problem for each mistake. Skip a rule that uses an invalid variable.
                if bad.intersection(re.findall(r"\w+", rule["that"])):
                    continue
                if name not in variables:
                    bad.add(name)
                    yield f"{name} is not set; allowed: {rule['allowed']}"
                    continue
                try:
                    if not templar.evaluate_conditional(rule["that"]):
                        value = shown(templar.template(variables[name]), options[name])
                        refused.add(name)
                        yield f"{name} is {value}; allowed: {rule['allowed']}"
                except AnsibleError as error:
                    # The rule uses an invalid variable, which is reported itself.
                    reported = bad | refused
                    if not any(each in rule["that"] + error.message for each in reported):
                        yield f"{name} cannot be checked: {error.message}"

            for entry in role.ports:
                if entry["variable"] not in bad | refused:
                    taken += ports_of(entry, templar)
        yield from port_conflicts(taken)

        for name in given:
            derived = name in options and options[name]["description"].endswith(DERIVED)
            if derived and name not in bad:
                yield f"{name} is derived from other variables and must not be set; remove it"
        prefixes = tuple(f"{name}_" for name in known)
        replaced = {name: text for role in known.values() for name, text in role.replaced.items()}
        for name in given:
            if name in replaced:
                yield f"{name} is no longer a variable of the kit; {replaced[name]}"
            elif name.startswith(prefixes) and name not in options:
                is_own = name.startswith(OWN_PREFIXES)
                # A name that differs by one or two letters from a variable of the kit is a typo.
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
        """Yield a problem for each shared variable that differs between hosts.

        Also yield a problem for each address that two hosts share or that other hosts cannot reach.
        """
        given = {host: hostvars.raw_get(host) for host in hosts}
        yield from self.shared_addresses(given)
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

    def shared_addresses(self, given: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
        """Yield a problem for each address of several hosts, and for each loopback address."""
        hosts_by_address: dict[Any, list[str]] = defaultdict(list)
        for host, variables in given.items():
            templar = self._templar.copy_with_new_env(
                available_variables={**variables, "inventory_hostname": host}
            )
            try:
                address = ipaddress.ip_address(templar.template(variables["cluster_address"]))
            except (AnsibleError, KeyError, ValueError):
                # The problem is already reported for the host.
                continue
            hosts_by_address[address].append(host)
        for address, hosts in hosts_by_address.items():
            if len(hosts) > 1:
                allowed = "a different address for every host"
            elif address.is_loopback and len(given) > 1:
                allowed = "an address that the other hosts can reach"
            else:
                continue
            yield f"cluster_address is {str(address)!r} on {', '.join(hosts)}; allowed: {allowed}"

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
        if value is False and "off" in option.get("choices", ()):
            # YAML reads off without quotes as false.
            return None
        if value is None or (option.get("required") and value in ("", [])):
            return f"{name} is empty; allowed: {allowed}"
        spec = {key: option[key] for key in ("type", "elements", "choices") if key in option}
        converts = not ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
        shape, secret = option.get("type", "str"), bool(option.get("no_log"))
        if converts and has_shape(value, shape, secret):
            elements = option.get("elements")
            if elements is None or all(has_shape(each, elements, secret) for each in value):
                return None
        if secret and converts and not isinstance(value, (str, Mapping, list)):
            return f"{name} is not a string; allowed: {allowed} (put numbers in quotes)"
        # The validator converts ('30' to 30, 'a,b' to a list), but templates get the raw value.
        quoted = converts and isinstance(value, str) and shape in ("int", "float", "bool")
        hint = f" (pass it without quotes: -e '{{\"{name}\": {value}}}')" if quoted else ""
        return f"{name} is {shown(value, option)}; allowed: {allowed}{hint}"
