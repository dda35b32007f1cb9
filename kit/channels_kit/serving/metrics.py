"""What Prometheus is told of a worker: one worker, one target."""

import asyncio
import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from channels.layers import get_channel_layer  # type: ignore[import-untyped]

# The application's own, where it has one, in any version: of its names only those that all have.
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from channels_kit.serving.readiness import channel_layer_round_trip, run_check
from channels_kit.serving.sockets import Sockets

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

LAG_SECONDS = 0.5
"""Seconds between two looks at how late the event loop is."""

_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The metrics of this process; made where its event loop runs.

    Args:
        sockets: the worker's.
        timeout: seconds for a round trip through the channel layer.
        beside: returns how many other processes the worker has.
    """

    content_type = CONTENT_TYPE

    def __init__(self, sockets: Sockets, timeout: float, beside: Callable[[], int]) -> None:
        self.timeout = timeout
        self.registry = CollectorRegistry()
        self.registry.register(cast("Collector", _SocketsCollector(sockets, beside)))
        self.registry.register(cast("Collector", _LayerCollector()))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.layer_up = Gauge(
            "channels_kit_layer_up",
            "Whether a message came back from the channel layer in time.",
            registry=self.registry,
        )
        self.layer_seconds = Gauge(
            "channels_kit_layer_round_trip_seconds",
            "Time of one message through the channel layer and back; NaN where none came back.",
            registry=self.registry,
        )
        self.lag = Histogram(
            "channels_kit_event_loop_lag_seconds",
            "How late the event loop runs what is due.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        # Kept: asyncio itself keeps no task from being collected.
        self.watching = asyncio.get_running_loop().create_task(self._watch_the_loop())

    async def render(self) -> bytes:
        """Return all metrics as Prometheus reads them; asks the channel layer first."""
        check = await run_check("channel_layer", channel_layer_round_trip, self.timeout)
        self.layer_up.set(check.ok)
        self.layer_seconds.set(check.milliseconds / 1000 if check.ok else math.nan)
        return generate_latest(self.registry)

    async def _watch_the_loop(self) -> None:
        while True:
            due = time.monotonic() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.lag.observe(max(time.monotonic() - due, 0.0))


class _SocketsCollector:
    def __init__(self, sockets: Sockets, beside: Callable[[], int]) -> None:
        self.sockets = sockets
        self.beside = beside
        # Without a socket, or with as few as there have been.
        self.empty_bytes = resident_bytes()

    def collect(self) -> "Iterator[Metric]":
        counts = self.sockets.counts
        number = len(self.sockets)
        if number == 0:
            self.empty_bytes = resident_bytes()
        yield _gauge("sockets_open", "WebSockets, those in their handshake too.", number)
        yield _gauge(
            "draining", "1 while the worker drains and takes no new sockets.", self.sockets.draining
        )
        yield _gauge(
            "retired", "1 while another process has the worker's port.", self.sockets.retired
        )
        yield _gauge(
            "processes_beside", "Other processes of the worker: retired ones.", self.beside()
        )
        yield _gauge(
            "bytes_per_socket",
            "Resident memory of one socket: what the worker has more than without sockets.",
            (resident_bytes() - self.empty_bytes) / number if number else 0.0,
        )
        yield _counter("sockets_opened", "WebSockets accepted.", counts.opened)
        yield _counter("messages_received", "Messages of clients.", counts.received)
        yield _counter("messages_sent", "Messages to clients.", counts.sent)
        closed = CounterMetricFamily(
            "channels_kit_sockets_closed",
            "WebSockets that have ended, by code; clients' own codes from 3000 count as 3000.",
            labels=["code"],
        )
        for code, times in sorted(counts.closed.items()):
            closed.add_metric([str(code)], times)
        yield closed
        refused = CounterMetricFamily(
            "channels_kit_handshakes_refused", "WebSockets not accepted.", labels=["reason"]
        )
        for reason, times in counts.refused.items():
            refused.add_metric([reason], times)
        yield refused
        yield from counts.handshake_seconds.collect()


class _LayerCollector:
    """What the fan-out layer counts; nothing with another layer."""

    COUNTERS: ClassVar[Mapping[str, str]] = {
        "published": "Messages that Redis took from the worker.",
        "received": "Messages that the worker got from Redis.",
        "delivered": "Messages put into mailboxes or written to sockets, once for each consumer.",
        "gathered": "Delivered messages that needed no write of their own.",
        "slow_sockets": "Sockets that closed because their clients did not read fast enough.",
        "recovered": "Messages that the worker took from a history.",
        "resubscriptions": "Connections to Redis made again.",
        "gaps": "Groups and channels that may have lost messages.",
        "duplicates": "Second copies that the worker dropped.",
    }

    def collect(self) -> "Iterator[Metric]":
        layer = get_channel_layer()
        statistics = getattr(layer, "statistics", None)
        if statistics is None or not hasattr(layer, "backlog"):
            return
        for name, text in self.COUNTERS.items():
            yield _counter(f"layer_{name}", text, getattr(statistics, name))
        dropped = CounterMetricFamily(
            "channels_kit_layer_dropped",
            "Messages that a consumer did not get, by reason: docs/layer.md.",
            labels=["reason"],
        )
        # A copy: event loops of other threads count meanwhile.
        for reason, times in sorted(statistics.dropped.copy().items()):
            dropped.add_metric([reason], times)
        yield dropped
        backlog = layer.backlog()
        yield _gauge(
            "layer_subscriptions",
            "Groups, channels and queues that the worker hears.",
            backlog.subscriptions,
        )
        yield _gauge(
            "layer_waiting", "Messages that wait in mailboxes and for sockets.", backlog.waiting
        )
        yield _gauge(
            "layer_lag_seconds", "For how long the oldest message has waited.", backlog.seconds
        )


def resident_bytes() -> int:
    """Return the resident memory of this process.

    Source: proc_pid_statm(5).
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"channels_kit_{name}", text, value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"channels_kit_{name}", text, value)
