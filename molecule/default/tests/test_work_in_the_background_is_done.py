"""What one host says from outside of a socket is seen in a browser that the other one serves."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.cluster import Cluster
from harness.pages import enter, worker_of
from harness.wait import eventually
from playwright.sync_api import Browser, Page, expect

CELERY = "channels-process-celery.service"
THUMBNAILS = "channels-process-thumbnails.service"

# Says something through the HTTP API of a worker, with a token.
POST = """\
import json, sys, urllib.request
url, password, message = sys.argv[1], sys.stdin.readline().strip(), json.loads(sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def post(path, content, **headers):
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json", **headers}
    data = json.dumps(content).encode()
    with opener.open(urllib.request.Request(url + path, data, headers), timeout=20) as response:
        return response.status, json.load(response)
status, token = post("/api/token/", {"username": "bob", "password": password})
bearer = f"Bearer {token['token']}"
print(post("/api/rooms/lobby/messages/", message, Authorization=bearer)[0])
"""

SET_STATUS = """\
from chat.models import Order
from chat.orders import set_status
from django.contrib.auth.models import User
order = Order.objects.create(user=User.objects.get(username="alice"), title={title!r})
set_status(order, "paid")
"""


@pytest.fixture(scope="module")
def alice(cluster: Cluster, browser: Browser) -> Iterator[Page]:
    page = enter(browser, cluster, "alice", [])
    yield page
    page.context.close()


@pytest.fixture
def other_host(cluster: Cluster, alice: Page) -> str:
    """An app host that does not serve alice's room."""
    served_by = worker_of(alice).partition(":")[0]
    return next(host for host in cluster.group("channels") if host != served_by)


@contextmanager
def alone(cluster: Cluster, host: str, unit: str) -> Iterator[None]:
    """Have a unit run on one app host alone for a while."""
    others = [other for other in cluster.group("channels") if other != host]
    for other in others:
        cluster.hosts[other].check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        for other in others:
            cluster.hosts[other].check_output("systemctl start %s", unit)


def manage(cluster: Cluster, host: str, *arguments: str) -> str:
    """Run a management command of the application."""
    result = cluster.ssh(host, "sudo", "channels-manage", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def post(cluster: Cluster, host: str, **message: object) -> int:
    """Say something as bob through the HTTP API of a host's first worker; return the status."""
    worker = next(worker for worker in cluster.workers if worker.host == host)
    result = cluster.ssh(
        host,
        *("python3", "-c", POST, worker.url, json.dumps(message)),
        stdin=f"{cluster.users['bob']}\n",
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.parametrize("unit", [CELERY, THUMBNAILS])
def test_every_app_host_runs_the_unit(cluster: Cluster, unit: str) -> None:
    for host in cluster.group("channels"):
        state = cluster.show(host, unit, "ActiveState", "UnitFileState")
        assert state == {"ActiveState": "active", "UnitFileState": "enabled"}, host


def test_an_announcement_is_seen(cluster: Cluster, alice: Page, other_host: str) -> None:
    text = f"announced {uuid.uuid4().hex[:8]}"
    manage(cluster, other_host, "announce", "lobby", text)
    expect(alice.locator("#messages > li", has_text=text)).to_have_count(1)


def test_a_message_of_the_api_is_seen(cluster: Cluster, alice: Page, other_host: str) -> None:
    text = f"posted {uuid.uuid4().hex[:8]}"
    assert post(cluster, other_host, message=text) == 201
    shown = alice.locator("#messages > li", has_text=text)
    expect(shown).to_have_count(1)
    expect(shown.locator(".worker")).to_have_text(f"{other_host}:8001")


def test_a_delayed_message_is_seen(cluster: Cluster, alice: Page, other_host: str) -> None:
    text = f"delayed {uuid.uuid4().hex[:8]}"
    shown = alice.locator("#messages > li", has_text=text)
    with alone(cluster, other_host, CELERY):
        assert post(cluster, other_host, message=text, delay=1) == 202
        expect(shown).to_have_count(1)
    expect(shown.locator(".worker")).to_have_text(f"{other_host}:celery")


def test_the_new_status_of_an_order_is_seen(cluster: Cluster, alice: Page) -> None:
    # The socket of the notifications may be on either host: each of them says something.
    for host in cluster.group("channels"):
        title = f"order {uuid.uuid4().hex[:8]}"
        manage(cluster, host, "shell", "--command", SET_STATUS.format(title=title))
        toast = alice.locator("#toasts .toast", has_text=title)
        expect(toast).to_have_count(1)
        expect(toast).to_contain_text("is now paid")


def test_an_image_is_shown_with_its_thumbnail(
    cluster: Cluster, alice: Page, other_host: str
) -> None:
    before = alice.locator("#messages > li img").count()
    picture = alice.screenshot()
    images = alice.locator("#messages > li img")
    with alone(cluster, other_host, THUMBNAILS):
        alice.locator("#file").set_input_files(
            {"name": "screen.png", "mimeType": "image/png", "buffer": picture}
        )
        expect(images).to_have_count(before + 1)
        # 480 pixels: the thumbnail, and not the original, which is 900 wide.
        width = eventually(
            lambda: images.last.evaluate("image => image.naturalWidth"),
            lambda width: width == 480,
            "the thumbnail is shown",
        )
    assert width == 480
