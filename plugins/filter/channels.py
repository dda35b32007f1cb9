"""Filters about the application's units: which a host runs, which a roll restarts and proves.

A unit is a mapping as the module ``channels_units`` takes it: name, label, revision, url,
connected_to, replaced_process. What runs is what that module returns as ``units``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Unit = dict[str, Any]
Found = Mapping[str, Mapping[str, Any]]
"""What the module channels_units found of units, by name."""


def revisions(unit_files: Mapping[str, str], release: str) -> dict[str, str]:
    """Return what a process of each unit file is started with: the release, and its unit.

    Args:
        unit_files: what stands in each unit file, but for its revision, by name.
        release: the name of the release.
    """
    return {
        name: f"{release}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        for name, content in unit_files.items()
    }


def unit_contents(unit_files: Mapping[str, str], revisions: Mapping[str, str]) -> dict[str, str]:
    """Return the content of each unit file, with its revision, by its path on the host.

    Args:
        unit_files: the content of each unit file without its revision, by name.
        revisions: the revision of each unit file, by name.
    """
    return {
        f"/etc/systemd/system/{name}": content.replace("@REVISION@", revisions[name])
        for name, content in unit_files.items()
    }


def units(workers: Sequence[Mapping[str, Any]]) -> list[Unit]:
    """Return the units of a host's workers, without their revisions.

    Args:
        workers: those of the host: name, port and url of each.
    """
    return [
        {
            "name": web_unit(worker["port"]),
            "label": worker["name"],
            "url": worker["url"],
        }
        for worker in workers
    ]


def web_unit(port: int | str) -> str:
    """Return the name of a worker's unit."""
    return f"channels-web@{port}.service"


def with_revisions(wanted: Sequence[Unit], revisions: Mapping[str, str]) -> list[Unit]:
    """Return units, each with the revision of its unit file."""
    return [{**unit, "revision": revisions[unit_file(unit["name"])]} for unit in wanted]


def unit_file(name: str) -> str:
    """Return the name of a unit's file: that of its template, where it is an instance."""
    return re.sub(r"@[^@]*(?=\.service$)", "@", name)


