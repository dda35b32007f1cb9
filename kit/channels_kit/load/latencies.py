"""How late messages were: any number of them in little memory."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from math import ceil

from channels_kit.probe.result import Latency

PER_SECOND = 10_000
"""Of the units that are told apart, as many as a report shows: tenths of a millisecond."""


class Latencies:
    """Counts times of the same length; what is said of them is exact to a tenth of a millisecond.

    Args:
        seconds: times to begin with.
    """

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        # How many there are of each length.
        self._counts: defaultdict[int, int] = defaultdict(int)
        for each in seconds:
            self.add(each)

    def __len__(self) -> int:
        return sum(self._counts.values())

    def __or__(self, other: "Latencies") -> "Latencies":
        both = Latencies()
        for each in (self, other):
            for length, count in each._counts.items():
                both._counts[length] += count
        return both

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._counts[round(seconds * PER_SECOND)] += 1

    def summary(self) -> Latency | None:
        """Sum them up; None where there are none."""
        lengths = sorted(self._counts)
        # How many are as long or shorter.
        ranks = list(accumulate(self._counts[length] for length in lengths))
        if not ranks:
            return None

        def percentile(share: float) -> float:
            place = bisect_left(ranks, ceil(share * ranks[-1]))
            return round(lengths[place] * 1000 / PER_SECOND, 3)

        return Latency(p50=percentile(0.5), p99=percentile(0.99), max=percentile(1))
