"""What a plan of Terraform does to a cluster: read from `terraform show -json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioning.cloud import Cloud, cloud_of

DELETE, CREATE, UPDATE = "delete", "create", "update"
APP = "channels"
WIDTH = 34


@dataclass(frozen=True)
class Plan:
    """A plan, as far as it matters to the hosts.

    Attributes:
        before: the cluster as it is; nothing before the first run.
        leaving: app hosts that the plan deletes or replaces.
        gone: hosts that there were, and that somebody else has deleted.
        others: addresses of everything else that it deletes or replaces.
        stopping: hosts that the cloud stops to change their type: name, type before and after.
        creates: what it makes or makes again, in words, by address.
        costs_before: what the cluster costs; nothing before the first run.
        costs: what it will cost.
    """

    before: Cloud | None
    leaving: tuple[str, ...]
    gone: tuple[str, ...]
    others: tuple[str, ...]
    stopping: tuple[tuple[str, str, str], ...]
    creates: Mapping[str, str]
    costs_before: Mapping[str, Any] | None
    costs: Mapping[str, Any] | None

    @property
    def staying(self) -> list[str]:
        """The app hosts that serve while the plan is applied."""
        if not self.before:
            return []
        names = [host.name for host in self.before.group(APP)]
        return [name for name in names if name not in (*self.leaving, *self.gone)]


def plan_of(shown: Mapping[str, Any]) -> Plan:
    """Return what a plan does.

    Args:
        shown: what `terraform show -json` says about it.
    """
    outputs = shown.get("output_changes", {})
    told = outputs.get("inventory", {}).get("before")
    before = cloud_of(told) if told else None
    # What is not known yet is not in there.
    after = (outputs.get("inventory", {}).get("after") or {}).get("hosts", {})
    leaving, gone, others, stopping = [], [], [], []
    creates: dict[str, str] = {}
    for change in shown.get("resource_changes", []):
        actions = change["change"]["actions"]
        # The resource of a host is in a map with the hosts' names: terraform/modules/inventory.
        host = before.hosts.get(str(change.get("index"))) if before else None
        was = change["change"]["before"] or {}
        if CREATE in actions:
            name = (change["change"].get("after") or {}).get("name")
            creates[change["address"]] = change["address"] + (f", named {name}" if name else "")
        if DELETE in actions:
            if host and host.id == str(was.get("id")) and host.groups == (APP,):
                leaving.append(host.name)
            else:
                others.append(change["address"])
        elif actions == [CREATE] and host and _is_machine(change, shown):
            gone.append(host.name)
        elif actions == [UPDATE] and host and host.id == str(was.get("id")):
            wanted = after.get(host.name, {}).get("type") or host.type
            if host.type and wanted != host.type:
                stopping.append((host.name, host.type, wanted))
    # What belongs to a host that leaves goes with it.
    others = [
        address for address in others if not any(f'["{name}"]' in address for name in leaving)
    ]
    costs = outputs.get("costs", {})
    return Plan(
        before=before,
        leaving=tuple(leaving),
        gone=tuple(gone),
        others=tuple(others),
        stopping=tuple(stopping),
        creates=creates,
        costs_before=costs.get("before"),
        costs=costs.get("after"),
    )


def _is_machine(change: Mapping[str, Any], shown: Mapping[str, Any]) -> bool:
    """Return whether a resource is a machine that somebody deleted: its new id is not known yet."""
    after = shown["output_changes"]["inventory"].get("after_unknown", {})
    if after is True:
        return True
    hosts = after.get("hosts", {})
    return hosts is True or bool(hosts.get(str(change["index"]), {}).get("id"))


def costs_in_words(costs: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """Return what a cluster costs, as lines.

    Args:
        costs: the output `costs`.
        before: the same of the cluster as it is.
    """
    currency = costs["currency"]
    lines = [f"Costs a month in {currency}, by prices of {costs['date'][:10]}. {costs['note']}"]
    for line in costs["lines"]:
        label = f"{line['count']} x {line['what']}"
        if line["price"] is None:
            lines.append(f"  {label:<{WIDTH}} not in prices.yml")
        else:
            each = f"{line['price']:.4f}".rstrip("0").ljust(4, "0")
            lines.append(f"  {label:<{WIDTH}} {each:>8} {line['count'] * line['price']:>9.2f}")
    least = "" if all(line["price"] is not None for line in costs["lines"]) else "at least "
    was = (
        f" (now {_sum(before['lines']):.2f})"
        if before and before["lines"] != costs["lines"]
        else ""
    )
    lines.append(f"  {'total':<{WIDTH}} {least:>8} {_sum(costs['lines']):>9.2f}{was}")
    return "\n".join(lines)


def _sum(lines: Sequence[Mapping[str, Any]]) -> float:
    return sum((line["count"] * float(line["price"] or 0) for line in lines), 0.0)
