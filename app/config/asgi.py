"""The application as a server sees it: pages over HTTP, rooms over WebSockets."""

import os

from channels.auth import AuthMiddlewareStack  # type: ignore[import-untyped]
from channels.routing import ProtocolTypeRouter, URLRouter  # type: ignore[import-untyped]
from channels.security.websocket import (  # type: ignore[import-untyped]
    AllowedHostsOriginValidator,
    WebsocketDenier,
)
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# Sets Django up; what imports models can be imported only after it.
pages = get_asgi_application()

from chat.routing import websocket_urlpatterns  # noqa: E402

try:
    _ = settings.SECRET_KEY
except ImproperlyConfigured:
    # Else the process would look well until the first login.
    raise ImproperlyConfigured(
        "SECRET_KEY is not set; allowed is any long random text, the same on every worker"
        " (or DJANGO_DEBUG=1 for development)."
    ) from None

application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                # The last one refuses what no application serves; without it the router raises.
                URLRouter([*websocket_urlpatterns, re_path("", WebsocketDenier.as_asgi())])
            )
        ),
    }
)
