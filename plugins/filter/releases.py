"""Filters that choose a release by what channels_release_info tells of the app hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Host = Mapping[str, Any]
"""What channels_release_info has told of a host, and its name as ``host``."""


def channels_hosts(names: Sequence[str], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the releases of each app host that answered, in the inventory's order.

    A selected host asks the hosts that ``--limit`` leaves out. Their answers are included.
    """
    told = {name: hostvars[name].get("_channels_host", {}) for name in names}
    for name in names:
        others = hostvars[name].get("_channels_hosts_left_out", {})
        # Those who did not ask have results, too: skipped ones.
        told |= {each["item"]: each for each in others.get("results", ()) if "current" in each}
    return [{**told[name], "host": name} for name in names if "current" in told[name]]


def release_targets(hosts: Sequence[Host]) -> list[dict[str, str]]:
    """Return the kinds of hosts that packages are chosen for: a Python and an architecture each."""
    kinds = {(host.get("python_full", host["python"]), host["machine"]) for host in hosts}
    return [{"python": python, "machine": machine} for python, machine in sorted(kinds)]


def channels_told(names: Sequence[str], hostvars: Mapping[str, Any], fact: str) -> dict[str, Any]:
    """Return a fact of every host that has it."""
    return {name: hostvars[name][fact] for name in names if fact in hostvars[name]}


def release_running(hosts: Sequence[Host]) -> str:
    """Return the release that was deployed last; empty if there is none, or no host can tell.

    An operation that is complete has written one time, the controller's, to every host. So a host
    that was away is told from the others, whatever its clock and its place in the inventory.
    """
    last = _last_deployed(hosts)
    return last.pop() if len(last) == 1 else ""


def release_former(hosts: Sequence[Host]) -> str:
    """Return the release to roll back to: the one deployed before the one that runs, and not bad.

    Where a host is still on a release whose deploy was not completed, it is the one that runs: the
    way back from there.
    """
    running = release_running(hosts)
    unfinished = _unfinished(hosts)
    if unfinished & _current(hosts):
        return running
    if not running and _current(hosts):
        return ""
    unfit = {running, *unfinished}
    deployed: dict[str, tuple[int, float]] = {}
    for host in hosts:
        for release in host["releases"]:
            name = release["release"]
            time = (release["recorded"], release["deployed"])
            deployed[name] = max(deployed.get(name, time), time)
            if release["bad"]:
                unfit.add(name)
    fit = [name for name, (_, time) in deployed.items() if time and name not in unfit]
    return max(fit, key=lambda name: deployed[name], default="")


def release_is_first(hosts: Sequence[Host], kit: str) -> bool:
    """Return whether no operation of this version was ever complete on the hosts that answered.

    A release that hosts are on all the same was begun, and its start or its proof has failed. An
    earlier version of the kit may have left releases without a record.

    Args:
        hosts: what the app hosts have.
        kit: the version of the kit of this checkout.
    """
    kits = {host.get("kit", "") for host in hosts if host["current"]}
    return not _recorded(hosts) and kits <= {kit}


def release_selected(hosts: Sequence[Host], wanted: str, kit: str = "none") -> str:
    """Return the release that is wanted; ``new`` where it is to be packed, empty if there is none.

    Args:
        hosts: what the app hosts have.
        wanted: running, new, previous, or the name of one.
        kit: the version of the kit of this checkout.
    """
    if wanted == "running":
        # A first start that failed is not kept: the application may have been mended since.
        if release_is_first(hosts, kit) or not _current(hosts):
            return "new"
        return release_running(hosts)
    if wanted == "previous":
        return release_former(hosts)
    return wanted


def release_refusal(hosts: Sequence[Host], wanted: str) -> str:
    """Return why there is no release of those that are wanted, and what to run."""
    if len(_last_deployed(hosts)) > 1:
        found = ", ".join(f"{host['host']}: {host['current']}" for host in hosts if host["current"])
        return (
            f"The app hosts are on different releases ({found}), and no record says which was"
            " deployed last. Nothing changed. To deploy the application as it is now: make deploy."
            " To deploy one of these releases: make rollback RELEASE=..."
        )
    why = "every earlier one is marked as bad" if wanted == "previous" else "none was deployed"
    return (
        f"There is no release to roll back to: {why}. Nothing changed."
        " List releases: make releases. Roll back to any of them: make rollback RELEASE=..."
    )


