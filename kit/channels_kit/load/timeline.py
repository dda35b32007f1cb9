"""What happened to the sockets of a conversation, and when.

A core without I/O: the clients tell it, with times of one clock. It is told of sockets, and of no
message.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

UNKNOWN_WORKER = "unknown"
"""The worker of a socket that was not told its name."""


@dataclass(frozen=True)
class Second:
    """One second of a conversation.

    Attributes:
        sockets: how many were open at its end, by worker; of every worker that had one so far.
        attempts: how many handshakes were begun.
        attempts_again: how many of them were to come back after a loss.
        opened: how many sockets said something for the first time.
        closes: how many connections ended, by close code.
        refused: how many attempts failed, by reason.
    """

    sockets: Mapping[str, int]
    attempts: int
    attempts_again: int
    opened: int
    closes: Mapping[int, int]
    refused: Mapping[str, int]


@dataclass
class _Notes:
    """What is noted of a second; `changes` is by how much each worker's sockets grew."""

    attempts: int = 0
    attempts_again: int = 0
    opened: int = 0
    closes: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)


class Timeline:
    """Notes of the sockets of all clients.

    Args:
        began_at: when the conversation began.
    """

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self._notes: defaultdict[int, _Notes] = defaultdict(_Notes)
        # When clients that had lost a connection tried to come back, and when they were heard.
        self._attempts_again: list[float] = []
        self._opened_again: list[float] = []

    @property
    def attempts_per_second(self) -> int:
        """The most attempts to come back that fell into one second."""
        return busiest_second(self._attempts_again)

    @property
    def opened_per_second(self) -> int:
        """The most sockets that were open again within one second."""
        return busiest_second(self._opened_again)

    def attempt(self, at: float, *, again: bool) -> None:
        """Note that a handshake begins, to come back after a loss or for the first time."""
        self._second(at).attempts += 1
        if again:
            self._second(at).attempts_again += 1
            self._attempts_again.append(at)

    def refused(self, at: float, reason: str) -> None:
        """Note that an attempt failed."""
        self._second(at).refused[reason] += 1

    def opened(self, at: float, worker: str, *, again: bool) -> None:
        """Note that a worker's socket said something, after a loss or for the first time."""
        self._second(at).opened += 1
        self._second(at).changes[worker] += 1
        if again:
            self._opened_again.append(at)

    def moved(self, at: float, worker: str, other: str) -> None:
        """Note that a socket taken for one of `worker` is one of `other`."""
        self._second(at).changes[worker] -= 1
        self._second(at).changes[other] += 1

    def left(self, at: float, worker: str) -> None:
        """Note that a worker's socket is of use no longer."""
        self._second(at).changes[worker] -= 1

    def closed(self, at: float, code: int) -> None:
        """Note the close code of a connection that was of use and ended."""
        self._second(at).closes[code] += 1

    def seconds(self, until: float) -> tuple[Second, ...]:
        """Return the conversation second by second, `until` now."""
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
                    attempts=notes.attempts,
                    attempts_again=notes.attempts_again,
                    opened=notes.opened,
                    closes=dict(sorted(notes.closes.items())),
                    refused=dict(sorted(notes.refused.items())),
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
