"""Who the client is, where a server takes it for the edge.

Uvicorn finds out by itself. Hypercorn and Daphne do so for whoever connects, and Hypercorn's
command line cannot even ask for it.
"""

from collections.abc import Collection

from channels_kit.serving.types import ASGIApplication, Receive, Scope, Send

_SCHEMES = {
    "http": {b"http": "http", b"https": "https"},
    "websocket": {b"http": "ws", b"https": "wss"},
}


class Forwarded:
    """Gives the application the client and the scheme that an edge tells.

    Args:
        application: an ASGI callable.
        edges: the addresses whose word counts.
    """

    def __init__(self, application: ASGIApplication, edges: Collection[str]) -> None:
        self.application = application
        self.edges = edges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        client = scope.get("client")
        if client and client[0] in self.edges:
            headers = dict(scope["headers"])
            # The last one: what the edge itself has seen.
            address = headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip()
            if address:
                scope["client"] = (address.decode("latin-1"), 0)
            scheme = _SCHEMES[scope["type"]].get(headers.get(b"x-forwarded-proto", b""))
            if scheme:
                scope["scheme"] = scheme
        await self.application(scope, receive, send)
