import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from http import HTTPStatus
from itertools import repeat
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from channels_kit.probe import Report, Target, UsageError, prove
from channels_kit.probe import socket as probe_socket
from channels_kit.probe.ledger import CLOSING
from channels_kit.probe.matrix import EDGE_SOCKETS_MORE

from .scripted import Workers, answering

TOKEN = "a-token-of-the-tests"
BRIEF = 0.5
LONG = 60.0
"""Seconds that no test waits: `bounded` fails one that would."""


async def bounded(*arguments: Any, **options: Any) -> Report:
    """Prove with a long timeout, within a short time."""
    async with asyncio.timeout(5):
        return await prove(*arguments, token=TOKEN, **{"timeout": LONG, **options})


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def targets(stack: AsyncExitStack, workers: Workers, *names: str) -> list[Target]:
    return [Target(name, await stack.enter_async_context(workers.serving(name))) for name in names]


def pairs(report: Report) -> list[tuple[str, str]]:
    return [(cell.sender, cell.receiver) for cell in report.missing_pairs]


async def test_everything_arrives(stack: AsyncExitStack) -> None:
    workers = Workers()
    report = await bounded(await targets(stack, workers, "red", "blue"), rounds=3)
    assert report.ok
    [part] = report.parts
    assert (part.name, part.begun) == ("directly", 3)
    assert [(c.sender, c.receiver, c.delivered, c.expected) for c in part.cells()] == [
        ("red", "red", 3, 3),
        ("red", "blue", 3, 3),
        ("blue", "red", 3, 3),
        ("blue", "blue", 3, 3),
    ]
    assert [endpoint.revision for endpoint in part.endpoints] == ["r1", "r1"]
    assert part.latency is not None
    assert 0 < part.latency.p50 <= part.latency.p99 <= part.latency.max


async def test_the_handshake_carries_token_and_origin_and_no_compression(
    stack: AsyncExitStack,
) -> None:
    workers = Workers()
    [target] = await targets(stack, workers, "red")
    await bounded([target])
    await bounded([target], origin="https://chat.example")
    first, second = workers.seen
    assert first.headers["Authorization"] == f"Bearer {TOKEN}"
    assert "Sec-WebSocket-Extensions" not in first.headers
    assert first.headers["Origin"] == target.url
    assert second.headers["Origin"] == "https://chat.example"
    assert first.path.split("/")[3] != second.path.split("/")[3], "two runs must not mix"


async def test_a_lost_message_is_missing_and_ends_the_rounds(stack: AsyncExitStack) -> None:
    def faults(sender: str, receiver: str, number: int) -> Iterable[int]:
        return [] if (sender, receiver, number) == ("red", "blue", 2) else [number]

    report = await bounded(
        await targets(stack, Workers(faults), "red", "blue"), timeout=BRIEF, rounds=5
    )
    assert not report.ok
    assert pairs(report) == [("red", "blue")]
    [cell] = report.missing_pairs
    assert (cell.delivered, cell.expected, report.parts[0].begun) == (1, 2, 2)


async def test_a_copy_of_the_last_message_is_seen(stack: AsyncExitStack) -> None:
    """It comes after the round has finished; only the closing round waits for it."""

    def faults(sender: str, receiver: str, number: int) -> Iterable[int]:
        late = number == CLOSING and (sender, receiver) == ("red", "blue")
        return [1, number] if late else [number]

    report = await bounded(await targets(stack, Workers(faults), "red", "blue"), rounds=1)
    assert not report.ok
    assert [pair.duplicates for pair in report.parts[0].pairs] == [0, 1, 0, 0]


async def test_a_lost_closing_message_is_missing(stack: AsyncExitStack) -> None:
    def faults(sender: str, receiver: str, number: int) -> Iterable[int]:
        return [] if number == CLOSING and sender == "red" else [number]

    report = await bounded(
        await targets(stack, Workers(faults), "red", "blue"), timeout=BRIEF, rounds=1
    )
    assert pairs(report) == [("red", "red"), ("red", "blue")]


