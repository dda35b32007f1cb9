"""Make, change and remove a cluster on rented machines.

Used by ``make cluster ENV=prod`` and ``make destroy ENV=prod``. A file
``inventories/ENV/CLOUD.tfvars`` has the variables of the folder ``terraform/CLOUD``. Nothing here
knows a cloud: docs/terraform.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import commands
from commands import INTERRUPTED, ROOT
from management import ManageError, find_inventory
from provisioning import inventory, pins
from provisioning.cloud import cloud_of
from provisioning.plan import Plan, costs_in_words, plan_of

CLOUDS = ROOT / "terraform"
SCRIPTS = ROOT / "scripts"
OPERATE = SCRIPTS / "operate"
VERIFY = SCRIPTS / "verify"
PLAYBOOK = SCRIPTS / "ansible-playbook"
NO_CHANGES, CHANGES = 0, 2
"""What `terraform plan -detailed-exitcode` ends with."""

UNREACHABLE = 4
"""What `ansible` ends with if a host does not answer."""


def say(text: str) -> None:
    """Show that the work is alive."""
    print(f"   {text}", flush=True)


def stop(*lines: str) -> NoReturn:
    """End with what is wrong."""
    sys.exit("\n".join(lines))


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Print what is done, and how long it took."""
    began = time.monotonic()
    print(f"== {name}", flush=True)
    yield
    print(f"== {name}: done in {time.monotonic() - began:.1f} s", flush=True)


def stream(*command: str | Path, env: dict[str, str] | None = None) -> int:
    """Run a command whose output goes to the terminal; return its exit status.

    Ctrl-C reaches it too, and it ends by itself: what is half done, it records.
    """
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, text=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        commands.end(process)
        raise


class Terraform:
    """The folder of a cloud, for one environment.

    Args:
        folder: below terraform/.
        name: of the environment: Terraform keeps the state of each in a workspace of this name.
        variables: the file with its variables.
    """

    def __init__(self, folder: Path, name: str, variables: Path) -> None:
        self.folder, self.name = folder, name
        self.variables = (f"-var=name={name}", f"-var-file={variables}")
        # The selected workspace is in there: two environments do not share it.
        data = folder / ".terraform" / name
        self.saved = data / "plan"
        self.environment = os.environ | {
            "TF_DATA_DIR": str(data),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
        }

    def command(self, *arguments: str) -> list[str | Path]:
        """Return a command of Terraform in the folder."""
        return [SCRIPTS / "terraform", f"-chdir={self.folder}", *arguments]

    def read(self, *arguments: str) -> str:
        """Return what a command prints; end with what it says if it fails."""
        result = commands.run(self.command(*arguments), env=self.environment)
        if result.returncode:
            stop(f"terraform {arguments[0]} failed:", result.stdout, result.stderr)
        return result.stdout

    def stream(self, *arguments: str) -> int:
        """Run a command whose output goes to the terminal.

        It gets one interrupt: at a second one it would end at once, and lose what it has made.
        """
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            # Ctrl-C at the terminal does not reach it.
            process_group=0,
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            commands.ignore_signals()
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            raise

    def start(self) -> None:
        """Fetch the provider, and select the environment's state."""
        self.read("init", "-no-color")
        self.read("workspace", "select", "-or-create=true", self.name)

    def plan(self, *arguments: str) -> bool:
        """Show and save a plan; return whether it changes anything."""
        status = self.stream(
            *("plan", "-detailed-exitcode", f"-out={self.saved}", *arguments, *self.variables)
        )
        if status not in (NO_CHANGES, CHANGES):
            stop("Nothing changed.")
        return status == CHANGES

    def planned(self) -> Plan:
        """Return what the saved plan does."""
        return plan_of(json.loads(self.read("show", "-json", str(self.saved))))

    def apply(self) -> None:
        """Do what was planned."""
        if self.stream("apply", str(self.saved)):
            stop(
                f"Terraform did not complete the plan. Its state has what it made: fix the cause,"
                f" then run the same command again for {self.name}."
            )

    def output(self, name: str) -> Any:
        """Return an output; nothing if there is none."""
        outputs = json.loads(self.read("output", "-json"))
        return outputs.get(name, {}).get("value")

    def forget(self) -> None:
        """Remove the workspace of an environment that has no machines any more."""
        self.read("workspace", "select", "default")
        self.read("workspace", "delete", self.name)


