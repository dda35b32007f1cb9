"""Lets processes with `channels_redis.core` and with the fan-out layer hear each other.

While a cluster is moved from one of the two to the other, some processes have the former layer and
some the new one. Those with the fan-out layer then also join the other layer's groups and send to
them. Redis tells them when: `python -m channels_kit.layer.bridge open`, and `closed` when all
processes have the same layer.

What `channels_redis` offers for this are its `group_add`, `group_send`, `send`, `receive` and
`receive_single`, and 12 random bytes before each message, in which a message that was sent by both
layers is marked.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from channels_kit.layer import scripts
from channels_kit.layer.connection import CONNECTION_ERRORS, Backoff, ask, opened
from channels_kit.layer.errors import LayerUnavailableError
from channels_kit.layer.options import pool, read_hosts

if TYPE_CHECKING:
    from channels_kit.layer.shard import Shard

logger = logging.getLogger(__name__)

OPEN, CLOSED = "open", "closed"

POLL_SECONDS = 1.0
"""Seconds between two looks at what Redis says."""

PRESENCE_SECONDS = 10
"""Seconds for which an event loop counts as one that runs."""

MARK = b"fanout"
"""The first bytes of a message that was sent by both layers."""
RANDOM_BYTES = 12

PREFIX = "specific"
"""Of the channels of consumers: Channels' own."""

STOCK_NAME_LENGTH = 32
"""Characters of the name that channels_redis gives a process; a hub's has 16."""

ANSWER_SECONDS = 60.0
"""Seconds in which all processes must have opened."""


class Receiver(Protocol):
    """What the bridge tells of what has come; a `Hub`."""

    name: str

    @property
    def groups(self) -> Mapping[str, Any]:
        """The groups with members here, by name."""

    def take_of_group(self, group: str, message: Mapping[str, Any]) -> None:
        """Deliver to the members of a group here."""

    def take_of_channel(self, channel: str, message: Mapping[str, Any]) -> None:
        """Deliver to a channel of this event loop."""


def state_key(prefix: str) -> str:
    """Return where Redis has what the processes shall do."""
    return f"{prefix}:fanout:bridge"


def presence_key(prefix: str, hub: str) -> str:
    """Return where an event loop tells what it does."""
    return f"{prefix}:fanout:present:{hub}"


def stock_layer(config: Mapping[str, Any]) -> Any:
    """Return a `channels_redis.core` layer that marks what it sends.

    It tells what it receives and what has the mark by a key `MARK` of the message.
    """
    from channels_redis.core import RedisChannelLayer  # type: ignore[import-untyped]

    class Marking(RedisChannelLayer):  # type: ignore[misc]
        def serialize(self, message: Any) -> bytes:
            packed: bytes = super().serialize(message)
            length = RANDOM_BYTES - len(MARK)
            return MARK + random.randbytes(length) + packed[RANDOM_BYTES:]  # noqa: S311 - no secret

        def deserialize(self, packed: bytes) -> Any:
            message = super().deserialize(packed)
            if packed.startswith(MARK):
                message[MARK] = True
            return message

    return Marking(**config)


