"""A staging cluster on this machine: for every host of an inventory a container with systemd.

The inventory is a directory. Ansible reads it, so it may have any form that Ansible supports. Hosts
that are in none of the kit's groups get no container. ``generated.yml`` in that directory has the
values of this cluster (addresses, the SSH key of the hosts, secrets, demonstration users), so that
``ansible-playbook -i INVENTORY site.yml`` reaches the hosts over SSH like any server.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import secrets
import shutil
import socket
import string
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import commands  # noqa: E402
from staging import tls  # noqa: E402

STATE = ROOT / ".staging"
LABEL = "channels-kit.cluster"
DEFAULT_EDGE_PORT = 8080
EDGE_GROUP = "nginx"
KIT_GROUPS = (EDGE_GROUP, "channels", "postgres", "redis")
EDGE_HOST_PORT = 80
SHARED_DIRECTORY = "/srv/shared"
RELEASES = ("bookworm", "trixie")
DEFAULT_TLS_PORT = 8443
EDGE_HOST_TLS_PORT = 443
# Where a Debian host looks for certificate authorities of its own.
TRUSTED = "/usr/local/share/ca-certificates/channels-kit-staging.crt"

# What a container needs to be a place where systemd is at home.
SYSTEMD = (
    *("--cgroupns", "private", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"),
    # Without it systemd cannot see a process behind ProtectProc=invisible, and gives it no
    # PrivateUsers= either: redis-server@.service asks for both and would not start.
    *("--cap-add", "SYS_PTRACE"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"),  # noqa: S108
)

# Variables of the roles that have no default: made up once for this cluster.
SECRETS = (
    "channels_probe_token",
    "channels_secret_key",
    "postgres_password",
    "redis_broker_password",
    "redis_layer_password",
)
# What the sample's inventory asks for beside these: group_vars/all/application.yml.
APPLICATION_SECRETS = ("sample_jwt_key",)
USERS = ("alice", "bob")
# The engine's client, for who may reach the engine and for who may become root.
CLIENT = Path(__file__).with_name("docker")
# To get a network whose subnet is free.
ATTEMPTS = 5
NO_CLUSTER = "No staging cluster is running. Start one: make up"


class StagingError(Exception):
    """A message for the operator; printed without a traceback."""


def read_groups(inventory: Path) -> dict[str, list[str]]:
    """Return the hosts of every group of an inventory, with those of its children, in its order.

    Raises:
        StagingError: Ansible cannot read it.
    """
    if not inventory.is_dir():
        raise StagingError(f"The inventory {inventory} is not a directory.")
    os.environ.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
    # Imported here because the import takes half a second, and most verbs need no inventory.
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader

    try:
        manager = InventoryManager(loader=DataLoader(), sources=[str(inventory)])
    except AnsibleError as error:
        raise StagingError(f"Ansible cannot read the inventory {inventory}:\n{error}") from None
    # Convert Ansible's tagged strings to plain ones.
    found = manager.get_groups_dict()
    return {str(group): [str(host) for host in hosts] for group, hosts in found.items()}


def docker(*arguments: str, check: bool = True) -> str:
    """Run the engine's client and return what it printed."""
    if not shutil.which("docker"):
        raise StagingError("Docker client not found. Install it: scripts/bootstrap engine")
    result = subprocess.run([CLIENT, *arguments], capture_output=True, text=True, check=False)
    if check and result.returncode:
        raise StagingError(f"docker {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.strip()


def say(text: str) -> None:
    """Show that the work is alive."""
    print(f"   {text}", flush=True)


@dataclass(frozen=True)
class Host:
    """A wanted host: its container, its address, and what it is made of."""

    name: str
    container: str
    address: str
    arguments: tuple[str, ...]

    @property
    def definition(self) -> str:
        """Short hash of what the container is made of; another one means another container."""
        return hashlib.sha256("\0".join((*self.arguments, self.address)).encode()).hexdigest()[:12]


class Cluster:
    """The staging cluster of one inventory of this checkout."""

    def __init__(self, inventory: Path, name: str) -> None:
        # Two checkouts on one machine differ in the path, two clusters of one checkout in the name.
        checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]
        self.name = f"channels-kit-{checkout}-{name}"
        self.short_name = name
        self.inventory = inventory
        self.state = STATE / name
        self.generated = inventory / "generated.yml"

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The hosts of each of the kit's groups. Read on first use: `down` works without them."""
        groups = read_groups(self.inventory)
        if not groups.get(EDGE_GROUP):
            raise StagingError(f"The group {EDGE_GROUP} in {self.inventory} has no host. Add one.")
        return {group: groups.get(group, []) for group in KIT_GROUPS}

    @property
    def host_names(self) -> list[str]:
        """The hosts that get a container, sorted."""
        return sorted({host for hosts in self.groups.values() for host in hosts})

    @property
    def shared_volume(self) -> str:
        """The volume that all app hosts have."""
        return f"{self.name}-shared"

    @property
    def edge(self) -> str:
        """The host that is published on this machine."""
        return self.groups[EDGE_GROUP][0]

    def variables(self) -> dict[str, Any]:
        """Return the variables of generated.yml; none where there is no cluster."""
        return self.read_generated("vars")

    def generated_hosts(self) -> dict[str, dict[str, str]]:
        """Return the hosts of generated.yml; none where there is no cluster."""
        return self.read_generated("hosts")

    def read_generated(self, part: str) -> dict[str, Any]:
        """Return a part of generated.yml; nothing where there is no cluster."""
        if not self.generated.exists():
            return {}
        content: dict[str, Any] = yaml.safe_load(self.generated.read_text())["all"][part]
        return content

    # What is here

    def containers(self) -> list[dict[str, str]]:
        """Return name, state and definition of every container of this cluster."""
        definition = '{{json (.Label "channels-kit.definition")}}'
        form = '{"name":{{json .Names}},"state":{{json .State}},"definition":' + definition + "}"
        lines = docker("ps", "--all", "--filter", f"label={LABEL}={self.name}", "--format", form)
        return [json.loads(line) for line in lines.splitlines()]

    def published_port(self, port: int = EDGE_HOST_PORT) -> int | None:
        """Return the port of 127.0.0.1 where a port of the running edge is published."""
        lines = docker("port", f"{self.name}-{self.edge}", f"{port}/tcp", check=False)
        return int(lines.rsplit(":", 1)[1]) if lines else None

    # Up

    def up(self, edge_port: int | None) -> bool:
        """Make what is missing and write the inventory; return whether anything changed.

        Without a port it is the one from before, or the default; 0 is any that is free.
        """
        if edge_port == 0:
            port = self.published_port() or free_port()
        else:
            port = edge_port or self.variables().get("staging_edge_port", DEFAULT_EDGE_PORT)
        self.refuse_taken_port(port)
        tls_port = self.tls_port(any_port=edge_port == 0)
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        hosts = self.wanted(self.image(self.release()), self.key(), self.subnet(), port, tls_port)
        names = [host.address for host in hosts if host.name in self.groups[EDGE_GROUP]]
        tls.certify(self.state, self.name, ["127.0.0.1", "localhost", *names])

        wanted = {host.container: host for host in hosts}
        kept = set()
        for container in self.containers():
            host = wanted.get(container["name"])
            if (
                host
                and host.definition == container["definition"]
                and container["state"] == "running"
            ):
                kept.add(host.name)
            else:
                reason = "no longer in the inventory"
                if host:
                    running = container["state"] == "running"
                    reason = "its definition changed" if running else "it is not running"
                say(f"removing {container['name']}: {reason}")
                docker("rm", "--force", "--volumes", container["name"])
        missing = [host for host in hosts if host.name not in kept]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(self.start, missing))
            list(pool.map(self.wait_until_booted, hosts))
            limits = dict(zip(wanted, pool.map(self.read_limit, hosts), strict=True))
            keys = list(pool.map(self.read_host_key, hosts))
            list(pool.map(self.trust_authority, hosts))
        self.write_known_hosts(hosts, keys)
        self.write_inventory(hosts, port, min(limits.values()), tls_port)
        say(f"{len(hosts)} hosts running, {len(missing)} of them new: {', '.join(self.host_names)}")
        return bool(missing)

    def refuse_taken_port(self, port: int) -> None:
        """Refuse a port that is in use, before anything is created."""
        if port == self.published_port():
            return
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                raise StagingError(
                    f"Cannot listen on 127.0.0.1:{port}: {error.strerror}. Nothing changed.\n"
                    f"Choose another port: make up EDGE_PORT={port + 1}"
                ) from None

    def tls_port(self, any_port: bool) -> int:
        """Return the port of 127.0.0.1 for TLS: the one from before, the default, or the next."""
        published = self.published_port(EDGE_HOST_TLS_PORT)
        if published or any_port:
            return published or free_port()
        first = self.variables().get("staging_edge_tls_port", DEFAULT_TLS_PORT)
        return next(port for port in range(first, 65536) if is_free(port))

    def release(self) -> str:
        """Return the hosts' release of Debian: STAGING_RELEASE, or the one from before."""
        before = self.state / "release"
        release = os.environ.get("STAGING_RELEASE") or (
            before.read_text().strip() if before.exists() else RELEASES[0]
        )
        if release not in RELEASES:
            raise StagingError(
                f"STAGING_RELEASE is {release}; allowed: {', '.join(RELEASES)}. Nothing changed."
            )
        before.write_text(f"{release}\n")
        return release

    def image(self, release: str) -> str:
        """Return the tag of the hosts' image; make it first where it is missing."""
        result = subprocess.run(
            [Path(__file__).with_name("make-image"), release],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if result.returncode:
            raise StagingError("Building the staging image failed. See the error above.")
        return result.stdout.strip()

    def key(self) -> str:
        """Return the public half of the key that opens the hosts; make it where it is missing."""
        private = self.state / "id_ed25519"
        public = private.with_suffix(".pub")
        if not public.exists():
            private.unlink(missing_ok=True)
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", private],
                check=True,
            )
        return public.read_text().strip()

    def subnet(self) -> str:
        """Return the network's subnet; make the network first where it is missing."""

        def inspect(network: str) -> str:
            form = "{{(index .IPAM.Config 0).Subnet}}"
            return docker("network", "inspect", "--format", form, network, check=False)

        if found := inspect(self.name):
            return found
        # A host that restarts must come back under its address, and the engine gives fixed
        # addresses only in a subnet that was asked for. The engine knows best which one is free.
        label = f"{LABEL}={self.name}"
        # Under another name: where this is interrupted, no network without a subnet is left behind
        # that looks like the cluster's.
        asked = f"{self.name}-subnet"
        docker("network", "rm", asked, check=False)
        for attempt in range(1, ATTEMPTS + 1):
            docker("network", "create", "--label", label, asked)
            free = inspect(asked)
            docker("network", "rm", asked)
            try:
                docker("network", "create", "--label", label, "--subnet", free, self.name)
                break
            except StagingError:
                # Another cluster, which starts at the same time, may have it now.
                if attempt == ATTEMPTS:
                    raise
        return free

    def wanted(
        self, image: str, key: str, subnet: str, port: int, tls_port: int = DEFAULT_TLS_PORT
    ) -> list[Host]:
        """Return every host as it shall be."""
        # The engine's own pools all begin with .0; .1 is the machine.
        prefix = subnet.split("/")[0].rsplit(".", 1)[0]
        common = (
            *("--network", self.name, "--restart", "unless-stopped", *SYSTEMD),
            *("--env", f"STAGING_AUTHORIZED_KEY={key}", "--label", f"{LABEL}={self.name}"),
        )
        publish = (
            *("--publish", f"127.0.0.1:{port}:{EDGE_HOST_PORT}"),
            *("--publish", f"127.0.0.1:{tls_port}:{EDGE_HOST_TLS_PORT}"),
        )
        # Stands for the file system that real app hosts mount: channels_writable_store.
        shared = ("--volume", f"{self.shared_volume}:{SHARED_DIRECTORY}")
        return [
            Host(
                name=name,
                container=f"{self.name}-{name}",
                address=f"{prefix}.{number}",
                arguments=(
                    "--hostname",
                    name,
                    *common,
                    *(publish if name == self.edge else ()),
                    *(shared if name in self.groups["channels"] else ()),
                    image,
                ),
            )
            for name, number in self.numbers(prefix).items()
        ]

    def numbers(self, prefix: str) -> dict[str, int]:
        """Return the last number of each host's address: those that there are keep theirs."""
        known = {
            name: int(host["ansible_host"].rsplit(".", 1)[1])
            for name, host in self.generated_hosts().items()
            if host["ansible_host"].startswith(f"{prefix}.")
        }
        free = (number for number in range(10, 250) if number not in known.values())
        return {name: known[name] if name in known else next(free) for name in self.host_names}

    def start(self, host: Host) -> None:
        """Make a host."""
        docker(
            *("run", "--detach", "--name", host.container, "--ip", host.address),
            *("--label", f"channels-kit.definition={host.definition}", *host.arguments),
        )

    def wait_until_booted(self, host: Host) -> None:
        """Wait until systemd has started what belongs to the boot, sshd among it."""
        # Degraded: a unit has failed since, and the converging run or the proof will say which.
        booted = ("running", "degraded")
        wait = ("exec", host.container, "systemctl", "is-system-running", "--wait")
        for _ in range(100):  # the entry script runs before systemd does, and answers nothing
            if docker(*wait, check=False) in booted:
                return
            time.sleep(0.1)
        logs = docker("logs", "--tail", "20", host.container, check=False)
        raise StagingError(
            f"{host.name} did not boot. The end of its log (docker logs {host.container}):\n{logs}"
        )

    def read_limit(self, host: Host) -> int:
        """Return the most open files that the machine grants a process of the host."""
        limits = docker("exec", host.container, "cat", "/proc/1/limits")
        return next(
            int(line.split()[4])
            for line in limits.splitlines()
            if line.startswith("Max open files")
        )

    def read_host_key(self, host: Host) -> str:
        """Return type and key by which SSH knows the host, read past SSH."""
        key = docker("exec", host.container, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        return " ".join(key.split()[:2])

    def trust_authority(self, host: Host) -> None:
        """Have a host trust the cluster's certificate authority, as a person's browser would."""
        authority = self.state / tls.AUTHORITY
        there = docker("exec", host.container, "cat", TRUSTED, check=False)
        if there.strip() != authority.read_text().strip():
            docker("cp", str(authority), f"{host.container}:{TRUSTED}")
            docker("exec", host.container, "update-ca-certificates")

    def write_known_hosts(self, hosts: list[Host], keys: list[str]) -> None:
        """Write down whom SSH may believe."""
        lines = [f"{host.address} {key}\n" for host, key in zip(hosts, keys, strict=True)]
        write_private(self.state / "known_hosts", "".join(lines))

    def write_inventory(
        self, hosts: list[Host], port: int, limit: int, tls_port: int = DEFAULT_TLS_PORT
    ) -> None:
        """Write generated.yml; secrets that are there stay."""
        before = self.variables()
        users = before.get("sample_users", {})
        ssh = f'-o UserKnownHostsFile="{self.state}/known_hosts" -o StrictHostKeyChecking=yes'
        content = {
            "all": {
                "hosts": {
                    host.name: {
                        "ansible_host": host.address,
                        "cluster_address": host.address,
                        "staging_container": host.container,
                    }
                    for host in hosts
                },
                "vars": {
                    "ansible_user": "deploy",
                    "ansible_ssh_private_key_file": str(self.state / "id_ed25519"),
                    "ansible_ssh_common_args": ssh,
                    "staging_edge_port": port,
                    "staging_edge_tls_port": tls_port,
                    "staging_nofile_ceiling": limit,
                    # Both are served: a browser takes localhost without a certificate.
                    "cluster_tls": "files",
                    "nginx_redirect_to_https": False,
                    "nginx_tls_certificate": str(self.state / tls.CERTIFICATE),
                    "nginx_tls_key": str(self.state / tls.KEY),
                    **{
                        name: before.get(name) or secrets.token_urlsafe(32)
                        for name in (*SECRETS, *APPLICATION_SECRETS)
                    },
                    "sample_users": {user: users.get(user) or password() for user in USERS},
                },
            }
        }
        header = "# Written by `make up`. `make down` removes it.\n---\n"
        write_private(self.generated, header + yaml.safe_dump(content, sort_keys=False))

    # Down, and looking at it

    def down(self) -> None:
        """Remove the hosts, their network, and what was generated for them."""
        names = [container["name"] for container in self.containers()]
        if names:
            docker("rm", "--force", "--volumes", *names)
        # Where no host has had it, there is none.
        docker("volume", "rm", "--force", self.shared_volume)
        label = f"label={LABEL}={self.name}"
        if networks := docker("network", "ls", "--quiet", "--filter", label).split():
            docker("network", "rm", *networks)
        if self.inventory.is_dir():
            self.generated.unlink(missing_ok=True)
        # And nothing beside it: a lock of .staging may be held.
        if self.state.exists():
            shutil.rmtree(self.state)
        say(f"{len(names)} hosts removed. The image is kept.")

    def status(self) -> None:
        """Print the hosts, their units that belong to the cluster, and the URL."""
        containers = self.containers()
        if not containers:
            raise StagingError(NO_CLUSTER)
        units = ("channels-*", "nginx*", "redis-server@*", "postgresql@*")
        for container in containers:
            host = container["name"].removeprefix(f"{self.name}-")
            print(f"{host}: {container['state']}")
            if container["state"] == "running":
                listing = ("list-units", "--no-legend", "--plain", "--type=service", *units)
                for line in docker("exec", container["name"], "systemctl", *listing).splitlines():
                    unit, _, active, sub, *_ = line.split()
                    print(f"    {unit}: {active} ({sub})")
        print(f"URL: {self.url()}")
        print(f"TLS: {self.tls_url()}")

    def url(self) -> str:
        """Return where the browser finds the cluster."""
        if not self.generated.exists():
            raise StagingError(NO_CLUSTER)
        return f"http://127.0.0.1:{self.variables()['staging_edge_port']}/"

    def tls_url(self) -> str:
        """Return where the browser finds the cluster by TLS, and whom it has to trust."""
        if not self.generated.exists():
            raise StagingError(NO_CLUSTER)
        port = self.variables()["staging_edge_tls_port"]
        return f"https://127.0.0.1:{port}/ (certificate authority: {self.state / tls.AUTHORITY})"

    def credentials(self) -> None:
        """Print the demonstration users and their passwords."""
        users = self.variables().get("sample_users")
        if not users:
            raise StagingError(NO_CLUSTER)
        print(f"Log in at {self.url()} with one of these users:")
        for user, word in users.items():
            print(f"    {user}  {word}")

    def ssh(self, host: str, command: list[str]) -> NoReturn:
        """Become a shell on a host, or a command there."""
        # The inventory may have changed since the hosts were made.
        names = sorted(self.generated_hosts()) or self.host_names
        if host not in names:
            raise StagingError(
                f"HOST={host!r} is not a host of this cluster. Hosts: {', '.join(names)}"
            )
        if not self.generated.exists():
            raise StagingError(NO_CLUSTER)
        address = self.generated_hosts()[host]["ansible_host"]
        key, known = self.state / "id_ed25519", self.state / "known_hosts"
        os.execvp(  # noqa: S606
            "ssh",
            [
                "ssh",
                "-i",
                str(key),
                "-o",
                f"UserKnownHostsFile={known}",
                f"deploy@{address}",
                *command,
            ],
        )

    def logs(self, host: str, unit: str) -> NoReturn:
        """Become the journal of a host: of one unit or all, followed on a terminal."""
        follow = ["--follow"] if sys.stdout.isatty() else ["--no-pager"]
        only = [f"--unit='{unit}'"] if unit else []
        self.ssh(host, ["sudo", "journalctl", "--lines=200", *follow, *only])


def password() -> str:
    """Return a password that a person can type."""
    return "-".join(
        "".join(secrets.choice(string.ascii_lowercase) for _ in range(4)) for _ in range(4)
    )


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner reads, whole or not at all; leave an equal one alone."""
    if path.exists() and path.read_text() == content:
        path.chmod(0o600)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(content)
    temporary.replace(path)


def main() -> int:
    """Read the command line and act."""
    parser = argparse.ArgumentParser(description="A staging cluster on this machine.")
    parser.add_argument("--inventory", type=Path, default=ROOT / "inventories" / "staging")
    parser.add_argument("--name", default="staging")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="create missing hosts and write the inventory")
    up.add_argument("--edge-port", type=int, choices=range(65536), metavar="PORT")
    for verb in ("down", "groups", "status", "credentials", "url", "tls-url"):
        verbs.add_parser(verb)
    logs = verbs.add_parser("logs")
    logs.add_argument("host")
    logs.add_argument("unit", nargs="?", default="")
    ssh = verbs.add_parser("ssh")
    ssh.add_argument("host")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        cluster = Cluster(arguments.inventory, arguments.name)
        match arguments.verb:
            case "up":
                changed = cluster.up(arguments.edge_port)
                say("changed" if changed else "nothing to change")
            case "down":
                cluster.down()
            case "status":
                cluster.status()
            case "groups":
                print(json.dumps(cluster.groups))
            case "credentials":
                cluster.credentials()
            case "url":
                print(cluster.url())
            case "tls-url":
                print(cluster.tls_url())
            case "logs":
                cluster.logs(arguments.host, arguments.unit)
            case "ssh":
                cluster.ssh(arguments.host, arguments.command)
    except StagingError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # What is there is completed by the next up, and removed by the next down.
        return commands.interrupted("Interrupted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
