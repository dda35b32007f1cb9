"""Channels' consumers, without what an event does not need.

Two functions of Channels are replaced, the same for every consumer:

- `aclose_old_connections`. Before each event, Channels 4.2 and newer awaits the one thread in which
  all queries run, to close what connections to databases have become old there. Here the thread is
  told to, and only where it may have some: `OldConnections`.
- `await_many_dispatch`. Channels makes two tasks an event. Here the task of the consumer waits for
  its layer itself, if that is the kit's, and for another source one task does, as long as the
  consumer lives: `dispatch_many`.

All events are still handled one after the other, in the task and the context of the consumer.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Protocol

from asgiref.sync import AsyncToSync, SyncToAsync
from channels import consumer  # type: ignore[import-untyped]
from django.db import close_old_connections, connections

logger = logging.getLogger(__name__)

Message = Any

MODULES = ("channels.consumer", "channels.generic.http", "channels.generic.websocket")
"""Those that call what is replaced."""


IN_ONE_THREAD: ContextVar[bool] = ContextVar("IN_ONE_THREAD", default=False)
"""Whether the queries of a consumer run in asgiref's one thread; unknown before its first event."""


class Source(Protocol):
    """Where a consumer gets events from. It calls the waker when there may be one."""

    def take(self) -> Message | None:
        """Return the next event; None if there is none yet."""

    def has_more(self) -> bool:
        """Return whether there may be one at once."""

    def taken(self) -> None:
        """Note that the event has been handled: the next one may be asked for."""

    def cancel(self) -> None:
        """Ask for no event any more."""

    async def ended(self) -> None:
        """Wait until nothing is under way any more."""


