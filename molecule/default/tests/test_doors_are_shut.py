import socket

import pytest
from harness.cluster import Cluster

PORTS = ("postgres_port", "redis_layer_port", "redis_broker_port")
REFUSED = "ConnectionRefusedError"

# Says something to a port and prints the first line of the answer.
SAY = """\
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
    connection.sendall(b"PING\\r\\n")
    print(connection.recv(100).decode().splitlines()[0])
"""

# Logs in with the application's own driver.
LOG_IN = """\
import sys
import psycopg
try:
    psycopg.connect(host=sys.argv[1], port=sys.argv[2], dbname=sys.argv[3], user=sys.argv[4],
                    password=sys.argv[5], connect_timeout=5)
    print("logged in")
except psycopg.OperationalError as error:
    print(error)
"""


def connect_from_here(address: str, port: int) -> str:
    """Return what this machine, the networks' gateway, gets."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError as error:
        return type(error).__name__
    return "open"


@pytest.mark.parametrize("port", PORTS)
def test_data_is_reached_from_app_hosts_only(cluster: Cluster, port: str) -> None:
    address, number = cluster.fact("address", "data1"), cluster.fact(port)
    found = {host: cluster.connect_from(host, address, number) for host in ("app1", "app2", "lb1")}
    found["this machine"] = connect_from_here(address, number)
    assert found == {"app1": "open", "app2": "open", "lb1": REFUSED, "this machine": REFUSED}


def test_workers_are_reached_from_the_edge_and_app_hosts_only(cluster: Cluster) -> None:
    for worker in cluster.workers:
        found = {
            host: cluster.connect_from(host, worker.address, worker.port) for host in cluster.hosts
        }
        found["this machine"] = connect_from_here(worker.address, worker.port)
        assert found == {
            "app1": "open",
            "app2": "open",
            "data1": REFUSED,
            "lb1": "open",
            "this machine": REFUSED,
        }, worker


@pytest.mark.parametrize("port", ["redis_layer_port", "redis_broker_port"])
def test_redis_asks_for_a_password(cluster: Cluster, port: str) -> None:
    address, number = cluster.fact("address", "data1"), cluster.fact(port)
    answer = cluster.python("app1", SAY, address, str(number), user="nobody")
    assert answer.startswith("-NOAUTH"), answer


@pytest.mark.parametrize(
    ("database", "user"),
    [("postgres", "own"), ("own", "postgres"), ("postgres", "postgres"), ("template1", "own")],
)
def test_postgres_knows_one_user_and_one_database(
    cluster: Cluster, database: str, user: str
) -> None:
    own_database, own_user = cluster.fact("postgres_database"), cluster.fact("postgres_user")
    answer = log_in(
        cluster,
        own_database if database == "own" else database,
        own_user if user == "own" else user,
        "not-the-password",
    )
    assert "no pg_hba.conf entry for host" in answer


def test_postgres_asks_for_the_password(cluster: Cluster) -> None:
    own = cluster.fact("postgres_database"), cluster.fact("postgres_user")
    assert "password authentication failed" in log_in(cluster, *own, "not-the-password")


def log_in(cluster: Cluster, database: str, user: str, password: str) -> str:
    """Return what PostgreSQL says to app1."""
    address, port = cluster.fact("address", "data1"), str(cluster.fact("postgres_port"))
    told = (address, port, database, user, password)
    result = cluster.ssh("app1", cluster.release_python, "-", *told, stdin=LOG_IN)
    assert result.returncode == 0, result.stderr
    return result.stdout
