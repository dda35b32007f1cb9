"""What a layer counts, and tells at most once a second."""

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
    """What a layer has in hand.

    Attributes:
        subscriptions: names that Redis publishes to and that are heard here.
        waiting: messages that no consumer has received yet.
        seconds: for how long the oldest of them has waited.
    """

    subscriptions: int
    waiting: int
    seconds: float


@dataclass
class Statistics:
    """What has happened in this process since it started.

    Attributes:
        published: messages that Redis has taken.
        received: messages that came from Redis, each once for the process.
        delivered: messages put into mailboxes, each once for a consumer.
        recovered: messages that came from a history.
        resubscriptions: connections for subscriptions that were made again.
        gaps: groups and channels that may have lost messages.
        duplicates: second copies that were dropped.
        dropped: messages that a consumer did not get, by the reason.
    """

    published: int = 0
    received: int = 0
    delivered: int = 0
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
        self.warn(f"dropped {reason}", "dropped a message (%s), last of %s", reason, channel)

    def warn(self, kind: str, text: str, *arguments: object) -> None:
        """Write a line, unless one of its kind was written in the last second.

        The next one says how many there were.
        """
        now = time.monotonic()
        written, since = self._lines.get(kind, (-LOG_SECONDS, 0))
        if now - written < LOG_SECONDS:
            self._lines[kind] = (written, since + 1)
            return
        self._lines[kind] = (now, 0)
        more = f" (and {since} more before)" if since else ""
        logger.warning(text + "%s", *arguments, more)
