"""scripts/staging/tls.py: a certificate that clients take, and that stays until it must not."""

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from staging import tls

from .test_cluster import calls, cluster, inventory, program, write  # noqa: F401

NAMES = ["127.0.0.1", "localhost", "172.30.0.13"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "certificates").mkdir()
    return tmp_path / "certificates"


def test_a_client_that_trusts_the_authority_takes_the_certificate(state: Path) -> None:
    tls.certify(state, "tested", NAMES)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(state / tls.CERTIFICATE, state / tls.KEY)
    client = ssl.create_default_context(cafile=str(state / tls.AUTHORITY))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in NAMES:
                plain, _ = listener.accept()
                with own.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        for name in NAMES:
            with (
                socket.create_connection(listener.getsockname()) as plain,
                client.wrap_socket(plain, server_hostname=name) as connection,
            ):
                connection.sendall(b"x")
        thread.join()


def test_a_certificate_stays_until_it_must_not(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tls.certify(state, "tested", NAMES)
    files = {path.name: path.read_bytes() for path in state.iterdir()}
    assert not tls.certify(state, "tested", NAMES)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == files
    # An edge has another address, or the end comes near: the authority stays.
    assert tls.certify(state, "tested", ["127.0.0.1"])
    monkeypatch.setattr(tls, "LEAST_DAYS", tls.DAYS + 1)
    assert tls.certify(state, "tested", ["127.0.0.1"])
    assert (state / tls.AUTHORITY).read_bytes() == files[tls.AUTHORITY]


def test_the_keys_are_their_owners_alone(state: Path) -> None:
    tls.certify(state, "tested", NAMES)
    for name in (tls.KEY, tls.AUTHORITY_KEY):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600


def test_the_inventory_names_the_certificate_and_redirects_nobody(cluster) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    variables = write(cluster)["vars"]
    assert variables["cluster_tls"] == "files"
    assert variables["nginx_redirect_to_https"] is False
    assert variables["nginx_tls_certificate"] == str(cluster.state / tls.CERTIFICATE)
    assert variables["nginx_tls_key"] == str(cluster.state / tls.KEY)


def test_a_port_that_is_taken_is_passed_over(cluster, program) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster.write_inventory([], 8080, 20000, port)
        assert port < cluster.tls_port(any_port=False) <= 65535
