"""The edge over TLS: nginx itself, with the configuration that the role writes."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from . import certificates
from .certificates import Pair, Store, trusting
from .edge import HOST, NAME, NGINX, PATIENCE, TLS_PORT, Edge, ask, conversation, running
from .rendered import CERTIFICATE, nginx_configurations, render
from .test_edge import TAKES, inventory

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: scripts/bootstrap tests"
)

TLS: dict[str, Any] = {"cluster_tls": "files", "cluster_edge_https_port": TLS_PORT}
HSTS = 31536000
INVENTORIES = {
    "redirecting": inventory(**TLS),
    "both": inventory(**TLS, nginx_redirect_to_https=False, nginx_hsts_max_age=HSTS),
}
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return nginx_configurations(render(tmp_path_factory.mktemp("rendered"), INVENTORIES))


@pytest.fixture(scope="module")
def pair() -> Pair:
    return certificates.make(NAME, HOST)


@pytest.fixture
def client(pair: Pair) -> ssl.SSLContext:
    return trusting(pair[0])


def serving(content: str, pair: Pair) -> Any:
    return running(content, TAKES, lambda tls: Store(tls).put(*pair))


@pytest.fixture
async def edge(configurations: dict[str, str], pair: Pair) -> AsyncIterator[Edge]:
    async with serving(configurations["redirecting"], pair) as edge:
        yield edge


@pytest.fixture
async def both(configurations: dict[str, str], pair: Pair) -> AsyncIterator[Edge]:
    async with serving(configurations["both"], pair) as edge:
        yield edge


def asked_of(edge: Edge) -> list[dict[str, str]]:
    return [headers for worker in edge.workers for headers in worker.headers]


# Pages and sockets


async def test_a_page_comes_over_tls_and_the_worker_hears_of_it(
    edge: Edge, client: ssl.SSLContext
) -> None:
    answer = await ask(edge.tls_port, "/login/", tls=client, more=["X-Forwarded-Proto: http"])
    assert answer.status == 200
    (headers,) = asked_of(edge)
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == NAME


async def test_a_socket_opens_over_tls(edge: Edge, client: ssl.SSLContext) -> None:
    async with conversation(edge.tls_port, "/ws/", upgrade=True, tls=client) as (
        answer,
        reader,
        writer,
    ):
        assert answer.status == 101
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    (headers,) = asked_of(edge)
    assert (headers["upgrade"], headers["x-forwarded-proto"]) == ("websocket", "https")


def literal(name: bytes, value: bytes) -> bytes:
    """A header field of HPACK, neither indexed nor compressed."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


async def ask_by_http2(edge: Edge, pair: Pair, authority: str, *more: tuple[bytes, bytes]) -> int:
    """The status of a page by HTTP/2; 0 where nginx resets the stream."""
    client = trusting(pair[0], ["h2", "http/1.1"])
    reader, writer = await asyncio.open_connection(
        HOST, edge.tls_port, ssl=client, server_hostname=NAME
    )
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/by-http2/")]
    fields += [(b":authority", authority.encode()), *more]
    block = b"".join(literal(*field) for field in fields)
    headers, settings, end = 1, 4, 0x5  # of the stream, and of the headers
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0))
    writer.write(frame(headers, end, 1, block))
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                head = await reader.readexactly(9)
                content = await reader.readexactly(int.from_bytes(head[:3]))
                if head[3] == headers:
                    return decoded(content)
                if head[3] == 3:
                    return 0
    finally:
        writer.close()


def decoded(block: bytes) -> int:
    """The status of a block of headers, which begins with it: a number in the table, or a text."""
    numbers = {0x88: 200, 0x8C: 400, 0x8D: 404, 0x8E: 500}
    if block[0] in numbers:
        return numbers[block[0]]
    # nginx does not compress digits.
    assert block[:2] == b"\x48\x03", block
    return int(block[2:5])


