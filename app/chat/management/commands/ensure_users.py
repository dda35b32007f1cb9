import json
import sys
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

USERNAME_MAX_LENGTH = 150


class Command(BaseCommand):
    """Creates users and updates their passwords; a second run changes nothing."""

    help = 'Create and update users. Reads a JSON object {"name": "password", ...} from stdin.'

    def handle(self, *args: Any, **options: Any) -> None:
        """Create or update each user and print what was done; on an error change nothing."""
        users = _parse(sys.stdin.read())
        with transaction.atomic():
            lines = [f"{_ensure(name, password)} {name}" for name, password in users.items()]
        for line in lines:
            self.stdout.write(line)


def _parse(text: str) -> dict[str, str]:
    """Return the users of the JSON object. Errors show no password."""
    try:
        users = json.loads(text)
    except ValueError:
        raise CommandError("stdin is not JSON.") from None
    if not isinstance(users, dict):
        raise CommandError('stdin is not a JSON object {"name": "password", ...}.')
    for name, password in users.items():
        try:
            UnicodeUsernameValidator()(name)
        except ValidationError as error:
            raise CommandError(f"{name!r}: {' '.join(error.messages)}") from None
        if len(name) > USERNAME_MAX_LENGTH:
            raise CommandError(f"{name!r} is longer than {USERNAME_MAX_LENGTH} characters.")
        if not isinstance(password, str) or not password:
            raise CommandError(f"The password of {name!r} is empty or not a string.")
    return users


def _ensure(name: str, password: str) -> str:
    """Create or update one user and return what was done."""
    user = User.objects.filter(username=name).first()
    if user is None:
        User.objects.create_user(name, password=password)
        return "created"
    # A new hash would end the user's sessions, and it differs each time.
    if user.check_password(password):
        return "unchanged"
    user.set_password(password)
    user.save(update_fields=["password"])
    return "updated"
