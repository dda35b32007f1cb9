"""The highest rate that a system carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fanout.client import Counted

LIMIT = 250.0
"""Milliseconds within which 99 of 100 deliveries have to arrive."""

LEAST_RATE, LEAST_MESSAGES = 2000.0, 4.0
"""Deliveries and messages a second with which a search begins."""

FAR = 10
"""Where p99 is so many times lower than the limit, the next rate is four times as high."""

DOWN = 8
"""A search gives up at the first rate divided by this."""

MOST_STEPS = 20


@dataclass(frozen=True)
class Step:
    """One rate that was tried.

    Attributes:
        rate: deliveries a second.
        cpu: microseconds of the servers' processors a delivery.
        redis_cpu: the same of Redis, a message.
        others: percent of the machine's processors that nobody of the benchmark has used.
        counted: by the client; None: its sockets were lost, for `reason`.
        reason: why there is no count.
    """

    rate: float
    cpu: float
    redis_cpu: float
    others: float
    counted: Counted | None
    reason: str = ""

    @property
    def passes(self) -> bool:
        """Whether nothing was lost, and it was fast enough."""
        return (
            self.counted is not None
            and self.counted.whole
            and self.counted.p99 < LIMIT
            # Otherwise the client was too slow for this rate.
            and self.counted.send_delay < LIMIT
        )


def search(attempt: Callable[[float], Step], start: float, precision: float) -> list[Step]:
    """Try rates until the highest that passes is known; return all, in this order.

    Args:
        attempt: tries deliveries a second.
        start: the first of them.
        precision: the highest rate that passes and the lowest that fails differ by less than this
            factor at the end.
    """
    steps: list[Step] = []
    passed, failed = 0.0, 0.0
    rate = start
    while len(steps) < MOST_STEPS and not (passed and failed and failed / passed < precision):
        step = attempt(rate)
        steps.append(step)
        if step.passes:
            passed = rate
        else:
            failed = rate
        if passed and failed:
            rate = (passed * failed) ** 0.5
        elif failed:
            if failed * DOWN <= start:
                break
            rate = failed / 2
        else:
            far = step.counted is not None and step.counted.p99 * FAR < LIMIT
            rate *= 4 if far else 2
    return steps


def best(steps: list[Step]) -> Step | None:
    """Return the step of the highest rate that passes; None: there is none."""
    return max((step for step in steps if step.passes), key=lambda step: step.rate, default=None)
