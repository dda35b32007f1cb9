"""From the URL an operator gives to where a connection is made, and what it asks for."""

import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from channels_kit.paths import PREFIX

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


_PORTS = {"http": 80, "https": 443}

# What RFC 3986 allows in a path with a query. A browser sends no other character.
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")

PATH_ALLOWED = (
    "a path that begins with /, such as /login/ or /search/?q=1, in the characters of a URL (others"
    " as %XX), without # and not below /-/"
)


MAX_PATH = 2000
"""Characters of a path that every server and proxy takes."""


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


def is_path(path: object) -> bool:
    """Return whether `path` is a path of an application, with its query if it has one."""
    return (
        isinstance(path, str)
        and len(path) <= MAX_PATH
        and _PATH.fullmatch(path) is not None
        and not path.startswith(PREFIX)
    )


@dataclass(frozen=True)
class Site:
    """What people have in the address bar: scheme and name of the site.

    Attributes:
        scheme: `http` or `https`.
        netloc: the name, with a port if it has one.
    """

    scheme: str
    netloc: str

    @classmethod
    def of(cls, url: str) -> "Site":
        """Return the site of a URL that `check_base` takes."""
        parts = urlsplit(url)
        return cls(_HTTP_SCHEMES.get(parts.scheme, parts.scheme), parts.netloc)

    @property
    def origin(self) -> str:
        """The Origin of its pages."""
        return f"{self.scheme}://{self.netloc}"

    @property
    def host(self) -> str:
        """Its name, without the port."""
        return urlsplit(self.origin).hostname or ""


@dataclass(frozen=True)
class Place:
    """A server that is asked: a worker, or an edge.

    Attributes:
        label: how an operator knows it.
        base: its URL.
        site: what it is asked for; by default what `base` says.
        direct: whether it is a worker, which is told what an edge would tell it.
        verified: whether its certificate has to be trusted, where the connection is encrypted.
    """

    label: str
    base: str
    site: Site | None = None
    direct: bool = True
    verified: bool = True

    @classmethod
    def of_edge(cls, label: str, url: str, site: Site | None) -> "Place":
        """Return an edge as people reach it.

        An edge that speaks TLS redirects them from HTTP, but takes the wires there. So the
        application of an https site is asked for at the site's port of the same machine. Whether
        its certificate can be trusted is not known there: that machine is not asked by its name.
        """
        if site is None or site.scheme == Site.of(url).scheme or site.scheme != "https":
            return cls(label, url, site, direct=False)
        host = urlsplit(url).hostname or ""
        bare = f"[{host}]" if ":" in host else host
        port = urlsplit(site.origin).port or _PORTS[site.scheme]
        return cls(label, f"https://{bare}:{port}", site, direct=False, verified=False)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What an encrypted connection to it takes; None: it is not encrypted."""
        if not self.is_encrypted:
            return None
        context = ssl.create_default_context()
        if not self.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def asked(self) -> Site:
        """The site that requests name."""
        return self.site or Site.of(self.base)

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection to it is."""
        return Site.of(self.base).scheme == "https"

    @property
    def dialled(self) -> tuple[str, int]:
        """The address of the connection, and its port."""
        parts = urlsplit(self.base)
        return parts.hostname or "", parts.port or _PORTS[Site.of(self.base).scheme]

    def websocket(self, path: str) -> tuple[str, dict[str, Any]]:
        """Return the URL of a socket, and what makes `websockets` dial this server for it."""
        if self.site is None:
            return websocket_url(self.base, path), {}
        tls = {"ssl": self.tls} if self.is_encrypted else {}
        host, port = self.dialled
        scheme = "wss" if self.is_encrypted else "ws"
        return f"{scheme}://{self.site.netloc}{path}", {"host": host, "port": port, **tls}


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
