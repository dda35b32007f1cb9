"""One client of the application, as a good client is: it comes back, and misses nothing.

The asyncio shell around `channels_kit.probe.talk.inbox`.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Origin

from channels_kit.probe.adapter import (
    Adapter,
    Event,
    Filling,
    History,
    LoginRefused,
    Message,
    Position,
    Refusal,
)
from channels_kit.probe.address import origin_of, websocket_url
from channels_kit.probe.socket import Connect, explain
from channels_kit.probe.talk.entrance import Logins, Pace
from channels_kit.probe.talk.inbox import Inbox
from channels_kit.probe.talk.ledger import Ledger
from channels_kit.probe.talk.plan import Plan

BACKOFF_FIRST = 0.5
BACKOFF_MOST = 15.0
"""Seconds: the longest wait before the first attempt to come back, and before any."""

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

MAX_SIZE = 2**24
"""Bytes a frame may have: a page of history has the most."""

CACHED_FRAME = 4096
"""Characters of the longest frame that is kept with its meaning."""

ABNORMAL_CLOSURE = 1006
"""The close code of a connection that ended without one."""

# Websockets would log the request line with its token at DEBUG.
logger = logging.getLogger(f"{__name__}.websockets")
logger.setLevel(logging.INFO)


@dataclass
class Conditions:
    """What the clients of a conversation share.

    Attributes:
        plan: the conversation's.
        logins: those of its users.
        pace: that of their handshakes.
        ledger: told of everything.
        decode: what a frame says. The same frame comes to every client of a room: it is read
            once.
    """

    plan: Plan
    logins: Logins
    pace: Pace
    ledger: Ledger
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
        self.connection: ClientConnection | None = None
        # How often its connections ended, by close code; 1006 where none was said.
        self.closes: Counter[int] = Counter()
        # How often it was not let in, by reason.
        self.failed_attempts: Counter[str] = Counter()
        # Refused frames, by code.
        self.refusals: Counter[str] = Counter()
        # How often a gap was asked for, and a message sent again.
        self.gaps_asked = 0
        self.sent_again = 0
        # Seconds between the end of a connection and the first frame of the next.
        self.away: list[float] = []
        # Where it connects: the next URL at each attempt.
        self._attempt = number // len(plan.rooms)
        # Whether the connection, or the last one, has said something.
        self._heard = False
        # Attempts since a connection last was of use.
        self._in_vain = 0
        # When the connection was of use first, and when the last one ended.
        self._since = 0.0
        self._left_at: float | None = None
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
            try:
                await self._connect_and_listen()
            except LoginRefused as error:
                self._fail(f"{self.user} was not let in: {error}")
            except ConnectionClosed as error:
                self._closed(error)
            except (OSError, TimeoutError, WebSocketException) as error:
                self.failed_attempts[_describe(error)] += 1
            except (ValueError, KeyError, TypeError) as error:
                self._fail(f"received what the adapter does not know ({type(error).__name__})")
            most = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(self._in_vain, 10))
            self._in_vain += 1
            await asyncio.sleep(random.uniform(0, most))  # noqa: S311 - not for secrets

    async def _connect_and_listen(self) -> None:
        plan = self.conditions.plan
        base = plan.urls[self._attempt % len(plan.urls)]
        self._attempt += 1
        self._heard = False
        token = await self.conditions.logins.token(base, self.user)
        await self.conditions.pace.wait()
        path = plan.adapter.path(self.room, token, self.inbox.last)
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
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
            )
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                frame = await connection.recv()
            self._arrived(connection)
            while True:
                self._take(self.conditions.decode(frame))
                frame = await connection.recv()
        finally:
            self._left(connection)

    def _arrived(self, connection: ClientConnection) -> None:
        """Begin to use a connection that has said something."""
        self._since = monotonic()
        if self._left_at is not None:
            self.away.append(self._since - self._left_at)
        self._in_vain = 0
        self._heard = True
        self.connection = connection
        if self.outbox:
            self._start(self._send_again())

    def _left(self, connection: ClientConnection) -> None:
        # Nothing more is wanted from it, not even its closing frame.
        connection.transport.abort()
        if self.connection is None:
            return
        self.connection = None
        self._left_at = monotonic()
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
        code = error.rcvd.code if error.rcvd is not None else ABNORMAL_CLOSURE
        if self._heard:
            self.closes[code] += 1
        else:
            self.failed_attempts[f"closed with {code}"] += 1
        if code in self.conditions.plan.adapter.final_codes:
            self._fail(explain(error))

    def _fail(self, reason: str) -> None:
        self.conditions.ledger.failed(self.name, reason)


def _describe(error: Exception) -> str:
    """Say why an attempt to connect failed; without its URL, which has a token."""
    match error:
        case InvalidStatus(response=response):
            return f"answered {response.status_code}"
        case TimeoutError():
            return f"no answer within {HANDSHAKE_TIMEOUT:g} s"
        case OSError():
            return explain(error)
        case _:
            return type(error).__name__
