"""An account at the stand-in, and an environment that make cluster makes there."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.cloud.hetzner import Hetzner, Machines, serve

ROOT = Path(__file__).parents[2]
PROVISION = ROOT / "scripts" / "provision.py"
TERRAFORM = ROOT / "scripts" / "terraform"
STAGING = ROOT / "inventories" / "staging" / "group_vars" / "all"
ENDED = "\0"
"""What follows all that a command has printed at a terminal."""

TOKEN = "0123456789abcdef" * 4


class Terminal:
    """A terminal at which a command runs.

    Args:
        command: the program and its arguments.
        environment: its variables.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self.master, slave = os.openpty()
        self.hung_up, self.hang = os.pipe()
        self.text = ""
        self.changed = threading.Condition()
        # In a session of its own, with this as its terminal: Ctrl-C interrupts it.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        # The terminal's end is an error of its own.
        with suppress(OSError):
            while self.hung_up not in select.select([self.master, self.hung_up], [], [])[0]:
                content = os.read(self.master, 65536)
                with self.changed:
                    self.text += content.decode(errors="replace").replace("\r\n", "\n")
                    self.changed.notify_all()
        os.close(self.master)
        with self.changed:
            self.text += ENDED
            self.changed.notify_all()

    def until(self, *texts: str) -> str:
        """Wait until one of the texts is there; return it.

        Raises:
            AssertionError: the command has ended without it.
        """
        with self.changed:
            self.changed.wait_for(lambda: any(text in self.text for text in (*texts, ENDED)))
            found = [text for text in texts if text in self.text]
        assert found, self.text
        return found[0]

    def press(self, keys: str) -> None:
        """Type something; Ctrl-C is \\x03."""
        os.write(self.master, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal, as a connection that is lost."""
        os.close(self.hang)

    def end(self) -> int:
        """Wait until the command has ended; return its exit status."""
        self.reader.join()
        return self.process.wait()


@dataclass
class Account:
    """An account at the stand-in, and what an operator has for it.

    Attributes:
        hetzner: the stand-in.
        clouds: a copy of terraform/: state and provider are in there.
        inventory: the directory of the environment.
        environment: variables for make.
        variables: those of hcloud.tfvars.
        runs: how many commands were run.
    """

    hetzner: Hetzner
    clouds: Path
    inventory: Path
    environment: Mapping[str, str]
    variables: dict[str, Any] = field(default_factory=dict)
    runs: int = 0

    def write_variables(self, **changes: Any) -> None:
        """Write hcloud.tfvars: those from before, with changes."""
        self.variables |= changes
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in self.variables.items()]
        (self.inventory / "hcloud.tfvars").write_text("".join(lines))

    def command(self, verb: str) -> list[str | Path]:
        """Return make cluster or make destroy, without the installation of tools."""
        return [sys.executable, PROVISION, verb, self.inventory, f"--clouds={self.clouds}"]

    def make(
        self, verb: str, answer: str = "yes", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run make cluster or make destroy, and answer its question."""
        return self.run(self.command(verb), f"{answer}\n", **environment)

    def terminal(self, verb: str, **environment: str) -> Terminal:
        """Run make cluster or make destroy at a terminal."""
        return Terminal(self.command(verb), {**self.environment, **environment})

    def terraform(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Terraform in the folder of the cloud, as make cluster does."""
        folder = self.clouds / "hcloud"
        data = {"TF_DATA_DIR": str(folder / ".terraform" / self.inventory.name)}
        return self.run([TERRAFORM, f"-chdir={folder}", *arguments], **data)

    def run(
        self, command: Sequence[str | Path], stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; what it printed is kept in a file."""
        self.runs += 1
        log = self.clouds.parent / f"run-{self.runs}.log"
        # No pipe: SSH keeps its connections for a while, and would keep the pipe.
        with log.open("w") as stream:
            result = subprocess.run(
                command,
                env={**self.environment, **environment},
                input=stdin,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        return subprocess.CompletedProcess(command, result.returncode, log.read_text())

    def unknown_to_terraform(self) -> list[str]:
        """Return the names of what there is and Terraform's state does not have."""
        shown = json.loads(self.terraform("show", "-json").stdout)
        resources = shown.get("values", {}).get("root_module", {}).get("resources", [])
        known = {
            (f"{each['type'].removeprefix('hcloud_')}s", each["values"]["id"])
            for each in resources
            if each["mode"] == "managed"
        }
        return sorted(
            thing["name"]
            for kind, things in self.hetzner.things.items()
            for number, thing in things.items()
            if (kind, str(number)) not in known
        )

    def names(self, collection: str) -> list[str]:
        """Return the names of what there is of a kind."""
        return sorted(thing["name"] for thing in self.hetzner.things[collection].values())


@contextmanager
def opened(directory: Path, machines: Machines, name: str) -> Iterator[Account]:
    """Open an account; its environment has everything but the secrets and users of the cluster.

    Args:
        directory: an empty one.
        machines: makes its machines.
        name: the environment's.
    """
    hetzner = Hetzner(machines, TOKEN)
    clouds = directory / "terraform"
    leave = shutil.ignore_patterns(".terraform*", "terraform.tfstate*")
    shutil.copytree(ROOT / "terraform", clouds, ignore=leave)
    inventory = directory / name
    inventory.mkdir()
    with serve(hetzner) as endpoint:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "ANSIBLE_FORCE_COLOR"},
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            # Other tests take the processors: a login may take longer than 10 s.
            "ANSIBLE_TIMEOUT": "60",
            "HCLOUD_ENDPOINT": endpoint,
            "HCLOUD_TOKEN": TOKEN,
            "TF_CLI_ARGS": "-no-color",
            # The provider that scripts/bootstrap has built; nobody else is asked.
            "TF_CLI_CONFIG_FILE": str(provider_configuration()),
        }
        account = Account(hetzner, clouds, inventory, environment)
        account.write_variables(
            operator_addresses=["203.0.113.7/32"],
            ssh_keys={"ann": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3q ann@example.org"},
        )
        yield account


def provider_configuration() -> Path:
    """Return Terraform's configuration that names the provider's mirror."""
    script = ". scripts/lib.sh; built_of tests/cloud/provider"
    built = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return Path(built.stdout.strip()) / "terraform.rc"


def write_group_variables(
    inventory: Path, key: Path, nofile: int, secrets: Mapping[str, Any]
) -> None:
    """Write the variables of a small cluster that shares this machine with others."""
    variables = inventory / "group_vars" / "all"
    variables.mkdir(parents=True)
    shutil.copy(STAGING / "application.yml", variables)
    (variables / "cluster.yml").write_text(
        yaml.safe_dump(
            {
                "ansible_become": True,
                "ansible_ssh_private_key_file": str(key),
                # The address too: clients of the tests use it.
                "cluster_server_names": [
                    "chat.example.org",
                    "{{ hostvars[groups['nginx'][0]].ansible_host }}",
                ],
                "cluster_sockets": 1000,
                "cluster_nofile": nofile,
                "cluster_workers_per_host": 1,
                "channels_canary_seconds": 2,
                "channels_drain_pace": 50,
                "nginx_handshakes_per_address": 0,
            }
        )
    )
    (variables / "vault.yml").write_text(yaml.safe_dump(dict(secrets)))
