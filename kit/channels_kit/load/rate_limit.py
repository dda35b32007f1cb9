"""Handshakes at a rate the machine can bear."""

import asyncio


class RateLimit:
    """Lets one through at a time, so many a second.

    Args:
        rate: how many a second; infinite for all at once.
    """

    def __init__(self, rate: float) -> None:
        self.interval = 1 / rate
        # When the next may pass, in seconds of the loop's clock.
        self.next = 0.0

    async def wait(self) -> bool:
        """Return when it is one's turn, first come first served; whether one had to wait."""
        now = asyncio.get_running_loop().time()
        turn = max(self.next, now)
        self.next = turn + self.interval
        await asyncio.sleep(turn - now)
        return turn > now
