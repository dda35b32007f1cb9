from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

FRAMES = "channels_kit.websocket.frames"
"""The ASGI extension by which an application writes frames itself: docs/layer.md."""
