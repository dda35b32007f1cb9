"""What a layer counts, and logs at most once a second."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

logger = logging.getLogger("channels_kit.layer")

LOG_SECONDS = 1.0
"""Seconds between two lines about the same kind of event."""


@dataclass(frozen=True)
class Backlog:
    """What waits in a process.

    Attributes:
        subscriptions: groups, channels and queues that the process hears.
        waiting: messages that wait in mailboxes and for sockets.
        seconds: for how long the oldest of them has waited.
    """

    subscriptions: int
    waiting: int
    seconds: float


@dataclass
class Statistics:
    """What has happened in this process since it started.

    Attributes:
        published: messages that Redis took.
        received: messages that came from Redis, each once for the process.
        delivered: messages put into mailboxes, or written to sockets, each once for a consumer.
        gathered: those of them that needed no write of their own.
        slow_sockets: sockets that closed because their clients did not read fast enough.
        recovered: messages that came from a history.
        resubscriptions: connections for subscriptions, after the first one of each.
        gaps: groups that may have lost messages on the way to this process.
        duplicates: second copies, which nobody got.
        dropped: messages that a consumer did not get, by reason: docs/layer.md.
    """

    published: int = 0
    received: int = 0
    delivered: int = 0
    gathered: int = 0
    slow_sockets: int = 0
    recovered: int = 0
    resubscriptions: int = 0
    gaps: int = 0
    duplicates: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    # By the kind of line: when it was written, and the events since.
    _lines: dict[str, tuple[float, int]] = field(default_factory=dict, repr=False)

    def drop(self, reason: str, channel: str) -> None:
        """Note that a consumer does not get a message."""
        self.dropped[reason] += 1
        self.warn(f"dropped {reason}", "dropped a message for %s: %s", channel, reason)

    def warn(
        self, kind: str, text: str, *arguments: object, error: Exception | None = None
    ) -> None:
        """Write a line, unless one of its kind was written in the last second.

        The next one says how many there were. With an error, its traceback follows.
        """
        now = time.monotonic()
        written, since = self._lines.get(kind, (-LOG_SECONDS, 0))
        if now - written < LOG_SECONDS:
            self._lines[kind] = (written, since + 1)
            return
        self._lines[kind] = (now, 0)
        more = f" ({since} more since the last such line)" if since else ""
        logger.warning(text + "%s", *arguments, more, exc_info=error)
