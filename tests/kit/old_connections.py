"""Consumers that query a database; prints what they see of their connections.

usage: old_connections.py DATABASE channels|kit|"kit, counted"
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import django
from asgiref.sync import SyncToAsync, sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]
from django.conf import settings
from django.db import connection, connections

from channels_kit.serving.dispatch import make_lean

database, dispatched_by = json.loads(sys.argv[1]), sys.argv[2]
settings.configure(DATABASES={"default": database})
django.setup()
if dispatched_by.startswith("kit"):
    make_lean()
IS_POSTGRES = database["ENGINE"].endswith("postgresql")


def in_thread(function: Callable[[], Any]) -> Any:
    """Look from the thread of the queries; it counts as nothing that runs there."""
    executor = SyncToAsync.single_thread_executor
    return type(executor).submit(executor, function).result()


def is_open() -> int:
    return int(connection.connection is not None)


def query() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def ask(self, event: Any) -> None:
        """Query as Django's own asynchronous methods do."""
        try:
            await sync_to_async(query)()
        except Exception as error:
            event["answer"].set_result(type(error).__name__)
        else:
            event["answer"].set_result("ok")

    async def run(self, event: Any) -> None:
        await sync_to_async(event["function"])()
        event["answer"].set_result("ok")

    async def pass_by(self, event: Any) -> None:
        event["answer"].set_result("ok")

    async def disconnect(self, code: int) -> None:
        await sync_to_async(query)()


class Socket:
    """A consumer, and what is sent to it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(
            Consumer.as_asgi()({"type": "websocket"}, self.events.get, print)
        )

    async def do(self, kind: str, **event: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self.events.put_nowait({"type": kind, "answer": answer, **event})
        return await asyncio.wait_for(answer, 30)

    async def leave(self) -> None:
        self.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(self.task, 30)


def reset(**options: Any) -> None:
    """Begin with no connection."""

    def in_its_thread() -> None:
        connections["default"].close()
        connections["default"].settings_dict.update(
            {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False, **options}
        )

    in_thread(in_its_thread)


def kill() -> None:
    """Have the server end the connection, as a restart of it does."""
    import psycopg

    process = in_thread(lambda: connection.connection.info.backend_pid)
    address = {"host": database["HOST"], "port": database["PORT"]}
    with psycopg.connect(dbname="postgres", user="postgres", **address) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [process])


async def trace() -> dict[str, Any]:
    socket = Socket()
    seen: dict[str, Any] = {}
    for name, lifetime in (("a lifetime of 0", 0), ("no lifetime", None)):
        reset(CONN_MAX_AGE=lifetime)
        seen[name] = {
            "query": await socket.do("ask"),
            "other event": await socket.do("pass_by"),
            "open": in_thread(is_open),
        }
    reset(CONN_MAX_AGE=3600)
    ended: dict[str, Any] = {"query": await socket.do("ask")}
    await socket.do("pass_by")
    ended["open"] = in_thread(is_open)

    # As if the hour were over.
    def age() -> None:
        connection.close_at = time.monotonic() + 0.2

    await socket.do("run", function=age)
    await socket.do("pass_by")
    due = in_thread(lambda: connection.close_at)
    is_due = asyncio.Event()
    asyncio.get_running_loop().call_at(due + 0.01, is_due.set)
    await is_due.wait()
    await socket.do("pass_by")
    ended["then, an event"] = in_thread(is_open)
    seen["a lifetime that ends"] = ended

    reset(CONN_MAX_AGE=None)

    def manual() -> None:
        connection.ensure_connection()
        connection.set_autocommit(False)

    seen["autocommit is off"] = {
        "query": await socket.do("run", function=manual),
        "other event": await socket.do("pass_by"),
        "open": in_thread(is_open),
    }
    if IS_POSTGRES:
        for name, checks in (("killed, with health checks", True), ("killed", False)):
            reset(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=checks)
            seen[name] = [await socket.do("ask")]
            kill()
            seen[name] += [await socket.do("ask") for _ in range(2)]
    reset(CONN_MAX_AGE=0)
    seen["closed by the end of a socket"] = {"query": await socket.do("ask")}
    await socket.leave()
    seen["closed by the end of a socket"]["open"] = in_thread(is_open)
    return seen


async def count() -> dict[str, int]:
    """Return how often the thread was asked in 100 events, before a query and after one."""
    socket = Socket()
    reset(CONN_MAX_AGE=None)
    await socket.do("pass_by")
    executor = SyncToAsync.single_thread_executor
    items = executor._work_queue
    asked = 0
    put = items.put

    class Counted:
        def put(self, item: Any) -> None:
            nonlocal asked
            asked += item is not None
            put(item)

        def __getattr__(self, name: str) -> Any:
            return getattr(items, name)

    executor._work_queue = Counted()  # type: ignore[assignment]
    seen = {}
    for name in ("before", "after"):
        asked = 0
        for _ in range(100):
            await socket.do("pass_by")
        seen[name] = asked
        await socket.do("ask")
    await socket.leave()
    return seen


json.dump(asyncio.run(count() if dispatched_by == "kit, counted" else trace()), sys.stdout)
