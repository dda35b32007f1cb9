"""The other end of the probe: a consumer like any of the application's.

It uses nothing but Channels and the application's default channel layer, so that what it
delivers is what the application can deliver.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine
from hashlib import sha256
from typing import Any

from channels.exceptions import InvalidChannelLayerError  # type: ignore[import-untyped]
from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]

from channels_kit.serving.settings import ServingSettings

logger = logging.getLogger(__name__)

# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
UNSUPPORTED_DATA = 1003
INVALID_DATA = 1007
INTERNAL_ERROR = 1011


def group_of(run: str) -> str:
    """Return the group that the sockets of a run share.

    A run's name is longer and has more characters than Channels allows in a group's name.
    """
    return f"channels-kit.probe.{sha256(run.encode()).hexdigest()[:32]}"


class ProbeConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One socket of one run.

    It says hello with the worker's name once it is a member of the run's group, sends each
    round it is told to the group, and passes on what the group delivers.

    Args:
        run: the name all sockets of the run share.
        endpoint: this socket's name within the run.
        settings: the worker's.
        sockets: how many sockets the worker has beside this one.
    """

    def __init__(self, run: str, endpoint: str, settings: ServingSettings, sockets: int) -> None:
        super().__init__()
        self.group = group_of(run)
        self.endpoint = endpoint
        self.settings = settings
        self.sockets = sockets
        # Whether the group has this socket: what has to be undone at the end.
        self.joined = False
        # Whether this side closed: frames and messages already on their way are dropped.
        self.closed = False

    async def connect(self) -> None:
        """Accept, join, say hello; in this order, for a refusal could not say why."""
        await self.accept()
        if await self._through_the_layer(self._join()):
            await self._tell(
                type="hello",
                worker=self.settings.worker,
                revision=self.settings.revision,
                sockets=self.sockets,
            )

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send the round that a frame `{"round": n}` names to the group."""
        if self.closed:
            return
        if text_data is None:
            await self.close(UNSUPPORTED_DATA, "text frames only")
            return
        number = parse_round(text_data)
        if number is None:
            await self.close(INVALID_DATA, 'expected {"round": n}')
            return
        message = {
            "type": "probe.message",
            "sender": self.endpoint,
            "worker": self.settings.worker,
            "round": number,
        }
        await self._through_the_layer(self.channel_layer.group_send(self.group, message))

    async def probe_message(self, message: dict[str, Any]) -> None:
        """Pass on what the group delivered."""
        if not self.closed:
            await self._tell(**{**message, "type": "message"})

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the socket with a reason the probe shows to the operator."""
        self.closed = True
        await super().close(code, reason)

    async def disconnect(self, code: int) -> None:
        """Leave the group; where the layer fails, the group's expiry does it."""
        if not self.joined:
            return
        try:
            async with asyncio.timeout(self.settings.ready_timeout):
                await self.channel_layer.group_discard(self.group, self.channel_name)
        except Exception as error:
            logger.warning("leaving a probe's group failed: %s", type(error).__name__)

    async def _join(self) -> None:
        if self.channel_layer is None:
            raise InvalidChannelLayerError("no default channel layer is configured")
        await self.channel_layer.group_add(self.group, self.channel_name)
        self.joined = True

    async def _through_the_layer(self, step: Coroutine[Any, Any, None]) -> bool:
        """Take one step under the deadline; where it fails, close with the reason.

        The class of the error only: its text may hold a URL with a password.
        """
        try:
            async with asyncio.timeout(self.settings.ready_timeout):
                await step
        except Exception as error:
            await self.close(INTERNAL_ERROR, f"channel layer: {type(error).__name__}")
            return False
        return True

    async def _tell(self, **content: object) -> None:
        await self.send(text_data=json.dumps(content))


def parse_round(text: str) -> int | None:
    """Return n of `{"round": n}`; None for any other text."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    number = content.get("round") if isinstance(content, dict) else None
    # A channel layer's serializer knows no integer above 64 bits.
    return number if type(number) is int and 0 <= number < 2**63 else None
