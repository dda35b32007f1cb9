"""Clients that talk, against an application that loses, copies, reorders and cuts."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any

import pytest

from channels_kit.probe import UsageError
from channels_kit.probe.adapter import Login, LoginRefused
from channels_kit.probe.progress import Progress
from channels_kit.probe.talk import Outcome, Plan, client, conversation, talk
from channels_kit.probe.talk.report import as_json, render_text

from .scripted_room import PASSWORD, TOKEN, Rooms, ScriptedAdapter

MESSAGES = 12


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKOFF_FIRST", "GAP_PATIENCE", "RESEND_INTERVAL"):
        monkeypatch.setattr(client, name, 0.01)
    monkeypatch.setattr(client, "GAP_ANSWER", 0.2)
    monkeypatch.setattr(conversation, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(conversation, "QUIET", 0.05)


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
        "settle": 10,
        "connect_rate": 1000,
        **changes,
    }
    return Plan(**values)


async def hold(url: str, **changes: Any) -> Outcome:
    async with asyncio.timeout(20):
        return await talk(plan(url, **changes))


async def test_everything_arrives(url: str, rooms: Rooms) -> None:
    outcome = await hold(url, rooms=["red", "blue"], clients=4)
    assert outcome.ok
    assert (outcome.sent, outcome.delivered, outcome.expected) == (MESSAGES, 24, 24)
    assert [len(rooms.messages[room]) for room in ("red", "blue")] == [6, 6]
    assert len(outcome.connected_latencies) == 24
    assert not outcome.other_latencies
    assert not outcome.closes
    assert [each.room for each in outcome.clients] == ["red", "blue", "red", "blue"]


async def test_what_was_said_before_is_not_expected(url: str, rooms: Rooms) -> None:
    rooms.messages["red"] = ["an", "older", "talk"]
    outcome = await hold(url)
    assert outcome.ok
    assert [(each.first, each.last) for each in outcome.clients] == [(3, 15)] * 3


async def test_what_is_lost_on_the_way_is_asked_for(url: str, rooms: Rooms) -> None:
    def deliver(sequence: int, socket: int) -> Iterable[int]:
        return [] if socket == 1 and sequence in (2, 3, 4, 5, 9) else [sequence]

    rooms.deliver = deliver
    rooms.tells_position = False
    # Slow enough for each gap to be seen as a whole, and filled before the next.
    outcome = await hold(url, rate=MESSAGES, duration=1)
    assert outcome.ok
    # Of four numbers it asks for as many at once as the adapter allows.
    assert rooms.gaps == [(2, 4), (5, 5), (9, 9)]
    assert sum(each.gaps_asked for each in outcome.clients) == 3


async def test_the_last_message_is_missed_by_the_position_alone(url: str, rooms: Rooms) -> None:
    rooms.deliver = lambda sequence, socket: [] if sequence == MESSAGES else [sequence]
    outcome = await hold(url)
    assert outcome.ok
    assert all(each.gaps_asked for each in outcome.clients)


async def test_copies_are_dropped(url: str, rooms: Rooms) -> None:
    rooms.deliver = lambda sequence, socket: [sequence, max(1, sequence - 2), sequence]
    outcome = await hold(url)
    assert outcome.ok
    assert sum(each.dropped for each in outcome.clients) == 3 * MESSAGES * 2


async def test_disorder_is_put_in_order(url: str, rooms: Rooms) -> None:
    def deliver(sequence: int, socket: int) -> Iterable[int]:
        return [] if sequence % 2 else [sequence, sequence - 1]

    rooms.deliver = deliver
    outcome = await hold(url)
    assert outcome.ok
    assert outcome.delivered == 3 * MESSAGES


async def test_after_a_cut_a_client_takes_up_where_it_was(url: str, rooms: Rooms) -> None:
    rooms.cuts = {5}
    outcome = await hold(url)
    assert outcome.ok
    assert outcome.sent == len(rooms.messages["red"]) == MESSAGES
    assert outcome.closes == {1006: 3}
    assert [len(each.away) for each in outcome.clients] == [1, 1, 1]
    assert len(outcome.other_latencies) >= 3
    assert [path.partition("&")[2] for path in rooms.paths] == [""] * 3 + ["after=4"] * 3


async def test_what_the_server_did_not_take_is_sent_again(url: str, rooms: Rooms) -> None:
    rooms.cuts_before = {5}
    outcome = await hold(url)
    assert outcome.ok
    assert outcome.sent == len(rooms.messages["red"]) == MESSAGES
    assert sum(each.sent_again for each in outcome.clients) >= 1


async def test_a_close_code_that_is_not_final_is_come_back_from(url: str, rooms: Rooms) -> None:
    rooms.closes = {4: 1012}
    outcome = await hold(url)
    assert outcome.ok
    assert outcome.closes == {1012: 3}


async def test_a_socket_that_says_nothing_is_no_connection_lost(url: str, rooms: Rooms) -> None:
    rooms.mute = 2
    outcome = await hold(url)
    assert outcome.ok
    assert outcome.failed_attempts == {"closed with 1006": 2}
    assert not outcome.closes


async def test_clients_come_back_by_another_url(rooms: Rooms, url: str) -> None:
    async with Rooms().serving() as gone:
        pass
    outcome = await hold(url, urls=[gone, url])
    assert outcome.ok
    assert outcome.failed_attempts["connection refused"] >= 1


async def test_every_url_has_clients_of_every_room(rooms: Rooms, url: str) -> None:
    other = Rooms()
    async with other.serving() as other_url:
        outcome = await hold(
            url, urls=[url, other_url], rooms=["red", "blue"], clients=4, settle=0.2
        )
    # The two know nothing of each other's messages, which does not stay hidden.
    assert not outcome.ok
    for each in (rooms, other):
        assert set(each.messages) == {"red", "blue"}


async def test_a_message_stored_twice_is_named(url: str, rooms: Rooms) -> None:
    rooms.stored_twice = {5}
    outcome = await hold(url)
    assert not outcome.ok
    [(name, sequences)] = outcome.stored_twice.items()
    assert rooms.messages["red"].count(name) == 2
    assert [rooms.messages["red"][sequence - 1] for sequence in sequences] == [name] * 2
    assert f"message {name}: stored 2 times" in render_text(outcome)


async def test_a_number_that_no_history_has_is_lost(url: str, rooms: Rooms) -> None:
    rooms.holes = {4}
    rooms.deliver = lambda sequence, socket: [] if sequence == 4 and socket else [sequence]
    outcome = await hold(url, settle=0.5, clients=2)
    assert not outcome.ok
    assert sum(each.lost == (4,) for each in outcome.clients) == 1
    # What came after it was delivered all the same.
    assert {each.last for each in outcome.clients} == {MESSAGES}


async def test_a_message_that_is_swallowed_is_named(url: str, rooms: Rooms) -> None:
    rooms.swallows = {3}
    outcome = await hold(url, settle=0.3)
    assert not outcome.ok
    assert len(outcome.never_stored) == 1
    [(name, sender)] = outcome.never_stored.items()
    assert name not in rooms.messages["red"]
    assert f"message {name} of {sender}: nobody was delivered it" in render_text(outcome)


async def test_clients_that_are_told_different_things_are_named(url: str, rooms: Rooms) -> None:
    rooms.lies = {(1, 6): "something else"}
    outcome = await hold(url)
    assert not outcome.ok
    assert [each.disagreements for each in outcome.clients].count((6,)) >= 1
    assert {each.disagreements for each in outcome.clients} <= {(), (6,)}


async def test_a_refused_message_is_sent_again_after_the_pause(url: str, rooms: Rooms) -> None:
    rooms.refuses[3] = 2
    outcome = await hold(url)
    assert outcome.ok
    assert outcome.refusals == {"flood": 2}


async def test_a_final_close_code_ends_a_client_at_once(url: str, rooms: Rooms) -> None:
    rooms.locked = True
    # Longer than `hold` allows: nobody waits for it.
    outcome = await hold(url, clients=1, settle=1000)
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
    outcome = await hold(url, users={"alice": "a-wrong-password"})
    assert not outcome.ok
    assert rooms.paths == []
    assert asked == ["alice"]
    text = render_text(outcome)
    assert "alice was not let in: the password is wrong" in text
    assert "a-wrong-password" not in text + json.dumps(as_json(outcome))


async def test_no_secret_is_logged_or_reported(
    url: str, rooms: Rooms, caplog: pytest.LogCaptureFixture
) -> None:
    # The scripted server logs what it is sent.
    caplog.set_level(logging.INFO, "websockets.server")
    caplog.set_level(logging.DEBUG)
    rooms.cuts = {5}
    wanted = plan(url)
    outcome = await talk(wanted)
    written = caplog.text + render_text(outcome) + json.dumps(as_json(outcome)) + repr(wanted)
    assert TOKEN in rooms.paths[0]
    for secret in (TOKEN, PASSWORD):
        assert secret not in written


async def test_stopping_ends_the_sending_and_settles(url: str, rooms: Rooms) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(talk(plan(url, duration=1000), stop=stop))
    async with asyncio.timeout(20), rooms.stored:
        await rooms.stored.wait_for(lambda: len(rooms.messages.get("red", ())) >= 5)
    stop.set()
    async with asyncio.timeout(20):
        outcome = await running
    assert outcome.ok
    assert outcome.sent == len(rooms.messages["red"])


async def test_stopped_before_anybody_came_proves_nothing(url: str) -> None:
    stop = asyncio.Event()
    stop.set()
    outcome = await talk(plan(url), stop=stop)
    assert not outcome.ok
    assert outcome.sent == 0


async def test_clients_that_never_come_are_named(rooms: Rooms) -> None:
    async with rooms.serving() as gone:
        pass
    outcome = await hold(gone, settle=0.2)
    assert not outcome.ok
    text = render_text(outcome)
    assert "client-1 (alice in red): never came into the room" in text
    assert "connection refused" in text


class Recorder(Progress):
    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)


async def test_the_state_is_told_again_and_again(
    url: str, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "STATUS_INTERVAL", 0.01)
    rooms.swallows = {MESSAGES}
    recorder = Recorder()
    await talk(plan(url, settle=0.2), progress=recorder)
    times = [datetime.fromisoformat(each.split()[0]) for each in recorder.phases]
    assert times == sorted(times)
    states = [each.partition(" status: ")[2] for each in recorder.phases if " status: " in each]
    assert states[-1] == (
        "3 of 3 connected, 12 sent, 33 delivered, 0 behind at 0 clients, 1 not seen by anybody"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"urls": []}, "at least one of each"),
        ({"urls": ["ftp://a"]}, "'ftp://a' is not a base URL"),
        ({"rooms": []}, "at least one of each"),
        ({"users": {}}, "at least one of each"),
        ({"clients": 0}, "0 clients for 1 rooms"),
        ({"rate": 0}, "rate is 0"),
        ({"duration": float("inf")}, "duration is inf"),
        ({"settle": -1}, "settle is -1"),
        ({"connect_rate": float("nan")}, "connect_rate is nan"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan("http://a", **changes)
