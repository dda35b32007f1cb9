"""Ansible action: compare what is in effect on a host with what its roles state.

Each role of the host says in ``meta/verify.yml`` what to read (``read``: arguments of the module
``host_state_info``) and what is expected (``checks``: data, evaluated with the role's variables).
One call of the module reads all of it. The result has a verdict for each check; the task does not
fail.

With ``file`` in place of ``roles``, it is for hosts that the kit did not set up: a file with the
same keys; ``variables``, the argument spec of the names that an inventory may give; and ``vars``,
which are derived from them. Another value than the spec allows, or another name with the same
prefix, fails the task before the host is asked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

from ansible.module_utils.host_checks import evaluate, mistakes
from ansible.module_utils.host_processes import told_of
from ansible.module_utils.role_files import load, templars_of

# Evaluated with the variables of the role, each time that a check is repeated.
TEMPLATED = ("subjects", "expected", "term", "used", "limit", "advice", "message")

# A reading that the inventory or an earlier task gives.
GIVEN = {"process": "", "state": "read", "reason": ""}


class ActionModule(ActionBase):
    """The action; the module that it calls runs on the host."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the verdicts."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        directory = Path(self._task.args["roles_directory"])
        host: str = task_vars["inventory_hostname"]
        salt = secrets.token_hex(16)
        verdicts: list[dict[str, Any]] = []
        arguments: dict[str, Any] = {"salt": salt}
        checks: list[dict[str, Any]] = []
        sets = load(directory / "cluster/meta/verify.yml")["sets"]
        for name, source, told, templar in self._sources(task_vars):
            for key, value in (told.get("read") or {}).items():
                try:
                    _merge(arguments, key, templar.template(value))
                except AnsibleError as error:
                    term = f"what to read of {key}"
                    verdicts.append(_not_derived(host, name, source, term, _why(error)))
            for entry in told.get("checks") or []:
                for check, own in self._in_sets(entry, sets, templar):
                    try:
                        checks += self._expected(check, own, salt)
                    except AnsibleError as error:
                        term = check.get("term", "?")
                        verdicts.append(_not_derived(host, name, source, term, _why(error)))
        given = [{**GIVEN, **each} for each in arguments.pop("given", [])]

        before = time.time()
        read = self._execute_module(
            module_name="host_state_info", module_args=arguments, task_vars=task_vars
        )
        after = time.time()
        if read.get("unreachable"):
            return {**result, **read, "changed": False}
        if read.get("failed"):
            # Part of the report: the other hosts are looked at all the same.
            said = f"{read.get('msg', '')} {read.get('module_stderr', '')}".strip()
            verdicts.append(
                {**_not_derived(host, "host", "Ansible", "reading", said), "kind": "host"}
            )
            return {**result, "changed": False, "checks": verdicts, "clock": []}
        for check in checks:
            verdicts += evaluate(check, given + read["readings"], host)
        moments = [before, after, read["clock"]]
        return {**result, "changed": False, "checks": verdicts, "clock": moments}

    def _sources(
        self, task_vars: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Mapping[str, Any], Any]]:
        """Yield what says what to read and to check: its name, its file, what it says, its templar.

        Raises:
            AnsibleActionFail: the inventory gives it what it does not take.
        """
        directory = Path(self._task.args["roles_directory"])
        names = self._task.args.get("roles") or []
        templars = templars_of(self._templar, directory, names, task_vars)
        for name, templar in templars.items():
            told = load(directory / name / "meta/verify.yml") or {}
            yield f"role {name}", f"roles/{name}/meta/verify.yml", told, templar
        if self._task.args.get("file"):
            file = Path(self._task.args["file"])
            told = load(file)
            given = self._given(told["variables"], task_vars)
            variables = {**task_vars, **given, **told["vars"]}
            templar = self._templar.copy_with_new_env(available_variables=variables)
            yield "inventory", file.name, told, templar

    def _given(self, spec: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables of an argument spec, by the inventory or by their defaults."""
        prefix = f"{next(iter(spec)).partition('_')[0]}_"
        given = {name: value for name, value in task_vars.items() if name.startswith(prefix)}
        templar = self._templar.copy_with_new_env(available_variables=task_vars)
        found = ArgumentSpecValidator(dict(spec)).validate(
            {name: templar.template(value) for name, value in given.items()}
        )
        if found.error_messages:
            said = "; ".join(found.error_messages)
            raise AnsibleActionFail(f"{said}. See docs/verify.md. Nothing was read.")
        return dict(found.validated_parameters)

    def _in_sets(
        self, entry: Mapping[str, Any], sets: Mapping[str, Any], templar: Any
    ) -> Iterator[tuple[Mapping[str, Any], Any]]:
        """Yield the checks of an entry, each with what evaluates its expressions."""
        if "use" not in entry:
            yield entry, templar
            return
        # Evaluated where they are used, as the variables of a task are.
        own = templar.copy_with_new_env(
            available_variables={**templar.available_variables, **entry["with"]}
        )
        for check in sets[entry["use"]]:
            yield check, own

    def _expected(
        self, check: Mapping[str, Any], templar: Any, salt: str
    ) -> Iterator[dict[str, Any]]:
        """Yield a check for each of its items, with everything evaluated."""
        wrong = list(mistakes(check))
        if wrong:
            raise AnsibleError("; ".join(wrong))
        items = templar.template(check["for_each"]) if "for_each" in check else [None]
        for item in items:
            own = templar.copy_with_new_env(
                available_variables={**templar.available_variables, "item": item}
            )
            if "when" in check and not own.evaluate_conditional(check["when"]):
                continue
            done = {**check}
            for name in [*TEMPLATED, "read", "process"]:
                if name in check:
                    done[name] = own.template(check[name])
            if check["is"] == "same_values":
                done["expected"] = {
                    name: told_of(str(value), salt) for name, value in done["expected"].items()
                }
            yield done


def _merge(arguments: dict[str, Any], key: str, value: Any) -> None:
    """Add what a role reads to what others do."""
    if isinstance(value, list):
        known = arguments.setdefault(key, [])
        known += [each for each in value if each not in known]
    else:
        arguments[key] = value or arguments.get(key)


def _not_derived(host: str, subject: str, source: str, term: str, message: str) -> dict[str, Any]:
    """Return the verdict on what is expected and cannot be said."""
    return {
        "host": host,
        "kind": "inventory",
        "subject": subject,
        "term": term,
        "expected": "",
        "effective": "",
        "source": source,
        "status": "unreadable",
        "message": message,
    }


def _why(error: AnsibleError) -> str:
    return f"the expected value cannot be calculated: {error.message}"
