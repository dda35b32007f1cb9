"""What Prometheus reads, by the parser of its own client."""

import asyncio
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from channels.layers import get_channel_layer  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from channels_kit.serving import metrics
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.sockets import REFUSALS
from channels_kit.serving.types import Receive, Scope, Send
from channels_kit.serving.wrapper import Serving

from .cluster import Redis
from .communicators import Socket, request

Samples = dict[tuple[str, str], float]


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts and answers each message; refuses at another path."""
    if scope["path"] != "/chat/":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "1"})
            await send({"type": "websocket.send", "text": "2"})


def serving(**options: Any) -> Serving:
    return Serving(chat, ServingSettings("unused:unused", "app1:8001", **options))


async def scrape(worker: Serving) -> Samples:
    """Return the value of each sample by its name and its only label."""
    answer = await request(worker, "GET", "/-/metrics")
    assert answer.status == 200
    assert answer.headers[b"content-type"].startswith(b"text/plain; version=0.0.4")
    samples: Samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation
        for sample in family.samples:
            samples[sample.name, "".join(sample.labels.values())] = sample.value
    return samples


@pytest.mark.usefixtures("layer")
async def test_every_family_is_there_from_the_start() -> None:
    samples = await scrape(serving())
    for name in (
        "channels_kit_sockets_open",
        "channels_kit_sockets_opened_total",
        "channels_kit_handshake_seconds_count",
        "channels_kit_messages_received_total",
        "channels_kit_messages_sent_total",
        "channels_kit_draining",
        "channels_kit_retired",
        "channels_kit_processes_beside",
        "channels_kit_bytes_per_socket",
    ):
        assert samples[name, ""] == 0, name
    for reason in REFUSALS:
        assert samples["channels_kit_handshakes_refused_total", reason] == 0
    assert ("channels_kit_event_loop_lag_seconds_count", "") in samples
    assert samples["channels_kit_layer_up", ""] == 1
    assert 0 < samples["channels_kit_layer_round_trip_seconds", ""] < 3
    assert samples["process_resident_memory_bytes", ""] > 2**20
    assert samples["process_open_fds", ""] > 0


@pytest.mark.usefixtures("layer")
async def test_a_retired_worker_and_those_beside_are_told(tmp_path: Path) -> None:
    worker = serving(control_directory=str(tmp_path))
    # This one does not count; nor does one that has gone.
    for process in (os.getpid(), os.getppid(), 2**22 + 1):
        (tmp_path / f"{process}.sock").touch()
    worker.sockets.retire()
    samples = await scrape(worker)
    assert samples["channels_kit_retired", ""] == 1
    assert samples["channels_kit_processes_beside", ""] == 1


@pytest.mark.usefixtures("layer")
async def test_sockets_and_messages_are_counted() -> None:
    worker = serving()
    one, two = Socket(worker, "/chat/", []), Socket(worker, "/chat/", [])
    for socket in (one, two):
        assert await socket.connect()
        await socket.send(text="hello")
        assert [await socket.receive_json() for _ in range(2)] == [1, 2]
    assert not await Socket(worker, "/another/", []).connect()
    assert not await Socket(worker, "/-/probe/run/1/", []).connect()
    await one.disconnect()

    samples = await scrape(worker)
    assert samples["channels_kit_sockets_open", ""] == 1
    assert samples["channels_kit_sockets_opened_total", ""] == 2
    assert samples["channels_kit_sockets_closed_total", "1000"] == 1
    assert samples["channels_kit_handshake_seconds_count", ""] == 2
    assert samples["channels_kit_handshakes_refused_total", "application"] == 1
    assert samples["channels_kit_handshakes_refused_total", "unauthorized"] == 1
    assert samples["channels_kit_messages_received_total", ""] == 2
    assert samples["channels_kit_messages_sent_total", ""] == 4
    assert samples["channels_kit_draining", ""] == 0

    worker.sockets.drain()
    close = await two.receive_output()
    await two.disconnect()
    samples = await scrape(worker)
    assert samples["channels_kit_draining", ""] == 1
    assert samples["channels_kit_sockets_open", ""] == 0
    assert samples["channels_kit_sockets_closed_total", str(close["code"])] == 1


@pytest.mark.usefixtures("layer")
async def test_the_time_of_a_handshake_is_measured() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)
        await send({"type": "websocket.accept"})

    worker = Serving(slow, ServingSettings("unused:unused", "app1:8001"))
    socket = Socket(worker, "/", [])
    assert await socket.connect()
    await socket.wait()
    samples = await scrape(worker)
    assert samples["channels_kit_handshake_seconds_sum", ""] >= 0.09
    assert samples["channels_kit_handshake_seconds_bucket", "0.05"] == 0
    # It ended without a word: no close frame, as far as the wrapper can see.
    assert samples["channels_kit_sockets_closed_total", "1006"] == 1


async def test_a_layer_that_is_down_is_seen(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}
    samples = await scrape(serving())
    assert samples["channels_kit_layer_up", ""] == 0
    # Not the time of a failure, which is short.
    assert math.isnan(samples["channels_kit_layer_round_trip_seconds", ""])


async def test_a_layer_that_hangs_is_seen(break_layer: Any) -> None:
    break_layer(asyncio.Event().wait, "group_send")
    samples = await scrape(serving(ready_timeout=0.05))
    assert samples["channels_kit_layer_up", ""] == 0


@pytest.mark.usefixtures("layer")
async def test_a_blocked_loop_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LAG_SECONDS", 0.01)
    worker = serving()
    await scrape(worker)
    time.sleep(0.3)  # noqa: ASYNC251 - what is to be seen
    async with asyncio.timeout(10):
        while not (samples := await scrape(worker))[
            "channels_kit_event_loop_lag_seconds_count", ""
        ]:
            pass
    assert samples["channels_kit_event_loop_lag_seconds_sum", ""] > 0.2


@pytest.mark.usefixtures("layer")
async def test_what_a_socket_takes_is_what_came_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = 1000
    monkeypatch.setattr(metrics, "resident_bytes", lambda: resident)
    worker = serving()
    await scrape(worker)
    resident = 1500
    assert (await scrape(worker))["channels_kit_bytes_per_socket", ""] == 0
    sockets = [Socket(worker, "/chat/", []) for _ in range(4)]
    for socket in sockets:
        await socket.connect()
    resident = 1900
    assert (await scrape(worker))["channels_kit_bytes_per_socket", ""] == 100
    for socket in sockets:
        await socket.disconnect()


def test_the_memory_is_that_of_the_process() -> None:
    before = metrics.resident_bytes()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert metrics.resident_bytes() - before > 48 * 2**20
    del block


async def test_the_fanout_layer_tells_what_it_counts(settings: Settings, redis: Redis) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_kit.layer.RedisFanoutLayer",
            "CONFIG": {"hosts": [redis.url], "capacity": 2, "prefix": "metrics"},
        }
    }
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for _ in range(3):
        await layer.group_send("room", {"type": "any"})
    async with asyncio.timeout(20):
        while layer.statistics.received < 3:  # noqa: ASYNC110 - nothing says when
            await asyncio.sleep(0.005)
    samples = await scrape(serving())
    prefix = "channels_kit_layer"
    assert samples[f"{prefix}_waiting", ""] == 2
    assert 0 < samples[f"{prefix}_lag_seconds", ""] < 60
    assert samples[f"{prefix}_dropped_total", "overflow, drop_oldest"] == 1
    # Those of the scrape's own round trip, too.
    assert samples[f"{prefix}_published_total", ""] >= 3
    assert samples[f"{prefix}_received_total", ""] >= 3
    assert samples[f"{prefix}_delivered_total", ""] >= 2
    assert samples[f"{prefix}_subscriptions", ""] >= 2
    for name in ("recovered", "resubscriptions", "gaps", "duplicates"):
        assert samples[f"{prefix}_{name}_total", ""] == 0
    await layer.receive(channel)
    await layer.receive(channel)
    samples = await scrape(serving())
    assert samples[f"{prefix}_waiting", ""] == samples[f"{prefix}_lag_seconds", ""] == 0
    await layer.close_pools()
