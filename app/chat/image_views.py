from asgiref.sync import async_to_sync
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from chat.later import THUMBNAIL_PATIENCE
from chat.layer import ask_for_thumbnail
from chat.models import Image, Room
from chat.views import user_of


@require_safe
def image(request: HttpRequest, image_id: int) -> HttpResponse:
    """Answer with an image."""
    found = get_object_or_404(_open_to(request).defer("thumbnail"), pk=image_id)
    return _answer(found.content, found.content_type, immutable=True)


@require_safe
def thumbnail(request: HttpRequest, image_id: int) -> HttpResponse:
    """Answer with the thumbnail of an image, with the image itself while there is none."""
    images = _open_to(request).select_related("message")
    found = get_object_or_404(images.defer("content"), pk=image_id)
    if found.thumbnail is not None:
        return _answer(found.thumbnail, found.content_type, immutable=True)
    if timezone.now() - found.message.sent_at > THUMBNAIL_PATIENCE:
        async_to_sync(ask_for_thumbnail)(found.pk)
    return _answer(found.content, found.content_type, immutable=False)


def _open_to(request: HttpRequest) -> QuerySet[Image]:
    rooms = Room.objects.open_to(user_of(request).pk)
    return Image.objects.filter(message__room__in=rooms)


def _answer(content: bytes | memoryview, content_type: str, *, immutable: bool) -> HttpResponse:
    cache = "private, max-age=31536000, immutable" if immutable else "private, no-cache"
    return HttpResponse(
        # PostgreSQL's driver gives a memoryview.
        bytes(content),
        content_type=content_type,
        headers={
            "Content-Disposition": "inline",
            "Cache-Control": cache,
            # A user has made this file: whatever a browser takes it for, it runs nothing.
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )
