from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("path", ["/", "/rooms/lobby/", "/rooms/attic/", "/orders/"])
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


@pytest.mark.parametrize("path", ["/", "/login/", "/rooms/lobby/", "/orders/"])
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


def new_room(client: Client, title: str, **fields: str) -> Room:
    """Make a room with the form of the list, and return it."""
    response = client.post("/", {"title": title, **fields})
    assert response.status_code == 302
    name = response.headers["Location"].removeprefix("/rooms/").removesuffix("/")
    return Room.objects.get(name=name)


def test_a_new_room_has_a_name_made_of_its_title(member: Client) -> None:
    room = new_room(member, "The Analytical Engine!")
    assert (room.name, room.is_private) == ("the-analytical-engine", False)
    assert room.created_by == User.objects.get(username="ada")
    assert member.get(room.get_absolute_url()).status_code == 200


@pytest.mark.parametrize("title", ["Tea", "\N{SNOWMAN}", "x" * 100])
def test_two_rooms_of_one_title_have_two_names(member: Client, title: str) -> None:
    first, second = new_room(member, title), new_room(member, title)
    assert first.name != second.name
    assert len(second.name) <= 64


@pytest.mark.parametrize("title", ["", "  ", "x" * 101])
def test_a_room_needs_a_title(member: Client, title: str) -> None:
    response = member.post("/", {"title": title})
    assert response.status_code == 200
    assert response.context["form"].errors.keys() == {"title"}


def test_a_private_room_is_shown_to_its_members_alone(member: Client) -> None:
    room = new_room(member, "Cellar", is_private="on")
    assert room.name in [room.name for room in member.get("/").context["rooms"]]
    for is_staff in (False, True):
        stranger = Client()
        user = User.objects.create_user(f"staff-{is_staff}", is_staff=is_staff)
        stranger.force_login(user)
        assert room.name not in [room.name for room in stranger.get("/").context["rooms"]]
        assert stranger.get(room.get_absolute_url()).status_code == 404
        change = {"username": user.username, "action": "add"}
        assert stranger.post("/rooms/cellar/members/", change).status_code == 404


def test_a_public_room_has_no_members_to_change(member: Client, room: Room) -> None:
    change = {"username": "ada", "action": "add"}
    assert member.post("/rooms/lobby/members/", change).status_code == 404


def test_members_add_members_and_who_made_the_room_removes_them(member: Client) -> None:
    room = new_room(member, "Cellar", is_private="on")
    bob, _ = User.objects.create_user("bob"), User.objects.create_user("carl")

    def change(client: Client, username: str, action: str) -> list[str]:
        """Return the names of the members after it, as the room's page then shows them."""
        response = client.post(
            "/rooms/cellar/members/", {"username": username, "action": action}, follow=True
        )
        assert response.status_code == 200
        assert len(response.context["messages"]) == 1
        members: list[str] = response.context["members"]
        return members

    assert change(member, "bob", "add") == ["ada", "bob"]
    other = Client()
    other.force_login(bob)
    assert change(other, "carl", "add") == ["ada", "bob", "carl"]
    assert change(other, "carl", "remove") == ["ada", "bob", "carl"]
    assert change(member, "carl", "remove") == ["ada", "bob"]
    assert change(member, "nobody", "add") == ["ada", "bob"]
    assert change(member, "bob", "dance") == ["ada", "bob"]
    assert room.members.count() == 2


def test_the_list_takes_the_same_queries_for_many_rooms(
    member: Client, django_assert_num_queries: Any
) -> None:
    Room.objects.bulk_create(Room(name=f"room-{n}", title=f"Room {n}") for n in range(20))
    # The session, the user, and the rooms.
    with django_assert_num_queries(3):
        assert len(member.get("/").context["rooms"]) >= 20
