from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import (  # type: ignore[import-untyped]
    InMemoryChannelLayer,
    channel_layers,
    get_channel_layer,
)
from django.contrib.auth.models import User
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from chat.history import MessageHistory
from chat.models import Room
from tests.chat.sockets import Sockets


@pytest.fixture(autouse=True)
def fresh_layer() -> Iterator[None]:
    """Give each test a channel layer of its own: one of Redis belongs to an event loop."""
    channel_layers.backends.clear()
    yield
    channel_layers.backends.clear()


@pytest.fixture
def in_memory() -> None:
    """Skip a test that looks into the layer, or breaks it, where that is a real Redis."""
    if not isinstance(get_channel_layer(), InMemoryChannelLayer):
        pytest.skip("looks into the layer in memory")


@pytest.fixture
def lobby(transactional_db: None) -> Room:
    # Made again: a transactional test empties all tables when it ends, the migration's rooms too.
    return Room.objects.get_or_create(name="lobby", defaults={"title": "Lobby"})[0]


@pytest.fixture
def ada(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="enchantress-of-numbers")


@pytest.fixture
def bob(transactional_db: None) -> User:
    return User.objects.create_user("bob", password="a-bird-in-the-hand")


@pytest.fixture
def say(lobby: Room, ada: User) -> Callable[[str], int]:
    """Store a message of ada's and return its number."""
    history = MessageHistory(lobby.pk)

    def say(text: str) -> int:
        message, _ = history.append(user_id=ada.pk, text=text, worker="a-worker")
        return message.sequence

    return say


@pytest.fixture
async def sockets(lobby: Room) -> AsyncIterator[Sockets]:
    sockets = Sockets()
    yield sockets
    try:
        await sockets.close()
    finally:
        # SQLite's own close() spares a database in memory. An open connection left in the thread of
        # all queries would meet a later test that may not touch the database, when Channels looks
        # after it.
        await database_sync_to_async(lambda: BaseDatabaseWrapper.close(connections["default"]))()
