"""A socket ends with 4001 when what it was opened with ends, in whatever way."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.generic.websocket import (  # type: ignore[import-untyped]
    AsyncJsonWebsocketConsumer,
)
from channels.sessions import SessionMiddlewareStack  # type: ignore[import-untyped]
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from chat import authenticated, tokens
from chat.authenticated import AuthenticatedSocketMixin
from tests.chat.sockets import Socket, Sockets

PASSWORD = "enchantress-of-numbers"
NEW = "another-enchantress-of-numbers"


@pytest.fixture(params=["/ws/chat/lobby/", "/ws/notifications/"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def browser(ada: User) -> Client:
    client = Client()
    await database_sync_to_async(client.force_login)(ada)
    return client


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every moment, so that no test waits for seconds."""
    monkeypatch.setattr(authenticated, "INTERVAL", 0.1)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose everything that is told over the layer."""

    async def lose(event: dict[str, Any]) -> None:
        pass

    monkeypatch.setattr(authenticated, "_send", lose)


async def opened(sockets: Sockets, path: str, **options: Any) -> Socket:
    socket = await sockets.make(path, **options)
    assert (await socket.connect())["type"] == "websocket.accept"
    await socket.receive_until("presence" if "chat" in path else "ready")
    # Its process listens now, as it has since its first socket.
    await asyncio.sleep(0.05)
    return socket


def log_out(client: Client, user: User) -> None:
    assert client.post("/logout/").status_code == 302


def change_password(client: Client, user: User) -> None:
    user.set_password(NEW)
    user.save()


def change_password_alone(client: Client, user: User) -> None:
    user.set_password(NEW)
    user.save(update_fields=["password"])


def deactivate(client: Client, user: User) -> None:
    User.objects.get(pk=user.pk)
    user.is_active = False
    user.save()


def delete(client: Client, user: User) -> None:
    user.delete()


def change_password_in_the_admin(client: Client, user: User) -> None:
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    fields = {"password1": NEW, "password2": NEW, "usable_password": "true"}
    response = root.post(f"/admin/auth/user/{user.pk}/password/", fields)
    assert response.status_code == 302, response.content


def change_password_by_command(client: Client, user: User) -> None:
    import io
    import sys

    before = sys.stdin
    sys.stdin = io.StringIO(f'{{"{user.username}": "{NEW}"}}')
    try:
        call_command("ensure_users", stdout=io.StringIO())
    finally:
        sys.stdin = before


TOLD = {
    "logout": log_out,
    "new password": change_password,
    "new password, that field alone": change_password_alone,
    "new password in the admin": change_password_in_the_admin,
    "new password by a command": change_password_by_command,
    "deactivated": deactivate,
    "deleted": delete,
}

UNTOLD = {
    "the session is removed": lambda client, user: Session.objects.all().delete(),
    "the session expires": lambda client, user: Session.objects.update(
        expire_date=timezone.now() - timedelta(seconds=1)
    ),
    "deactivated by a query": lambda client, user: User.objects.update(is_active=False),
    "new password by a query": lambda client, user: User.objects.update(password="!"),
}

Change = Callable[[Client, User], Any]


@pytest.mark.parametrize("change", TOLD.values(), ids=TOLD.keys())
async def test_what_django_is_told_ends_a_socket_at_once(
    sockets: Sockets, ada: User, bob: User, browser: Client, path: str, change: Change
) -> None:
    goes = await opened(sockets, path, client=browser)
    stays = await opened(sockets, path, user=bob)
    # Well before the first look of the process.
    await database_sync_to_async(change)(browser, ada)
    assert await goes.close_code() == 4001
    await stays.act("ping")
    await stays.receive_until("pong")


@pytest.mark.usefixtures("often", "deaf")
@pytest.mark.parametrize("change", (TOLD | UNTOLD).values(), ids=(TOLD | UNTOLD).keys())
async def test_what_the_layer_loses_ends_a_socket_within_seconds(
    sockets: Sockets, ada: User, browser: Client, path: str, change: Change
) -> None:
    socket = await opened(sockets, path, client=browser)
    await database_sync_to_async(change)(browser, ada)
    assert await socket.close_code() == 4001


async def test_a_logout_ends_one_session_and_no_other(
    sockets: Sockets, ada: User, browser: Client, path: str
) -> None:
    goes = await opened(sockets, path, client=browser)
    stays = await opened(sockets, path, user=ada)
    await database_sync_to_async(log_out)(browser, ada)
    assert await goes.close_code() == 4001
    await stays.act("ping")
    await stays.receive_until("pong")


@pytest.mark.parametrize("change", [change_password, deactivate, delete])
async def test_a_socket_of_a_token_ends(
    sockets: Sockets, ada: User, path: str, change: Change
) -> None:
    token, _ = await database_sync_to_async(tokens.issue)(ada.pk)
    socket = await opened(sockets, f"{path}?token={token}")
    await database_sync_to_async(change)(Client(), ada)
    assert await socket.close_code() == 4001


@pytest.mark.usefixtures("often")
async def test_a_socket_ends_with_its_token(
    sockets: Sockets, ada: User, path: str, settings: Settings
) -> None:
    settings.JWT_LIFETIME = 1
    token, expires_at = await database_sync_to_async(tokens.issue)(ada.pk)
    socket = await opened(sockets, f"{path}?token={token}")
    assert await socket.close_code() == 4001
    assert time.time() >= expires_at.timestamp()


async def test_a_token_of_a_former_password_opens_nothing(
    sockets: Sockets, ada: User, path: str, client: Client
) -> None:
    token, _ = await database_sync_to_async(tokens.issue)(ada.pk)
    await database_sync_to_async(change_password)(Client(), ada)
    socket = await sockets.make(f"{path}?token={token}")
    assert (await socket.connect())["type"] == "websocket.accept"
    assert await socket.close_code() == 4001
    headers = {"authorization": f"Bearer {token}"}
    get = database_sync_to_async(client.get)
    assert (await get("/api/rooms/lobby/messages/", headers=headers)).status_code == 401


async def test_nothing_is_done_for_a_socket_that_has_ended(
    sockets: Sockets, ada: User, bob: User, browser: Client
) -> None:
    goes = await opened(sockets, "/ws/chat/lobby/", client=browser)
    stays = await opened(sockets, "/ws/chat/lobby/", user=bob)
    await database_sync_to_async(log_out)(browser, ada)
    assert await goes.close_code() == 4001
    # What its client had sent before the close came to it.
    await goes.say("too late")
    await stays.say("hello")
    assert (await stays.receive_until("message"))["message"] == "hello"


async def test_a_login_ends_nothing(
    sockets: Sockets, ada: User, browser: Client, path: str
) -> None:
    socket = await opened(sockets, path, client=browser)
    await database_sync_to_async(Client().login)(username="ada", password=PASSWORD)
    await socket.act("ping")
    await socket.receive_until("pong")


@pytest.mark.usefixtures("often")
async def test_a_database_that_is_away_ends_nothing(
    sockets: Sockets,
    browser: Client,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(credentials: object) -> None:
        raise LookupError("secret")

    look = authenticated.ended_of
    monkeypatch.setattr(authenticated, "ended_of", fail)
    socket = await opened(sockets, path, client=browser)
    async with asyncio.timeout(5):
        while "could not look after sockets: LookupError" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "secret" not in caplog.text
    await socket.act("ping")
    await socket.receive_until("pong")
    # It looks again.
    monkeypatch.setattr(authenticated, "ended_of", look)
    await database_sync_to_async(Session.objects.all().delete)()
    assert await socket.close_code() == 4001


class Echo(AuthenticatedSocketMixin, AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """A consumer of another application, under Channels' own middleware."""

    ended_code = 4401

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.send_json(content)


async def test_another_application_takes_it(sockets: Sockets, ada: User, browser: Client) -> None:
    from channels.auth import AuthMiddleware  # type: ignore[import-untyped]

    application = SessionMiddlewareStack(AuthMiddleware(Echo.as_asgi()))
    name = django_settings.SESSION_COOKIE_NAME
    cookie = f"{name}={browser.cookies[name].value}".encode()
    socket = Socket(application, "/", [(b"cookie", cookie)])
    sockets._opened.append(socket)
    assert (await socket.connect())["type"] == "websocket.accept"
    await socket.act("echo")
    assert (await socket.receive())["action"] == "echo"
    await asyncio.sleep(0.05)
    await database_sync_to_async(log_out)(browser, ada)
    assert await socket.close_code() == 4401
