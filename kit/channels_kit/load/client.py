"""One client of the application, as a good client is: it reconnects, and misses nothing.

The asyncio shell around `channels_kit.load.inbox`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from time import monotonic

from channels_kit.load.adapter import (
    Adapter,
    Event,
    Filling,
    History,
    LoginRefused,
    Message,
    Position,
    Refusal,
)
from channels_kit.load.gaps import GapRequests
from channels_kit.load.inbox import Inbox
from channels_kit.load.ledger import Ledger
from channels_kit.load.login import LoginError, Logins
from channels_kit.load.outcome import Recovery
from channels_kit.load.plan import Plan
from channels_kit.load.rate_limit import RateLimit
from channels_kit.load.timeline import UNKNOWN_WORKER, Timeline
from channels_kit.load.wire import Closed, Refused, Wire, connect
from channels_kit.probe.address import origin_of, websocket_url
from channels_kit.probe.socket import explain

BACKOFF_FIRST = 0.5
BACKOFF_MOST = 20.0
"""Seconds: the longest wait before the first attempt to come back, and before any; those of the
sample's page (app/chat/static/chat/socket.js)."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a handshake, and again for the first frame; a client tries again after it."""

RESEND_INTERVAL = 0.2
"""Seconds between two messages that are sent again, well below any limit of a server."""

CACHED_FRAME = 4096
"""Characters of the longest frame that is kept with its meaning."""

ABNORMAL_CLOSURE = 1006
"""The close code of a connection that ended without one."""

NO_CONNECTION = "no connection"
NO_LOGIN = "no login"
"""Why an attempt failed, where the handshake got no answer."""


@dataclass
class Conditions:
    """What the clients of a run share.

    Attributes:
        plan: the plan of the run.
        logins: the logins of its users.
        connect_limit: the rate of first handshakes.
        reconnect_limit: the rate of handshakes after a loss.
        ledger: records every message.
        timeline: records every socket.
        decode: returns what a frame says. All clients of a room get the same frame, so it is
            decoded once.
    """

    plan: Plan
    logins: Logins
    connect_limit: RateLimit
    reconnect_limit: RateLimit
    ledger: Ledger
    timeline: Timeline
    decode: Callable[[str | bytes], Event]


def reading(adapter: Adapter) -> Callable[[str | bytes], Event]:
    """Return the adapter's `decode` with a cache for short frames."""
    remembered = lru_cache(maxsize=1024)(adapter.decode)

    def decode(frame: str | bytes) -> Event:
        return remembered(frame) if len(frame) <= CACHED_FRAME else adapter.decode(frame)

    return decode


