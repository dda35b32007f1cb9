"""What clients and server say to each other: JSON objects in text frames, and close codes.

Nothing here knows a socket or a database. The browser's half is ``static/chat/protocol.js``, and
``docs/protocol.md`` explains both.
"""

import json
import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Literal, NotRequired, TypedDict, TypeGuard

MESSAGE_MAX_LENGTH = 2000
"""Characters in one message."""

CLIENT_ID_MAX_LENGTH = 64
"""Characters in a client's own name of a message."""

IMAGE_MAX_BYTES = 2 * 1024 * 1024
"""Bytes in one image."""

IMAGE_MAX_PIXELS = 25_000_000
"""Pixels in one image."""

HISTORY_ON_CONNECT = 50
"""Messages shown to a client that knows none."""

HISTORY_PAGE = 200
"""Messages in one history frame; a client that missed more gets several frames."""

HISTORY_RANGE = 200
"""How far the two numbers of a ``history`` action may be apart."""

TYPING_INTERVAL = 2.0
"""Seconds in which one socket tells at most once that its user types."""

DELAY_MAX = 3600
"""Seconds a message may be delayed."""


class CloseCode(IntEnum):
    """Why the server closes a socket; a client that reconnects would meet the same answer."""

    LOGIN_REQUIRED = 4001
    UNKNOWN_ROOM = 4003
    ABUSE = 4029


class ErrorCode(StrEnum):
    """Why a frame was refused; the socket stays open."""

    MALFORMED = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_ACTION = "missing_action"
    UNKNOWN_ACTION = "unknown_action"
    WRONG_TYPE = "wrong_type"
    EMPTY_MESSAGE = "empty_message"
    MESSAGE_TOO_LONG = "message_too_long"
    INVALID_TEXT = "invalid_text"
    INVALID_CLIENT_ID = "invalid_client_id"
    INVALID_AFTER = "invalid_after"
    INVALID_RANGE = "invalid_range"
    FLOOD = "flood"
    IMAGE_TOO_LARGE = "image_too_large"
    NOT_AN_IMAGE = "not_an_image"


class ImageBody(TypedDict):
    """An image of a message: where it is, and its size in pixels."""

    url: str
    thumbnail: str | None
    width: int
    height: int


class MessageBody(TypedDict):
    """One message."""

    sequence: int
    room: str
    user: str
    message: str
    sent_at: str
    worker: str
    client_id: NotRequired[str]
    image: NotRequired[ImageBody]


class MessageFrame(MessageBody):
    """One message as it is sent, to everyone in the room."""

    type: Literal["message"]


class HistoryFrame(TypedDict):
    """The first frame of a socket, repeated while more than a page is missing.

    ``sequence`` is the number up to which the client now knows everything, ``worker`` the one that
    serves this socket.
    """

    type: Literal["history"]
    messages: list[MessageBody]
    sequence: int
    worker: str


# "from" is no name that a class could give to a field.
RangeFrame = TypedDict(
    "RangeFrame",
    {
        "type": Literal["history"],
        "messages": list[MessageBody],
        "sequence": int,
        "worker": str,
        "from": int,
        "to": int,
    },
)
"""The answer to ``history``; ``sequence`` is the room's newest number."""


class ErrorFrame(TypedDict):
    """The answer to a frame that was refused."""

    type: Literal["error"]
    code: str
    error: str
    retry_after: NotRequired[float]
    client_id: NotRequired[str]


