"""One Redis, as one event loop uses it: topics that are published to, heard and recovered."""

from __future__ import annotations

import asyncio
import binascii
from collections import deque
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any

from channels_kit.layer import scripts
from channels_kit.layer.codec import CodecError, Entry, body_of
from channels_kit.layer.connection import CONNECTION_ERRORS, ask, opened
from channels_kit.layer.errors import LayerUnavailableError
from channels_kit.layer.options import Host, Options, pool
from channels_kit.layer.sender import Sender
from channels_kit.layer.statistics import Statistics
from channels_kit.layer.subscriber import Subscriber
from channels_kit.layer.topic import Position, Question, Topic


def shard_number(name: str, shards: int) -> int:
    """Return which of so many shards has what is named so: as channels_redis spreads it."""
    return (binascii.crc32(name.encode()) & 0xFFF) * shards // 4096


class Shard:
    """One of the `hosts`.

    Args:
        host: where it is.
        options: of the layer.
        sender_id: of the event loop.
        deliver: takes a message that has come to a topic.
        confirmed: is called when Redis has confirmed the subscription to a topic.
        missed: is called when messages to a topic may be lost.
        woken: is called when something is in a queue, with the queue's channel.
        turn: is awaited after each message, so that receivers get theirs.
        statistics: of the process.
    """

    def __init__(
        self,
        host: Host,
        options: Options,
        sender_id: bytes,
        deliver: Callable[[Topic, Entry], None],
        confirmed: Callable[[Topic], None],
        missed: Callable[[Topic], None],
        woken: Callable[[str], None],
        turn: Callable[[], Awaitable[None]],
        statistics: Statistics,
    ) -> None:
        self.options = options
        self.sender_id = sender_id
        self.deliver = deliver
        self.confirmed = confirmed
        self.missed = missed
        self.woken = woken
        self.turn = turn
        self.statistics = statistics
        self.topics: dict[str, Topic] = {}
        # What was missed and is not delivered yet, in order; None: something may be missing before
        # what follows.
        self._late: deque[tuple[Topic, Entry | None]] = deque()
        # Delivers it; nothing is read from Redis meanwhile.
        self._delivering: asyncio.Task[None] | None = None
        connections = pool(host)
        self.sender = Sender(
            connections,
            options.prefix,
            options.send_timeout,
            options.send_buffer,
            statistics,
        )
        self.subscriber = Subscriber(
            connections, self._arrived, self._subscribed, self._lost, self._turn, statistics
        )

    async def close(self) -> None:
        """Close both connections."""
        await self.subscriber.close()
        await self.sender.close()
        if self._delivering is not None:
            self._delivering.cancel()
            await asyncio.wait([self._delivering])

    def keys(self, name: str) -> tuple[str, str, str]:
        """Return the keys that a topic has: epoch, counter, history."""
        return (self.sender.epoch_key, f"{name}:counter", f"{name}:history")

    async def publish(self, name: str, payload: bytes) -> tuple[int, list[bytes]]:
        """Publish to a topic; return how many hear it now, and the queues that are members of it.

        Raises:
            LayerUnavailableError: Redis is away for too long.
        """
        options = self.options

        def arguments(number: int) -> tuple[Any, ...]:
            return (
                name,
                body_of(self.sender_id, number, payload),
                options.history_size,
                int(options.history_seconds * 1000),
                int(options.group_expiry * 1000),
                token_hex(8),
            )

        keys = (*self.keys(name), f"{name}:members")
        heard, members = await self.sender.call(scripts.PUBLISH, keys, arguments, len(payload))
        self.statistics.published += 1
        return heard, members

    async def delete_keys(self, prefix: str) -> None:
        """Delete all keys that begin so, but the epoch.

        Raises:
            LayerUnavailableError: Redis is away.
        """
        try:
            async with opened(self.sender.pool) as connection:
                cursor = b"0"
                while True:
                    command = ("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", 1000)
                    [[cursor, keys]] = await ask(connection, [command])
                    keys = [key for key in keys if key != self.sender.epoch_key.encode()]
                    if keys:
                        await ask(connection, [("UNLINK", *keys)])
                    if cursor == b"0":
                        return
        except CONNECTION_ERRORS as error:
            raise LayerUnavailableError(f"Redis does not answer: {type(error).__name__}") from None

    async def position(self, name: str) -> Position:
        """Return where a topic is.

        Raises:
            LayerUnavailableError: Redis is away for too long.
        """
        arguments = self._catching_up(b"", 0)
        epoch, offset, _ = await self.sender.call(scripts.CATCH_UP, self.keys(name), arguments)
        return Position(epoch, int(offset))

    def open(self, topic: Topic) -> None:
        """Begin to hear of a topic."""
        self.topics[topic.name] = topic
        self.subscriber.add(topic.name)

    def leave(self, topic: Topic) -> None:
        """Hear of a topic no more."""
        del self.topics[topic.name]
        self.subscriber.remove(topic.name)

    def listen(self, name: str) -> None:
        """Begin to hear of a queue."""
        if name not in self.subscriber.names:
            self.subscriber.add(name)

    def _lost(self) -> None:
        for topic in self.topics.values():
            topic.lost()

    def _subscribed(self, name: str) -> None:
        topic = self.topics.get(name)
        if topic is None:
            # A queue: something may have been put into it meanwhile.
            self.woken(name)
            return
        self.confirmed(topic)
        if question := topic.subscribed():
            self._ask(topic, question)

    def _ask(self, topic: Topic, question: Question) -> None:
        known = question.position
        asked = (known.epoch, known.offset) if known is not None else (b"?", 0)
        command = self.sender.post(
            scripts.CATCH_UP, self.keys(topic.name), self._catching_up(*asked)
        )
        command.answer.add_done_callback(lambda answer: self._answered(topic, question, answer))

    def _catching_up(self, epoch: bytes, offset: int) -> Callable[[int], tuple[Any, ...]]:
        """Return the arguments that ask for what follows on a position."""
        lifetime = int(self.options.group_expiry * 1000)
        return lambda number: (epoch, offset, lifetime, token_hex(8))

    def _answered(self, topic: Topic, question: Question, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or self.topics.get(topic.name) is not topic:
            return
        before = topic.duplicates
        if error := answer.exception():
            self.statistics.warn("refused", "Redis refused a command: %s", type(error).__name__)
            found = topic.refused(question)
        else:
            epoch, offset, kept = answer.result()
            missed = [each for data in kept if (each := self._parse(topic.name, data)) is not None]
            found = topic.answered(question, Position(epoch, int(offset)), missed)
            self.statistics.recovered += len(found.entries)
        self.statistics.duplicates += topic.duplicates - before
        if found.gap:
            self.statistics.gaps += 1
            self.statistics.warn("gap", "messages of %s may be lost", topic.name)
            self._late.append((topic, None))
        self._late.extend((topic, entry) for entry in found.entries)
        if self._late and self._delivering is None:
            self._delivering = asyncio.get_running_loop().create_task(self._deliver_late())

    async def _deliver_late(self) -> None:
        """Deliver what was missed, no faster than receivers take it."""
        try:
            while self._late:
                topic, entry = self._late.popleft()
                if self.topics.get(topic.name) is topic:
                    self._deliver(topic, entry)
                await asyncio.sleep(0)
                await self.turn()
        finally:
            self._delivering = None

    async def _turn(self) -> None:
        if self._delivering is not None:
            await asyncio.wait([self._delivering])
        await self.turn()

    def _arrived(self, name: str, data: bytes) -> None:
        topic = self.topics.get(name)
        if topic is None:
            self.woken(name)
        elif (entry := self._parse(name, data)) is not None:
            before = topic.duplicates
            for each in topic.arrived(entry):
                if self._delivering is None:
                    self._deliver(topic, each)
                else:
                    self._late.append((topic, each))
            self.statistics.duplicates += topic.duplicates - before

    def _deliver(self, topic: Topic, entry: Entry | None) -> None:
        try:
            if entry is None:
                self.missed(topic)
            else:
                self.statistics.received += 1
                self.deliver(topic, entry)
        except Exception as error:
            # It ends neither the task that reads nor what follows.
            self.statistics.dropped["failed"] += 1
            text = "could not deliver a message of %s"
            self.statistics.warn("delivery", text, topic.name, error=error)

    def _parse(self, name: str, data: bytes) -> Entry | None:
        try:
            return Entry.parse(data)
        except CodecError:
            self.statistics.drop("unreadable", name)
            return None