async def test_a_socket_that_dies_is_named_and_not_waited_for(stack: AsyncExitStack) -> None:
    workers = Workers()
    workers.dies["blue"] = 2
    report = await bounded(await targets(stack, workers, "red", "blue"))
    assert not report.ok
    assert ("blue", "red") in pairs(report)
    [failed] = report.parts[0].failed_endpoints
    assert failed.label == "blue"
    assert failed.failure == "closed with 1011: channel layer: ConnectionError"


async def test_a_worker_that_is_down(stack: AsyncExitStack) -> None:
    with socket.socket() as reserved:
        # Bound and not listening: refused, and nobody else can take the port.
        reserved.bind(("127.0.0.1", 0))
        down = Target("blue", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        report = await bounded([*await targets(stack, Workers(), "red"), down])
    assert pairs(report) == [("red", "blue"), ("blue", "red"), ("blue", "blue")]
    assert all((cell.delivered, cell.expected) == (0, 5) for cell in report.missing_pairs)
    [failed] = report.parts[0].failed_endpoints
    assert failed.failure is not None
    assert failed.failure.startswith("could not open ws://127.0.0.1:")
    assert failed.failure.endswith(": connection refused")


async def test_with_every_worker_down_nothing_is_proved() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        report = await bounded([Target("red", f"http://127.0.0.1:{reserved.getsockname()[1]}")])
    assert not report.ok
    assert pairs(report) == [("red", "red")]


async def test_a_listener_that_never_answers() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        target = Target("red", f"http://127.0.0.1:{mute.getsockname()[1]}")
        report = await bounded([target], timeout=BRIEF)
    assert "no answer within 0.5 s" in str(report.parts[0].endpoints[0].failure)


async def test_another_worker_answers(stack: AsyncExitStack) -> None:
    [blue] = await targets(stack, Workers(), "blue")
    report = await bounded([Target("red", blue.url)])
    assert not report.ok
    assert report.parts[0].endpoints[0].failure == "answered by another worker: blue"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "answered 403; check that the token is that of the worker"),
        (500, "answered 500"),
        # Nothing says that it is for a moment.
        (503, "answered 503; the worker, or every worker behind the edge, refuses sockets"),
    ],
)
async def test_a_refused_handshake(stack: AsyncExitStack, status: int, words: str) -> None:
    def respond(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus(status), "")

    url = await stack.enter_async_context(answering(respond))
    report = await bounded([Target("red", url)])
    assert str(report.parts[0].endpoints[0].failure).endswith(f": {words}")


async def test_a_handshake_that_is_refused_for_load_is_tried_again(stack: AsyncExitStack) -> None:
    workers = Workers()
    workers.refuses = iter(["0", "0"])
    report = await bounded(await targets(stack, workers, "red", "blue"))
    assert report.ok
    assert len(workers.refused) == 2


async def test_refusals_for_load_are_told_when_the_time_is_up(stack: AsyncExitStack) -> None:
    workers = Workers()
    workers.refuses = repeat("0")
    report = await bounded(await targets(stack, workers, "red"), timeout=BRIEF)
    failure = str(report.parts[0].endpoints[0].failure)
    assert failure.endswith(": answered 503 (This worker is full.); tried again for 0.5 s")
    assert len(workers.refused) > 1


def test_a_retry_waits_as_it_is_asked_within_bounds() -> None:
    def delay(status: int, **headers: str) -> float | None:
        response = Response(status, "", Headers({**headers}))
        return probe_socket.retry_delay(response)

    drawn = {delay(503, **{"Retry-After": "1"}) for _ in range(20)}
    assert len(drawn) == 20
    assert all(each is not None and 0.5 <= each <= 1 for each in drawn)
    assert delay(503, **{"Retry-After": "3600"}) <= probe_socket.RETRY_MOST  # type: ignore[operator]
    for status, headers in [(503, {}), (503, {"Retry-After": "soon"}), (429, {"Retry-After": "1"})]:
        assert delay(status, **headers) is None


