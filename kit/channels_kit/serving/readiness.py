"""Whether a worker can do its work: a real message through the channel layer, a real query.

A check that leaves the channel layer out stays green while delivery is dead.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER  # type: ignore[import-untyped]
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import channel_layers  # type: ignore[import-untyped]
from django.db import DEFAULT_DB_ALIAS, connection, connections

from channels_kit.serving.loopback import round_trip

logger = logging.getLogger(__name__)

Check = Callable[[], Awaitable[None]]


class NoChannelLayerError(Exception):
    """The settings name no default channel layer."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        ok: whether it passed.
        milliseconds: how long it took.
        error: why it did not pass, in words anybody may read; None where it did.
    """

    ok: bool
    milliseconds: float
    error: str | None


@dataclass(frozen=True)
class Readiness:
    """What all checks of a worker found.

    Attributes:
        checks: by the name of the check.
        layer: the class of the default channel layer; None where there is none.
    """

    checks: dict[str, CheckResult]
    layer: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(result.ok for result in self.checks.values())

    def as_json(self) -> dict[str, object]:
        """Return the checks as they are shown to the asking side."""
        return {name: asdict(result) for name, result in self.checks.items()}


async def check_readiness(seconds: float) -> Readiness:
    """Run every check that this worker has, all at once.

    Args:
        seconds: how long each check may take.
    """
    checks: dict[str, Check] = {"channel_layer": channel_layer_round_trip}
    if has_database():
        checks["database"] = database_round_trip
    results = await asyncio.gather(
        *(run_check(name, check, seconds) for name, check in checks.items())
    )
    return Readiness(dict(zip(checks, results, strict=True)), layer_name())


async def run_check(name: str, check: Check, seconds: float) -> CheckResult:
    """Run one check under its deadline; it fails by any exception."""
    started = time.perf_counter()
    failure: Exception | None = None
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            await check()
    except Exception as error:
        failure = error
    milliseconds = round((time.perf_counter() - started) * 1000, 3)
    if failure is None:
        return CheckResult(ok=True, milliseconds=milliseconds, error=None)
    # The journal is the operator's own; the answer is for whoever reaches the port.
    logger.warning("not ready: %s: %s: %s", name, type(failure).__name__, failure)
    late = f"TimeoutError: no answer within {seconds:g} s"
    shown = late if deadline.expired() else describe(failure)
    return CheckResult(ok=False, milliseconds=milliseconds, error=shown)


def describe(error: BaseException) -> str:
    """Say what went wrong without quoting the error, whose text may hold a URL with a password.

    The class, and from the error or its causes what is known to be harmless: the system's
    error number in words, or the SQLSTATE of the database.
    """
    name = type(error).__name__
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, NoChannelLayerError):
            return f"{name}: {seen}"
        if isinstance(seen, socket.gaierror):
            return f"{name}: the host's name was not found"
        if isinstance(seen, OSError) and seen.errno is not None:
            return f"{name}: {os.strerror(seen.errno)}"
        sqlstate = getattr(seen, "sqlstate", None)
        if isinstance(sqlstate, str):
            return f"{name}: SQLSTATE {sqlstate}"
        seen = seen.__cause__ or seen.__context__
    return name


async def channel_layer_round_trip() -> None:
    """Send a message to a group on the default channel layer and wait for its arrival.

    Raises:
        NoChannelLayerError: no default channel layer is configured.
    """
    await round_trip(default_layer())


def default_layer() -> Any:
    """Return the default channel layer.

    Channels' own `get_channel_layer` has None also where a backend fails with a KeyError.

    Raises:
        NoChannelLayerError: no default channel layer is configured.
    """
    if DEFAULT_CHANNEL_LAYER not in channel_layers:
        raise NoChannelLayerError("no default channel layer is configured")
    return channel_layers[DEFAULT_CHANNEL_LAYER]


def layer_name() -> str | None:
    """Return the class of the default channel layer; None where there is none."""
    try:
        layer = default_layer()
    except Exception:
        # The check says why; here is nothing to name.
        return None
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def has_database() -> bool:
    """Whether the settings name a default database; Django puts a dummy where they do not."""
    engine: str = connections.settings[DEFAULT_DB_ALIAS]["ENGINE"]
    return engine != "django.db.backends.dummy"


async def database_round_trip() -> None:
    """Ask the default database, on the thread that the application's queries use."""
    await database_sync_to_async(select_one)()


def select_one() -> None:
    """Run the cheapest query there is."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
