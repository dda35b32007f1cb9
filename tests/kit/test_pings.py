"""Every server pings an idle client, often enough for the load balancers and CDNs in front."""

import os
import socket
from pathlib import Path

import pytest

from channels_kit.serving import server_options

from .cluster import APP, SERVED, SERVERS, Worker

SHORTEST_IDLE_TIMEOUT = 60
"""Seconds after which AWS ALB closes a silent socket; Cloudflare waits for 100: docs/edge.md."""

# Python imports this before it imports the server. As long as a ping may wait for its answer, too:
# not so short that a busy machine answers too late.
SOON = """\
from channels_kit.serving import server_options
server_options.PING_INTERVAL = 2
"""
HANDSHAKE = (
    b"GET /still/ HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# RFC 6455, 5.2: the last frame of a message, and its opcode.
PING, PONG = 0x89, 0x8A
MASKED, NO_MASK = 0x80, bytes(4)


def test_one_lost_ping_closes_no_socket() -> None:
    assert 2 * server_options.PING_INTERVAL < SHORTEST_IDLE_TIMEOUT


@pytest.mark.parametrize("server", SERVERS)
def test_an_idle_client_is_pinged_again_and_again(server: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SOON)
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, APP, SERVED)))}
    with (
        Worker("app1:8001", environment, server) as worker,
        socket.create_connection(("127.0.0.1", worker.port), timeout=15) as client,
        client.makefile("rb") as received,
    ):
        client.sendall(HANDSHAKE)
        assert b" 101 " in received.readline()
        while received.readline() != b"\r\n":
            pass
        for _ in range(3):
            kind, length = received.read(2)
            assert kind == PING
            answer = bytes([PONG, MASKED | length]) + NO_MASK + received.read(length)
            client.sendall(answer)
