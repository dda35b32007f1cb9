"""When a client asks for what it lacks; and that both clients do so by the numbers of the page."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from channels_kit.load import gaps
from channels_kit.load.gaps import ANSWER_TIMEOUT, DELAY_FIRST, DELAY_MOST, GapRequests

ROOT = Path(__file__).parents[2]


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Socket:
    """One socket's requests, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        # When each request was sent.
        self.asked: list[float] = []
        # What a request returns.
        self.goes_on: bool | None = False
        self.requests = GapRequests(self.ask, self.call_later)

    def ask(self) -> bool | None:
        if self.goes_on is not None:
            self.asked.append(self.now)
        return self.goes_on

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [each for each in self.timers if not each.cancelled and each.at <= end]:
            timer = min(due, key=lambda each: each.at)
            self.timers.remove(timer)
            self.now = timer.at
            timer.call()
        self.now = end

    def gap(self) -> None:
        self.requests.took(gap=True, progress=False)


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> Socket:
    """A socket whose every wait is as long as it can be."""
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    return Socket()


def limit(times: int) -> float:
    return min(DELAY_MOST, DELAY_FIRST * float(2**times))


def test_a_gap_is_asked_for_after_a_while(socket: Socket) -> None:
    socket.gap()
    socket.wait(DELAY_FIRST / 2)
    socket.gap()
    socket.wait(DELAY_FIRST / 2)
    assert socket.asked == [DELAY_FIRST]


def test_a_message_that_comes_late_takes_the_request_back(socket: Socket) -> None:
    socket.gap()
    socket.requests.took(gap=False, progress=True)
    socket.wait(1000)
    assert socket.asked == []


def test_nothing_is_asked_for_while_messages_come(socket: Socket) -> None:
    socket.gap()
    for _ in range(20):
        socket.wait(DELAY_FIRST * 0.9)
        socket.requests.took(gap=True, progress=True)
    assert socket.asked == []


def test_without_an_answer_it_is_asked_for_again_later_each_time(socket: Socket) -> None:
    socket.gap()
    socket.wait(1000)
    between = [
        later - sooner for sooner, later in zip(socket.asked, socket.asked[1:], strict=False)
    ]
    assert between == [ANSWER_TIMEOUT + limit(times) for times in range(1, len(between) + 1)]
    assert between[-1] == ANSWER_TIMEOUT + DELAY_MOST


def test_after_an_answer_that_does_not_help_it_is_asked_for_again_later_each_time(
    socket: Socket,
) -> None:
    socket.gap()
    socket.wait(limit(0))
    for times in range(1, 8):
        socket.requests.took(gap=True, progress=False, answer=True)
        socket.wait(limit(times) * 0.99)
        assert len(socket.asked) == times
        socket.wait(limit(times) * 0.01)
        assert len(socket.asked) == times + 1


def test_never_two_requests_at_once(socket: Socket) -> None:
    socket.gap()
    socket.wait(limit(0))
    for gap in (False, True, True):
        socket.requests.took(gap=gap, progress=True)
        socket.wait(ANSWER_TIMEOUT / 4)
    assert len(socket.asked) == 1


def test_a_request_that_was_of_use_makes_the_next_wait_short(socket: Socket) -> None:
    socket.gap()
    socket.wait(limit(0))
    socket.requests.took(gap=False, progress=True, answer=True)
    socket.requests.took(gap=False, progress=True)
    socket.gap()
    socket.wait(limit(0))
    assert len(socket.asked) == 2


def test_a_request_that_was_needless_does_not(socket: Socket) -> None:
    for times in range(8):
        socket.gap()
        socket.wait(limit(times) * 0.99)
        assert len(socket.asked) == times
        socket.wait(limit(times) * 0.01)
        socket.requests.took(gap=False, progress=True, answer=True)
        # The same messages come by themselves, only late.
        socket.requests.copied()
        socket.requests.took(gap=False, progress=True)


def test_the_next_piece_of_a_long_gap_is_not_waited_for(socket: Socket) -> None:
    socket.goes_on = True
    socket.gap()
    socket.wait(limit(0))
    socket.requests.took(gap=True, progress=True, answer=True)
    assert len(socket.asked) == 2
    socket.requests.took(gap=True, progress=False, answer=True)
    assert len(socket.asked) == 2


def test_a_gap_that_has_gone_is_not_asked_for(socket: Socket) -> None:
    socket.gap()
    socket.goes_on = None
    socket.wait(limit(0))
    socket.goes_on = False
    socket.gap()
    socket.wait(limit(0))
    assert socket.asked == [2 * limit(0)]


def test_nothing_outlives_its_socket(socket: Socket) -> None:
    socket.gap()
    socket.wait(limit(0) + ANSWER_TIMEOUT + limit(1))
    socket.requests.stop()
    socket.wait(1000)
    assert len(socket.asked) == 2
    socket.gap()
    socket.wait(limit(0))
    assert len(socket.asked) == 3


def test_clients_do_not_ask_in_the_same_moment() -> None:
    drawn = {gaps.delay(2) for _ in range(100)}
    assert len(drawn) == 100
    assert limit(2) / 2 <= min(drawn) < max(drawn) <= limit(2)
    assert gaps.delay(5000) <= DELAY_MOST


def test_the_numbers_are_those_of_the_page() -> None:
    script = (ROOT / "app" / "chat" / "static" / "chat" / "gaps.js").read_text()
    page = (ROOT / "docs" / "protocol.md").read_text()
    for name, seconds in vars(gaps).items():
        if not name.isupper():
            continue
        [milliseconds] = re.findall(rf"^export const GAP_{name} = ([\d_]+);$", script, re.MULTILINE)
        assert float(milliseconds.replace("_", "")) == seconds * 1000, name
        assert re.search(rf"^\| `{name}` \| {seconds:g} s \|", page, re.MULTILINE), name
    assert script.count("export const GAP_") == 3
