"""From readings to figures: a value, and the range in which repetitions found it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

LEAST = 0.001
"""Nothing costs less, in the unit of any figure."""


@dataclass(frozen=True)
class Figure:
    """A measured figure.

    Attributes:
        value: what to calculate with.
        low: the least that was found.
        high: the most.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, repetitions: Sequence[float]) -> Figure:
        """Return the median of repetitions, with the least and the most of them as its range."""
        return cls(median(repetitions), min(repetitions), max(repetitions))

    def usable(self) -> Figure | None:
        """Return it as the preflight accepts it, above zero; None: the reading is noise."""
        return replace(self, low=max(self.low, LEAST)) if self.value >= LEAST else None

    def as_json(self) -> dict[str, float]:
        """Return it with as many digits as mean something."""
        return {
            "value": rounded(self.value),
            "low": rounded(self.low),
            "high": rounded(self.high),
        }

    def times(self, factor: float) -> Figure:
        """Return it in another unit."""
        return Figure(self.value * factor, self.low * factor, self.high * factor)


def rounded(number: float) -> float:
    """Return a number with three significant digits."""
    return float(f"{number:.3g}")


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second number grows with the first: least squares."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def slope_figure(points: Sequence[tuple[float, float]]) -> Figure:
    """Return the slope; its range is that of the slopes with one reading left out."""
    others = [
        slope([point for number, point in enumerate(points) if number != left_out])
        for left_out in range(len(points))
    ]
    whole = slope(points)
    return Figure(whole, min(others), max(others))


@dataclass(frozen=True)
class Exchange:
    """One run of messages to a group.

    Attributes:
        workers: how many have sockets in it.
        members: sockets of each.
        sent: messages.
        sender: processor time of the worker that sent, in seconds.
        receivers: processor time of each other worker.
        redis: processor time of Redis.
    """

    workers: int
    members: int
    sent: int
    sender: float
    receivers: tuple[float, ...]
    redis: float


def message_costs(
    small: Sequence[Exchange], large: Sequence[Exchange], alone: Sequence[Exchange]
) -> dict[str, Figure]:
    """Return what a message costs, in microseconds of a processor.

    A worker that receives a message pays once for it, and once for each of its sockets in the
    group. One that sends pays for that, too, and for reading all members. Redis pays for each
    message, each worker and each member. Runs of the same number are one repetition.

    Args:
        small: few sockets on each of all workers.
        large: many sockets on each of all workers.
        alone: many sockets on one worker.
    """
    found: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> float:
        found.setdefault(name, []).append(1e6 * seconds)
        return seconds

    for few, many, one in zip(small, large, alone, strict=True):
        received = [
            (run.members, sum(run.receivers) / len(run.receivers) / run.sent) for run in (few, many)
        ]
        message, delivery = line(*received)
        note("message_microseconds", message)
        note("delivery_microseconds", delivery)
        sent = [
            (
                run.members * run.workers,
                max(0.0, run.sender / run.sent - message - delivery * run.members),
            )
            for run in (few, many)
        ]
        send, member = line(*sent)
        note("send_microseconds", send)
        note("send_member_microseconds", member)

        few_, many_, one_ = (run.redis / run.sent for run in (few, many, one))
        members = (few.members * few.workers, many.members * many.workers)
        _, per_member = line((members[0], few_), (members[1], many_))
        note("redis_member_microseconds", per_member)
        # Without the members, on one worker and on all.
        message, per_worker = line(
            (one.workers, max(0.0, one_ - per_member * one.members)),
            (many.workers, max(0.0, many_ - per_member * members[1])),
        )
        note("redis_message_microseconds", message)
        note("redis_worker_microseconds", per_worker)
    return {name: Figure.of(values) for name, values in found.items()}


def line(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Return where the line through two points begins, and how it rises; neither below zero.

    Nothing costs less than nothing: what falls short of it is noise of the smaller reading.
    """
    (x1, y1), (x2, y2) = first, second
    rise = (y2 - y1) / (x2 - x1)
    if rise < 0:
        return (y1 + y2) / 2, 0.0
    begin = y1 - rise * x1
    return (begin, rise) if begin >= 0 else (0.0, y2 / x2)
