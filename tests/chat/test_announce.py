"""``manage.py announce``: something is said in a room, from a shell."""

from io import StringIO

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from chat.models import Message, Room
from tests.chat.sockets import Sockets


def announce(*arguments: str) -> str:
    """Run the command and return what it prints."""
    output = StringIO()
    call_command("announce", *arguments, stdout=output)
    return output.getvalue()


async def test_the_room_hears_an_announcement(sockets: Sockets, ada: User) -> None:
    socket, _ = await sockets.join(ada)
    assert await database_sync_to_async(announce)("lobby", "Tea is ready.") == "lobby 1\n"
    frame = await socket.receive()
    said = (frame["sequence"], frame["user"], frame["message"])
    assert said == (1, "announcements", "Tea is ready.")
    assert frame["worker"].startswith("announce@")


def test_nobody_can_log_in_as_the_announcer(lobby: Room) -> None:
    assert [announce("lobby", text) for text in ("one", "two")] == ["lobby 1\n", "lobby 2\n"]
    assert not User.objects.get(username="announcements").has_usable_password()


def test_a_user_can_be_named(lobby: Room, ada: User) -> None:
    announce("lobby", "hello", "--user", "ada")
    assert Message.objects.get().user == ada
    assert not User.objects.filter(username="announcements").exists()


def test_a_private_room_can_be_told_too(lobby: Room) -> None:
    Room.objects.create(name="cellar", title="Cellar", is_private=True)
    assert announce("cellar", "hello") == "cellar 1\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("attic", "hello"), "No room 'attic'. Rooms: lobby"),
        (("lobby", "hello", "--user", "eve"), "No user 'eve'. Only announcements is created"),
        (("lobby", " "), "The message is empty."),
        (("lobby", "x" * 2001), "The message has 2001 characters; 2000 are allowed."),
        (("lobby", "a\0"), "The message has a null character"),
    ],
)
def test_a_mistake_is_told_and_nothing_said(
    lobby: Room, arguments: tuple[str, ...], error: str
) -> None:
    with pytest.raises(CommandError) as caught:
        announce(*arguments)
    assert str(caught.value).startswith(error)
    assert not Message.objects.exists()
    assert not User.objects.exists()
