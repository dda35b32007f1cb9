"""What the load tool has to know of an application's own protocol.

The application brings a class that fulfils `Adapter`; the command line loads it by name.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from channels_kit.probe.address import UsageError

_EXPECTED = "expected MODULE:CLASS, such as chat.load_adapter:RoomAdapter"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a room.

    Attributes:
        sequence: its number in the room; numbers have no gaps.
        client_id: what its sender called it; None where it was given no name.
        sender: who sent it.
    """

    sequence: int
    client_id: str | None
    sender: str


@dataclass(frozen=True, slots=True)
class History:
    """What a socket receives before anything else, in one frame or several.

    Attributes:
        messages: oldest first.
        known: everything up to this number is known to the client now.
        worker: who serves the socket; None where an application does not tell.
    """

    messages: tuple[Message, ...]
    known: int
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Filling:
    """The answer to a gap that was asked for.

    Attributes:
        messages: those that the room has of it, oldest first.
        last: where the answer ends; what is not in it up to here, the room does not have.
        newest: the room's newest number.
    """

    messages: tuple[Message, ...]
    last: int
    newest: int


@dataclass(frozen=True, slots=True)
class Position:
    """The room's newest number, said while the client is connected."""

    newest: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A frame of the client was refused.

    Attributes:
        code: why.
        retry_after: seconds after which it may be sent again; None where it may not.
    """

    code: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Other:
    """Anything that has nothing to do with delivery."""


Event = Message | History | Filling | Position | Refusal | Other


@dataclass(frozen=True)
class Login:
    """What a user opens sockets with.

    Attributes:
        token: the secret; never shown.
        expires_at: when it ends, in seconds since 1970 UTC; infinite where it does not.
    """

    token: str = field(repr=False)
    expires_at: float


class LoginRefused(Exception):  # noqa: N818 - an answer, as certain as any
    """The application does not let this user in; the message says why, without the password."""


class Adapter(Protocol):
    """The protocol between an application and its clients."""

    @property
    def final_codes(self) -> Collection[int]:
        """Close codes after which a client does not come back."""

    @property
    def gap_limit(self) -> int:
        """How many messages may be asked for at once."""

    def log_in(self, base: str, username: str, password: str) -> Login:
        """Log a user in at the server `base`; called in a thread, and may block.

        Raises:
            LoginRefused: with this password, or at all.
            OSError: there was no answer.
        """

    def path(self, room: str, token: str, after: int | None) -> str:
        """Return where the socket of a room is opened, with its query.

        Args:
            room: the room's name.
            token: that of the user's `Login`.
            after: the last number the client knows; None where it comes for the first time.
        """

    def encode_message(self, text: str, client_id: str) -> str:
        """Return the frame that sends a message under the client's own name for it."""

    def encode_gap(self, first: int, last: int) -> str:
        """Return the frame that asks for messages, both numbers included."""

    def decode(self, frame: str | bytes) -> Event:
        """Return what a frame says.

        Raises:
            ValueError, KeyError, TypeError: it is none of this protocol.
        """


def load_adapter(reference: str) -> Adapter:
    """Make the adapter whose class `reference` (`module:attribute`) names.

    Raises:
        UsageError: there is no such module or attribute.
    """
    module_name, separator, attribute = reference.partition(":")
    if not (module_name and separator and attribute):
        raise UsageError(f"--adapter: {reference!r}: {_EXPECTED}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        # For a module that the adapter's own module lacks, the traceback says more.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"--adapter: {reference!r}: no module {error.name!r} in {Path.cwd()} or on PYTHONPATH;"
            " start the run in the directory of the module"
        ) from error
    adapter = getattr(module, attribute, None)
    if not callable(adapter):
        raise UsageError(
            f"--adapter: {reference!r}: {module_name} has no class {attribute!r}; {_EXPECTED}"
        )
    return cast("Adapter", adapter())
