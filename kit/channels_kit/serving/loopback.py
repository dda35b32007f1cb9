"""A message that goes through the channel layer and comes back to its sender.

With the pub/sub layer of channels_redis a message can overtake the subscription of its group by
some 100 microseconds, and is lost. So one that does not come back is sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any

FIRST_PAUSE = 0.25
"""Seconds until a message is sent for the second time, where the layer loses none at first."""

FIRST_PAUSE_SUBSCRIBED = 0.005
"""The same where a layer subscribes: much more than a message overtakes a subscription by."""

LONGEST_PAUSE = 0.5
"""The pause doubles each time, up to this."""

LEAVE_TIMEOUT = 60.0
"""Seconds for the steps of a round trip that was given up, and for leaving its group."""


async def send_until_heard(
    layer: Any, heard: asyncio.Event, send: Callable[[], Awaitable[Any]]
) -> None:
    """Send until `heard` is set; without end, if it never is."""
    pause = FIRST_PAUSE if open_channels(layer) is None else FIRST_PAUSE_SUBSCRIBED
    while not heard.is_set():
        await send()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await heard.wait()
        pause = min(2 * pause, LONGEST_PAUSE)


def open_channels(layer: Any) -> Any:
    """Return the channels that a layer keeps open in this process; None: it keeps none.

    The pub/sub layer subscribes to each, and the one in memory has a queue for each. Neither has
    another way to end that than to cancel a `receive` that waits, as Channels does itself. The core
    layer keeps none, and may lose another channel's message if its `receive` is cancelled.
    """
    return getattr(layer, "channels", None)


async def close_channel(layer: Any, channel: str) -> None:
    """Have a layer forget a channel that it keeps open; nothing else may receive from it."""
    if channel not in (open_channels(layer) or ()):
        return

    async def exhaust() -> None:
        while True:
            await layer.receive(channel)

    closing = asyncio.create_task(exhaust())
    # It receives what there is without a pause, so after one step it waits.
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])


async def round_trip(layer: Any) -> None:
    """Send a message to a group on a channel layer until it comes back; leave nothing behind.

    If the caller gives up, the steps that are under way end in the background: a layer that hangs
    may carry them out once it is back, and they have to be undone then.
    """
    trip = _RoundTrip(layer)
    task = asyncio.create_task(trip.run())
    _running.add(task)
    task.add_done_callback(_ended)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        trip.give_up()
        raise
    task.result()


# asyncio itself keeps no task from being collected.
_running: set[asyncio.Task[None]] = set()


def _ended(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled():
        # Whoever gave it up does not ask for its error.
        task.exception()


class _RoundTrip:
    """One message, its group and its channel."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.nonce = token_hex(16)
        self.group = f"channels-kit.ready.{self.nonce}"
        # Set when the message is back, and when waiting for it makes no sense any more.
        self.over = asyncio.Event()
        # Bounds the steps to the message's return; set once it is given up.
        self.limit = asyncio.timeout(None)

    async def run(self) -> None:
        """Go through the layer and back."""
        async with self.limit:
            channel = await self.layer.new_channel()
            listener = asyncio.create_task(self._listen(channel))
            try:
                await self.layer.group_add(self.group, channel)
                await send_until_heard(self.layer, self.over, self._send)
                if listener.done():
                    listener.result()
            except Exception:
                # The first failure is the one to tell.
                with suppress(Exception):
                    await self._leave(channel, listener)
                raise
            except asyncio.CancelledError:
                # The worker ends, or the layer has not moved for so long that it has forgotten.
                listener.cancel()
                raise
            await self._leave(channel, listener)

    def give_up(self) -> None:
        """Only leave, within a time."""
        self.over.set()
        with suppress(RuntimeError):  # it has ended, or has not begun
            self.limit.reschedule(asyncio.get_running_loop().time() + LEAVE_TIMEOUT)

    async def _send(self) -> None:
        await self.layer.group_send(self.group, {"type": "ready.check", "nonce": self.nonce})

    async def _listen(self, channel: str) -> None:
        try:
            while (await self.layer.receive(channel)).get("nonce") != self.nonce:
                pass
        finally:
            self.over.set()

    async def _leave(self, channel: str, listener: asyncio.Task[None]) -> None:
        """Leave the group, then the channel; the latter also where the former fails."""
        async with asyncio.timeout(LEAVE_TIMEOUT):
            try:
                await self.layer.group_discard(self.group, channel)
            finally:
                listener.cancel()
                await asyncio.wait([listener])
                await close_channel(self.layer, channel)
