"""What an operator can set about the wrapper: the one place of these environment names."""

import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import cast

from channels_kit.serving import control
from channels_kit.serving.types import ASGIApplication

APPLICATION = "CHANNELS_KIT_APPLICATION"
WORKER = "CHANNELS_KIT_WORKER"
REVISION = "CHANNELS_KIT_REVISION"
PROBE_TOKEN = "CHANNELS_KIT_PROBE_TOKEN"  # noqa: S105 - a variable's name
HANDSHAKE_TIMEOUT = "CHANNELS_KIT_HANDSHAKE_TIMEOUT"
READY_TIMEOUT = "CHANNELS_KIT_READY_TIMEOUT"
MAX_SOCKETS = "CHANNELS_KIT_MAX_SOCKETS"
DRAIN_PACE = "CHANNELS_KIT_DRAIN_PACE"
DRAIN_WINDOW = "CHANNELS_KIT_DRAIN_WINDOW"
STREAM_GRACE = "CHANNELS_KIT_STREAM_GRACE"
LEAN_CONSUMERS = "CHANNELS_KIT_LEAN_CONSUMERS"
CONTROL_DIRECTORY = control.DIRECTORY

_APPLICATION_ALLOWED = "module:attribute, for example config.asgi:application"


class SettingsError(ValueError):
    """A variable of the environment has a value that cannot be used.

    Args:
        variable: its name.
        value: what it holds, as it may be shown.
        allowed: what it may hold instead, in words.
    """

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable} is {value}; allowed: {allowed}")


@dataclass(frozen=True)
class ServingSettings:
    """How one worker serves.

    Attributes:
        application: the operator's ASGI callable as `module:attribute`.
        worker: the name this process says it has, in answers and to the probe.
        revision: what this process was started with; opaque to the kit.
        probe_token: what a probe has to show; empty means that there is no probe endpoint.
        handshake_timeout: seconds the application has to accept or refuse a WebSocket.
        ready_timeout: seconds for each readiness check, and for each step of the probe
            endpoint through the channel layer.
        max_sockets: WebSockets above which more are refused, so that another worker takes them.
        drain_pace: WebSockets that a worker which drains closes per second, on average.
        drain_window: seconds in which it has closed all of them, faster where it must.
        stream_grace: seconds that a streaming HTTP response may go on in a drain.
        lean_consumers: whether the consumers' events are handled as dispatch.py does it, or as
            Channels does.
        control_directory: where the processes of this worker have their sockets for commands;
            empty means that this one takes none.
    """

    application: str
    worker: str
    revision: str = ""
    probe_token: str = field(default="", repr=False)
    handshake_timeout: float = 10.0
    ready_timeout: float = 3.0
    max_sockets: int = 10_000
    drain_pace: float = 50.0
    drain_window: float = 60.0
    stream_grace: float = 5.0
    lean_consumers: bool = True
    control_directory: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ServingSettings":
        """Read the settings of this process; a variable that is empty counts as not set.

        Raises:
            SettingsError: a variable is missing or has a value that is not allowed.
        """
        return cls(
            application=_application(environment),
            worker=_worker(environment),
            revision=environment.get(REVISION, ""),
            probe_token=_probe_token(environment),
            handshake_timeout=_seconds(environment, HANDSHAKE_TIMEOUT, cls.handshake_timeout),
            ready_timeout=_seconds(environment, READY_TIMEOUT, cls.ready_timeout),
            max_sockets=_max_sockets(environment),
            drain_pace=_number(environment, DRAIN_PACE, cls.drain_pace, "sockets a second"),
            drain_window=_seconds(environment, DRAIN_WINDOW, cls.drain_window),
            stream_grace=_seconds(environment, STREAM_GRACE, cls.stream_grace),
            lean_consumers=_is_on(environment, LEAN_CONSUMERS, cls.lean_consumers),
            control_directory=environment.get(CONTROL_DIRECTORY, ""),
        )


def load_application(reference: str) -> ASGIApplication:
    """Import the ASGI callable that `reference` (`module:attribute`) names.

    An error from inside the operator's module passes through: its traceback says more than
    the kit could.

    Raises:
        SettingsError: there is no such module or attribute, or it cannot be called.
    """
    module_name, _, attributes = reference.partition(":")
    try:
        target: object = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise SettingsError(
            APPLICATION, repr(reference), f"{_APPLICATION_ALLOWED} (no module {error.name!r})"
        ) from error
    try:
        for attribute in attributes.split("."):
            target = getattr(target, attribute)
    except AttributeError as error:
        raise SettingsError(
            APPLICATION, repr(reference), f"{_APPLICATION_ALLOWED} ({error})"
        ) from error
    if not callable(target):
        raise SettingsError(APPLICATION, repr(reference), "the name of an ASGI callable")
    return cast("ASGIApplication", target)


def _application(environment: Mapping[str, str]) -> str:
    value = environment.get(APPLICATION, "")
    if not value:
        raise SettingsError(APPLICATION, "not set", _APPLICATION_ALLOWED)
    if not re.fullmatch(r"[\w.]+:[\w.]+", value):
        raise SettingsError(APPLICATION, repr(value), _APPLICATION_ALLOWED)
    return value


def _worker(environment: Mapping[str, str]) -> str:
    value = environment.get(WORKER, "") or f"{socket.gethostname()}:{os.getpid()}"
    # The probe is told its workers as NAME=URL.
    if not re.fullmatch(r"[!-<>-~]{1,100}", value):
        raise SettingsError(
            WORKER, repr(value), "1 to 100 visible ASCII characters without '=', such as app1:8001"
        )
    return value


def _probe_token(environment: Mapping[str, str]) -> str:
    value = environment.get(PROBE_TOKEN, "")
    if not re.fullmatch(r"[!-~]*", value):
        # Any other character would not survive the way through a header.
        raise SettingsError(PROBE_TOKEN, "not usable (not shown)", "visible ASCII characters")
    return value


def _max_sockets(environment: Mapping[str, str]) -> int:
    value = environment.get(MAX_SOCKETS, "") or str(ServingSettings.max_sockets)
    if not re.fullmatch("[1-9][0-9]{0,8}", value):
        raise SettingsError(MAX_SOCKETS, repr(value), "a number of sockets above 0, such as 10000")
    return int(value)


def _is_on(environment: Mapping[str, str], variable: str, default: bool) -> bool:
    value = environment.get(variable, "")
    if value not in ("", "0", "1"):
        raise SettingsError(variable, repr(value), "0 or 1")
    return value == "1" if value else default


def _seconds(environment: Mapping[str, str], variable: str, default: float) -> float:
    return _number(environment, variable, default, "seconds")


def _number(environment: Mapping[str, str], variable: str, default: float, of: str) -> float:
    value = environment.get(variable, "")
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise SettingsError(variable, repr(value), f"a number of {of} above 0, such as {default:g}")
    return number
