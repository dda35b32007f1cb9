"""Drain a worker: `python -m channels_kit.serving.drain URL --process 1234 --timeout 70`.

For systemd's ExecStop=: tells the process to close its sockets, says how many are left, and ends
when none is, when the process is gone, or when the time is up. systemd then sends SIGTERM, whatever
happened here; so this ends with 0 where there is nothing more to wait for. It is of the standard
library alone: it runs beside every end of a worker.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import SplitResult

from channels_kit.serving.control import (
    Connection,
    ControlError,
    GoneError,
    path_of,
    running,
)
from channels_kit.serving.wait import http_url

DRAIN_SIGNAL = signal.SIGUSR1
"""The signal that tells a worker to drain.

Not a request: who may send one is the kernel's to say, and a worker whose token has been changed on
disk since it started still understands it.
"""

INTERVAL = 0.05
"""Seconds between two looks."""

LOOK_TIMEOUT = 2.0
"""Seconds one look may take: a worker that hangs is asked again, and does not drain."""

REPORT_INTERVAL = 5.0
"""Seconds between two lines of the journal that say how many are left."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Drain the process that the command line names, and those that it has replaced.

    Returns:
        The exit code: 0, or 1 where the time ran out; argparse ends with 2 on wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m channels_kit.serving.drain", description="Drain a worker."
    )
    parser.add_argument("url", type=http_url, help="such as http://127.0.0.1:8001/-/live")
    # systemd gives an empty one where the process has ended by itself.
    parser.add_argument(
        "--process", type=process_or_none, help="the worker's; none, or empty: there is none"
    )
    parser.add_argument(
        "--control", type=Path, help="where the unit's other processes have their control sockets"
    )
    parser.add_argument("--timeout", type=float, default=70.0, help="seconds (default: 70)")
    options = parser.parse_args(arguments)
    if not options.timeout > 0:
        parser.error("--timeout takes a number of seconds above 0")

    started = time.monotonic()
    main_process = options.process
    if main_process is not None:
        try:
            os.kill(main_process, DRAIN_SIGNAL)
        except ProcessLookupError:
            main_process = None
    retired = drain_retired(options.control, options.process)
    if main_process is None and not retired:
        return 0
    return watch(main_process, retired, options.url, started, options.timeout)


def drain_retired(directory: Path | None, main_process: int | None) -> list[Path]:
    """Tell the processes that a reload has replaced to drain; return their control sockets."""
    told: list[Path] = []
    if directory is None:
        return told
    for process in running(directory):
        if process != main_process:
            path = path_of(directory, process)
            # One that is slow to answer has been told, and is waited for.
            told.append(path)
            with suppress(ControlError), Connection.to(path) as connection:
                connection.ask("drain", timeout=LOOK_TIMEOUT)
    return told


def watch(
    process: int | None,
    retired: Sequence[Path],
    url: SplitResult,
    started: float,
    timeout: float,
) -> int:
    """Wait until nothing is in hand, for `timeout` seconds at most, and say so."""
    deadline = started + timeout
    reported = started
    answer = "the worker was not asked"
    while (now := time.monotonic()) < deadline:
        if process is not None and not is_running(process):
            say("the worker ended while it was draining")
            process = None
            if not retired:
                return 0
        seconds = min(LOOK_TIMEOUT, deadline - now)
        left = left_of(process, retired, url, seconds)
        if left == 0:
            say(f"drained in {time.monotonic() - started:.1f} s")
            return 0
        answer = (
            "the worker does not report a drain"
            if left is None
            else f"{left} sockets or requests left"
        )
        if now - reported >= REPORT_INTERVAL:
            reported = now
            say(f"draining: {answer}")
        time.sleep(INTERVAL)
    print(f"not drained within {timeout:g} s: {answer}", file=sys.stderr)
    return 1


def left_of(
    process: int | None, retired: Sequence[Path], url: SplitResult, timeout: float
) -> int | None:
    """Return how many sockets and requests all of them still have.

    Returns:
        Their number; None where one does not report a drain.
    """
    left = [in_hand_of(path, timeout) for path in retired]
    if process is not None:
        left.append(in_hand(url, timeout))
    return None if None in left else sum(each or 0 for each in left)


def is_running(process: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def in_hand(url: SplitResult, timeout: float) -> int | None:
    """Return how many sockets and requests a worker that drains still has.

    Returns:
        Their number; None where the worker does not report a drain.
    """
    connection = HTTPConnection(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.request("GET", url.path)
        state = json.loads(connection.getresponse().read())
        return int(state["sockets"]) + int(state["requests"]) if state["draining"] else None
    except (OSError, HTTPException, ValueError, TypeError, KeyError):
        return None
    finally:
        connection.close()


def in_hand_of(path: Path, timeout: float) -> int | None:
    """Return how many sockets and requests a retired process still has; None: no answer."""
    try:
        with Connection.to(path) as connection:
            return connection.state(timeout).in_hand
    except GoneError:
        return 0
    except ControlError:
        return None


def process_or_none(text: str) -> int | None:
    """Return the process that an argument of a command line names; None where it is empty.

    Raises:
        ArgumentTypeError: it is no process. 0 and what is below would be many.
    """
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a process")
    return int(text)


def say(text: str) -> None:
    """Write a line of the journal, when it is true and not when the program ends."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
