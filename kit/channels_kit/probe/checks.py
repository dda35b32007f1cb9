"""What an operator names of the application, for the proof to look at: pages and sockets."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from channels_kit.probe.address import PATH_ALLOWED, Site, UsageError, check_base, is_path

# RFC 9110: a token, and what a header's value may be.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")

_OWN_HEADERS = re.compile(
    r"host|connection|upgrade|content-length|transfer-encoding|sec-websocket-.*|x-forwarded-.*"
    r"|x-real-ip",
    re.IGNORECASE,
)
"""Headers that the handshake sets itself."""

_KEYS = {"path", "close", "status", "subprotocol", "headers"}

SOCKET_ALLOWED = (
    f"{PATH_ALLOWED}; or a mapping of path and optionally close (1000 to 1003, 1007 to 1014, or"
    " 3000 to 4999), or status (300 to 499), subprotocol, headers"
)


@dataclass(frozen=True)
class SocketCheck:
    """A socket of the application, and what has to become of it.

    Attributes:
        path: where it is opened.
        close: the code with which the application has to close it; None: it has to stay open.
        status: the status with which its handshake has to be refused; None: with none.
        subprotocol: what it asks for, and has to get; None: nothing.
        headers: further headers of its handshake.
    """

    path: str
    close: int | None = None
    status: int | None = None
    subprotocol: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, value: object) -> "SocketCheck":
        """Return what an operator wrote: a path, or a mapping.

        Raises:
            UsageError: it is neither.
        """
        given = {"path": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping) or not set(given) <= _KEYS or None in given.values():
            raise UsageError(f"{value!r} is not a socket; allowed: {SOCKET_ALLOWED}")
        headers = given.get("headers", {})
        close, status = given.get("close"), given.get("status")
        subprotocol = given.get("subprotocol")
        if not (
            is_path(given.get("path"))
            and (close is None or is_close_code(close))
            and (status is None or (type(status) is int and 300 <= status <= 499))
            and (close is None or status is None)
            and (subprotocol is None or _matches(_TOKEN, subprotocol))
            and isinstance(headers, Mapping)
            and all(is_header(name, text) for name, text in headers.items())
        ):
            raise UsageError(f"{value!r} is not a socket; allowed: {SOCKET_ALLOWED}")
        return cls(str(given["path"]), close, status, subprotocol, tuple(headers.items()))

    @property
    def expected(self) -> str:
        """What has to become of it, as a report says it after its path; empty: it stays open."""
        if self.status is not None:
            return f"refused with {self.status}"
        return f"closed with {self.close}" if self.close is not None else ""


@dataclass(frozen=True)
class Checks:
    """What is proved beside the wires.

    Attributes:
        pages: paths that have to be answered below 500.
        sockets: sockets that have to open, or to be refused as it is said.
        site: for which site the application is asked; None: for the address of the server.
    """

    pages: tuple[str, ...] = ()
    sockets: tuple[SocketCheck, ...] = ()
    site: Site | None = None

    @classmethod
    def of(
        cls, pages: Iterable[object], sockets: Iterable[object], site: str | None = None
    ) -> "Checks":
        """Return checks of what an operator wrote.

        Raises:
            UsageError: something of it cannot be checked.
        """
        paths = list(dict.fromkeys(pages))
        for path in paths:
            if not is_path(path):
                raise UsageError(f"{path!r} is not a page; allowed: {PATH_ALLOWED}")
        return cls(
            tuple(str(path) for path in paths),
            tuple(dict.fromkeys(SocketCheck.parse(socket) for socket in sockets)),
            Site.of(check_base(site)) if site else None,
        )

    @classmethod
    def from_json(cls, text: str) -> "Checks":
        """Return the checks of `{"site": URL, "pages": [...], "sockets": [...]}`.

        Raises:
            UsageError: the text is not that.
        """
        try:
            given = json.loads(text)
        except ValueError:
            given = None
        if (
            not isinstance(given, dict)
            or not set(given) <= {"site", "pages", "sockets"}
            or not isinstance(given.get("pages", []), list)
            or not isinstance(given.get("sockets", []), list)
            or not isinstance(given.get("site") or "", str)
        ):
            raise UsageError('not {"site": URL, "pages": [PATH, ...], "sockets": [SOCKET, ...]}')
        return cls.of(given.get("pages", []), given.get("sockets", []), given.get("site"))


def is_close_code(code: object) -> bool:
    """Return whether an application can close a socket with a code: RFC 6455, section 7.4."""
    return type(code) is int and (
        1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    )


def is_header(name: object, value: object) -> bool:
    """Return whether a header may be added to a handshake."""
    return (
        _matches(_TOKEN, name)
        and not _matches(_OWN_HEADERS, name)
        and _matches(_VALUE, value)
        and len(str(value)) <= 4000
    )


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
