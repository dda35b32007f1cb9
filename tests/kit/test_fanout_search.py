"""The search of make bench-fanout, and what is told of its result."""

from dataclasses import replace
from typing import Any

import pytest

from fanout.client import Counted, Shape
from fanout.report import MAIN, Result, Run, goals, page, summary
from fanout.search import LIMIT, MOST_STEPS, Step, best, search

WHOLE = Counted(
    messages=10,
    expected=10_000,
    received=10_000,
    twice=0,
    unsent=0,
    closed=0,
    p50=1.0,
    p99=2.0,
    max=3.0,
    seconds=2.0,
    send_delay=0.1,
    client_cpu=0.1,
)


def step(rate: float, counted: Counted | None = WHOLE, cpu: float = 5.0) -> Step:
    return Step(rate, cpu, 1.0, 0.0, counted)


@pytest.mark.parametrize("highest", [700.0, 2500.0, 90_000.0, 1_700_000.0])
@pytest.mark.parametrize("late", [False, True], ids=["far", "near"])
def test_the_highest_rate_is_found(highest: float, late: bool) -> None:
    passing = replace(WHOLE, p99=LIMIT / 2) if late else WHOLE

    steps = search(
        lambda rate: step(rate, passing if rate <= highest else replace(WHOLE, p99=LIMIT)),
        2000.0,
        1.1,
    )

    found = best(steps)
    assert found is not None
    assert highest / 1.1 < found.rate <= highest
    assert len(steps) <= MOST_STEPS


def test_a_search_of_what_never_passes_ends() -> None:
    steps = search(lambda rate: step(rate, None), 2000.0, 1.1)

    assert best(steps) is None
    assert 1 < len(steps) < MOST_STEPS


def test_a_search_of_what_always_passes_ends() -> None:
    assert len(search(step, 2000.0, 1.1)) == MOST_STEPS


@pytest.mark.parametrize(
    "change",
    [
        {"received": 9_999},
        {"twice": 1},
        {"unsent": 1},
        {"closed": 1},
        {"p99": LIMIT},
        {"send_delay": LIMIT},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_not_whole_or_late_does_not_pass(change: dict[str, Any]) -> None:
    assert step(1.0).passes
    assert not step(1.0, replace(WHOLE, **change)).passes


@pytest.fixture
def run() -> Run:
    run = Run("2026-01-01", "a machine", {"channels": "4.3.2"})
    others = Shape(processes=1)
    for system, rate in (("pubsub", 1e4), ("tier1", 5e4), ("tier2", 5e5), ("ws", 2e5)):
        # The second round of two is the better one.
        for factor in (0.9, 1.1):
            quiet = step(5000.0, cpu=11.0)
            run.results.append(
                Result(MAIN, system, quiet, [step(rate * factor, cpu=0.5), step(9e9, None)])
            )
        if system != "pubsub":
            run.results.append(Result(others, system, None, [step(rate)]))
    return run


def test_goals_are_compared_with_the_better_round(run: Run) -> None:
    found = {goal.title: goal for goal in goals(run)}

    def of(*words: str) -> tuple[float, bool]:
        [goal] = [found[title] for title in found if all(word in title for word in words)]
        return round(goal.value, 6), goal.met

    assert of("2 processes", "tier 1", "pubsub") == (5.0, True)
    assert of("2 processes", "tier 2", "pubsub") == (50.0, False)
    assert of("2 processes", "tier 2", "Node") == (2.5, False)
    assert of("1 process:", "tier 2", "Node") == (2.5, True)
    assert of("quiet room: p99") == (2.0, True)
    assert of("CPU", "busy") == (0.5, True)


def test_a_page_keeps_what_is_around_the_tables(run: Run) -> None:
    text = page("before\n<!-- measured -->\nold\n<!-- end -->\nafter\n", run)

    assert text.startswith("before\n<!-- measured -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert summary(run) in text
    assert page(text, run) == text


def test_a_page_without_marks_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="no marks"):
        page("before\n", run)


def test_a_file_says_which_steps_pass(run: Run) -> None:
    first = run.content()["results"][0]

    assert [each["passes"] for each in first["steps"]] == [True, False]
    assert first["shape"] == {
        "rooms": 1,
        "members": 1000,
        "payload": 64,
        "idle": 0,
        "processes": 2,
    }
