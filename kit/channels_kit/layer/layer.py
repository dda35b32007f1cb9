"""The channel layer, as Channels calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from typing import Any

from channels.layers import BaseChannelLayer  # type: ignore[import-untyped]

from channels_kit.layer.codec import Cipher
from channels_kit.layer.frames import EVENT
from channels_kit.layer.hub import Hub
from channels_kit.layer.mailbox import Mailbox, Overflow
from channels_kit.layer.options import Options, read_hosts
from channels_kit.layer.outlet import Outlet
from channels_kit.layer.statistics import Backlog, Statistics


class RedisFanoutLayer(BaseChannelLayer):  # type: ignore[misc]
    """A channel layer on Redis that subscribes once to a group, however many members it has.

    docs/layer.md has the options and what is guaranteed. It may be used by several event loops of a
    process; each has connections of its own.

    Raises:
        ValueError: an option has a value that is not allowed; names it.
    """

    extensions = ("groups", "flush")

    def __init__(
        self,
        hosts: Sequence[Any] | None = None,
        prefix: str = "asgi",
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        overflow: str = Overflow.DROP_OLDEST,
        history_size: int = 500,
        history_seconds: float | None = None,
        send_timeout: float = 15,
        send_buffer: int = 16 << 20,
        socket_buffer: int = 1 << 20,
        bridge: bool = False,
    ) -> None:
        super().__init__(expiry=expiry, capacity=capacity)
        self.channel_capacity = self.compile_capacities(channel_capacity or {})
        self.group_expiry = group_expiry
        self.prefix = prefix
        self.options = Options(
            hosts=read_hosts(hosts),
            prefix=prefix,
            expiry=expiry,
            group_expiry=group_expiry,
            overflow=Overflow(overflow),
            history_size=history_size,
            history_seconds=expiry if history_seconds is None else history_seconds,
            send_timeout=send_timeout,
            send_buffer=send_buffer,
            socket_buffer=socket_buffer,
        )
        self.statistics = Statistics()
        # What channels_redis gets of it.
        self._stock: Mapping[str, Any] | None = None
        if bridge:
            self._stock = {
                "hosts": list(self.options.hosts),
                "prefix": prefix,
                "expiry": expiry,
                "group_expiry": group_expiry,
                "capacity": capacity,
                "channel_capacity": channel_capacity,
                "symmetric_encryption_keys": symmetric_encryption_keys,
            }
        self._cipher = Cipher(symmetric_encryption_keys or ())
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """Send to one channel.

        Raises:
            ChannelFull: it is full, as far as this process knows.
            LayerUnavailableError: Redis is away for too long.
        """
        self._check(channel)
        _check_message(message)
        await self._hub().send(channel, message)

    async def receive(self, channel: str) -> Any:
        """Return the next message of a channel; wait for it.

        Raises:
            ConsumerOverflowError: the channel was full and is closed.
            ValueError: it is a channel of another process or event loop.
        """
        hub = self._hub()
        if channel not in hub.mailboxes:
            self._check(channel)
        return await hub.receive(channel)

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a channel that this event loop receives from."""
        return self._hub().new_channel(prefix)

    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member of a group; it gets what is sent from now on.

        Raises:
            LayerUnavailableError: Redis is away for too long. The channel is no member then.
        """
        self._check(channel)
        self._check_group(group)
        await self._hub().group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Make a channel a member of a group no more.

        Raises:
            LayerUnavailableError: it is a channel of another process, and Redis is away.
        """
        self._check(channel)
        self._check_group(group)
        await self._hub().group_discard(group, channel)

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Send to all members of a group.

        Raises:
            LayerUnavailableError: Redis is away for too long.
        """
        self._check_group(group)
        _check_message(message)
        await self._hub().group_send(group, message)

    async def group_broadcast(
        self,
        group: str,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002 - as in ASGI
        json: Any = None,
    ) -> None:
        """Send one message to the clients of all members of a group, as it is.

        Members whose consumer is a `FanoutConsumer` on a server with the extension get it without a
        call of the consumer, all others by an event `layer.broadcast`.

        Args:
            group: the group.
            text: the message.
            bytes: the message, if it is binary.
            json: the message, if neither is given, as JSON makes it.

        Raises:
            LayerUnavailableError: Redis is away for too long.
        """
        if text is None and bytes is None:
            text = dumps(json)
        content = {"bytes": bytes} if text is None else {"text": text}
        await self.group_send(group, {"type": EVENT, **content})

    def open_socket(self, channel: str, outlet: Outlet) -> None:
        """Begin to write frames to the socket of a channel's consumer: `FanoutConsumer`."""
        self._hub().open_socket(channel, outlet)

    def report_gaps(self, channel: str) -> None:
        """Have a channel get `{"type": "layer.gap", "group": NAME}` when messages may be lost.

        Its consumer has a method `layer_gap`.
        """
        self._hub().report_gaps(channel)

    async def flush(self) -> None:
        """Forget all channels, groups and messages, those in Redis too, and close connections."""
        hub = self._hub()
        await hub.delete_everything()
        await self.close_pools()

    async def close_pools(self) -> None:
        """Close this event loop's connections, and forget its channels."""
        if hub := self._hubs.pop(asyncio.get_running_loop(), None):
            await hub.close()

    @property
    def channels(self) -> Mapping[str, Mailbox]:
        """The channels that the running event loop receives from."""
        return self._hub().mailboxes

    @property
    def groups(self) -> Mapping[str, int]:
        """The groups with members in the running event loop, with how many."""
        return {name: len(group.members) for name, group in self._hub().groups.items()}

    def backlog(self) -> Backlog:
        """Return what all event loops of the process hear, and what waits in them."""
        hubs = [hub for loop, hub in self._hubs.items() if not loop.is_closed()]
        ages = [age for hub in hubs if (age := hub.oldest()) is not None]
        frames = [hub.gatherer.backlog() for hub in hubs]
        return Backlog(
            subscriptions=sum(len(s.subscriber.names) for hub in hubs for s in hub.shards),
            waiting=sum(len(box.letters) for hub in hubs for box in hub.mailboxes.values())
            + sum(number for number, _ in frames),
            seconds=max([*ages, *(age for _, age in frames)], default=0.0),
        )

    def _hub(self) -> Hub:
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            # Those of loops that have ended, such as async_to_sync's: their tasks have closed their
            # connections.
            self._hubs = {each: self._hubs[each] for each in self._hubs if not each.is_closed()}
            hub = Hub(
                *(self.options, self._cipher, self.get_capacity, self.statistics, self._stock)
            )
            self._hubs[loop] = hub
        return hub

    def _check(self, channel: str) -> None:
        # The former is Channels' since 4.3.
        if hasattr(self, "require_valid_channel_name"):
            self.require_valid_channel_name(channel)
        else:
            assert self.valid_channel_name(channel), "not a channel's name"  # noqa: S101 - as Channels

    def _check_group(self, group: str) -> None:
        if hasattr(self, "require_valid_group_name"):
            self.require_valid_group_name(group)
        else:
            assert self.valid_group_name(group), "not a group's name"  # noqa: S101 - as Channels


def _source_of(layer: RedisFanoutLayer, channel: str, waker: Callable[[], None]) -> Any:
    return layer._hub().source(channel, waker)


# For a consumer's own task, where it can do without `receive`: channels_kit.serving.dispatch.
RedisFanoutLayer.receive.source_of = _source_of  # type: ignore[attr-defined]


def _check_message(message: Any) -> None:
    if not isinstance(message, Mapping):
        raise TypeError(f"a message is a dictionary, not {type(message).__name__}")
