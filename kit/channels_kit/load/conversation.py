"""A conversation: bring the clients in, let them talk, wait until everybody has everything."""

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
"""Seconds between two lines of status."""

QUIET = 1.0
"""Seconds after the last delivery in which copies of it can still come."""


async def run_load(
    plan: Plan, *, stop: asyncio.Event | None = None, progress: Progress | None = None
) -> Outcome:
    """Let clients of the application talk, and account for every message.

    Args:
        plan: who talks where, and how much.
        stop: set to stop sending, or coming in; what was sent is still waited for.
        progress: told of the phases, and each 5 s of the state.

    Returns:
        What was found: `outcome.ok`. Clients that fail are part of it and raise nothing.
    """
    return await Conversation(plan, stop or asyncio.Event(), progress or Progress()).run()


class Conversation:
    """The clients of one plan.

    Args:
        plan: the plan.
        stop: ends the phase of coming in, and that of sending.
        progress: told how far it is.
    """

    def __init__(self, plan: Plan, stop: asyncio.Event, progress: Progress) -> None:
        self.plan = plan
        self.stop = stop
        self.progress = progress
        # In the name of every message: another run's are not taken for this one's.
        self.run_name = token_hex(4)
        names = [f"client-{number}" for number in range(1, plan.clients + 1)]
        self.ledger = Ledger(
            {name: plan.rooms[number % len(plan.rooms)] for number, name in enumerate(names)}
        )
        self.began_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.timeline = Timeline(monotonic())
        pace = RateLimit(plan.connect_rate)
        conditions = Conditions(
            plan=plan,
            logins=Logins(plan.users, plan.adapter),
            pace=pace,
            pace_again=pace if plan.reconnect_rate is None else RateLimit(plan.reconnect_rate),
            ledger=self.ledger,
            timeline=self.timeline,
            decode=reading(plan.adapter),
        )
        self.clients = [Client(number, name, conditions) for number, name in enumerate(names)]
        # Seconds that were spent sending.
        self.seconds = 0.0
        # When it was over, before the clients left.
        self.ended_at = 0.0
        self.by_second: tuple[Second, ...] = ()
        # When the next line of status is due.
        self._status_at = 0.0

    async def run(self) -> Outcome:
        """Hold the conversation; return what was found."""
        tasks = [asyncio.create_task(client.run()) for client in self.clients]
        try:
            if await self._come_in():
                await self._send()
                await self._settle()
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

    async def _come_in(self) -> bool:
        """Wait for every client; return whether there is one at least, and none is missing."""
        plan = self.plan
        self._phase(f"connecting: {plan.clients} clients")
        # Slower than asked for is no fault of the application.
        deadline = monotonic() + plan.clients / plan.connect_rate + plan.settle
        await self._wait(
            deadline,
            lambda: (
                self.stop.is_set()
                or bool(self.ledger.failures)
                or all(client.connected for client in self.clients)
            ),
        )
        came = all(account.first is not None for account in self.ledger.accounts.values())
        if came and not self.stop.is_set():
            self._phase(f"connected: all {plan.clients} clients")
            return True
        return False

    async def _send(self) -> None:
        plan = self.plan
        count = max(1, round(plan.rate * plan.duration))
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
                name = f"{self.run_name}-{number + 1}"
                client.say(name, f"message {number + 1} of the probe's conversation")
        self.seconds = monotonic() - started

    async def _settle(self) -> None:
        self._phase(f"settling: {self._state}")
        deadline = monotonic() + self.plan.settle
        await self._wait(deadline, lambda: self.ledger.complete and self._all_back)
        if self.ledger.complete:
            await asyncio.sleep(QUIET)
        self._phase(f"done: {self._state}")

    async def _wait(self, deadline: float, over: Callable[[], bool]) -> None:
        """Return when `over` says so or at the deadline; write the status when it is due."""
        while not over() and (now := monotonic()) < deadline:
            if now >= self._status_at:
                self._phase(f"status: {self._state}")
            await asyncio.sleep(min(CHECK_INTERVAL, deadline - now))

    def _phase(self, text: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.progress.phase(f"{at} {text}")
        self._status_at = monotonic() + STATUS_INTERVAL

    @property
    def _all_back(self) -> bool:
        return not any(client.absent for client in self.clients)

    @property
    def _state(self) -> str:
        ledger = self.ledger
        connected = sum(client.connected for client in self.clients)
        behind = [ledger.behind(account) for account in ledger.accounts.values()]
        return (
            f"{connected} of {len(self.clients)} connected, {len(ledger.sendings)} sent,"
            f" {ledger.delivered} delivered, {sum(behind)} behind"
            f" at {sum(map(bool, behind))} clients, {len(ledger.never_stored)} not seen by anybody"
        )

    def _outcome(self) -> Outcome:
        ledger = self.ledger
        return Outcome(
            run=self.run_name,
            seconds=self.seconds,
            sent=len(ledger.sendings),
            delivered=ledger.delivered,
            never_stored={name: ledger.sendings[name].sender for name in ledger.never_stored},
            stored_twice={name: tuple(found) for name, found in ledger.stored_twice.items()},
            connected_latencies=ledger.connected_latencies,
            other_latencies=ledger.other_latencies,
            attempts_per_second=self.timeline.attempts_per_second,
            opened_per_second=self.timeline.opened_per_second,
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
            twice=tuple(account.twice),
            out_of_order=tuple(account.out_of_order),
            disagreements=tuple(account.disagreements),
            dropped=client.inbox.dropped,
            gaps_asked=client.gaps_asked,
            sent_again=client.sent_again,
            closes=dict(client.closes),
            closes_unheard=dict(client.closes_unheard),
            refused=dict(client.refused),
            failed_attempts=dict(client.failed_attempts),
            refusals=dict(client.refusals),
            away=tuple(client.absences(self.ended_at)),
            held_back=client.held_back,
        )
