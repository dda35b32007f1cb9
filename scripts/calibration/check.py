"""Compare what figures predict with what is measured: on other workers and with other rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from calibration.hosts import CalibrationError
from calibration.measuring import DELIVERIES, SETTLE, Cluster
from calibration.traffic import Traffic
from model import Cluster as Hosts
from model import Figures, Load, Shape, Statement, redis_terms

ROOMS = (10, 28)
"""Sockets of a room on each worker; the calibration has other sizes."""


@dataclass(frozen=True)
class Compared:
    """One term.

    Attributes:
        name: what it is.
        predicted: what the figures say.
        measured: what was found.
        unit: of both.
    """

    name: str
    predicted: float
    measured: float
    unit: str

    @property
    def error(self) -> float:
        """Percent by which the prediction is above what was measured; below 0: it is under it."""
        return 100 * (self.predicted / self.measured - 1) if self.measured else 0.0


class Check(Traffic):
    """Measures a cluster, and compares it with the figures of its inventory.

    Args:
        cluster: the cluster.
        say: prints a line.
        figures: the inventory's `cluster_figures`.
    """

    def __init__(
        self, cluster: Cluster, say: Callable[[str], None], figures: Mapping[str, Any]
    ) -> None:
        super().__init__(cluster, say)
        self.known = Figures(figures, expected=True)
        self.compared: list[Compared] = []

    async def run(self) -> None:
        """Measure, and compare.

        Raises:
            CalibrationError: something cannot be measured.
        """
        await self.empty_workers()
        self.note("an idle worker", "worker_mib", "MiB")
        await self.begin_anew()
        await self.memory()
        self.note("a socket in a worker", "socket_kib", "KiB")
        await self.handshakes()
        self.note("handshakes of one worker", "handshakes_per_second", "/s")
        self.note("a handshake, CPU of a worker", "handshake_milliseconds", "ms")
        if self.cluster.edge_host:
            await self.edge_deliveries()
            self.note("a delivery, CPU of nginx", "edge_delivery_microseconds", "µs")
        for members in ROOMS:
            await self.room(members)

    def note(self, name: str, figure: str, unit: str) -> None:
        """Compare a figure, if it was measured."""
        if measured := self.figures.get(figure):
            predicted = self.known.cost(figure)
            self.compared.append(Compared(name, predicted, measured.value, unit))

    async def room(self, members: int) -> None:
        """Compare a room with sockets on every worker, all of which send."""
        workers = list(self.cluster.workers)
        count = len(workers)
        room = members * count
        rate = DELIVERIES / room
        self.say(f"room of {room} sockets on {count} workers: {rate:.0f} messages/s")
        async with self.group(workers, members):
            await asyncio.sleep(SETTLE)
            shares: list[list[float]] = []
            for _ in range(3):
                before = await self.all_processors(workers)
                answer = await self.exchange(list(range(room)), rate, room)
                after = await self.all_processors(workers)
                if answer["delivered"] < answer["expected"]:
                    raise CalibrationError(
                        "Deliveries are missing: prove delivery first (make verify)"
                    )
                # What one second of messages at this rate takes, whatever else passed meanwhile.
                pairs = zip(before, after, strict=True)
                shares.append([100 * rate * (b - a) / answer["sent"] for a, b in pairs])
        middle = sorted(shares, key=sum)[1]
        statement = Statement(room, rate, room, 0)
        load = Load.of(statement, self.known, count)
        self.compared.append(
            Compared(
                f"a worker, room of {room}, {rate:.0f} messages/s",
                load.percent,
                sum(middle[:count]) / count,
                "% of a core",
            )
        )
        if self.cluster.redis_host:
            shape = Shape(2, 4096)
            hosts = Hosts(shape, shape, app_hosts=1, workers_per_host=count)
            term = redis_terms(statement, self.known, hosts, 1)[0]
            self.compared.append(
                Compared(
                    f"Redis, room of {room}, {rate:.0f} messages/s",
                    term.needs,
                    middle[count],
                    "% of a core",
                )
            )

    def lines(self) -> list[str]:
        """Return the comparison as a table."""
        lines = [f"{'':44} {'predicted':>10} {'measured':>10} {'error':>8}"]
        lines += [
            f"{each.name:44} {each.predicted:10.3g} {each.measured:10.3g} {each.error:+7.0f} %"
            f"  {each.unit}"
            for each in self.compared
        ]
        return lines
