"""Replace a worker by a new process beside it: `python -m channels_kit.serving.beside -- COMMAND`.

For systemd's ExecReload=, which runs it with the unit as it is now: the release, the environment
and the limits of the new process. It starts the command, waits until the new process has loaded its
application and is ready, and hands the port over. Nobody reaches the new process before. It is of
the standard library alone.

The exit status says what happened: 0, the new process is the unit's main process and the former
one is retired; 1, the new one was not ready, and is gone; 3, the running process cannot be
replaced, and has to be restarted. Unless it is 0, nothing has changed.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from channels_kit.serving.control import (
    DIRECTORY,
    Connection,
    ControlError,
    hand_over,
    path_of,
)
from channels_kit.serving.drain import process_or_none, say

CANNOT = 3
"""The exit status where the process that runs cannot be replaced."""

INTERVAL = 0.1
"""Seconds between two questions whether the new process is ready."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace the process that the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m channels_kit.serving.beside",
        description="Replace a worker by a new process beside it.",
    )
    parser.add_argument("--process", type=process_or_none, required=True, help="the worker's")
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds until it is ready (default: 60)"
    )
    parser.add_argument("command", nargs="+", help="what starts the new one, after --")
    options = parser.parse_args(arguments)
    if not options.timeout > 0:
        parser.error("--timeout takes a number of seconds above 0")

    began = time.monotonic()
    with ExitStack() as stack:
        try:
            if options.process is None or not os.environ.get(DIRECTORY):
                raise ControlError("it has no control socket")
            path = path_of(Path(os.environ[DIRECTORY]), options.process)
            former = stack.enter_context(Connection.to(path))
            state = former.state().state
            if state != "serving":
                raise ControlError(f"it is {state}")
        except ControlError as error:
            return fail(
                f"process {options.process} cannot be replaced; restart it: {error}", CANNOT
            )

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        following = stack.enter_context(Connection(ours))
        with theirs:
            process = start(options.command, theirs)
        try:
            wait_until_ready(following, began + options.timeout)
            hand_over(former, following)
        except ControlError as error:
            # With what it has started.
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            return fail(f"not reloaded; process {options.process} goes on: {error}", 1)
        kept = former.state().sockets
    seconds = time.monotonic() - began
    say(f"process {process} took over in {seconds:.1f} s; {options.process} keeps {kept} sockets")
    return 0


def start(command: Sequence[str], guide: socket.socket) -> int:
    """Start a process that nobody waits for, so that it is the service manager's child.

    systemd supervises no other as it should.

    Returns:
        Its ID, which is its process group's too.
    """
    guide.set_inheritable(True)
    environment = {**os.environ, "CHANNELS_KIT_BESIDE": str(guide.fileno())}
    # The former process', for this program.
    environment.pop("MAINPID", None)
    reading, writing = os.pipe()
    if (between := os.fork()) == 0:
        try:
            child = subprocess.Popen(
                command, env=environment, pass_fds=[guide.fileno()], start_new_session=True
            )
            os.write(writing, str(child.pid).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(between, 0)
    with os.fdopen(reading) as pipe:
        return int(pipe.read())


def wait_until_ready(process: Connection, deadline: float) -> None:
    """Wait until a process has loaded its application and is ready.

    Raises:
        ControlError: it has ended, or is not in time.
    """
    reason = "it has not started"
    while (left := deadline - time.monotonic()) > 0:
        try:
            answer, _ = process.ask("ready", timeout=left)
        except ControlError as error:
            if time.monotonic() >= deadline:
                break
            raise ControlError("the new process ended; its messages are above") from error
        if not answer["not_ready"]:
            return
        reason = "; ".join(f"{name}: {error}" for name, error in answer["not_ready"].items())
        time.sleep(INTERVAL)
    raise ControlError(f"the new process was not ready in time: {reason}")


def fail(text: str, status: int) -> int:
    """Say what went wrong, and return the exit status."""
    print(text, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
