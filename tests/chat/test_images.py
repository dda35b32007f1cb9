import zlib
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from typing import Any

import PIL.Image
import pytest
from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.layers import (  # type: ignore[import-untyped]
    InMemoryChannelLayer,
    get_channel_layer,
)
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from PIL.JpegImagePlugin import JpegImageFile

from chat import images
from chat.history import MessageHistory, NewImage
from chat.models import Image, Message, Room
from chat.protocol import ErrorCode, ProtocolError
from tests.chat.sockets import Sockets

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
ORIENTATION = 0x0112
COMMENT = 0x9286


def file(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    """Return the file of an image in one colour."""
    content = BytesIO()
    PIL.Image.new(mode, size).save(content, format=kind, **options)
    return content.getvalue()


def exif(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    exif[COMMENT] = b"where I live"
    return exif


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0])),
            chunk(b"IDAT", zlib.compress(b"")),
            chunk(b"IEND", b""),
        ]
    )


@pytest.fixture
def store(lobby: Room, ada: User) -> Callable[..., Image]:
    """Store an image of ada's and return it."""

    def store(content: bytes, *, room: Room = lobby, age: timedelta = timedelta()) -> Image:
        message, _ = MessageHistory(room.pk).append(
            user_id=ada.pk, text="", worker="a-worker", image=images.examine(content)
        )
        Message.objects.filter(pk=message.pk).update(sent_at=timezone.now() - age)
        return message.image

    return store


@pytest.fixture
def asked_for() -> Callable[[], int | None]:
    """Return the image of which a thumbnail has been asked for; None if of none."""
    layer = get_channel_layer()
    if not isinstance(layer, InMemoryChannelLayer):
        pytest.skip("only the layer in memory tells that nothing waits in a channel")
    # What other tests have left there.
    layer.channels.pop("thumbnails", None)

    def asked_for() -> int | None:
        waiting = layer.channels.get("thumbnails")
        if waiting is None or waiting.empty():
            return None
        event: dict[str, Any] = async_to_sync(layer.receive)("thumbnails")
        assert event["type"] == "image.thumbnail"
        image_id: int = event["image"]
        return image_id

    return asked_for


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_is_examined(kind: str) -> None:
    content = file(kind)
    assert images.examine(content) == NewImage(content, FORMATS[kind], 40, 30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 30)), (3, (40, 30)), (6, (30, 40))])
def test_the_size_is_that_of_the_upright_image(
    kind: str, orientation: int, size: tuple[int, int]
) -> None:
    image = images.examine(file(kind, exif=exif(orientation)))
    assert (image.width, image.height) == size


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'></svg>",
        file("BMP"),
        file("TIFF"),
        file("PNG")[:40],
        file("PNG").replace(b"IDAT", b"IDAX"),
        # Another checksum of the pixels, before the last chunk, which has 12 bytes.
        file("PNG")[:-16] + bytes(4) + file("PNG")[-12:],
        file("JPEG")[:20],
        file("GIF")[:8],
        file("WEBP")[:24],
    ],
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a PNG, JPEG, GIF or WebP") as caught:
        images.examine(content)
    assert caught.value.code == ErrorCode.NOT_AN_IMAGE


def test_an_image_of_too_many_bytes_is_refused() -> None:
    limit = 2 * 1024 * 1024
    # Nobody minds what follows on the end of a GIF.
    content = file("GIF").ljust(limit, b"\0")
    assert images.examine(content).content_type == "image/gif"
    with pytest.raises(ProtocolError, match="has 2097153 bytes; 2097152 are allowed") as caught:
        images.examine(content + b"\0")
    assert caught.value.code == ErrorCode.IMAGE_TOO_LARGE


def test_an_image_of_too_many_pixels_is_refused() -> None:
    assert images.examine(png_header(5000, 5000)).width == 5000
    with pytest.raises(ProtocolError, match="has 25005000 pixels; 25000000 are allowed") as caught:
        images.examine(png_header(5001, 5000))
    assert caught.value.code == ErrorCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(960, 480), (480, 960)])
