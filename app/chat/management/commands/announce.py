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
    """Says something in a room, from a shell."""

    help = "Say TEXT in ROOM."

    def add_arguments(self, parser: CommandParser) -> None:
        """Name the arguments."""
        parser.add_argument("room", metavar="ROOM", help="the name of the room")
        parser.add_argument("text", metavar="TEXT", help="what is said")
        parser.add_argument(
            "--user", default=ANNOUNCER, help=f"who says it (default: {ANNOUNCER}, made on demand)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Say it, and tell the number it has."""
        room = Room.objects.filter(name=options["room"]).first()
        if room is None:
            names = ", ".join(Room.objects.order_by("name").values_list("name", flat=True))
            raise CommandError(f"There is no room {options['room']!r}; there are: {names}")
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
        raise CommandError(f"There is no user {name!r}; only {ANNOUNCER} is made on demand.")
    # Without a password, that nobody logs in by this name.
    return User.objects.create_user(name)
