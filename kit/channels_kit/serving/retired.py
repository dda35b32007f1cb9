"""See and command processes that a reload has replaced: `python -m channels_kit.serving.retired`.

For root on the host, by the unit's name; prints JSON. `list` shows them, `drain` has them close
their sockets and end, `resume` gives the port back to one of them, and `main` shows the process
that listens. It is of the standard library alone.

The exit status: 0; 1, it failed and nothing has changed; 3, there is no such process.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from channels_kit.serving.control import (
    DIRECTORY,
    Connection,
    ControlError,
    Process,
    hand_over,
    path_of,
    processes,
)
from channels_kit.serving.drain import process_or_none

NONE = 3
"""The exit status where there is no such process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m channels_kit.serving.retired",
        description="See and command the processes that a reload has replaced.",
    )
    parser.add_argument("verb", choices=["list", "main", "drain", "resume"])
    parser.add_argument("unit", type=directory_of, help="such as channels-web@8001.service")
    parser.add_argument(
        "--process",
        type=process_or_none,
        help="one of them (default: all; for resume, the youngest)",
    )
    options = parser.parse_args(arguments)
    try:
        return carry_out(options.verb, options.unit, options.process)
    except ControlError as error:
        print(f"{options.verb} failed; nothing changed: {error}", file=sys.stderr)
        return 1


def carry_out(verb: str, directory: Path, pid: int | None) -> int:
    """Do it.

    Raises:
        ControlError: a process has not done what it was told.
    """
    found = processes(directory)
    serving = [process for process in found if process.state == "serving"]
    retired = [each for each in found if each.retired and pid in (None, each.pid)]
    if verb == "main":
        if not serving:
            return none(directory, "no process that listens and can be replaced")
        print(json.dumps(serving[-1].as_json()))
        return 0
    if verb != "list" and not retired:
        return none(directory, "no such retired process")
    if verb == "drain":
        for each in retired:
            with connection_to(directory, each) as connection:
                connection.ask("drain")
    elif verb == "resume":
        if not serving:
            return none(directory, "no process that has the port")
        with (
            connection_to(directory, serving[-1]) as former,
            connection_to(directory, retired[-1]) as following,
        ):
            if retired[-1].state != "retired":
                raise ControlError(f"process {retired[-1].pid} is {retired[-1].state}")
            hand_over(former, following)
    print(json.dumps([each.as_json() for each in processes(directory) if each.retired]))
    return 0


def connection_to(directory: Path, process: Process) -> Connection:
    """Connect to a process."""
    return Connection.to(path_of(directory, process.pid))


def none(directory: Path, text: str) -> int:
    """Say what is not there, and return the exit status."""
    print(f"{directory}: {text}", file=sys.stderr)
    return NONE


def directory_of(unit: str) -> Path:
    """Return the runtime directory of a unit.

    Raises:
        ArgumentTypeError: it is no web worker's.
    """
    match = re.fullmatch(r"(channels-web)@([0-9]+)(\.service)?", unit)
    if match is None:
        raise argparse.ArgumentTypeError(f"{unit!r} is not channels-web@PORT.service")
    return Path(os.environ.get(DIRECTORY) or f"/run/{match[1]}/{match[2]}")


if __name__ == "__main__":
    sys.exit(main())
