"""Ansible action: evaluate expressions for hosts of the cluster, as their roles would.

The action contacts no host. For each host of the groups in ``by_group`` it evaluates each of
``expressions`` (by name, without braces) with the variables of the inventory and the defaults of
the roles that run there, and writes all values as JSON to ``dest``, a file that only its owner can
read. ``variables`` take the place of those of the inventory. With ``counts``, a group has another
number of hosts, by its name: copies of the first one, with other names and addresses. Of copies no
values are written.
An expression that fails is null, and the file says why. ``table`` is a variable with lines that
have a value and, if an inventory may override it, the name of a variable: each line is evaluated on
the first host whose roles have that variable. A value that the inventory gives to one of these
variables, or to one of ``checked``, and that ``meta/preflight.yml`` of its role does not allow, is
in ``refused``, in the words of the preflight.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import add_all_plugin_dirs

SHARED = ("playbook_dir", "ansible_playbook_python", "inventory_dir", "omit")


def with_counts(
    groups: Mapping[str, list[str]],
    given: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, int],
) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """Return groups and variables of an inventory with other numbers of hosts in some groups.

    A host that leaves a group stays in its others. New hosts are copies of the first one of their
    group, with names and addresses that nobody has.
    """
    changed = {group: list(members) for group, members in groups.items()}
    hosts = {host: dict(variables) for host, variables in given.items()}
    for position, (group, count) in enumerate(counts.items()):
        present = groups.get(group) or []
        if not present or not count:
            continue
        changed[group] = present[:count]
        for number in range(len(present), count):
            name = f"{present[0]}+{number}"
            address = f"2001:db8::{position + 1:x}:{number:x}"
            hosts[name] = {**given[present[0]], "cluster_address": address}
            changed[group].append(name)
    left = {host for group in counts for host in groups.get(group, ())}
    kept = {host for group, members in changed.items() if group not in BROAD for host in members}
    gone = left - kept
    changed["all"] = [host for host in hosts if host not in gone]
    return changed, {host: hosts[host] for host in changed["all"]}


BROAD = ("all", "ungrouped")


class ActionModule(ActionBase):
    """The action; runs on the controller alone."""

    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the values."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        directory = Path(arguments["roles_directory"])
        every: list[str] = arguments["every_host"]
        by_group: dict[str, list[str]] = arguments["by_group"]
        roles = {
            name: self.load(directory / name)
            for name in {*every, *itertools.chain(*by_group.values())}
        }
        groups: dict[str, list[str]] = dict(task_vars["groups"])
        raw = task_vars["hostvars"]
        given: dict[str, dict[str, Any]] = {
            host: {**raw.raw_get(host), **(arguments.get("variables") or {})}
            for host in groups["all"]
        }
        if counts := arguments.get("counts"):
            groups, given = with_counts(groups, given, counts)

        variables: dict[str, Any] = {}
        content: dict[str, Any] = {"groups": groups, "hosts": {}, "errors": {}, "table": {}}
        refused: dict[str, None] = {}
        checked = set(arguments.get("checked") or ()) - set(arguments.get("variables") or ())
        for host in groups["all"]:
            names = [group for group in by_group if host in groups.get(group, ())]
            # A copy has the values of the first host. Evaluating thousands takes hours.
            if not names or host not in task_vars["groups"]["all"]:
                continue
            variables = {}
            private: dict[str, Any] = {}
            rules: list[dict[str, str]] = []
            for role in dict.fromkeys([*every, *itertools.chain(*(by_group[g] for g in names))]):
                variables |= roles[role][0]
                private |= roles[role][1]
                rules += roles[role][2]
            variables |= {**given[host], **private}
            variables |= {name: task_vars[name] for name in SHARED if name in task_vars}
            variables |= {
                "groups": groups,
                "hostvars": given,
                "inventory_hostname": host,
                "group_names": [name for name, members in groups.items() if host in members],
                "role_path": str(directory / "cluster"),
            }
            content["hosts"][host] = self.evaluate(host, variables, content["errors"])
            if table := arguments.get("table"):
                self.read_table(host, variables, given[host], table, content)
                checked |= {line.get("variable") for line in variables.get(table, {}).values()}
            own = [rule for rule in rules if rule["variable"] in checked & given[host].keys()]
            refused |= dict.fromkeys(self.refusals(own, variables))
        order = list(variables.get(arguments.get("table", ""), {})) if content["hosts"] else []
        content["table"] = {
            name: content["table"][name] for name in order if name in content["table"]
        }
        content["refused"] = list(refused)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(arguments["dest"], flags, 0o600), "w") as file:
            json.dump(content, file, default=str)
        result["changed"] = False
        return result

    def load(self, path: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, str]]]:
        """Return the defaults of the role in a directory, its variables, and its rules for them."""
        add_all_plugin_dirs(str(path))

        def read(part: str) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for file in sorted((path / part).glob("*.yml")):
                found |= self._loader.load_from_file(str(file), trusted_as_template=True) or {}
            return found

        file = path / "meta" / "preflight.yml"
        rules = self._loader.load_from_file(str(file), trusted_as_template=True)
        return read("defaults"), read("vars"), rules or []

    def refusals(self, rules: list[dict[str, str]], variables: Mapping[str, Any]) -> Iterator[str]:
        """Yield in words what the rules of a host do not allow."""
        templar = self._templar.copy_with_new_env(available_variables=dict(variables))
        for rule in rules:
            try:
                if not templar.evaluate_conditional(rule["that"]):
                    value = templar.template(variables[rule["variable"]])
                    yield f"{rule['variable']} is {value!r:.300}; allowed: {rule['allowed']}"
            except AnsibleError:
                # It stands on a value that cannot be evaluated: that is one of the errors.
                continue

    def read_table(
        self,
        host: str,
        variables: Mapping[str, Any],
        given: Mapping[str, Any],
        table: str,
        content: dict[str, Any],
    ) -> None:
        """Evaluate the lines of a table that no host before has evaluated."""
        templar = self._templar.copy_with_new_env(available_variables=dict(variables))
        for name, line in variables.get(table, {}).items():
            variable = line.get("variable")
            if name in content["table"] or (variable and variable not in variables):
                continue
            try:
                derived = templar.template(line["value"])
                value = templar.template(variables[variable]) if variable else derived
                words = {key: templar.template(line[key]) for key in ("unit", "reason", "source")}
            except AnsibleError as error:
                content["errors"].setdefault(name, f"{host}: {error.message}")
                continue
            content["table"][name] = {
                **words,
                "variable": variable,
                "value": value,
                "derived": derived,
                "overridden": variable in given,
            }

    def evaluate(
        self, host: str, variables: Mapping[str, Any], errors: dict[str, str]
    ) -> dict[str, Any]:
        """Return the values of a host."""
        templar = self._templar.copy_with_new_env(available_variables=dict(variables))
        values: dict[str, Any] = {}
        for name, expression in self._task.args["expressions"].items():
            try:
                values[name] = templar.evaluate_expression(expression)
            except AnsibleError as error:
                values[name] = None
                errors.setdefault(name, f"{host}: {error.message}")
        return values
