"""Limits that a run has to keep besides delivery."""

import math
from dataclasses import dataclass

from channels_kit.probe.address import UsageError

CODES = range(1000, 5000)
"""The close codes that a client can see."""


@dataclass(frozen=True)
class Limits:
    """Limits of an outcome; None, or no code, for no limit.

    Attributes:
        codes: the only close codes that an open connection may end with.
        recovery_p99: seconds that 99 of 100 recoveries may take.
        reconnect_rate: how many reconnect attempts may fall into one second.

    Raises:
        UsageError: a value makes no sense.
    """

    codes: frozenset[int] = frozenset()
    recovery_p99: float | None = None
    reconnect_rate: float | None = None

    def __post_init__(self) -> None:
        for code in self.codes:
            if code not in CODES:
                raise UsageError(f"close code is {code}; allowed: 1000 to 4999")
        for name in ("recovery_p99", "reconnect_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"the limit {name} is {value:g}; allowed: a number above 0")
