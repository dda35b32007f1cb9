"""The sample application's adapter, against docs/protocol.md."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from channels_kit.load.adapter import (
    Event,
    Filling,
    History,
    LoginRefused,
    Message,
    Other,
    Position,
    Refusal,
    load_adapter,
)
from chat.load_adapter import RoomAdapter

BODY = {
    "sequence": 7,
    "room": "red",
    "user": "alice",
    "message": "hello",
    "sent_at": "2026-01-01T00:00:00+00:00",
    "worker": "app1:8001",
}
MESSAGE = Message(7, None, "alice")


@contextmanager
def answering(status: int, content: object) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives one answer; yields its URL and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append((self.path, json.loads(self.rfile.read(length))))
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_the_command_line_finds_it() -> None:
    assert isinstance(load_adapter("chat.load_adapter:RoomAdapter"), RoomAdapter)


def test_a_login_is_a_token_and_its_end() -> None:
    answer = {"token": "hidden", "expires_at": "2026-01-01T00:00:00+00:00"}
    with answering(200, answer) as (url, asked):
        login = RoomAdapter().log_in(url, "alice", "secret")
    assert asked == [("/api/token/", {"username": "alice", "password": "secret"})]
    assert login.token == "hidden"
    assert login.expires_at == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert "hidden" not in repr(login)


@pytest.mark.parametrize(
    ("status", "error"), [(401, LoginRefused), (400, LoginRefused), (503, OSError)]
)
def test_only_a_refusal_is_for_good(status: int, error: type[Exception]) -> None:
    with answering(status, {}) as (url, _), pytest.raises(error) as caught:
        RoomAdapter().log_in(url, "alice", "secret")
    assert str(caught.value) == f"POST /api/token/ answered {status}"


@pytest.mark.parametrize("content", [[], {}, {"token": "hidden"}, {"expires_at": "hidden"}])
def test_an_answer_without_a_token_is_a_server_in_trouble(content: object) -> None:
    with answering(200, content) as (url, _), pytest.raises(OSError, match="no token") as caught:
        RoomAdapter().log_in(url, "alice", "secret")
    assert "hidden" not in str(caught.value)


def test_where_a_socket_is_opened() -> None:
    adapter = RoomAdapter()
    assert adapter.path("red", "a.b-c_d", None) == "/ws/chat/red/?token=a.b-c_d"
    parts = urlsplit(adapter.path("../red", "a&b", 0))
    assert parts.path == "/ws/chat/..%2Fred/"
    assert parse_qs(parts.query) == {"token": ["a&b"], "after": ["0"]}


def test_what_a_client_sends() -> None:
    adapter = RoomAdapter()
    assert json.loads(adapter.encode_message("hello", "run-1")) == {
        "action": "send",
        "message": "hello",
        "client_id": "run-1",
    }
    assert json.loads(adapter.encode_gap(3, 5)) == {"action": "history", "from": 3, "to": 5}


@pytest.mark.parametrize(
    ("content", "event"),
    [
        ({"type": "message", **BODY}, MESSAGE),
        ({"type": "message", **BODY, "client_id": "run-1"}, Message(7, "run-1", "alice")),
        ({"type": "history", "messages": [], "sequence": 9, "worker": "a"}, History((), 9, "a")),
        ({"type": "history", "messages": [], "sequence": 9}, History((), 9)),
        (
            {"type": "history", "messages": [BODY], "sequence": 9, "from": 5, "to": 7},
            Filling((MESSAGE,), 7, 9),
        ),
        ({"type": "position", "sequence": 9}, Position(9)),
        (
            {"type": "error", "code": "flood", "error": "Too many", "retry_after": 2},
            Refusal("flood", 2),
        ),
        ({"type": "error", "code": "empty_message", "error": ""}, Refusal("empty_message", None)),
        ({"type": "presence", "users": []}, Other()),
        ({"type": "image", "sequence": 7, "image": {}}, Other()),
    ],
)
def test_what_a_client_hears(content: dict[str, Any], event: Event) -> None:
    assert RoomAdapter().decode(json.dumps(content)) == event


@pytest.mark.parametrize("frame", ["no JSON", "[]", "{}", '{"type": "message"}'])
def test_what_is_none_of_the_protocol(frame: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        RoomAdapter().decode(frame)


def test_the_codes_after_which_no_client_comes_back() -> None:
    assert RoomAdapter.final_codes == {1000, 1009, 4001, 4003, 4029}
