"""Which handshakes a worker takes: those that it serves while their clients still wait.

A handshake that comes too late is work for nobody: its client has given up and tries again. So a
worker refuses at once what it would serve too late, and the edge tries the next one. How many that
is depends on the application: one opens 900 a second, another 10. By Little's law a handshake takes
as long as those in hand divided by the rate at which they are decided, and both are known here.

- The rate is that of the time in which there is something in hand. A worker without clients is not
  slow, it is idle.
- Some are taken whatever the rate: it is not known yet, or the application waits for somebody else
  for seconds, which more at once make no longer.
- An application that decides without giving up the event loop has never two in hand: the others
  wait in the loop. So what counts as well is for how long this turn of the loop has served
  handshakes.
"""

import asyncio
from math import exp, inf

HANDSHAKE_WAIT = 1.0
"""Seconds within which a handshake that is taken is expected to be decided.

People take a second for an answer. Another worker, which the edge tries next, is likely to be
faster; browsers and the kit's own clients give up after several.
"""

HANDSHAKES = 32
"""Handshakes that are taken whatever they take. With 10 s of somebody else's login for each, they
are three a second."""

MEMORY = 1.0
"""Seconds of work after which a measured rate counts for a third. A worker that becomes slow has
taken too many until then; in less time there is no rate, where each takes 50 ms."""

EVIDENCE = 0.1
"""Seconds in which a worker that has just started has decided nothing. A single fast handshake
does not show that a thousand will be."""


class Places:
    """The places of one kind of sockets, so that no kind takes those of another.

    All times are those of one clock that goes on within a turn of the event loop; uvloop's own does
    not.

    Args:
        sockets: how many there may be.
        wait: seconds within which a handshake is to be decided; 0: only so many are taken as are
            taken whatever they take.
    """

    def __init__(self, sockets: int, wait: float) -> None:
        self.max_sockets = sockets
        self.wait = wait
        # Those that are taken, and those of them whose application has not decided.
        self.taken = 0
        self.undecided = 0
        # Of the handshakes decided and of the seconds with some in hand: the older, the less.
        self._decided = 0.0
        self._busy = EVIDENCE
        # Until when both are counted.
        self._counted = 0.0
        # When the first handshake of this turn of the event loop came; None: there was none.
        self._turn: float | None = None

    def refusal(self, now: float) -> str | None:
        """Return why no more is taken; None where there is a place."""
        if self._turn is None:
            self._turn = now
            # What is called soon is called when all that is due in this turn is done.
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self.taken >= self.max_sockets:
            return "full"
        if self.undecided >= HANDSHAKES and self.expected(now) > self.wait:
            return "busy"
        if self.wait and now - self._turn > self.wait:
            return "busy"
        return None

    def expected(self, now: float) -> float:
        """Return the seconds after which one more handshake would be decided."""
        self._count(now)
        return (self.undecided + 1) * self._busy / self._decided if self._decided else inf

    def begin(self, now: float) -> None:
        """Note that a handshake has begun."""
        self._count(now)
        self.undecided += 1

    def decide(self, now: float) -> None:
        """Note that the application has accepted or refused one."""
        self._count(now)
        self.undecided -= 1
        self._decided += 1

    def abandon(self, now: float) -> None:
        """Note that one has ended without a decision; it shows no rate."""
        self._count(now)
        self.undecided -= 1

    def _count(self, now: float) -> None:
        """Count the time until now, if there was something to do."""
        if self.undecided:
            passed = now - self._counted
            kept = exp(-passed / MEMORY)
            self._decided *= kept
            self._busy = self._busy * kept + MEMORY * (1 - kept)
        self._counted = now

    def _end_turn(self) -> None:
        self._turn = None
