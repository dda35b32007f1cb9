"""The ASGI callable that stands around an operator's application."""

import hmac

from channels_kit import paths
from channels_kit.serving.consumer import ProbeConsumer
from channels_kit.serving.handshake import HandshakeDeadline
from channels_kit.serving.readiness import check_readiness
from channels_kit.serving.responses import refuse, respond
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.types import ASGIApplication, Receive, Scope, Send


class Serving:
    """Answers the paths below `/-/` and hands everything else to the application.

    Args:
        application: the operator's ASGI callable.
        settings: how this worker serves.
    """

    def __init__(self, application: ASGIApplication, settings: ServingSettings) -> None:
        self.application = application
        self.settings = settings
        # The same application, for its WebSockets.
        self.websockets = HandshakeDeadline(application, settings.handshake_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        own = scope.get("path", "").startswith(paths.PREFIX)
        if scope["type"] == "http" and own:
            await self.answer(scope, send)
        elif scope["type"] == "websocket" and own:
            await self.probe(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.websockets(scope, receive, send)
        else:
            await self.application(scope, receive, send)

    async def answer(self, scope: Scope, send: Send) -> None:
        """Answer an HTTP request to one of the wrapper's own paths."""
        if scope["path"] not in (paths.LIVE, paths.READY):
            await respond(scope, send, 404, {"error": "not found"})
        elif scope["method"] not in ("GET", "HEAD"):
            await respond(scope, send, 405, {"error": "GET or HEAD"}, {b"allow": b"GET, HEAD"})
        elif scope["path"] == paths.LIVE:
            await respond(scope, send, 200, {"status": "live", **self.identity()})
        else:
            await self.answer_ready(scope, send)

    async def answer_ready(self, scope: Scope, send: Send) -> None:
        """Check what the worker depends on and answer with what was found."""
        readiness = await check_readiness(self.settings.ready_timeout)
        content = {
            "status": "ready" if readiness.ok else "not ready",
            **self.identity(),
            "checks": readiness.as_json(),
        }
        await respond(scope, send, 200 if readiness.ok else 503, content)

    async def probe(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a probe's socket, or refuse a WebSocket that is none."""
        names = paths.parse_probe_path(scope["path"])
        if names is None or not self.is_authorized(scope):
            await refuse(receive, send)
            return
        run, endpoint = names
        consumer = ProbeConsumer(run=run, endpoint=endpoint, settings=self.settings)
        await consumer(scope, receive, send)

    def is_authorized(self, scope: Scope) -> bool:
        """Whether the handshake shows the token; never, where there is none."""
        if not self.settings.probe_token:
            return False
        expected = f"Bearer {self.settings.probe_token}".encode()
        shown = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(shown, expected)

    def identity(self) -> dict[str, str]:
        """Return who answers."""
        return {"worker": self.settings.worker, "revision": self.settings.revision}
