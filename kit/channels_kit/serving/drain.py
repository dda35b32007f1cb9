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
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult

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
    """Drain the process that the command line names.

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
    parser.add_argument("--timeout", type=float, default=70.0, help="seconds (default: 70)")
    options = parser.parse_args(arguments)
    if not options.timeout > 0:
        parser.error("--timeout takes a number of seconds above 0")

    if options.process is None:
        return 0
    started = time.monotonic()
    try:
        os.kill(options.process, DRAIN_SIGNAL)
    except ProcessLookupError:
        return 0
    return watch(options.process, options.url, started, options.timeout)


def watch(process: int, url: SplitResult, started: float, timeout: float) -> int:
    """Wait until the process has nothing in hand, for `timeout` seconds at most, and say so."""
    deadline = started + timeout
    reported = started
    answer = "the worker was not asked"
    while (now := time.monotonic()) < deadline:
        if not is_running(process):
            say("the worker ended while it was draining")
            return 0
        left = in_hand(url, min(LOOK_TIMEOUT, deadline - now))
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
