import asyncio
from datetime import timedelta
from io import BytesIO
from typing import Any

import PIL.Image
import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from django.contrib.auth.models import User
from django.utils import timezone

from chat import images
from chat.history import MessageHistory, NewImage
from chat.models import Image, Message, Room
from chat.tasks import ask_for_lost_thumbnails
from config.asgi import application
from tests.chat.sockets import Sockets


class Thumbnails:
    """The process that makes thumbnails, as ``runworker`` runs it."""

    def __init__(self) -> None:
        scope = {"type": "channel", "channel": "thumbnails"}
        # Its methods have no types.
        self._application: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]

    async def make(self, image_id: int) -> None:
        await self._application.send_input({"type": "image.thumbnail", "image": image_id})

    async def settle(self) -> None:
        """Wait until everything that was asked for so far has been tried."""
        while not self._application.input_queue.empty():  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
        # The one in hand: nothing tells of it from outside but that nothing comes any more.
        await self._application.receive_nothing(timeout=0.3)

    async def end(self) -> None:
        self._application.stop(exceptions=False)
        await self._application.wait()


def store(user: User, content: bytes | None = None) -> Image:
    """Store an image of a user's; one that cannot be read, without a content."""
    if content is None:
        image = NewImage(b"\xff\xd8 is no JPEG", "image/jpeg", 40, 30)
    else:
        image = images.examine(content)
    message, _ = MessageHistory(Room.objects.get(name="lobby").pk).append(
        user_id=user.pk, text="", worker="a-worker", image=image
    )
    return message.image


def png() -> bytes:
    content = BytesIO()
    PIL.Image.new("RGB", (960, 480)).save(content, format="PNG")
    return content.getvalue()


async def test_a_thumbnail_is_made_and_the_room_is_told(sockets: Sockets, ada: User) -> None:
    image = await database_sync_to_async(store)(ada, png())
    socket, first = await sockets.join(ada)
    assert first["messages"][0]["image"]["thumbnail"] is None
    worker = Thumbnails()
    await worker.make(image.pk)
    assert await socket.receive_until("image") == {
        "type": "image",
        "sequence": 1,
        "image": {
            "url": f"/images/{image.pk}/",
            "thumbnail": f"/images/{image.pk}/thumbnail/",
            "width": 960,
            "height": 480,
        },
    }
    await worker.end()
    image = await database_sync_to_async(Image.objects.get)()
    with PIL.Image.open(BytesIO(image.thumbnail or b"")) as small:
        assert small.size == (480, 240)
    _, history = await sockets.join(ada)
    thumbnail = history["messages"][0]["image"]["thumbnail"]
    assert thumbnail == f"/images/{image.pk}/thumbnail/"


async def test_what_goes_wrong_with_one_image_keeps_no_other_from_its_thumbnail(
    sockets: Sockets, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    broken = await database_sync_to_async(store)(ada)
    good = await database_sync_to_async(store)(ada, png())
    socket, _ = await sockets.join(ada)
    worker = Thumbnails()
    await worker.make(broken.pk)
    await worker.make(good.pk + 1)  # has been removed
    await worker.make(good.pk)
    frame = await socket.receive_until("image")
    await worker.end()
    assert frame["sequence"] == 2
    assert f"could not make thumbnail {broken.pk}" in caplog.text
    await database_sync_to_async(broken.refresh_from_db)()
    assert broken.thumbnail is None


async def test_a_thumbnail_that_is_there_is_not_made_again(sockets: Sockets, ada: User) -> None:
    first = await database_sync_to_async(store)(ada, png())
    second = await database_sync_to_async(store)(ada, png())
    await database_sync_to_async(Image.objects.filter(pk=first.pk).update)(thumbnail=b"made")
    socket, _ = await sockets.join(ada)
    worker = Thumbnails()
    await worker.make(first.pk)
    await worker.make(second.pk)
    assert (await socket.receive_until("image"))["sequence"] == 2
    await worker.end()
    assert (await database_sync_to_async(Image.objects.get)(pk=first.pk)).thumbnail == b"made"


@pytest.mark.usefixtures("in_memory")
async def test_a_request_that_the_layer_has_lost_is_made_again(sockets: Sockets, ada: User) -> None:
    """Without anybody who views the image; not for ever where it cannot be made."""
    lost = await database_sync_to_async(store)(ada, png())
    young = await database_sync_to_async(store)(ada, png())
    broken = await database_sync_to_async(store)(ada)
    hopeless = [lost.message_id, broken.message_id]
    old = timezone.now() - timedelta(minutes=1)
    await database_sync_to_async(Message.objects.filter(pk__in=hopeless).update)(sent_at=old)
    worker = Thumbnails()
    asked: list[int] = []
    for _ in range(7):
        await database_sync_to_async(ask_for_lost_thumbnails)()
        layer = get_channel_layer()
        while not layer.channels.get("thumbnails", asyncio.Queue()).empty():
            event = await layer.receive("thumbnails")
            asked.append(event["image"])
            await worker.make(event["image"])
        await worker.settle()
    await worker.end()
    assert asked == [lost.pk, *[broken.pk] * 5]
    made = await database_sync_to_async(Image.objects.filter(has_thumbnail=True).count)()
    assert made == 1
    assert young.pk not in asked
