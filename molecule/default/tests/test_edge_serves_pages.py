import gzip
import re
import shlex
import subprocess
import uuid
from email.message import Message
from ipaddress import ip_address, ip_network
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest
from harness.cluster import Cluster
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

# Says when it listens, then prints the head of the first request with a marker that goes out.
LISTEN = """\
import socket, sys, time
marker = sys.argv[1].encode()
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as wire:
    wire.settimeout(1)
    print("listening", flush=True)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            packet, (_, _, direction, *_) = wire.recvfrom(65535)
        except TimeoutError:
            continue
        if direction == socket.PACKET_OUTGOING and marker in packet:
            head = packet[packet.index(b"GET ") :].partition(b"\\r\\n\\r\\n")[0]
            print(head.decode())
            break
"""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def get(cluster: Cluster, path: str, **headers: str) -> tuple[int, Message, bytes]:
    """Ask the edge and return status, headers and body; a redirect is an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(cluster.origin + path, headers=named)
    try:
        with build_opener(_NoRedirect).open(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_a_stranger_is_sent_to_the_login_page(cluster: Cluster) -> None:
    status, headers, _ = get(cluster, "/")
    assert (status, headers["Location"]) == (302, "/login/?next=/")


def test_a_page(cluster: Cluster) -> None:
    status, headers, body = get(cluster, "/login/")
    assert status == 200
    assert b"Welcome back" in body
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "HttpOnly" not in headers["Set-Cookie"].split("csrftoken")[0]
    assert headers["Server"] == "nginx", "the version is nobody's business"


def test_a_static_file_may_be_kept_for_ever(cluster: Cluster) -> None:
    _, _, page = get(cluster, "/login/")
    match = re.search(rb'href="(/static/chat/chat\.[0-9a-f]{12}\.css)"', page)
    assert match, page
    path = match[1].decode()
    status, headers, plain = get(cluster, path)
    assert status == 200
    assert headers["Content-Type"] == 'text/css; charset="utf-8"'
    assert headers["Cache-Control"] == "max-age=315360000, public, immutable"
    assert "Accept-Encoding" in headers["Vary"]
    status, headers, packed = get(cluster, path, Accept_Encoding="gzip")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain)


@pytest.mark.parametrize("path", ["/-/ready", "/-/live", "/-/", "//-/ready", "/%2d/ready"])
def test_the_workers_own_pages_are_not_for_the_outside(cluster: Cluster, path: str) -> None:
    status, _, body = get(cluster, path)
    assert status == 404
    assert b"worker" not in body


def test_the_workers_own_pages_are_there_inside(cluster: Cluster) -> None:
    assert set(cluster.ready().values()) == {200}


def test_the_proof_is_for_those_who_have_the_token(cluster: Cluster) -> None:
    url = cluster.origin.replace("http", "ws", 1) + "/-/probe/run/endpoint/"
    wrong = {"Authorization": "Bearer wrong"}
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(url, origin=cluster.origin, additional_headers=wrong, proxy=None),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_a_name_that_is_not_ours_is_misdirected(cluster: Cluster) -> None:
    status, _, body = get(cluster, "/login/", Host="evil.example")
    assert status == 421
    assert b"Welcome back" not in body


def test_what_a_client_claims_to_be_is_not_passed_on(cluster: Cluster) -> None:
    marker = uuid.uuid4().hex
    forged = {
        "X_Forwarded_For": "203.0.113.7",
        "X_Real_IP": "203.0.113.8",
        "X_Forwarded_Host": "evil.example",
        "X_Forwarded_Proto": "https",
    }
    # What the worker is told, as it stands on the wire between the edge and the worker.
    with subprocess.Popen(
        ["ssh", "-F", cluster.ssh_config, "lb1", f"sudo python3 -c {shlex.quote(LISTEN)} {marker}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as listener:
        assert listener.stdout
        assert listener.stdout.readline() == "listening\n"
        get(cluster, f"/login/?{marker}", **forged)
        told = listener.stdout.read()
    assert marker in told
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in told.splitlines()[1:])
    }
    client = headers["x-real-ip"]
    assert ip_address(client) in ip_network(f"{cluster.fact('address', 'lb1')}/24", strict=False)
    assert headers["x-forwarded-for"] == client
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"] == cluster.origin.removeprefix("http://")
    assert "203.0.113" not in told
    assert "evil.example" not in told