async def test_a_redirect_is_not_followed(stack: AsyncExitStack) -> None:
    workers = Workers()
    [target] = await targets(stack, workers, "red")

    def respond(connection: ServerConnection, request: Request) -> Response:
        return Response(307, "", Headers({"Location": target.url + request.path}))

    url = await stack.enter_async_context(answering(respond))
    report = await bounded([Target("red", url)])
    assert str(report.parts[0].endpoints[0].failure).endswith(": answered 307")
    assert workers.seen == []


@pytest.mark.parametrize(
    "frames", [["no JSON"], ["[]"], ['{"type": "hello"}'], ['{"type": "message"}']]
)
async def test_an_answer_that_is_no_hello(stack: AsyncExitStack, frames: list[str]) -> None:
    async def handle(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(frame)
        await connection.wait_closed()

    server = await stack.enter_async_context(serve(handle, "127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    report = await bounded([Target("red", url)])
    assert "no hello from" in str(report.parts[0].endpoints[0].failure)


async def test_a_message_that_nobody_sent_is_a_failure(stack: AsyncExitStack) -> None:
    def faults(sender: str, receiver: str, number: int) -> Iterable[int]:
        return [number, 99] if receiver == "blue" else [number]

    report = await bounded(await targets(stack, Workers(faults), "red", "blue"))
    assert not report.ok
    assert [endpoint.label for endpoint in report.parts[0].failed_endpoints] == ["blue"]


async def test_the_edge_alone_is_given_four_sockets(stack: AsyncExitStack) -> None:
    edge = await stack.enter_async_context(Workers().serving("red", "blue", "red"))
    report = await bounded(edges=[edge])
    assert report.ok
    [part] = report.parts
    assert part.name == "through the edge"
    assert [endpoint.worker for endpoint in part.endpoints] == ["red", "blue", "red", "red"]
    assert [(c.sender, c.receiver, c.expected) for c in part.cells()] == [
        ("red", "red", 45),
        ("red", "blue", 15),
        ("blue", "red", 15),
        ("blue", "blue", 5),
    ]


async def test_more_sockets_are_opened_until_every_worker_is_reached(
    stack: AsyncExitStack,
) -> None:
    workers = Workers()
    edge = await stack.enter_async_context(workers.serving(*["red"] * 6, "blue"))
    report = await bounded(
        await targets(stack, workers, "red", "blue"), edges=[edge], edge_sockets=2, rounds=1
    )
    assert report.ok
    assert len(report.parts[1].endpoints) == 7


@pytest.mark.parametrize(("load", "fuller"), [(9, False), (11, True)])
async def test_a_worker_with_many_more_sockets_need_not_be_reached(
    stack: AsyncExitStack, load: int, fuller: bool
) -> None:
    """An edge that balances by their number sends it none of these eleven."""
    workers = Workers()
    workers.load["blue"] = load
    edge = await stack.enter_async_context(workers.serving("red"))
    report = await bounded(
        await targets(stack, workers, "red", "blue"), edges=[edge], edge_sockets=3, rounds=1
    )
    assert len(report.parts[1].endpoints) == 3 + 2 * EDGE_SOCKETS_MORE
    assert report.ok is fuller
    assert report.parts[1].fuller == (("blue",) if fuller else ())


async def test_a_worker_that_is_not_reached_is_named(stack: AsyncExitStack) -> None:
    workers = Workers()
    edge = await stack.enter_async_context(workers.serving("red"))
    report = await bounded(
        await targets(stack, workers, "red", "blue"), edges=[edge], edge_sockets=3, rounds=1
    )
    assert not report.ok
    directly, through_the_edge = report.parts
    assert directly.ok
    assert through_the_edge.unreached == ("blue",)
    assert len(through_the_edge.endpoints) == 3 + 2 * EDGE_SOCKETS_MORE


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"targets": [Target("red", "http://a"), Target("red", "http://b")]},
        {"edges": ["ftp://a"]},
        {"edges": ["http://"]},
        {"edges": ["http://a:0"]},
        {"edges": ["http://a/?b"]},
        {"edges": ["http://a"], "rounds": 0},
        {"edges": ["http://a"], "edge_sockets": 0},
        {"edges": ["http://a"], "timeout": 0},
        {"edges": ["http://a"], "timeout": float("inf")},
        {"edges": ["http://a"], "token": ""},
        {"edges": ["http://a"], "token": "no\theader"},
    ],
)
async def test_what_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        await prove(**{"token": TOKEN, **arguments})


