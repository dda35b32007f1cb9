"""The command line that every server of the kit has, and what is the same in all of them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

BACKLOG = 4096
"""Connections that wait to be taken: all clients come back in the same second."""

KEEP_ALIVE = 75
"""Seconds an HTTP connection may idle; nginx keeps its own for 60 and must be the first to go."""

PING_INTERVAL = 20
"""Seconds between two pings to a client, and those it has to answer one."""


@dataclass(frozen=True)
class ServerOptions:
    """What a unit tells its server, under the names that Uvicorn has for the same.

    Attributes:
        host: the address to listen on.
        port: the port; 0 takes any.
        ws_max_size: bytes of the largest message of a client.
        forwarded_allow_ips: addresses of the edges, whose X-Forwarded-For and -Proto count.
        timeout_graceful_shutdown: seconds that SIGTERM leaves to what is in hand.
        backlog: connections that wait to be taken.
    """

    host: str
    port: int
    ws_max_size: int
    forwarded_allow_ips: frozenset[str]
    timeout_graceful_shutdown: int
    backlog: int = BACKLOG

    @classmethod
    def parse(cls, program: str, arguments: Sequence[str] | None = None) -> "ServerOptions":
        """Read the command line; argparse ends the process with 2 on wrong usage."""
        return cls(**vars(cls.parser(program).parse_args(arguments)))

    @staticmethod
    def parser(program: str) -> argparse.ArgumentParser:
        """Return the command line of `python -m program`."""
        parser = argparse.ArgumentParser(prog=f"python -m {program}")
        parser.add_argument("--host", required=True, help="the address to listen on")
        parser.add_argument("--port", type=int, required=True, help="the port")
        parser.add_argument(
            "--ws-max-size", type=int, default=2**20, help="bytes of a message (default: 1 MiB)"
        )
        parser.add_argument(
            "--forwarded-allow-ips",
            type=lambda text: frozenset(text.split(",")),
            default=frozenset(),
            help="the edges' addresses, comma between (default: none)",
        )
        parser.add_argument(
            "--timeout-graceful-shutdown",
            type=int,
            default=10,
            help="seconds for what is in hand at SIGTERM (default: 10)",
        )
        parser.add_argument(
            "--backlog",
            type=int,
            default=BACKLOG,
            help=f"connections that wait to be taken (default: {BACKLOG})",
        )
        return parser
