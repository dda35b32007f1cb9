"""The module channels_servers: an outage is seen from outside of the application."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .house import Tree, run_module


@contextmanager
def server(answers: bytes, port: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """Answer everybody with some bytes; yield the port, and what was said."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(100))
                    connection.sendall(answers)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def look(
    port: int, protocol: str = "redis", timeout: float = 0, address: str = "127.0.0.1"
) -> Tree:
    one = {"name": "layer", "protocol": protocol, "address": address, "port": port}
    return run_module("channels_servers", {"servers": [one], "timeout": timeout})


@pytest.mark.parametrize(
    ("protocol", "said", "answer"),
    [
        ("redis", b"PING\r\n", b"-NOAUTH Authentication required.\r\n"),
        ("postgresql", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"N"),
    ],
)
def test_a_server_answers_who_has_not_logged_in(protocol: str, said: bytes, answer: bytes) -> None:
    with server(answer) as (port, heard):
        assert look(port, protocol) == {"changed": False, "silent": []}
    assert heard == [said]


def test_a_server_that_is_stopped_is_told_with_the_reason() -> None:
    with server(b"") as (port, _):
        pass
    assert look(port)["silent"] == [f"layer (127.0.0.1:{port}): Connection refused"]


def test_a_server_that_hangs_or_hangs_up_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel connects to a process that is stopped."""
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda where, timeout: connect(where, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (said,) = look(listener.getsockname()[1])["silent"]
    assert said.endswith("no answer within 3 s")
    with server(b"") as (port, _):
        assert look(port)["silent"] == [f"layer (127.0.0.1:{port}): it ends the connection"]


def test_a_server_that_is_just_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(b"") as (port, _):
        pass
    started = []

    def sleep(seconds: float) -> None:
        started.append(server(b"+PONG\r\n", port))
        started[-1].__enter__()

    monkeypatch.setattr(time, "sleep", sleep)
    assert look(port, timeout=10)["silent"] == []
    (one,) = started
    one.__exit__(None, None, None)


def test_a_server_that_there_is_not_is_left_out() -> None:
    assert look(1, address="") == {"changed": False, "silent": []}
