"""Host keys, pinned: inventories/ENV/known_hosts.

A cloud tells no host key, and a key that Terraform made would be in its state. So a host's key is
read once, when its machine is new, and pinned. From then on SSH takes no other. A pin ends with its
machine: the cloud's id of it is in the comment of the line.
"""

from __future__ import annotations

import concurrent.futures
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from provisioning.cloud import Cloud, Host

TYPE = "ed25519"
PATIENCE = 600.0
"""Seconds in which a new machine must answer by SSH."""


class PinError(Exception):
    """A host that does not answer, or that has another key; a message for the operator."""


@dataclass(frozen=True)
class Pin:
    """A pinned key.

    Attributes:
        address: the host's.
        key: type and key.
        name: the host's name in the inventory.
        id: the cloud's id of the machine.
    """

    address: str
    key: str
    name: str
    id: str

    @property
    def line(self) -> str:
        """A line of a known_hosts file."""
        return f"{self.address} {self.key} {self.name} id={self.id}\n"


def read(file: Path) -> list[Pin]:
    """Return the pins of a file; none where there is none."""
    if not file.exists():
        return []
    pins = []
    for line in file.read_text().splitlines():
        words = line.split()
        if len(words) == 5 and words[4].startswith("id="):
            pins.append(Pin(words[0], " ".join(words[1:3]), words[3], words[4].removeprefix("id=")))
    return pins


def current(pins: Iterable[Pin], cloud: Cloud) -> dict[str, Pin]:
    """Return the pins of machines that there are, by the name of the host."""
    return {
        pin.name: pin
        for pin in pins
        if (host := cloud.hosts.get(pin.name)) and (host.id, host.address) == (pin.id, pin.address)
    }


def pin_hosts(
    file: Path,
    cloud: Cloud,
    say: Callable[[str], None],
    scan: Callable[[str], str] | None = None,
    patience: float = PATIENCE,
) -> None:
    """Pin the keys of new machines, forget those of machines that are gone.

    Args:
        file: the known_hosts file.
        cloud: the cluster.
        say: prints a line.
        scan: returns type and key of the host at an address; empty if it does not answer.
        patience: seconds to wait for a host.

    Raises:
        PinError: a host does not answer, or it has another key than the pinned one.
    """
    pins = current(read(file), cloud)
    scan = scan or scan_key
    hosts = list(cloud.hosts.values())
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        keys = list(pool.map(lambda host: wait_for_key(host, scan, patience), hosts))
    for host, key in zip(hosts, keys, strict=True):
        if host.name not in pins:
            pins[host.name] = Pin(host.address, key, host.name, host.id)
            say(f"{host.name} {host.address}: pinned {fingerprint(key)}")
    # Those that are right are kept, whatever is wrong with another one.
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text("".join(pins[host.name].line for host in hosts))
    temporary.replace(file)
    changed = [
        f"{host.name} ({host.address}): pinned {fingerprint(pins[host.name].key)}, answers with"
        f" {fingerprint(key)}"
        for host, key in zip(hosts, keys, strict=True)
        if pins[host.name].key != key
    ]
    if changed:
        raise PinError(
            "\n".join(["Hosts have another SSH key than the pinned one:", *changed])
            + "\nThe machines are the same, by the cloud's id. Somebody may be between you and"
            " them.\nIf you installed the host anew yourself, remove its line from"
            f" {file} and retry."
        )


def wait_for_key(host: Host, scan: Callable[[str], str], patience: float) -> str:
    """Return the key of a host, when it answers.

    Raises:
        PinError: it does not answer in time.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if key := scan(host.address):
            return key
        time.sleep(1)
    raise PinError(
        f"{host.name} ({host.address}) does not answer by SSH within {patience:.0f} s."
        " Is your own address one of operator_addresses?"
    )


def scan_key(address: str) -> str:
    """Return type and key of the host at an address; empty if it does not answer."""
    command = ["ssh-keyscan", "-T", "5", "-t", TYPE, address]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.split() for line in result.stdout.splitlines() if not line.startswith("#")]
    return " ".join(lines[0][1:3]) if lines and len(lines[0]) >= 3 else ""


def fingerprint(key: str) -> str:
    """Return the fingerprint of a key, as ssh prints it."""
    command = ["ssh-keygen", "-l", "-f", "-"]
    result = subprocess.run(command, input=key, capture_output=True, text=True, check=True)
    return result.stdout.split()[1]
