"""The module channels_servers: an outage is seen from outside of the application."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .certificates import authority
from .house import Tree, run_module
from .redis_server import free_port
from .values import House


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
    port: int,
    protocol: str = "redis",
    timeout: float = 0,
    address: str = "127.0.0.1",
    tls: bool = False,
) -> Tree:
    one = {"name": "layer", "protocol": protocol, "address": address, "port": port, "tls": tls}
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


@pytest.fixture
def secure_port(tmp_path: Path) -> Iterator[int]:
    """A Redis that speaks TLS, as a provider's does; nothing on this machine trusts it."""
    certificate, port = authority(tmp_path), free_port()
    arguments = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(tmp_path / "key.pem"),
        "tls-auth-clients": "no",
        "dir": str(tmp_path),
    }
    options = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as process:
        yield port
        process.terminate()


def test_a_redis_that_speaks_tls_answers(secure_port: int) -> None:
    assert look(secure_port, timeout=20, tls=True)["silent"] == []
    (said,) = look(secure_port)["silent"]
    assert said.endswith(("Connection reset by peer", "it ends the connection"))


def test_a_redis_without_tls_does_not_speak_it() -> None:
    with server(b"-ERR unknown command\r\n") as (port, _):
        (said,) = look(port, tls=True)["silent"]
    assert "WRONG_VERSION_NUMBER" in said.upper().replace(" ", "_")


@pytest.mark.parametrize(
    ("own", "values", "layer", "broker"),
    [
        (True, {}, "redis://{}@10.0.0.9:6379/0", "redis://{}@10.0.0.9:6380/0"),
        (
            False,
            {"cluster_redis_broker_address": "broker.example.org", "cluster_redis_tls": True},
            "rediss://{}@10.0.0.9:6379/0?ssl_cert_reqs=required",
            "rediss://{}@broker.example.org:6380/0?ssl_cert_reqs=required",
        ),
        (
            False,
            {"cluster_redis_broker_port": 6379},
            "redis://{}@10.0.0.9:6379/0",
            "redis://{}@10.0.0.9:6379/1",
        ),
    ],
    ids=["own", "two servers with TLS", "one server"],
)
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_the_application_gets_urls_of_a_redis_that_somebody_else_runs(
    tmp_path: Path, own: bool, values: Tree, layer: str, broker: str
) -> None:
    given = {"cluster_redis_address": "10.0.0.9", "cluster_redis_user": "shop", **values}
    given |= {"redis_layer_password": "a" * 20, "redis_broker_password": "b" * 20}
    house = House(tmp_path, own, cluster_postgres_address="10.0.0.9")
    assert house.problems("app1", **given) == []
    urls = house.render("app1", "channels", "{{ [cluster.layer.url, cluster.broker.url] }}", given)
    assert urls == [layer.format(f"shop:{'a' * 20}"), broker.format(f"shop:{'b' * 20}")]
