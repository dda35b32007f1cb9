"""Orders: their page, their status, and the socket that tells their users of it on every page."""

from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import (  # type: ignore[import-untyped]
    InMemoryChannelLayer,
    get_channel_layer,
)
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from chat.models import Order
from chat.orders import set_status
from tests.chat.sockets import Socket, Sockets


@pytest.fixture
def order(ada: User) -> Order:
    return Order.objects.create(user=ada, title="Tea")


@pytest.fixture
def boss(transactional_db: None) -> User:
    return User.objects.create_superuser("boss")


async def listen(sockets: Sockets, user: User) -> Socket:
    """Return a socket for a user's notifications that is ready."""
    socket = await sockets.make("/ws/notifications/", user)
    assert (await socket.connect())["type"] == "websocket.accept"
    assert (await socket.receive())["type"] == "ready"
    return socket


async def change(order: Order, *statuses: str) -> list[bool]:
    """Set one status after the other."""

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def change() -> list[bool]:
        return [set_status(order, status) for status in statuses]

    changed: list[bool] = await change()
    return changed


def status_after(client: Client, order: Order, status: str) -> str:
    """Ask for a status on the page, and return which the order then has."""
    client.post(f"/orders/{order.pk}/status/", {"status": status})
    order.refresh_from_db()
    return order.status


@pytest.mark.usefixtures("order")
def test_users_see_their_own_orders_and_staff_sees_all(
    client: Client, ada: User, bob: User, boss: User
) -> None:
    Order.objects.create(user=bob, title="Coffee")
    seen = {}
    for user in (ada, bob, boss):
        client.force_login(user)
        seen[user.username] = [order.title for order in client.get("/orders/").context["orders"]]
    assert seen == {"ada": ["Tea"], "bob": ["Coffee"], "boss": ["Coffee", "Tea"]}


def test_an_order_is_taken(client: Client, ada: User) -> None:
    client.force_login(ada)
    assert client.post("/orders/", {"title": "Tea"}).headers["Location"] == "/orders/"
    order = Order.objects.get()
    assert (order.user, order.title, order.status) == (ada, "Tea", "new")


@pytest.mark.parametrize("title", ["", "  ", "x" * 101, "a\0"])
def test_an_order_needs_a_title(client: Client, ada: User, title: str) -> None:
    client.force_login(ada)
    page = client.post("/orders/", {"title": title}, follow=True)
    assert "An order needs a title of 1 to 100 characters." in page.text
    assert not Order.objects.exists()


def test_staff_alone_changes_a_status(client: Client, ada: User, boss: User, order: Order) -> None:
    assert client.post(f"/orders/{order.pk}/status/", {"status": "paid"}).status_code == 302
    client.force_login(ada)
    assert client.post(f"/orders/{order.pk}/status/", {"status": "paid"}).status_code == 403
    client.force_login(boss)
    assert status_after(client, order, "new") == "new"
    assert status_after(client, order, "paid") == "paid"


def test_an_unknown_status_is_told(client: Client, boss: User, order: Order) -> None:
    client.force_login(boss)
    assert status_after(client, order, "lost") == "new"
    page = client.get("/orders/").text
    assert "is not the status of an order; allowed are new, paid, shipped" in page
    assert client.post(f"/orders/{order.pk + 1}/status/", {"status": "paid"}).status_code == 404


async def test_a_stranger_is_told_nothing(sockets: Sockets) -> None:
    socket = await sockets.make("/ws/notifications/")
    # A close before the accept would hide its code from browsers.
    assert (await socket.connect())["type"] == "websocket.accept"
    assert await socket.close_code() == 4001


