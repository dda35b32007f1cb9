from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from chat.models import Message, Room
from chat.protocol import MESSAGE_MAX_LENGTH


@require_safe
def room_list(request: HttpRequest) -> HttpResponse:
    """Show all rooms, each with the time of its newest message."""
    newest = Message.objects.filter(room=OuterRef("pk"), sequence=OuterRef("last_sequence"))
    rooms = Room.objects.annotate(last_sent_at=Subquery(newest.values("sent_at")))
    return render(request, "chat/room_list.html", {"rooms": rooms.order_by("title")})


@require_safe
def room(request: HttpRequest, name: str) -> HttpResponse:
    """Show the page of one room; its messages come over the socket."""
    context = {
        "room": get_object_or_404(Room, name=name),
        "message_max_length": MESSAGE_MAX_LENGTH,
    }
    return render(request, "chat/room.html", context)
