"""One client of the application, as a good client is: it comes back, and misses nothing.

The asyncio shell around `channels_kit.load.inbox`.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from time import monotonic
from typing import cast

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Origin

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
from channels_kit.load.inbox import Inbox
from channels_kit.load.ledger import Ledger
from channels_kit.load.login import LoginError, Logins
from channels_kit.load.outcome import Absence
from channels_kit.load.plan import Plan
from channels_kit.load.rate_limit import RateLimit
from channels_kit.load.timeline import UNKNOWN_WORKER, Timeline
from channels_kit.load.wire import MAX_SIZE, Wire
from channels_kit.probe.address import origin_of, websocket_url
from channels_kit.probe.socket import Connect, explain

BACKOFF_FIRST = 0.5
BACKOFF_MOST = 20.0
"""Seconds: the longest wait before the first attempt to come back, and before any; those of the
sample's page (app/chat/static/chat/socket.js)."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a handshake, and again for the first frame; a client tries again after it."""

PING_INTERVAL = 10.0
"""Seconds between pings, and for the answer: a connection that is dead and silent is left."""

GAP_PATIENCE = 0.5
"""Seconds a message that is passed by others may take; then it is asked for."""

GAP_ANSWER = 5.0
"""Seconds for the answer; then it is asked for again."""

RESEND_INTERVAL = 0.2
"""Seconds between two messages that are sent again, well below any limit of a server."""

CACHED_FRAME = 4096
"""Characters of the longest frame that is kept with its meaning."""

ABNORMAL_CLOSURE = 1006
"""The close code of a connection that ended without one."""

NO_CONNECTION = "no connection"
NO_LOGIN = "no login"
"""Why an attempt failed, where it was no answer to the handshake."""

# Websockets would log the request line with its token at DEBUG.
logger = logging.getLogger(f"{__name__}.websockets")
logger.setLevel(logging.INFO)


@dataclass
class Conditions:
    """What the clients of a conversation share.

    Attributes:
        plan: the conversation's.
        logins: those of its users.
        pace: that of their first handshakes.
        pace_again: that of those after a loss.
        ledger: told of every message.
        timeline: told of every socket.
        decode: what a frame says. The same frame comes to every client of a room: it is read
            once.
    """

    plan: Plan
    logins: Logins
    pace: RateLimit
    pace_again: RateLimit
    ledger: Ledger
    timeline: Timeline
    decode: Callable[[str | bytes], Event]


def reading(adapter: Adapter) -> Callable[[str | bytes], Event]:
    """Return the adapter's `decode` with a memory for short frames."""
    remembered = lru_cache(maxsize=1024)(adapter.decode)

    def decode(frame: str | bytes) -> Event:
        return remembered(frame) if len(frame) <= CACHED_FRAME else adapter.decode(frame)

    return decode


