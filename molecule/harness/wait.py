import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

INTERVAL = 0.2


def eventually(
    ask: Callable[[], Answer], fits: Callable[[Answer], bool], what: str, seconds: float = 30
) -> Answer:
    """Ask until the answer fits and return it; when the time is up, fail with the last one."""
    deadline = time.monotonic() + seconds
    while not fits(answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; last: {answer}"
        time.sleep(INTERVAL)
    return answer
