"""Workers of one process that misbehave as they are told: for the probe's own tests."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import chain, repeat

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

Faults = Callable[[str, str, int], Iterable[int]]


def faultless(sender: str, receiver: str, number: int) -> Iterable[int]:
    return [number]


class Workers:
    """A channel layer and its workers.

    `faults` says for a sending worker, a receiving worker and a round which rounds to deliver
    in its place: none, a copy, another.
    """

    def __init__(self, faults: Faults = faultless) -> None:
        self.faults = faults
        # Worker, connection and run of every socket: runs do not hear each other.
        self.members: list[tuple[str, ServerConnection, str]] = []
        # Those of them that belong to the touched; and every delivery that was made.
        self.touched: set[ServerConnection] = set()
        self.deliveries: list[tuple[str, str]] = []
        # Workers with a version of the kit that sends to all in any case.
        self.former: set[str] = set()
        self.seen: list[Request] = []
        # Rounds at whose frame a worker closes its sockets.
        self.dies: dict[str, int] = {}
        # Sockets that a worker says to have beside.
        self.load: dict[str, int] = {}
        # The Retry-After of handshakes that are refused for load, before any is taken.
        self.refuses: Iterator[str] = iter(())
        # The handshakes that were.
        self.refused: list[Request] = []

    @asynccontextmanager
    async def serving(self, *names: str) -> AsyncIterator[str]:
        """Serve on a port of its own; each socket is answered by the next of `names`.

        The last name stays.
        """
        upcoming = chain(names, repeat(names[-1]))

        async def handle(connection: ServerConnection) -> None:
            await self._handle(connection, next(upcoming))

        async with serve(handle, "127.0.0.1", 0, process_request=self._admit) as server:
            port = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        retry_after = next(self.refuses, None)
        if retry_after is None:
            return None
        self.refused.append(request)
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "This worker is full.\n")
        response.headers["Retry-After"] = retry_after
        return response

    async def _handle(self, connection: ServerConnection, worker: str) -> None:
        assert connection.request is not None
        self.seen.append(connection.request)
        path, _, query = connection.request.path.partition("?")
        *_, run, endpoint, _ = path.split("/")
        if query == "touched":
            self.touched.add(connection)
        self.members.append((worker, connection, run))
        hello = {"type": "hello", "worker": worker, "revision": "r1"}
        await connection.send(json.dumps({**hello, "sockets": self.load.get(worker, 0)}))
        async for frame in connection:
            content = json.loads(frame)
            number = content["round"]
            to_touched = content.get("to") == "touched" and worker not in self.former
            if self.dies.get(worker) == number:
                await connection.close(1011, "channel layer: ConnectionError")
                return
            delivered = [
                (receiver, member, each)
                for receiver, member, heard in self.members
                if heard == run and (not to_touched or member in self.touched)
                for each in self.faults(worker, receiver, number)
            ]
            self.deliveries += [(worker, receiver) for receiver, _, _ in delivered]
            await asyncio.gather(
                *(
                    member.send(json.dumps({"type": "message", "sender": endpoint, "round": each}))
                    for _, member, each in delivered
                ),
                return_exceptions=True,
            )


@asynccontextmanager
async def answering(respond: Callable[[ServerConnection, Request], Response]) -> AsyncIterator[str]:
    """A server that answers every handshake with a response."""

    async def never(connection: ServerConnection) -> None:
        raise AssertionError("no handshake is accepted")

    async with serve(never, "127.0.0.1", 0, process_request=respond) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
