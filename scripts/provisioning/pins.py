"""Host keys, pinned: inventories/ENV/known_hosts.

A cloud tells no host key, and a key that Terraform made would be in its state. So a host's key is
read once, when its machine is new, and pinned. From then on SSH takes no other. A pin ends with its
machine: the cloud's id of it is in the comment of the line.
"""

from __future__ import annotations

import concurrent.futures
import subprocess
import threading
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


def parsed(line: str) -> Pin | None:
    """Return the pin of a line; nothing if somebody else has written it."""
    words = line.split()
    if len(words) != 5 or not words[4].startswith("id="):
        return None
    return Pin(words[0], " ".join(words[1:3]), words[3], words[4].removeprefix("id="))


def read(file: Path) -> tuple[list[Pin], str]:
    """Return the pins of a file, and the lines of somebody else; none where there is no file."""
    pins, foreign = [], []
    for line in file.read_text().splitlines() if file.exists() else []:
        if pin := parsed(line):
            pins.append(pin)
        else:
            foreign.append(f"{line}\n")
    return pins, "".join(foreign)


def write(file: Path, pins: Iterable[Pin], foreign: str) -> None:
    """Write a file, whole or not at all; remove it if it would be empty."""
    if not (text := foreign + "".join(pin.line for pin in pins)):
        file.unlink(missing_ok=True)
        return
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text)
    temporary.replace(file)


def unpin_hosts(file: Path) -> None:
    """Forget all machines; lines of somebody else stay."""
    write(file, [], read(file)[1])


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
    known, foreign = read(file)
    pins = current(known, cloud)
    scan = scan or scan_key
    hosts = list(cloud.hosts.values())
    given_up = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        try:
            keys = list(pool.map(lambda host: wait_for_key(host, scan, patience, given_up), hosts))
        finally:
            # Somebody has interrupted, or a host does not answer: the others are not waited for.
            given_up.set()
    for host, key in zip(hosts, keys, strict=True):
        if host.name not in pins:
            pins[host.name] = Pin(host.address, key, host.name, host.id)
            say(f"{host.name} {host.address}: pinned {fingerprint(key)}")
    # Those that are right are kept, whatever is wrong with another one.
    write(file, [pins[host.name] for host in hosts], foreign)
    changed = [
        f"{host.name} ({host.address}): pinned {fingerprint(pins[host.name].key)}, answers with"
        f" {fingerprint(key)}"
        for host, key in zip(hosts, keys, strict=True)
        if pins[host.name].key != key
    ]
    if changed:
        raise PinError(
            "\n".join([f"Hosts have another SSH key than in {file}:", *changed])
            + "\nThe cloud has not replaced these machines: somebody may be between you and them."
            "\nIf you have installed the host again yourself, remove its line from the file, then"
            " run the same command again.\nIf not, log in at the cloud's console, and compare:"
            " ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
        )


def wait_for_key(
    host: Host, scan: Callable[[str], str], patience: float, given_up: threading.Event
) -> str:
    """Return the key of a host, when it answers; nothing if it is given up.

    Raises:
        PinError: it does not answer in time.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if key := scan(host.address):
            return key
        if given_up.wait(1):
            return ""
    raise PinError(
        f"{host.name} ({host.address}) does not answer by SSH within {patience:.0f} s.\nCheck that"
        " operator_addresses has your address, and that the machine runs. Then run the same command"
        " again."
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
