from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from chat.models import Room

STATIC = Path(__file__).parents[2] / "app/chat/static/chat"

pytestmark = pytest.mark.django_db


@pytest.fixture
def member(client: Client) -> Client:
    client.force_login(User.objects.create_user("ada"))
    return client


@pytest.fixture
def room() -> Room:
    return Room.objects.get_or_create(name="lobby", defaults={"title": "Lobby"})[0]


@pytest.mark.django_db(transaction=True)
def test_a_migration_makes_the_first_rooms() -> None:
    Room.objects.all().delete()
    call_command("migrate", "chat", "0001", verbosity=0)
    call_command("migrate", "chat", verbosity=0)
    assert list(Room.objects.values_list("name", flat=True).order_by("name")) == ["lobby", "random"]


@pytest.mark.parametrize("path", ["/", "/rooms/lobby/", "/rooms/attic/"])
def test_pages_need_a_login(client: Client, room: Room, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 302
    assert response.headers["Location"] == f"/login/?next={path}"


def test_login_leads_to_the_page_that_was_asked_for(client: Client, room: Room) -> None:
    User.objects.create_user("ada", password="enchantress")
    assert 'name="next" value="/rooms/lobby/"' in client.get("/login/?next=/rooms/lobby/").text
    login = {"username": "ada", "password": "enchantress", "next": "/rooms/lobby/"}
    response = client.post("/login/", login)
    assert response.headers["Location"] == "/rooms/lobby/"
    assert client.get("/rooms/lobby/").status_code == 200


def test_a_wrong_password_is_told(client: Client) -> None:
    response = client.post("/login/", {"username": "ada", "password": "wrong"})
    assert "Please enter a correct username and password" in response.text


def test_the_list_shows_every_room(member: Client, room: Room) -> None:
    Room.objects.create(name="attic", title="<Attic>")
    page = member.get("/").text
    assert "/rooms/lobby/" in page
    assert "&lt;Attic&gt;" in page


def test_the_room_page_tells_its_script_where_to_connect(member: Client, room: Room) -> None:
    page = member.get("/rooms/lobby/").text
    assert 'data-socket="/ws/chat/lobby/"' in page
    assert 'data-user="ada"' in page


def test_an_unknown_room_is_not_found(member: Client) -> None:
    assert member.get("/rooms/attic/").status_code == 404


def test_logging_out_takes_a_post(member: Client) -> None:
    assert member.get("/logout/").status_code == 405
    assert member.post("/logout/").headers["Location"] == "/login/"
    assert member.get("/").status_code == 302


@pytest.mark.parametrize("path", ["/", "/login/", "/rooms/lobby/", "/nowhere/", "/admin/login/"])
def test_every_page_allows_only_its_own_origin(member: Client, room: Room, path: str) -> None:
    policy = member.get(path).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/login/", "/rooms/lobby/"])
def test_pages_have_nothing_inline(member: Client, room: Room, path: str) -> None:
    if path == "/login/":
        member.logout()
    page = member.get(path).text
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in [part[:3] for part in page.split('="')]
    assert page.count("<script") == page.count('<script type="module" src="/static/')


def test_tls_at_the_edge_is_known_from_its_header(client: Client) -> None:
    response = client.get("/login/", headers={"x-forwarded-proto": "https"})
    assert response.wsgi_request.is_secure()
    assert not client.get("/login/").wsgi_request.is_secure()


@pytest.mark.parametrize("name", ["chat.css", "room.js", "connection.js", "favicon.svg"])
def test_static_files_are_served(client: Client, name: str) -> None:
    response = client.get(f"{settings.STATIC_URL}chat/{name}")
    assert response.status_code == 200
    assert response.content == (STATIC / name).read_bytes()
    assert not response.streaming  # Django's ASGI handler warns of a stream that is not async


def test_the_admin_cannot_write_a_message(client: Client) -> None:
    client.force_login(User.objects.create_superuser("root"))
    assert client.get("/admin/chat/message/").status_code == 200
    assert client.get("/admin/chat/room/").status_code == 200
    assert client.get("/admin/chat/message/add/").status_code == 403
