"""An operator's application that knows nothing of the kit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import django

django.setup()


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the application's own"})
    elif scope["type"] == "websocket":
        # Neither accepts nor refuses.
        await asyncio.Event().wait()
    else:
        raise ValueError("no lifespan here, as with Channels' own router")
