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
from channels_kit.layer.options import Options, read_hosts, read_overflow
from channels_kit.layer.outlet import Outlet
from channels_kit.layer.statistics import Backlog, Statistics

_NOT_GIVEN: Any = object()
"""None is a message, as JSON."""


class RedisFanoutLayer(BaseChannelLayer):  # type: ignore[misc]
    """A channel layer on Redis that subscribes once to a group, however many members it has.

    docs/layer.md has the options and guarantees. Several event loops of a process may use one
    layer; each has its own connections.

    Raises:
        ValueError: the value of an option is not allowed; the message names it.
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
            overflow=read_overflow(overflow),
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
            ChannelFull: the channel is full, as far as this process knows.
            LayerUnavailableError: Redis is away for longer than `send_timeout`.
            ResponseError: Redis refuses it; of redis-py.
        """
        self._check(channel)
        _check_message(message)
        await self._hub().send(channel, message)

    async def receive(self, channel: str) -> Any:
        """Return the next message of a channel; wait for it.

        Raises:
            ConsumerOverflowError: its mailbox was full, with the policy `close`.
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
        """End a channel's membership of a group.

        Raises:
            LayerUnavailableError: Redis is away, or the process of the channel is connected and
                does not answer.
        """
        self._check(channel)
        self._check_group(group)
        await self._hub().group_discard(group, channel)

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        """Send to all members of a group.

        Raises:
            LayerUnavailableError: Redis is away for longer than `send_timeout`.
            ResponseError: Redis refuses it; of redis-py.
        """
        self._check_group(group)
        _check_message(message)
        await self._hub().group_send(group, message)

    async def group_broadcast(
        self,
        group: str,
        text: str | None = None,
        bytes: bytes | bytearray | memoryview | None = None,  # noqa: A002 - as in ASGI
        json: Any = _NOT_GIVEN,
    ) -> None:
        """Send one message to the clients of all members of a group.

        The client of a `FanoutConsumer` gets it without a call of the consumer, if the server has
        the extension for frames. Any other consumer gets an event `layer.broadcast`.

        Args:
            group: its name.
            text: the message.
            bytes: a binary message, instead of a text.
            json: a message to send as JSON, instead of a text.

        Raises:
            TypeError: not exactly one of the three is given, or one of another type.
            LayerUnavailableError: Redis is away for longer than `send_timeout`.
            ResponseError: Redis refuses it; of redis-py.
        """
        is_json = json is not _NOT_GIVEN
        if (text is not None) + (bytes is not None) + is_json != 1:
            raise TypeError("give one of text, bytes and json")
        if is_json:
            text = dumps(json)
        # Else the consumers would end that send it.
        if not isinstance(text, str | None):
            raise TypeError(f"text is a str, not {type(text).__name__}")
        binary: Any = bytes
        content = {"bytes": memoryview(binary).tobytes()} if text is None else {"text": text}
        await self.group_send(group, {"type": EVENT, **content})

    def open_socket(self, channel: str, outlet: Outlet) -> None:
        """Begin to write frames to the socket of a channel's consumer: `FanoutConsumer`."""
        self._hub().open_socket(channel, outlet)

    def report_gaps(self, channel: str) -> None:
        """Send a channel an event when it may have lost messages of one of its groups.

        The event is `{"type": "layer.gap", "group": NAME}`; `layer_gap` of the consumer handles it.
        """
        try:
            self._hub().report_gaps(channel)
        except RuntimeError:
            # No event loop runs here: a synchronous consumer, in a thread.
            for hub in list(self._hubs.values()):
                if channel in hub.mailboxes:
                    hub.loop.call_soon_threadsafe(hub.report_gaps, channel)
                    return
            raise ValueError(f"{channel} is no channel of this process") from None

    async def flush(self) -> None:
        """Delete all channels, groups and messages, also in Redis, and close connections."""
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
        """Return what the process hears, and what waits in it: of all its event loops."""
        parts = [hub.backlog() for hub in list(self._hubs.values()) if not hub.loop.is_closed()]
        return Backlog(
            subscriptions=sum(part.subscriptions for part in parts),
            waiting=sum(part.waiting for part in parts),
            seconds=max((part.seconds for part in parts), default=0.0),
        )

    def _hub(self) -> Hub:
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            # Those of loops that have ended, such as async_to_sync's: their tasks have closed their
            # connections. In steps that no other thread's can come between.
            for each in list(self._hubs):
                if each.is_closed():
                    self._hubs.pop(each, None)
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
