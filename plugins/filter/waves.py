"""Filters about the waves of a roll: which workers are replaced together, and how.

What is known of a host is in its variables: ``_channels_rolled_units``, the units that the roll
replaces, and ``_channels_look``, what channels_units found before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Unit = dict[str, Any]
Known = Mapping[str, Mapping[str, Any]]
"""The variables of all hosts."""

RELOADED, RESTARTED = "reloaded", "restarted"

READ = ("_channels_look", "_channels_rolled_units", "_channels_start", "ansible_facts")
"""The variables of a host that are read here."""

MEMORY_SHARE = 0.8
"""Share of the available memory that new processes may take while the former ones run: the rest is
for what grows meanwhile."""


@dataclass
class Wave:
    """Units that are replaced together.

    Attributes:
        state: what the action is asked for: reloaded or restarted.
        units: the units of each host.
    """

    state: str
    units: dict[str, list[Unit]] = field(default_factory=dict)

    def add(self, host: str, *units: Unit) -> None:
        """Add units of a host."""
        self.units.setdefault(host, []).extend(units)

    @property
    def workers(self) -> list[str]:
        """Its workers, as the proof names them."""
        return [unit["label"] for units in self.units.values() for unit in units if is_worker(unit)]


Placed = tuple[str, Unit]
"""A unit and its host."""


def is_worker(unit: Mapping[str, Any]) -> bool:
    """Return whether a unit answers clients."""
    return bool(unit.get("url"))


def roll_waves(
    hosts: Sequence[str],
    hostvars: Known,
    workers: Sequence[Mapping[str, Any]],
    limit: int | str,
    spare_hosts: int,
) -> list[dict[str, Any]]:
    """Return the waves of a roll, the canary first; none where nothing is to be replaced.

    The workers whose new process starts beside the former one come first: who leaves one that has
    to be restarted then comes to a worker that is not restarted again. A wave has the workers of as
    few hosts as can be.

    Args:
        hosts: the app hosts, in the inventory's order.
        hostvars: the variables of all hosts.
        workers: every worker of the cluster, each with its host.
        limit: channels_roll_limit: a number of workers, or a share of all.
        spare_hosts: how many app hosts the cluster can do without.
    """
    known = known_of(hosts, hostvars)
    rolled = {host: known[host]["_channels_rolled_units"] or [] for host in hosts}
    beside: list[Placed] = []
    others: list[Placed] = []
    for host, units in rolled.items():
        own = [unit for unit in units if is_worker(unit)]
        found = replaceable(own, known[host]["_channels_look"] or {})
        beside += [(host, unit) for unit in own if unit["name"] in found]
        others += [(host, unit) for unit in own if unit["name"] not in found]
    most = roll_limit(limit, len(workers))
    spare = min(most, spare_workers(known, workers, spare_hosts))
    waves: list[Wave] = []
    if beside:
        waves = [*_chunks(RELOADED, beside[:1], 1), *_chunks(RELOADED, beside[1:], most)]
        waves += _chunks(RESTARTED, others, spare)
    elif others:
        waves = [*_chunks(RESTARTED, others[:1], 1), *_chunks(RESTARTED, others[1:], spare)]
    background = {
        host: [unit for unit in units if not is_worker(unit)] for host, units in rolled.items()
    }
    # Nobody is connected to them, so they keep nobody waiting. But not beside the canary, which may
    # show that the release is bad.
    alone: list[str] = []
    for host, units in background.items():
        joined = next((wave for wave in waves[1:] if host in wave.units), None)
        if units and joined:
            joined.add(host, *units)
        elif units:
            alone.append(host)
    for first in range(0, len(alone), most):
        wave = Wave(RESTARTED)
        for host in alone[first : first + most]:
            wave.add(host, *background[host])
        waves.append(wave)
    return described(waves)


def left_waves(
    hosts: Sequence[str],
    hostvars: Known,
    workers: Sequence[Mapping[str, Any]],
    limit: int | str,
    spare_hosts: int,
) -> list[dict[str, Any]]:
    """Return the waves for workers that could not be replaced, as a reload has said.

    Args: those of :func:`roll_waves`.
    """
    known = known_of(hosts, hostvars)
    names = {
        host: (each["ansible_facts"] or {}).get("_channels_left_units", ())
        for host, each in known.items()
    }
    left = [
        (host, unit)
        for host, each in known.items()
        for unit in each["_channels_rolled_units"] or ()
        if unit["name"] in names[host]
    ]
    if not left:
        return []
    most = roll_limit(limit, len(workers))
    spare = min(most, spare_workers(known, workers, spare_hosts))
    return described(_chunks(RESTARTED, left, spare))


def described(waves: Sequence[Wave]) -> list[dict[str, Any]]:
    """Return waves as the tasks read them.

    ``begins`` and ``ends`` are the hosts whose first and last wave it is.
    """
    found = []
    for number, wave in enumerate(waves):
        before = {host for each in waves[:number] for host in each.units}
        after = {host for each in waves[number + 1 :] for host in each.units}
        found.append(
            {
                "state": wave.state,
                "units": wave.units,
                "workers": wave.workers,
                "begins": [host for host in wave.units if host not in before],
                "ends": [host for host in wave.units if host not in after],
            }
        )
    return found


def _chunks(state: str, workers: Sequence[Placed], size: int) -> list[Wave]:
    waves = []
    for first in range(0, len(workers), size):
        wave = Wave(state)
        for host, unit in workers[first : first + size]:
            wave.add(host, unit)
        waves.append(wave)
    return waves


def replaceable(workers: Sequence[Mapping[str, Any]], look: Mapping[str, Any]) -> set[str]:
    """Return the names of a host's workers that get a new process beside the running one.

    Not those that are not ready or were started by a former kit; and no more than there is memory
    for: every former process stays until the last new one has started.
    """
    left = MEMORY_SHARE * look.get("memory_available", 0)
    names = set()
    for worker in workers:
        found = look.get("units", {}).get(worker["name"], {})
        size = found.get("memory", 0)
        own = found.get("memory_left")
        if not (found.get("replaceable") and found.get("ready") and size):
            continue
        if size <= left and (own is None or size <= own):
            names.add(worker["name"])
            left -= size
    return names


def roll_limit(limit: int | str, total: int) -> int:
    """Return how many workers a wave may have: a number, or a share such as ``20%`` of all."""
    text = str(limit).strip()
    if text.endswith("%"):
        return max(1, int(float(text[:-1]) * total / 100))
    return max(1, int(text))


def known_of(hosts: Sequence[str], hostvars: Known) -> dict[str, dict[str, Any]]:
    """Return what these filters read of each host; None for what it does not have.

    Ansible makes all variables of a host each time that they are asked for.
    """
    found = {}
    for host in hosts:
        variables = hostvars[host]
        found[host] = {name: variables.get(name) for name in READ}
    return found


def spare_workers(
    known: Known,
    workers: Sequence[Mapping[str, Any]],
    spare_hosts: int,
) -> int:
    """Return how many workers may be missing at once, at least one: those of the spare hosts.

    A host on which nothing runs is one of these.
    """
    spare = max(0, int(spare_hosts) - sum(not serves(each) for each in known.values()))
    counts = Counter(str(worker["host"]) for worker in workers)
    return max(1, sum(count for _, count in counts.most_common(spare)))


def serves(known: Mapping[str, Any]) -> bool:
    """Return whether a host's units ran before the roll, or were just started."""
    found = (known["_channels_look"] or {}).get("units", {}).values()
    started = (known["_channels_start"] or {}).get("changed", False)
    return started or any(unit["active"] for unit in found)


