from django.contrib import admin
from django.http import HttpRequest

from chat.models import Message, Room

# ModelAdmin is generic in its type stubs only: at run time it takes no type arguments.


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rooms; their numbers are given by the history alone."""

    list_display = ("name", "title", "last_sequence")
    readonly_fields = ("last_sequence",)
    search_fields = ("name", "title")


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Messages, to read and to remove; one written here would have no number and reach nobody."""

    list_display = ("room", "sequence", "user", "text", "sent_at", "worker")
    list_filter = ("room",)
    list_select_related = ("room", "user")
    search_fields = ("text", "user__username")
    ordering = ("-sent_at",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Message | None = None) -> bool:
        """Refuse."""
        return False
