"""How fast one socket may send. Nothing here knows a socket or a clock: the time is given."""

FRAMES_PER_SECOND = 10
FRAMES_AT_ONCE = 20

PAUSE = 1.0
"""Seconds without a frame after which refused frames are forgiven."""

REFUSED_IN_A_ROW = 100
"""Refused frames without a pause after which the client is abusive."""


class FrameRate:
    """The allowance of one socket: a bucket of tokens, one for each frame, that fills with time.

    Args:
        now: the time in seconds, of any clock that only goes forward; the same in every call.
    """

    __slots__ = ("_refused", "_seen_at", "_tokens")

    def __init__(self, now: float) -> None:
        # Frames that could come at this moment; fractions count.
        self._tokens = float(FRAMES_AT_ONCE)
        # The time of the last frame, allowed or not.
        self._seen_at = now
        # Frames refused since the last pause.
        self._refused = 0

    def take(self, now: float) -> float:
        """Count a frame; return 0 where it is allowed, else the seconds until one would be."""
        passed = now - self._seen_at
        self._seen_at = now
        if passed >= PAUSE:
            self._refused = 0
        self._tokens = min(FRAMES_AT_ONCE, self._tokens + passed * FRAMES_PER_SECOND)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        self._refused += 1
        return (1 - self._tokens) / FRAMES_PER_SECOND

    @property
    def abused(self) -> bool:
        """Whether frames kept coming although they were refused."""
        return self._refused >= REFUSED_IN_A_ROW
