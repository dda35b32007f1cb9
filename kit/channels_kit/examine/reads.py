"""Which environment variables an application asks for, and which it lacks."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

READERS = re.compile(
    r"/(?:environ|decouple|environs|dj_database_url|dj_email_url|django_cache_url|dotenv"
    r"|pydantic_settings|prettyconf|goodconf|configurations)(?:/|\.py$)"
)
"""Packages that read the environment for a project's settings."""

PASSING = (os.__file__, "<frozen os>", "<frozen _collections_abc>")

MARK = "channels_kit_variable"
"""The attribute of a KeyError that says which variable was not there."""


class Reads:
    """Notes what the application's own code reads of ``os.environ``.

    Args:
        root: the project; what libraries read for themselves is not noted.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root) + os.sep
        self.names: dict[str, bool] = {}
        """Whether a variable was set, by name, in the order in which they were read."""

    def install(self) -> None:
        """Note what is read from now on."""
        kind: Any = type(os.environ)
        read = kind.__getitem__

        def noted(environ: Any, name: Any) -> Any:
            mine = isinstance(name, str) and self._is_the_projects()
            try:
                value = read(environ, name)
            except KeyError as error:
                if mine:
                    self.names.setdefault(name, False)
                setattr(error, MARK, name)
                raise
            if mine:
                self.names[name] = True
            return value

        kind.__getitem__ = noted

    def given(self) -> list[str]:
        """Return the variables that were asked for and are set."""
        return [name for name, is_set in self.names.items() if is_set]

    def unset(self) -> list[str]:
        """Return the variables that were asked for and are not set."""
        return [name for name, is_set in self.names.items() if not is_set]

    def _is_the_projects(self) -> bool:
        frame = sys._getframe(2)
        while frame:
            name = frame.f_code.co_filename
            if name not in PASSING and not name.endswith("_collections_abc.py"):
                return name.startswith(self._root) or bool(READERS.search(name))
            if not frame.f_back:
                break
            frame = frame.f_back
        return False


def lacking(error: BaseException, unset: list[str], line: str) -> str:
    """Return the variable whose absence an error comes from; empty if it does not.

    Args:
        error: what was raised.
        unset: the variables that were asked for and are not set.
        line: the line of the application that raised it.
    """
    if isinstance(error, KeyError) and (name := getattr(error, MARK, "")):
        return str(name)
    if isinstance(error, ImportError | SyntaxError | SystemExit):
        return ""
    said = set(re.findall(r"\w+", str(error)))
    if fields := _missing_fields(error):
        return fields
    for name in unset:
        if name in said:
            return name
    if found := re.match(r"(\w+) not found\. Declare it as envvar", str(error)):
        return found[1]
    if isinstance(error, Exception):
        # Without a default it is None: "redis://" + REDIS_HOST.
        words = re.findall(r"\w+", line)
        return next((name for name in unset if name in words), "")
    return ""


def misread(error: BaseException, names: list[str], line: str) -> str:
    """Return the variable whose value the application cannot read; empty if it is not that.

    Args:
        error: what was raised.
        names: the variables that were asked for and are set.
        line: the statement of the application that raised it.
    """
    if not isinstance(error, ValueError):
        return ""
    words = re.findall(r"\w+", line)
    return next((name for name in names if name in words), "")


def _missing_fields(error: BaseException) -> str:
    """Return the first field that pydantic misses, as its variable is usually called."""
    if type(error).__name__ != "ValidationError" or not hasattr(error, "errors"):
        return ""
    missing = [
        each for each in error.errors() if each.get("type") in ("missing", "value_error.missing")
    ]
    return str(missing[0]["loc"][0]).upper() if missing else ""