def drain_hosts(
    hosts: Sequence[str],
    hostvars: Known,
    workers: Sequence[Mapping[str, Any]],
    limit: int | str,
    spare_hosts: int,
) -> int:
    """Return how many hosts may drain replaced processes at once, at least one.

    Args: those of :func:`roll_waves`.
    """
    spare = spare_workers(known_of(hosts, hostvars), workers, spare_hosts)
    most = min(roll_limit(limit, len(workers)), spare)
    counts = Counter(str(worker["host"]) for worker in workers)
    return max(1, most // max(counts.values(), default=1))


def retired_units(
    workers: Sequence[Unit], look: Mapping[str, Any], rolled: Sequence[Unit]
) -> list[Unit]:
    """Return a host's workers that have processes which a reload has replaced, now or before.

    Args:
        workers: the host's workers.
        look: what was found of them before the roll.
        rolled: the units that the roll has replaced.
    """
    names = {unit["name"] for unit in rolled}
    found = look.get("units", {})
    return [
        worker
        for worker in workers
        if is_worker(worker)
        and (found.get(worker["name"], {}).get("retired") or worker["name"] in names)
    ]


def hosts_with_retired(hosts: Sequence[str], hostvars: Known) -> list[str]:
    """Return the hosts that may have processes which a reload has replaced."""
    return [
        host
        for host, known in known_of(hosts, hostvars).items()
        if known["_channels_rolled_units"]
        or any(
            found.get("retired")
            for found in (known["_channels_look"] or {}).get("units", {}).values()
        )
    ]


def resumable(former: Sequence[Unit], before: Known, now: Known) -> list[Unit]:
    """Return the units whose process of before the roll still runs and was replaced.

    Args:
        former: the units as they were before the roll.
        before: what was found of them then.
        now: what is found of them now.
    """
    return [
        {**unit, "replaced_process": before[unit["name"]]["process"]}
        for unit in former
        if before[unit["name"]]["process"] in now.get(unit["name"], {}).get("retired", ())
    ]


def wave_seconds(hosts: Sequence[str], hostvars: Known) -> float:
    """Return how long the hosts of a wave took, by the one that took longest."""
    told = [hostvars[host].get("_channels_wave_done", {}).get("seconds", 0.0) for host in hosts]
    return max(told, default=0.0)


def touched_arguments(workers: Sequence[str]) -> list[str]:
    """Return the arguments of a proof that is about some workers."""
    return [f"--touched={worker}" for worker in workers]


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "channels_drain_hosts": drain_hosts,
            "channels_hosts_with_retired": hosts_with_retired,
            "channels_left_waves": left_waves,
            "channels_resumable": resumable,
            "channels_retired_units": retired_units,
            "channels_roll_limit": roll_limit,
            "channels_roll_waves": roll_waves,
            "channels_touched_arguments": touched_arguments,
            "channels_wave_seconds": wave_seconds,
        }
