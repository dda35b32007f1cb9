"""nginx closes a proxied socket that is silent for its proxy_read_timeout, by default 60 s."""

import json
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness.cluster import Cluster, Worker
from websockets.sync.client import ClientConnection

# Longer than nginx's own default, with a margin.
SILENCE = 65

# The server's pings would break the silence. Python imports this before it imports the server.
WITHOUT_PINGS = """\
from channels_kit.serving import server_options
server_options.PING_INTERVAL = 100_000
"""
DROP_IN = """\
[Service]
Environment=PYTHONPATH=/run/silent:.:../kit
"""


@pytest.fixture
def silent_workers(cluster: Cluster) -> Iterator[list[Worker]]:
    """One worker of each app host, without pings."""
    silenced = [
        next(worker for worker in cluster.workers if worker.host == host)
        for host in cluster.group("channels")
    ]
    for worker in silenced:
        for file, text in (
            ("/run/silent/sitecustomize.py", WITHOUT_PINGS),
            (f"/run/systemd/system/{worker.unit}.d/silent.conf", DROP_IN),
        ):
            write = ("sudo", "sh", "-c", f"mkdir -p $(dirname {file}) && cat > {file}")
            written = cluster.ssh(worker.host, *write, stdin=text)
            assert written.returncode == 0, written.stderr
        cluster.hosts[worker.host].check_output(
            "systemctl daemon-reload && systemctl restart %s", worker.unit
        )
    cluster.wait_until_ready()
    yield silenced
    for worker in silenced:
        cluster.hosts[worker.host].check_output(
            "rm -r /run/silent %s && systemctl daemon-reload && systemctl restart %s",
            f"/run/systemd/system/{worker.unit}.d",
            worker.unit,
        )
    cluster.wait_until_ready()


def seconds_without_data(connection: ClientConnection) -> tuple[float, float]:
    """Return for how long the kernel has sent and received no data: pings are data, too."""
    # struct tcp_info: eight bytes, then numbers; tcpi_last_data_sent is the tenth of them.
    info = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    numbers = struct.unpack("8x24I", info)
    return numbers[9] / 1000, numbers[11] / 1000


def test_a_socket_silent_for_longer_than_60_seconds_still_delivers(
    cluster: Cluster, silent_workers: list[Worker]
) -> None:
    run = uuid.uuid4().hex
    wanted = {worker.name for worker in silent_workers}
    with ExitStack() as kept:
        sockets: dict[str, ClientConnection] = {}
        with ExitStack() as others:
            # least_conn fills the workers evenly: eight sockets reach all four.
            for number in range(8):
                with ExitStack() as one:
                    connection, worker = one.enter_context(
                        cluster.probe_socket(run, f"socket-{number}")
                    )
                    fits = worker in wanted and worker not in sockets
                    if fits:
                        sockets[worker] = connection
                    (kept if fits else others).push(one.pop_all())
        assert set(sockets) == wanted

        first, second = sockets.values()
        with pytest.raises(TimeoutError):
            first.recv(timeout=SILENCE)
        for connection in (first, second):
            sent, received = seconds_without_data(connection)
            assert sent > 60, f"{sent:g} s ago something was sent"
            assert received > 60, f"{received:g} s ago something was received"

        first.send(json.dumps({"round": 1}))
        second.send(json.dumps({"round": 2}))
        for connection in (first, second):
            rounds = {json.loads(connection.recv(timeout=10))["round"] for _ in range(2)}
            assert rounds == {1, 2}
