"""The broker as Celery sees it: Redis, which may be away when a worker's connection ends.

A worker gives back what it has in hand when its connection ends. Where Redis itself has gone,
kombu (5.7) fails on that with an error nobody expects, and Celery's main process ends with it. So
it does on a task that is done after the connection it came by has ended.
"""

import logging
from typing import Any

from kombu.transport import redis

logger = logging.getLogger(__name__)


class QoS(redis.QoS):
    """Leaves what cannot be given back or acknowledged to the visibility timeout."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a task, where the connection it came by is still there."""
        if not self._has_ended("acknowledged"):
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a task, where the connection it came by is still there."""
        if not self._has_ended("rejected"):
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]

    def _has_ended(self, missing: str) -> bool:
        """Return whether the connection has ended; if so, log what cannot be done to a task."""
        if self.channel.closed:
            logger.warning("a task runs again: its connection ended before it was %s", missing)
        return bool(self.channel.closed)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back what is in hand, where the broker can take it."""
        try:
            super().restore_unacked_once(stderr)  # type: ignore[no-untyped-call]
        except Exception as error:
            # The class only: the text of an error may hold a URL with a password.
            logger.warning("could not give tasks back: %s", type(error).__name__)


class Channel(redis.Channel):
    """A channel of such a connection."""

    QoS = QoS


class Transport(redis.Transport):
    """Redis; to be named in CELERY_BROKER_TRANSPORT."""

    Channel = Channel
