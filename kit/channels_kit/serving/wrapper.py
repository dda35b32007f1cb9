"""The ASGI callable that stands around an operator's application."""

import asyncio
import hmac
import os
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from channels_kit import paths
from channels_kit.serving import control
from channels_kit.serving.consumer import ProbeConsumer
from channels_kit.serving.drain import DRAIN_SIGNAL
from channels_kit.serving.metrics import Metrics
from channels_kit.serving.readiness import Readiness, check_readiness
from channels_kit.serving.requests import Requests
from channels_kit.serving.responses import refuse, respond, respond_with
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.sockets import Sockets
from channels_kit.serving.types import ASGIApplication, Receive, Scope, Send

PROBE_HEADER = paths.PROBE_HEADER.encode()


class Serving:
    """Answers the paths below `/-/` and hands everything else to the application.

    Args:
        application: the operator's ASGI callable.
        settings: how this worker serves.
    """

    def __init__(self, application: ASGIApplication, settings: ServingSettings) -> None:
        self.application = application
        self.settings = settings
        self.sockets = Sockets(settings)
        self.requests = Requests(settings, self.sockets)
        # None until the first call, before which there is no event loop.
        self.metrics: Metrics | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self.metrics is None:
            self.metrics = self.start()
        own = scope.get("path", "").startswith(paths.PREFIX)
        if scope["type"] == "http" and own:
            await self.answer(scope, send, self.metrics)
        elif scope["type"] == "http":
            await self.request(scope, receive, send)
        elif scope["type"] == "websocket" and own:
            await self.probe(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.client(scope, receive, send)
        else:
            await self.application(scope, receive, send)

    def start(self) -> Metrics:
        """Begin what takes a running event loop."""
        # A loop outside the main thread takes no signals: a test's, or a development server's.
        with suppress(ValueError, RuntimeError, NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(DRAIN_SIGNAL, self.drain)
        return Metrics(self.sockets, self.settings.ready_timeout, self.beside)

    def drain(self) -> None:
        """End what this worker has open; a second call changes nothing."""
        if not self.sockets.draining:
            self.sockets.drain()
            self.requests.end_streams()

    async def request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer an HTTP request."""
        self.sockets.meet_edge(scope)
        await self.requests.serve(self.application, scope, receive, send)

    async def answer(self, scope: Scope, send: Send, metrics: Metrics) -> None:
        """Answer an HTTP request to one of the wrapper's own paths."""
        send = self.requests.saying_if_last(send)
        if scope["path"] not in (paths.LIVE, paths.READY, paths.METRICS):
            await respond(scope, send, 404, {"error": "not found"})
        elif scope["method"] not in ("GET", "HEAD"):
            await respond(scope, send, 405, {"error": "GET or HEAD"}, {b"allow": b"GET, HEAD"})
        elif scope["path"] == paths.LIVE:
            await respond(scope, send, 200, {"status": "live", **self.state()})
        elif scope["path"] == paths.READY:
            await self.answer_ready(scope, send)
        else:
            await respond_with(scope, send, 200, await metrics.render(), metrics.content_type)

    async def check_readiness(self) -> Readiness:
        """Check what the worker depends on."""
        return await check_readiness(self.settings.ready_timeout)

    async def answer_ready(self, scope: Scope, send: Send) -> None:
        """Check what the worker depends on and answer with what was found."""
        if self.sockets.draining:
            await respond(scope, send, 503, {"status": "not ready", **self.state()})
            return
        readiness = await self.check_readiness()
        content = {
            "status": "ready" if readiness.ok else "not ready",
            **self.state(),
            "layer": readiness.layer,
            "checks": readiness.as_json(),
        }
        await respond(scope, send, 200 if readiness.ok else 503, content)

    async def probe(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a probe's socket, or refuse a WebSocket that is none."""
        names = paths.parse_probe_path(scope["path"])
        if names is None or not self.is_authorized(scope):
            self.sockets.counts.refused["unauthorized"] += 1
            await refuse(receive, send)
            return
        run, endpoint = names
        consumer = ProbeConsumer(
            run=run,
            endpoint=endpoint,
            settings=self.settings,
            sockets=len(self.sockets),
            is_touched=scope.get("query_string", b"") == paths.TOUCHED.encode(),
        )
        await self.sockets.serve_probe(consumer, scope, receive, send)

    def client(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve a socket of the application.

        The proof opens some, too. It takes no client's place, and passes on a full worker.
        """
        # No coroutine of its own: it would be there as long as the socket.
        shown = [value for name, value in scope["headers"] if name == PROBE_HEADER]
        if shown:
            # The application does not see the token.
            headers = [each for each in scope["headers"] if each[0] != PROBE_HEADER]
            scope = {**scope, "headers": headers}
        is_proof = any(self.is_token(token) for value in shown for token in value.split())
        serve = self.sockets.serve_probe if is_proof else self.sockets.serve
        return serve(self.application, scope, receive, send)

    def is_authorized(self, scope: Scope) -> bool:
        """Whether the handshake shows the token; never, where there is none."""
        kind, _, token = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return kind == b"Bearer" and self.is_token(token)

    def is_token(self, shown: bytes) -> bool:
        """Whether these bytes are the token; never, where there is none."""
        token = self.settings.probe_token.encode()
        return bool(token) and hmac.compare_digest(shown, token)

    def beside(self) -> int:
        """Return how many other processes this worker has: a retired one's, or retired ones."""
        directory = self.settings.control_directory
        others = set(control.running(Path(directory))) if directory else set()
        return len(others - {os.getpid()})

    def state(self) -> dict[str, object]:
        """Return who answers, and what it has in hand."""
        return {
            "worker": self.settings.worker,
            "revision": self.settings.revision,
            "pid": os.getpid(),
            "draining": self.sockets.draining,
            "retired": self.sockets.retired,
            "beside": self.beside(),
            "sockets": len(self.sockets),
            "requests": len(self.requests),
        }
