"""When a client asks for messages that it lacks: the rule of docs/protocol.md, "Gaps".

The page's half is app/chat/static/chat/gaps.js; a test compares the numbers.
"""

import random
from collections.abc import Callable
from typing import Protocol

DELAY_FIRST = 1.0
DELAY_MOST = 15.0
"""Seconds: the longest wait before the first request, and before any."""

ANSWER_TIMEOUT = 10.0
"""Seconds after which a request without an answer counts as lost."""


class Timer(Protocol):
    """What `asyncio.loop.call_later` returns."""

    def cancel(self) -> None:
        """Take the call back."""


class GapRequests:
    """Decides when one socket's client asks for its gap.

    Args:
        ask: sends a request for the first gap, as far as one request may reach; returns whether
            the gap goes on behind that, or None where there is no gap.
        call_later: `asyncio.loop.call_later`.
    """

    def __init__(
        self,
        ask: Callable[[], bool | None],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self._ask = ask
        self._call_later = call_later
        # Runs until the next request, or until the one that was sent counts as lost.
        self._timer: Timer | None = None
        # Whether a request has been sent whose answer is still to come.
        self._in_flight = False
        # Whether the gap goes on behind what that request asked for.
        self._goes_on = False
        # Whether the last answer brought messages, none of which has come by itself since.
        self._helped = False
        # Requests since the last one that was of use.
        self._in_vain = 0

    def took(self, *, gap: bool, progress: bool, answer: bool = False) -> None:
        """Take note of a frame.

        Args:
            gap: whether a message is missing now.
            progress: whether the frame led to the delivery of a message.
            answer: whether it is the answer to a request.
        """
        if progress and self._helped and not answer:
            self._helped = False
            self._in_vain = 0
        if answer and self._in_flight:
            self._in_flight = False
            self._helped = progress
            self._cancel()
            if gap and progress and self._goes_on:
                self._send()
                return
        if self._in_flight:
            return
        if not gap or progress:
            self._cancel()
        if gap and self._timer is None:
            self._wait()

    def copied(self) -> None:
        """Take note of a message that came by itself and had been delivered before."""
        self._helped = False

    def stop(self) -> None:
        """Forget everything: the socket has ended."""
        self._cancel()
        self._in_flight = self._helped = False
        self._in_vain = 0

    def _wait(self) -> None:
        self._timer = self._call_later(delay(self._in_vain), self._send)

    def _send(self) -> None:
        goes_on = self._ask()
        if goes_on is None:
            self._timer = None
            return
        self._goes_on = goes_on
        self._in_flight = True
        self._in_vain += 1
        self._timer = self._call_later(ANSWER_TIMEOUT, self._lost)

    def _lost(self) -> None:
        self._in_flight = False
        self._wait()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def delay(in_vain: int) -> float:
    """Return how long to wait before a request, in seconds.

    Half of a limit that grows, and up to as much again: the clients of a room miss the same message
    in the same moment.

    Args:
        in_vain: how many requests there were since the last one that was of use.
    """
    most: float = min(DELAY_MOST, DELAY_FIRST * 2 ** min(in_vain, 10))
    return most * random.uniform(0.5, 1)  # noqa: S311 - not for secrets