async def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        await prove(token=TOKEN, edges=["http://me:hidden@a"])
    assert "hidden" not in str(caught.value)


FOUR = ("red", "blue", "green", "grey")


async def test_a_step_proves_from_and_to_what_it_touched(stack: AsyncExitStack) -> None:
    workers = Workers()
    found = await targets(stack, workers, *FOUR)
    report = await bounded(found, touched=["blue"], rounds=2)
    assert report.ok
    [part] = report.parts
    assert part.touched == ("blue",)
    covered = {(cell.sender, cell.receiver) for cell in part.cells()}
    assert covered == {("blue", name) for name in FOUR} | {(name, "blue") for name in FOUR}
    # Nothing else was sent: twice the workers a round, with the closing one, and not their square.
    assert len(workers.deliveries) == (2 * len(FOUR) - 1) * 3
    assert set(workers.deliveries) == covered


async def test_a_wave_proves_from_and_to_each_that_it_touched(stack: AsyncExitStack) -> None:
    workers = Workers()
    report = await bounded(await targets(stack, workers, *FOUR), touched=["red", "grey"], rounds=1)
    assert report.ok
    assert len(report.parts[0].cells()) == 12
    assert {("blue", "green"), ("green", "blue")}.isdisjoint(workers.deliveries)


@pytest.mark.parametrize("broken", [("blue", "red"), ("red", "blue"), ("blue", "blue")])
async def test_a_step_finds_what_is_broken_in_either_direction(
    stack: AsyncExitStack, broken: tuple[str, str]
) -> None:
    def faults(sender: str, receiver: str, number: int) -> Iterable[int]:
        return [] if (sender, receiver) == broken else [number]

    report = await bounded(
        await targets(stack, Workers(faults), *FOUR), touched=["blue"], timeout=BRIEF
    )
    assert not report.ok
    assert pairs(report) == [broken]


async def test_a_step_does_not_look_at_what_others_owe_each_other(stack: AsyncExitStack) -> None:
    def faults(sender: str, receiver: str, number: int) -> Iterable[int]:
        return [] if "blue" not in (sender, receiver) else [number]

    found = await targets(stack, Workers(faults), *FOUR)
    assert (await bounded(found, touched=["blue"])).ok
    assert not (await bounded(found, timeout=BRIEF)).ok


async def test_workers_with_a_former_kit_may_send_to_all(stack: AsyncExitStack) -> None:
    """As in an upgrade: what nobody is owed is no fault."""
    workers = Workers()
    workers.former = set(FOUR) - {"blue"}
    report = await bounded(await targets(stack, workers, *FOUR), touched=["blue"], rounds=1)
    assert report.ok
    assert ("red", "green") in workers.deliveries


async def test_a_touched_worker_that_is_down_is_no_proof(stack: AsyncExitStack) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        down = Target("blue", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        found = [*await targets(stack, Workers(), "red", "green"), down]
        report = await bounded(found, touched=["blue"])
    assert not report.ok
    assert ("red", "blue") in pairs(report)
    assert ("red", "green") not in pairs(report)
