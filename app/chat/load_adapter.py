"""The protocol of this application's rooms, for the load tool; see docs/protocol.md.

It imports nothing of the application, so that it says by itself what a client has to know.
"""

import json
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from channels_kit.load.adapter import (
    Event,
    Filling,
    History,
    Login,
    LoginRefused,
    Message,
    Other,
    Position,
    Refusal,
)
from channels_kit.probe.address import http_url

LOGIN_TIMEOUT = 15.0
"""Seconds without an answer; a password's hash is slow on purpose."""

# Through a proxy of the environment, the load would not reach the address given.
_open = build_opener(ProxyHandler({})).open


class RoomAdapter:
    """The protocol of `/ws/chat/<room>/`."""

    final_codes = frozenset({1000, 1009, 4001, 4003, 4029})
    gap_limit = 200

    def log_in(self, base: str, username: str, password: str) -> Login:
        """Ask for a token at `/api/token/`.

        Raises:
            LoginRefused: with this password.
            OSError: there was no answer, or one of a server in trouble.
        """
        request = Request(  # noqa: S310 - the load tool takes http and https only
            http_url(base, "/api/token/"),
            data=json.dumps({"username": username, "password": password}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with _open(request, timeout=LOGIN_TIMEOUT) as response:
                answer = json.load(response)
            expires_at = datetime.fromisoformat(answer["expires_at"])
            return Login(answer["token"], expires_at.timestamp())
        except HTTPError as error:
            error.close()
            if error.code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED):
                raise LoginRefused(f"POST /api/token/ answered {error.code}") from None
            raise OSError(f"POST /api/token/ answered {error.code}") from None
        except (HTTPException, ValueError, KeyError, TypeError) as error:
            # Cut short, or an edge's own page. Without the error's text, which may repeat a token.
            raise OSError(f"POST /api/token/ answered no token ({type(error).__name__})") from None

    def path(self, room: str, token: str, after: int | None) -> str:
        """Return path and query of a room's socket."""
        query: dict[str, str | int] = {"token": token}
        if after is not None:
            query["after"] = after
        return f"/ws/chat/{quote(room, safe='')}/?{urlencode(query)}"

    def encode_message(self, text: str, client_id: str) -> str:
        """Return the action `send`."""
        return json.dumps({"action": "send", "message": text, "client_id": client_id})

    def encode_gap(self, first: int, last: int) -> str:
        """Return the action `history`."""
        return json.dumps({"action": "history", "from": first, "to": last})

    def decode(self, frame: str | bytes) -> Event:
        """Return what a frame of the server says."""
        content = json.loads(frame)
        match content["type"]:
            case "message":
                return _message(content)
            case "history":
                messages = tuple(map(_message, content["messages"]))
                if "to" in content:
                    return Filling(messages, int(content["to"]), int(content["sequence"]))
                return History(messages, int(content["sequence"]), content.get("worker"))
            case "position":
                return Position(int(content["sequence"]))
            case "error":
                return Refusal(str(content["code"]), content.get("retry_after"))
            case _:
                return Other()


def _message(content: dict[str, Any]) -> Message:
    return Message(int(content["sequence"]), content.get("client_id"), str(content["user"]))
