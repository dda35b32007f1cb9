"""Which configuration of which edge a connection came through.

nginx that is told to read its configuration again starts new processes; the old ones keep their
sockets, and cut all that are left at once when their time is up (`worker_shutdown_timeout`). So the
edge says with every request who it is, which configuration the process has read, and how many
seconds it lives once it is replaced:

    X-Edge-Generation: lb1 4f0c77e2 3600

The worker that hears of another one knows that the processes of the former will end.
"""

import re
from dataclasses import dataclass

from channels_kit.serving.types import Scope

HEADER = b"x-edge-generation"

LATE = 60.0
"""Seconds for which what comes through a former generation was on its way at the reload."""

MAX_EDGES = 64
"""Edges above which no other is noted: the header may be anybody's where no edge writes it."""

_VALUE = re.compile(rb"([!-~]{1,100}) ([!-~]{1,64}) ([1-9][0-9]{0,6})")


@dataclass(eq=False, slots=True)
class Generation:
    """The processes of an edge that have read one configuration.

    Attributes:
        digest: of the configuration. The same one may come again, with other processes.
        lifetime: seconds for which they keep their sockets, once they are replaced.
        since: when they were heard of first, on the caller's clock.
        former: those that they have replaced.
    """

    digest: bytes
    lifetime: float
    since: float
    former: "Generation | None" = None


class Edges:
    """The generations of every edge, as the connections tell of them."""

    def __init__(self) -> None:
        self._current: dict[bytes, Generation] = {}

    def meet(self, scope: Scope, now: float) -> tuple[Generation | None, Generation | None]:
        """Return the generation of a connection, and the one that it is the first to follow."""
        match = _VALUE.fullmatch(dict(scope.get("headers", ())).get(HEADER, b""))
        if match is None:
            return None, None
        edge, digest, lifetime = match.groups()
        current = self._current.get(edge)
        if current is None and len(self._current) >= MAX_EDGES:
            return None, None
        if current is not None:
            if current.digest == digest:
                return current, None
            former = current.former
            if former is not None and former.digest == digest and now < current.since + LATE:
                return former, None
            # Else each would keep all before it.
            current.former = None
        self._current[edge] = Generation(digest, float(lifetime), now, current)
        return self._current[edge], current
