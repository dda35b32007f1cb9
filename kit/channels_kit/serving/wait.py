"""Wait until a worker answers: `python -m channels_kit.serving.wait URL --timeout 60`.

For systemd's ExecStartPost=, so that a unit counts as started when it serves. It is of the
standard library alone: it runs beside every start of a worker.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult, urlsplit

INTERVAL = 0.05
"""Seconds between two requests."""

ASK_TIMEOUT = 5.0
"""Seconds one request may take: a worker that hangs is asked again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Poll until the URL answers 200.

    Returns:
        The exit code: 0, or 1 where the time ran out; argparse ends with 2 on wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m channels_kit.serving.wait",
        description="Wait until an http:// URL answers 200. Silent where it does.",
    )
    parser.add_argument("url", type=http_url, help="such as http://127.0.0.1:8001/-/live")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds (default: 60)")
    options = parser.parse_args(arguments)
    if not options.timeout > 0:
        parser.error("--timeout takes a number of seconds above 0")

    deadline = time.monotonic() + options.timeout
    while True:
        remaining = deadline - time.monotonic()
        status, answer = ask(options.url, min(max(remaining, INTERVAL), ASK_TIMEOUT))
        if status == HTTPStatus.OK:
            return 0
        if time.monotonic() + INTERVAL >= deadline:
            print(
                f"{options.url.geturl()} did not answer 200 within {options.timeout:g} s;"
                f" the last answer: {answer}",
                file=sys.stderr,
            )
            return 1
        time.sleep(INTERVAL)


def ask(url: SplitResult, timeout: float) -> tuple[int | None, str]:
    """Ask once, for at most `timeout` seconds.

    Returns:
        The status, or None where none came, and what happened in words.
    """
    connection = HTTPConnection(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.request("GET", url.path or "/")
        response = connection.getresponse()
    except (OSError, HTTPException) as error:
        return None, f"{type(error).__name__}: {error}"
    else:
        return response.status, f"{response.status} {response.reason}"
    finally:
        connection.close()


def http_url(text: str) -> SplitResult:
    """Return the URL that an argument of a command line is.

    Raises:
        ArgumentTypeError: it is none, or not one of plain HTTP.
    """
    url = urlsplit(text)
    # Asking for the port is what checks it.
    if url.scheme != "http" or not url.hostname or url.port == 0 or url.query:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http://HOST:PORT/PATH URL")
    return url


if __name__ == "__main__":
    sys.exit(main())
