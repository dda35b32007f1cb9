"""From the URL an operator gives to the URL of a probe socket."""

from urllib.parse import SplitResult, urlsplit

from channels_kit.paths import probe_path

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


class UsageError(ValueError):
    """The proof was asked for in a way that makes no sense; the message says what is allowed."""


def check_base(url: str) -> str:
    """Return `url` if sockets can be opened below it.

    Raises:
        UsageError: it is not the base URL of a server.
    """
    if "@" in url:
        # It would end up in the report; not even this message may quote it.
        raise UsageError("a URL must not contain a user name or password")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _WEBSOCKET_SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise UsageError(
            f"{url!r} is not a base URL such as http://10.0.0.1:8001 or https://chat.example"
        )
    return url


def socket_url(base: str, run: str, endpoint: str) -> str:
    """Return where the socket `endpoint` of the run `run` is opened."""
    return websocket_url(base, probe_path(run, endpoint))


def websocket_url(base: str, path: str) -> str:
    """Return where `path`, with its query if it has one, is opened at the server behind `base`."""
    parts = urlsplit(base)
    scheme = _WEBSOCKET_SCHEMES[parts.scheme]
    return SplitResult(scheme, parts.netloc, parts.path.rstrip("/"), "", "").geturl() + path


def http_url(base: str, path: str) -> str:
    """Return where `path` of the server behind `base` is read."""
    parts = urlsplit(base)
    scheme = _HTTP_SCHEMES.get(parts.scheme, parts.scheme)
    return SplitResult(scheme, parts.netloc, parts.path.rstrip("/") + path, "", "").geturl()


def origin_of(base: str) -> str:
    """Return the Origin of a page that the server behind `base` would have served."""
    parts = urlsplit(base)
    return f"{_HTTP_SCHEMES.get(parts.scheme, parts.scheme)}://{parts.netloc}"
