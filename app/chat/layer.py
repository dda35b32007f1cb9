"""The wire: the channel layer's groups, and events to them that may be lost.

Whatever is told here is also in the database, and whoever misses it finds out: so a layer that is
away is logged, and stops nobody.
"""

import asyncio
import logging
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from django.db import transaction

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
    try:
        async with asyncio.timeout(TIMEOUT):
            await get_channel_layer().group_send(group, event)
    except Exception as error:
        # The class only: the text of an error may hold a URL with a password.
        logger.warning("could not tell %s of %s: %s", group, event["type"], type(error).__name__)


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
