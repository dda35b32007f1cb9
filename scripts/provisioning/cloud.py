"""What a cloud tells of its hosts: the output `inventory` of a folder of terraform/."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

GROUPS = ("nginx", "channels", "postgres", "redis")
"""The groups of the kit, in the order of the inventory."""


@dataclass(frozen=True)
class Host:
    """A machine.

    Attributes:
        name: its name in the inventory.
        id: the cloud's; another one is another machine.
        groups: those of the kit that it is in.
        type: its size, in the cloud's words; to change it, the cloud stops the machine.
        address: where SSH reaches it.
        private_address: where the other hosts reach it.
        mounts: devices of volumes, by directory.
    """

    name: str
    id: str
    groups: tuple[str, ...]
    type: str
    address: str
    private_address: str
    mounts: Mapping[str, str]


@dataclass(frozen=True)
class Cloud:
    """What only the cloud knows of a cluster.

    Attributes:
        user: as whom Ansible logs in.
        hosts: the machines, by name.
        proxies: from where a load balancer connects to the edges.
        proxy_protocol: whether it speaks the PROXY protocol.
        entry: the addresses to which the cluster's names must resolve.
    """

    user: str
    hosts: Mapping[str, Host]
    proxies: tuple[str, ...]
    proxy_protocol: bool
    entry: tuple[str, ...]

    def without(self, names: Collection[str]) -> Cloud:
        """Return the same without some hosts."""
        left = {name: host for name, host in self.hosts.items() if name not in names}
        return replace(self, hosts=left)

    def unknown(self) -> list[str]:
        """Return what SSH and the inventory need and the cloud does not say, as HOST.WHAT."""
        return [
            f"{host.name}.{what}"
            for host in self.hosts.values()
            for what in ("id", "address", "private_address")
            if not getattr(host, what)
        ]

    def group(self, group: str) -> list[Host]:
        """Return the hosts of a group."""
        return [host for host in self.hosts.values() if group in host.groups]


def cloud_of(output: Mapping[str, Any]) -> Cloud:
    """Return what the output `inventory` says; values that are not known yet are empty."""
    return Cloud(
        user=output["user"],
        hosts={
            name: _host(name, told) for name, told in sorted(output["hosts"].items(), key=_order)
        },
        proxies=tuple(output["proxies"]),
        proxy_protocol=output["proxy_protocol"],
        entry=tuple(address or "" for address in output["entry"]),
    )


def _host(name: str, told: Mapping[str, Any]) -> Host:
    return Host(
        name=name,
        id=told.get("id") or "",
        groups=tuple(told["groups"]),
        type=told.get("type") or "",
        address=told.get("address") or "",
        private_address=told.get("private_address") or "",
        mounts=told.get("mounts") or {},
    )


def _order(item: tuple[str, Any]) -> tuple[str, int, str]:
    """Order app2 before app10."""
    name = item[0]
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0), name