def left_unit_files(found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the unit files of a host that it shall not have; instances have no file.

    Args:
        found: the names of its unit files, and perhaps of instances.
        wanted: the names of those that it shall have.
    """
    return [name for name in found if name not in wanted and unit_file(name) == name]


def running(found: Found) -> list[str]:
    """Return the names of the units that run."""
    return [name for name, told in found.items() if told["active"]]


def absent(found: Found) -> list[str]:
    """Return the names of the units that do not run."""
    return [name for name, told in found.items() if not told["active"]]


def outdated(
    wanted: Sequence[Unit], found: Found, contents: Mapping[str, str], restart: bool = False
) -> list[Unit]:
    """Return the running units that a roll replaces: those that would start differently now.

    Args:
        wanted: the units that the host runs.
        found: what was found of them.
        contents: the content that the role writes to its unit files, by path.
        restart: whether those whose process is the right one are replaced, too.
    """
    return [
        {**unit, "replaced_process": told["process"]}
        for unit in wanted
        if (told := found.get(unit["name"]))
        and told["active"]
        and (restart or told["outdated"] or told["nofile_stale"] or is_edited(told, contents))
    ]


def is_edited(told: Mapping[str, Any], contents: Mapping[str, str]) -> bool:
    """Return whether a unit file of the role was edited: its process may have other settings.

    Args:
        told: what was found of the unit.
        contents: the content that the role writes to its unit files, by path.
    """
    path = told["path"]
    return path in contents and told.get("content") != contents[path]


def former_units(wanted: Sequence[Unit], found: Found) -> list[Unit]:
    """Return the units that ran before, each with the revision that it had."""
    return [
        {**unit, "revision": found[unit["name"]]["revision"]}
        for unit in wanted
        if found.get(unit["name"], {}).get("revision")
    ]


def former_files(found: Found) -> list[dict[str, str]]:
    """Return what stood in the unit files before: path and content of each."""
    contents = {told["path"]: told["content"] for told in found.values() if told.get("content")}
    return [{"path": path, "content": content} for path, content in contents.items()]


def not_as_before(
    former: Sequence[Unit], before: Found, now: Found, lenient: bool = False
) -> list[str]:
    """Return what is wrong with units that were put back; each with its label.

    Args:
        former: the units, each with the revision that it had.
        before: what was found of them before the roll.
        now: what is found of them now.
        lenient: whether they need not be ready. Then a background process may have exited: systemd
            starts it again, from the unit file that was put back.
    """
    wrong = []
    for unit in former:
        was, told = before[unit["name"]], now[unit["name"]]
        if lenient and not unit.get("url") and not told["revision"]:
            continue
        if not told["up_to_date"]:
            runs = f"runs {told['revision']}" if told["revision"] else "does not run"
            wrong.append(f"{unit['label']} {runs}")
        elif was["ready"] and not told["ready"] and not lenient:
            wrong.append(f"{unit['label']} is not ready: {told['reason']}")
    return wrong


def not_ready(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Return the units that ran before the roll and were not ready, each with the reason."""
    return [
        f"{unit_label(host, name)}: {told['reason']}"
        for host in hosts
        for name, told in _found(hostvars[host], "_channels_look").items()
        if told["active"] and not told["ready"]
    ]


def causes(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Return why a roll has failed that is no fault of the release; empty if it is its fault.

    A host or a server does not answer; a unit that was ready before is not ready now, although the
    roll has not touched it; or none was ready before.
    """
    found, ready_before = [], []
    for host in hosts:
        servers = hostvars[host].get("_channels_servers", {})
        if servers.get("unreachable"):
            found.append(f"{host}: the host cannot be reached")
        found += [f"{host}: no answer from {server}" for server in servers.get("silent", [])]
        now = _found(hostvars[host], "_channels_restored")
        for name, was in _found(hostvars[host], "_channels_look").items():
            if was["active"]:
                ready_before.append(was["ready"])
            told = now.get(name)
            if told and was["ready"] and not told["ready"] and told["process"] == was["process"]:
                why = f"was ready before the roll: {told['reason']}"
                found.append(f"{unit_label(host, name)} {why}")
    if ready_before and not any(ready_before):
        found.append("No unit was ready before the roll.")
    return found


def _found(known: Mapping[str, Any], look: str) -> Found:
    """Return what a look found on a host; nothing where there was none."""
    units: Found = known.get(look, {}).get("units", {})
    return units


def unit_label(host: str, name: str) -> str:
    """Return what messages call a unit: host, and port or name."""
    stem = name.removesuffix(".service")
    for prefix in ("channels-process-", "channels-web@", "channels-"):
        stem = stem.removeprefix(prefix)
    return f"{host}:{stem}"


def surplus_units(surplus: Sequence[Mapping[str, Any]], host: str, address: str) -> list[Unit]:
    """Return units that a host no longer runs, as a roll takes them.

    Args:
        surplus: what the module channels_units lists.
        host: the host's name in the inventory.
        address: where its workers answer; brackets around IPv6.
    """
    made = []
    for unit in surplus:
        name = unit["name"]
        stem = name.removeprefix("channels-").removesuffix(".service")
        port = re.fullmatch(r"web@(\d+)", stem)
        answers = {"url": f"http://{address}:{port[1]}"} if port else {}
        made.append({"name": name, "label": unit_label(host, name), **answers})
    return made


def rolled_workers(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> int:
    """Return how many workers a roll restarts, each of which it proves."""
    rolled = [each for host in hosts for each in hostvars[host].get("_channels_rolled_units", [])]
    return len([unit for unit in rolled if unit.get("url")])


def proved_workers(
    workers: Sequence[Mapping[str, Any]],
    hostvars: Mapping[str, Any],
    waves: Sequence[Mapping[str, Any]],
    number: int,
    failed: bool,
) -> list[Mapping[str, Any]]:
    """Return the workers that must reach each other when the roll is at a wave.

    They are the workers that were ready before, those that were just started, and those of the
    waves until this one. Workers that were not ready before the roll reaches them are left out: the
    new release may fix them.

    Args:
        workers: every worker of the cluster.
        hostvars: the variables of all hosts.
        waves: those of the roll.
        number: the wave that the roll is at, from 0.
        failed: whether a gate has failed: then those of before alone, for what was started has been
            stopped.
    """
    rolled = {label for wave in waves[: number + 1] for label in wave["workers"]}
    proved = []
    # Ansible makes all variables of a host each time that they are asked for.
    variables = {host: hostvars[host] for host in {str(worker["host"]) for worker in workers}}
    looks = {host: _found(known, "_channels_look") for host, known in variables.items()}
    starts = {host: known.get("_channels_start") for host, known in variables.items()}
    for worker in workers:
        unit = web_unit(worker["port"])
        found = looks[worker["host"]].get(unit, {})
        start = starts[worker["host"]]
        started = start is not None and not start.get("skipped", False)
        new = started and not found.get("active", False)
        if found.get("ready", False) or (not failed and (new or worker["name"] in rolled)):
            proved.append(worker)
    return proved


def answer(output: str) -> dict[str, Any]:
    """Return the last JSON object in a program's output that has a line of its own.

    Python's start-up files, such as sitecustomize.py, may print before the program does.

    Raises:
        AnsibleFilterError: the output has no such line.
    """
    for line in reversed(output.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    raise AnsibleFilterError(f"the program printed no JSON object: {output.strip() or 'nothing'}")


def users_changed(output: str, names: Sequence[str]) -> bool:
    """Return whether the command ensure_users says that it created or updated one of the users.

    The application may print other lines, for example when its settings are imported.
    """
    said = {f"{done} {name}" for name in names for done in ("created", "updated")}
    return not said.isdisjoint(line.strip() for line in output.splitlines())


def command_failure(result: Mapping[str, Any], secrets: Sequence[str]) -> str:
    """Return why a command has failed, without the secrets that it was given.

    Args:
        result: what the command module returns.
        secrets: what the command may repeat.
    """
    if "rc" not in result:
        # It was not run; msg then says why, and repeats nothing of it.
        return f"was not run: {result.get('msg', 'no output')}"
    said = str(result.get("stderr") or result.get("stdout") or "")
    # The longest first: one may be a part of another.
    for secret in sorted({str(each) for each in secrets if str(each)}, key=len, reverse=True):
        for spelling in {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}:
            said = said.replace(spelling, "(not shown)")
    # Of a traceback the last line says what has happened.
    lines = [line.rstrip() for line in said.splitlines() if line.strip()][-3:]
    return f"exited with status {result['rc']}: {' '.join(lines) or 'no output'}"


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "channels_absent": absent,
            "channels_answer": answer,
            "channels_command_failure": command_failure,
            "channels_causes": causes,
            "channels_former_files": former_files,
            "channels_former_units": former_units,
            "channels_left_unit_files": left_unit_files,
            "channels_not_as_before": not_as_before,
            "channels_not_ready": not_ready,
            "channels_outdated": outdated,
            "channels_proved_workers": proved_workers,
            "channels_revisions": revisions,
            "channels_rolled_workers": rolled_workers,
            "channels_running": running,
            "channels_surplus_units": surplus_units,
            "channels_unit_contents": unit_contents,
            "channels_unit_file": unit_file,
            "channels_units": units,
            "channels_users_changed": users_changed,
            "channels_with_revisions": with_revisions,
        }
