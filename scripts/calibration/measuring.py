"""The measurements of a calibration, one after the other; each prints what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from calibration.estimates import (
    Figure,
    slope_figure,
)
from calibration.hosts import CalibrationError, Host
from channels_kit.paths import probe_path

REPETITIONS = 3
AT_ONCE = 16
"""Handshakes under way at once: half of what a worker has in hand at most."""

LARGE = 44
"""Sockets of the probe on a worker at most; it takes 64, and some stay free."""

LEAST_EDGE_KIB = 4.0
"""A socket needs two connections of nginx and their buffers. Growth below this is of memory that
earlier sockets have left."""

STEPS = 8
SETTLE = 1.5
HOLD = 20.0
"""Seconds that sockets are left alone; each gets a ping in this time."""

SAY_SECONDS = 3.0
DELIVERIES = 1500.0
"""Deliveries a second, of all workers together, while the cost of one is measured."""


@dataclass(frozen=True)
class Door:
    """Where sockets of the operator's application are opened.

    Attributes:
        path: of the socket, without its query in messages; empty: the probe's endpoint.
        query: what follows; it may hold a token.
        headers: of the handshake.
    """

    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_probe(self) -> bool:
        """Whether it is the kit's own endpoint."""
        return not self.path

    @property
    def words(self) -> str:
        """What it is, for the operator."""
        return "the probe endpoint" if self.is_probe else self.path


@dataclass
class Cluster:
    """What is measured.

    Attributes:
        hosts: programs on the hosts, by name.
        client: the host that opens the sockets.
        workers: all workers of the inventory.
        site: the name that handshakes ask for.
        origin: their Origin.
        edge: URL of the first edge, without TLS; empty: there is none.
        edge_tls: the same with TLS; empty: it has none.
        edge_host: the host of it.
        redis_host: the host of the channel layer; empty: somebody else's.
        door: where the application's sockets are opened.
        pace: handshakes a second that the edge takes from one address.
        sockets: how many of the application's sockets are opened at most.
    """

    hosts: Mapping[str, Host]
    client: Host
    workers: Sequence[Mapping[str, Any]]
    site: str
    origin: str
    edge: str
    edge_tls: str
    edge_host: str
    redis_host: str
    door: Door
    pace: float
    sockets: int

    @property
    def target(self) -> Mapping[str, Any]:
        """The worker that is measured: one that does not share its host with the client, if any."""
        others = [each for each in self.workers if each["host"] != self.client.name]
        return (others or list(self.workers))[0]

    def handshake(self, url: str, path: str, **more: Any) -> dict[str, Any]:
        """Return a socket as the client opens it."""
        headers = {"Origin": self.origin, **more.pop("headers", {})}
        return {"url": url, "path": path, "host": self.site, "headers": headers, **more}

    def probe(self, url: str, run: str, number: int) -> dict[str, Any]:
        """Return a socket of the probe."""
        return self.handshake(url, probe_path(run, str(number)), token=True)