def test_a_thumbnail_is_small_and_of_the_same_format(kind: str, size: tuple[int, int]) -> None:
    thumbnail = images.make_thumbnail(file(kind, size))
    with PIL.Image.open(BytesIO(thumbnail)) as small:
        assert small.format == kind
        assert small.size == (size[0] // 2, size[1] // 2)


def test_a_small_image_does_not_grow() -> None:
    with PIL.Image.open(BytesIO(images.make_thumbnail(file("PNG", (40, 30))))) as small:
        assert small.size == (40, 30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_thumbnail_is_upright_and_has_no_metadata(kind: str) -> None:
    content = file(kind, (960, 480), exif=exif(6))
    assert b"where I live" in content
    thumbnail = images.make_thumbnail(content)
    assert b"where I live" not in thumbnail
    with PIL.Image.open(BytesIO(thumbnail)) as small:
        assert small.size == (240, 480)
        assert not small.getexif()


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_a_thumbnail_has_no_comment(kind: str) -> None:
    content = file(kind, comment=b"where I live")
    assert b"where I live" in content
    assert b"where I live" not in images.make_thumbnail(content)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *(("JPEG", mode) for mode in ("L", "CMYK")),
        *(("GIF", mode) for mode in ("P", "RGBA")),
        ("WEBP", "RGBA"),
    ],
)
def test_every_kind_of_pixels_has_a_thumbnail(kind: str, mode: str) -> None:
    content = file(kind, (960, 480), mode)
    images.examine(content)
    with PIL.Image.open(BytesIO(images.make_thumbnail(content))) as small:
        assert small.size == (480, 240)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "1"), ("PNG", "P"), ("PNG", "RGB"), ("GIF", "P"), ("JPEG", "L")]
)
def test_a_thumbnail_of_fine_stripes_is_grey(kind: str, mode: str) -> None:
    blue, yellow = (0, 0, 255), (255, 255, 0)
    stripes = PIL.Image.new("RGB", (960, 480))
    stripes.putdata([blue, yellow] * (960 * 480 // 2))
    content = BytesIO()
    stripes.convert(mode, dither=PIL.Image.Dither.NONE).save(content, format=kind)
    with PIL.Image.open(BytesIO(images.make_thumbnail(content.getvalue()))) as small:
        brightness = small.convert("L").tobytes()
    assert 100 < min(brightness) <= max(brightness) < 156


def test_a_jpeg_is_decoded_at_a_fraction_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    load = JpegImageFile.load

    def note_and_load(image: JpegImageFile) -> Any:
        sizes.append(image.size)
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", note_and_load)
    images.make_thumbnail(file("JPEG", (3840, 3840)))
    assert sizes[0] == (960, 960)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_a_thumbnail_keeps_transparency(kind: str) -> None:
    with PIL.Image.open(BytesIO(images.make_thumbnail(file(kind, mode="RGBA")))) as small:
        assert small.convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0)


async def test_an_image_on_a_socket_becomes_a_message(
    sockets: Sockets, ada: User, bob: User, asked_for: Callable[[], int | None]
) -> None:
    sender, _ = await sockets.join(ada)
    reader, _ = await sockets.join(bob)
    await sender.send(file("PNG"))
    frame = await reader.receive_until("message")
    image_id = await database_sync_to_async(lambda: Image.objects.get().pk)()
    assert frame["message"] == ""
    assert frame["user"] == "ada"
    assert frame["image"] == {
        "url": f"/images/{image_id}/",
        "thumbnail": None,
        "width": 40,
        "height": 30,
    }
    assert (await sender.receive_until("message")) == frame
    assert await database_sync_to_async(asked_for)() == image_id
    _, history = await sockets.join(bob)
    assert history["messages"][-1]["image"] == frame["image"]


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"hello", "not_an_image"), (png_header(5001, 5000), "image_too_large")],
)
async def test_a_refused_image_leaves_the_socket_open(
    sockets: Sockets, ada: User, content: bytes, code: str
) -> None:
    socket, _ = await sockets.join(ada)
    await socket.send(content)
    assert (await socket.receive_until("error"))["code"] == code
    await socket.act("ping")
    assert (await socket.receive())["type"] == "pong"
    assert not await database_sync_to_async(Message.objects.exists)()


def test_an_image_is_served(client: Client, bob: User, store: Callable[..., Image]) -> None:
    content = file("PNG")
    image = store(content)
    client.force_login(bob)
    response = client.get(f"/images/{image.pk}/")
    assert response.content == content
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert response.headers["Content-Disposition"] == "inline"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_the_format_is_what_was_found(
    client: Client, ada: User, store: Callable[..., Image]
) -> None:
    script = b"<script>alert(1)</script>"
    image = store(file("GIF") + script)
    client.force_login(ada)
    response = client.get(f"/images/{image.pk}/")
    assert script in response.content
    assert response.headers["Content-Type"] == "image/gif"


@pytest.mark.parametrize("path", ["/images/{}/", "/images/{}/thumbnail/"])
def test_an_image_of_a_private_room_is_for_its_members(
    path: str, client: Client, ada: User, bob: User, store: Callable[..., Image]
) -> None:
    room = Room.objects.create(name="den", title="Den", is_private=True, created_by=ada)
    room.members.add(ada)
    image = store(file("PNG"), room=room)
    path = path.format(image.pk)
    assert client.get(path).status_code == 302
    client.force_login(bob)
    assert client.get(path).status_code == 404
    client.force_login(ada)
    assert client.get(path).status_code == 200
    assert client.post(path).status_code == 405
    assert client.get(path.replace(str(image.pk), str(image.pk + 1))).status_code == 404


def test_a_thumbnail_is_served(client: Client, ada: User, store: Callable[..., Image]) -> None:
    image = store(file("PNG"))
    Image.objects.update(thumbnail=b"a thumbnail")
    client.force_login(ada)
    response = client.get(f"/images/{image.pk}/thumbnail/")
    assert response.content == b"a thumbnail"
    assert response.headers["Content-Type"] == "image/png"
    assert "immutable" in response.headers["Cache-Control"]
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize(("seconds", "is_asked_for"), [(0, False), (11, True)])
def test_the_image_stands_in_for_its_thumbnail(
    seconds: int,
    is_asked_for: bool,
    client: Client,
    ada: User,
    store: Callable[..., Image],
    asked_for: Callable[[], int | None],
) -> None:
    content = file("PNG")
    image = store(content, age=timedelta(seconds=seconds))
    client.force_login(ada)
    response = client.get(f"/images/{image.pk}/thumbnail/")
    assert response.content == content
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert asked_for() == (image.pk if is_asked_for else None)
