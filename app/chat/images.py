"""Images as clients send them: whether they are any, and their thumbnails. No database, no socket.

What is done here takes a while: call it in a thread, and not in the one of the database.
"""

from io import BytesIO
from typing import cast

import PIL.Image
from PIL import ImageOps

from chat.history import NewImage
from chat.protocol import IMAGE_MAX_BYTES, IMAGE_MAX_PIXELS, ErrorCode, ProtocolError

CONTENT_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}

THUMBNAIL_MAX_PIXELS = 480
"""Pixels of a thumbnail's longer side."""

_ORIENTATION = 0x0112
_ROTATED_BY_A_QUARTER = range(5, 9)

# The limit is checked below, from the file's header and before a pixel is decoded; Pillow's own
# would warn at half of it.
PIL.Image.MAX_IMAGE_PIXELS = None


def _open(content: bytes) -> PIL.Image.Image:
    """Return the image in a file, of which only the header has been read."""
    return PIL.Image.open(BytesIO(content), formats=list(CONTENT_TYPES))


def examine(content: bytes) -> NewImage:
    """Return what is known of an image after looking into it.

    Raises:
        ProtocolError: it is too large, or no image of a format that is allowed.
    """
    if len(content) > IMAGE_MAX_BYTES:
        raise ProtocolError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The image has {len(content)} bytes; {IMAGE_MAX_BYTES} are allowed.",
        )
    try:
        with _open(content) as image:
            width, height = image.size
            content_type = CONTENT_TYPES[cast(str, image.format)]
            if width * height <= IMAGE_MAX_PIXELS:
                # Reads the file to its end, so that nothing more can be asked of it.
                image.verify()
                with _open(content) as again:
                    # That of all formats: PNG's own decodes 25 million pixels to look behind them.
                    orientation = PIL.Image.Image.getexif(again).get(_ORIENTATION)
    except Exception:
        # Pillow's readers raise nearly anything for a file that is broken on purpose.
        raise ProtocolError(
            ErrorCode.NOT_AN_IMAGE, "The frame is not a PNG, JPEG, GIF or WebP image."
        ) from None
    if width * height > IMAGE_MAX_PIXELS:
        raise ProtocolError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The image has {width * height} pixels; {IMAGE_MAX_PIXELS} are allowed.",
        )
    if orientation in _ROTATED_BY_A_QUARTER:
        width, height = height, width
    return NewImage(content, content_type, width, height)


def make_thumbnail(content: bytes) -> bytes:
    """Return a small image of the same format, upright and without any metadata.

    Raises:
        Exception: whatever Pillow's reader raises for an image that is broken behind its header.
    """
    with _open(content) as image:
        colours = "RGBA" if image.has_transparency_data else "RGB"
        # Numbers of a palette have no mean: Pillow would shrink these by leaving pixels out.
        small = image.convert(colours) if image.mode in ("1", "P") else image
        # Before anything else is done with it: a JPEG is then decoded at a fraction of its size.
        small.thumbnail((THUMBNAIL_MAX_PIXELS, THUMBNAIL_MAX_PIXELS))
        small = ImageOps.exif_transpose(small).convert(colours)
        # Some of Pillow's writers take comments and profiles from here.
        small.info = {}
        thumbnail = BytesIO()
        small.save(thumbnail, format=image.format)
        return thumbnail.getvalue()
