import base64
import json
import logging
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt
import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.fixtures import Settings

from chat import later, tokens
from chat.history import MessageHistory
from chat.models import LaterMessage, Message, Room
from chat.people import Person
from chat.tasks import deliver_later_messages, post_later
from config.celery import app as celery_app
from tests.chat.sockets import Sockets

PASSWORD = "enchantress-of-numbers"
LOBBY = "/api/rooms/lobby/messages/"
OTHER_KEY = "a key of nobody's that is as long as the others"


def forge(user: User, key: str, *, kid: str | None = None, **claims: Any) -> str:
    """Return a token for a user; a claim of None is left out."""
    now = datetime.now(UTC)
    content = {"sub": str(user.pk), "iat": now, "exp": now + timedelta(hours=1), **claims}
    content = {name: value for name, value in content.items() if value is not None}
    name = kid or sha256(key.encode()).hexdigest()[:8]
    return jwt.encode(content, key, algorithm="HS256", headers={"kid": name})


def unsigned(user: User, key: str) -> str:
    """Return a token whose header says that it needs no signature."""
    header = {"alg": "none", "typ": "JWT", "kid": sha256(key.encode()).hexdigest()[:8]}
    now = int(datetime.now(UTC).timestamp())
    claims = {"sub": str(user.pk), "iat": now, "exp": now + 3600}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in (header, claims)]
    return ".".join(part.decode().rstrip("=") for part in parts) + "."


def ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


Forge = Callable[[User, str], str]

REFUSED: dict[str, Forge] = {
    "no token": lambda user, key: "hello",
    "nothing": lambda user, key: "",
    "no signature": unsigned,
    "other key": lambda user, key: forge(user, OTHER_KEY),
    "other key under the name of ours": lambda user, key: forge(
        user, OTHER_KEY, kid=sha256(key.encode()).hexdigest()[:8]
    ),
    "other algorithm": lambda user, key: jwt.encode(
        {"sub": str(user.pk), "iat": ago(), "exp": ago(hours=-1)},
        key * 2,
        algorithm="HS512",
        headers={"kid": sha256(key.encode()).hexdigest()[:8]},
    ),
    "expired": lambda user, key: forge(user, key, iat=ago(hours=2), exp=ago(seconds=11)),
    "from tomorrow": lambda user, key: forge(user, key, iat=ago(days=-1)),
    "no end": lambda user, key: forge(user, key, exp=None),
    "no start": lambda user, key: forge(user, key, iat=None),
    "no user": lambda user, key: forge(user, key, sub=None),
    "unknown user": lambda user, key: forge(user, key, sub="987654"),
    "user without a number": lambda user, key: forge(user, key, sub=user.username),
    "user with a huge number": lambda user, key: forge(user, key, sub="9" * 30),
}


def post(client: Client, path: str, content: Any, **options: Any) -> Any:
    return client.post(path, content, content_type="application/json", **options)


def bearer(user: User) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens.issue(user.pk)[0]}"}


def test_a_token_is_exchanged_for_name_and_password(
    client: Client, lobby: Room, ada: User, settings: Settings
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    response = post(client, "/api/token/", {"username": "ada", "password": PASSWORD})
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"token", "expires_at"}
    expires_at = datetime.fromisoformat(answer["expires_at"])
    lifetime = timedelta(seconds=settings.JWT_LIFETIME)
    assert before + lifetime <= expires_at <= datetime.now(UTC) + lifetime
    claims = jwt.decode(answer["token"], settings.JWT_KEY, algorithms=["HS256"])
    assert claims["sub"] == str(ada.pk)
    assert claims["exp"] == expires_at.timestamp()
    headers = {"authorization": f"Bearer {answer['token']}"}
    assert client.get(LOBBY, headers=headers).status_code == 200


def test_tokens_of_the_same_moment_are_one_query(
    ada: User, bob: User, settings: Settings, django_assert_num_queries: Any
) -> None:
    users = {tokens.issue(user.pk)[0]: user for user in (ada, bob)}
    wrong = [make(ada, settings.JWT_KEY) for make in REFUSED.values()]
    with django_assert_num_queries(1):
        found = tokens.users_of([*users, *wrong])
    assert {token: user for token, (user, _) in found.items()} == users


