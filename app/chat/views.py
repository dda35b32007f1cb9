from secrets import token_hex
from typing import cast

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from chat.models import Message, ReadPosition, Room
from chat.protocol import IMAGE_MAX_BYTES, MESSAGE_MAX_LENGTH

NAME_MAX_LENGTH = 50
"""Characters of a room's title that go into its name, which leaves some to make it unique."""


# ModelForm is generic in its type stubs only: at run time it takes no type arguments.
class NewRoomForm(forms.ModelForm):  # type: ignore[type-arg]
    """What a user says of a new room."""

    class Meta:
        model = Room
        fields = ("title", "is_private")


def user_of(request: HttpRequest) -> User:
    """Return the user of a request that ``LoginRequiredMiddleware`` let pass."""
    return cast(User, request.user)


@require_http_methods(["GET", "HEAD", "POST"])
def room_list(request: HttpRequest) -> HttpResponse:
    """Show the rooms a user may enter, with what is new in each; or make a new room."""
    user = user_of(request)
    form = NewRoomForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.instance.name = _free_name(form.cleaned_data["title"])
        form.instance.created_by = user
        room = form.save()
        room.members.add(user)
        return redirect(room)
    newest = Message.objects.filter(room=OuterRef("pk"), sequence=OuterRef("last_sequence"))
    read = ReadPosition.objects.filter(room=OuterRef("pk"), user=user)
    rooms = Room.objects.open_to(user.pk).annotate(
        last_sent_at=Subquery(newest.values("sent_at")),
        unread=F("last_sequence") - Coalesce(Subquery(read.values("sequence")), 0),
    )
    context = {"rooms": rooms.order_by("title"), "form": form}
    return render(request, "chat/room_list.html", context)


@require_safe
def room(request: HttpRequest, name: str) -> HttpResponse:
    """Show the page of one room; its messages come over the socket."""
    room = get_object_or_404(Room.objects.open_to(user_of(request).pk), name=name)
    members = room.members.order_by("username") if room.is_private else User.objects.none()
    context = {
        "room": room,
        "members": list(members.values_list("username", flat=True)),
        "message_max_length": MESSAGE_MAX_LENGTH,
        "image_max_bytes": IMAGE_MAX_BYTES,
    }
    return render(request, "chat/room.html", context)


@require_POST
def members(request: HttpRequest, name: str) -> HttpResponse:
    """Add a member to a private room, or remove one."""
    user = user_of(request)
    room = get_object_or_404(Room.objects.open_to(user.pk), name=name, is_private=True)
    username, action = request.POST.get("username", ""), request.POST.get("action", "")
    other = User.objects.filter(username=username, is_active=True).first()
    if action not in {"add", "remove"}:
        messages.error(request, f'Unknown action "{action}". Allowed: add, remove.')
    elif other is None:
        messages.error(request, f"No user {username}.")
    elif action == "add":
        room.members.add(other)
        messages.success(request, f"{username} may enter now.")
    elif room.created_by_id != user.pk:
        messages.error(request, "Only who made the room can remove members.")
    else:
        room.members.remove(other)
        messages.success(request, f"{username} may enter no longer.")
    return redirect(room)


def _free_name(title: str) -> str:
    """Return a name for a room of this title that no other room has."""
    name = slugify(title)[:NAME_MAX_LENGTH].strip("-_") or "room"
    if Room.objects.filter(name=name).exists():
        return f"{name}-{token_hex(3)}"
    return name
