"""The HTTP API: JSON in and out, errors too."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.csrf import csrf_exempt

from chat import later, post, protocol, reading, tokens
from chat.models import Room
from chat.people import Person
from chat.protocol import ErrorCode, ProtocolError

View = Callable[..., HttpResponse]


class ApiError(Exception):
    """A request is answered with an error.

    Args:
        status: the HTTP status.
        code: the kind of error, for programs.
        text: what is wrong, for people.
    """

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def api(*methods: str) -> Callable[[View], View]:
    """Make a view one of the API: its errors are JSON, and it sees to its callers itself."""

    def decorate(view: View) -> View:
        @csrf_exempt
        @login_not_required
        @wraps(view)
        def answer(request: HttpRequest, **arguments: Any) -> HttpResponse:
            try:
                if request.method not in methods:
                    allowed = ", ".join(methods)
                    text = f"{request.method} is not allowed here; allowed are {allowed}."
                    raise ApiError(405, "method_not_allowed", text)
                return view(request, **arguments)
            except ApiError as error:
                response = _error(error.status, error.code, str(error))
            except ProtocolError as error:
                response = _error(400, error.code.value, str(error))
            except Room.DoesNotExist:
                # Or no more: it may be deleted while the request is answered.
                text = "There is no such room, or it is private."
                response = _error(404, "unknown_room", text)
            if response.status_code == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            if response.status_code == 405:
                response.headers["Allow"] = ", ".join(methods)
            return response

        return answer

    return decorate


@api("POST")
def token(request: HttpRequest) -> HttpResponse:
    """Exchange a user's name and password for a token."""
    content = protocol.parse_object(request.body)
    credentials = {name: content.get(name) for name in ("username", "password")}
    for name, value in credentials.items():
        if not isinstance(value, str):
            raise ProtocolError(ErrorCode.WRONG_TYPE, f'"{name}" is not a string.')
    # What PostgreSQL does not store is nobody's name or password.
    storable = all(protocol.is_storable(str(value)) for value in credentials.values())
    user = authenticate(request, **credentials) if storable else None
    if user is None:
        raise ApiError(401, "wrong_credentials", "The name or the password is wrong.")
    signed, expires_at = tokens.issue(user.pk)
    return JsonResponse({"token": signed, "expires_at": expires_at.isoformat()})


@api("GET", "POST")
def messages(request: HttpRequest, name: str) -> HttpResponse:
    """Read a room's messages, or say something in it now or later."""
    person = _caller(request)
    room = Room.objects.open_to(person.id).get(name=name)
    return (_read if request.method == "GET" else _say)(request, room, person)


def _read(request: HttpRequest, room: Room, person: Person) -> HttpResponse:
    page = reading.page(room.pk, protocol.parse_after(request.GET.get("after")))
    bodies = post.message_bodies(page.messages, room.name)
    return JsonResponse({"messages": bodies, "sequence": page.known})


def _say(request: HttpRequest, room: Room, person: Person) -> HttpResponse:
    content = protocol.parse_object(request.body)
    send = protocol.parse_send(content)
    if content.get("delay") is None:
        body = post.post(room, person, send.message, client_id=send.client_id)
        return JsonResponse(body, status=201)
    delay = content["delay"]
    if type(delay) is not int or not 1 <= delay <= protocol.DELAY_MAX:
        text = f'"delay" is not a number of seconds from 1 to {protocol.DELAY_MAX}.'
        raise ProtocolError(ErrorCode.WRONG_TYPE, text)
    # Named here: said twice, it is stored once.
    client_id = send.client_id or uuid4().hex
    number = later.promise(room, person, send.message, client_id, delay)
    if settings.CELERY_TASK_ALWAYS_EAGER:
        # Without a broker nobody looks for it: what is for later is said at once.
        later.deliver(before_time=True)
    return JsonResponse({"task": str(number)}, status=202)


class _Csrf(CsrfViewMiddleware):
    """Django's check, with an error of the API."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        raise ApiError(403, "csrf_failed", "The session's CSRF token is missing or wrong.")


def _caller(request: HttpRequest) -> Person:
    """Return who calls: by a token where there is one, else by the session of a page."""
    kind, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        try:
            # No other site can make a browser send this header: CSRF is not to be feared.
            return tokens.verify(credentials.strip())
        except tokens.InvalidToken:
            raise ApiError(401, "invalid_token", "The token is wrong or expired.") from None
    if not request.user.is_authenticated:
        raise ApiError(401, "login_required", "Log in first, or send a token.")
    # The view is exempt, so that a token needs none; what is checked here is any that is not.
    _Csrf(_nothing).process_view(request, _nothing, (), {})
    return Person(request.user.pk, request.user.get_username())


def _nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def _error(status: int, code: str, text: str) -> JsonResponse:
    return JsonResponse({"code": code, "error": text}, status=status)
