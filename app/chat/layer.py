"""The wire: the channel layer's groups, and events to them that may be lost.

Whatever is told here is also in the database, and whoever misses it finds out: so a layer that is
away is logged, and stops nobody.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from django.db import transaction

from channels_kit.layer import RedisFanoutLayer

logger = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds the layer has to take an event."""

THUMBNAILS = "thumbnails"
"""The channel of the process that makes thumbnails."""


def room_group(name: str) -> str:
    """Return the group of all sockets in a room."""
    return f"chat.room.{name}"


def user_group(user_id: int) -> str:
    """Return the group of all sockets of a user's pages for notifications."""
    return f"user_{user_id}"


async def tell(group: str, event: dict[str, Any]) -> None:
    """Send an event to a group; log where that fails."""
    await _tell(group, event["type"], get_channel_layer().group_send(group, event))


async def tell_all(group: str, frame: Any) -> None:
    """Send a frame with a number to the clients of all sockets in a room, as it is."""
    # Encoded once here instead of once a socket: a room may have thousands.
    text = json.dumps(frame)
    layer = get_channel_layer()
    if isinstance(layer, RedisFanoutLayer):
        await _tell(group, frame["type"], layer.group_broadcast(group, text))
    else:
        event = {"type": "room.frame", "frame": text, "sequence": frame["sequence"]}
        await tell(group, event)


async def _tell(group: str, what: str, sending: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(TIMEOUT):
            await sending
    except Exception as error:
        # The class only: the text of an error may hold a URL with a password.
        logger.warning("could not tell %s of %s: %s", group, what, type(error).__name__)


def tell_on_commit(group: str, event: dict[str, Any]) -> None:
    """Send an event to a group from synchronous code, once the transaction is committed."""
    transaction.on_commit(partial(async_to_sync(tell), group, event))


async def ask_for_thumbnail(image_id: int) -> None:
    """Have the thumbnail of an image made; log where that fails."""
    try:
        async with asyncio.timeout(TIMEOUT):
            await get_channel_layer().send(
                THUMBNAILS, {"type": "image.thumbnail", "image": image_id}
            )
    except Exception as error:
        logger.warning("could not ask for thumbnail %d: %s", image_id, type(error).__name__)