class Environment:
    """An environment on rented machines.

    Args:
        directory: its inventory.
        clouds: where the folders of clouds are.
    """

    def __init__(self, directory: Path, clouds: Path) -> None:
        self.directory = directory
        self.name = directory.name
        self.hosts = directory / "hosts.yml"
        self.known_hosts = directory / "known_hosts"
        found = sorted(directory.glob("*.tfvars"))
        folders = sorted(path.parent.name for path in clouds.glob("*/example.tfvars"))
        if len(found) != 1 or found[0].stem not in folders:
            has = ", ".join(path.name for path in found) or "none"
            stop(
                f"{directory} has {has} for Terraform; allowed: one file, named after a cloud:"
                f" {', '.join(f'{folder}.tfvars' for folder in folders)}.",
                f"Copy terraform/{folders[0]}/example.tfvars, and set its values:"
                " docs/terraform.md. Nothing changed.",
            )
        self.terraform = Terraform(clouds / found[0].stem, self.name, found[0])

    def cluster(self) -> None:
        """Bring machines, inventory and cluster to what is stated, and prove delivery."""
        try:
            inventory.refuse_foreign(self.hosts)
        except inventory.ForeignFileError as error:
            stop(str(error), "Nothing changed.")
        with phase("1/5 Plan"):
            self.terraform.start()
            changes = self.terraform.plan()
            plan = self.terraform.planned()
            if plan.costs:
                print(costs_in_words(plan.costs, plan.costs_before), flush=True)
        if changes:
            self.refuse_outage(plan)
            self.confirm(plan)
            if plan.leaving:
                with phase("2/5 Drain"):
                    self.drain(plan)
            with phase("2/5 Machines"):
                self.terraform.apply()
        cloud = cloud_of(self.terraform.output("inventory"))
        inventory.write(self.hosts, cloud)
        with phase("3/5 Wait for SSH and cloud-init"):
            try:
                pins.pin_hosts(self.known_hosts, cloud, say)
            except pins.PinError as error:
                stop(str(error))
            self.run(PLAYBOOK, "-i", self.directory, "playbooks/reachable.yml")
        with phase("4/5 Converge"):
            self.run(OPERATE, self.directory, "converge")
        with phase("5/5 Prove"):
            self.run(VERIFY, self.directory)
        print(
            f"\nThe cluster {self.name} is up and delivery is proved. Its names must resolve to"
            f" {', '.join(cloud.entry)}.\nCommit {self.hosts} and {self.known_hosts}.",
            flush=True,
        )

    def refuse_outage(self, plan: Plan) -> None:
        """Refuse a plan after which no app host would serve while it is applied."""
        if plan.leaving and not plan.staying:
            stop(
                "The plan deletes or replaces every app host that serves:"
                f" {', '.join(plan.leaving)}. No client could connect during it. Nothing changed.",
                "Replace hosts one after the other, or make another environment beside this one:"
                " docs/terraform.md.",
            )

    def confirm(self, plan: Plan) -> None:
        """Ask; end if the answer is no."""
        wanted = "yes"
        if plan.leaving:
            print(f"Drained and taken out of the edge first: {', '.join(plan.leaving)}")
        if plan.others:
            # More than app hosts: data, addresses or the only edge may go.
            wanted = self.name
            print(
                "The plan also deletes or replaces what is no app host:", *plan.others, sep="\n  "
            )
        answer(f"To apply the plan, type {wanted}: ", wanted)

    def drain(self, plan: Plan) -> None:
        """Take app hosts out of a cluster that goes on."""
        before = plan.before
        assert before is not None, "a host that leaves was there"  # noqa: S101
        cluster = before.without(plan.gone)
        inventory.write(self.hosts, cluster)
        drained = [name for name in plan.leaving if self.serves(name)]
        if drained:
            self.run(OPERATE, self.directory, "drain", ",".join(drained))
        rest = cluster.without(plan.leaving)
        inventory.write(self.hosts, rest)
        self.run(OPERATE, self.directory, "converge")

    def serves(self, host: str) -> bool:
        """Return whether a host answers and has workers; say so if not."""
        ansible = Path(sys.executable).parent / "ansible"
        result = commands.run(
            [
                *(ansible, host, "-i", self.directory, "-m", "ansible.builtin.raw"),
                *("-a", "systemctl cat channels-web@.service"),
            ],
            merge=True,
        )
        if result.returncode:
            reason = "does not answer" if result.returncode == UNREACHABLE else "has no workers"
            say(f"{host} {reason}: it is not drained")
        return result.returncode == 0

    def run(self, *command: str | Path) -> None:
        """Run a program of the repository; end as it does if it fails."""
        if status := stream(*command):
            print(
                f"\nThe machines of {self.name} are there, and {self.hosts} names them. Fix the"
                " cause, then run the same command again.",
                file=sys.stderr,
            )
            sys.exit(status)

    def destroy(self) -> None:
        """Remove the machines and all that was made with them."""
        with phase("1/2 Plan"):
            self.terraform.start()
            changes = self.terraform.plan("-destroy")
        if changes:
            print(f"Everything of {self.name} is deleted, also PostgreSQL's data.")
            answer(f"To delete it, type {self.name}: ", self.name)
            with phase("2/2 Machines"):
                self.terraform.apply()
        self.terraform.forget()
        try:
            inventory.refuse_foreign(self.hosts)
        except inventory.ForeignFileError:
            say(f"{self.hosts} was not written by make cluster: it stays, and so does known_hosts")
        else:
            self.hosts.unlink(missing_ok=True)
            self.known_hosts.unlink(missing_ok=True)
        print(f"\nNothing of {self.name} is left. Variables and secrets stay in {self.directory}.")


