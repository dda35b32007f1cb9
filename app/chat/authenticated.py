"""Sockets that end with what they were opened with: a session, a token, a password, an account.

A socket lives for hours; who opened it is looked at once, in its handshake. So a user who has
logged out, or changed a password because somebody else knew it, would leave sockets behind that
still send. Here each process looks after the sockets it has:

- It looks into the database every few seconds, at all of them together. That is what counts.
- What is changed through Django is told over the channel layer as well, so that it takes no second.
  The layer may lose that, and nothing is lost but time.

This module needs Django and Channels alone. For an application of your own, copy it, let your
consumers begin with ``AuthenticatedSocketMixin``, and call ``connect_signals`` in
``AppConfig.ready``: docs/application.md.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import import_module
from typing import Any

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieSessions
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

logger = logging.getLogger(__name__)

GROUP = "authenticated.sockets"
"""The channel layer's group of all processes with such sockets."""

INTERVAL = 5.0
"""Seconds between two looks of a process at its sockets."""

SOCKETS_PER_SECOND = 500
"""Sockets a process looks at in a second: with many of them a round takes longer."""

AT_ONCE = 500
"""Sockets looked at in one visit to the database, which other queries wait for."""

TIMEOUT = 5.0
"""Seconds the layer has to take an event."""

END_TIMEOUT = 3.0
"""Seconds in which a socket ends that was closed; then its task is cancelled."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a socket was opened with.

    Attributes:
        user_id: the user's primary key.
        user_hash: of the user's password, as Django ends sessions by it. Of this process alone: it
            changes with SECRET_KEY.
        session_key: the session's, None where there was none.
        expires_at: when a token expires, in seconds since 1970; None where nothing does by itself.
    """

    user_id: Any
    user_hash: str
    session_key: str | None = None
    expires_at: float | None = None

    @classmethod
    def of(
        cls, user: Any, *, session_key: str | None = None, expires_at: float | None = None
    ) -> "Credential":
        """Return what a user shows."""
        return cls(user.pk, user.get_session_auth_hash(), session_key, expires_at)

    @classmethod
    def of_scope(cls, scope: Any) -> "Credential | None":
        """Return what a socket was opened with; None where nobody has logged in.

        That is ``scope["credential"]`` where there is one, else the user and the session that
        Channels' ``AuthMiddlewareStack`` leaves there.
        """
        if "credential" in scope:
            credential: Credential | None = scope["credential"]
            return credential
        user = scope.get("user")
        if not getattr(user, "is_authenticated", False):
            return None
        return cls.of(user, session_key=getattr(scope.get("session"), "session_key", None))


class AuthenticatedSocketMixin:
    """Ends a socket when what it was opened with does; goes before Channels' asynchronous consumer.

    Attributes:
        ended_code: the close code that its client gets.
        ended_reason: the reason, for people.
        ended: whether that has happened. Nothing is handled and nothing sent from then on.
    """

    ended_code = 4001
    ended_reason = "Log in again."
    ended = False
    _task: "asyncio.Task[Any] | None" = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Serve one socket from its handshake to its end."""
        self.credential = Credential.of_scope(scope)
        self._task = asyncio.current_task()
        if self.credential is not None:
            _watch.add(self)
        try:
            return await super().__call__(scope, receive, send)  # type: ignore[misc]
        except asyncio.CancelledError:
            if not self.ended or self._task is None or self._task.uncancel():
                raise
        finally:
            self._task = None
            if self.credential is not None:
                _watch.discard(self)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Handle an event, unless the socket has been ended."""
        if not self.ended or message["type"] == "websocket.disconnect":
            await super().dispatch(message)  # type: ignore[misc]

    async def send(self, *arguments: Any, **options: Any) -> None:
        """Send a frame, unless the socket has been ended."""
        if not self.ended:
            await super().send(*arguments, **options)  # type: ignore[misc]

    async def accept(self, *arguments: Any, **options: Any) -> None:
        """Accept the handshake, unless the socket has been ended."""
        if not self.ended:
            await super().accept(*arguments, **options)  # type: ignore[misc]

    async def close(self, *arguments: Any, **options: Any) -> None:
        """Close the socket, unless it has been ended."""
        if not self.ended:
            await super().close(*arguments, **options)  # type: ignore[misc]

    async def end(self) -> None:
        """Close the socket, whatever it is doing."""
        if self.ended:
            return
        self.ended = True
        task = self._task
        with suppress(Exception):
            async with asyncio.timeout(END_TIMEOUT):
                await super().close(self.ended_code, self.ended_reason)  # type: ignore[misc]
        # A client that does not answer the close would keep it.
        if task is not None:
            await asyncio.wait({task}, timeout=END_TIMEOUT)
            if self._task is not None:
                task.cancel()


