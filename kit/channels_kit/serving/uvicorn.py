"""Uvicorn, as `python -m channels_kit.serving.uvicorn --host ADDRESS --port PORT`.

Uvicorn's own command line (0.54) can say all of this, in a dozen options that every caller would
have to repeat. It also takes options from the environment (UVICORN_*, WEB_CONCURRENCY,
FORWARDED_ALLOW_IPS): an operator's variable for another program could start several processes on
one port. And it logs the path and query of each WebSocket, with the user's token, on the logger
`uvicorn.error`, at the level INFO.
Nothing of the kit imports it: a worker under another server does not have Uvicorn.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn

from channels_kit.serving.application import explained, set_up_django
from channels_kit.serving.lifecycle import AsyncioPort, Lifecycle, waits
from channels_kit.serving.packages import import_with_websockets, require
from channels_kit.serving.server_options import (
    KEEP_ALIVE,
    PING_INTERVAL,
    ServerOptions,
)

LEAST = "0.35"
"""The oldest Uvicorn with the protocol that this one builds on: docs/servers.md."""

STARTUP_FAILURE = 3
"""The exit code that Uvicorn's own command line has for an application that does not start."""

# By name: Uvicorn sets up its logging before it imports the application, whose own counts then.
APPLICATION = "channels_kit.serving.asgi:application"


def configure(options: ServerOptions) -> dict[str, Any]:
    """Return the arguments of `uvicorn.run`."""
    import_with_websockets("channels_kit.serving.uvicorn_websocket")
    from channels_kit.serving.uvicorn_websocket import WebSocketProtocol

    return {
        "host": options.host,
        "port": options.port,
        "backlog": options.backlog,
        "workers": 1,
        "ws": WebSocketProtocol,
        "ws_max_size": options.ws_max_size,
        "ws_per_message_deflate": False,
        "ws_ping_interval": PING_INTERVAL,
        "ws_ping_timeout": PING_INTERVAL,
        "timeout_keep_alive": KEEP_ALIVE,
        "timeout_graceful_shutdown": options.timeout_graceful_shutdown,
        "proxy_headers": True,
        "forwarded_allow_ips": sorted(options.forwarded_allow_ips),
        "access_log": False,
        "log_level": "warning",
    }


class Server(uvicorn.Server):
    """Uvicorn's server, of which another process can take the port."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and listen, or wait until there is a listening socket."""
        await super().startup([] if waits() else sockets)
        from channels_kit.serving.asgi import application  # it has been loaded

        self.port = AsyncioPort(self.serve_on, next(iter(self.servers), None))
        self.lifecycle = Lifecycle(application, self.port)
        self.lifecycle.begin()

    async def serve_on(self, listener: socket.socket) -> asyncio.Server:
        """Accept the connections of a listening socket."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.protocol, sock=listener, backlog=self.config.backlog)
        # What it closes when it stops.
        self.servers = [server]
        return server

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one connection."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )


def is_warning(record: logging.LogRecord) -> bool:
    """Return whether a record is logged, whatever level the application's settings give."""
    return record.levelno >= logging.WARNING


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = ServerOptions.parser("channels_kit.serving.uvicorn")
    parser.add_argument(
        "--reload",
        action="store_true",
        help="for development: restart when a file changes, and log each request",
    )
    named = vars(parser.parse_args(arguments))
    reload = named.pop("reload")
    with explained():
        require("uvicorn", LEAST)
        settings = configure(ServerOptions(**named))
        if reload:
            settings |= {"reload": True, "access_log": True, "log_level": "info"}
            uvicorn.run(APPLICATION, **settings)
            return
        logging.getLogger("uvicorn.error").addFilter(is_warning)
        server = Server(uvicorn.Config(APPLICATION, **settings))
        # Before there is an event loop, in which Django refuses the queries of an AppConfig.ready.
        set_up_django()
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


if __name__ == "__main__":
    main()
