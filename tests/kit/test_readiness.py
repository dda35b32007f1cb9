import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any, NoReturn
from unittest.mock import MagicMock

import pytest
from channels.layers import (  # type: ignore[import-untyped]
    InMemoryChannelLayer,
    get_channel_layer,
)
from django.db import OperationalError
from pytest_django import Settings

from channels_kit.serving import loopback, readiness
from channels_kit.serving.readiness import check_readiness, describe, select_one

# For what never answers.
SOON = 0.2
# For what answers, also on a busy machine.
PATIENCE = 60.0
Select = Callable[[Callable[[], Any]], None]
ask_database = readiness.database_round_trip


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that answers, at once: the real one is asked by test_cluster.py."""

    async def answer() -> None:
        pass

    monkeypatch.setattr(readiness, "has_database", lambda: True)
    monkeypatch.setattr(readiness, "database_round_trip", answer)


@pytest.fixture
def select(monkeypatch: pytest.MonkeyPatch, database: None) -> Select:
    """Have the database asked as it is, in a thread, but by another query."""

    def ask(query: Callable[[], Any]) -> None:
        monkeypatch.setattr(readiness, "database_round_trip", ask_database)
        monkeypatch.setattr(readiness, "select_one", query)

    return ask


async def hang() -> None:
    await asyncio.Event().wait()


async def refuse() -> None:
    raise ConnectionRefusedError(111, "redis://:hidden@10.0.0.1")


async def lose() -> None:
    raise LookupError("redis://:hidden@10.0.0.1")


@pytest.mark.usefixtures("layer")
async def test_a_worker_that_can_work_is_ready() -> None:
    found = await check_readiness(PATIENCE)
    assert found.ok
    assert list(found.checks) == ["channel_layer", "database"]
    for check in found.checks.values():
        assert check.ok
        assert check.error is None
        assert 0 <= check.milliseconds < 1000 * PATIENCE


@pytest.mark.usefixtures("layer")
async def test_no_database_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "has_database", lambda: False)
    assert list((await check_readiness(PATIENCE)).checks) == ["channel_layer"]


@pytest.mark.parametrize("step", ["group_add", "group_send", "group_discard"])
@pytest.mark.parametrize(
    ("fault", "seconds", "error"),
    [
        (hang, SOON, "TimeoutError: no answer within 0.2 s"),
        (refuse, PATIENCE, "ConnectionRefusedError: Connection refused"),
        (lose, PATIENCE, "LookupError"),
    ],
)
async def test_a_faulty_layer(
    break_layer: Any, fault: Any, seconds: float, step: str, error: str
) -> None:
    break_layer(fault, step, "group_discard")
    async with asyncio.timeout(PATIENCE):
        found = await check_readiness(seconds)
    assert not found.ok
    assert found.checks["channel_layer"].error == error
    assert found.checks["database"].ok


async def test_a_layer_that_drops_messages_is_not_ready(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{DroppingLayer.__module__}.DroppingLayer"}}
    found = await check_readiness(SOON)
    assert found.checks["channel_layer"].error == "TimeoutError: no answer within 0.2 s"


async def test_without_a_layer_a_worker_is_not_ready(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}
    found = await check_readiness(PATIENCE)
    assert found.checks["channel_layer"].error == (
        "NoChannelLayerError: no default channel layer is configured"
    )
    assert found.layer is None


async def test_a_layer_that_cannot_be_imported_is_a_failed_check(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "no.such.Layer"}}
    found = await check_readiness(PATIENCE)
    assert found.checks["channel_layer"].error == "InvalidChannelLayerError"
    assert found.layer is None


async def test_a_layer_that_misses_a_key_of_its_own_is_not_said_to_be_missing(
    settings: Settings,
) -> None:
    backend = f"{DroppingLayer.__module__}.LayerWithoutKey"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend}}
    assert (await check_readiness(PATIENCE)).checks["channel_layer"].error == "KeyError"


@pytest.mark.usefixtures("layer")
async def test_the_round_trip_leaves_nothing_behind() -> None:
    assert (await check_readiness(PATIENCE)).layer == "channels.layers.InMemoryChannelLayer"
    assert get_channel_layer().groups == {}
    assert get_channel_layer().channels == {}


async def test_a_message_that_is_lost_is_sent_again(settings: Settings) -> None:
    layer = f"{DroppingLayer.__module__}.DroppingLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": layer, "CONFIG": {"drops": 2}}}
    assert (await check_readiness(PATIENCE)).ok
    assert get_channel_layer().groups == {}
    assert get_channel_layer().channels == {}


async def test_a_check_that_fails_leaves_its_group_once_the_layer_is_back(
    break_layer: Any,
) -> None:
    back = asyncio.Event()
    break_layer(back.wait, "answer of group_add")
    assert not (await check_readiness(SOON)).ok
    assert get_channel_layer().groups
    back.set()
    async with asyncio.timeout(PATIENCE):
        while loopback._running:
            await asyncio.wait(loopback._running)
    assert get_channel_layer().groups == {}
    assert get_channel_layer().channels == {}


@pytest.mark.usefixtures("layer")
async def test_a_database_that_fails(select: Select) -> None:
    def fail() -> NoReturn:
        raise OperationalError('connection to "postgres://chat:hidden@db" failed')

    select(fail)
    found = await check_readiness(PATIENCE)
    assert not found.ok
    assert found.checks["database"].error == "OperationalError"
    assert found.checks["channel_layer"].ok


@pytest.mark.usefixtures("layer")
async def test_a_database_that_hangs(select: Select) -> None:
    answer = threading.Event()
    select(answer.wait)
    found = await check_readiness(SOON)
    answer.set()
    assert found.checks["database"].error == "TimeoutError: no answer within 0.2 s"


@pytest.mark.usefixtures("layer")
async def test_the_checks_run_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, break_layer: Any
) -> None:
    both = asyncio.Barrier(2)
    break_layer(both.wait, "group_add")
    monkeypatch.setattr(readiness, "database_round_trip", both.wait)
    assert (await check_readiness(PATIENCE)).ok


def test_a_query_is_executed_and_not_only_a_connection_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = MagicMock()
    monkeypatch.setattr(readiness, "connection", connection)
    select_one()
    cursor = connection.cursor.return_value.__enter__.return_value
    cursor.execute.assert_called_once_with("SELECT 1")
    cursor.fetchone.assert_called_once_with()


def test_an_error_is_described_by_its_causes_without_its_text() -> None:
    class DriverError(Exception):
        sqlstate = "28P01"

    error = OperationalError("password hidden")
    error.__cause__ = DriverError("password hidden")
    assert describe(error) == "OperationalError: SQLSTATE 28P01"


class DroppingLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """Loses every message, as a layer over its capacity does, or the first ones."""

    def __init__(self, drops: float = math.inf) -> None:
        super().__init__()
        self.drops = drops

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.drops -= 1
        if self.drops < 0:
            await super().group_send(group, message)


class LayerWithoutKey(InMemoryChannelLayer):  # type: ignore[misc]
    """Fails as a layer does whose CONFIG lacks something."""

    def __init__(self) -> None:
        raise KeyError("TIME_ZONE")
