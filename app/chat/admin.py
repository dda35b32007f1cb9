from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from chat.models import (
    Image,
    LaterMessage,
    Message,
    Order,
    Presence,
    ReadPosition,
    Room,
    WorkerInstance,
)
from chat.orders import set_status

# ModelAdmin is generic in its type stubs only: at run time it takes no type arguments.


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What the application alone writes: to read and to remove."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rooms; their numbers are given by the history alone."""

    list_display = ("name", "title", "is_private", "last_sequence")
    list_filter = ("is_private",)
    readonly_fields = ("last_sequence",)
    filter_horizontal = ("members",)
    search_fields = ("name", "title")


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """Messages; one written here would have no number and reach nobody."""

    list_display = ("room", "sequence", "user", "text", "sent_at", "worker")
    list_filter = ("room",)
    list_select_related = ("room", "user")
    search_fields = ("text", "user__username")
    ordering = ("-sent_at",)


@admin.register(LaterMessage)
class LaterMessageAdmin(ReadOnlyAdmin):
    """Messages whose time has not come; one that is removed here is not said."""

    list_display = ("room", "user", "text", "due_at")
    list_select_related = ("room", "user")
    ordering = ("due_at",)


@admin.register(Image)
class ImageAdmin(ReadOnlyAdmin):
    """Images, each shown by its thumbnail."""

    list_display = ("message", "preview", "content_type", "width", "height", "has_thumbnail")
    list_select_related = ("message",)
    fields = ("message", "preview", "content_type", "width", "height", "size")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Image]:
        """Return the images without their bytes, of which a list would load megabytes."""
        return super().get_queryset(request).defer("content", "thumbnail")

    @admin.display(description="image")
    def preview(self, image: Image) -> str:
        """Return the thumbnail; who may not enter its room sees none."""
        return format_html(
            '<img src="{}" alt="" height="80">', reverse("thumbnail", args=[image.pk])
        )

    @admin.display(description="bytes")
    def size(self, image: Image) -> int:
        """Return the number of bytes."""
        return len(image.content)


@admin.register(ReadPosition)
class ReadPositionAdmin(ReadOnlyAdmin):
    """How far users have read."""

    list_display = ("user", "room", "sequence")
    list_select_related = ("user", "room")


@admin.register(WorkerInstance)
class WorkerInstanceAdmin(ReadOnlyAdmin):
    """The worker processes that have people in rooms."""

    list_display = ("name", "beat_at")


@admin.register(Presence)
class PresenceAdmin(ReadOnlyAdmin):
    """Who is where, through which worker process."""

    list_display = ("user", "room", "instance")
    list_select_related = ("user", "room", "instance")
    list_filter = ("room",)


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Orders; a new status is told to the user, wherever they are."""

    list_display = ("id", "title", "user", "status", "updated_at")
    list_filter = ("status",)
    list_select_related = ("user",)

    def save_model(self, request: HttpRequest, obj: Order, form: Any, change: bool) -> None:
        """Save an order, and its status the way that tells of it."""
        status = obj.status
        if change:
            obj.status = form.initial["status"]
        super().save_model(request, obj, form, change)
        set_status(obj, status)
