"""The other end of the probe: a consumer like any of the application's.

It uses nothing but Channels and the application's default channel layer, so that what it
delivers is what the application can deliver. Of Channels it uses what 3.0 has.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine
from contextlib import suppress
from hashlib import sha256
from secrets import token_hex
from typing import Any

from channels.consumer import AsyncConsumer  # type: ignore[import-untyped]
from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]

from channels_kit.paths import TOUCHED
from channels_kit.serving.loopback import close_channel, send_until_heard
from channels_kit.serving.readiness import NoChannelLayerError, default_layer, describe
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
NORMAL_CLOSURE = 1000
UNSUPPORTED_DATA = 1003
INVALID_DATA = 1007
INTERNAL_ERROR = 1011


def group_of(run: str) -> str:
    """Return the group that the sockets of a run share.

    A run's name is longer and has more characters than Channels allows in a group's name.
    """
    return f"channels-kit.probe.{sha256(run.encode()).hexdigest()[:32]}"


def touched_group_of(run: str) -> str:
    """Return the group of those sockets of a run that a proof is about."""
    return f"{group_of(run)}.{TOUCHED}"


class ProbeConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One socket of one run.

    It says hello with the worker's name once it is a member of the run's group and has heard
    itself through the layer, sends each round it is told to the group, and passes on what the group
    delivers. A frame may ask for a smaller group: the sockets of workers that a roll has touched.

    Args:
        run: the name all sockets of the run share.
        endpoint: this socket's name within the run.
        settings: the worker's.
        sockets: how many sockets the worker has beside this one.
        is_touched: whether it also belongs to that smaller group.
    """

    def __init__(
        self,
        run: str,
        endpoint: str,
        settings: ServingSettings,
        sockets: int,
        *,
        is_touched: bool = False,
    ) -> None:
        super().__init__()
        self.group = group_of(run)
        self.touched_group = touched_group_of(run)
        self.is_touched = is_touched
        # For hearing itself: a group of its own, because a worker with a former version of the kit
        # may be in the run, whose sockets would end at a message they do not know. It is joined
        # after the other; a layer subscribes in this order.
        self.own_group = f"{self.group}.{token_hex(8)}"
        self.heard = asyncio.Event()
        # Says hello; kept, because asyncio itself keeps no task from being collected.
        self.announcing: asyncio.Task[None] | None = None
        self.endpoint = endpoint
        self.settings = settings
        self.sockets = sockets
        # The groups that may have this socket: what has to be undone at the end.
        self.joined: list[str] = []
        # Whether this side accepted.
        self.accepted = False
        # Whether this side closed: frames and messages already on their way are dropped.
        self.closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the socket until its end, whatever ends it."""
        try:
            await super().__call__(scope, receive, send)
        except Exception as error:
            if not self.accepted:
                raise
            # What waits for messages from the layer failed, for example after a time-out of its
            # own. An application's socket would end here too.
            logger.warning("a probe's socket failed: %s", describe(error))
            # Its client may have gone.
            with suppress(Exception):
                await self.close(INTERNAL_ERROR, f"channel layer: {type(error).__name__}")
        finally:
            if self.announcing is not None:
                self.announcing.cancel()
            await self._leave()

    async def connect(self) -> None:
        """Accept, join, say hello; in this order, for a refusal could not say why."""
        await self.accept()
        self.accepted = True
        if await self._through_the_layer(self._join()):
            # Not awaited: what it waits for is dispatched after this.
            self.announcing = asyncio.create_task(self._announce())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send the round that a frame `{"round": n}` names to the group.

        With `"to": "touched"` it goes to the touched sockets alone.
        """
        if self.closed:
            return
        if text_data is None:
            await self.close(UNSUPPORTED_DATA, "text frames only")
            return
        asked = parse_frame(text_data)
        if asked is None:
            await self.close(INVALID_DATA, 'expected {"round": n}')
            return
        number, to_touched = asked
        message = {
            "type": "probe.message",
            "sender": self.endpoint,
            "worker": self.settings.worker,
            "round": number,
        }
        group = self.touched_group if to_touched else self.group
        await self._through_the_layer(self.channel_layer.group_send(group, message))

    async def probe_message(self, message: dict[str, Any]) -> None:
        """Pass on what the group delivered."""
        if not self.closed:
            await self._tell(**{**message, "type": "message"})

    async def probe_heard(self, message: dict[str, Any]) -> None:
        """Take note that a message to itself arrived."""
        self.heard.set()

    async def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the socket with a reason the probe shows to the operator."""
        self.closed = True
        # Channels itself passes on a reason since 4.1.
        await AsyncConsumer.send(self, {"type": "websocket.close", "code": code, "reason": reason})

    async def _join(self) -> None:
        if self.channel_layer is None:
            default_layer()  # says why
        touched = [self.touched_group] if self.is_touched else []
        for group in (self.group, *touched, self.own_group):
            self.joined.append(group)
            await self.channel_layer.group_add(group, self.channel_name)

    async def _announce(self) -> None:
        """Say hello once the layer delivers to this socket."""
        hearing = send_until_heard(self.channel_layer, self.heard, self._tell_itself)
        # Its client may have gone.
        with suppress(Exception):
            if await self._through_the_layer(hearing):
                await self._tell(
                    type="hello",
                    worker=self.settings.worker,
                    revision=self.settings.revision,
                    sockets=self.sockets,
                )

    async def _tell_itself(self) -> None:
        await self.channel_layer.group_send(self.own_group, {"type": "probe.heard"})

    async def _leave(self) -> None:
        """Leave the groups and the channel; where the layer fails, the groups' expiry does it."""
        if not self.joined:
            return
        try:
            async with asyncio.timeout(self.settings.ready_timeout):
                for group in self.joined:
                    await self.channel_layer.group_discard(group, self.channel_name)
                # Channels leaves it open if the socket ends while a message is dispatched.
                await close_channel(self.channel_layer, self.channel_name)
        except Exception as error:
            logger.warning("leaving a probe's group failed: %s", type(error).__name__)

    async def _through_the_layer(self, step: Coroutine[Any, Any, None]) -> bool:
        """Take one step under the deadline; where it fails, close with the reason.

        The class of the error only: its text may hold a URL with a password.
        """
        try:
            async with asyncio.timeout(self.settings.ready_timeout):
                await step
        except Exception as error:
            words = str(error) if isinstance(error, NoChannelLayerError) else type(error).__name__
            await self.close(INTERNAL_ERROR, f"channel layer: {words}")
            return False
        return True

    async def _tell(self, **content: object) -> None:
        await self.send(text_data=json.dumps(content))


def parse_frame(text: str) -> tuple[int, bool] | None:
    """Return n of `{"round": n}`, and whether it goes to the touched alone; None for other text."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    number = content.get("round") if isinstance(content, dict) else None
    # A channel layer's serializer knows no integer above 64 bits.
    if type(number) is not int or not 0 <= number < 2**63:
        return None
    return number, content.get("to") == TOUCHED