class Client:
    """A client in one room.

    Args:
        number: its number in the run, from 0.
        name: its name in the ledger.
        conditions: what it shares with the other clients.
    """

    def __init__(self, number: int, name: str, conditions: Conditions) -> None:
        plan = conditions.plan
        users = list(plan.users)
        self.name = name
        self.room = plan.rooms[number % len(plan.rooms)]
        self.user = users[number % len(users)]
        self.conditions = conditions
        self.inbox = Inbox()
        # Messages that have not come back, by the client's own name for each.
        self.outbox: dict[str, str] = {}
        # The socket, from its first frame to its end.
        self.connection: Wire | None = None
        # How often its connections ended, by close code; 1006 where there was none. Those that
        # ended before their first frame are counted apart.
        self.closes: Counter[int] = Counter()
        self.early_closes: Counter[int] = Counter()
        # How often it could not connect: by HTTP status or reason, and in detail.
        self.failed_connects: Counter[str] = Counter()
        self.failed_connects_detail: Counter[str] = Counter()
        # Frames that the server rejected, by code.
        self.rejected_frames: Counter[str] = Counter()
        # How often a gap was asked for, and a message sent again.
        self.gaps_asked = 0
        self.resent = 0
        # The times from the loss of a connection until it had caught up on another.
        self.recoveries: list[Recovery] = []
        # How many reconnect attempts waited for this program's own rate limit.
        self.throttled = 0
        # Where it connects: the next URL at each attempt.
        self._attempt = number // len(plan.rooms)
        # Whether the connection, or the last one, has had a frame.
        self._heard = False
        # Failed attempts since the last connection that had a frame.
        self._failures = 0
        # Seconds the server asked to wait for.
        self._retry_after: float | None = None
        # When the connection had its first frame, when the last one ended, and its worker.
        self._since = 0.0
        self._ended_at = 0.0
        self._worker = UNKNOWN_WORKER
        # When it lost a connection, and with which code; None once it has caught up.
        self._lost: tuple[float, int] | None = None
        # The number at which it has caught up with the room.
        self._goal: int | None = None
        # Ends a connection that sends no frame.
        self._patience = asyncio.timeout(None)
        # Ask for what this connection lacks; None before the first connection.
        self._gaps: GapRequests | None = None
        # Runs where the server asked for a pause: sends again.
        self._refused_timer: asyncio.TimerHandle | None = None
        # What is being sent on this connection.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether it has a socket that has had a frame."""
        return self.connection is not None

    def say(self, name: str, text: str) -> None:
        """Send a message; it is sent again until it comes back under `name`."""
        self.conditions.ledger.sent(self.name, name, monotonic(), connected=self.connected)
        self.outbox[name] = text
        self._start(self._send(self.conditions.plan.adapter.encode_message(text, name)))

    async def run(self) -> None:
        """Stay in the room until cancelled, or until the server closes it for good."""
        while self.name not in self.conditions.ledger.failures:
            self._retry_after = None
            try:
                await self._connect_and_listen()
            except LoginRefused as error:
                self._fail(f"login of {self.user} refused: {error}")
            except Closed as error:
                self._closed(error)
            except (OSError, Refused) as error:
                self._failed_to_connect(error)
            except (ValueError, KeyError, TypeError) as error:
                self._fail(f"the adapter cannot decode a frame ({type(error).__name__})")
            delay = retry_delay(self._failures, self._retry_after)
            self._failures += 1
            await asyncio.sleep(delay)

    @property
    def recovering(self) -> bool:
        """Whether it has lost a connection and not caught up yet."""
        return self._lost is not None and self.name not in self.conditions.ledger.failures

    def recoveries_until(self, now: float) -> list[Recovery]:
        """Return its recoveries; the last may not be complete."""
        if self._lost is None or not self.recovering:
            return self.recoveries
        at, code = self._lost
        return [*self.recoveries, Recovery(code, now - at, complete=False)]

    async def _connect_and_listen(self) -> None:
        conditions = self.conditions
        plan = conditions.plan
        base = plan.urls[self._attempt % len(plan.urls)]
        self._attempt += 1
        self._heard = False
        token = await conditions.logins.token(base, self.user)
        again = self._lost is not None
        throttled = await (conditions.reconnect_limit if again else conditions.connect_limit).wait()
        if again and throttled:
            self.throttled += 1
        path = plan.adapter.path(self.room, token, self.inbox.last)
        conditions.timeline.attempt(monotonic(), again=again)
        connection = await connect(
            websocket_url(base, path),
            origin=plan.origin or origin_of(base),
            timeout=HANDSHAKE_TIMEOUT,
        )
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT) as self._patience:
                connection.listen(partial(self._hear, connection))
                await connection.ended()
        finally:
            self._left(connection)

    def _hear(self, connection: Wire, frame: str | bytes) -> None:
        """Act on a frame; from the first on, the client is connected."""
        event = self.conditions.decode(frame)
        if self.connection is None:
            if self._patience.expired():
                return
            self._patience.reschedule(None)
            self._arrived(connection, event)
        self._take(event)

    def _arrived(self, connection: Wire, event: Event) -> None:
        """Begin to use a connection that has had a frame."""
        conditions = self.conditions
        self._since = monotonic()
        self._failures = 0
        self._heard = True
        self.connection = connection
        self._gaps = GapRequests(self._ask_for_gap, asyncio.get_running_loop().call_later)
        self._worker = (isinstance(event, History) and event.worker) or UNKNOWN_WORKER
        conditions.timeline.opened(self._since, self._worker, again=self._lost is not None)
        if self._lost is not None:
            self._goal = conditions.ledger.newest(self.name)
        if self.outbox:
            self._start(self._send_again())

    def _left(self, connection: Wire) -> None:
        # Nothing more is wanted from it, not even its closing frame.
        connection.abort()
        if self.connection is None:
            return
        self.connection = None
        self._ended_at = connection.closed_at or monotonic()
        self.conditions.timeline.left(self._ended_at, self._worker)
        self._goal = None
        for task in self._tasks:
            task.cancel()
        if self._gaps is not None:
            self._gaps.stop()
        if self._refused_timer is not None:
            self._refused_timer.cancel()
        self._refused_timer = None

    def _take(self, event: Event) -> None:
        """Act on a frame, and record what is delivered by it."""
        ledger = self.conditions.ledger
        match event:
            case Message():
                delivered = self.inbox.message(event)
                if not delivered and event.sequence <= (self.inbox.last or 0) and self._gaps:
                    self._gaps.copied()
                self._confirmed(event)
            case History():
                if self.inbox.last is None:
                    ledger.began(self.name, event.known)
                self._served_by(event.worker)
                ledger.heard_of(self.name, event.known)
                delivered = self.inbox.history(event)
                self._confirmed(*event.messages)
            case Filling():
                ledger.heard_of(self.name, event.newest)
                delivered = self.inbox.filling(event)
                self._confirmed(*event.messages)
            case Position():
                ledger.heard_of(self.name, event.newest)
                self.inbox.heard_of(event.newest)
                delivered = []
            case Refusal():
                self._rejected(event)
                return
            case _:
                return
        now = monotonic()
        for message in delivered:
            ledger.received(self.name, message, now, since=self._since)
        if self._gaps is not None:
            self._gaps.took(
                gap=self.inbox.gap is not None,
                progress=bool(delivered),
                answer=isinstance(event, Filling),
            )
        if self._goal is not None:
            self._end_recovery(self._goal, now)

    def _end_recovery(self, goal: int, now: float) -> None:
        """End a recovery once the client has everything that was sent meanwhile."""
        last = self.inbox.last
        if self._lost is not None and last is not None and last >= max(goal, self.inbox.newest):
            at, code = self._lost
            self.recoveries.append(Recovery(code, now - at))
            self._lost = self._goal = None

    def _served_by(self, worker: str | None) -> None:
        if worker is not None and worker != self._worker:
            self.conditions.timeline.moved(self._since, self._worker, worker)
            self._worker = worker

    def _confirmed(self, *messages: Message) -> None:
        if self.outbox:
            for message in messages:
                self.outbox.pop(message.client_id or "", None)

    def _rejected(self, refusal: Refusal) -> None:
        self.rejected_frames[refusal.code] += 1
        if refusal.retry_after is not None and self._refused_timer is None:
            loop = asyncio.get_running_loop()
            self._refused_timer = loop.call_later(refusal.retry_after, self._pause_is_over)

    def _pause_is_over(self) -> None:
        self._refused_timer = None
        self._start(self._send_again())

    def _ask_for_gap(self) -> bool | None:
        """Ask for what is missing; return whether more is, or None where nothing is."""
        adapter = self.conditions.plan.adapter
        gap = self.inbox.gap
        if gap is None or self.connection is None:
            return None
        first, last = gap
        end = min(last, first + adapter.gap_limit - 1)
        self.gaps_asked += 1
        self._start(self._send(adapter.encode_gap(first, end)))
        return end < last

    async def _send_again(self) -> None:
        """Send everything that has not come back, slowly."""
        for name, text in list(self.outbox.items()):
            if name in self.outbox:
                self.resent += 1
                self.conditions.ledger.sent_again(name)
                await self._send(self.conditions.plan.adapter.encode_message(text, name))
                await asyncio.sleep(RESEND_INTERVAL)

    async def _send(self, frame: str) -> None:
        # A frame that a closed connection drops is still in the outbox.
        if self.connection is not None:
            self.connection.send(frame)

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _closed(self, closed: Closed) -> None:
        """Record how a connection ended that had been open."""
        code = ABNORMAL_CLOSURE if closed.code is None else closed.code
        if self._heard:
            self.closes[code] += 1
            self.conditions.timeline.closed(self._ended_at, code)
            if self._lost is None:
                self._lost = self._ended_at, code
        else:
            self.early_closes[code] += 1
            self._connect_failed(f"closed with {code}", f"closed with {code}")
        if code in self.conditions.plan.adapter.final_codes:
            self._fail(str(closed))

    def _failed_to_connect(self, error: OSError | Refused) -> None:
        """Record why an attempt to connect failed; without its URL, which has a token."""
        match error:
            case Refused(status=status):
                if status == HTTPStatus.SERVICE_UNAVAILABLE:
                    self._retry_after = _seconds(error.retry_after)
                self._connect_failed(str(status), str(error))
            case LoginError():
                self._connect_failed(NO_LOGIN, str(error))
            case TimeoutError():
                self._connect_failed(NO_CONNECTION, f"no answer within {HANDSHAKE_TIMEOUT:g} s")
            case _:
                self._connect_failed(NO_CONNECTION, explain(error))

    def _connect_failed(self, reason: str, detail: str) -> None:
        self.failed_connects[reason] += 1
        self.failed_connects_detail[detail] += 1
        self.conditions.timeline.connect_failed(monotonic(), reason)

    def _fail(self, reason: str) -> None:
        self.conditions.ledger.failed(self.name, reason)


def retry_delay(failures: int, retry_after: float | None) -> float:
    """Return how long to wait before the next attempt to connect, in seconds.

    Anything between zero and a limit that grows, so that the clients of a stopped worker do not
    all reconnect at the same moment. Where the server asks for a time, clients wait that time, and
    spread over as much again.

    Args:
        failures: how many attempts failed since the last connection that had a frame.
        retry_after: what the server asked for, in seconds.
    """
    if retry_after:
        return retry_after + random.uniform(0, retry_after)  # noqa: S311 - not for secrets
    # No float has the power of thousands of failures.
    most = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(failures, 10))
    return random.uniform(0, most)  # noqa: S311


def _seconds(retry_after: str) -> float | None:
    """Read a Retry-After in seconds; one with a date counts as none."""
    return float(retry_after) if retry_after.isdecimal() else None
