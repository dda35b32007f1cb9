"""Applications as the documentation of Channels builds them, each with one layer more."""

from collections.abc import Awaitable, Callable
from typing import Any

import django

django.setup()

from channels.auth import AuthMiddlewareStack  # type: ignore[import-untyped]  # noqa: E402
from channels.generic.websocket import (  # type: ignore[import-untyped]  # noqa: E402
    AsyncWebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # type: ignore[import-untyped]  # noqa: E402
from channels.security.websocket import (  # type: ignore[import-untyped]  # noqa: E402
    AllowedHostsOriginValidator,
)
from django.urls import path  # noqa: E402

GROUP = "memory"


async def bare(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Accept, and wait for the end."""
    if scope["type"] != "websocket":
        raise ValueError(f"only WebSockets are served, not {scope['type']!r}")
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


class Accepting(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Accepts, which is what the stock consumer does."""


class Joining(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Accepts, and joins a group."""

    groups = (GROUP,)


def routed(consumer: Any) -> Any:
    """Return a router with one consumer."""
    return URLRouter([path("ws/chat/<slug:room>/", consumer.as_asgi())])


router = ProtocolTypeRouter({"websocket": routed(Accepting)})
users = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(routed(Accepting))})
origins = ProtocolTypeRouter(
    {"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(routed(Accepting)))}
)
group = ProtocolTypeRouter(
    {"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(routed(Joining)))}
)
