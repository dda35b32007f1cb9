"""Runs against an application that loses, copies, reorders and cuts."""

import asyncio
import errno
import json
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from itertools import chain, count, repeat
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from channels_kit.load import Limits, Outcome, Plan, client, gaps, run, run_load, wire
from channels_kit.load.adapter import Login, LoginRefused
from channels_kit.load.report import as_json, render_text, timeline_as_json
from channels_kit.probe import UsageError
from channels_kit.probe.progress import Progress

from .scripted_room import PASSWORD, TOKEN, Rooms, ScriptedAdapter, tell

MESSAGES = 12

ONE_SWALLOWED = (
    "3 of 3 connected, 12 sent, 33 delivered, 0 outstanding at 0 clients, 1 received by no client"
)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKOFF_FIRST", "RESEND_INTERVAL"):
        monkeypatch.setattr(client, name, 0.01)
    monkeypatch.setattr(run, "STATUS_INTERVAL", 0.01)
    monkeypatch.setattr(gaps, "DELAY_FIRST", 0.02)
    monkeypatch.setattr(gaps, "DELAY_MOST", 0.2)
    monkeypatch.setattr(gaps, "ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(run, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(run, "QUIET", 0.05)


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def url(rooms: Rooms) -> AsyncIterator[str]:
    async with rooms.serving() as url:
        yield url


def plan(url: str, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "urls": [url],
        "rooms": ["red"],
        "users": {"alice": PASSWORD},
        "adapter": ScriptedAdapter(),
        "clients": 3,
        "rate": MESSAGES * 10,
        "duration": 0.1,
        "grace": 10,
        "connect_rate": 1000,
        **changes,
    }
    return Plan(**values)


async def load(url: str, **changes: Any) -> Outcome:
    async with asyncio.timeout(20):
        return await run_load(plan(url, **changes))


class Recorder(Progress):
    """Keeps every phase; sets the event of each of the given words when a phase has them."""

    def __init__(self, *words: str) -> None:
        self.phases: list[str] = []
        self.said = {each: asyncio.Event() for each in words}

    def phase(self, text: str) -> None:
        self.phases.append(text)
        for words, event in self.said.items():
            if words in text:
                event.set()


async def load_until(state: str, url: str, **changes: Any) -> Outcome:
    """Run a plan whose messages do not all arrive, until the status says a state."""
    wanted = f"status: {state}"
    recorder = Recorder(wanted)
    async with asyncio.timeout(20):
        return await run_load(plan(url, **changes), progress=recorder, end=recorder.said[wanted])


def recorded_delays(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float | None]]:
    """Wait for nothing, and return with what the waits were asked for."""
    asked = []

    def none(failures: int, retry_after: float | None) -> float:
        asked.append((failures, retry_after))
        return 0.0

    monkeypatch.setattr(client, "retry_delay", none)
    return asked


async def test_everything_arrives(url: str, rooms: Rooms) -> None:
    outcome = await load(url, rooms=["red", "blue"], clients=4)
    assert outcome.ok
    assert (outcome.sent, outcome.delivered, outcome.expected) == (MESSAGES, 24, 24)
    assert [len(rooms.messages[room]) for room in ("red", "blue")] == [6, 6]
    assert len(outcome.connected_latencies) == 24
    assert not outcome.other_latencies
    assert not outcome.closes
    assert [each.room for each in outcome.clients] == ["red", "blue", "red", "blue"]


async def test_what_was_sent_before_is_not_expected(url: str, rooms: Rooms) -> None:
    rooms.messages["red"] = ["sent", "long", "before"]
    outcome = await load(url)
    assert outcome.ok
    assert [(each.first, each.last) for each in outcome.clients] == [(3, 15)] * 3


async def test_what_is_lost_on_the_way_is_asked_for(url: str, rooms: Rooms) -> None:
    def deliver(sequence: int, socket: int) -> Iterable[int]:
        return [] if socket == 1 and sequence in (2, 3, 4, 5, 9) else [sequence]

    rooms.deliver = deliver
    rooms.tells_position = False
    # Slow enough for each gap to be seen as a whole, and filled before the next.
    outcome = await load(url, rate=MESSAGES, duration=1)
    assert outcome.ok
    # Of four numbers it asks for as many at once as the adapter allows.
    assert rooms.gaps == [(2, 4), (5, 5), (9, 9)]
    assert sum(each.gaps_asked for each in outcome.clients) == 3


