"""What an examination is about, and what it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

OVERLAY = "channels_settings_overlay: true"
"""The line of inventory that puts the kit's settings in front of the application's."""


@dataclass(frozen=True)
class Finding:
    """One thing that stops a deploy, or is worth knowing.

    Args:
        name: what ``channels_allow_known_faults`` calls it.
        what: the setting, file or variable.
        value: what it is, without secrets; may be empty.
        why: what comes of it.
        line: the line of inventory that removes it, or the change in the application.
        obstacle: whether it stops the deploy.
    """

    name: str
    what: str
    value: str
    why: str
    line: str
    obstacle: bool = True

    def as_advice(self) -> Finding:
        """Return the same, which stops nothing."""
        return dataclasses.replace(self, obstacle=False)


@dataclass(frozen=True)
class Subject:
    """What the cluster would run, and how.

    Args:
        application: the ASGI callable, as module:attribute.
        settings_module: the project's settings, whatever stands in front of them.
        environment: the variables that a process of the application gets.
        domains: the names that users type into the browser.
        https: whether they reach the edge, or what is in front of it, by TLS.
        hosts: how many app hosts there are.
        workers: how many workers all of them run together.
        names: names and addresses that the hosts know: those of the inventory.
        local: whether 127.0.0.1 is where database and Redis are, too.
        overlay: whether the kit's settings stand in front of the project's.
        writable: directories below the project that a process may write to, and absolute ones.
        static: whether the kit collects static files to a place of its own.
        processes: those beside the workers, as ``channels_processes`` has them.
        allowed: names of findings that stop nothing.
        limit: seconds that each step of a start may take.
    """

    application: str = ""
    settings_module: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    domains: Sequence[str] = ()
    https: bool = False
    hosts: int = 1
    workers: int = 1
    names: Sequence[str] = ()
    local: bool = False
    overlay: bool = False
    writable: Sequence[str] = ()
    static: bool = True
    processes: Mapping[str, Any] = field(default_factory=dict)
    allowed: Sequence[str] = ()
    limit: float = 30.0

    @property
    def celery(self) -> bool:
        """Return whether a process runs Celery."""
        return any("celery" in each for each in self.processes.values())

    @property
    def runworkers(self) -> list[str]:
        """Return the channels that processes run."""
        found: list[str] = []
        for each in self.processes.values():
            named = each.get("runworker", ())
            found += [named] if isinstance(named, str) else named
        return found

    def needs_password(self, host: str, *variables: str) -> bool:
        """Return whether a server of the cluster, which one of the variables has, asks for one."""
        for variable in variables:
            try:
                server = urlsplit(self.environment.get(variable, ""))
                if server.hostname and server.hostname == host.lower():
                    return bool(server.password)
            except ValueError:
                continue
        return False

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Subject:
        """Return what a mapping describes; it may leave out what has a default.

        Raises:
            ValueError: it has a name that is none of these.
        """
        known = {each.name for each in dataclasses.fields(cls)}
        if unknown := set(given) - known:
            raise ValueError(f"not known: {', '.join(sorted(unknown))}")
        environment = {str(key): str(value) for key, value in given.get("environment", {}).items()}
        return cls(**{**given, "environment": environment})


def of_inventory(variable: str, value: str) -> str:
    """Return the lines of inventory that set an environment variable of the application."""
    return f"channels_environment:\n  {variable}: {value}"