class ProtocolError(Exception):
    """A client's mistake.

    Args:
        code: the kind of mistake, for programs.
        text: what is wrong, for people.
        client_id: the client's own name of the message that is refused, where it has a valid one.
    """

    def __init__(self, code: ErrorCode, text: str, *, client_id: str | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.client_id = client_id

    def frame(self) -> ErrorFrame:
        """Return the answer to the client."""
        frame: ErrorFrame = {"type": "error", "code": self.code.value, "error": str(self)}
        if self.client_id is not None:
            frame["client_id"] = self.client_id
        return frame


class FloodError(ProtocolError):
    """Frames came too fast.

    Args:
        wait: seconds until a frame is allowed.
        client_id: the client's own name of the message that is refused, where it has a valid one.
    """

    def __init__(self, wait: float, client_id: str | None) -> None:
        # Up, not to the nearest: a client that waits as told is not refused again.
        self.retry_after = math.ceil(wait * 10) / 10
        text = f"Too many frames; wait {self.retry_after:g} s."
        super().__init__(ErrorCode.FLOOD, text, client_id=client_id)

    def frame(self) -> ErrorFrame:
        """Return the answer to the client."""
        return {**super().frame(), "retry_after": self.retry_after}


@dataclass(frozen=True)
class Send:
    """The action ``send``: say something to the room."""

    message: str
    client_id: str | None


@dataclass(frozen=True)
class History:
    """The action ``history``: ask for the messages from one number to another, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class Read:
    """The action ``read``: everything up to this number has been read."""

    sequence: int


@dataclass(frozen=True)
class Typing:
    """The action ``typing``: the user types."""


@dataclass(frozen=True)
class Ping:
    """The action ``ping``: ask for a sign of life."""


Action = Send | History | Read | Typing | Ping


def parse_frame(frame: str) -> Action:
    """Return the action a client's text frame asks for.

    Raises:
        ProtocolError: it asks for none, or for one that is not allowed.
    """
    content = parse_object(frame)
    if "action" not in content:
        raise ProtocolError(ErrorCode.MISSING_ACTION, 'The frame has no "action".')
    match content["action"]:
        case "send":
            return parse_send(content)
        case "history":
            return _parse_history(content)
        case "read":
            if not _is_number(content.get("sequence")):
                raise ProtocolError(ErrorCode.WRONG_TYPE, '"sequence" is not a number.')
            return Read(content["sequence"])
        case "typing":
            return Typing()
        case "ping":
            return Ping()
        case str(action):
            raise ProtocolError(ErrorCode.UNKNOWN_ACTION, f"Unknown action: {action[:50]}")
        case _:
            raise ProtocolError(ErrorCode.WRONG_TYPE, '"action" is not a string.')


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ProtocolError: it is none.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # the latter: brackets nested thousands deep
        raise ProtocolError(ErrorCode.MALFORMED, "The frame is not valid JSON.") from None
    if not isinstance(content, dict):
        raise ProtocolError(ErrorCode.NOT_AN_OBJECT, "The frame is not a JSON object.")
    return content


def parse_send(content: dict[str, Any]) -> Send:
    """Return what an object with ``message`` and perhaps ``client_id`` says to a room.

    Raises:
        ProtocolError: one of the two is not allowed; it carries the other one's ``client_id``.
    """
    client_id = _parse_client_id(content.get("client_id"))
    try:
        return Send(parse_text(content.get("message")), client_id)
    except ProtocolError as error:
        error.client_id = client_id
        raise


def client_id_of(frame: str | None) -> str | None:
    """Return the valid ``client_id`` of a frame that sends a message, None for any other frame."""
    if frame is None:
        return None
    try:
        content = parse_object(frame)
        if content.get("action") != "send":
            return None
        return _parse_client_id(content.get("client_id"))
    except ProtocolError:
        return None


def parse_after(value: str | None) -> int | None:
    """Return the number in the query ``?after=N``, None without one.

    Raises:
        ProtocolError: it is not a number of a message.
    """
    if value is None:
        return None
    # 18 digits fit into the database's 64 bits.
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise ProtocolError(ErrorCode.INVALID_AFTER, '"after" is not the number of a message.')
    return int(value)


def parse_text(message: object) -> str:
    """Return the text of a message that can be stored and shown.

    Raises:
        ProtocolError: it is none.
    """
    if not isinstance(message, str):
        raise ProtocolError(ErrorCode.WRONG_TYPE, '"message" is not a string.')
    if not message.strip():
        raise ProtocolError(ErrorCode.EMPTY_MESSAGE, "The message is empty.")
    if len(message) > MESSAGE_MAX_LENGTH:
        raise ProtocolError(
            ErrorCode.MESSAGE_TOO_LONG,
            f"The message has {len(message)} characters; {MESSAGE_MAX_LENGTH} are allowed.",
        )
    if not is_storable(message):
        raise ProtocolError(
            ErrorCode.INVALID_TEXT, "The message has a null character or half a surrogate pair."
        )
    return message


def _parse_client_id(client_id: object) -> str | None:
    if client_id is None:
        return None
    if not isinstance(client_id, str):
        raise ProtocolError(ErrorCode.WRONG_TYPE, '"client_id" is not a string.')
    if not 1 <= len(client_id) <= CLIENT_ID_MAX_LENGTH:
        raise ProtocolError(
            ErrorCode.INVALID_CLIENT_ID,
            f'"client_id" has {len(client_id)} characters;'
            f" 1 to {CLIENT_ID_MAX_LENGTH} are allowed.",
        )
    if not is_storable(client_id):
        raise ProtocolError(
            ErrorCode.INVALID_CLIENT_ID,
            '"client_id" has a null character or half a surrogate pair.',
        )
    return client_id


def _parse_history(content: dict[str, Any]) -> History:
    first, last = content.get("from"), content.get("to")
    if not (_is_number(first) and _is_number(last) and 0 <= last - first <= HISTORY_RANGE):
        raise ProtocolError(
            ErrorCode.INVALID_RANGE,
            f'"from" and "to" are not numbers of messages, or more than {HISTORY_RANGE} apart.',
        )
    return History(first, last)


def _is_number(value: object) -> TypeGuard[int]:
    """Return whether a value can be the number of a message, or 0 before the first."""
    # Not isinstance: true is an int as well. 18 digits fit into the database's 64 bits.
    return type(value) is int and 0 <= value < 10**18


def is_storable(text: str) -> bool:
    """Return whether every database stores a text as it is."""
    # JSON can spell both with \u escapes; PostgreSQL stores neither.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