async def test_the_socket_says_first_that_it_listens(sockets: Sockets, ada: User) -> None:
    socket = await sockets.make("/ws/notifications/", ada)
    await socket.connect()
    assert await socket.receive() == {"type": "ready", "worker": settings.CHANNELS_KIT_WORKER}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "malformed_json"),
        ('{"action": "dance"}', "unknown_action"),
        ('{"action": "send", "message": "hello"}', "unknown_action"),
        (b"\x89PNG", "unknown_action"),
    ],
)
async def test_only_a_ping_is_understood(
    sockets: Sockets, ada: User, frame: str | bytes, code: str
) -> None:
    socket = await listen(sockets, ada)
    await socket.send(frame)
    assert (await socket.receive())["code"] == code
    await socket.act("ping")
    assert await socket.receive() == {"type": "pong"}


async def test_a_new_status_is_told_to_its_user_alone(
    sockets: Sockets, ada: User, bob: User, order: Order
) -> None:
    pages = [await listen(sockets, ada) for _ in range(2)]
    other = await listen(sockets, bob)
    assert await change(order, "paid") == [True]
    frames = [await page.receive() for page in pages]
    assert frames[0] == frames[1]
    assert datetime.fromisoformat(frames[0].pop("updated_at")) == order.updated_at
    expected = {"type": "order.update", "order": order.pk, "status": "paid", "title": "Tea"}
    assert frames[0] == expected
    # Who would have been told of it is told of the next one first.
    await change(await database_sync_to_async(Order.objects.create)(user=bob, title="Cake"), "paid")
    assert (await other.receive())["title"] == "Cake"


async def test_the_same_status_is_told_once(sockets: Sockets, ada: User, order: Order) -> None:
    socket = await listen(sockets, ada)
    statuses = ("new", "paid", "paid", "shipped")
    assert await change(order, *statuses) == [False, True, False, True]
    assert [(await socket.receive())["status"] for _ in range(2)] == ["paid", "shipped"]


async def test_a_status_that_is_not_committed_is_not_told(
    sockets: Sockets, ada: User, order: Order
) -> None:
    @database_sync_to_async  # type: ignore[untyped-decorator]
    def fail() -> None:
        with suppress(ZeroDivisionError), transaction.atomic():
            set_status(order, "paid")
            raise ZeroDivisionError

    socket = await listen(sockets, ada)
    await fail()
    await change(order, "shipped")
    assert (await socket.receive())["status"] == "shipped"


async def test_a_status_that_the_admin_saves_is_told(
    sockets: Sockets, client: Client, ada: User, boss: User, order: Order
) -> None:
    @database_sync_to_async  # type: ignore[untyped-decorator]
    def save(status: str, title: str) -> None:
        client.force_login(boss)
        fields = {"user": ada.pk, "title": title, "status": status}
        response = client.post(f"/admin/chat/order/{order.pk}/change/", fields)
        assert response.status_code == 302

    socket = await listen(sockets, ada)
    await save("new", "Tea")
    await save("paid", "Green tea")
    frame = await socket.receive()
    assert (frame["status"], frame["title"]) == ("paid", "Green tea")


@pytest.mark.usefixtures("in_memory")
async def test_a_ping_makes_a_member_again_of_who_was_forgotten(
    sockets: Sockets, ada: User, order: Order
) -> None:
    """As it is when the layer's Redis has restarted: it keeps nothing, and the sockets stay."""
    socket = await listen(sockets, ada)
    get_channel_layer().groups.clear()
    await socket.act("ping")
    assert await socket.receive() == {"type": "pong"}
    await change(order, "paid")
    assert (await socket.receive())["status"] == "paid"


@pytest.mark.usefixtures("in_memory")
async def test_the_socket_stays_open_while_the_layer_is_away(
    sockets: Sockets, ada: User, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise ConnectionError

    socket = await listen(sockets, ada)
    with monkeypatch.context() as away:
        away.setattr(InMemoryChannelLayer, "group_add", fail)
        await socket.act("ping")
        assert await socket.receive() == {"type": "pong"}
    await change(order, "paid")
    assert (await socket.receive())["status"] == "paid"


async def test_one_who_is_deactivated_is_told_no_more(sockets: Sockets, ada: User) -> None:
    socket = await listen(sockets, ada)
    ada.is_active = False
    await database_sync_to_async(ada.save)()
    assert await socket.close_code() == 4001
