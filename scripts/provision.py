"""Make, change and remove a cluster on rented machines.

Used by ``make cluster ENV=prod`` and ``make destroy ENV=prod``. A file
``inventories/ENV/CLOUD.tfvars`` has the variables of the folder ``terraform/CLOUD``. Nothing here
knows a cloud: docs/terraform.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import commands
from commands import ROOT
from management import ManageError, find_inventory
from provisioning import inventory, pins
from provisioning.cloud import Cloud, cloud_of
from provisioning.plan import Plan, costs_in_words
from provisioning.terraform import AGAIN, Terraform, pass_on, stop, tell, watch

CLOUDS = ROOT / "terraform"
SCRIPTS = ROOT / "scripts"
OPERATE = SCRIPTS / "operate"
VERIFY = SCRIPTS / "verify"
PLAYBOOK = SCRIPTS / "ansible-playbook"
UNREACHABLE = 4
"""What `ansible` ends with if a host does not answer."""


def say(text: str) -> None:
    """Show that the work is alive."""
    print(f"   {text}", flush=True)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Print what is done, and how long it took."""
    began = time.monotonic()
    print(f"== {name}", flush=True)
    yield
    print(f"== {name}: done in {time.monotonic() - began:.1f} s", flush=True)


@contextmanager
def unchanged() -> Iterator[None]:
    """Say, whatever ends this, that nothing has changed until then."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Nothing changed.") from None
    except SystemExit as ended:
        said = str(ended.code)
        stop(said + (" " if said.endswith(".") else "\n") + "Nothing changed.")


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
            has = ", ".join(path.name for path in found) or "no .tfvars file"
            stop(
                f"{directory} has {has}; allowed: one file, named after a cloud:"
                f" {', '.join(f'{folder}.tfvars' for folder in folders)}.",
                f"Is ENV right? If so, copy terraform/{folders[0]}/example.tfvars to"
                f" {directory / folders[0]}.tfvars, and set its values: docs/terraform.md.",
            )
        self.variables = found[0]
        self.terraform = Terraform(clouds / found[0].stem, directory, found[0])

    def cluster(self) -> None:
        """Bring machines, inventory and cluster to what is stated, and prove delivery."""
        with unchanged():
            for program in ("ssh", "ssh-keygen", "ssh-keyscan"):
                if not shutil.which(program):
                    stop(f"{program} is missing. Install an OpenSSH client.")
            try:
                inventory.refuse_foreign(self.hosts)
            except inventory.ForeignFileError as error:
                stop(str(error))
            with phase("1/5 Plan"):
                self.start()
                changes = self.terraform.plan()
                plan = self.terraform.planned()
                if plan.costs:
                    print(costs_in_words(plan.costs, plan.costs_before), flush=True)
            if changes:
                self.refuse_outage(plan)
                self.confirm(plan)
        with phase("2/5 Apply"):
            if plan.leaving:
                self.drain(plan)
            if changes:
                self.terraform.apply(plan)
            else:
                say("nothing to change")
        cloud = self.told()
        self.write(cloud)
        # Here, too: a certificate by ACME, and so the proof, needs it.
        resolve = f"The names in cluster_server_names must resolve to {', '.join(cloud.entry)}"
        say(resolve)
        with phase("3/5 Wait for SSH and cloud-init"):
            say(f"waiting up to {pins.PATIENCE:.0f} s for SSH on {', '.join(cloud.hosts)}")
            say("SSH needs the private key of one of ssh_keys: ansible_ssh_private_key_file")
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
            f"\nThe cluster {self.name} is up, and delivery is proved. {resolve}.\nCommit"
            f" {self.hosts}, {self.known_hosts} and {self.variables}.",
            flush=True,
        )

    def start(self) -> None:
        """Start Terraform; end if its state is not the one of the inventory."""
        self.terraform.start()
        if inventory.is_own(self.hosts) and self.terraform.empty():
            stop(
                f"{self.hosts} lists machines, but Terraform's state of {self.name} is empty.",
                "If another operator has the state, use it: docs/terraform.md#several-operators.",
                f"If you renamed {self.directory}, give it its old name.",
                f"If you copied it, or if the machines are gone, delete {self.hosts}.",
            )

    def told(self) -> Cloud:
        """Return what Terraform tells of the machines; end if that is not enough."""
        output = self.terraform.output("inventory")
        if not output:
            stop(
                f"{self.terraform.folder} has no output `inventory`. Add it:"
                " docs/terraform.md#add-a-cloud."
            )
        cloud = cloud_of(output)
        if unknown := cloud.unknown():
            stop(
                f"Terraform's output `inventory` has no {', '.join(unknown)}.",
                "Look at these machines in the cloud's console, and at the output in"
                f" {self.terraform.folder}. Then run the same command again.",
            )
        return cloud

    def write(self, cloud: Cloud) -> None:
        """Write the inventory, and show what changes in it."""
        for line in inventory.write(self.hosts, cloud):
            say(f"hosts.yml: {line}")

    def refuse_outage(self, plan: Plan) -> None:
        """Refuse a plan after which no app host would serve while it is applied."""
        if plan.leaving and not plan.staying:
            stop(
                "The plan deletes or replaces every app host that serves:"
                f" {', '.join(plan.leaving)}. No client could connect meanwhile.",
                "Replace one host at a time, or make another environment beside this one:"
                " docs/terraform.md#change-the-size.",
            )

    def confirm(self, plan: Plan) -> None:
        """Ask; end if the answer is no."""
        wanted = "yes"
        if plan.leaving:
            print(
                "Before Terraform applies the plan, make cluster drains these, takes them out of"
                f" the edge, and proves the others: {', '.join(plan.leaving)}"
            )
        if plan.stopping:
            wanted = self.name
            print(
                "The plan changes the type of these machines:",
                *(f"{name}: {was} -> {to}" for name, was, to in plan.stopping),
                sep="\n  ",
            )
            print(
                "For that, the cloud powers them off without a shutdown or a drain, up to ten at"
                " the same time. It starts each again after the change. If all hosts of a group"
                " stop, nobody can connect meanwhile. How to avoid that:"
                " docs/terraform.md#change-the-size."
            )
        if plan.others:
            # More than app hosts: data, addresses or the only edge may go.
            wanted = self.name
            print("The plan deletes or replaces more than app hosts:", *plan.others, sep="\n  ")
        answer(f"To apply the plan, type {wanted}: ", wanted)

    def drain(self, plan: Plan) -> None:
        """Take app hosts out of a cluster that goes on."""
        before = plan.before
        assert before is not None, "a host that leaves was there"  # noqa: S101
        cluster = before.without(plan.gone)
        self.write(cluster)
        drained = [name for name in plan.leaving if self.serves(name)]
        if drained:
            self.run(OPERATE, self.directory, "drain", ",".join(drained))
        self.write(cluster.without(plan.leaving))
        self.run(OPERATE, self.directory, "converge")
        # The last moment at which those that leave can be kept.
        hosts = ", ".join(plan.leaving)
        self.run(
            *(VERIFY, self.directory),
            failed=(
                f"The cluster is not proved without {hosts}: see above. Terraform has changed"
                f" nothing. All machines of {self.name} stay. The edge does not use {hosts}.",
                "To go on, fix the cause, then run the same command again. How to keep"
                f" {hosts}: docs/terraform.md#change-the-size.",
            ),
            PARTS="behaviour",
        )

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

    def run(self, *command: str | Path, failed: Sequence[str] = (), **environment: str) -> None:
        """Run a program of the repository; end as it does if it fails.

        Args:
            command: the program and its arguments.
            failed: what to say if it fails, instead of the usual advice.
            environment: further environment variables of the program.
        """
        status, signals = watch(command, pass_on, env=os.environ | environment)
        if signals:
            # An operation has already said how to go on.
            advice = "" if command[0] == OPERATE else f" {AGAIN}"
            raise KeyboardInterrupt(f"The machines of {self.name} stay.{advice}")
        if status:
            tell(
                *failed
                or (
                    f"This phase failed: see above. The machines of {self.name} stay. Fix the"
                    " cause, then run the same command again.",
                )
            )
            sys.exit(status)

    def destroy(self) -> None:
        """Remove the machines and all that was made with them."""
        with unchanged():
            with phase("1/2 Plan"):
                self.start()
                changes = self.terraform.plan("-destroy")
                plan = self.terraform.planned()
            if changes:
                print(f"This deletes everything of {self.name}, PostgreSQL's data too.")
                answer(f"To delete it, type {self.name}: ", self.name)
        with phase("2/2 Delete"):
            if changes:
                self.terraform.apply(plan)
            else:
                say("nothing to delete")
        if inventory.is_own(self.hosts):
            self.hosts.unlink()
        elif self.hosts.exists():
            say(f"{self.hosts} stays: make cluster did not write it")
        pins.unpin_hosts(self.known_hosts)
        self.terraform.forget()
        print(f"\nNothing of {self.name} is left. Variables and secrets stay in {self.directory}.")


def answer(question: str, wanted: str) -> None:
    """Ask, and end if the answer is another one."""
    print(f"\n{question}", end="", flush=True)
    # Nothing if it is closed: nobody can answer.
    given = sys.stdin.readline().strip() if sys.stdin else ""
    if not (sys.stdin and sys.stdin.isatty()):
        print(given, flush=True)
    if given != wanted:
        stop(f'Not confirmed: the answer is "{given}"; allowed: "{wanted}".')


def directory_of(name: str) -> Path:
    """Return the directory of an environment: one of inventories/, or another path."""
    try:
        path = find_inventory(name)
    except ManageError as error:
        stop(str(error), "To make a new one: make new ENV=... SOURCE=... DOMAIN=...")
    if not path.is_dir():
        stop(f"ENV is {name}: {path} is a file; allowed: a directory, such as one of inventories/.")
    return path.resolve()


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="A cluster on rented machines.")
    parser.add_argument("verb", choices=("cluster", "destroy"))
    parser.add_argument("environment")
    parser.add_argument("--clouds", type=Path, default=CLOUDS, help="folders of clouds")
    options = parser.parse_args(arguments)
    with unchanged():
        environment = Environment(directory_of(options.environment), options.clouds.resolve())
    with commands.locked(f"terraform-{environment.name}", "make cluster or make destroy"):
        if options.verb == "cluster":
            environment.cluster()
        else:
            environment.destroy()


if __name__ == "__main__":
    try:
        with commands.interruptible():
            main()
    except KeyboardInterrupt as error:
        sys.exit(commands.interrupted(f"\nInterrupted. {str(error) or AGAIN}"))
    except OSError as error:
        # Such as a disk that is full.
        stop(f"{error}. Fix the cause, then run the same command again.")
