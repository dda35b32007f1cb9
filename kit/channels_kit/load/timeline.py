"""What happened to the sockets of a run, and when.

A core without I/O: the clients tell it, with times of one clock. It records sockets, not messages.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

UNKNOWN_WORKER = "unknown"
"""The worker of a socket whose application does not name it."""


@dataclass(frozen=True)
class Second:
    """One second of a run.

    Attributes:
        sockets: how many were open at its end, by worker; of every worker that had one so far.
        connect_attempts: how many handshakes were begun.
        reconnect_attempts: how many of them after a loss.
        opened: how many sockets had their first frame.
        closes: how many connections ended, by close code.
        failed_connects: how many attempts failed, by HTTP status or reason.
    """

    sockets: Mapping[str, int]
    connect_attempts: int
    reconnect_attempts: int
    opened: int
    closes: Mapping[int, int]
    failed_connects: Mapping[str, int]


@dataclass
class _Notes:
    """The notes of a second; `changes` is by how much each worker's sockets grew."""

    connect_attempts: int = 0
    reconnect_attempts: int = 0
    opened: int = 0
    closes: Counter[int] = field(default_factory=Counter)
    failed_connects: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)


class Timeline:
    """Notes of the sockets of all clients.

    Args:
        began_at: when the run began.
    """

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self._notes: defaultdict[int, _Notes] = defaultdict(_Notes)
        # When clients tried to reconnect, and when they had their first frame again.
        self._attempts: list[float] = []
        self._reconnected: list[float] = []

    @property
    def reconnect_attempts_per_second(self) -> int:
        """The most reconnect attempts that fell into one second."""
        return busiest_second(self._attempts)

    @property
    def reconnected_per_second(self) -> int:
        """The most clients that were connected again within one second."""
        return busiest_second(self._reconnected)

    def attempt(self, at: float, *, again: bool) -> None:
        """Note that a handshake begins, after a loss or for the first time."""
        self._second(at).connect_attempts += 1
        if again:
            self._second(at).reconnect_attempts += 1
            self._attempts.append(at)

    def connect_failed(self, at: float, reason: str) -> None:
        """Note that an attempt failed."""
        self._second(at).failed_connects[reason] += 1

    def opened(self, at: float, worker: str, *, again: bool) -> None:
        """Note that a worker's socket had its first frame, after a loss or for the first time."""
        self._second(at).opened += 1
        self._second(at).changes[worker] += 1
        if again:
            self._reconnected.append(at)

    def moved(self, at: float, worker: str, other: str) -> None:
        """Note that a socket taken for one of `worker` is one of `other`."""
        self._second(at).changes[worker] -= 1
        self._second(at).changes[other] += 1

    def left(self, at: float, worker: str) -> None:
        """Note that a worker's socket is no longer used."""
        self._second(at).changes[worker] -= 1

    def closed(self, at: float, code: int) -> None:
        """Note the close code of a connection that had had a frame."""
        self._second(at).closes[code] += 1

    def seconds(self, until: float) -> tuple[Second, ...]:
        """Return the run second by second, `until` now."""
        open_now: Counter[str] = Counter()
        found = []
        for number in range(ceil(until - self.began_at)):
            notes = self._notes.get(number, _Notes())
            for worker, change in notes.changes.items():
                # Not update(), which would pass over a worker that is left by all.
                open_now[worker] += change
            found.append(
                Second(
                    sockets={
                        worker: count
                        for worker, count in sorted(open_now.items())
                        if count or worker != UNKNOWN_WORKER
                    },
                    connect_attempts=notes.connect_attempts,
                    reconnect_attempts=notes.reconnect_attempts,
                    opened=notes.opened,
                    closes=dict(sorted(notes.closes.items())),
                    failed_connects=dict(sorted(notes.failed_connects.items())),
                )
            )
        return tuple(found)

    def _second(self, at: float) -> _Notes:
        return self._notes[int(at - self.began_at)]


def busiest_second(times: Sequence[float]) -> int:
    """Return the largest number of times that lie within one second, wherever it begins."""
    ranked = sorted(times)
    return max(
        (bisect_right(ranked, at) - bisect_right(ranked, at - 1) for at in ranked), default=0
    )
