"""An operator's application that knows nothing of the kit."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import django

django.setup()

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

logger = logging.getLogger(__name__)

LARGE = 16 * 2**20


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "http" and scope["path"].startswith("/stream/"):
        await stream(scope, receive, send)
    elif scope["type"] == "http" and scope["path"] == "/upload/":
        await upload(receive, send)
    elif scope["type"] == "http":
        await answer(scope, send)
    elif scope["type"] == "websocket":
        await SOCKETS.get(scope["path"], mute)(scope, receive, send)
    else:
        raise ValueError("no lifespan here, as with Channels' own router")


async def answer(scope: dict[str, Any], send: Send) -> None:
    body = b"the application's own"
    status = int(os.environ.get("SERVED_STATUS", "200"))
    if scope["path"] == "/host/" and not is_of_the_site(scope):
        status = 500
    if scope["path"] == "/slow/":
        logger.warning("slow: begun")
        await released()
    elif scope["path"] == "/large/":
        body = bytes(LARGE)
    elif scope["path"] == "/client/":
        body = repr((scope["client"][0], scope["scheme"])).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def is_of_the_site(scope: dict[str, Any]) -> bool:
    """Whether a request is what the edge of the tests would pass on."""
    headers = dict(scope["headers"])
    return (
        headers.get(b"host") == b"chat.example.org"
        and headers.get(b"x-forwarded-host") == b"chat.example.org"
        and headers.get(b"x-forwarded-proto") == b"https"
        and headers.get(b"x-forwarded-for") == b"127.0.0.1"
        and headers.get(b"x-real-ip") == b"127.0.0.1"
        and headers.get(b"origin", b"https://chat.example.org") == b"https://chat.example.org"
    )


async def stream(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Sends server-sent events, or other chunks, until it is told that its client has gone."""
    kind = b"text/csv" if scope["path"] == "/stream/csv/" else b"text/event-stream"
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    sending = asyncio.create_task(send_events(send))
    if scope["path"] == "/stream/deaf/":
        # It never asks whether its client is still there.
        await sending
    while (event := await receive())["type"] != "http.disconnect":
        pass
    sending.cancel()
    logger.warning("stream: %s", event["type"])


async def send_events(send: Send) -> None:
    while True:
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await asyncio.sleep(0.05)


async def upload(receive: Receive, send: Send) -> None:
    """Answers with the length of what was sent."""
    length = 0
    logger.warning("upload: begun")
    while (event := await receive())["type"] == "http.request":
        length += len(event.get("body", b""))
        if not event.get("more_body", False):
            break
    body = str(length).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def mute(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Neither accepts nor refuses."""
    await asyncio.Event().wait()


async def still(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Accepts, and tells when it ends."""
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        pass
    logger.warning("disconnected: %s", event["code"])


async def late(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Accepts when it is told."""
    logger.warning("late: begun")
    await released()
    await still(scope, receive, send)


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Says who the client is, then the length of each message."""
    await send({"type": "websocket.accept"})
    client = repr((scope["client"][0], scope.get("scheme", "ws")))
    await send({"type": "websocket.send", "text": client})
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(event["text"]))})


async def flood(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Sends more than the way to a client that does not read can hold."""
    await send({"type": "websocket.accept"})
    logger.warning("flood: begun")
    for _ in range(32):
        await send({"type": "websocket.send", "bytes": bytes(2**20)})
    while (event := await receive())["type"] != "websocket.disconnect":
        pass
    logger.warning("disconnected: %s", event["code"])


async def refuse(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Refuses with a status, a header and a text of its own."""
    headers = [(b"x-why", b"teapot")]
    await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"short ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"and stout"})


async def leave(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Closes with a code that no client may send, and a reason."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1011, "reason": "an error of mine"})


async def brief(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Accepts, and closes after a second."""
    await send({"type": "websocket.accept"})
    await asyncio.sleep(float(os.environ.get("SERVED_BRIEF", "1")))
    await send({"type": "websocket.close", "code": 1011, "reason": "an error of mine"})


async def site(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Accepts who asks as the edge of the tests would, and nobody else."""
    if is_of_the_site(scope):
        await still(scope, receive, send)
    else:
        await send({"type": "websocket.close"})


SOCKETS = {
    "/still/": still,
    "/late/": late,
    "/echo/": echo,
    "/flood/": flood,
    "/refuse/": refuse,
    "/leave/": leave,
    "/brief/": brief,
    "/host/": site,
}


async def released() -> None:
    """Wait for what the test does, by a way that is open after SIGTERM too."""
    while not is_released():  # noqa: ASYNC110 - a file is no event
        await asyncio.sleep(0.01)


def is_released() -> bool:
    return Path(os.environ["SERVED_RELEASE"]).exists()
