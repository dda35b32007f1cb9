import socket
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from chat import protocol
from chat.models import Room
from chat.people import Person
from chat.post import post
from chat.protocol import ProtocolError

ANNOUNCER = "announcements"


class Command(BaseCommand):
    """Posts a message in a room, from a shell."""

    help = "Post TEXT in ROOM."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("room", metavar="ROOM", help="name of the room")
        parser.add_argument("text", metavar="TEXT", help="text of the message")
        parser.add_argument(
            "--user",
            default=ANNOUNCER,
            help=f"author of the message (default: {ANNOUNCER}, created if missing)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Post the message and print its number."""
        room = Room.objects.filter(name=options["room"]).first()
        if room is None:
            names = ", ".join(Room.objects.order_by("name").values_list("name", flat=True))
            raise CommandError(f"No room {options['room']!r}. Rooms: {names}")
        try:
            text = protocol.parse_text(options["text"])
        except ProtocolError as error:
            raise CommandError(str(error)) from None
        user = _user(options["user"])
        person = Person(user.pk, user.get_username())
        body = post(room, person, text, worker=f"announce@{socket.gethostname()}"[:100])
        self.stdout.write(f"{room.name} {body['sequence']}")


def _user(name: str) -> User:
    user = User.objects.filter(username=name).first()
    if user is not None:
        return user
    if name != ANNOUNCER:
        raise CommandError(f"No user {name!r}. Only {ANNOUNCER} is created if missing.")
    # Without a password, so that nobody can log in with this name.
    return User.objects.create_user(name)