def test_a_token_needs_no_csrf_token(ada: User) -> None:
    client = Client(enforce_csrf_checks=True)
    response = post(client, "/api/token/", {"username": "ada", "password": PASSWORD})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        ({"username": "ada", "password": "wrong"}, 401, "wrong_credentials"),
        ({"username": "eve", "password": PASSWORD}, 401, "wrong_credentials"),
        ({"username": "a\0da", "password": PASSWORD}, 401, "wrong_credentials"),
        ('{"username": "\\ud800", "password": "a"}', 401, "wrong_credentials"),
        ('{"username": "ada", "password": "\\ud800"}', 401, "wrong_credentials"),
        ({"username": "ada"}, 400, "wrong_type"),
        ({"username": 1, "password": PASSWORD}, 400, "wrong_type"),
        ("hello", 400, "malformed_json"),
        (b"\xff", 400, "malformed_json"),
        ("[]", 400, "not_an_object"),
    ],
)
def test_a_token_is_refused(
    client: Client, ada: User, content: Any, status: int, code: str
) -> None:
    response = post(client, "/api/token/", content)
    assert response.status_code == status
    assert response.json()["code"] == code
    assert response.json()["error"]
    assert PASSWORD not in response.content.decode()


def test_an_inactive_user_gets_no_token(client: Client, ada: User) -> None:
    User.objects.update(is_active=False)
    response = post(client, "/api/token/", {"username": "ada", "password": PASSWORD})
    assert response.status_code == 401


@pytest.mark.parametrize("path", ["/api/token/", LOBBY])
def test_other_methods_are_refused(client: Client, lobby: Room, path: str) -> None:
    response = client.delete(path)
    assert response.status_code == 405
    assert response.json()["code"] == "method_not_allowed"
    assert response.headers["Allow"] == ("POST" if path == "/api/token/" else "GET, POST")


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_token_is_refused(
    client: Client, lobby: Room, ada: User, settings: Settings, make: Forge
) -> None:
    # A session does not make up for it: the token counts.
    client.force_login(ada)
    token = make(ada, settings.JWT_KEY)
    response = client.get(LOBBY, headers={"authorization": f"Bearer {token}"})
    assert response.status_code == 401
    assert response.json()["code"] == "invalid_token"
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_the_token_of_an_inactive_user_is_refused(client: Client, lobby: Room, ada: User) -> None:
    headers = bearer(ada)
    User.objects.update(is_active=False)
    assert client.get(LOBBY, headers=headers).status_code == 401


def test_a_key_can_be_exchanged_without_ending_a_token(
    client: Client, lobby: Room, ada: User, settings: Settings
) -> None:
    headers = bearer(ada)
    settings.JWT_KEY_FALLBACKS = [settings.JWT_KEY]
    settings.JWT_KEY = OTHER_KEY
    assert client.get(LOBBY, headers=headers).status_code == 200
    assert client.get(LOBBY, headers=bearer(ada)).status_code == 200
    settings.JWT_KEY_FALLBACKS = []
    assert client.get(LOBBY, headers=headers).status_code == 401
    assert client.get(LOBBY, headers=bearer(ada)).status_code == 200


async def test_a_token_opens_a_socket(sockets: Sockets, ada: User, bob: User) -> None:
    token, _ = await database_sync_to_async(tokens.issue)(ada.pk)
    # With the session of another: the token counts.
    socket = await sockets.make(f"/ws/chat/lobby/?token={token}", bob)
    assert (await socket.connect())["type"] == "websocket.accept"
    assert (await socket.receive_until("presence"))["users"] == ["ada"]


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
async def test_a_wrong_token_opens_no_socket(
    sockets: Sockets, ada: User, settings: Settings, make: Forge
) -> None:
    token = make(ada, settings.JWT_KEY)
    socket = await sockets.make(f"/ws/chat/lobby/?token={token}", ada)
    assert (await socket.connect())["type"] == "websocket.accept"
    assert await socket.close_code() == 4001


async def test_a_token_is_in_no_log(
    sockets: Sockets, client: Client, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good, _ = await database_sync_to_async(tokens.issue)(ada.pk)
    wrong = forge(ada, OTHER_KEY)
    for token in (good, wrong):
        socket = await sockets.make(f"/ws/chat/lobby/?token={token}")
        await socket.connect()
        headers = {"authorization": f"Bearer {token}"}
        await database_sync_to_async(client.get)(LOBBY, headers=headers)
        assert token not in caplog.text
    assert "/api/rooms/lobby/messages/" in caplog.text


def test_messages_are_read(
    client: Client, lobby: Room, ada: User, bob: User, say: Callable[[str], int]
) -> None:
    for number in range(1, 252):
        say(f"message {number}")
    client.force_login(bob)
    answer = client.get(LOBBY).json()
    assert [message["sequence"] for message in answer["messages"]] == list(range(202, 252))
    assert answer["sequence"] == 251
    newest = answer["messages"][-1]
    del newest["sent_at"]
    assert newest == {
        "sequence": 251,
        "room": "lobby",
        "user": "ada",
        "message": "message 251",
        "worker": "a-worker",
    }
    answer = client.get(LOBBY, {"after": 10}).json()
    assert [message["sequence"] for message in answer["messages"]] == list(range(11, 211))
    assert answer["sequence"] == 210
    answer = client.get(LOBBY, {"after": 251}).json()
    assert answer == {"messages": [], "sequence": 251}


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "", "9" * 19, "٣"])
def test_a_wrong_number_is_refused(client: Client, lobby: Room, ada: User, after: str) -> None:
    client.force_login(ada)
    response = client.get(LOBBY, {"after": after})
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_after"


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_room_is_for_those_who_may_enter(
    client: Client, lobby: Room, ada: User, bob: User, method: str
) -> None:
    den = Room.objects.create(name="den", title="Den", is_private=True)
    den.members.add(ada)
    options = {"data": {"message": "hello"}, "content_type": "application/json"}

    def status(path: str) -> int:
        response = getattr(client, method)(path, **(options if method == "post" else {}))
        assert response.headers["Content-Type"] == "application/json"
        return int(response.status_code)

    assert status(LOBBY) == 401
    client.force_login(bob)
    assert status("/api/rooms/den/messages/") == 404
    assert status("/api/rooms/nowhere/messages/") == 404
    client.force_login(ada)
    assert status("/api/rooms/den/messages/") == (200 if method == "get" else 201)


