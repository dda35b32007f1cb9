"""A run: connect the clients, send messages, wait until every client has all of them."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex
from time import monotonic

from channels_kit.load.client import Client, Conditions, reading
from channels_kit.load.ledger import Ledger
from channels_kit.load.login import Logins
from channels_kit.load.outcome import ClientOutcome, Outcome
from channels_kit.load.plan import Plan
from channels_kit.load.rate_limit import RateLimit
from channels_kit.load.timeline import Second, Timeline
from channels_kit.probe.progress import Progress

CHECK_INTERVAL = 0.1
"""Seconds between two looks at whether a phase is over."""

STATUS_INTERVAL = 5.0
"""Seconds between two status lines. A change of "all clients are connected" adds one at once."""

QUIET = 1.0
"""Seconds after the last delivery in which duplicates can still come."""


async def run_load(
    plan: Plan,
    *,
    stop: asyncio.Event | None = None,
    end: asyncio.Event | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Send messages as clients of the application, and account for every one.

    Args:
        plan: which clients send how much, and where.
        stop: set to stop connecting, or sending; the grace period follows the sending.
        end: set to end the grace period, too.
        progress: receives the phases, a status every 5 s, and a status when all clients are
            connected or the first of them disconnects.

    Returns:
        What was found: `outcome.ok`. Clients that fail are part of it and raise nothing.
    """
    return await Run(
        plan, stop or asyncio.Event(), end or asyncio.Event(), progress or Progress()
    ).run()


