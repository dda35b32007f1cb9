"""Filters that choose a release by what channels_release_info tells of the app hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Host = Mapping[str, Any]
"""What channels_release_info has told of a host, and its name as ``host``."""


def channels_hosts(names: Sequence[str], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the app hosts have that answered, in the inventory's order."""
    found = []
    for name in names:
        told = hostvars[name].get("_channels_host", {})
        if "current" in told:
            found.append({**told, "host": name})
    return found


def channels_told(names: Sequence[str], hostvars: Mapping[str, Any], fact: str) -> dict[str, Any]:
    """Return a fact of every host that has it."""
    return {name: hostvars[name][fact] for name in names if fact in hostvars[name]}


def release_running(hosts: Sequence[Host]) -> str:
    """Return the release that runs: that of hosts which serve, first; empty if there is none.

    Elsewhere the current one may be an old one: a host that was drained meanwhile.
    """
    ordered = sorted(hosts, key=lambda host: not host["serves"])
    return next((str(host["current"]) for host in ordered if host["current"]), "")


def release_former(hosts: Sequence[Host]) -> str:
    """Return the release to roll back to: the last deployed that is not current and not bad."""
    deployed: dict[str, float] = {}
    unfit = {host["current"] for host in hosts}
    for host in hosts:
        for release in host["releases"]:
            name = release["release"]
            deployed[name] = max(deployed.get(name, 0.0), release["deployed"])
            if release["bad"]:
                unfit.add(name)
    fit = [name for name, time in deployed.items() if time and name not in unfit]
    return max(fit, key=lambda name: deployed[name], default="")


def release_selected(hosts: Sequence[Host], wanted: str) -> str:
    """Return the release that is wanted; ``new`` where it is to be packed, empty if there is none.

    Args:
        hosts: what the app hosts have.
        wanted: running, new, previous, or the name of one.
    """
    if wanted == "running":
        return release_running(hosts) or "new"
    if wanted == "previous":
        return release_former(hosts)
    return wanted


def release_holder(hosts: Sequence[Host], release: str) -> str:
    """Return a host that has a release; empty if none has."""
    return next(
        (
            str(host["host"])
            for host in hosts
            if release in {known["release"] for known in host["releases"]}
        ),
        "",
    )


def release_lines(hosts: Sequence[Host]) -> list[str]:
    """Return a line for each release of each host: what runs it, and why it is marked as bad."""
    lines = []
    for host in hosts:
        for release in host["releases"]:
            runs = f"runs {' '.join(release['runs'])}" if release["runs"] else "does not run"
            current = ", current" if release["current"] else ""
            bad = f", bad: {release['bad'].splitlines()[0]}" if release["bad"] else ""
            lines.append(f"{host['host']}  {release['release']}  {runs}{current}{bad}")
    return lines


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "channels_hosts": channels_hosts,
            "channels_told": channels_told,
            "release_holder": release_holder,
            "release_lines": release_lines,
            "release_selected": release_selected,
        }
