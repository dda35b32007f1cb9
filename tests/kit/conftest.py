from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer  # type: ignore[import-untyped]
from pytest_django import Settings

from .cluster import Cluster, Redis
from .layers import Server

TOKEN = "a-token-of-the-tests"


class FaultyLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """The in-memory layer, whose `fault` is awaited before each step in `faulty`."""

    def __init__(self, fault: Any, faulty: frozenset[str], **options: Any) -> None:
        super().__init__(**options)
        self.fault = fault
        self.faulty = faulty
        self.received = 0

    async def group_add(self, group: str, channel: str) -> None:
        if "group_add" in self.faulty:
            await self.fault()
        await super().group_add(group, channel)
        if "answer of group_add" in self.faulty:
            await self.fault()

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if "group_send" in self.faulty:
            await self.fault()
        await super().group_send(group, message)

    async def receive(self, channel: str) -> Any:
        # The first one is what a consumer hears of itself.
        self.received += 1
        if "second receive" in self.faulty and self.received > 1:
            await self.fault()
        return await super().receive(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        if "group_discard" in self.faulty:
            await self.fault()
        await super().group_discard(group, channel)


@pytest.fixture(autouse=True)
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Channels from looking after the database before every event.

    Its thread may still hold a connection from a test of the application, and pytest-django lets
    only tests with a database touch one.
    """
    monkeypatch.setattr("channels.db.close_old_connections", lambda: None)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as redis:
        yield redis


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another Redis: a shard."""
    with Server(tmp_path_factory.mktemp("second")) as server:
        yield server


@pytest.fixture
def layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


@pytest.fixture
def break_layer(settings: Settings) -> Any:
    """Make the default layer await `fault` in the steps named."""

    def break_it(fault: Any, *steps: str) -> None:
        settings.CHANNEL_LAYERS = {
            "default": {
                "BACKEND": f"{FaultyLayer.__module__}.FaultyLayer",
                "CONFIG": {"fault": fault, "faulty": frozenset(steps)},
            }
        }

    return break_it


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    with Redis() as redis, Cluster(redis, TOKEN, ["app1:8001", "app2:8002"]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers over one Redis, for tests that leave them as they are."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """The same, for a test that breaks it."""
    with running_cluster() as cluster:
        yield cluster
