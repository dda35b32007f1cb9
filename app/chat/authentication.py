"""Who opens a socket: the user of a session's cookie, or of a token."""

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
)
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.http import parse_cookie
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from chat import tokens
from chat.authenticated import Credential
from chat.gathered import Gathered
from chat.people import Person

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Found = tuple[Person | None, Credential | None]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

NOBODY: Found = (None, None)


class SocketAuthentication:
    """Puts the person who opens a socket into ``scope["user"]``, None where there is none.

    What they opened it with is in ``scope["credential"]``, for ``AuthenticatedSocketMixin``.

    This stands in for Channels' ``AuthMiddlewareStack``, for two reasons. That one keeps the
    session, the user, the cookies and all headers in the scope for as long as the socket is open,
    several kilobytes each. And it does not know SECRET_KEY_FALLBACKS: while that key is exchanged,
    it would end every session that was opened under the old one. Here a session is only read; it is
    not renewed either, as Django's own ``get_user`` does then, for a socket can set no cookie.

    Args:
        application: what is run with the scope.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one socket."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        token = query.pop("token", None)
        cookies = _cookies(scope)
        # Written into the server's own scope on purpose: the server holds it as long as the socket
        # is open, and headers are most of it. Without its token no log can show the query either.
        scope["headers"] = []
        scope["query_string"] = urlencode(query).encode("latin-1")
        if token is not None:
            found = await of_token(token)
        else:
            found = await of_session(cookies.get(settings.SESSION_COOKIE_NAME, ""))
        scope["user"], scope["credential"] = found
        del cookies, query, token
        await self._application(scope, receive, send)


def _cookies(scope: Scope) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"cookie":
            return parse_cookie(value.decode("latin-1"))
    return {}


def _of_tokens(shown: Collection[str]) -> dict[str, Found]:
    return {
        token: (_person(user), Credential.of(user, expires_at=expires_at))
        for token, (user, expires_at) in tokens.users_of(shown).items()
    }


def _of_sessions(keys: Collection[str]) -> dict[str, Found]:
    """Return whose sessions they are, as ``django.contrib.auth.get_user`` finds out."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    sessions = {key: store(key) for key in keys}
    if issubclass(store, DatabaseSessions):
        kept = store.get_model_class()._default_manager
        kept = kept.filter(session_key__in=keys, expire_date__gt=timezone.now())
        data = dict(kept.values_list("session_key", "session_data"))
        contents = {key: sessions[key].decode(data[key]) for key in data}
    else:
        contents = {key: dict(session.items()) for key, session in sessions.items()}
    users = get_user_model()._default_manager
    known = users.in_bulk({content.get(SESSION_KEY) for content in contents.values()} - {None})
    found: dict[str, Found] = {}
    for key, content in contents.items():
        if content.get(BACKEND_SESSION_KEY) not in settings.AUTHENTICATION_BACKENDS:
            continue
        user = known.get(get_user_model()._meta.pk.to_python(content[SESSION_KEY]))
        if user is None or not user.is_active:
            continue
        # The hash of the user's password, by which a new password ends the sessions of the old one.
        session_hash = content.get(HASH_SESSION_KEY, "")
        valid = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
        if any(constant_time_compare(session_hash, candidate) for candidate in valid):
            found[key] = (_person(user), Credential.of(user, session_key=key))
    return found


def _person(user: Any) -> Person:
    return Person(user.pk, user.get_username())


of_session = Gathered(_of_sessions, NOBODY)
"""Returns whose session a key is."""

of_token = Gathered(_of_tokens, NOBODY)
"""Returns whose token it is."""
