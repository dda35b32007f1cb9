"""Keeps secrets out of what an examination says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "(not shown)"

SECRET_NAME = re.compile(
    r"API|AUTH|CREDENTIAL|DSN|KEY|PASS|PRIVATE|PWD|SALT|SECRET|SIGNATURE|TOKEN", re.IGNORECASE
)
"""Names of variables and settings whose values are secrets."""

PUBLIC = frozenset(
    {
        "ALLOWED_HOSTS",
        "CHANNELS_KIT_ALLOWED_HOSTS",
        "CHANNELS_KIT_APPLICATION",
        "CHANNELS_KIT_COLLECTS_FROM",
        "CHANNELS_KIT_MEDIA_ROOT",
        "CHANNELS_KIT_ORIGINS",
        "CHANNELS_KIT_SETTINGS",
        "CHANNELS_KIT_STATIC_ROOT",
        "CSRF_TRUSTED_ORIGINS",
        "DJANGO_ALLOWED_HOSTS",
        "DJANGO_SETTINGS_MODULE",
        "HOME",
        "LANG",
        "PATH",
        "POSTGRES_DB",
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "POSTGRES_USER",
        "PYTHONPATH",
    }
)
"""Variables whose values may be shown wherever they come up."""

PLAIN = re.compile(
    r"(?:^|_)(?:ADDRESS|DATABASE|DB|DEBUG|HOSTS?|HOSTNAME|MODULE|NAMES?|ORIGINS?|PORT|ROOT|USER"
    r"|ZONE)$"
)
"""Names of variables whose values are places and names."""

LONG_ENOUGH = 6
"""Shorter texts come up by chance: ``5432``, ``true``."""

URL = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@\"']*@", re.IGNORECASE)


class Scrubber:
    """Replaces secrets in texts.

    Args:
        environment: the application's variables. Any value may be a secret, whatever its name is:
            what the application itself says is searched for all of them.
        secrets: further ones, of its settings.
    """

    def __init__(self, environment: Mapping[str, str], secrets: Iterable[str] = ()) -> None:
        named = [value for name, value in environment.items() if SECRET_NAME.search(name)]
        passwords = [part for value in environment.values() for part in _passwords(value)]
        others = [
            value
            for name, value in environment.items()
            if name not in PUBLIC and not PLAIN.search(name)
        ]
        self._secrets = _spellings([*named, *passwords, *secrets], LONG_ENOUGH)
        self._values = _spellings([*named, *passwords, *secrets, *others], LONG_ENOUGH)

    def own(self, text: str) -> str:
        """Return a text of this program's without what is known to be secret."""
        return _without(text, self._secrets)

    def foreign(self, text: str) -> str:
        """Return a text of the application's without any value that it was given."""
        return _without(text, self._values)


def _passwords(value: str) -> list[str]:
    """Return the user's part of a URL."""
    try:
        parts = urlsplit(value)
        found = [parts.password, parts.netloc.rpartition("@")[0]]
    except ValueError:
        return []
    return [text for part in found if part for text in (part, unquote(part))]


def _spellings(secrets: Iterable[str], length: int) -> list[str]:
    """Return secrets as they may be written, the longest first: one may be a part of another."""
    found = set()
    for secret in secrets:
        if len(secret) >= length:
            found |= {secret, quote(secret, safe=""), repr(secret)[1:-1], secret.strip()}
    return sorted((each for each in found if len(each) >= length), key=len, reverse=True)


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return URL.sub(rf"\1{HIDDEN}@", text)
