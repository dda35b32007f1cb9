"""Show how a cluster grows from one host to a million sockets: the tables of docs/scaling.md.

The hosts are those of `make plan`, whose model this program calls. What a message costs comes from
`make bench-fanout`; memory, handshakes and the edge from `make calibrate`. Rooms are then dealt out
to processes and shards by chance, to see how uneven that gets: the model knows only means.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from channels_kit.layer.shard import shard_number
from commands import ROOT
from model import Cluster, Figures, Plan, PlanError, Shape, Statement, least

BENCHMARK = ROOT / "docs" / "fanout.json"
DEFAULTS = ROOT / "roles" / "cluster" / "defaults" / "main.yml"
PAGE = ROOT / "docs" / "scaling.md"
GENERATED = re.compile(r"(<!-- simulated -->\n).*?(<!-- end -->)", re.DOTALL)

SIZES = (1000, 10_000, 50_000, 100_000, 300_000, 1_000_000)
MOST_ROOMS_DEALT = 20_000
"""Rooms that are dealt out one by one; more would change nothing but the time it takes."""

SEGMENT_BYTES = 66
"""Ethernet, IP and TCP around a frame that travels alone, which is the worst case."""

FRAME_BYTES = 4
ENTRY_BYTES = 120
"""Around a payload that comes from Redis: its protocol, epoch, offset, sender, msgpack, keys."""

NETWORK_PERCENT = 70
"""Of a network interface; above, bursts wait."""


@dataclass(frozen=True)
class Question:
    """What a reader may change.

    Attributes:
        system: of the benchmark, whose costs count.
        room: sockets of a room.
        messages: that each socket sends a second.
        payload: bytes of a message.
        skew: exponent of Zipf's law for the messages of rooms; 0: all rooms get the same.
        cores: of a host.
        memory_mib: of a host.
        gigabits: of a network interface.
    """

    system: str = "tier1"
    room: int = 50
    messages: float = 0.02
    payload: int = 256
    skew: float = 0.8
    cores: int = 4
    memory_mib: int = 8192
    gigabits: float = 10.0


@dataclass(frozen=True)
class Dealt:
    """What chance makes of a plan.

    Attributes:
        reached: processes that a message reaches, on average.
        shard: load of the busiest shard, as a multiple of the mean.
        worker: deliveries of the busiest process, as a multiple of the mean.
        room: messages a second of the busiest room.
    """

    reached: float
    shard: float
    worker: float
    room: float


@dataclass(frozen=True)
class Row:
    """One size.

    Attributes:
        plan: of `make plan`.
        dealt: what chance makes of it.
        app_network: percent of the network interface of an app host.
        redis_network: the same of a Redis.
        edge_network: the same of an edge.
    """

    plan: Plan
    dealt: Dealt
    app_network: float
    redis_network: float
    edge_network: float

    @property
    def redis_percent(self) -> float:
        """Percent of a core that the busiest Redis uses."""
        term = next(each for each in self.plan.terms if each.of == "redis")
        return term.needs / self.plan.redis * self.dealt.shard

    @property
    def bound(self) -> str:
        """What is nearest to its end."""
        term = self.plan.binding
        shares = {
            term.name: 100 - term.headroom,
            "processor of the busiest Redis": self.redis_percent / 0.7,
            "network of an app host": self.app_network / NETWORK_PERCENT * 100,
            "network of a Redis": self.redis_network / NETWORK_PERCENT * 100,
            "network of an edge": self.edge_network / NETWORK_PERCENT * 100,
        }
        name = max(shares, key=lambda each: shares[each])
        return f"{name}: {shares[name]:.0f} % of what it may"


def costs(benchmark: Mapping[str, Any], system: str) -> dict[str, float]:
    """Return what the benchmark says of a system, under the names of `cluster_figures`.

    Every message costs something once and every delivery something more. Rooms of 10 and a room of
    1000 tell them apart. What a message costs once is paid by the process that sends it and by the
    two that receive it: a third each.

    Raises:
        PlanError: the benchmark has not measured it.
    """
    passed: dict[int, list[Mapping[str, Any]]] = {}
    for result in benchmark["results"]:
        shape = result["shape"]
        alike = (shape["idle"], shape["payload"], shape["processes"]) == (0, 64, 2)
        if result["system"] == system and alike:
            steps = passed.setdefault(int(shape["members"]), [])
            steps += [step for step in result["steps"] if step["passes"]]
    # Of all rounds, the highest rate: others on the machine make a delivery dearer, never cheaper.
    per_delivery = {
        members: float(max(steps, key=lambda step: float(step["rate"]))["cpu"])
        for members, steps in passed.items()
        if steps
    }
    redis = benchmark.get("redis")
    if len(per_delivery) < 2 or not redis:
        raise PlanError(f"the benchmark has no complete result of {system}. Run make bench-fanout")
    small, large = min(per_delivery), max(per_delivery)
    once = (per_delivery[small] - per_delivery[large]) / (1 / small - 1 / large)
    once = max(once, 0.0)
    return {
        "delivery_microseconds": max(per_delivery[large] - once / large, 0.0),
        "message_microseconds": once / 3,
        "send_microseconds": once / 3,
        "send_member_microseconds": 0.0,
        "redis_message_microseconds": float(redis["message"]),
        "redis_worker_microseconds": float(redis["subscriber"]),
        "redis_member_microseconds": 0.0,
    }


def figures_of(base: Mapping[str, Any], measured: Mapping[str, float]) -> Figures:
    """Return figures for the model: those of a calibration, with some replaced."""
    replaced = {name: dict.fromkeys(("value", "low", "high"), x) for name, x in measured.items()}
    # Up to where the calibration went says nothing about the benchmark's figures.
    return Figures({**base, **replaced, "measured": {}})


def deal(plan: Plan, question: Question, seed: int = 1) -> Dealt:
    """Deal rooms out to shards and their members to processes."""
    draw = random.Random(seed)  # noqa: S311 - the same table for the same figures
    statement = plan.statement
    rooms = max(1, statement.sockets // statement.members)
    dealt = min(rooms, MOST_ROOMS_DEALT)
    weights = [1 / rank**question.skew for rank in range(1, dealt + 1)]
    total = sum(weights)
    shards, workers = [0.0] * plan.redis, [0.0] * plan.workers
    reached = 0.0
    for number, weight in enumerate(weights):
        shards[shard_number(f"room-{number}", plan.redis)] += weight
        members = draw.choices(range(plan.workers), k=statement.members)
        for worker in members:
            workers[worker] += weight
        reached += weight * len(set(members))
    return Dealt(
        reached=reached / total,
        shard=max(shards) * plan.redis / total,
        worker=max(workers) * plan.workers / (total * statement.members),
        room=statement.messages * weights[0] / total * dealt / rooms,
    )


def row(sockets: int, figures: Figures, question: Question) -> Row:
    """Return what one size takes.

    Raises:
        PlanError: no number of such hosts carries it.
    """
    statement = Statement(sockets, sockets * question.messages, question.room, spare=1)
    host = Shape(question.cores, question.memory_mib)
    plan = least(statement, figures, Cluster(host, host, 1, question.cores, tls=True))
    dealt = deal(plan, question)
    bits = 8 * (question.payload + FRAME_BYTES + SEGMENT_BYTES)
    hosts = plan.cluster.carrying(statement)
    capacity = question.gigabits * 1e9
    entries = 8 * (question.payload + ENTRY_BYTES + SEGMENT_BYTES) * dealt.reached
    return Row(
        plan,
        dealt,
        100 * (statement.deliveries * bits + statement.messages * entries) / hosts / capacity,
        100 * statement.messages * entries * dealt.shard / plan.redis / capacity,
        100 * statement.deliveries * bits / plan.cluster.carrying_edges / capacity,
    )


def spaced(number: float) -> str:
    """Return a number for people."""
    return f"{number:,.0f}".replace(",", " ")


def table(rows: Sequence[Row]) -> list[str]:
    """Return the sizes in Markdown."""
    head = (
        "sockets",
        "messages/s",
        "deliveries/s",
        "app hosts",
        "processes",
        "reached by a message",
        "Redis",
        "busiest Redis",
        "edges",
        "network: app, Redis, edge",
        "bound",
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---:|' * (len(head) - 1)}---|"]
    for each in rows:
        statement, cluster = each.plan.statement, each.plan.cluster
        cells = (
            spaced(statement.sockets),
            spaced(statement.messages),
            spaced(statement.deliveries),
            str(cluster.app_hosts),
            str(each.plan.workers),
            f"{each.dealt.reached:.1f}",
            str(each.plan.redis),
            f"{each.redis_percent:.0f} % of a core",
            str(cluster.edges),
            f"{each.app_network:.1f}, {each.redis_network:.1f}, {each.edge_network:.1f} %",
            each.bound,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def report(benchmark: Mapping[str, Any], base: Mapping[str, Any], question: Question) -> list[str]:
    """Return the table, and what it stands on.

    Raises:
        PlanError: the benchmark lacks a figure, or no number of hosts is enough.
    """
    measured = costs(benchmark, question.system)
    rows = [row(sockets, figures_of(base, measured), question) for sockets in SIZES]
    redis = measured["redis_message_microseconds"], measured["redis_worker_microseconds"]
    reached = list(accumulate((1, 2, 4, 8), lambda a, b: a * b))
    one_room = ", ".join(
        f"{spaced(700_000 / (redis[0] + redis[1] * n))} to {n} processes" for n in reached
    )
    return [
        f"Rooms of {question.room}, {question.messages:g} messages/s of each socket,"
        f" {question.payload} B; hosts of {question.cores} cores, {question.memory_mib} MiB and"
        f" {question.gigabits:g} Gbit/s; one app host to spare; TLS at the edge. Rooms are busy by"
        f" Zipf's law with exponent {question.skew:g}.",
        "",
        *table(rows),
        "",
        f"Measured on {benchmark['date']}, {benchmark['machine']}:"
        f" {measured['delivery_microseconds']:.2f} µs of a processor a delivery,"
        f" {measured['message_microseconds']:.0f} µs for each process that receives a message or"
        f" sends it ({question.system}); Redis {redis[0]:.1f} µs a message and {redis[1]:.2f} µs a"
        f" process. So one Redis at 70 % of a core carries this many messages/s: {one_room}.",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the status to end with."""
    parser = argparse.ArgumentParser(description=__doc__)
    standard = Question()
    for name, value in vars(standard).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, help="%(default)s"
        )
    parser.add_argument("--benchmark", type=Path, default=BENCHMARK, help="of make bench-fanout")
    parser.add_argument("--figures", type=Path, default=DEFAULTS, help="of make calibrate")
    parser.add_argument("--write", action="store_true", help="write the table into docs/scaling.md")
    options = vars(parser.parse_args(arguments))
    benchmark, figures = options.pop("benchmark"), options.pop("figures")
    write = options.pop("write")
    try:
        lines = report(
            json.loads(benchmark.read_text()),
            yaml.safe_load(figures.read_text())["cluster_figures"],
            Question(**options),
        )
    except (OSError, KeyError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if write:
        text = "\n".join(lines)
        PAGE.write_text(
            GENERATED.sub(lambda marks: f"{marks[1]}{text}\n{marks[2]}", PAGE.read_text())
        )
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
