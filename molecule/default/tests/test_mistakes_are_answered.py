"""Every mistake of docs/protocol.md, made through the edge."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from harness.cluster import Cluster
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

MESSAGE_MAX_LENGTH = 2000
IMAGE_MAX_BYTES = 2 * 1024 * 1024
MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "malformed_json": ("{", "The frame is not valid JSON."),
    "not_an_object": ("[]", "The frame is not a JSON object."),
    "missing_action": ("{}", 'The frame has no "action".'),
    "unknown_action": ('{"action": "x"}', "Unknown action: x"),
    "wrong_type": ('{"action": "send", "message": 1}', '"message" is not a string.'),
    "empty_message": ('{"action": "send", "message": " "}', "The message is empty."),
    "message_too_long": (
        json.dumps({"action": "send", "message": "x" * (MESSAGE_MAX_LENGTH + 1)}),
        f"The message has {MESSAGE_MAX_LENGTH + 1} characters; {MESSAGE_MAX_LENGTH} are allowed.",
    ),
    "invalid_text": (
        '{"action": "send", "message": "\\u0000"}',
        "The message has a null character or half a surrogate pair.",
    ),
    "invalid_client_id": (
        '{"action": "send", "message": "x", "client_id": ""}',
        '"client_id" has 0 characters; 1 to 64 are allowed.',
    ),
    "invalid_range": (
        '{"action": "history", "from": 5, "to": 1}',
        '"from" and "to" are not numbers of messages, or more than 200 apart.',
    ),
    "image_too_large": (
        bytes(IMAGE_MAX_BYTES + 1),
        f"The image has {IMAGE_MAX_BYTES + 1} bytes; {IMAGE_MAX_BYTES} are allowed.",
    ),
    "not_an_image": (b"GIF89a, it says", "The frame is not a PNG, JPEG, GIF or WebP image."),
}


@pytest.fixture(scope="module")
def token(cluster: Cluster) -> str:
    """A token of alice's."""
    request = urllib.request.Request(
        f"{cluster.origin}/api/token/",
        json.dumps({"username": "alice", "password": cluster.users["alice"]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        answer: str = json.load(response)["token"]
    return answer


def open_socket(cluster: Cluster, path: str) -> connect:
    url = cluster.origin.replace("http", "ws", 1) + path
    return connect(url, origin=cluster.origin, compression=None, proxy=None, max_size=None)


def frames_until_the_end(socket: ClientConnection) -> list[dict[str, Any]]:
    """Return what comes until the worker closes the socket."""
    frames = []
    with suppress(ConnectionClosed):
        while True:
            frames.append(json.loads(socket.recv(timeout=20)))
    return frames


def answer_to(socket: ClientConnection, frame: str | bytes) -> dict[str, Any]:
    """Send a frame and return the error that it is answered with, whatever else is told."""
    socket.send(frame)
    while (answer := json.loads(socket.recv(timeout=20)))["type"] != "error":
        pass
    return dict(answer)


@pytest.fixture
def socket(cluster: Cluster, token: str) -> Iterator[ClientConnection]:
    with open_socket(cluster, f"/ws/chat/lobby/?token={token}") as socket:
        yield socket


@pytest.mark.parametrize("code", MISTAKES)
def test_a_mistake_is_named_and_the_socket_stays_open(socket: ClientConnection, code: str) -> None:
    frame, text = MISTAKES[code]
    assert answer_to(socket, frame) == {"type": "error", "code": code, "error": text}
    assert answer_to(socket, '{"action": "y"}')["error"] == "Unknown action: y"


def test_a_position_that_is_none_is_named(cluster: Cluster, token: str) -> None:
    with open_socket(cluster, f"/ws/chat/lobby/?after=x&token={token}") as socket:
        answer = json.loads(socket.recv(timeout=20))
    text = '"after" is not the number of a message.'
    assert answer == {"type": "error", "code": "invalid_after", "error": text}


def test_a_flood_is_refused_and_then_ended(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        for _ in range(200):
            socket.send('{"action": "ping"}')
    assert "flood" in {frame.get("code") for frame in frames_until_the_end(socket)}
    assert socket.close_code == 4029


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/ws/chat/lobby/", 4001),
        ("/ws/chat/lobby/?token=none-of-ours", 4001),
        ("/ws/notifications/", 4001),
        ("/ws/chat/no-such-room/?token={token}", 4003),
    ],
)
def test_who_may_not_enter_sees_why(cluster: Cluster, token: str, path: str, code: int) -> None:
    with open_socket(cluster, path.format(token=token)) as socket:
        assert frames_until_the_end(socket) == []
        assert socket.close_code == code


def test_a_frame_above_what_a_worker_reads_ends_the_socket(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        socket.send(bytes(5 * 1024 * 1024))
    frames_until_the_end(socket)
    # The close frame is lost where the rest of the long one is still on its way.
    assert socket.close_code in (1009, 1006)
