"""What is in effect on a host, as readings: plain values, each with the place where it was read.

A reading is a mapping of kind, subject, process, key, value, source, and state: ``read``,
``unreadable`` (why, in ``reason``) or ``absent`` (it does not apply on this host, and ``reason``
says why). The readers are modules: host_processes, host_kernel, host_nginx, host_servers.
Nothing here changes a host, and nothing waits longer than its own limit.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

SECONDS = 5.0
"""Seconds that one look may take."""

MAX_REASON = 300
"""Characters of an error that a reading shows."""

EVERY = "*"
"""The key of a reading that stands for all keys of its subject."""

Reading = dict[str, Any]


class UnreadableError(Exception):
    """Something cannot be read; the message says why."""


class AbsentError(Exception):
    """Something does not exist on this host, rightly; the message says why."""


class Readings:
    """Collects readings."""

    def __init__(self) -> None:
        self.found: list[Reading] = []

    def add(
        self, kind: str, subject: str, key: str, value: Any, source: str, process: str = ""
    ) -> None:
        """Note what is in effect."""
        self.found.append(_reading(kind, subject, key, source, value=value, process=process))

    def unreadable(self, kind: str, subject: str, key: str, source: str, reason: str) -> None:
        """Note that something cannot be read; the key ``*`` stands for all keys of the subject."""
        self.found.append(
            _reading(kind, subject, key, source, state="unreadable", reason=shortened(reason))
        )

    def absent(self, kind: str, subject: str, key: str, source: str, reason: str) -> None:
        """Note that something rightly does not exist here."""
        self.found.append(_reading(kind, subject, key, source, state="absent", reason=reason))

    @contextmanager
    def reading(self, kind: str, subject: str, source: str, key: str = EVERY) -> Iterator[None]:
        """Note what keeps the block from its end: one look that fails does not end the others."""
        try:
            yield
        except AbsentError as error:
            self.absent(kind, subject, key, source, str(error))
        except UnreadableError as error:
            self.unreadable(kind, subject, key, source, str(error))
        except Exception as error:
            self.unreadable(kind, subject, key, source, f"{type(error).__name__}: {error}")


def _reading(kind: str, subject: str, key: str, source: str, **further: Any) -> Reading:
    common = {"kind": kind, "subject": subject, "key": key, "source": source}
    return {"process": "", "value": None, "state": "read", "reason": "", **common, **further}


def shortened(text: str) -> str:
    """Return a reason in one line."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."


def output_of(
    command: Sequence[str], data: str = "", seconds: float = SECONDS, either: bool = False
) -> str:
    """Return the output of a program, which is given up after some seconds.

    Args:
        command: the program and its arguments.
        data: its standard input.
        seconds: how long it may take.
        either: whether standard error belongs to the output.

    Raises:
        UnreadableError: there is no such program, it fails, or it takes too long.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if either else subprocess.PIPE,
            text=True,
            errors="replace",
            cwd="/",
        )
    except OSError as error:
        raise UnreadableError(f"{command[0]} cannot be run: {error.strerror}") from error
    try:
        output, error_output = process.communicate(data, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            # Not for longer: a program that waits for a dead disk does not end by a signal either.
            process.wait(0.5)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        raise UnreadableError(f"{command[0]} gave no answer within {seconds:g} s") from error
    if process.returncode:
        said = (output if either else error_output) or output
        raise UnreadableError(f"{command[0]} exited with status {process.returncode}: {said}")
    return output
