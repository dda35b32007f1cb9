"""How many connections to PostgreSQL a worker takes."""

import asyncio

import pytest
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient

from tests.chat.sockets import Sockets

COUNT = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


@pytest.fixture(autouse=True)
def on_postgresql(transactional_db: None) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a database without connections to count")


def connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute(COUNT)
        (count,) = cursor.fetchone()
    return int(count)


def pool_size() -> int:
    size: int = settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"]
    return size


async def test_idle_sockets_hold_no_connection_beyond_the_pool(sockets: Sockets, ada: User) -> None:
    for _ in range(3 * pool_size()):
        await sockets.join(ada)
    assert await database_sync_to_async(connections)() <= pool_size()


async def test_requests_at_once_stay_within_the_pool(ada: User) -> None:
    clients = [AsyncClient() for _ in range(4 * pool_size())]
    for client in clients:
        await client.aforce_login(ada)
    responses = await asyncio.gather(*(client.get("/") for client in clients))
    assert {response.status_code for response in responses} == {200}
    assert await database_sync_to_async(connections)() <= pool_size()
