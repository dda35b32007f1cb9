"""What clients and server say to each other: JSON objects in text frames, and close codes.

Nothing here knows a socket or a database. The browser's half is ``static/chat/connection.js``.
"""

import json
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Literal, TypedDict

MESSAGE_MAX_LENGTH = 2000
"""Characters in one message."""

HISTORY_ON_CONNECT = 50
"""Messages shown to a client that knows none."""

HISTORY_PAGE = 200
"""Messages in one history frame; a client that missed more gets several frames."""


class CloseCode(IntEnum):
    """Why the server closes a socket; a client that reconnects would meet the same answer."""

    LOGIN_REQUIRED = 4001
    UNKNOWN_ROOM = 4004


class ErrorCode(StrEnum):
    """Why a frame was refused; the socket stays open."""

    BINARY = "binary_not_understood"
    MALFORMED = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_ACTION = "missing_action"
    UNKNOWN_ACTION = "unknown_action"
    WRONG_TYPE = "wrong_type"
    EMPTY_MESSAGE = "empty_message"
    MESSAGE_TOO_LONG = "message_too_long"
    INVALID_TEXT = "invalid_text"
    INVALID_AFTER = "invalid_after"


class MessageBody(TypedDict):
    """One message."""

    sequence: int
    room: str
    user: str
    message: str
    sent_at: str
    worker: str


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


class ErrorFrame(TypedDict):
    """The answer to a frame that was refused."""

    type: Literal["error"]
    code: str
    error: str


class ProtocolError(Exception):
    """A client's mistake.

    Args:
        code: the kind of mistake, for programs.
        text: what is wrong, for people.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code

    def frame(self) -> ErrorFrame:
        """Return the answer to the client."""
        return {"type": "error", "code": self.code.value, "error": str(self)}


@dataclass(frozen=True)
class Send:
    """The action ``send``: say something to the room."""

    message: str


def parse_frame(frame: str) -> Send:
    """Return the action a client's text frame asks for.

    Raises:
        ProtocolError: it asks for none, or for one that is not allowed.
    """
    try:
        content = json.loads(frame)
    except (ValueError, RecursionError):  # the latter: brackets nested thousands deep
        raise ProtocolError(ErrorCode.MALFORMED, "The frame is not valid JSON.") from None
    if not isinstance(content, dict):
        raise ProtocolError(ErrorCode.NOT_AN_OBJECT, "The frame is not a JSON object.")
    if "action" not in content:
        raise ProtocolError(ErrorCode.MISSING_ACTION, 'The frame has no "action".')
    match content["action"]:
        case "send":
            return Send(_text(content.get("message")))
        case str(action):
            raise ProtocolError(ErrorCode.UNKNOWN_ACTION, f"Unknown action: {action[:50]}")
        case _:
            raise ProtocolError(ErrorCode.WRONG_TYPE, '"action" is not a string.')


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


def _text(message: object) -> str:
    """Return the text of a message that can be stored and shown."""
    if not isinstance(message, str):
        raise ProtocolError(ErrorCode.WRONG_TYPE, '"message" is not a string.')
    if not message.strip():
        raise ProtocolError(ErrorCode.EMPTY_MESSAGE, "The message is empty.")
    if len(message) > MESSAGE_MAX_LENGTH:
        raise ProtocolError(
            ErrorCode.MESSAGE_TOO_LONG,
            f"The message has {len(message)} characters; {MESSAGE_MAX_LENGTH} are allowed.",
        )
    # JSON can spell both with \u escapes; PostgreSQL stores neither.
    if "\0" in message or any("\ud800" <= character <= "\udfff" for character in message):
        raise ProtocolError(
            ErrorCode.INVALID_TEXT, "The message has a null character or half a surrogate pair."
        )
    return message