@pytest.fixture
def deleted_meanwhile(lobby: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete the room after it has been found, and before anything is done in it."""
    make = MessageHistory.__init__

    def delete_and_make(history: MessageHistory, room_id: int) -> None:
        Room.objects.filter(pk=room_id).delete()
        make(history, room_id)

    monkeypatch.setattr(MessageHistory, "__init__", delete_and_make)


@pytest.mark.usefixtures("deleted_meanwhile")
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_room_that_is_deleted_meanwhile_is_unknown(
    client: Client, ada: User, method: str
) -> None:
    client.force_login(ada)
    content = {"message": "hello"}
    response = client.get(LOBBY) if method == "get" else post(client, LOBBY, content)
    assert response.status_code == 404
    assert response.json()["code"] == "unknown_room"


async def test_what_is_posted_is_said_in_the_room(
    sockets: Sockets, client: Client, ada: User, bob: User
) -> None:
    socket, _ = await sockets.join(bob)
    headers = await database_sync_to_async(bearer)(ada)
    content = {"message": "hello", "client_id": "mine"}
    response = await database_sync_to_async(post)(client, LOBBY, content, headers=headers)
    assert response.status_code == 201
    frame = await socket.receive_until("message")
    assert frame == {"type": "message", **response.json()}
    assert frame["user"] == "ada"
    assert frame["client_id"] == "mine"
    again = await database_sync_to_async(post)(client, LOBBY, content, headers=headers)
    assert again.status_code == 201
    assert again.json() == response.json()
    # Nobody is told of it twice.
    await socket.act("ping")
    assert (await socket.receive())["type"] == "pong"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("hello", "malformed_json"),
        ("[]", "not_an_object"),
        ({}, "wrong_type"),
        ({"message": " "}, "empty_message"),
        ({"message": "x" * 2001}, "message_too_long"),
        ({"message": "a\0"}, "invalid_text"),
        ({"message": "hello", "client_id": ""}, "invalid_client_id"),
        ({"message": "hello", "delay": 0}, "wrong_type"),
        ({"message": "hello", "delay": 3601}, "wrong_type"),
        ({"message": "hello", "delay": "5"}, "wrong_type"),
        ({"message": "hello", "delay": True}, "wrong_type"),
        ({"message": " ", "delay": 5}, "empty_message"),
    ],
)
def test_a_wrong_message_is_refused(
    client: Client, lobby: Room, ada: User, content: Any, code: str
) -> None:
    client.force_login(ada)
    response = post(client, LOBBY, content)
    assert response.status_code == 400
    assert response.json()["code"] == code
    assert response.json()["error"]
    assert not Message.objects.exists()


def test_a_session_needs_its_csrf_token_to_write(lobby: Room, ada: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert client.get(LOBBY).status_code == 200
    response = post(client, LOBBY, {"message": "hello"})
    assert response.status_code == 403
    assert response.json()["code"] == "csrf_failed"
    assert not Message.objects.exists()
    client.get("/")
    csrf_token = client.cookies["csrftoken"].value
    response = post(client, LOBBY, {"message": "hello"}, headers={"x-csrftoken": csrf_token})
    assert response.status_code == 201


def test_a_token_needs_no_csrf_token_to_write(lobby: Room, ada: User) -> None:
    client = Client(enforce_csrf_checks=True)
    assert post(client, LOBBY, {"message": "hello"}, headers=bearer(ada)).status_code == 201


@pytest.fixture
def with_broker(settings: Settings) -> None:
    """Have what is for later wait until somebody looks for it."""
    settings.CELERY_TASK_ALWAYS_EAGER = False


@pytest.mark.usefixtures("with_broker", "no_broker")
def test_a_delayed_message_is_kept_in_the_database(client: Client, lobby: Room, ada: User) -> None:
    """With the broker away, too."""
    client.force_login(ada)
    response = post(client, LOBBY, {"message": "hello", "delay": 3600})
    assert response.status_code == 202
    promised = LaterMessage.objects.get()
    assert response.json() == {"task": str(promised.pk)}
    assert timedelta(minutes=59) < promised.due_at - datetime.now(UTC) < timedelta(minutes=61)
    deliver_later_messages()
    assert not Message.objects.exists()
    LaterMessage.objects.update(due_at=ago(seconds=1))
    # Twice, as it may run.
    for _ in range(2):
        deliver_later_messages()
    message = Message.objects.get()
    assert (message.text, message.user, message.room) == ("hello", ada, lobby)
    assert not LaterMessage.objects.exists()


@pytest.mark.usefixtures("with_broker")
def test_a_promise_that_is_given_twice_is_one(client: Client, lobby: Room, ada: User) -> None:
    client.force_login(ada)
    content = {"message": "hello", "client_id": "mine", "delay": 3600}
    answers = [post(client, LOBBY, content).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert LaterMessage.objects.count() == 1


@pytest.mark.usefixtures("with_broker")
def test_one_that_fails_holds_up_no_other(
    client: Client, lobby: Room, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.force_login(ada)
    for text in ("bad", "good"):
        post(client, LOBBY, {"message": text, "delay": 1})
    LaterMessage.objects.update(due_at=ago(seconds=1))
    say = vars(later)["post"]

    def fail(room: Room, person: Person, text: str, **options: Any) -> Any:
        if text == "bad":
            raise LookupError("of no interest")
        return say(room, person, text, **options)

    monkeypatch.setattr("chat.later.post", fail)
    later.deliver()
    assert Message.objects.get().text == "good"
    # It is not forgotten.
    monkeypatch.undo()
    later.deliver()
    assert [message.text for message in Message.objects.order_by("pk")] == ["good", "bad"]


def test_a_delayed_message_of_a_former_release_is_said_once(lobby: Room, ada: User) -> None:
    for _ in range(2):
        post_later(lobby.pk, ada.pk, "hello", "mine")
    assert Message.objects.get().text == "hello"


def test_a_delayed_message_keeps_its_client_id(client: Client, lobby: Room, ada: User) -> None:
    client.force_login(ada)
    content = {"message": "hello", "client_id": "mine", "delay": 1}
    assert post(client, LOBBY, content).status_code == 202
    assert post(client, LOBBY, content).status_code == 202
    assert Message.objects.get().client_id == "mine"


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tasks sent to a broker that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setitem(celery_app.conf, "task_always_eager", False)
    monkeypatch.setitem(celery_app.conf, "broker_write_url", f"redis://127.0.0.1:{port}/0")
    # Its connections are made once, to the broker there is at that time.
    monkeypatch.setattr(celery_app.amqp, "_producer_pool", None)
    monkeypatch.setattr(celery_app, "_pool", None)


@pytest.mark.parametrize("change", ["deactivate", "delete the room", "remove the member"])
def test_a_delayed_message_of_who_may_say_it_no_longer_is_dropped(
    lobby: Room, ada: User, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    lobby_id = lobby.pk
    match change:
        case "deactivate":
            User.objects.update(is_active=False)
        case "delete the room":
            lobby.delete()
        case "remove the member":
            Room.objects.update(is_private=True)
    post_later(lobby_id, ada.pk, "hello", "mine")
    assert not Message.objects.exists()
    assert "message dropped" in caplog.text


@pytest.mark.parametrize("change", ["deactivate", "delete the room", "remove the member"])
@pytest.mark.usefixtures("with_broker")
def test_a_promise_to_who_may_say_it_no_longer_is_dropped(
    client: Client, lobby: Room, ada: User, change: str
) -> None:
    client.force_login(ada)
    assert post(client, LOBBY, {"message": "hello", "delay": 1}).status_code == 202
    match change:
        case "deactivate":
            User.objects.update(is_active=False)
        case "delete the room":
            lobby.delete()
        case "remove the member":
            Room.objects.update(is_private=True)
    LaterMessage.objects.update(due_at=ago(seconds=1))
    later.deliver()
    assert not Message.objects.exists()
    assert not LaterMessage.objects.exists()


@pytest.mark.usefixtures("deleted_meanwhile")
def test_a_delayed_message_to_a_room_that_is_deleted_meanwhile_is_dropped(
    lobby: Room, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    post_later(lobby.pk, ada.pk, "hello", "mine")
    assert "message dropped" in caplog.text