def answer(question: str, wanted: str) -> None:
    """Ask, and end if the answer is another one."""
    print(f"\n{question}", end="", flush=True)
    # Nothing if it is closed: nobody can answer.
    given = sys.stdin.readline().strip() if sys.stdin else ""
    if not (sys.stdin and sys.stdin.isatty()):
        print(given, flush=True)
    if given != wanted:
        stop("Not confirmed. Nothing changed.")


def directory_of(name: str) -> Path:
    """Return the directory of an environment: one of inventories/, or another path."""
    try:
        path = find_inventory(name)
    except ManageError as error:
        stop(str(error), "A new one: make new ENV=... SOURCE=... DOMAIN=... Nothing changed.")
    if not path.is_dir():
        stop(f"{path} is a file; ENV= takes a directory. Nothing changed.")
    return path.resolve()


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="A cluster on rented machines.")
    parser.add_argument("verb", choices=("cluster", "destroy"))
    parser.add_argument("environment")
    parser.add_argument("--clouds", type=Path, default=CLOUDS, help="folders of clouds")
    options = parser.parse_args(arguments)
    environment = Environment(directory_of(options.environment), options.clouds.resolve())
    with commands.locked(f"terraform-{environment.name}", "make cluster or make destroy"):
        if options.verb == "cluster":
            environment.cluster()
        else:
            environment.destroy()


if __name__ == "__main__":
    commands.end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        print("\nInterrupted. To continue, run the same command again.", file=sys.stderr)
        sys.exit(INTERRUPTED)