async def test_the_last_message_is_missed_by_the_position_alone(url: str, rooms: Rooms) -> None:
    rooms.deliver = lambda sequence, socket: [] if sequence == MESSAGES else [sequence]
    outcome = await load(url)
    assert outcome.ok
    assert all(each.gaps_asked for each in outcome.clients)


async def test_what_is_only_late_is_asked_for_less_and_less(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "DELAY_FIRST", 0.01)
    monkeypatch.setattr(gaps, "DELAY_MOST", 10.0)
    rooms.tells_position = False

    def deliver(sequence: int, socket: int) -> Iterable[int]:
        # Every other message comes after the next one.
        return [sequence] if sequence % 2 else [sequence - 2] if sequence > 2 else []

    rooms.deliver = deliver
    outcome = await load(url, clients=1, rate=40, duration=1.025)
    assert outcome.ok
    assert outcome.sent == 41
    # Each of 20 has a request where a client does not learn.
    assert 1 <= outcome.clients[0].gaps_asked <= 10


async def test_copies_are_dropped(url: str, rooms: Rooms) -> None:
    rooms.deliver = lambda sequence, socket: [sequence, max(1, sequence - 2), sequence]
    outcome = await load(url)
    assert outcome.ok
    assert sum(each.duplicates_dropped for each in outcome.clients) == 3 * MESSAGES * 2


async def test_disorder_is_put_in_order(url: str, rooms: Rooms) -> None:
    def deliver(sequence: int, socket: int) -> Iterable[int]:
        return [] if sequence % 2 else [sequence, sequence - 1]

    rooms.deliver = deliver
    outcome = await load(url)
    assert outcome.ok
    assert outcome.delivered == 3 * MESSAGES


async def test_after_a_cut_a_client_takes_up_where_it_was(url: str, rooms: Rooms) -> None:
    rooms.cuts = {5}
    outcome = await load(url)
    assert outcome.ok
    assert outcome.sent == len(rooms.messages["red"]) == MESSAGES
    assert outcome.closes == {1006: 3}
    assert [len(each.recoveries) for each in outcome.clients] == [1, 1, 1]
    assert len(outcome.other_latencies) >= 3
    assert [path.partition("&")[2] for path in rooms.paths] == [""] * 3 + ["after=4"] * 3


async def test_what_the_server_did_not_take_is_sent_again(url: str, rooms: Rooms) -> None:
    rooms.cuts_before = {5}
    outcome = await load(url)
    assert outcome.ok
    assert outcome.sent == len(rooms.messages["red"]) == MESSAGES
    assert sum(each.resent for each in outcome.clients) >= 1


async def test_clients_reconnect_after_a_close_code_that_is_not_final(
    url: str, rooms: Rooms
) -> None:
    rooms.closes = {4: 1012}
    outcome = await load(url)
    assert outcome.ok
    assert outcome.closes == {1012: 3}


async def test_a_socket_without_a_frame_is_no_connection_lost(url: str, rooms: Rooms) -> None:
    rooms.mute = 2
    outcome = await load(url)
    assert outcome.ok
    assert outcome.failed_connects_detail == outcome.failed_connects == {"closed with 1006": 2}
    assert outcome.early_closes == {1006: 2}
    assert not outcome.closes