class Waker:
    """What a consumer waits for while none of its sources has an event."""

    __slots__ = ("_loop", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Done when there may be an event; None: the consumer does not wait.
        self._waiter: asyncio.Future[None] | None = None

    def __call__(self, _: object = None) -> None:
        """Have the consumer look for an event; nothing where it does not wait."""
        waiter, self._waiter = self._waiter, None
        # It may have been cancelled.
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until it is called."""
        self._waiter = self._loop.create_future()
        await self._waiter


async def dispatch_many(
    receives: Sequence[Callable[[], Awaitable[Message]]],
    dispatch: Callable[[Message], Awaitable[None]],
) -> None:
    """Hand the events of several sources to `dispatch`, one after the other.

    A source is asked for its next event when the last one is handled. Each turn of the event loop
    takes at most one event of each.

    Raises:
        Exception: what a source or `dispatch` raises.
    """
    IN_ONE_THREAD.set(is_in_one_thread())
    waker = Waker()
    sources = [_source(receive, waker) for receive in receives]
    try:
        while True:
            is_idle = True
            for source in sources:
                if (message := source.take()) is not None:
                    is_idle = False
                    await dispatch(message)
                    source.taken()
            if is_idle:
                await waker.wait()
                continue
            for source in sources:
                if source.has_more():
                    await asyncio.sleep(0)
                    break
    finally:
        for source in sources:
            source.cancel()
        for source in sources:
            await source.ended()


def _source(receive: Callable[[], Awaitable[Message]], waker: Waker) -> Source:
    """Return the source that a callable stands for."""
    function, arguments = receive, ()
    if isinstance(receive, functools.partial):
        function, arguments = receive.func, receive.args
    # An attribute of the kit's own functions. What wraps one of them, or a class that derives from
    # the kit's and receives in a way of its own, has none.
    source_of = getattr(function, "source_of", None)
    if source_of is not None:
        source: Source | None = source_of(function.__self__, *arguments, waker)  # type: ignore[attr-defined]
        if source is not None:
            return source
    return _Pump(receive, waker)


class _Pump:
    """A source that is known by its callable alone, in a task of its own.

    Args:
        receive: returns the next event.
        waker: the consumer's.
    """

    __slots__ = ("handled", "message", "receive", "task", "waker")

    def __init__(self, receive: Callable[[], Awaitable[Message]], waker: Waker) -> None:
        self.receive = receive
        self.waker = waker
        self.message: Message | None = None
        # Done when the event has been handled.
        self.handled: asyncio.Future[None] | None = None
        self.task = asyncio.ensure_future(self._run())
        self.task.add_done_callback(waker)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await self.receive()
            if message is None:
                raise TypeError("an event is a dictionary, not None")
            self.message = message
            self.handled = loop.create_future()
            self.waker()
            await self.handled

    def take(self) -> Message | None:
        message, self.message = self.message, None
        if message is None and self.task.done():
            self.task.result()
        return message

    def has_more(self) -> bool:
        return self.message is not None or self.task.done()

    def taken(self) -> None:
        # It is done where the task has been cancelled.
        if self.handled is not None and not self.handled.done():
            self.handled.set_result(None)

    def cancel(self) -> None:
        self.task.cancel()

    async def ended(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.task


class OldConnections:
    """Closes old connections to databases where Channels does, if there may be any.

    A connection belongs to the thread that opened it. Consumers have theirs in one thread, that of
    asgiref's executor: what a look at them closes or resets depends on what has run there since the
    last look, and on the time at which the oldest of them is to be closed. Where neither says so,
    a look would change nothing, and there is none. The others are not waited for: all that a
    handler runs in the thread runs after it.

    Args:
        executor: asgiref's, of the one thread.
        stock: what Channels awaits, for consumers that run their queries elsewhere.
    """

    def __init__(self, executor: ThreadPoolExecutor, stock: Callable[[], Awaitable[None]]) -> None:
        self._executor = executor
        self._stock = stock
        self._submit = executor.submit
        # Whether something may have run in the thread since the last look.
        self._used = True
        # When the first of the connections left open then is to be closed, by the monotonic clock.
        self._due = math.inf

    def watch(self) -> None:
        """Note from now on what is run in the thread."""
        self._executor.submit = self._noted  # type: ignore[method-assign]

    def _noted(self, *args: Any, **keywords: Any) -> Future[Any]:
        future = self._submit(*args, **keywords)
        # Not before: a look that another thread asks for in between would not see it.
        self._used = True
        return future

    async def close(self) -> None:
        """Have old connections closed before anything else runs in the thread."""
        if (
            not IN_ONE_THREAD.get() or SyncToAsync.thread_sensitive_context.get(None) is not None
        ) and not is_in_one_thread():
            # A test's, or it has been given a thread of its own.
            await self._stock()
        elif self._used or time.monotonic() >= self._due:
            self._used = False
            self._due = math.inf
            self._submit(self._look)

    def _look(self) -> None:
        try:
            close_old_connections()
        except Exception:
            # Channels ends the consumer of this event, which need not have used the database.
            logger.exception("could not close an old connection to a database")
        self._due = min((_due_of(each) for each in _opened()), default=math.inf)


def is_in_one_thread() -> bool:
    """Return whether what is run for the current context runs in asgiref's one thread."""
    return (
        getattr(AsyncToSync.executors, "current", None) is None
        and SyncToAsync.thread_sensitive_context.get(None) is None
        and asyncio.get_running_loop() not in getattr(AsyncToSync, "loop_thread_executors", ())
    )


def _opened() -> list[Any]:
    """Return this thread's connections that have been made."""
    try:
        return list(connections.all(initialized_only=True))
    except TypeError:  # Django 4.0
        return list(connections.all())


def _due_of(connection: Any) -> float:
    # In a transaction it stays open; what ends that runs in the thread.
    if connection.connection is None or connection.close_at is None or connection.in_atomic_block:
        return math.inf
    return float(connection.close_at)


def make_lean() -> None:
    """Replace the two functions, each if this version of Channels is built as it takes."""
    if calls(consumer.AsyncConsumer.__call__, "await_many_dispatch") and list(
        inspect.signature(consumer.await_many_dispatch).parameters
    ) == ["consumer_callables", "dispatch"]:
        consumer.await_many_dispatch = dispatch_many
    else:
        logger.warning("this version of Channels waits for events in a way of its own; it is kept")
    stock = getattr(consumer, "aclose_old_connections", None)
    if stock is None:
        # Before 4.2.
        return
    old = OldConnections(SyncToAsync.single_thread_executor, stock)
    if calls(consumer.AsyncConsumer.dispatch, "aclose_old_connections"):
        old.watch()
        for name in MODULES:
            module = import_module(name)
            if hasattr(module, "aclose_old_connections"):
                module.aclose_old_connections = old.close  # type: ignore[attr-defined]
    else:
        logger.warning("this version of Channels handles connections its own way; it is kept")


def calls(function: Any, name: str) -> bool:
    """Return whether a function calls another one by this name."""
    return name in getattr(getattr(function, "__code__", None), "co_names", ())
