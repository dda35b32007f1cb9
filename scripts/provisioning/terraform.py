"""Terraform for one environment, and what it does when somebody interrupts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import commands
from commands import ROOT
from provisioning.plan import Plan, plan_of

PROGRAM = ROOT / "scripts" / "terraform"
NO_CHANGES, CHANGES = 0, 2
"""What `terraform plan -detailed-exitcode` ends with."""

NAME = re.compile("(?!default$)[a-z][a-z0-9-]{0,30}")
"""The name of an environment."""

NAME_ALLOWED = (
    "a lower-case letter, then up to 30 lower-case letters, digits and dashes,"
    ' and not "default", which Terraform keeps for itself'
)
UNSAVED = "errored.tfstate"
"""Where Terraform puts a state that it could not save."""

AGAIN = "To continue, run the same command again."

Interrupted = Callable[[subprocess.Popen[str], Sequence[int]], None]
"""What is done at an interrupt while a process runs, given all signals until then."""


def stop(*lines: str) -> NoReturn:
    """End with what is wrong."""
    sys.exit("\n".join(lines))


def watch(
    command: Sequence[str | Path], interrupted: Interrupted, **options: Any
) -> tuple[int, list[int]]:
    """Run a command whose output goes to the terminal, to its end.

    Args:
        command: the program and its arguments.
        interrupted: called each time this program is interrupted.
        options: further ones of the process.

    Returns:
        Its exit status, and the signals by which this program was interrupted meanwhile.
    """
    signals: list[int] = []
    process: subprocess.Popen[str] | None = None

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if process:
            interrupted(process, signals)

    with commands.noted_signals(note):
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, text=True, **options
        )
        if signals:
            interrupted(process, signals)
        return process.wait(), signals


def pass_on(process: subprocess.Popen[str], signals: Sequence[int]) -> None:
    """Interrupt a program of this repository, which ends by itself.

    Ctrl-C at a terminal has reached it, too. A second one would cut short what it does then, such
    as to release the lock of the cluster.
    """
    if signals[-1] != signal.SIGINT:
        commands.signal_family(process.pid, signal.SIGINT)


def stop_once(process: subprocess.Popen[str], signals: Sequence[int]) -> None:
    """Interrupt Terraform, once: at a second interrupt it ends without saving its state."""
    if len(signals) == 1:
        process.send_signal(signal.SIGINT)


def complete(process: subprocess.Popen[str], signals: Sequence[int]) -> None:
    """Let Terraform complete what makes machines; interrupt it, once, if the operator insists.

    At an interrupt, its providers drop the requests that they have sent. What the cloud makes of
    these is in no state.
    """
    if len(signals) == 1:
        tell(
            "Interrupted. Terraform completes the plan first, so that its state has all that the"
            " cloud makes. Then this command ends.",
            "To stop Terraform now, press Ctrl-C again. Its state may then lack what the cloud is"
            " making: you must find and delete it yourself.",
        )
    elif insists(signals) and not insists(signals[:-1]):
        tell("Terraform stops, and saves its state. Wait until it has ended.")
        process.send_signal(signal.SIGINT)


def insists(signals: Sequence[int]) -> bool:
    """Return whether somebody has interrupted twice; a terminal that closes may send two SIGHUP."""
    return any(number != signal.SIGHUP for number in signals[1:])


def tell(*lines: str) -> None:
    """Say something to somebody who has interrupted; the terminal may be gone."""
    with contextlib.suppress(OSError):
        print("\n" + "\n".join(lines), file=sys.stderr, flush=True)


class Terraform:
    """The folder of a cloud, for one environment.

    Args:
        folder: below terraform/.
        directory: of the environment. Terraform keeps the state of each in a workspace of its name.
        variables: the file with its variables.
    """

    def __init__(self, folder: Path, directory: Path, variables: Path) -> None:
        self.folder, self.directory, self.name = folder, directory, directory.name
        if not NAME.fullmatch(self.name):
            stop(
                f'ENV is "{self.name}"; allowed: {NAME_ALLOWED}.',
                f"The names of all machines begin with it. Rename {directory}.",
            )
        self.variables = (f"-var=name={self.name}", f"-var-file={variables}")
        # The selected workspace is in there: two environments do not share it.
        self.data = folder / ".terraform" / self.name
        self.saved = self.data / "plan"
        self.unsaved = self.data / UNSAVED
        # Without a backend; after a move to one, an empty file stays there.
        self.state = folder / "terraform.tfstate.d" / self.name / "terraform.tfstate"
        self.backend = self.data / "terraform.tfstate"
        self.environment = os.environ | {
            "TF_DATA_DIR": str(self.data),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
        }
        # It would be another environment's.
        self.environment.pop("TF_WORKSPACE", None)

    def command(self, *arguments: str) -> list[str | Path]:
        """Return a command of Terraform in the folder."""
        return [PROGRAM, f"-chdir={self.folder}", *arguments]

    def read(self, *arguments: str) -> str:
        """Return what a command prints; end with what it says if it fails."""
        result = commands.run(self.command(*arguments), env=self.environment)
        if result.returncode:
            said = f"{result.stdout}\n{result.stderr}".strip()
            stop(
                f"terraform {arguments[0]} failed:\n{said}",
                "Fix the cause, then run the same command again. To call Terraform yourself:"
                " docs/terraform.md#call-terraform-yourself.",
            )
        return result.stdout

    def watch(self, *arguments: str, interrupted: Interrupted) -> tuple[int, list[int]]:
        """Run a command whose output goes to the terminal: see `watch` above."""
        # In a group of its own: Ctrl-C at the terminal does not reach it.
        return watch(self.command(*arguments), interrupted, env=self.environment, process_group=0)

    def start(self) -> None:
        """Fetch the provider, and select the environment's state."""
        self.claim()
        self.recover()
        self.read("init", "-no-color")
        self.read("workspace", "select", "-or-create=true", self.name)
        if self.unsaved.exists():
            self.read("state", "push", str(self.unsaved))
            self.unsaved.unlink()

    def recover(self) -> None:
        """Save a state that Terraform could not save, if it is a file of this machine.

        Where the disk was full, that file is half of a state, and Terraform takes no other for it.
        """
        if self.unsaved.exists() and self.state.exists() and not self.backend.exists():
            whole = self.state.with_suffix(".new")
            shutil.copy(self.unsaved, whole)
            whole.replace(self.state)
            self.unsaved.unlink()

    def claim(self) -> None:
        """Refuse a directory with the name of another one: they would share a state."""
        owner = self.data / "inventory"
        other = Path(owner.read_text()) if owner.exists() else self.directory
        if other != self.directory and other.is_dir():
            stop(
                f"{other} has the name {self.name}, too. Terraform keeps one state for each name.",
                f"Give {self.directory} another name, or run make destroy ENV={other} first.",
            )
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner.write_text(str(self.directory))

    def empty(self) -> bool:
        """Return whether the state has nothing."""
        return "values" not in json.loads(self.read("show", "-json"))

    def plan(self, *arguments: str) -> bool:
        """Show and save a plan; return whether it changes anything.

        Raises:
            KeyboardInterrupt: this program was interrupted.
        """
        status, signals = self.watch(
            *("plan", "-detailed-exitcode", f"-out={self.saved}", *arguments, *self.variables),
            interrupted=stop_once,
        )
        if signals:
            raise KeyboardInterrupt
        if status not in (NO_CHANGES, CHANGES):
            stop(
                "Terraform cannot plan this: see above. Fix the cause, then run the same command"
                " again."
            )
        return status == CHANGES

    def planned(self) -> Plan:
        """Return what the saved plan does."""
        return plan_of(json.loads(self.read("show", "-json", str(self.saved))))

    def apply(self, plan: Plan) -> None:
        """Do what was planned.

        Args:
            plan: the saved one.

        Raises:
            KeyboardInterrupt: this program was interrupted; it says what Terraform has done.
        """
        # Where nothing is made, nothing can be missing from the state.
        status, signals = self.watch(
            "apply", str(self.saved), interrupted=complete if plan.creates else stop_once
        )
        if signals and not status:
            raise KeyboardInterrupt(f"Terraform has completed the plan. {AGAIN}")
        unsaved = self.folder / UNSAVED
        if unsaved.exists():
            unsaved.replace(self.unsaved)
            stop(
                f"Terraform could not save its state: see above. It is in {self.unsaved}.",
                "Repair the storage, then run the same command again: it saves the state first.",
            )
        if signals and insists(signals):
            raise KeyboardInterrupt(
                "\n".join(["Terraform was stopped.", *self.missing(plan), AGAIN])
            )
        if status:
            failed = "Terraform has not completed the plan: see above. Its state has what it made."
            if signals:
                raise KeyboardInterrupt(f"{failed} {AGAIN}")
            stop(f"{failed} Fix the cause, then run the same command again.")

    def missing(self, plan: Plan) -> list[str]:
        """Return, in words, what was to be made and is not in the state, or may not be."""
        has_not = "does not have these"
        try:
            state = set(self.read("state", "list").splitlines())
        except (KeyboardInterrupt, SystemExit):
            # Such as a backend that does not answer.
            state, has_not = set(), "cannot be read, and may not have these"
        lines = [f"  {what}" for address, what in plan.creates.items() if address not in state]
        if not lines:
            return []
        return [
            f"Its state {has_not}. Look for them in the cloud's console, and delete those that"
            " exist:",
            *lines,
        ]

    def output(self, name: str) -> Any:
        """Return an output; nothing if there is none."""
        outputs = json.loads(self.read("output", "-json"))
        return outputs.get(name, {}).get("value")

    def forget(self) -> None:
        """Remove the workspace of an environment that has no machines any more."""
        self.read("workspace", "select", "default")
        self.read("workspace", "delete", self.name)
        shutil.rmtree(self.data)
