"""JSON Web Tokens: what a client without a session shows instead of one.

A token carries a stamp of its user's password, so that a new password ends it.

The first key signs and all keys verify, so that a key can be exchanged without ending a token. They
are not SECRET_KEY: who learns one cannot forge a session, and either can be exchanged alone.
"""

import hmac
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

import jwt
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.crypto import constant_time_compare

from chat.people import Person

ALGORITHM = "HS256"

LEEWAY = 10
"""Seconds by which the clocks of two hosts may differ."""


class InvalidToken(Exception):  # noqa: N818 - a thing that is shown, not a fault of the program
    """The token is forged, expired, or of somebody who may not enter. Says nothing of it."""


def issue(user_id: int) -> tuple[str, datetime]:
    """Return a token for a user, and when it expires. Uses the database and blocks."""
    issued_at = datetime.now(UTC).replace(microsecond=0)
    expires_at = issued_at + timedelta(seconds=settings.JWT_LIFETIME)
    key = settings.JWT_KEY
    claims = {
        "sub": str(user_id),
        "iat": issued_at,
        "exp": expires_at,
        "pwd": _stamp(User.objects.get(pk=user_id), key),
    }
    token = jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": _key_id(key)})
    return token, expires_at


def verify(token: str) -> Person:
    """Return whose token it is.

    Uses the database and blocks.

    Raises:
        InvalidToken: it is not one of ours, has expired, is from before its user's password, or its
            user is not active.
    """
    found = users_of([token]).get(token)
    if found is None:
        raise InvalidToken
    user, _ = found
    return Person(user.pk, user.get_username())


def users_of(tokens: Collection[str]) -> dict[str, tuple[User, float]]:
    """Return whose tokens they are, and when each expires in seconds since 1970.

    Uses the database and blocks. One that ``verify`` would refuse is missing.
    """
    keys = {_key_id(key): key for key in (settings.JWT_KEY, *settings.JWT_KEY_FALLBACKS)}
    claims = {token: claim for token in tokens if (claim := _read(token, keys)) is not None}
    ids = {claim.user_id for claim in claims.values()}
    users = User.objects.filter(is_active=True).in_bulk(ids)
    return {
        token: (users[claim.user_id], claim.expires_at)
        for token, claim in claims.items()
        if claim.user_id in users and claim.is_of(users[claim.user_id])
    }


class _Claim(NamedTuple):
    """What a token says, by the key that signed it."""

    user_id: int
    expires_at: float
    stamp: str | None
    key: str

    def is_of(self, user: User) -> bool:
        """Return whether the user's password is the one that it was issued for."""
        # Workers of the former release, beside which this one runs while it is rolled out, issue
        # tokens without a stamp. Nobody else can.
        return self.stamp is None or constant_time_compare(self.stamp, _stamp(user, self.key))


def _read(token: str, keys: Mapping[str, str]) -> _Claim | None:
    """Return what a token says; None if it is not one of ours, or has expired."""
    try:
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(
            token,
            key,
            # Pinned: what the token itself says of it is the forger's choice.
            algorithms=[ALGORITHM],
            options={"require": ["exp", "iat", "sub"]},
            leeway=LEEWAY,
        )
        user_id = User._meta.pk.to_python(claims["sub"])
        User._meta.pk.run_validators(user_id)  # the database refuses a larger number
    except (jwt.InvalidTokenError, KeyError, ValueError, ValidationError):
        # Not told on: an error may repeat the token.
        return None
    stamp = claims.get("pwd")
    return _Claim(user_id, float(claims["exp"]), None if stamp is None else str(stamp), key)


def _stamp(user: User, key: str) -> str:
    """Return what changes with a user's password, and says nothing of it."""
    # By the key of the token, not by SECRET_KEY: that one may be exchanged meanwhile.
    return hmac.new(key.encode(), f"password {user.password}".encode(), sha256).hexdigest()[:16]


def _key_id(key: str) -> str:
    """Return the name of a key in the header of its tokens."""
    return sha256(key.encode()).hexdigest()[:8]