class _Watch:
    """Looks after the sockets of this process."""

    def __init__(self) -> None:
        self._sockets: dict[Any, set[AuthenticatedSocketMixin]] = {}
        # What runs while there is a socket.
        self._running: list[asyncio.Task[None]] = []
        # Asyncio itself keeps no task from being collected.
        self._ending: set[asyncio.Task[None]] = set()

    def add(self, socket: AuthenticatedSocketMixin) -> None:
        """Take in a socket."""
        assert socket.credential is not None  # noqa: S101 - its caller has looked
        self._sockets.setdefault(socket.credential.user_id, set()).add(socket)
        if not self._running:
            self._running = [asyncio.create_task(self._run())]

    def discard(self, socket: AuthenticatedSocketMixin) -> None:
        """Let go of a socket."""
        assert socket.credential is not None  # noqa: S101 - as above
        sockets = self._sockets.get(socket.credential.user_id, set())
        sockets.discard(socket)
        if not sockets:
            self._sockets.pop(socket.credential.user_id, None)
        if not self._sockets:
            for task in self._running:
                task.cancel()
            self._running = []

    async def look(self, sockets: Collection[AuthenticatedSocketMixin]) -> None:
        """End those of some sockets whose credential has ended."""
        waiting = list(sockets)
        while waiting:
            batch, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
            credentials = {socket.credential for socket in batch if socket.credential}
            ended = await database_sync_to_async(ended_of)(credentials)
            self._end(socket for socket in batch if socket.credential in ended)

    def _all(self) -> list[AuthenticatedSocketMixin]:
        return [socket for sockets in self._sockets.values() for socket in sockets]

    def _end(self, sockets: Iterable[AuthenticatedSocketMixin]) -> None:
        # Not awaited: a client that does not read holds up no other.
        for socket in sockets:
            self._keep(socket.end())

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _run(self) -> None:
        layer = get_channel_layer()
        channel = await layer.new_channel()
        listening = asyncio.create_task(self._listen(layer, channel))
        try:
            while True:
                # Again each time: the layer forgets a group when its Redis restarts.
                await self._join(layer, channel)
                await asyncio.sleep(max(INTERVAL, len(self._all()) / SOCKETS_PER_SECOND))
                try:
                    await self.look(self._all())
                except Exception as error:
                    # The database is away, most likely; the next look makes up for it. The class
                    # only: the text of an error may hold a URL with a password.
                    logger.warning("could not look after sockets: %s", type(error).__name__)
        finally:
            listening.cancel()

    async def _join(self, layer: Any, channel: str) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await layer.group_add(GROUP, channel)
        except Exception as error:
            logger.warning("could not join %s: %s", GROUP, type(error).__name__)

    async def _listen(self, layer: Any, channel: str) -> None:
        while True:
            try:
                event = await layer.receive(channel)
                sockets = list(self._sockets.get(event["user"], ()))
                if event["session"] is None:
                    await self.look(sockets)
                else:
                    self._end(
                        socket
                        for socket in sockets
                        if socket.credential and _digest(socket.credential) == event["session"]
                    )
            except Exception as error:
                logger.warning("could not listen to %s: %s", GROUP, type(error).__name__)
                await asyncio.sleep(1)


_watch = _Watch()


def ended_of(credentials: Collection[Credential]) -> set[Credential]:
    """Return which of some credentials have ended. Uses the database and blocks."""
    now = time.time()
    users = get_user_model()._default_manager.in_bulk({each.user_id for each in credentials})
    hashes = {
        user_id: user.get_session_auth_hash() for user_id, user in users.items() if user.is_active
    }
    open_keys = _open_sessions({each.session_key for each in credentials if each.session_key})
    return {
        each
        for each in credentials
        if hashes.get(each.user_id) != each.user_hash
        or (each.session_key is not None and each.session_key not in open_keys)
        or (each.expires_at is not None and each.expires_at <= now)
    }


def _open_sessions(keys: set[str]) -> set[str]:
    """Return which of some sessions go on."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, CookieSessions):
        # The server does not know its end: only a new password ends one.
        return keys
    if not issubclass(store, DatabaseSessions):
        return {key for key in keys if store().exists(key)}
    found = store.get_model_class()._default_manager.filter(
        session_key__in=keys, expire_date__gt=timezone.now()
    )
    return set(found.values_list("session_key", flat=True))


def connect_signals() -> None:
    """Tell of what Django is told: a logout, a change of a user, a user's end."""
    user_logged_out.connect(_logged_out, dispatch_uid=__name__)
    post_save.connect(_user_saved, sender=get_user_model(), dispatch_uid=__name__)
    post_delete.connect(_user_deleted, sender=get_user_model(), dispatch_uid=__name__)


def _logged_out(request: Any, user: Any, **_: Any) -> None:
    key = getattr(getattr(request, "session", None), "session_key", None)
    if user is not None and key:
        # By its key: the session is there still, and ends after this.
        _tell(user.pk, session=_digest_of(key))


def _user_saved(
    instance: Any, created: bool, update_fields: Collection[str] | None, **_: Any
) -> None:
    # A login writes its time, and no more.
    if not created and set(update_fields or ()) != {"last_login"}:
        _tell(instance.pk)


def _user_deleted(instance: Any, **_: Any) -> None:
    _tell(instance.pk)


def _tell(user_id: Any, session: str | None = None) -> None:
    """Have each process look at a user's sockets, or end those of one session, on commit."""
    event = {"type": "authenticated.look", "user": user_id, "session": session}
    transaction.on_commit(partial(async_to_sync(_send), event))


async def _send(event: dict[str, Any]) -> None:
    try:
        async with asyncio.timeout(TIMEOUT):
            await get_channel_layer().group_send(GROUP, event)
    except Exception as error:
        logger.warning("could not tell %s: %s", GROUP, type(error).__name__)


def _digest(credential: Credential) -> str:
    return _digest_of(credential.session_key or "")


def _digest_of(session_key: str) -> str:
    """Return a name of a session that is no way into it."""
    return sha256(session_key.encode()).hexdigest()
