import asyncio
import logging
from typing import Any

from channels.consumer import AsyncConsumer  # type: ignore[import-untyped]
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.db.models import F

from chat import layer
from chat.images import make_thumbnail
from chat.models import Image
from chat.post import image_body

logger = logging.getLogger(__name__)


class ThumbnailConsumer(AsyncConsumer):  # type: ignore[misc]
    """Makes thumbnails, one after the other, in a process of its own: ``runworker thumbnails``."""

    async def image_thumbnail(self, event: dict[str, Any]) -> None:
        """Make the thumbnail of one image and tell the room.

        The process outlives whatever goes wrong: the original stands in for the thumbnail, and
        whoever asks for it later has it tried again.
        """
        try:
            await _make(event["image"])
        except Exception:
            logger.exception("could not make thumbnail %r", event.get("image"))


async def _make(image_id: int) -> None:
    content = await database_sync_to_async(_load)(image_id)
    if content is None:
        return
    thumbnail = await asyncio.to_thread(make_thumbnail, content)
    image = await database_sync_to_async(_store)(image_id, thumbnail)
    if image is None:
        return
    message = image.message
    frame = {"type": "image", "sequence": message.sequence, "image": image_body(image)}
    await layer.tell_all(layer.room_group(message.room.name), frame)


def _load(image_id: int) -> bytes | None:
    """Return the file of an image that is there and has no thumbnail."""
    images = Image.objects.filter(pk=image_id, has_thumbnail=False)
    # Before it is tried: a process that it kills counts as well.
    images.update(thumbnail_attempts=F("thumbnail_attempts") + 1)
    content = images.values_list("content", flat=True).first()
    return None if content is None else bytes(content)


def _store(image_id: int, thumbnail: bytes) -> Image | None:
    """Store a thumbnail; return its image, unless that is gone."""
    Image.objects.filter(pk=image_id).update(thumbnail=thumbnail)
    images = Image.objects.defer("content", "thumbnail").select_related("message__room")
    return images.filter(pk=image_id).first()
