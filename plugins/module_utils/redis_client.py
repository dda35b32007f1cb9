"""A client of Redis for modules: the standard library alone, and a password on no command line.

``RedisError`` is an answer that Redis gave. A server that cannot be reached raises ``OSError``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any

TIMEOUT = 10.0
"""Seconds that one answer may take."""

MINIMUM = 16
"""Characters of a password that a module accepts for the administrator."""


class RedisError(Exception):
    """Redis answered with an error; its text begins with the error's code."""


class LoginError(Exception):
    """The server runs, and knows the administrator by another password."""


class Redis:
    """One connection.

    Args:
        address: a host's name or address, or the path of a socket.
        port: the port; not used with a path.
        seconds: how long one answer may take.
    """

    def __init__(self, address: str, port: int = 0, seconds: float = TIMEOUT) -> None:
        if address.startswith("/"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(seconds)
            try:
                self._socket.connect(address)
            except OSError:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection((address, port), timeout=seconds)
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Redis:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, *words: str) -> Any:
        """Send a command and return its answer.

        Raises:
            RedisError: the command was refused.
        """
        self._send(words)
        return self._answer()

    def transaction(self, commands: Iterable[tuple[str, ...]]) -> list[Any]:
        """Run commands between which no other client sees anything; return their answers.

        Raises:
            RedisError: one of them was refused. Those after it were run all the same.
        """
        self.ask("MULTI")
        for command in commands:
            self.ask(*command)
        answers = self.ask("EXEC")
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return list(answers)

    def _send(self, words: Iterable[str]) -> None:
        encoded = [word.encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        self._socket.sendall(b"".join(parts))

    def _answer(self) -> Any:
        answer = self._read()
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def _read(self) -> Any:
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        length = int(rest)
        if length < 0:
            return None
        if kind == b"*":
            return [self._read() for _ in range(length)]
        return self._answers.read(length + 2)[:-2].decode(errors="replace")


def pairs(answer: list[Any]) -> dict[str, Any]:
    """Return an answer of names and values in turn as a dict."""
    return dict(zip(answer[::2], answer[1::2], strict=False))


def read_password(path: str, minimum: int = MINIMUM) -> str:
    """Return the password in a file.

    Args:
        path: the file.
        minimum: characters that it has at least.

    Raises:
        ValueError: the file holds none, or one that is too short.
    """
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as every module reads
        password = file.read().strip()
    if len(password) < minimum:
        raise ValueError(
            f"{path} holds {len(password)} characters; at least {minimum} are required"
        )
    return password


def log_in(address: str, port: int, user: str, password: str) -> Redis | None:
    """Return a connection of the administrator; None where no server listens.

    A file of users that was written with an empty password lets everybody in. So the empty password
    is tried too: whoever calls this is about to replace it.

    Raises:
        LoginError: the server refuses both.
    """
    try:
        server = Redis(address, port)
    except ConnectionRefusedError:
        return None
    for tried in (password, ""):
        try:
            server.ask("AUTH", user, tried)
        except RedisError as error:
            refused = error
        else:
            return server
    server.__exit__(None, None, None)
    raise LoginError(f"Redis at {address} port {port} refuses the user {user}: {refused}")