async def test_failed_connects_are_counted_by_status(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms.answers = iter([(503, None), (502, None), (503, None)])
    waited = recorded_delays(monkeypatch)
    outcome = await load(url)
    assert outcome.ok
    assert outcome.failed_connects == {"503": 2, "502": 1}
    assert outcome.failed_connects_detail == {"answered 503": 2, "answered 502": 1}
    assert [retry_after for _, retry_after in waited] == [None] * 3


@pytest.mark.parametrize(
    ("status", "text", "seconds"),
    [
        (503, "7", 7.0),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (503, "-1", None),
        (429, "7", None),
    ],
)
async def test_a_server_that_is_unavailable_says_how_long_to_wait(
    url: str,
    rooms: Rooms,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    text: str,
    seconds: float | None,
) -> None:
    # The second attempt is refused without a word on when to come again.
    rooms.answers = iter([(status, text), (502, None)])
    waited = recorded_delays(monkeypatch)
    assert (await load(url, clients=1)).ok
    assert waited == [(0, seconds), (1, None)]


def test_the_wait_before_an_attempt_is_anything_up_to_a_limit_that_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    drawn: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        drawn.append((least, most))
        return most

    monkeypatch.setattr("random.uniform", uniform)
    assert [client.retry_delay(failures, None) for failures in (0, 1, 2, 5, 6, 5000)] == [
        *(0.5, 1, 2, 16, 20, 20)
    ]
    # As long as the server asks for, and up to as much again.
    assert client.retry_delay(0, 7) == client.retry_delay(3, 7) == 14
    assert client.retry_delay(1, 0) == 1
    assert {least for least, _ in drawn} == {0}


async def test_a_login_without_an_answer_is_asked_for_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in, calls = ScriptedAdapter.log_in, iter([True, False])

    def sometimes(self: ScriptedAdapter, base: str, username: str, password: str) -> Login:
        if next(calls):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no")
        return log_in(self, base, username, password)

    monkeypatch.setattr(ScriptedAdapter, "log_in", sometimes)
    outcome = await load(url, clients=1)
    assert outcome.ok
    assert outcome.failed_connects == {"no login": 1}
    assert outcome.failed_connects_detail == {"login: connection refused": 1}


@pytest.fixture
def within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which little time passes, however long others keep the machine busy."""
    began, looks = time.monotonic(), count()
    for module in (client, wire):
        monkeypatch.setattr(module, "monotonic", lambda: began + next(looks) / 10_000)


@pytest.mark.usefixtures("within_a_second")
async def test_first_connects_are_no_reconnects(url: str, rooms: Rooms) -> None:
    outcome = await load(url)
    assert (outcome.reconnect_attempts_per_second, outcome.reconnected_per_second) == (0, 0)
    rooms.cuts = {MESSAGES + 5}
    rooms.answers = chain(repeat((101, None), 3), [(503, None)] * 2)
    outcome = await load(url)
    assert outcome.ok
    assert (outcome.reconnect_attempts_per_second, outcome.reconnected_per_second) == (5, 3)


async def test_the_connect_rate_holds_for_reconnects_unless_they_have_their_own(
    url: str, rooms: Rooms
) -> None:
    rooms.cuts = {5, MESSAGES + 5}
    outcome = await load(url, connect_rate=10)
    assert sum(each.throttled for each in outcome.clients) >= 2
    outcome = await load(url, connect_rate=10, reconnect_rate=math.inf)
    assert outcome.closes == {1006: 3}
    assert sum(each.throttled for each in outcome.clients) == 0


class Clock:
    """The monotonic clock, which can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (client, wire):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.mark.parametrize("first", ["position", "page"])
async def test_who_has_not_caught_up_has_not_recovered(
    url: str, rooms: Rooms, clock: Clock, first: str
) -> None:
    async def later(connection: ServerConnection, known: int) -> None:
        if first == "position":
            await tell(connection, "position", len(rooms.messages["red"]))
        else:
            await tell(connection, "history", [[], known, None])
        # Answered when all that it was told has been heard.
        await (await connection.ping())
        clock.ahead += 100

    rooms.before_history = later
    rooms.tells_position = False
    if first == "position":
        # Only the server knows what was missed.
        rooms.closes = {5: 1012}
    else:
        # Only another client does.
        rooms.closes_one = {(1, 5): 1012}
    outcome = await load(url, clients=1 if first == "position" else 2)
    assert outcome.ok
    [recovery] = outcome.recoveries
    assert (recovery.code, recovery.complete) == (1012, True)
    assert 100 <= recovery.seconds < 110
    assert outcome.recovery_by_code.keys() == {1012}


async def test_a_recovery_begins_with_the_closing_frame(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    # When that comes, and when the connection is gone.
    monkeypatch.setattr(wire, "monotonic", lambda: time.monotonic() - 50)
    rooms.closes = {5: 1012}
    rooms.cuts_back = 1
    outcome = await load(url, clients=1)
    assert [recovery.code for recovery in outcome.recoveries] == [1012, 1006]
    closed, cut = (recovery.seconds for recovery in outcome.recoveries)
    assert 50 <= closed < 60
    assert cut < 10


async def test_a_loss_before_it_has_caught_up_prolongs_the_recovery(
    url: str, rooms: Rooms, clock: Clock
) -> None:
    cut = iter([True, False])

    async def later(connection: ServerConnection, known: int) -> None:
        await tell(connection, "other", None)
        await (await connection.ping())
        clock.ahead += 100
        if next(cut):
            connection.transport.abort()

    rooms.before_history = later
    rooms.closes = {5: 1012}
    outcome = await load(url, clients=1)
    assert outcome.ok
    assert outcome.closes == {1012: 1, 1006: 1}
    [recovery] = outcome.clients[0].recoveries
    assert recovery.code == 1012
    assert 200 <= recovery.seconds < 210


async def test_who_has_not_recovered_at_the_end_counts_until_then(url: str, rooms: Rooms) -> None:
    end, times = asyncio.Event(), list[float]()

    def answers() -> Iterator[tuple[int, str | None]]:
        yield from repeat((101, None), 3)
        times.append(time.monotonic())
        yield from repeat((503, None), 15)
        times.append(time.monotonic())
        end.set()
        yield from repeat((503, None))

    rooms.cuts = {5}
    rooms.answers = answers()
    async with asyncio.timeout(20):
        outcome = await run_load(plan(url), end=end)
    assert not outcome.ok
    assert [recovery.complete for recovery in outcome.recoveries] == [False] * 3
    assert outcome.recovery is not None
    first_refused, last_refused = times
    assert outcome.recovery.p50 >= (last_refused - first_refused) * 1000
    assert "3 clients not recovered at the end" in render_text(outcome)


async def test_everybody_is_waited_for_who_misses_nothing(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "retry_delay", lambda failures, retry_after: 0.2)
    rooms.closes_after = {MESSAGES: 1012}
    outcome = await load(url)
    assert outcome.ok
    assert [(recovery.code, recovery.complete) for recovery in outcome.recoveries] == [
        (1012, True)
    ] * 3


async def test_the_timeline_has_what_happened_each_second(url: str, rooms: Rooms) -> None:
    rooms.cuts = {5}
    rooms.worker = lambda socket: f"w{socket // 3}"
    outcome = await load(url)
    content = timeline_as_json(outcome)
    assert content["clients"] == 3
    datetime.fromisoformat(str(content["began_at"]))
    assert outcome.timeline[-1].sockets == {"w0": 0, "w1": 3}
    for name, total in (("connect_attempts", 6), ("reconnect_attempts", 3), ("opened", 6)):
        assert sum(getattr(second, name) for second in outcome.timeline) == total
    assert sum((Counter(second.closes) for second in outcome.timeline), Counter()) == {1006: 3}


async def test_a_worker_that_is_named_late_had_the_socket_all_the_time(
    url: str, rooms: Rooms
) -> None:
    async def late(connection: ServerConnection, known: int) -> None:
        await tell(connection, "other", None)
        await (await connection.ping())

    rooms.before_history = late
    rooms.cuts = {5}
    rooms.worker = lambda socket: "w"
    outcome = await load(url)
    assert {worker for second in outcome.timeline for worker in second.sockets} == {"w"}
    rooms.worker = lambda socket: None
    outcome = await load(url)
    assert outcome.timeline[-1].sockets == {"unknown": 3}


@pytest.mark.usefixtures("within_a_second")
@pytest.mark.parametrize(
    ("limits", "breach"),
    [
        ({"codes": {1012}}, None),
        ({"codes": {1001, 1012}}, None),
        ({"codes": {1001}}, "unexpected close codes: 3 with 1012; expected: 1001"),
        ({"recovery_p99": 10}, None),
        ({"recovery_p99": 0.000_001}, " s (p99); allowed: 1e-06 s"),
        ({"reconnect_rate": 3}, None),
        ({"reconnect_rate": 2}, "3 reconnect attempts within one second; allowed: 2"),
    ],
)
async def test_a_breached_limit_is_named(
    url: str, rooms: Rooms, limits: dict[str, Any], breach: str | None
) -> None:
    rooms.closes = {4: 1012}
    outcome = await load(url, limits=Limits(**limits))
    assert outcome.delivery_ok
    assert outcome.ok is (breach is None)
    assert len(outcome.breaches) == (breach is not None)
    assert (breach or "Proved.") in render_text(outcome)
    assert as_json(outcome)["breaches"] == list(outcome.breaches)


async def test_a_connection_that_ends_before_its_first_frame_was_open(
    url: str, rooms: Rooms
) -> None:
    rooms.mute = 2
    outcome = await load(url, limits=Limits(codes=frozenset({1012})))
    assert not outcome.ok
    assert "unexpected close codes: 2 with 1006; expected: 1012" in outcome.breaches[0]


async def test_clients_reconnect_by_another_url(rooms: Rooms, url: str) -> None:
    async with Rooms().serving() as gone:
        pass
    outcome = await load(url, urls=[gone, url])
    assert outcome.ok
    assert outcome.failed_connects_detail["connection refused"] >= 1


async def test_every_url_has_clients_of_every_room(rooms: Rooms, url: str) -> None:
    other = Rooms()
    async with other.serving() as other_url:
        outcome = await load_until(
            "4 of 4 connected, 12 sent, 12 delivered, 0 outstanding at 0 clients,"
            " 6 received by no client",
            url,
            urls=[url, other_url],
            rooms=["red", "blue"],
            clients=4,
        )
    # The two know nothing of each other's messages, which does not stay hidden.
    assert not outcome.ok
    for each in (rooms, other):
        assert set(each.messages) == {"red", "blue"}


async def test_a_message_stored_twice_is_named(url: str, rooms: Rooms) -> None:
    rooms.stored_twice = {5}
    outcome = await load(url)
    assert not outcome.ok
    [(name, sequences)] = outcome.stored_twice.items()
    assert rooms.messages["red"].count(name) == 2
    assert [rooms.messages["red"][sequence - 1] for sequence in sequences] == [name] * 2
    assert f"message {name}: stored 2 times" in render_text(outcome)


async def test_a_number_that_no_history_has_is_lost(url: str, rooms: Rooms) -> None:
    rooms.holes = {4}
    rooms.deliver = lambda sequence, socket: [] if sequence == 4 and socket else [sequence]
    outcome = await load_until(
        "2 of 2 connected, 12 sent, 23 delivered, 1 outstanding at 1 clients,"
        " 0 received by no client",
        url,
        clients=2,
    )
    assert not outcome.ok
    assert sum(each.lost == (4,) for each in outcome.clients) == 1
    # What came after it was delivered all the same.
    assert {each.last for each in outcome.clients} == {MESSAGES}


async def test_a_message_that_is_swallowed_is_named(url: str, rooms: Rooms) -> None:
    rooms.swallows = {3}
    outcome = await load_until(ONE_SWALLOWED, url)
    assert not outcome.ok
    assert len(outcome.undelivered) == 1
    [(name, sender)] = outcome.undelivered.items()
    assert name not in rooms.messages["red"]
    assert f"message {name} of {sender}: received by no client" in render_text(outcome)


async def test_clients_that_receive_different_messages_are_named(url: str, rooms: Rooms) -> None:
    rooms.lies = {(1, 6): "something else"}
    outcome = await load(url)
    assert not outcome.ok
    assert [each.conflicts for each in outcome.clients].count((6,)) >= 1
    assert {each.conflicts for each in outcome.clients} <= {(), (6,)}


async def test_a_refused_message_is_sent_again_after_the_pause(url: str, rooms: Rooms) -> None:
    rooms.refuses[3] = 2
    outcome = await load(url)
    assert outcome.ok
    assert outcome.rejected_frames == {"flood": 2}


async def test_a_final_close_code_ends_a_client_at_once(url: str, rooms: Rooms) -> None:
    rooms.locked = True
    # Longer than `load` allows: nobody waits for it.
    outcome = await load(url, clients=1, grace=1000)
    assert not outcome.ok
    assert outcome.clients[0].failure == "closed with 4003: no such room"
    assert len(rooms.paths) == 1
    assert outcome.sent == 0


async def test_a_wrong_password_is_said_without_it(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def log_in(self: ScriptedAdapter, base: str, username: str, password: str) -> Login:
        asked.append(username)
        raise LoginRefused("the password is wrong")

    monkeypatch.setattr(ScriptedAdapter, "log_in", log_in)
    # All three are the same user.
    outcome = await load(url, users={"alice": "a-wrong-password"})
    assert not outcome.ok
    assert rooms.paths == []
    assert asked == ["alice"]
    text = render_text(outcome)
    assert "login of alice refused: the password is wrong" in text
    assert "a-wrong-password" not in text + json.dumps(as_json(outcome))


async def test_no_secret_is_logged_or_reported(
    url: str, rooms: Rooms, caplog: pytest.LogCaptureFixture
) -> None:
    # The scripted server logs what it is sent.
    caplog.set_level(logging.INFO, "websockets.server")
    caplog.set_level(logging.DEBUG)
    rooms.cuts = {5}
    wanted = plan(url)
    outcome = await run_load(wanted)
    written = caplog.text + render_text(outcome) + json.dumps(as_json(outcome)) + repr(wanted)
    assert TOKEN in rooms.paths[0]
    for secret in (TOKEN, PASSWORD):
        assert secret not in written


async def test_stopping_ends_the_sending_and_waits_for_deliveries(url: str, rooms: Rooms) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(run_load(plan(url, duration=1000), stop=stop))
    async with asyncio.timeout(20), rooms.stored:
        await rooms.stored.wait_for(lambda: len(rooms.messages.get("red", ())) >= 5)
    stop.set()
    async with asyncio.timeout(20):
        outcome = await running
    assert outcome.ok
    assert outcome.sent == len(rooms.messages["red"])


async def test_the_grace_period_can_be_ended(url: str, rooms: Rooms) -> None:
    rooms.swallows = {3}
    stop, end = asyncio.Event(), asyncio.Event()
    # Longer than anybody waits for a test.
    running = asyncio.create_task(run_load(plan(url, grace=1000), stop=stop, end=end))
    async with asyncio.timeout(20), rooms.stored:
        await rooms.stored.wait_for(lambda: len(rooms.messages.get("red", ())) >= MESSAGES - 1)
    stop.set()
    end.set()
    async with asyncio.timeout(20):
        outcome = await running
    assert len(outcome.undelivered) == 1


async def test_without_a_duration_clients_connect_and_send_nothing(url: str, rooms: Rooms) -> None:
    outcome = await load(url, duration=0)
    assert (outcome.ok, outcome.sent) == (False, 0)
    assert outcome.seconds < 1
    assert [each.first for each in outcome.clients] == [0, 0, 0]
    assert rooms.messages == {"red": []}
    assert "No message was sent: --duration is 0" in render_text(outcome)


async def test_stopped_before_anybody_joined_proves_nothing(url: str) -> None:
    stop = asyncio.Event()
    stop.set()
    outcome = await run_load(plan(url), stop=stop)
    assert not outcome.ok
    assert outcome.sent == 0


async def test_clients_that_never_join_are_named(rooms: Rooms) -> None:
    async with rooms.serving() as gone:
        pass
    outcome = await load(gone, grace=0.2)
    assert not outcome.ok
    text = render_text(outcome)
    assert "client-1 (alice in red): never joined" in text
    assert "connection refused" in text


async def test_the_state_is_reported_again_and_again(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms.swallows = {MESSAGES}
    wanted = f"status: {ONE_SWALLOWED}"
    recorder = Recorder(wanted)
    async with asyncio.timeout(20):
        await run_load(plan(url), progress=recorder, end=recorder.said[wanted])
    times = [datetime.fromisoformat(each.split()[0]) for each in recorder.phases]
    assert times == sorted(times)
    states = [each.partition(" status: ")[2] for each in recorder.phases if " status: " in each]
    assert states[-1] == ONE_SWALLOWED


async def test_the_state_is_reported_when_clients_are_away_and_when_all_are_back(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "STATUS_INTERVAL", 1000)
    monkeypatch.setattr(run, "CHECK_INTERVAL", 0.001)
    rooms.cuts = {5}
    # It is not over before both are said.
    rooms.swallows = {MESSAGES}
    away, back = " status: ", " status: 3 of 3 connected"
    recorder = Recorder(away, back)

    async def missed(connection: ServerConnection, known: int) -> None:
        async with asyncio.timeout(20):
            await recorder.said[away].wait()

    rooms.before_history = missed
    async with asyncio.timeout(20):
        await run_load(plan(url), progress=recorder, end=recorder.said[back])
    states = [each.partition(" status: ")[2] for each in recorder.phases if " status: " in each]
    assert [state.startswith("3 of 3 connected") for state in states] == [False, True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"urls": []}, "at least one URL"),
        ({"urls": ["ftp://a"]}, "'ftp://a' is not a base URL"),
        ({"rooms": []}, "at least one URL"),
        ({"users": {}}, "at least one URL"),
        ({"clients": 0}, "0 clients for 1 rooms"),
        ({"rate": 0}, "rate is 0"),
        ({"duration": float("inf")}, "duration is inf"),
        ({"grace": -1}, "grace is -1"),
        ({"duration": -1}, "duration is -1"),
        ({"connect_rate": float("nan")}, "connect_rate is nan"),
        ({"reconnect_rate": 0}, "reconnect_rate is 0"),
        (
            {"connect_rate": 50, "limits": Limits(reconnect_rate=50)},
            "limit of 50 cannot be exceeded",
        ),
        ({"reconnect_rate": 5, "limits": Limits(reconnect_rate=50)}, "at most 5 times per second"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan("http://a", **changes)
