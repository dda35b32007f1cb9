"""The application as a server sees it: pages over HTTP, rooms over WebSockets, work by channels."""

import os

from channels.routing import (  # type: ignore[import-untyped]
    ChannelNameRouter,
    ProtocolTypeRouter,
    URLRouter,
)
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

from chat.authentication import SocketAuthentication  # noqa: E402
from chat.routing import channels, websocket_urlpatterns  # noqa: E402

try:
    _ = settings.SECRET_KEY
except ImproperlyConfigured:
    # Else the process would look well until the first login.
    raise ImproperlyConfigured(
        "SECRET_KEY is not set; allowed is any long random text, the same on every worker"
        " (or DJANGO_DEBUG=1 for development)."
    ) from None

if not settings.JWT_KEY:
    raise ImproperlyConfigured(
        "JWT_KEY is not set; allowed is a random text of at least 32 characters, the same on every"
        " worker and another than SECRET_KEY (or DJANGO_DEBUG=1 for development)."
    )

application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": AllowedHostsOriginValidator(
            SocketAuthentication(
                # The last one refuses what no application serves; without it the router raises.
                URLRouter([*websocket_urlpatterns, re_path("", WebsocketDenier.as_asgi())])
            )
        ),
        "channel": ChannelNameRouter(channels),
    }
)