def release_left(hosts: Sequence[Host], selected: str) -> list[str]:
    """Return the releases that a rollback leaves: not those of hosts that were away."""
    left = {release_running(hosts), *(_unfinished(hosts) & _current(hosts))}
    return sorted(left - {"", selected})


def release_strays(hosts: Sequence[Host], selected: str) -> list[str]:
    """Return the hosts that are on another release than the selected one, with that release."""
    return [
        f"{host['host']} is on {host['current']}"
        for host in hosts
        if host["current"] not in ("", selected)
    ]


def release_time(hosts: Sequence[Host], release: str, wanted: str, now: float) -> int:
    """Return when a release is deployed, for the record of every host: seconds since 1970.

    It is later than any before, even where this controller's clock is behind another one's.

    Args:
        hosts: what the app hosts have.
        release: the name of the release.
        wanted: what release_selected was asked for; to bring the running one is no deploy.
        now: the controller's clock.
    """
    times = _recorded(hosts)
    if wanted == "running" and release in times:
        return times[release]
    return max(int(now), *(time + 1 for time in times.values()), 0)


def release_holder(hosts: Sequence[Host], release: str) -> str:
    """Return a host that has the archive of a release; empty if none has."""
    return next((str(host["host"]) for host in hosts if release in host["archives"]), "")


def release_lines(hosts: Sequence[Host]) -> list[str]:
    """Return a line for each release of each host: what runs it, and why it is marked as bad."""
    lines = []
    for host in hosts:
        if host["drained"]:
            lines.append(f"{host['host']}  is drained")
        if not host["releases"]:
            lines.append(f"{host['host']}  has no release")
        for release in host["releases"]:
            runs = f"runs {' '.join(release['runs'])}" if release["runs"] else "does not run"
            current = ", current" if release["current"] else ""
            bad = f", bad: {release['bad'].splitlines()[0]}" if release["bad"] else ""
            lines.append(f"{host['host']}  {release['release']}  {runs}{current}{bad}")
    return lines


def _current(hosts: Sequence[Host]) -> set[str]:
    """Return the releases that hosts are on."""
    return {host["current"] for host in hosts if host["current"]}


def _recorded(hosts: Sequence[Host]) -> dict[str, int]:
    """Return when the releases were deployed, by the record of any host."""
    times: dict[str, int] = {}
    for host in hosts:
        for release in host["releases"]:
            if release["recorded"]:
                name = release["release"]
                times[name] = max(times.get(name, 0), release["recorded"])
    return times


def _last_deployed(hosts: Sequence[Host]) -> set[str]:
    """Return the releases of which any may be the one that was deployed last."""
    if times := _recorded(hosts):
        return {name for name, time in times.items() if time == max(times.values())}
    # A version without a record has deployed them. One that no worker runs may be an old one: that
    # of a host which was drained meanwhile.
    names = _current([host for host in hosts if host["serves"]]) or _current(hosts)
    later = {name for name in names if all(_is_later(hosts, name, o) for o in names - {name})}
    return later or names


def _is_later(hosts: Sequence[Host], release: str, other: str) -> bool:
    """Return whether every host that has had both says that a release came after another one.

    Only times of one host are compared: another one's clock may differ.
    """
    found = []
    for host in hosts:
        times = {each["release"]: each["deployed"] for each in host["releases"]}
        if times.get(release) and times.get(other):
            found.append(times[release] > times[other])
    return bool(found) and all(found)


def _unfinished(hosts: Sequence[Host]) -> set[str]:
    """Return releases whose deploy was begun and not completed, ever."""
    found = set()
    for host in hosts:
        first = min((each["deployed"] for each in host["releases"] if each["recorded"]), default=0)
        # What is older than the first record is of a version without one.
        found |= {each["release"] for each in host["releases"] if 0 < first < each["deployed"]}
    return found - set(_recorded(hosts))


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "channels_hosts": channels_hosts,
            "channels_told": channels_told,
            "release_holder": release_holder,
            "release_is_first": release_is_first,
            "release_left": release_left,
            "release_lines": release_lines,
            "release_refusal": release_refusal,
            "release_selected": release_selected,
            "release_strays": release_strays,
            "release_targets": release_targets,
            "release_time": release_time,
        }
