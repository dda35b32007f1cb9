"""The few answers the wrapper gives by itself."""

import json
from collections.abc import Mapping

from channels_kit.serving.types import Receive, Scope, Send


async def respond(
    scope: Scope,
    send: Send,
    status: int,
    content: Mapping[str, object],
    headers: Mapping[bytes, bytes] | None = None,
) -> None:
    """Answer an HTTP request with JSON that nothing on the way may keep.

    Args:
        scope: the request's; a HEAD is answered without the body.
        send: the request's.
        status: the HTTP status.
        content: what is sent as JSON.
        headers: headers on top of the usual ones.
    """
    body = json.dumps(content).encode()
    await respond_with(scope, send, status, body, b"application/json", headers)


async def respond_with(
    scope: Scope,
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes,
    headers: Mapping[bytes, bytes] | None = None,
) -> None:
    """Answer an HTTP request with a body of any type; the other arguments are `respond`'s."""
    all_headers = {
        b"content-type": content_type,
        b"content-length": b"%d" % len(body),
        b"cache-control": b"no-store",
        **(headers or {}),
    }
    await send(
        {"type": "http.response.start", "status": status, "headers": list(all_headers.items())}
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def refuse(receive: Receive, send: Send) -> None:
    """Refuse a WebSocket's handshake; the server answers it with 403."""
    await receive()
    await send({"type": "websocket.close"})


async def refuse_with_status(
    scope: Scope,
    send: Send,
    status: int,
    reason: str,
    headers: Mapping[bytes, bytes] | None = None,
) -> None:
    """Refuse a WebSocket's handshake with `status`, or with 403 where the server cannot.

    Source: https://asgi.readthedocs.io/en/latest/extensions.html#websocket-denial-response
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    await send(
        {
            "type": "websocket.http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                *(headers or {}).items(),
            ],
        }
    )
    await send({"type": "websocket.http.response.body", "body": f"{reason}\n".encode()})