class Run:
    """The clients of one plan.

    Args:
        plan: the plan.
        stop: ends connecting and sending.
        end: ends the grace period.
        progress: receives the phases.
    """

    def __init__(
        self, plan: Plan, stop: asyncio.Event, end: asyncio.Event, progress: Progress
    ) -> None:
        self.plan = plan
        self.stop = stop
        self.end = end
        self.progress = progress
        # Part of the identifier of every message: those of another run are not mixed up with it.
        self.run_id = token_hex(4)
        names = [f"client-{number}" for number in range(1, plan.clients + 1)]
        self.ledger = Ledger(
            {name: plan.rooms[number % len(plan.rooms)] for number, name in enumerate(names)}
        )
        self.began_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.timeline = Timeline(monotonic())
        limit = RateLimit(plan.connect_rate)
        conditions = Conditions(
            plan=plan,
            logins=Logins(plan.users, plan.adapter),
            connect_limit=limit,
            reconnect_limit=(
                limit if plan.reconnect_rate is None else RateLimit(plan.reconnect_rate)
            ),
            ledger=self.ledger,
            timeline=self.timeline,
            decode=reading(plan.adapter),
        )
        self.clients = [Client(number, name, conditions) for number, name in enumerate(names)]
        # How long messages were sent.
        self.seconds = 0.0
        # When it ended, before the clients disconnected.
        self.ended_at = 0.0
        self.by_second: tuple[Second, ...] = ()
        # When the next line of status is due, and whether all were connected at the last one.
        self._status_at = 0.0
        self._complete = False

    async def run(self) -> Outcome:
        """Run the plan; return what was found."""
        tasks = [asyncio.create_task(client.run()) for client in self.clients]
        try:
            if await self._connect():
                await self._send()
                await self._grace()
            self.ended_at = monotonic()
            self.by_second = self.timeline.seconds(self.ended_at)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        self.progress.done()
        return self._outcome()

    async def _connect(self) -> bool:
        """Wait for every client; return whether all have joined, and none is missing."""
        plan = self.plan
        self._phase(f"connecting: {plan.clients} clients")
        # A slow start that was asked for is no fault of the application.
        deadline = monotonic() + plan.clients / plan.connect_rate + plan.grace
        await self._wait(
            deadline,
            lambda: (
                self.stop.is_set()
                or bool(self.ledger.failures)
                or all(client.connected for client in self.clients)
            ),
        )
        joined = all(account.first is not None for account in self.ledger.accounts.values())
        if joined and not self.stop.is_set():
            self._phase(f"connected: all {plan.clients} clients")
            return True
        return False

    async def _send(self) -> None:
        plan = self.plan
        count = max(1, round(plan.rate * plan.duration)) if plan.duration else 0
        self._phase(f"sending: {plan.rate:g} messages/s for {plan.duration:g} s")
        started = monotonic()
        for number in range(count):
            # From the beginning and not from the last one: a late message delays no other.
            due = started + number / plan.rate
            await self._wait(due, self.stop.is_set)
            if self.stop.is_set():
                break
            client = self.clients[number % len(self.clients)]
            if client.name not in self.ledger.failures:
                name = f"{self.run_id}-{number + 1}"
                client.say(name, f"message {number + 1} of the run {self.run_id}")
        self.seconds = monotonic() - started

    async def _grace(self) -> None:
        """Wait for outstanding deliveries, and for clients that are recovering."""
        self._phase(f"grace: up to {self.plan.grace:g} s for outstanding deliveries; {self._state}")
        deadline = monotonic() + self.plan.grace
        await self._wait(
            deadline,
            lambda: self.end.is_set() or (self.ledger.complete and self._all_recovered),
        )
        if self.ledger.complete and not self.end.is_set():
            await asyncio.sleep(QUIET)
        self._phase(f"done: {self._state}")

    async def _wait(self, deadline: float, over: Callable[[], bool]) -> None:
        """Return when `over` says so or at the deadline; report the status when it is due."""
        while not over() and (now := monotonic()) < deadline:
            if now >= self._status_at or self._all_connected != self._complete:
                self._phase(f"status: {self._state}")
            await asyncio.sleep(min(CHECK_INTERVAL, deadline - now))

    def _phase(self, text: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.progress.phase(f"{at} {text}")
        self._status_at = monotonic() + STATUS_INTERVAL
        self._complete = self._all_connected

    @property
    def _all_connected(self) -> bool:
        return all(client.connected for client in self.clients)

    @property
    def _all_recovered(self) -> bool:
        return not any(client.recovering for client in self.clients)

    @property
    def _state(self) -> str:
        ledger = self.ledger
        connected = sum(client.connected for client in self.clients)
        behind = [ledger.behind(account) for account in ledger.accounts.values()]
        return (
            f"{connected} of {len(self.clients)} connected, {len(ledger.sendings)} sent,"
            f" {ledger.delivered} delivered, {sum(behind)} outstanding"
            f" at {sum(map(bool, behind))} clients, {len(ledger.undelivered)} received by no client"
        )

    def _outcome(self) -> Outcome:
        ledger = self.ledger
        return Outcome(
            run=self.run_id,
            seconds=self.seconds,
            sent=len(ledger.sendings),
            delivered=ledger.delivered,
            undelivered={name: ledger.sendings[name].sender for name in ledger.undelivered},
            stored_twice={name: tuple(found) for name, found in ledger.stored_twice.items()},
            connected_latencies=ledger.connected_latencies,
            other_latencies=ledger.other_latencies,
            reconnect_attempts_per_second=self.timeline.reconnect_attempts_per_second,
            reconnected_per_second=self.timeline.reconnected_per_second,
            began_at=self.began_at,
            timeline=self.by_second,
            limits=self.plan.limits,
            clients=tuple(self._client_outcome(client) for client in self.clients),
        )

    def _client_outcome(self, client: Client) -> ClientOutcome:
        account = self.ledger.accounts[client.name]
        return ClientOutcome(
            name=client.name,
            room=client.room,
            user=client.user,
            failure=self.ledger.failures.get(client.name),
            first=account.first,
            last=account.last,
            delivered=account.delivered,
            lost=tuple(self.ledger.lost(account)),
            duplicates=tuple(account.duplicates),
            out_of_order=tuple(account.out_of_order),
            conflicts=tuple(account.conflicts),
            duplicates_dropped=client.inbox.dropped,
            gaps_asked=client.gaps_asked,
            resent=client.resent,
            closes=dict(client.closes),
            early_closes=dict(client.early_closes),
            failed_connects=dict(client.failed_connects),
            failed_connects_detail=dict(client.failed_connects_detail),
            rejected_frames=dict(client.rejected_frames),
            recoveries=tuple(client.recoveries_until(self.ended_at)),
            throttled=client.throttled,
        )
