"""Hypercorn, as `python -m channels_kit.serving.hypercorn --host ADDRESS --port PORT`.

Hypercorn's own command line (0.18) sets no limit for messages (16 MiB), cannot tell the edge from
the client, and agrees to every client's wish for compression, which takes 100 KiB of each socket.
It pings and does not look for an answer, and has a socket that was closed wait for its next ping
before the worker may end. Since Python 3.12.1 it does not end at SIGTERM while a WebSocket is open,
whatever its graceful timeout (hypercorn#308).
Nothing of the kit imports it: a worker under another server does not have Hypercorn.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from hypercorn.asyncio import serve
from hypercorn.config import Config, Sockets
from hypercorn.protocol import h11, ws_stream
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.typing import Framework
from wsproto.connection import Connection
from wsproto.events import Ping

from channels_kit.serving.application import explained
from channels_kit.serving.forwarded import Forwarded
from channels_kit.serving.lifecycle import AsyncioPort, Lifecycle, waits
from channels_kit.serving.packages import require
from channels_kit.serving.server_options import (
    KEEP_ALIVE,
    PING_INTERVAL,
    ServerOptions,
)

if TYPE_CHECKING:
    from channels_kit.serving.wrapper import Serving

LEAST = "0.18"
"""The oldest Hypercorn with the parts that are replaced here."""


class Handshake(ws_stream.Handshake):
    """Agrees to no extension; compression is the only one there is."""

    def accept(
        self, subprotocol: str | None, additional_headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[int, list[tuple[bytes, bytes]], Connection]:
        """Accept the handshake."""
        self.extensions = None
        return super().accept(subprotocol, additional_headers)


class WSStream(ws_stream.WSStream):
    """Ends the connection of a client that answers no ping, and pings none that has ended."""

    # Whether anything came since the last ping.
    heard = True
    pinging: asyncio.Task[None] | None = None

    async def handle(self, event: Event) -> None:
        """Take an event of the connection."""
        self.heard = True
        await super().handle(event)
        # It may be the one that ends the connection.
        if self.closed and self.pinging not in (None, asyncio.current_task()):
            self.pinging.cancel()

    async def _send_pings(self) -> None:
        self.pinging = asyncio.current_task()
        while self.heard and not self.closed:
            self.heard = False
            await self._send_wsproto_event(Ping())
            await asyncio.sleep(PING_INTERVAL)
        await self.send(StreamClosed(stream_id=self.stream_id))


_start_server = asyncio.start_server


class Server(AsyncioPort):
    """What Hypercorn takes for its server: another process can take its port.

    Hypercorn awaits the end of a server before its graceful timeout begins. Up to Python 3.12.0
    nothing was waited for; since then every open connection is.

    Args:
        callback: serves one connection.
        backlog: connections that wait to be taken.
    """

    def __init__(self, callback: Any, backlog: int) -> None:
        super().__init__(lambda listener: _start_server(callback, sock=listener, backlog=backlog))

    def close(self) -> None:
        """Accept no more."""
        if self.server is not None:
            self.server.close()

    async def wait_closed(self) -> None:
        """Wait for nothing."""


def starting(application: "Serving") -> Callable[..., Awaitable[Server]]:
    """Return what Hypercorn starts its server with, once the application has started."""

    async def start_server(callback: Any, *, sock: socket.socket, backlog: int) -> Server:
        server = Server(callback, backlog)
        if not waits():
            await server.take(sock)
        Lifecycle(application, server).begin()
        return server

    return start_server


class Configuration(Config):
    """Hypercorn's configuration."""

    def create_sockets(self) -> Sockets:
        """Return where to listen: in a process that waits, a socket that is not bound."""
        return Sockets([], [socket.socket()], []) if waits() else super().create_sockets()


def configure(options: ServerOptions) -> Configuration:
    """Return Hypercorn's configuration."""
    config = Configuration()
    host = f"[{options.host}]" if ":" in options.host else options.host
    config.bind = f"{host}:{options.port}"
    config.backlog = options.backlog
    config.keep_alive_timeout = KEEP_ALIVE
    config.websocket_ping_interval = PING_INTERVAL
    config.websocket_max_message_size = options.ws_max_size
    config.graceful_timeout = options.timeout_graceful_shutdown
    config.loglevel = "WARNING"
    return config


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    options = ServerOptions.parse("channels_kit.serving.hypercorn", arguments)
    with explained():
        require("hypercorn", LEAST)
        from channels_kit.serving.asgi import application  # it needs the environment

    ws_stream.Handshake = Handshake  # type: ignore[misc]
    h11.WSStream = WSStream  # type: ignore[attr-defined]
    asyncio.start_server = starting(application)  # type: ignore[assignment]
    framework = cast("Framework", Forwarded(application, options.forwarded_allow_ips))
    asyncio.run(serve(framework, configure(options), mode="asgi"))


if __name__ == "__main__":
    main()
