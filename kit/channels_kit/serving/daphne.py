"""Daphne, as `python -m channels_kit.serving.daphne --host ADDRESS --port PORT`.

Daphne itself (4.2) refuses every handshake with 403, which nginx hands to the client where 503
sends it on to the next worker; closes with 1000 or a code from 3000 on, never with a reason, and
meets any other code with an error; drops a client whose message is too large without a word; and
breaks off its HTTP requests at SIGTERM.
Imported by nothing: it takes Daphne, and decides with Twisted which event loop there is.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from http.client import responses
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from autobahn.util import encode_truncate
from autobahn.websocket.types import ConnectionDeny
from daphne.endpoints import build_endpoint_description_strings  # type: ignore[import-untyped]
from daphne.http_protocol import WebRequest  # type: ignore[import-untyped]
from daphne.server import Server as DaphneServer  # type: ignore[import-untyped]
from daphne.ws_protocol import WebSocketFactory  # type: ignore[import-untyped]
from daphne.ws_protocol import WebSocketProtocol as DaphneWebSocketProtocol
from twisted.internet import defer, reactor

from channels_kit.serving import control
from channels_kit.serving.application import explained
from channels_kit.serving.forwarded import Forwarded
from channels_kit.serving.lifecycle import Lifecycle
from channels_kit.serving.packages import require
from channels_kit.serving.server_options import (
    KEEP_ALIVE,
    PING_INTERVAL,
    ServerOptions,
)
from channels_kit.serving.types import ASGIApplication, Message, Scope

if TYPE_CHECKING:
    from channels_kit.serving.wrapper import Serving

LEAST = "4.0"
"""The oldest Daphne that serves. Only 4.2.2 and newer limit messages; a release brings an older one
if the operator has accepted that by name: docs/packing.md."""

LIMITS = {"websocket_max_message_size", "websocket_max_frame_size"}

# https://www.rfc-editor.org/rfc/rfc6455#section-5.5
_MAX_REASON = 123

_INTERVAL = 0.02
"""Seconds between two looks at what the sockets have still to send."""


class WebSocketProtocol(DaphneWebSocketProtocol):  # type: ignore[misc]
    """Refuses with any status, and closes with any code and a reason."""

    denial: Message
    denial_headers: Sequence[tuple[str, str]] = ()
    denial_body = b""

    def handle_reply(self, message: Message) -> None:
        """Take an event of the application."""
        kind = message["type"]
        if kind == "websocket.http.response.start":
            self.denial = message
        elif kind == "websocket.http.response.body":
            self.denial_body += message.get("body", b"")
            if not message.get("more_body", False):
                self.deny()
        elif kind == "websocket.close" and self.state != self.STATE_CONNECTING:
            reason = encode_truncate(message.get("reason") or "", _MAX_REASON)
            self.sendCloseFrame(message.get("code", 1000), reason)
        else:
            super().handle_reply(message)

    def deny(self) -> None:
        """Refuse the handshake as the application said."""
        status = self.denial["status"]
        self.denial_headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self.denial.get("headers", [])
        ]
        deferred = self.handshake_deferred
        del self.handshake_deferred
        denied = ConnectionDeny(status, responses.get(status, ""))  # type: ignore[no-untyped-call]
        deferred.errback(denied)
        self.server.protocol_disconnected(self)

    def sendHttpErrorResponse(  # noqa: N802 - autobahn's name
        self,
        code: int,
        reason: str,
        responseHeaders: object = None,  # noqa: N803
    ) -> None:
        """Send the answer to a handshake that is refused."""
        headers = [
            *self.denial_headers,
            ("Content-Length", str(len(self.denial_body))),
            ("Connection", "close"),
        ]
        super().sendHttpErrorResponse(code, reason, headers)
        self.sendData(self.denial_body)


class Server(DaphneServer):  # type: ignore[misc]
    """Daphne's server with the kit's protocol.

    Args:
        application: an ASGI callable.
        options: what the unit tells.
        serving: the kit's wrapper, which is around or in the application.
    """

    def __init__(
        self, application: ASGIApplication, options: ServerOptions, serving: "Serving"
    ) -> None:
        self.lifecycle = Lifecycle(serving, self)
        [endpoint] = build_endpoint_description_strings(options.host, options.port)
        self.options = options
        self.ports: list[Any] = []
        limits = LIMITS & signature(DaphneServer).parameters.keys()
        super().__init__(
            application,
            [f"{endpoint}:backlog={options.backlog}"],
            # The wrapper has its own deadline for a handshake, and says when it passes.
            websocket_connect_timeout=sys.maxsize,
            websocket_handshake_timeout=0,
            # Daphne would close every socket after a day.
            websocket_timeout=-1,
            **dict.fromkeys(limits, options.ws_max_size),
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_INTERVAL,
            verbosity=0,
            ready_callable=self.adjust,
        )
        if self.lifecycle.waiting:
            self.endpoints.clear()

    def adjust(self) -> None:
        """Set what Daphne has no argument for; its factories are there now."""
        WebSocketFactory.protocol = WebSocketProtocol
        # Tell a client what it did wrong, and do not just drop it.
        self.ws_factory.setProtocolOptions(failByDrop=False)
        self.http_factory.timeOut = KEEP_ALIVE
        # When the loop runs.
        cast("Any", reactor).callLater(0, self.lifecycle.begin)

    def listen_success(self, port: Any) -> None:
        """Keep the port, which Daphne does not."""
        # Twisted would shut the socket down, for every process that has it.
        port._shouldShutdown = False
        self.ports.append(port)
        super().listen_success(port)

    async def take(self, listener: socket.socket) -> None:
        """Accept the connections of a listening socket."""
        with listener:
            listener.listen(self.options.backlog)
            port = cast("Any", reactor).adoptStreamPort(
                listener.fileno(), listener.family, self.http_factory
            )
        self.ports.append(port)

    async def release(self) -> socket.socket:
        """Accept no more, and return the listening socket."""
        [port] = self.ports
        listener = control.listening(os.dup(port.fileno()))
        self.ports.clear()
        await port.stopListening().asFuture(asyncio.get_running_loop())
        return listener

    def create_application(self, protocol: Any, scope: Scope) -> Any:
        """Begin to serve one connection."""
        if scope["type"] == "websocket":
            scope["extensions"] = {"websocket.http.response": {}}
        return super().create_application(protocol, scope)

    def kill_all_applications(self) -> defer.Deferred[Any]:
        """End what runs, at SIGTERM; HTTP requests may come to their end first."""
        for port in self.ports:
            port.stopListening()
        # Daphne stumbles over those that have none, and then ends nothing.
        self.connections: dict[Any, Any] = {
            protocol: details
            for protocol, details in self.connections.items()
            if "application_instance" in details
        }
        ending = defer.Deferred.fromFuture(asyncio.ensure_future(self.end_requests()))
        return ending.addCallback(lambda _: super(Server, self).kill_all_applications())

    async def end_requests(self) -> None:
        """Wait until every HTTP request in hand is answered, and the answers are sent."""
        requests = [
            details["application_instance"]
            for protocol, details in self.connections.items()
            if isinstance(protocol, WebRequest)
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(self.options.timeout_graceful_shutdown):
                if requests:
                    await asyncio.wait(requests)
                while cast("Any", reactor).getWriters():  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(_INTERVAL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    options = ServerOptions.parse("channels_kit.serving.daphne", arguments)
    with explained():
        require("daphne", LEAST)
        from channels_kit.serving.asgi import application  # it needs the environment

    forwarded = Forwarded(application, options.forwarded_allow_ips)
    server = Server(forwarded, options, application)
    server.run()
    if server.abort_start:
        sys.exit(1)


if __name__ == "__main__":
    main()