async def test_a_page_comes_by_http2(edge: Edge, pair: Pair) -> None:
    assert await ask_by_http2(edge, pair, NAME) == 200
    (headers,) = asked_of(edge)
    assert (headers["host"], headers["x-forwarded-proto"]) == (NAME, "https")
    assert "upgrade" not in headers


@pytest.mark.parametrize("authority", ["other.example", f"{NAME}.other.example"])
async def test_a_name_that_is_not_ours_is_refused_by_http2(
    edge: Edge, pair: Pair, authority: str
) -> None:
    assert await ask_by_http2(edge, pair, authority) == 421
    assert not edge.asked


async def test_a_second_name_by_http2_does_not_reach_a_worker(edge: Edge, pair: Pair) -> None:
    status = await ask_by_http2(edge, pair, NAME, (b"host", b"other.example"))
    hosts = {headers["host"] for headers in asked_of(edge)}
    assert status != 200 or hosts == {NAME}
    assert hosts <= {NAME}


# Plain HTTP


@pytest.mark.parametrize("path", ["/", "/login/?next=%2Fa", "/static/a.css"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_http_is_redirected(edge: Edge, path: str, method: str) -> None:
    answer = await ask(edge.port, path, method=method, host=f"{NAME}:8080")
    assert answer.status == 301
    assert answer.headers["location"] == f"https://{NAME}:{TLS_PORT}{path}"
    assert not edge.asked


@pytest.mark.parametrize(
    ("path", "status"), [("/-/edge", 200), ("/-/probe/a/b/", 200), ("/-/metrics", 404)]
)
async def test_the_kit_asks_by_http(edge: Edge, path: str, status: int) -> None:
    assert (await ask(edge.port, path)).status == status


@pytest.mark.parametrize("host", ["other.example", "other.example:443", "127.0.0.9"])
async def test_no_other_name_is_redirected(edge: Edge, client: ssl.SSLContext, host: str) -> None:
    assert (await ask(edge.port, host=host)).status == 421
    # By the right name in the handshake, and another one in the request.
    assert (await ask(edge.tls_port, tls=client)).status == 200
    reader, writer = await asyncio.open_connection(
        HOST, edge.tls_port, ssl=client, server_hostname=NAME
    )
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"421"
    writer.close()


async def test_both_are_served_without_a_redirect(both: Edge, client: ssl.SSLContext) -> None:
    assert (await ask(both.port, "/a/")).status == 200
    assert (await ask(both.tls_port, "/b/", tls=client)).status == 200
    assert {headers["x-forwarded-proto"] for headers in asked_of(both)} == {"http", "https"}


async def test_the_edge_asks_for_https_over_tls_alone(both: Edge, client: ssl.SSLContext) -> None:
    over_tls = await ask(both.tls_port, tls=client)
    assert over_tls.headers["strict-transport-security"] == f"max-age={HSTS}"
    assert "strict-transport-security" not in (await ask(both.port)).headers


async def test_the_edge_asks_for_https_only_where_it_is_told_to(
    edge: Edge, client: ssl.SSLContext
) -> None:
    answer = await ask(edge.tls_port, tls=client)
    assert "strict-transport-security" not in answer.headers


# The profile


@pytest.mark.parametrize(
    ("version", "taken"),
    [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_the_edge_speaks_versions_that_are_safe(
    edge: Edge, pair: Pair, version: str, taken: bool
) -> None:
    client = trusting(pair[0])
    # What this machine itself would refuse.
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
    if taken:
        assert (await ask(edge.tls_port, tls=client)).status == 200
    else:
        with pytest.raises(ssl.SSLError):
            await ask(edge.tls_port, tls=client)


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"])
async def test_the_edge_takes_no_cipher_without_forward_secrecy_or_with_cbc(
    edge: Edge, pair: Pair, cipher: str
) -> None:
    client = trusting(pair[0], version=TLS_1_2)
    client.set_ciphers(cipher)
    with pytest.raises(ssl.SSLError):
        await ask(edge.tls_port, tls=client)


# Reloads


async def generation(edge: Edge) -> str:
    answer = await ask(edge.local_port, "/generation", host="127.0.0.1")
    return answer.body.decode().split()[0]


async def session_of(edge: Edge, client: ssl.SSLContext) -> Any:
    """What a client needs to resume: tickets come after the handshake."""
    async with conversation(edge.tls_port, tls=client) as (answer, _, writer):
        assert answer.status == 200
        return writer.get_extra_info("ssl_object").session


def resumes(edge: Edge, client: ssl.SSLContext, session: ssl.SSLSession) -> tuple[bool, bytes]:
    """Whether a session is resumed; what the same process answers for a name that is not ours."""
    with (
        socket.create_connection((HOST, edge.tls_port)) as plain,
        client.wrap_socket(plain, server_hostname=NAME, session=session) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")
        return bool(connection.session_reused), connection.recv(1024).split()[1]


async def trusted(edge: Edge, pair: Pair) -> bool:
    try:
        return (await ask(edge.tls_port, tls=trusting(pair[0]))).status == 200
    except ssl.SSLCertVerificationError:
        return False


def replaced_by(edge: Edge, pair: Pair) -> str:
    """Put another certificate in place, as the hook does, but for the reload."""
    store = Store(edge.configuration.with_name("tls"))
    before = certificates.edge_certificates.Edge(edge.configuration, store).current()
    new: str = store.put(*pair)
    edge.reload(lambda text: text.replace(before, new))
    return new


async def test_a_socket_outlives_a_new_certificate(
    edge: Edge, pair: Pair, client: ssl.SSLContext
) -> None:
    other = certificates.make(NAME, HOST)
    async with conversation(edge.tls_port, "/ws/", upgrade=True, tls=client) as (
        answer,
        reader,
        writer,
    ):
        assert answer.status == 101
        new = replaced_by(edge, other)
        async with asyncio.timeout(PATIENCE):
            while not (await generation(edge)).endswith(f".{new}"):
                pass
            # Old processes, each with a queue of its own, may accept for a moment longer.
            while not all([await trusted(edge, other) for _ in range(20)]):
                pass
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_sessions_outlive_a_reload(edge: Edge, pair: Pair, version: ssl.TLSVersion) -> None:
    client = trusting(pair[0], version=version)
    session = await session_of(edge, client)
    assert await asyncio.to_thread(resumes, edge, client, session) == (True, b"421")
    edge.reload(lambda text: text.replace("return 421;", "return 410;"))
    async with asyncio.timeout(PATIENCE):
        # An old process may accept for a moment longer.
        while (found := await asyncio.to_thread(resumes, edge, client, session))[1] == b"421":
            pass
    assert found == (True, b"410")


def test_the_name_of_the_configuration_ends_with_the_certificate(
    configurations: dict[str, str],
) -> None:
    for content in configurations.values():
        assert f'.{CERTIFICATE} $pid"' in content
        assert f".{CERTIFICATE} 3600" in content


# A pair that does not fit


async def test_a_bad_pair_is_refused_in_the_words_of_nginx(edge: Edge, pair: Pair) -> None:
    configuration, other = edge.configuration, certificates.make(NAME)
    before = configuration.read_text()
    found = certificates.edge_certificates.Edge(
        configuration, Store(configuration.with_name("tls")), nginx=str(NGINX), reload=["false"]
    )
    with pytest.raises(certificates.edge_certificates.CertificateError) as refused:
        found.switch(pair[0], other[1])
    assert "validation failed; nothing changed" in str(refused.value)
    assert "key values mismatch" in str(refused.value)
    assert configuration.read_text() == before
    assert (await ask(edge.tls_port, tls=trusting(pair[0]))).status == 200


def test_only_root_reads_the_keys(tmp_path: Path, pair: Pair) -> None:
    store = Store(tmp_path / "tls")
    store.put(*pair)
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "tls").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
