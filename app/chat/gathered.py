"""Questions to the database that many sockets ask at the same time, in one visit.

After the loss of a host, thousands of clients come back at once, and each asks the same: whose
session it is, which room, what has been said, who is there. A visit to the database costs a process
milliseconds, most of them whatever it asks for. So while one visit is under way, the questions of
others are gathered, and the next visit asks all of them. One that comes alone does not wait.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

from channels.db import database_sync_to_async  # type: ignore[import-untyped]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Gathered(Generic[K, V]):
    """Answers questions of one kind.

    Args:
        ask: answers several; uses the database and blocks. A question without an answer may be
            missing in what it returns.
        otherwise: the answer to such a one.
    """

    def __init__(self, ask: Callable[[Collection[K]], Mapping[K, V]], otherwise: V) -> None:
        self._ask = ask
        self._otherwise = otherwise
        # Those that the next visit asks.
        self._waiting: dict[K, asyncio.Future[V]] = {}
        # The visits, while there are any; of the event loop that began them.
        self._visiting: asyncio.Task[None] | None = None

    async def __call__(self, question: K) -> V:
        """Return an answer that is not older than the call.

        Raises:
            Exception: what the database raises for this question.
        """
        loop = asyncio.get_running_loop()
        visiting = self._visiting
        if visiting is None or visiting.done() or visiting.get_loop() is not loop:
            self._waiting = {}
            self._visiting = loop.create_task(self._visit())
        answer = self._waiting.get(question)
        if answer is None:
            answer = self._waiting[question] = loop.create_future()
        # One socket that ends takes the answer from no other.
        return await asyncio.shield(answer)

    async def _visit(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                found = await database_sync_to_async(self._ask)(list(asked))
            except Exception as error:
                if len(asked) == 1:
                    self._fail(asked, error)
                else:
                    await self._one_by_one(asked)
                continue
            for question, answer in asked.items():
                answer.set_result(found.get(question, self._otherwise))

    async def _one_by_one(self, asked: Mapping[K, "asyncio.Future[V]"]) -> None:
        """Ask each alone: what is wrong with one is nobody else's."""
        for question, answer in asked.items():
            try:
                found = await database_sync_to_async(self._ask)([question])
            except Exception as error:
                self._fail({question: answer}, error)
            else:
                answer.set_result(found.get(question, self._otherwise))

    @staticmethod
    def _fail(asked: Mapping[K, "asyncio.Future[V]"], error: Exception) -> None:
        for answer in asked.values():
            answer.set_exception(error)
            # All who asked may have gone.
            answer.exception()
