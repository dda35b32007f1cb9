"""What an edge takes, keeps and refuses: each look at a server that does it, or does not."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from channels_kit.probe.__main__ import main
from channels_kit.probe.checks import Checks
from channels_kit.probe.edge import (
    IDLE_SOCKETS,
    Behaviour,
    examine_application,
    examine_edges,
    summed_up,
)

TOKEN = "the-token-of-this-cluster"
SOCKET = "/ws/lobby/"
IDLE = 0.2
HANDSHAKE = "handshake through the edge"
HELD = f"idle socket held for {IDLE:g} s"
NO_TOKEN, WRONG_TOKEN = "probe without a token is refused", "probe with a wrong token is refused"
OTHER_HOST = "another host name is refused"
ORIGIN = f"{SOCKET} refuses the Origin of another site"


@dataclass
class Edge:
    """An edge with a worker behind it; every attribute is something that it does wrong.

    Attributes:
        takes_any_token: it opens probe sockets without the token.
        takes_any_host: it answers for a name of another site.
        takes_any_origin: the application opens sockets for pages of another site.
        serves: pages of the workers that it passes on.
        hello: whether a probe socket says hello.
        closes: code with which it closes a probe socket after its hello; 0: it does not.
        answers: whether a probe socket gets its message.
        refuses: handshakes that are refused with 503 and Retry-After before one is taken.
        url: where it listens.
    """

    takes_any_token: bool = False
    takes_any_host: bool = False
    takes_any_origin: bool = False
    serves: Sequence[str] = ()
    hello: bool = True
    closes: int = 0
    answers: bool = True
    refuses: int = 0
    url: str = field(default="", init=False)

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return the answer to what opens no socket."""
        headers = request.headers
        if headers["Host"] == "wrong.invalid":
            status = HTTPStatus.OK if self.takes_any_host else HTTPStatus.MISDIRECTED_REQUEST
            return connection.respond(status, "")
        if request.path.startswith("/-/probe/"):
            if self.takes_any_token or headers.get("Authorization") == f"Bearer {TOKEN}":
                if not self.refuses:
                    return None
                self.refuses -= 1
                busy = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
                busy.headers["Retry-After"] = "0"
                return busy
            return connection.respond(HTTPStatus.FORBIDDEN, "")
        if request.path.startswith("/-/"):
            found = request.path in self.serves
            return connection.respond(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND, "")
        foreign = headers.get("Origin") != self.url
        if foreign and not self.takes_any_origin:
            return connection.respond(HTTPStatus.FORBIDDEN, "")
        return None

    async def handle(self, connection: ServerConnection) -> None:
        """Be a probe socket, or a socket of the application, which stays open."""
        assert connection.request is not None
        if connection.request.path.startswith("/-/probe/"):
            if self.hello:
                await connection.send(
                    json.dumps({"type": "hello", "worker": "app1:8001", "revision": ""})
                )
            if self.closes:
                await connection.close(self.closes)
            async for frame in connection:
                number = json.loads(frame)["round"]
                told = {"type": "message", "sender": "1", "round": number}
                if self.answers:
                    await connection.send(json.dumps(told))
        await connection.wait_closed()


@asynccontextmanager
async def listening(edge: Edge) -> AsyncIterator[Edge]:
    async with serve(edge.handle, "127.0.0.1", 0, process_request=edge.admit) as server:
        edge.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield edge


async def examined(edge: Edge, **options: float) -> dict[str, list[Behaviour]]:
    """Return what came of each look, by its name."""
    checks = Checks.of([], [SOCKET])
    async with listening(edge):
        found = await examine_edges(
            [edge.url],
            {"app1:8001": edge.url},
            token=TOKEN,
            checks=checks,
            **{"seconds": 5.0, "idle": IDLE, **options},
        )
    by_name: dict[str, list[Behaviour]] = {}
    for each in found:
        by_name.setdefault(each.name, []).append(each)
    return by_name


def failed(found: dict[str, list[Behaviour]]) -> set[str]:
    return {name for name, looks in found.items() if any(x.status == "failed" for x in looks)}


