"""Versions that are known to be broken, and those that are taken where there is a choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

Versions = Mapping[str, str]

# The server is added where the application brings none that the kit can use.
SERVERS = {
    "uvicorn": "uvicorn>=0.35,!=0.50.*,!=0.51.*,!=0.52.0",
    "daphne": "daphne>=4.2.2,<5",
    "hypercorn": "hypercorn>=0.18,<0.19",
}
OLDEST_CHANNELS = "3.0"
# What is resolved avoids the faults, if the application's own requirements leave it a choice.
AVOIDED = ("redis<8", "uvicorn!=0.50.*,!=0.51.*,!=0.52.0")


@dataclass(frozen=True)
class Fault:
    """A fault of a version, or of two that do not go together.

    Attributes:
        name: as channels_allow_known_faults has it.
        reason: what happens, and where it is said.
        remedy: what to lock instead.
        found: returns whether versions have it with a server.
    """

    name: str
    reason: str
    remedy: str
    found: Callable[[Versions, str], bool]


def _within(versions: Versions, name: str, specifier: str) -> bool:
    return name in versions and Version(versions[name]) in SpecifierSet(specifier, prereleases=True)


FAULTS = (
    Fault(
        "channels_redis_with_redis_8",
        "redis 8 ends each command after 5 s, but channels_redis waits up to 5 s for a message:"
        " every silent socket is closed after 5 s (channels_redis#422)",
        "lock redis<8",
        lambda versions, server: (
            "channels-redis" in versions and _within(versions, "redis", ">=8.0.0a1")
        ),
    ),
    Fault(
        "uvicorn_0_50",
        "uvicorn 0.50.0 to 0.52.0 resets the connection when it closes a socket, so clients see"
        " 1006 instead of 1012, and it does not wait for slow clients (uvicorn#3047, #3048)",
        "lock uvicorn>=0.52.1",
        lambda versions, server: (
            server == "uvicorn" and _within(versions, "uvicorn", ">=0.50.0,<=0.52.0")
        ),
    ),
    Fault(
        "daphne_4_2_1",
        "daphne before 4.2.2 has no limit on the size of frames (CVE-2026-44545)",
        "lock daphne>=4.2.2",
        lambda versions, server: server == "daphne" and _within(versions, "daphne", "<4.2.2"),
    ),
)
NAMES = tuple(fault.name for fault in FAULTS)


def usable(server: str, version: str) -> bool:
    """Return whether the kit can use an application's own server, or a fault has its version.

    A fault is refused, or accepted by name: such a version is not replaced.
    """
    return Requirement(SERVERS[server]).specifier.contains(version, prereleases=True) or any(
        fault.found({server: version}, server) for fault in FAULTS
    )


def too_old(versions: Versions, where: str) -> str:
    """Return why no worker could serve an application of these versions; empty if one can."""
    if not _within(versions, "channels", f"<{OLDEST_CHANNELS}"):
        return ""
    return (
        f"{where}: Channels {versions['channels']} is too old. The kit serves Channels"
        f" {OLDEST_CHANNELS} and newer, which have ASGI 3. Upgrade the application to Channels 4:"
        " its consumers are then named with .as_asgi() in the routing"
    )


def refusals(versions: Versions, server: str, allowed: Sequence[str], where: str) -> list[str]:
    """Return why versions are refused, a line each.

    Args:
        versions: of the application's packages, by name.
        server: the server that runs the workers.
        allowed: names of faults that the operator accepts.
        where: what the versions were read from.
    """
    if refused := too_old(versions, where):
        return [refused]
    return [
        f"{where}: {fault.reason}. To fix it, {fault.remedy}. To accept it, add {fault.name} to"
        " channels_allow_known_faults"
        for fault in FAULTS
        if fault.name not in allowed and fault.found(versions, server)
    ]
