"""Tests for channels_processes and channels_writable: whether a unit can be made of the values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

KINDS = ("celery", "runworker", "manage", "command")
OF_EVERY_KIND = {"connected_to", "instances", "once"}
OF_CELERY = {"worker": {"arguments", "concurrency", "queues"}, "beat": {"arguments"}}

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
# Channels' own rule, and its limit.
_CHANNEL = re.compile(r"(?=.{1,99}\Z)[A-Za-z0-9_.-]+(![A-Za-z0-9_.-]*)?")
_QUEUE = re.compile(r"[!-+.-~-]{1,200}")
# Whatever ends a line in some program.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A process is named in messages, and in CHANNELS_KIT_WORKER, after its host: HOST:NAME@NUMBER.
_MAX_LABEL = 100


def processes(value: Any, host: str = "") -> bool:
    """Return whether the processes of a host can be run."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and bool(_NAME.fullmatch(name))
        and len(f"{host}:{name}@64") <= _MAX_LABEL
        and isinstance(process, Mapping)
        and _process(process)
        for name, process in value.items()
    )


def directories(value: Any) -> bool:
    """Return whether names are directories of the project, and none is within another."""
    if not isinstance(value, list) or not all(_directory(name) for name in value):
        return False
    return not any(
        f"{one}/".startswith(f"{other}/")
        for place, one in enumerate(value)
        for number, other in enumerate(value)
        if place != number
    )


def _directory(name: Any) -> bool:
    return (
        isinstance(name, str)
        and bool(re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", name))
        and len(name) <= 200
        and not {".", ".."} & set(name.split("/"))
    )


def _process(process: Mapping[str, Any]) -> bool:
    kinds = [kind for kind in KINDS if kind in process]
    if len(kinds) != 1:
        return False
    (kind,) = kinds
    what = process[kind]
    allowed = {kind, *OF_EVERY_KIND}
    if kind == "celery":
        if not isinstance(what, str) or what not in OF_CELERY:
            return False
        allowed |= OF_CELERY[what]
        if what == "beat" and (process.get("once") is False or process.get("instances", 1) != 1):
            return False
    if set(process) - allowed:
        return False
    return _COMMANDS[kind](what) and all(_OPTIONS[key](process[key]) for key in _present(process))


def _present(process: Mapping[str, Any]) -> list[str]:
    return [key for key in _OPTIONS if key in process]


def _number(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    )


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _some(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _list_of(check)(value) and 0 < len(value) == len(set(value))


def _word(value: Any) -> bool:
    return isinstance(value, str) and not _CONTROL.search(value)


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


def _management_command(value: Any) -> bool:
    if not _word(value):
        return False
    try:
        words = shlex.split(value)
    except ValueError:  # a quote without its end
        return False
    return bool(words) and bool(words[0]) and not words[0].startswith("-")


def _argument_vector(value: Any) -> bool:
    if not _list_of(_word)(value) or not value:
        return False
    # systemd reads marks before a program's name; the release has no directory of programs.
    return value[0] == "python" or bool(re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", value[0]))


_COMMANDS: dict[str, Callable[[Any], bool]] = {
    "celery": lambda value: True,
    "runworker": _some(_matches(_CHANNEL)),
    "manage": _management_command,
    "command": _argument_vector,
}
_OPTIONS: dict[str, Callable[[Any], bool]] = {
    "arguments": _list_of(_word),
    "concurrency": _number(1, 64),
    "connected_to": _list_of(_number(1, 65535)),
    "instances": _number(1, 64),
    "once": lambda value: isinstance(value, bool),
    "queues": _some(_matches(_QUEUE)),
}


class TestModule:
    """What Ansible asks for tests."""

    def tests(self) -> dict[str, Callable[..., bool]]:
        """Return the tests by name."""
        return {"channels_directories": directories, "channels_processes": processes}
