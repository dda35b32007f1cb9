"""What is said of sockets and of many latencies, without a socket."""

from random import Random

import pytest

from channels_kit.load.latencies import Latencies
from channels_kit.load.timeline import Timeline, busiest_second
from channels_kit.probe.result import Latency


@pytest.mark.parametrize(
    ("times", "most"),
    [
        ([], 0),
        ([5.0], 1),
        # A second has one end only.
        ([1.0, 2.0], 1),
        ([1.0, 1.999], 2),
        # Not the seconds of a clock: the window slides.
        ([0.9, 1.1, 1.8, 1.85], 4),
        ([3.0, 1.0, 2.5, 1.2, 2.9, 3.1], 4),
    ],
)
def test_the_busiest_second_may_begin_anywhere(times: list[float], most: int) -> None:
    assert busiest_second(times) == most


def test_a_run_second_by_second() -> None:
    timeline = Timeline(100.0)
    for at in (100.0, 100.5):
        timeline.attempt(at, again=False)
        timeline.opened(at + 0.1, "app1", again=False)
    timeline.left(102.2, "app1")
    timeline.closed(102.2, 1012)
    timeline.attempt(102.9, again=True)
    timeline.connect_failed(102.95, "503")
    timeline.attempt(104.1, again=True)
    timeline.opened(104.2, "app2", again=True)
    timeline.left(104.9, "app1")
    timeline.closed(104.9, 1006)
    seconds = timeline.seconds(104.95)
    assert [dict(second.sockets) for second in seconds] == [
        {"app1": 2},
        {"app1": 2},
        {"app1": 1},
        {"app1": 1},
        {"app1": 0, "app2": 1},
    ]
    assert [second.connect_attempts for second in seconds] == [2, 0, 1, 0, 1]
    assert [second.reconnect_attempts for second in seconds] == [0, 0, 1, 0, 1]
    assert [second.opened for second in seconds] == [2, 0, 0, 0, 1]
    assert [dict(second.closes) for second in seconds] == [{}, {}, {1012: 1}, {}, {1006: 1}]
    assert [dict(second.failed_connects) for second in seconds] == [{}, {}, {"503": 1}, {}, {}]
    assert (timeline.reconnect_attempts_per_second, timeline.reconnected_per_second) == (1, 1)


def test_a_run_of_no_time_has_no_second() -> None:
    assert Timeline(1.0).seconds(1.0) == ()


def test_many_latencies_are_summed_up_as_a_list_of_them_is() -> None:
    random = Random(1)
    for count in (1, 2, 3, 99, 100, 101, 1000):
        # What is counted exactly.
        seconds = [round(random.expovariate(10), 4) for _ in range(count)]
        half = count // 2
        both = Latencies(seconds[:half]) | Latencies(seconds[half:])
        assert len(both) == count
        assert both.summary() == Latencies(seconds).summary() == Latency.of(seconds)
    assert Latencies([0.000_26]).summary() == Latency(0.3, 0.3, 0.3)
    assert Latencies().summary() is None
