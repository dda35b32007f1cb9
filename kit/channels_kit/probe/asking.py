"""What an edge would tell a worker about a client, for whoever asks a worker directly."""

import socket
from contextlib import suppress

from channels_kit.probe.address import Place


def forwarded_headers(place: Place) -> dict[str, str]:
    """Return the headers that an edge adds to a request; none where an edge is asked."""
    if not place.direct:
        return {}
    site = place.asked
    client = own_address(place)
    return {
        "X-Forwarded-For": client,
        "X-Forwarded-Host": site.netloc,
        "X-Forwarded-Proto": site.scheme,
        "X-Real-IP": client,
    }


def own_address(place: Place) -> str:
    """Return the address from which this machine reaches a server."""
    host, port = place.dialled
    with suppress(OSError):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as asking:
            # Of a datagram socket this sends nothing.
            asking.connect(address)
            return str(asking.getsockname()[0])
    return "127.0.0.1"
