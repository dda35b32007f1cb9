import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from chat import gathered
from chat.gathered import Gathered


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What each visit asks; one ends when the loop comes round. Negative numbers fail."""
    visits: list[list[int]] = []

    def without_a_thread(ask: Callable[..., Any]) -> Callable[..., Any]:
        async def visit(asked: Collection[int]) -> Any:
            visits.append(list(asked))
            await asyncio.sleep(0)
            return ask(asked)

        return visit

    monkeypatch.setattr(gathered, "database_sync_to_async", without_a_thread)
    return visits


def squares(asked: Collection[int]) -> dict[int, int]:
    if min(asked) < 0:
        raise ValueError(str(min(asked)))
    return {each: each * each for each in asked if each != 7}


async def test_questions_of_the_same_time_are_one_visit(visits: list[list[int]]) -> None:
    ask = Gathered(squares, -1)
    assert await asyncio.gather(*(ask(each) for each in (1, 2, 2, 7))) == [1, 4, 4, -1]
    assert visits == [[1, 2, 7]]


async def test_an_answer_is_not_older_than_its_question(visits: list[list[int]]) -> None:
    ask = Gathered(squares, -1)
    first = asyncio.create_task(ask(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert visits == [[1]]
    # Under way: the same question is asked again, together with others.
    assert list(await asyncio.gather(ask(1), ask(3), first)) == [1, 9, 1]
    assert visits == [[1], [1, 3]]


async def test_what_is_wrong_with_one_is_nobody_elses(visits: list[list[int]]) -> None:
    ask = Gathered(squares, -1)
    good, bad = await asyncio.gather(ask(2), ask(-2), return_exceptions=True)
    assert good == 4
    assert isinstance(bad, ValueError)
    assert visits == [[2, -2], [2], [-2]]


@pytest.mark.usefixtures("visits")
async def test_one_that_gives_up_takes_the_answer_from_no_other() -> None:
    ask = Gathered(squares, -1)
    leaves, stays = asyncio.create_task(ask(2)), asyncio.create_task(ask(2))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays == 4
    assert leaves.cancelled()


@pytest.mark.usefixtures("visits")
def test_an_event_loop_that_has_ended_leaves_nothing_behind() -> None:
    ask = Gathered(squares, -1)

    async def give_up() -> None:
        asyncio.create_task(ask(1)).cancel()

    asyncio.run(give_up())
    assert asyncio.run(ask(2)) == 4
