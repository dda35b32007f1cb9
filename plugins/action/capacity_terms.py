"""Ansible action: compare what a host has with what its roles need there.

Each role says in ``meta/terms.yml`` what it needs of a host: ``term``, ``needs`` and ``has``
(templates; ``host`` is what the module ``host_capacity_info`` read, and ``ports`` are those of the
role's ``meta/ports.yml``), ``unit``, ``reason``, and ``ways``, three ways out. Numbers of the same
term are added up over the roles of the host, and their reasons follow each other. A term is short
if it needs more than the host has. With ``is: at_most``, it is short if the host has more; with
``is: one_of``, if what it has matches none of the patterns that it needs. ``for_each`` repeats a
term, and ``when`` leaves it out.

The task does not fail where a term is short: the play reports all hosts together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

from ansible.module_utils.role_files import load, ports_of, templars_of

Term = dict[str, Any]

ROLES = Path(__file__).parents[2] / "roles"


class ActionModule(ActionBase):
    """The action; the module that it calls runs on the host."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what the host has, every term, and those that are short in words."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        roles: list[str] = self._task.args["roles"]
        told = {name: load(ROLES / name / "meta/terms.yml") or {} for name in roles}
        templars = templars_of(self._templar, ROLES, roles, task_vars)
        for name, own in templars.items():
            ports = ports_of(own, ROLES / name)
            templars[name] = with_variables(own, ports=ports)

        reads: dict[str, list[str]] = {"sysctls": [], "paths": []}
        for name in roles:
            for option, value in templars[name].template(told[name].get("read") or {}).items():
                reads[option] += value
        before = time.time()
        read = self._execute_module(
            module_name="host_capacity_info", module_args=reads, task_vars=task_vars
        )
        after = time.time()
        if read.get("failed") or read.get("unreachable"):
            return {**result, **read}
        host = read["host"]
        # The host read its clock between the two.
        host["clock_offset"] = max(before - host["clock"], host["clock"] - after, 0.0)

        terms: dict[str, Term] = {}
        for name in roles:
            for term in evaluated(told[name].get("terms") or [], templars[name], host):
                add(terms, term)
        return {
            **result,
            "changed": False,
            "host": host,
            "terms": list(terms.values()),
            "short": [in_words(term) for term in terms.values() if is_short(term)],
        }


def evaluated(entries: list[Term], templar: Any, host: Mapping[str, Any]) -> Iterator[Term]:
    """Yield the terms of a role with their values.

    Raises:
        AnsibleError: a term cannot be evaluated.
    """
    for entry in entries:
        items = templar.template(entry["for_each"]) if "for_each" in entry else [None]
        for item in items:
            own = with_variables(templar, host=host, item=item)
            if "when" in entry and not own.evaluate_conditional(entry["when"]):
                continue
            try:
                yield {
                    "is": "at_least",
                    **{
                        key: own.template(value)
                        for key, value in entry.items()
                        if key not in ("for_each", "when")
                    },
                }
            except AnsibleError as error:
                raise AnsibleError(f"The term {entry['term']}: {error.message}") from error


def with_variables(templar: Any, **more: Any) -> Any:
    """Return what evaluates expressions with more variables."""
    return templar.copy_with_new_env(available_variables={**templar.available_variables, **more})


def add(terms: dict[str, Term], term: Term) -> None:
    """Add a term to those of the host; what several roles need of one thing is one term."""
    known = terms.setdefault(term["term"], term)
    if known is not term:
        known["needs"] += term["needs"]
        known["reason"] += f"; {term['reason']}"


def is_short(term: Mapping[str, Any]) -> bool:
    """Return whether a host does not have what a term needs."""
    if term["is"] == "one_of":
        return not any(fnmatchcase(str(term["has"]), pattern) for pattern in term["needs"])
    if term["is"] == "at_most":
        return bool(term["has"] > term["needs"])
    return bool(term["has"] < term["needs"])


def in_words(term: Mapping[str, Any]) -> str:
    """Return what is short, and the ways out."""
    unit = f" {term['unit']}" if term.get("unit") else ""
    needs = " or ".join(term["needs"]) if term["is"] == "one_of" else shown(term["needs"])
    if term["is"] == "at_most":
        needs = f"at most {needs}"
    ways = "; ".join(f"({number}) {way}" for number, way in enumerate(term["ways"], 1))
    return (
        f"{term['term']}: needs {needs}{unit}, has {shown(term['has'])}{unit}."
        f" {term['reason']}. Ways out: {ways}"
    )


def shown(value: Any) -> str:
    """Return a value as an operator reads it."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