async def test_an_edge_that_does_what_it_has_to_is_as_expected() -> None:
    found = await examined(Edge())
    assert failed(found) == set()
    counts = {name: len(looks) for name, looks in found.items()}
    assert counts == {
        HANDSHAKE: 1,
        HELD: IDLE_SOCKETS,
        # Through the edge, and at the worker.
        NO_TOKEN: 2,
        WRONG_TOKEN: 2,
        OTHER_HOST: 1,
        ORIGIN: 1,
        **{f"/-/{page} is not served at the edge": 1 for page in ("live", "ready", "metrics")},
    }
    assert found[HANDSHAKE][0].effective == "opened on app1:8001"
    assert all(each.seconds >= IDLE for each in found[HELD])
    assert {each.status for looks in found.values() for each in looks} == {"ok"}


@pytest.mark.parametrize(
    ("edge", "names", "effective"),
    [
        (Edge(takes_any_token=True), {NO_TOKEN, WRONG_TOKEN}, "101"),
        (Edge(takes_any_host=True), {OTHER_HOST}, "200"),
        (Edge(serves=["/-/metrics"]), {"/-/metrics is not served at the edge"}, "200"),
        (Edge(closes=1001), {HELD}, "closed with 1001 after 0 s"),
    ],
    ids=["any token", "any host", "pages of the workers", "idle sockets are closed"],
)
async def test_what_an_edge_does_wrong_is_named_and_nothing_else(
    edge: Edge, names: set[str], effective: str
) -> None:
    found = await examined(edge)
    assert failed(found) == names
    for name in names:
        assert {each.effective for each in found[name]} == {effective}
        assert all(each.message and each.expected != each.effective for each in found[name])


@pytest.mark.parametrize(
    ("edge", "names", "said"),
    [
        (Edge(hello=False), {HANDSHAKE, HELD}, "no answer within 0.5 s"),
        (Edge(answers=False), {HELD}, "delivered nothing within 0.5 s"),
    ],
    ids=["no hello", "no message"],
)
async def test_a_socket_that_says_nothing_is_given_up(
    edge: Edge, names: set[str], said: str
) -> None:
    found = await examined(edge, seconds=0.5)
    assert failed(found) == names
    assert all(each.message.endswith(said) for name in names for each in found[name])


async def test_an_application_that_takes_any_origin_is_no_failure_and_told() -> None:
    found = await examined(Edge(takes_any_origin=True))
    (look,) = found[ORIGIN]
    assert (look.status, look.effective) == ("skipped", "opened")
    assert "AllowedHostsOriginValidator" in look.message
    assert failed(found) == set()


async def test_a_handshake_that_is_refused_for_load_is_tried_again() -> None:
    assert failed(await examined(Edge(refuses=3))) == set()


async def test_without_idle_no_socket_is_held() -> None:
    assert HELD not in await examined(Edge(), idle=0.0)


async def test_nobody_listens() -> None:
    async with listening(Edge()) as edge:
        url = edge.url
    found = await examine_edges([url], {}, token=TOKEN, checks=Checks.of([], [SOCKET]), idle=IDLE)
    assert {each.status for each in found} == {"failed"}
    assert all("connection refused" in each.message for each in found)
    *lines, last = summed_up(found)
    assert len(lines) == len(found)
    assert last == f"0 of {len(found)} as expected"


async def test_an_application_without_the_probe_is_asked_for_its_own_sockets() -> None:
    checks = Checks.of([], [SOCKET, {"path": "/ws/staff/", "status": 403}])
    async with listening(Edge()) as edge:
        found = await examine_application([edge.url], checks, seconds=5.0, idle=IDLE)
    told = {each.name: (each.status, each.expected, each.effective) for each in found}
    assert told == {
        f"socket {SOCKET}": ("ok", "opened", "opened"),
        f"{SOCKET} idle for {IDLE:g} s": ("ok", "stays open", "stays open"),
        # It opens: it is not refused as it has to be.
        "socket /ws/staff/": ("failed", "refused with 403", "was opened, not refused with 403"),
        ORIGIN: ("ok", "refused", "answered 403"),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--edge=http://127.0.0.1:1", "--without-probe"], "name a socket of the application"),
        (["--without-probe", f"--socket={SOCKET}"], "name an edge"),
        (["--edge=http://127.0.0.1:1", "--idle=86401"], "0 to 86400"),
    ],
)
def test_what_looks_at_nothing_is_no_success(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["edge", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