class Client:
    """A client in one room.

    Args:
        number: its number in the conversation, from 0.
        name: its name in the ledger.
        conditions: those of the conversation.
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
        # How often its connections ended, by close code; 1006 where none was said. Those that
        # ended before they said anything are counted apart.
        self.closes: Counter[int] = Counter()
        self.closes_unheard: Counter[int] = Counter()
        # How often it was not let in: in detail, and by HTTP status or what there was instead.
        self.failed_attempts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        # Refused frames, by code.
        self.refusals: Counter[str] = Counter()
        # How often a gap was asked for, and a message sent again.
        self.gaps_asked = 0
        self.sent_again = 0
        # The times between the loss of a connection and having caught up by another.
        self.away: list[Absence] = []
        # How many attempts to come back waited for the probe's own pace.
        self.held_back = 0
        # Where it connects: the next URL at each attempt.
        self._attempt = number // len(plan.rooms)
        # Whether the connection, or the last one, has said something.
        self._heard = False
        # Attempts since a connection last was of use.
        self._in_vain = 0
        # Seconds the server asked to stay away for.
        self._retry_after: float | None = None
        # When the connection was of use first, when the last one ended, and whose it is.
        self._since = 0.0
        self._ended_at = 0.0
        self._worker = UNKNOWN_WORKER
        # When it lost a connection, and with which code; until it has caught up.
        self._lost: tuple[float, int] | None = None
        # The number that it has caught up with the room at.
        self._goal: int | None = None
        # Ends a connection that says nothing.
        self._patience = asyncio.timeout(None)
        # Runs while there is a gap: asks for it.
        self._gap_timer: asyncio.TimerHandle | None = None
        # Runs where the server asked for a pause: sends again.
        self._refused_timer: asyncio.TimerHandle | None = None
        # What is being sent on this connection.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether it has a socket that has said something."""
        return self.connection is not None

    def say(self, name: str, text: str) -> None:
        """Send a message; it is sent again until it comes back under `name`."""
        self.conditions.ledger.sent(self.name, name, monotonic(), connected=self.connected)
        self.outbox[name] = text
        self._start(self._send(self.conditions.plan.adapter.encode_message(text, name)))

    async def run(self) -> None:
        """Stay in the room until cancelled, or until the server ends it for good."""
        while self.name not in self.conditions.ledger.failures:
            self._retry_after = None
            try:
                await self._connect_and_listen()
            except LoginRefused as error:
                self._fail(f"{self.user} was not let in: {error}")
            except ConnectionClosed as error:
                self._closed(error)
            except (OSError, TimeoutError, WebSocketException) as error:
                self._failed_to_connect(error)
            except (ValueError, KeyError, TypeError) as error:
                self._fail(f"received what the adapter does not know ({type(error).__name__})")
            delay = retry_delay(self._in_vain, self._retry_after)
            self._in_vain += 1
            await asyncio.sleep(delay)

    @property
    def absent(self) -> bool:
        """Whether it has lost a connection and is to come back."""
        return self._lost is not None and self.name not in self.conditions.ledger.failures

    def absences(self, now: float) -> list[Absence]:
        """Return how long it was away, each time; the last may not be over."""
        if self._lost is None or not self.absent:
            return self.away
        at, code = self._lost
        return [*self.away, Absence(code, now - at, over=False)]

    async def _connect_and_listen(self) -> None:
        conditions = self.conditions
        plan = conditions.plan
        base = plan.urls[self._attempt % len(plan.urls)]
        self._attempt += 1
        self._heard = False
        token = await conditions.logins.token(base, self.user)
        again = self._lost is not None
        held_back = await (conditions.pace_again if again else conditions.pace).wait()
        if again and held_back:
            self.held_back += 1
        path = plan.adapter.path(self.room, token, self.inbox.last)
        conditions.timeline.attempt(monotonic(), again=again)
        connection = await self._connect(base, path)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT) as self._patience:
                connection.listen(partial(self._hear, connection))
                await connection.ended()
        finally:
            self._left(connection)

    async def _connect(self, base: str, path: str) -> Wire:
        plan = self.conditions.plan
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            try:
                connection = await Connect(
                    websocket_url(base, path),
                    origin=Origin(plan.origin or origin_of(base)),
                    compression=None,
                    proxy=None,
                    open_timeout=None,
                    ping_interval=PING_INTERVAL,
                    ping_timeout=PING_INTERVAL,
                    max_size=MAX_SIZE,
                    logger=logger,
                    create_connection=Wire,
                )
            except ConnectionClosed as error:
                # Lost within the handshake: it was never open.
                raise OSError(explain(error)) from error
        return cast("Wire", connection)

    def _hear(self, connection: Wire, frame: str | bytes) -> None:
        """Act on a frame; the first makes its connection one of use."""
        event = self.conditions.decode(frame)
        if self.connection is None:
            if self._patience.expired():
                return
            self._patience.reschedule(None)
            self._arrived(connection, event)
        self._take(event)

    def _arrived(self, connection: Wire, event: Event) -> None:
        """Begin to use a connection that has said something."""
        conditions = self.conditions
        self._since = monotonic()
        self._in_vain = 0
        self._heard = True
        self.connection = connection
        self._worker = (isinstance(event, History) and event.worker) or UNKNOWN_WORKER
        conditions.timeline.opened(self._since, self._worker, again=self._lost is not None)
        if self._lost is not None:
            self._goal = conditions.ledger.newest(self.name)
        if self.outbox:
            self._start(self._send_again())

    def _left(self, connection: Wire) -> None:
        # Nothing more is wanted from it, not even its closing frame.
        connection.transport.abort()
        if self.connection is None:
            return
        self.connection = None
        self._ended_at = connection.closed_at or monotonic()
        self.conditions.timeline.left(self._ended_at, self._worker)
        self._goal = None
        for task in self._tasks:
            task.cancel()
        for timer in (self._gap_timer, self._refused_timer):
            if timer is not None:
                timer.cancel()
        self._gap_timer = self._refused_timer = None

    def _take(self, event: Event) -> None:
        """Act on a frame, and record what is delivered by it."""
        ledger = self.conditions.ledger
        match event:
            case Message():
                delivered = self.inbox.message(event)
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
                self._refused(event)
                return
            case _:
                return
        now = monotonic()
        for message in delivered:
            ledger.received(self.name, message, now, since=self._since)
        self._watch_for_gap()
        if self._goal is not None:
            self._look_whether_back(self._goal, now)

    def _look_whether_back(self, goal: int, now: float) -> None:
        """End an absence when everything is known that was said meanwhile."""
        last = self.inbox.last
        if self._lost is not None and last is not None and last >= max(goal, self.inbox.newest):
            at, code = self._lost
            self.away.append(Absence(code, now - at))
            self._lost = self._goal = None

    def _served_by(self, worker: str | None) -> None:
        if worker is not None and worker != self._worker:
            self.conditions.timeline.moved(self._since, self._worker, worker)
            self._worker = worker

    def _confirmed(self, *messages: Message) -> None:
        if self.outbox:
            for message in messages:
                self.outbox.pop(message.client_id or "", None)

    def _refused(self, refusal: Refusal) -> None:
        self.refusals[refusal.code] += 1
        if refusal.retry_after is not None and self._refused_timer is None:
            loop = asyncio.get_running_loop()
            self._refused_timer = loop.call_later(refusal.retry_after, self._pause_is_over)

    def _pause_is_over(self) -> None:
        self._refused_timer = None
        self._start(self._send_again())

    def _watch_for_gap(self) -> None:
        if self.inbox.gap is None:
            if self._gap_timer is not None:
                self._gap_timer.cancel()
                self._gap_timer = None
        elif self._gap_timer is None:
            loop = asyncio.get_running_loop()
            self._gap_timer = loop.call_later(GAP_PATIENCE, self._ask_for_gap)

    def _ask_for_gap(self) -> None:
        adapter = self.conditions.plan.adapter
        gap = self.inbox.gap
        if gap is None or self.connection is None:
            self._gap_timer = None
            return
        first, last = gap
        self.gaps_asked += 1
        self._start(self._send(adapter.encode_gap(first, min(last, first + adapter.gap_limit - 1))))
        loop = asyncio.get_running_loop()
        self._gap_timer = loop.call_later(GAP_ANSWER, self._ask_for_gap)

    async def _send_again(self) -> None:
        """Send everything that has not come back, slowly."""
        for name, text in list(self.outbox.items()):
            if name in self.outbox:
                self.sent_again += 1
                self.conditions.ledger.sent_again(name)
                await self._send(self.conditions.plan.adapter.encode_message(text, name))
                await asyncio.sleep(RESEND_INTERVAL)

    async def _send(self, frame: str) -> None:
        # Where it is closed, whoever reads from it notes why; the outbox has what was lost.
        if self.connection is not None:
            with suppress(ConnectionClosed):
                await self.connection.send(frame)

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _closed(self, error: ConnectionClosed) -> None:
        """Note how a connection ended that had been open."""
        code = error.rcvd.code if error.rcvd is not None else ABNORMAL_CLOSURE
        if self._heard:
            self.closes[code] += 1
            self.conditions.timeline.closed(self._ended_at, code)
            if self._lost is None:
                self._lost = self._ended_at, code
        else:
            self.closes_unheard[code] += 1
            self._not_let_in(f"closed with {code}", f"closed with {code}")
        if code in self.conditions.plan.adapter.final_codes:
            self._fail(explain(error))

    def _failed_to_connect(self, error: Exception) -> None:
        """Note why an attempt to connect failed; without its URL, which has a token."""
        match error:
            case InvalidStatus(response=response):
                status = response.status_code
                if status == HTTPStatus.SERVICE_UNAVAILABLE:
                    self._retry_after = _seconds(response.headers.get("Retry-After", ""))
                self._not_let_in(str(status), f"answered {status}")
            case LoginError():
                self._not_let_in(NO_LOGIN, str(error))
            case TimeoutError():
                self._not_let_in(NO_CONNECTION, f"no answer within {HANDSHAKE_TIMEOUT:g} s")
            case OSError():
                self._not_let_in(NO_CONNECTION, explain(error))
            case _:
                self._not_let_in(NO_CONNECTION, type(error).__name__)

    def _not_let_in(self, reason: str, detail: str) -> None:
        self.refused[reason] += 1
        self.failed_attempts[detail] += 1
        self.conditions.timeline.refused(monotonic(), reason)

    def _fail(self, reason: str) -> None:
        self.conditions.ledger.failed(self.name, reason)


def retry_delay(failures: int, retry_after: float | None) -> float:
    """Return how long to wait before the next attempt to connect, in seconds.

    Anything between nothing and a limit that grows, so that the clients of a worker that went
    away do not all come back in the same moment. A server that asks for a time gets that time,
    and as much again to spread the clients over.

    Args:
        failures: how many attempts there were since a connection was of use.
        retry_after: what the server asked for, in seconds.
    """
    if retry_after:
        return retry_after + random.uniform(0, retry_after)  # noqa: S311 - not for secrets
    # No float has the power of thousands of failures.
    most = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(failures, 10))
    return random.uniform(0, most)  # noqa: S311


def _seconds(retry_after: str) -> float | None:
    """Read a Retry-After of seconds; one with a date is as good as none."""
    return float(retry_after) if retry_after.isdecimal() else None
