"""Machines for the stand-in of a cloud: staging hosts, with cloud-init, two networks and volumes.

They are made as `make up` makes them: the same image below, the same options of the container.
"""

from __future__ import annotations

import hashlib
import ipaddress
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import commands
from staging.cluster import ROOT, STATE, SYSTEMD, docker

Thing = dict[str, Any]
LABEL = "channels-kit.cloud"
IMAGE = Path(__file__).with_name("image")
MAKE_IMAGE = ROOT / "scripts" / "staging" / "make-image"
SEED = "/var/lib/cloud/seed/nocloud"
# The loop devices of this machine, which stand for volumes.
LOOP_DEVICES = ("--device-cgroup-rule", "b 7:* rmw")


def make_image() -> str:
    """Return the image of a host that starts cloud-init; make it first where it is missing."""
    base = subprocess.run([MAKE_IMAGE], check=True, capture_output=True, text=True).stdout.strip()
    definition = hashlib.sha256((IMAGE / "Dockerfile").read_bytes()).hexdigest()[:12]
    tag = f"{base.replace('staging:', 'cloud:')}-{definition}"
    if not docker("image", "ls", "--quiet", tag):
        docker("build", "--quiet", "--build-arg", f"BASE={base}", "--tag", tag, str(IMAGE))
    return tag


@contextmanager
def machines_of_checkout() -> Iterator[Containers]:
    """Yield machines that are removed at the end; one user of them at a time in a checkout."""
    checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]
    with commands.locked("cloud", "stand-in of a cloud"):
        machines = Containers(f"channels-kit-{checkout}-cloud", STATE / "cloud")
        try:
            yield machines
        finally:
            machines.remove()


class Containers:
    """Machines of one account.

    Args:
        name: of the account on this machine.
        directory: for what they need on the disk.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        directory.mkdir(parents=True, exist_ok=True)
        self.label = f"{LABEL}={name}"
        self.public = f"{name}-public"
        self.image = make_image()
        self.devices: dict[int, str] = {}
        # A run that was killed has left its own.
        self.remove()
        docker("network", "create", "--label", self.label, self.public)

    def free_subnet(self) -> str:
        """Return a network that nobody on this machine has, as far as the engine knows."""
        docker("network", "create", "--label", self.label, f"{self.name}-asked")
        form = "{{(index .IPAM.Config 0).Subnet}}"
        subnet = docker("network", "inspect", "--format", form, f"{self.name}-asked")
        docker("network", "rm", f"{self.name}-asked")
        return str(next(ipaddress.ip_network(subnet).subnets(new_prefix=24)))

    def nofile(self) -> int:
        """Return the most open files that this machine grants a process of a host."""
        limits = docker("run", "--rm", "--entrypoint", "cat", self.image, "/proc/1/limits")
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        return min(int(line.split()[4]), 65536)

    def container(self, server: Thing) -> str:
        """Return the name of a server's container."""
        return f"{self.name}-{server['id']}"

    def create(self, server: Thing, user_data: str) -> str:
        """Make and start a machine; return its public address."""
        container = self.container(server)
        docker(
            *("create", "--name", container, "--hostname", server["name"], "--label", self.label),
            *("--network", self.public, *SYSTEMD, *LOOP_DEVICES, self.image),
        )
        with tempfile.TemporaryDirectory(dir=self.directory) as seed:
            (Path(seed) / "user-data").write_text(user_data)
            (Path(seed) / "meta-data").write_text(
                f"instance-id: {server['id']}\nlocal-hostname: {server['name']}\n"
            )
            docker("cp", f"{seed}/.", f"{container}:{SEED}")
        docker("start", container)
        form = f'{{{{(index .NetworkSettings.Networks "{self.public}").IPAddress}}}}'
        return docker("inspect", "--format", form, container)

    def delete(self, server: Thing) -> None:
        """Remove a machine."""
        docker("rm", "--force", "--volumes", self.container(server))

    def shutdown(self, server: Thing) -> None:
        """Stop a machine: its units stop, and drain."""
        docker("stop", "--time", "300", self.container(server))

    def connect(self, server: Thing, network: Thing, address: str) -> None:
        """Give a machine an address in a network."""
        docker("network", "connect", "--ip", address, self.network(network), self.container(server))

    def network(self, network: Thing) -> str:
        """Return the name of the engine's network."""
        return f"{self.name}-network-{network['id']}"

    def create_subnet(self, network: Thing, subnet: str) -> None:
        """Make a network."""
        name = self.network(network)
        docker("network", "create", "--label", self.label, "--subnet", subnet, name)

    def delete_network(self, network: Thing) -> None:
        """Remove a network."""
        docker("network", "rm", self.network(network))

    def create_volume(self, volume: Thing) -> None:
        """Make a volume: a file with a file system, as a device of this machine."""
        file = self.directory / f"volume-{volume['id']}"
        with file.open("wb") as stream:
            # Not what was asked for: it is a hole, but its size is that of the file system.
            stream.truncate(2 * 1024**3)
        subprocess.run([f"/sbin/mkfs.{volume['format']}", "-q", str(file)], check=True)
        found = subprocess.run(
            ["/sbin/losetup", "--find", "--show", str(file)],
            check=True,
            capture_output=True,
            text=True,
        )
        self.devices[volume["id"]] = found.stdout.strip()

    def attach(self, volume: Thing, server: Thing) -> None:
        """Give a machine a volume."""
        number = self.devices[volume["id"]].removeprefix("/dev/loop")
        device = volume["linux_device"]
        container = self.container(server)
        docker("exec", container, "mkdir", "-p", str(Path(device).parent))
        docker("exec", container, "mknod", device, "b", "7", number)

    def delete_volume(self, volume: Thing) -> None:
        """Remove a volume."""
        subprocess.run(["/sbin/losetup", "--detach", self.devices.pop(volume["id"])], check=True)
        (self.directory / f"volume-{volume['id']}").unlink()

    def left(self) -> list[str]:
        """Return what is left: containers, networks other than the public one, volumes."""
        of_us = ("--filter", f"label={self.label}", "--format")
        containers = docker("ps", "--all", *of_us, "{{.Names}}").split()
        networks = docker("network", "ls", *of_us, "{{.Name}}").split()
        return [
            *containers,
            *(name for name in networks if name != self.public),
            *self.devices.values(),
        ]

    def remove(self) -> None:
        """Remove everything."""
        filters = ("--quiet", "--filter", f"label={self.label}")
        if containers := docker("ps", "--all", *filters).split():
            docker("rm", "--force", "--volumes", *containers)
        if networks := docker("network", "ls", *filters).split():
            docker("network", "rm", *networks)
        for file in self.directory.glob("volume-*"):
            found = subprocess.run(
                ["/sbin/losetup", "--noheadings", "--output", "NAME", "--associated", str(file)],
                check=True,
                capture_output=True,
                text=True,
            )
            for device in found.stdout.split():
                subprocess.run(["/sbin/losetup", "--detach", device], check=True)
            file.unlink()
        self.devices.clear()
