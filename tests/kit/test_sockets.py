import asyncio
import logging
from typing import Any

import pytest

from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.sockets import Sockets
from channels_kit.serving.types import ASGIApplication, Receive, Scope, Send

from .communicators import Communicator

SOON = 0.02
SCOPE = {"type": "websocket", "path": "/rooms/1/", "query_string": b"token=hidden", "headers": []}
DENIAL: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}


def communicate(application: ASGIApplication, scope: dict[str, Any] | None = None) -> Communicator:
    sockets = Sockets(ServingSettings("unused:unused", "app1:8001", handshake_timeout=SOON))

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await sockets.serve(application, scope, receive, send)

    return Communicator(serve, {**SCOPE, **(scope or {})})


class Silent:
    """Neither accepts nor refuses; notes whether it was cancelled."""

    cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_silent_application_is_cut_with_504(caplog: pytest.LogCaptureFixture) -> None:
    application = Silent()
    communicator = communicate(application, DENIAL)
    start = await communicator.receive_output()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 504)
    assert (await communicator.receive_output())["type"] == "websocket.http.response.body"
    await communicator.wait()
    assert application.cancelled
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "/rooms/1/" in record.getMessage()
    assert "hidden" not in record.getMessage()


@pytest.mark.parametrize("scope", [{}, {"extensions": {}}, {"extensions": None}])
async def test_a_silent_application_is_closed_where_no_status_can_be_sent(
    scope: dict[str, Any],
) -> None:
    communicator = communicate(Silent(), scope)
    assert await communicator.receive_output() == {"type": "websocket.close"}
    await communicator.wait()


@pytest.mark.parametrize(
    "decision",
    [
        {"type": "websocket.accept"},
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
    ],
)
async def test_a_decision_ends_the_deadline(decision: dict[str, Any]) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(decision)
        # Longer than the deadline, and cancelled by it if it still stood.
        await asyncio.sleep(3 * SOON)
        await send({"type": "websocket.send", "text": "still here"})

    communicator = communicate(application)
    assert await communicator.receive_output() == decision
    assert (await communicator.receive_output())["text"] == "still here"
    await communicator.wait()


async def test_the_applications_own_timeout_passes_through() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("its own")

    communicator = communicate(application)
    with pytest.raises(TimeoutError, match="its own"):
        await communicator.wait()
    assert communicator.output_queue.empty()


async def test_an_application_can_still_refuse_while_it_is_cut() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await send({"type": "websocket.close", "code": 4000})

    communicator = communicate(application, DENIAL)
    assert (await communicator.receive_output())["code"] == 4000
    await communicator.wait()
    assert communicator.output_queue.empty()


async def test_an_application_that_swallows_its_end_is_answered_for() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    communicator = communicate(application)
    assert await communicator.receive_output() == {"type": "websocket.close"}