class Measuring:
    """Measures a cluster.

    Args:
        cluster: the cluster.
        say: prints a line.
    """

    def __init__(self, cluster: Cluster, say: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.say = say
        self.figures: dict[str, Figure] = {}
        # What the figures cover; beyond it, a plan extrapolates.
        self.measured: dict[str, Any] = {
            "app_hosts": len({worker["host"] for worker in cluster.workers}),
            "workers": len(cluster.workers),
        }

    async def run(self) -> None:
        """Measure what sockets cost.

        Raises:
            CalibrationError: something cannot be measured.
        """
        await self.empty_workers()
        await self.begin_anew()
        await self.memory()
        await self.handshakes()
        await self.edge()

    async def sample(self, host: str, unit: str) -> dict[str, float]:
        """Return processor time and memory of a unit."""
        found: dict[str, dict[str, float]] = await self.cluster.hosts[host].ask(
            "sample", units=[unit]
        )
        if not found[unit]["processes"]:
            raise CalibrationError(f"{unit} does not run on {host}. Start it, or use another ENV.")
        return found[unit]

    async def worker(self, worker: Mapping[str, Any]) -> dict[str, float]:
        """Return processor time and memory of a worker."""
        return await self.sample(worker["host"], f"channels-web@{worker['port']}.service")

    async def open(self, targets: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """Open sockets, all of them.

        Raises:
            CalibrationError: some were refused.
        """
        options = {"at_once": AT_ONCE, **options}
        answer: dict[str, Any] = await self.cluster.client.ask("open", targets=targets, **options)
        if answer["refused"]:
            refused = ", ".join(f"{count} x {why}" for why, count in answer["refused"].items())
            raise CalibrationError(
                f"{answer['opened']} of {len(targets)} sockets opened at {targets[0]['url']};"
                f" refused: {refused}. Read the logs of the workers: journalctl -u 'channels-web@*'"
            )
        return answer

    async def close(self) -> None:
        """Close all sockets, and wait until the workers have seen it."""
        lost = (await self.cluster.client.ask("close"))["lost"]
        if lost:
            raise CalibrationError(
                f"The cluster closed {lost} sockets that had to stay open. Read the logs of the"
                " workers: journalctl -u 'channels-web@*'"
            )
        urls = [worker["url"] for worker in self.cluster.workers]
        for _ in range(50):
            states = await self.cluster.client.ask("live", urls=urls)
            if all(state is None or state["sockets"] <= self.present for state in states):
                return
            await asyncio.sleep(0.1)

    present = 0
    """Sockets of a worker that were there before."""

    def doors(self, count: int, edge: str = "") -> list[dict[str, Any]]:
        """Return sockets of the application on the worker that is measured, or at an edge."""
        cluster, door = self.cluster, self.cluster.door
        url = edge or cluster.target["url"]
        if door.is_probe:
            run = token_hex(8)
            return [cluster.probe(url, run, number) for number in range(count)]
        scheme = cluster.origin.split(":")[0]
        forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": scheme}
        headers = {**({} if edge else forwarded), **door.headers}
        return [
            cluster.handshake(url, door.path + door.query, headers=headers) for _ in range(count)
        ]

    async def empty_workers(self) -> None:
        """Measure the memory of every worker without sockets."""
        self.say(f"idle workers: {len(self.cluster.workers)}")
        sizes = [(await self.worker(worker))["pss"] / 1024 for worker in self.cluster.workers]
        self.figures["worker_mib"] = Figure.of(sizes)

    async def begin_anew(self) -> None:
        """Restart the worker that is measured, unless clients are on it.

        Python keeps memory of closed sockets and uses it again: a socket would seem to need none.
        """
        target = self.cluster.target
        if self.present:
            self.say("memory: no restart, clients are connected; memory of closed sockets counts")
        else:
            self.say(f"restart: {target['name']}")
            unit = f"channels-web@{target['port']}.service"
            await self.cluster.hosts[target["host"]].ask("restart", unit=unit)
            for _ in range(300):
                state = (await self.cluster.client.ask("live", urls=[target["url"]]))[0]
                if state is not None and not state["draining"]:
                    break
                await asyncio.sleep(0.2)
            else:
                raise CalibrationError(
                    f"{target['name']} does not answer within a minute after its restart. Read its"
                    f" log on {target['host']}: journalctl -u {unit}. To start it: make converge"
                )
        # The first ones import modules and open connections.
        await self.open(self.doors(AT_ONCE))
        await self.close()

    async def handshakes(self) -> None:
        """Measure how many handshakes a worker takes a second, and the processor time of one."""
        if self.cluster.door.is_probe:
            # The edge would let through many times what the application takes after a lost host.
            self.say(
                "handshakes: not measured, because the probe endpoint has none of the application's"
                " work. The former figures or the defaults stay. To measure them, log in: set"
                " ADAPTER and LOGIN (docs/capacity.md)"
            )
            return
        count = min(150, self.cluster.sockets)
        self.say(
            f"handshakes: {REPETITIONS} x {count} of {self.cluster.door.words},"
            f" {AT_ONCE} at once, on {self.cluster.target['name']}"
        )
        rates, costs = [], []
        for _ in range(REPETITIONS):
            before = await self.worker(self.cluster.target)
            answer = await self.open(self.doors(count))
            after = await self.worker(self.cluster.target)
            await self.close()
            rates.append(count / answer["seconds"])
            costs.append(1000 * (after["cpu"] - before["cpu"]) / count)
        self.measured["handshake"] = self.cluster.door.words
        self.figures["handshakes_per_second"] = Figure.of(rates)
        self.figures["handshake_milliseconds"] = Figure.of(costs)

    async def memory(self) -> None:
        """Measure memory and processor time of idle sockets of a worker."""
        cluster = self.cluster
        step = (LARGE if cluster.door.is_probe else cluster.sockets) // STEPS
        self.say(f"memory: {STEPS} x {step} idle sockets of {cluster.door.words}")
        first = await self.worker(cluster.target)
        await asyncio.sleep(HOLD / 4)
        before = await self.worker(cluster.target)
        empty = (before["cpu"] - first["cpu"]) / (HOLD / 4)
        points = [(0.0, before["pss"])]
        for number in range(1, STEPS + 1):
            await self.open(self.doors(step))
            await asyncio.sleep(SETTLE)
            points.append((number * step, (await self.worker(cluster.target))["pss"]))
        costs = []
        for _ in range(2):
            begin = await self.worker(cluster.target)
            await cluster.client.ask("wait", seconds=HOLD)
            end = await self.worker(cluster.target)
            held = (end["cpu"] - begin["cpu"]) / HOLD
            costs.append(max(0.0, 1e6 * (held - empty) / (STEPS * step)))
        await self.close()
        points.append((STEPS * step, end["pss"]))
        self.figures["socket_kib"] = slope_figure(points[len(points) // 3 :])
        self.figures["socket_microseconds"] = Figure.of(costs)
        self.measured["sockets_per_worker"] = STEPS * step

    async def edge(self) -> None:
        """Measure memory and processor time of sockets through the edge."""
        cluster = self.cluster
        if not cluster.edge_host:
            self.say("edge: this inventory has none; the former figures or the defaults stay")
            return
        url = cluster.edge_tls or cluster.edge
        prefix = "edge_tls_" if cluster.edge_tls else "edge_"
        # The edge limits handshakes of the application, and not those of the probe.
        step = (LARGE if cluster.door.is_probe else cluster.sockets) // STEPS
        self.say(f"edge: {STEPS} x {step} sockets of {cluster.door.words} through {url}")
        points, costs = [], []
        for number in range(STEPS + 1):
            before = await self.sample(cluster.edge_host, "nginx.service")
            points.append((float(number * step), before["pss"]))
            if number == STEPS:
                break
            await self.open(self.doors(step, url), at_once=AT_ONCE // 2, pace=cluster.pace)
            await asyncio.sleep(SETTLE / 3)
            after = await self.sample(cluster.edge_host, "nginx.service")
            costs.append(1000 * (after["cpu"] - before["cpu"]) / step)
        self.figures[f"{prefix}handshake_milliseconds"] = Figure.of(costs)
        kib = slope_figure(points[len(points) // 3 :])
        if kib.value < LEAST_EDGE_KIB:
            self.say(
                f"  nginx grew by {kib.value:.1f} KiB a socket: it used memory of earlier"
                " sockets again. The former figure stays"
            )
        else:
            self.figures[f"{prefix}socket_kib"] = kib
        await self.close()
        await self.edge_deliveries()

    async def edge_deliveries(self) -> None:
        """Measure the processor time of nginx for a message on its way to a client."""
        cluster = self.cluster
        url = cluster.edge_tls or cluster.edge
        members = LARGE // 2 * len(cluster.workers)
        run = token_hex(8)
        await self.open(
            [cluster.probe(url, run, number) for number in range(members)],
            at_once=AT_ONCE // 2,
            hello=True,
        )
        costs = []
        for _ in range(REPETITIONS):
            before = await self.sample(cluster.edge_host, "nginx.service")
            answer = await self.exchange([0], DELIVERIES / members, members)
            after = await self.sample(cluster.edge_host, "nginx.service")
            costs.append(1e6 * (after["cpu"] - before["cpu"]) / answer["expected"])
        await self.close()
        self.figures["edge_delivery_microseconds"] = Figure.of(costs)

    async def exchange(self, senders: list[int], rate: float, members: int) -> dict[str, Any]:
        """Send messages to the open group, and account for them."""
        answer: dict[str, Any] = await self.cluster.client.ask(
            "say", senders=senders, rate=rate, seconds=SAY_SECONDS, members=members
        )
        return answer
