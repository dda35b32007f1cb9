"""What messages cost, and how many a worker delivers in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

from calibration.estimates import Exchange, Figure, message_costs
from calibration.hosts import CalibrationError
from calibration.measuring import (
    AT_ONCE,
    DELIVERIES,
    LARGE,
    REPETITIONS,
    SAY_SECONDS,
    Measuring,
)

LATENCY = 0.25
"""Seconds that the 99th of 100 deliveries may take."""

SMALL = 4
"""Sockets of a worker in the small group; LARGE is the other."""

TRIES = 3

LEAST_BUSY = 0.5
"""Share of a core below which a worker that is late is not the cause."""


class Traffic(Measuring):
    """Measures messages, beside what `Measuring` does."""

    async def run(self) -> None:
        """Measure everything.

        Raises:
            CalibrationError: something cannot be measured.
        """
        await super().run()
        await self.deliveries()
        await self.most_deliveries()

    async def deliveries(self) -> None:
        """Measure what a message costs workers and Redis, by the number of its members."""
        workers = list(self.cluster.workers)
        target = self.cluster.target
        others = [worker for worker in workers if worker is not target]
        if not others:
            self.say("deliveries: not measured with one worker; former figures or defaults stay")
            return
        self.say(
            f"deliveries: {REPETITIONS} x {SAY_SECONDS:g} s to groups of {SMALL * len(workers)},"
            f" {LARGE * len(workers)} and {LARGE} sockets on {len(workers)} workers"
        )
        small = [each async for each in self.exchanges(target, others, SMALL)]
        large = [each async for each in self.exchanges(target, others, LARGE)]
        alone = [each async for each in self.exchanges(target, [], LARGE)]
        self.figures |= message_costs(small, large, alone)
        self.measured["room_size"] = LARGE * len(workers)

    async def exchanges(
        self, target: Mapping[str, Any], others: Sequence[Mapping[str, Any]], members: int
    ) -> AsyncIterator[Exchange]:
        """Yield exchanges of a group with sockets on these workers; the first worker sends."""
        async with self.group([target, *others], members):
            for _ in range(REPETITIONS):
                yield await self.one_exchange(target, others, members)

    @asynccontextmanager
    async def group(
        self, workers: Sequence[Mapping[str, Any]], members: int
    ) -> AsyncIterator[None]:
        """Open sockets of one group on workers; the first worker's come first."""
        run = token_hex(8)
        targets = [
            self.cluster.probe(worker["url"], run, position * members + number)
            for position, worker in enumerate(workers)
            for number in range(members)
        ]
        await self.open(targets, at_once=AT_ONCE // 2, hello=True)
        try:
            yield
        finally:
            await self.close()

    async def one_exchange(
        self, target: Mapping[str, Any], others: Sequence[Mapping[str, Any]], members: int
    ) -> Exchange:
        """Return what one run of messages costs."""
        cluster = self.cluster
        count = 1 + len(others)
        rate = min(60.0, DELIVERIES / (count * members))
        before = await self.all_processors([target, *others])
        answer = await self.exchange(list(range(members)), rate, count * members)
        after = await self.all_processors([target, *others])
        if answer["delivered"] < answer["expected"]:
            raise CalibrationError(
                f"{answer['expected'] - answer['delivered']} of {answer['expected']} deliveries are"
                f" missing at {rate:.0f} messages/s: prove delivery first (make verify)"
            )
        used = [end - begin for begin, end in zip(before, after, strict=True)]
        redis = used.pop() if cluster.redis_host else 0.0
        return Exchange(count, members, answer["sent"], used[0], tuple(used[1:]), redis)

    async def all_processors(self, workers: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return the processor time of workers, and of Redis if it is the cluster's."""
        asked = [self.worker(worker) for worker in workers]
        if self.cluster.redis_host:
            asked.append(self.sample(self.cluster.redis_host, "redis-server@layer.service"))
        # One after the other: two requests to one host would take each other's answers.
        return [(await each)["cpu"] for each in asked]

    async def most_deliveries(self) -> None:
        """Find the most deliveries a second of one worker at a bounded latency."""
        target = self.cluster.target
        self.say(f"most deliveries of one worker: p99 below {1000 * LATENCY:.0f} ms")
        passed, failed = 0.0, 0.0
        busy = most_busy = 0.0
        async with self.group([target], LARGE):
            rate = DELIVERIES / LARGE
            for _ in range(12):
                kept, share = await self.keeps_up(target, rate)
                if kept:
                    passed, busy = rate, share
                else:
                    failed, most_busy = rate, share
                if failed and failed / max(passed, 1e-9) < 1.15:
                    break
                if not failed:
                    rate *= 1.4
                elif passed:
                    rate = (passed * failed) ** 0.5
                else:
                    rate /= 2
        if not passed:
            raise CalibrationError(
                f"{target['name']} does not make {rate * LARGE:.0f} deliveries a second within"
                f" {1000 * LATENCY:.0f} ms. Stop other work on the machine, then retry."
            )
        if most_busy and most_busy < LEAST_BUSY:
            self.say(
                f"  The worker was late at {100 * most_busy:.0f} % of a core: something else on the"
                " machine was busy. The former figure stays; measure again on an idle machine"
            )
            return
        most = failed or passed
        self.figures["deliveries_per_second"] = Figure(LARGE * passed, LARGE * passed, LARGE * most)
        shares = sorted((busy, most_busy or busy))
        self.figures["busy_percent"] = Figure(100 * busy, 100 * shares[0], 100 * shares[1])
        self.measured["deliveries_per_second"] = round(LARGE * passed)

    async def keeps_up(self, target: Mapping[str, Any], rate: float) -> tuple[bool, float]:
        """Return whether a worker delivers messages at a rate in time, and its share of a core.

        One stall of the machine makes a run late: it counts if the next runs are late, too.
        """
        for _ in range(TRIES):
            before = await self.worker(target)
            answer = await self.exchange(list(range(LARGE)), rate, LARGE)
            after = await self.worker(target)
            kept = answer["p99"] < LATENCY and answer["delivered"] == answer["expected"]
            share = (after["cpu"] - before["cpu"]) / answer["seconds"]
            missing = answer["expected"] - answer["delivered"]
            self.say(
                f"  {rate * LARGE:6.0f} deliveries/s: p99 {1000 * answer['p99']:.0f} ms,"
                f" {100 * share:.0f} % of a core"
                + (f", {missing} missing" if missing else "")
                + ("" if kept else ": too late")
            )
            if kept:
                break
        return kept, share