class Bridge:
    """The other layer, as one event loop uses it.

    Args:
        shard: has the state.
        receiver: gets what comes.
        prefix: of the layer.
        config: of the other layer.
    """

    def __init__(
        self, shard: Shard, receiver: Receiver, prefix: str, config: Mapping[str, Any]
    ) -> None:
        self._shard = shard
        self._receiver = receiver
        self._keys = (state_key(prefix), presence_key(prefix, receiver.name))
        self._config = config
        # None while the bridge is closed.
        self._stock: Any = None
        self._reading: asyncio.Task[None] | None = None
        # The groups of the other layer that this event loop is a member of, by its channel there.
        self._groups: dict[str, str] = {}
        # What waits for a message of a named channel, by the channel and whether it is the other
        # layer's. A receiver that gives up leaves it to the next one.
        self._waiting: dict[tuple[str, bool], asyncio.Task[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._known = asyncio.Event()
        self._changed = self._loop.create_future()
        self._polling = self._loop.create_task(self._poll())

    @property
    def is_open(self) -> bool:
        """Whether messages are sent by both layers."""
        return self._stock is not None

    async def close(self) -> None:
        """End all that goes on."""
        await _end(self._polling, *self._waiting.values())
        await self._shut()

    async def known(self) -> None:
        """Wait until it is known whether the bridge is open.

        Raises:
            LayerUnavailableError: Redis is away for too long.
        """
        if self._known.is_set():
            return
        try:
            async with asyncio.timeout(self._shard.options.send_timeout):
                await self._known.wait()
        except TimeoutError:
            seconds = f"{self._shard.options.send_timeout:g} s"
            raise LayerUnavailableError(f"no word about the bridge within {seconds}") from None

    async def join(self, group: str) -> None:
        """Become a member of the other layer's group, if the bridge is open.

        It stays one until the bridge is closed: nobody leaves what somebody else joins meanwhile.

        Raises:
            LayerUnavailableError: Redis is away.
        """
        await self.known()
        if self.is_open:
            await self._join(group)

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Send to the members of the other layer's group, if the bridge is open.

        Raises:
            LayerUnavailableError: Redis is away.
        """
        await self.known()
        if self.is_open:
            await self._do(self._stock.group_send(group, dict(message)))

    async def send(self, channel: str, owner: str | None, message: Mapping[str, Any]) -> bool:
        """Send to a channel of the other layer; return whether it is one.

        While the bridge is open, messages to a named channel (`owner` is None) go to the other
        layer's: receivers with either layer take them from there.

        Raises:
            ChannelFull: it is full.
            LayerUnavailableError: Redis is away.
        """
        await self.known()
        if not self.is_open or (owner is not None and len(owner) != STOCK_NAME_LENGTH):
            return False
        await self._do(self._stock.send(channel, dict(message)))
        return True

    async def receive(self, channel: str, pull: Callable[[str], Awaitable[Any]]) -> Any:
        """Return the next message of a named channel of either layer.

        Args:
            channel: its name.
            pull: waits for one of the fan-out layer.
        """
        backoff = Backoff()
        while True:
            own, other = (channel, False), (channel, True)
            if own not in self._waiting:
                self._waiting[own] = asyncio.ensure_future(pull(channel))
            if self.is_open and other not in self._waiting:
                self._waiting[other] = self._loop.create_task(self._stock.receive(channel))
            both = [self._waiting[key] for key in (own, other) if key in self._waiting]
            await asyncio.wait((*both, self._changed), return_when=asyncio.FIRST_COMPLETED)
            for key in (own, other):
                task = self._waiting.get(key)
                if task is None or not task.done():
                    continue
                del self._waiting[key]
                try:
                    return task.result()
                except CONNECTION_ERRORS:
                    if key == own:
                        raise
                    await backoff.wait()
                except asyncio.CancelledError:
                    # The bridge was closed; the receiver itself goes on.
                    if key == own:
                        raise

    # The state

    async def _poll(self) -> None:
        while True:
            try:
                state = await self._shard.sender.call(
                    scripts.ATTEND,
                    self._keys,
                    lambda _: (OPEN if self.is_open else CLOSED, PRESENCE_SECONDS * 1000),
                )
                wanted = {OPEN.encode(): True, CLOSED.encode(): False}.get(state, self.is_open)
                if wanted != self.is_open:
                    await (self._open() if wanted else self._shut())
                    continue  # tell it at once
            except Exception as error:  # also an application without channels_redis
                name = type(error).__name__
                logger.warning("cannot open or close the bridge to channels_redis yet: %s", name)
            else:
                self._known.set()
            await asyncio.sleep(POLL_SECONDS)

    async def _open(self) -> None:
        self._stock = stock_layer(self._config)
        try:
            for group in list(self._receiver.groups):
                await self._join(group)
        except BaseException:
            await self._shut()
            raise
        self._reading = self._loop.create_task(self._read())
        self._tell()
        logger.info("the bridge to channels_redis is open")

    async def _shut(self) -> None:
        stock, self._stock = self._stock, None
        if stock is None:
            return
        waiting = [task for (_, is_other), task in self._waiting.items() if is_other]
        reading, self._reading = self._reading, None
        groups, self._groups = self._groups, {}
        try:
            await _end(*waiting, *([reading] if reading else []))
            self._tell()
            with suppress(*CONNECTION_ERRORS):
                for channel, group in groups.items():
                    await stock.group_discard(group, channel)
        finally:
            # Also if Redis fails, and if this is interrupted.
            with suppress(*CONNECTION_ERRORS):
                await stock.close_pools()
        logger.info("the bridge to channels_redis is closed")

    def _tell(self) -> None:
        """Wake those who wait for a named channel."""
        self._changed.set_result(None)
        self._changed = self._loop.create_future()

    # The other layer

    async def _join(self, group: str) -> None:
        # Two groups may have the same digest only if somebody has made them so.
        digest = hashlib.sha256(group.encode()).hexdigest()[:32]
        channel = f"{PREFIX}.{self._receiver.name}!{digest}"
        if channel not in self._groups:
            await self._do(self._stock.group_add(group, channel))
            self._groups[channel] = group

    async def _read(self) -> None:
        backoff = Backoff()
        while True:
            try:
                channels, message = await self._stock.receive_single(
                    f"{PREFIX}.{self._receiver.name}!"
                )
            except Exception as error:  # also whatever is raised for a message that is none
                logger.warning("cannot read from channels_redis: %s", type(error).__name__)
                await backoff.wait()
                continue
            backoff.succeeded()
            # What has the mark has also come by the fan-out layer.
            if message.pop(MARK, None):
                continue
            for channel in [channels] if isinstance(channels, str) else channels:
                if group := self._groups.get(channel):
                    self._receiver.take_of_group(group, message)
                else:
                    self._receiver.take_of_channel(channel, message)

    @staticmethod
    async def _do(step: Awaitable[None]) -> None:
        try:
            await step
        except CONNECTION_ERRORS as error:
            raise LayerUnavailableError(
                f"the bridge to channels_redis: {type(error).__name__}"
            ) from None


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def change(config: Mapping[str, Any], state: str) -> int:
    """Open or close the bridge of all processes; return how many event loops have done it.

    Args:
        config: `CONFIG` of either layer.
        state: `OPEN` or `CLOSED`.

    Raises:
        LayerUnavailableError: Redis is away, or a process does not answer.
    """
    prefix = str(config.get("prefix", "asgi"))
    ends = time.monotonic() + ANSWER_SECONDS
    try:
        async with opened(pool(read_hosts(config.get("hosts"))[0])) as connection:
            await ask(connection, [("SET", state_key(prefix), state)])
            while True:
                states = await _states(connection, prefix)
                late = sum(each != state.encode() for each in states)
                if not late:
                    return len(states)
                if time.monotonic() > ends:
                    raise LayerUnavailableError(
                        f"{late} of {len(states)} event loops have not {_VERBS[state]} the bridge"
                        f" in {ANSWER_SECONDS:g} s"
                    )
                await asyncio.sleep(POLL_SECONDS / 4)
    except CONNECTION_ERRORS as error:
        raise LayerUnavailableError(f"Redis does not answer: {type(error).__name__}") from None


_VERBS = {OPEN: "opened", CLOSED: "closed"}


async def _states(connection: Any, prefix: str) -> list[bytes]:
    """Return what the event loops that run tell."""
    found: set[bytes] = set()
    cursor = b"0"
    while True:
        command = ("SCAN", cursor, "MATCH", presence_key(prefix, "*"), "COUNT", 1000)
        [[cursor, keys]] = await ask(connection, [command])
        found.update(keys)
        if cursor == b"0":
            break
    states = (await ask(connection, [("MGET", *found)]))[0] if found else []
    return [state for state in states if state is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Open or close the bridge of the project whose settings Django has; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m channels_kit.layer.bridge",
        description="Connect processes with the fan-out layer and with channels_redis.core, or no"
        " longer; wait until all have done it. See docs/layer.md.",
    )
    parser.add_argument("state", choices=[OPEN, CLOSED])
    state = parser.parse_args(arguments).state
    from django.conf import settings

    config = settings.CHANNEL_LAYERS["default"].get("CONFIG", {})
    try:
        count = asyncio.run(change(config, state))
    except LayerUnavailableError as error:
        print(f"The bridge is not {state}: {error}", file=sys.stderr)
        return 1
    print(f"The bridge is {state} in {count} event loops.")
    if not count and state == OPEN:
        print('None runs with the fan-out layer and "bridge": True in its CONFIG.', file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
