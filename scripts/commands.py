"""What the programs of scripts/ share: one of them at a time, and how they end on Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".staging"
INTERRUPTED = 130
"""What a program ends with that was interrupted, as a shell has it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""By which somebody ends a program."""

PATIENCE = 30.0
"""Seconds that an interrupted command may take to end by itself."""


def ignore_signals() -> None:
    """Let nothing interrupt what removes the rest, neither here nor in what is started from now."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Treat a signal as Ctrl-C, once: another one cuts short neither what ends nor what is said."""
    ignore_signals()
    raise KeyboardInterrupt


def not_ignored() -> list[signal.Signals]:
    """Return the signals that end this program: all but SIGHUP where nohup ignores it."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not ignores_hangup]


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this program as Ctrl-C does: what it has started ends first."""
    for number in not_ignored():
        signal.signal(number, interrupt)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let signals end what is done here as Ctrl-C does, and cut nothing short that is said then."""
    end_on_signals()
    try:
        yield
    finally:
        ignore_signals()


@contextlib.contextmanager
def noted_signals(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end nothing; call a function for each."""
    before = {number: signal.signal(number, note) for number in not_ignored()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted(text: str) -> int:
    """Say how a program ends that was interrupted; return its exit status.

    The terminal may be gone. A program without `end_on_signals` ignores further signals from here.
    """
    ignore_signals()
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    return INTERRUPTED


@contextlib.contextmanager
def locked(name: str, command: str) -> Iterator[None]:
    """Keep other commands from a cluster of this checkout, as lock_cluster of lib.sh does.

    Args:
        name: the cluster's.
        command: who takes this lock, for the message.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f"{name}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            sys.exit(
                f"Another {command} is running in this checkout (process {file.read().strip()})."
                " Nothing changed.\nWait until it ends, then retry."
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def run(
    command: Sequence[str | Path],
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    merge: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout and return what it printed.

    Where this program is interrupted, the command ends first, by itself if it can: a run of Ansible
    that is killed leaves its own processes behind.

    Args:
        command: the program and its arguments.
        stdin: what it reads.
        env: its environment; without it this program's.
        merge: whether its standard error goes into its standard output.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(stdin)
    except KeyboardInterrupt:
        end(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def end(process: subprocess.Popen[str]) -> None:
    """Wait until an interrupted command has ended; tell it to, and insist, if it does not."""
    for number, seconds in (
        # Ctrl-C at a terminal has reached it, too; a second one would cut its work short.
        (None, 2.0),
        (signal.SIGINT, PATIENCE),
        (signal.SIGKILL, 2.0),
    ):
        if number is not None:
            signal_family(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=seconds)
            return
    # It has ended, but another session still has its output open.


def signal_family(process_id: int, number: int) -> None:
    """Signal all that Ctrl-C would reach: a shell waits for its command before it ends."""
    for member in family(process_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)


def family(process_id: int) -> list[int]:
    """Return a process and those that it or they have started, as far as they are in its group."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name, in parentheses, may hold anything; state, parent and group come after it.
            _, parent, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == os.getpgrp():
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found = [process_id]
    for member in found:  # grows meanwhile
        found += children.get(member, [])
    return found
