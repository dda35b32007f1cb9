"""JSON Web Tokens: what a client without a session shows instead of one.

The first key signs and all keys verify, so that a key can be exchanged without ending a token. They
are not SECRET_KEY: who learns one cannot forge a session, and either can be exchanged alone.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import jwt
from django.conf import settings
from django.contrib.auth.models import User

from chat.people import Person

ALGORITHM = "HS256"

LEEWAY = 10
"""Seconds by which the clocks of two hosts may differ."""


class InvalidToken(Exception):  # noqa: N818 - a thing that is shown, not a fault of the program
    """The token is forged, expired, or of somebody who may not enter. Says nothing of it."""


def issue(user_id: int) -> tuple[str, datetime]:
    """Return a token for a user, and when it expires."""
    issued_at = datetime.now(UTC).replace(microsecond=0)
    expires_at = issued_at + timedelta(seconds=settings.JWT_LIFETIME)
    claims = {"sub": str(user_id), "iat": issued_at, "exp": expires_at}
    key = settings.JWT_KEY
    token = jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": _key_id(key)})
    return token, expires_at


def verify(token: str) -> Person:
    """Return whose token it is.

    Uses the database and blocks.

    Raises:
        InvalidToken: it is not one of ours, has expired, or its user is not active.
    """
    keys = {_key_id(key): key for key in (settings.JWT_KEY, *settings.JWT_KEY_FALLBACKS)}
    try:
        claims = jwt.decode(
            token,
            keys[jwt.get_unverified_header(token)["kid"]],
            # Pinned: what the token itself says of it is the forger's choice.
            algorithms=[ALGORITHM],
            options={"require": ["exp", "iat", "sub"]},
            leeway=LEEWAY,
        )
        user = User.objects.get(pk=int(claims["sub"]), is_active=True)
    except (jwt.InvalidTokenError, KeyError, ValueError, OverflowError, User.DoesNotExist):
        # Without its cause: that one may repeat the token.
        raise InvalidToken from None
    return Person(user.pk, user.get_username())


def _key_id(key: str) -> str:
    """Return the name of a key in the header of its tokens."""
    return sha256(key.encode()).hexdigest()[:8]
