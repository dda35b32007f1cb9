"""The WebSockets of one worker: how they begin, how many there are, how they end.

- A handshake that the application neither accepts nor refuses is cut. Uvicorn would wait for ever;
  nginx gives up at its read timeout and tries the next worker, which hangs as well.
- Above a number of sockets a worker refuses more, so that nginx tries the next one; and so it does
  with handshakes that it would serve too late: places.py. The proof's sockets have places of their
  own.
- A worker that drains refuses new ones too, and closes those it has one after the other. A server
  that stops closes all at once, and all their clients come back at once.
- A worker that another process has replaced keeps those it has, and takes none any more.
- Those that came through a process of the edge which a reload has replaced are closed one after the
  other before that process cuts them.

Nothing here knows which ASGI server it runs in.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from typing import Any

from prometheus_client import Histogram

from channels_kit.serving.edges import Edges, Generation
from channels_kit.serving.places import HANDSHAKE_WAIT, Places
from channels_kit.serving.responses import refuse_with_status
from channels_kit.serving.settings import ServingSettings
from channels_kit.serving.types import FRAMES, ASGIApplication, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1 and the registry it founds
NO_STATUS = 1005
ABNORMAL_CLOSURE = 1006
SERVICE_RESTART = 1012
FIRST_OF_APPLICATIONS = 3000

RETRY_AFTER = 5
"""Seconds after which a client that a worker has not taken may try again."""

BUSY_RETRY_AFTER = ceil(HANDSHAKE_WAIT)
"""The same where it has too many handshakes in hand: they are decided by then."""

CLOSE_TIMEOUT = 3.0
"""Seconds a client has to answer the drain's close; then the application is told without it.

Hypercorn would wait for the answer for ever, and so would, under Uvicorn too, an application that
sends to a client which does not read.
"""

RETIREMENT = (0.5, 0.9)
"""Between which parts of the time that a replaced edge has its sockets are closed. Most have ended
by themselves by then."""

PROBE_SOCKETS = 64
"""Sockets of the proof that a worker takes beside `max_sockets`, `HANDSHAKES` of them at once.
The proof passes on a worker that is full or busy, and takes no client's place."""

RETIREMENT_GRACE = 1.0
"""Seconds for which a replaced worker still takes handshakes: of connections that it accepted just
before. Later ones come on connections that an edge has kept."""

REFUSALS = (
    "draining",
    "retired",
    "full",
    "busy",
    "late",
    "application",
    "undecided",
    "unauthorized",
)
"""Why a handshake is not accepted: the worker drains, has been replaced, has no room, would serve
it too late, has cut the application; the application has refused, or ended without a word, or it is
a probe's that shows no token."""

_DECISIONS = {"websocket.accept", "websocket.close", "websocket.http.response.start"}


@dataclass
class SocketCounts:
    """What has happened to the sockets of a worker since it started.

    Attributes:
        opened: handshakes accepted.
        handshake_seconds: what each of them took.
        refused: handshakes not accepted, by the reason.
        closed: accepted sockets that have ended, by their close code. The codes that are for
            applications to choose from are one where the client chose: it has 2000 of them.
        received: messages of the clients.
        sent: messages to the clients.
    """

    opened: int = 0
    handshake_seconds: Histogram = field(
        default_factory=lambda: Histogram(
            "channels_kit_handshake_seconds",
            "Time from a handshake until the application accepted it.",
            registry=None,
        )
    )
    refused: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(REFUSALS, 0)))
    closed: Counter[int] = field(default_factory=Counter)
    received: int = 0
    sent: int = 0


class Sockets:
    """Runs the WebSockets of this worker.

    Args:
        settings: how this worker serves.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings
        self.counts = SocketCounts()
        self.draining = False
        # Whether another process has the port, and until when handshakes are taken nevertheless.
        self.retired = False
        self._retired_at = 0.0
        wait = min(HANDSHAKE_WAIT, settings.handshake_timeout)
        self.client_places = Places(settings.max_sockets, wait)
        self.probe_places = Places(PROBE_SOCKETS, wait=0)
        # From the start of a handshake until the application has ended.
        self._sockets: set[_Socket] = set()
        self._edges = Edges()
        # Those that the drain closes, in this order.
        self._leaving: asyncio.Queue[_Socket] = asyncio.Queue()
        # What the drain runs; asyncio itself keeps no task from being collected.
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return the number of sockets, those in their handshake too."""
        return len(self._sockets)

    def serve(
        self, application: ASGIApplication, scope: Scope, receive: Receive, send: Send
    ) -> Coroutine[Any, Any, None]:
        """Serve a client's WebSocket with the application, or refuse it with 503."""
        return self._serve(self.client_places, application, scope, receive, send)

    def serve_probe(
        self, consumer: ASGIApplication, scope: Scope, receive: Receive, send: Send
    ) -> Coroutine[Any, Any, None]:
        """Serve a WebSocket of the proof, which has shown the token, or refuse it with 503."""
        return self._serve(self.probe_places, consumer, scope, receive, send)

    async def _serve(
        self,
        places: Places,
        application: ASGIApplication,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        reason = self._refusal() or places.refusal(monotonic())
        if reason is None:
            socket = _Socket(self, places, receive, send, self.meet_edge(scope))
            self._sockets.add(socket)
            places.taken += 1
            try:
                await socket.run(application, scope)
            finally:
                places.taken -= 1
                self._sockets.discard(socket)
        else:
            self.counts.refused[reason] += 1
            seconds = BUSY_RETRY_AFTER if reason == "busy" else RETRY_AFTER
            retry = {b"retry-after": b"%d" % seconds}
            await refuse_with_status(scope, send, 503, f"This worker is {reason}.", retry)

    def _refusal(self) -> str | None:
        """Return why no socket at all is taken; None where some are."""
        if self.draining:
            return "draining"
        since = asyncio.get_running_loop().time() - self._retired_at
        return "retired" if self.retired and since > RETIREMENT_GRACE else None

    def retire(self) -> None:
        """Keep the sockets there are, and take no more: another process has the port."""
        self.retired = True
        self._retired_at = asyncio.get_running_loop().time()

    def resume(self) -> None:
        """Take sockets again."""
        self.retired = False

    def meet_edge(self, scope: Scope) -> Generation | None:
        """Return what a connection came through, and note what that has replaced."""
        met, replaced = self._edges.meet(scope, asyncio.get_running_loop().time())
        if replaced is not None:
            self._keep(self._leave_edge(replaced))
        return met

    def drain(self) -> None:
        """Take no socket any more, and close those there are; a second call changes nothing."""
        if self.draining:
            return
        self.draining = True
        open_sockets = [socket for socket in self._sockets if socket.is_open]
        # In no order: the people of a room often came together.
        random.shuffle(open_sockets)
        for socket in open_sockets:
            self._leaving.put_nowait(socket)
        pace = max(self.settings.drain_pace, len(open_sockets) / self.settings.drain_window)
        logger.warning("draining: %d sockets, %.1f a second", len(open_sockets), pace)
        self._keep(self._close_in_turn(1 / pace))

    def accepted(self, socket: "_Socket", seconds: float) -> None:
        """Note that a handshake has been accepted, after so many seconds."""
        self.counts.opened += 1
        self.counts.handshake_seconds.observe(seconds)
        if self.draining:
            # Its handshake had begun before.
            self._leaving.put_nowait(socket)

    async def _close_in_turn(self, interval: float) -> None:
        """Close the sockets that leave, each at some moment of an interval of its own."""
        now = asyncio.get_running_loop().time
        begin = now()
        while True:
            socket = await self._leaving.get()
            # Intervals in which nobody left are not made up for.
            begin = max(begin, now() - interval)
            moment = begin + random.random() * interval  # noqa: S311 - nobody's secret
            await asyncio.sleep(moment - now())
            begin += interval
            # Not awaited: a client that does not read holds up no other.
            self._keep(socket.close("The worker restarts."))

    async def _leave_edge(self, generation: Generation) -> None:
        """Close the sockets that came through a generation of an edge, before it cuts them."""
        begin, end = (part * generation.lifetime for part in RETIREMENT)
        await asyncio.sleep(begin)
        sockets = [each for each in self._sockets if each.generation is generation and each.is_open]
        random.shuffle(sockets)
        logger.warning(
            "the edge was reloaded and its old process ends soon: closing %d sockets", len(sockets)
        )
        now = asyncio.get_running_loop().time
        began = now()
        for number, socket in enumerate(sockets):
            moment = (number + random.random()) / len(sockets) * (end - begin)  # noqa: S311 - as above
            await asyncio.sleep(began + moment - now())
            self._keep(socket.close("The edge restarts."))

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Socket:
    """One WebSocket, between the server and the application."""

    __slots__ = (
        "answer_by",
        "calls",
        "counts",
        "cut",
        "deadline",
        "decided",
        "generation",
        "is_open",
        "overdue",
        "places",
        "server_frames",
        "server_receive",
        "server_send",
        "sockets",
        "started",
        "waker",
    )

    def __init__(
        self,
        sockets: Sockets,
        places: Places,
        receive: Receive,
        send: Send,
        generation: Generation | None,
    ) -> None:
        self.sockets = sockets
        self.counts = sockets.counts
        self.places = places
        # Of the edge that it came through.
        self.generation = generation
        self.server_receive = receive
        self.server_send = send
        # The server's extension; None without it.
        self.server_frames: Any = None
        self.started = asyncio.get_running_loop().time()
        # Ends the application's task; taken back at its decision.
        self.deadline = asyncio.timeout_at(self.started + sockets.settings.handshake_timeout)
        # Whether the application accepted or refused the handshake.
        self.decided = False
        # Whether it was accepted, and neither side has closed it.
        self.is_open = False
        # Until when its client has to answer the close of a drain; None: no drain has closed it.
        self.answer_by: float | None = None
        # Whether that time is over.
        self.overdue = False
        # What is told that there may be an event, where no task waits for one: dispatch.py.
        self.waker: Callable[[], None] | None = None
        # The tasks that wait for the server. What is under way when a drain closes the socket ends
        # at that time.
        self.calls: set[asyncio.Task[Any] | None] = set()
        # Those of them that were cancelled then, each with how often others had done so before.
        self.cut: dict[asyncio.Task[Any], int] = {}

    async def run(self, application: ASGIApplication, scope: Scope) -> None:
        """Run the application, with a deadline for its handshake."""
        counts = self.counts
        if frames := (scope.get("extensions") or {}).get(FRAMES):
            self.server_frames = frames
            own = {"write": self.write_frames, "close": self.close_at_once}
            scope["extensions"] = {**scope["extensions"], FRAMES: own}
        self.places.begin(monotonic())
        try:
            async with self.deadline:
                await application(scope, self.receive, self.send)
        except TimeoutError:
            if not self.deadline.expired():
                raise  # the application's own: none of the deadline's business
        finally:
            self._ended(ABNORMAL_CLOSURE)
            if not self.decided:
                self.places.abandon(monotonic())
                # An error of the application's, or the client went.
                counts.refused["undecided"] += not self.deadline.expired()
        if not self.decided and self.deadline.expired():
            counts.refused["late"] += 1
            # The path only: a query string may carry a user's token.
            logger.warning(
                "handshake of %r cut after %g s: the application neither accepted nor refused it",
                scope["path"],
                self.sockets.settings.handshake_timeout,
            )
            text = "The application did not answer in time."
            await refuse_with_status(scope, self.server_send, 504, text)

    async def receive(self) -> Message:
        """Return the next event of the client."""
        if self.answer_by is not None:
            return await self._after_close()
        task = asyncio.current_task()
        self.calls.add(task)
        try:
            message = await self.server_receive()
        except asyncio.CancelledError:
            if not self._was_cut(task):
                raise
            return restarted()
        finally:
            self.calls.discard(task)
        return self.received(message)

    def received(self, message: Message) -> Message:
        """Note an event of the client; return what the application is told."""
        if message["type"] == "websocket.receive":
            self.counts.received += 1
        elif message["type"] == "websocket.disconnect":
            if self.answer_by is not None:
                # The same on every server, whatever the client made of the close.
                return restarted()
            self._ended(min(message.get("code", NO_STATUS), FIRST_OF_APPLICATIONS))
        return message

    async def send(self, message: Message) -> None:
        """Pass on an event of the application."""
        kind = message["type"]
        if self.answer_by is not None and kind in ("websocket.send", "websocket.close"):
            # The application has yet to be told that the drain closed it.
            return
        if kind == "websocket.close":
            self._ended(message.get("code", 1000))
        if not self.decided and kind in _DECISIONS:
            self._decide(accepted=kind == "websocket.accept")
        task = asyncio.current_task()
        self.calls.add(task)
        try:
            await self.server_send(message)
        except asyncio.CancelledError:
            if not self._was_cut(task):
                raise
        finally:
            self.calls.discard(task)
        if kind == "websocket.send":
            self.counts.sent += 1
        elif kind == "websocket.accept":
            # Not before the server has it: the drain may close it at once.
            self.is_open = True
            self.sockets.accepted(self, asyncio.get_running_loop().time() - self.started)

    def write_frames(self, frames: bytes, messages: int, limit: int) -> bool | None:
        """Pass on frames of the application: `WebSocketProtocol.write_frames`."""
        if self.answer_by is not None:
            return None
        written: bool | None = self.server_frames["write"](frames, messages, limit)
        if written:
            self.counts.sent += messages
        return written

    def close_at_once(self, code: int, reason: str) -> None:
        """Pass on a close that does not wait: `WebSocketProtocol.close_at_once`."""
        if self.is_open:
            self._ended(code)
            self.server_frames["close"](code, reason)

    async def close(self, reason: str) -> None:
        """Close it for a restart; the application's disconnect runs."""
        if not self.is_open:
            return
        self._ended(SERVICE_RESTART)
        loop = asyncio.get_running_loop()
        self.answer_by = loop.time() + CLOSE_TIMEOUT
        if self.calls:
            loop.call_at(self.answer_by, self._cut, self.calls.copy())
        if self.waker is not None:
            loop.call_at(self.answer_by, self._is_overdue)
        message = {"type": "websocket.close", "code": SERVICE_RESTART, "reason": reason}
        # Whatever a server raises where the client has gone this moment, or does not read.
        with suppress(Exception):
            async with asyncio.timeout_at(self.answer_by):
                await self.server_send(message)

    async def _after_close(self) -> Message:
        """Return the next event of a client that a drain has closed, which ends in time."""
        timeout = asyncio.timeout_at(self.answer_by)
        try:
            async with timeout:
                message = await self.server_receive()
        except TimeoutError:
            if not timeout.expired():
                raise
            return restarted()
        return restarted() if message["type"] == "websocket.disconnect" else message

    def _cut(self, calls: set[asyncio.Task[Any] | None]) -> None:
        """End those calls of the server's that were under way at the drain's close and still are.

        A time limit for each call, whether there is a drain or not, would cost more than the rest
        of the wrapper.
        """
        for task in calls & self.calls:
            if task is not None:
                self.cut[task] = task.cancelling()
                task.cancel()

    def _is_overdue(self) -> None:
        self.overdue = True
        if self.waker is not None:
            self.waker()

    def _was_cut(self, task: "asyncio.Task[Any] | None") -> bool:
        """Return whether it was the drain that cancelled a task, and nobody else did as well."""
        if task is None or task not in self.cut:
            return False
        return task.uncancel() <= self.cut.pop(task)

    def _decide(self, accepted: bool) -> None:
        self.decided = True
        self.places.decide(monotonic())
        # An application that is being cut can still decide while it ends.
        if not self.deadline.expired():
            self.deadline.reschedule(None)
        if not accepted:
            self.counts.refused["application"] += 1

    def _ended(self, code: int) -> None:
        if self.is_open:
            self.is_open = False
            self.counts.closed[code] += 1


class _SocketSource:
    """A socket's events, as dispatch.py takes them: what `_Socket.receive` returns.

    Args:
        socket: whose.
        server: the server's source.
        waker: called when there may be an event.
    """

    __slots__ = ("server", "socket")

    def __init__(self, socket: _Socket, server: Any, waker: Callable[[], None]) -> None:
        self.socket = socket
        self.server = server
        socket.waker = waker

    def take(self) -> Message | None:
        event = self.server.take()
        if event is not None:
            return self.socket.received(event)
        return restarted() if self.socket.overdue else None

    def has_more(self) -> bool:
        return self.socket.overdue or bool(self.server.has_more())

    def taken(self) -> None:
        pass

    def cancel(self) -> None:
        self.socket.waker = None
        self.server.cancel()

    async def ended(self) -> None:
        pass


def _source_of(socket: _Socket, waker: Callable[[], None]) -> _SocketSource | None:
    """Return what takes a socket's events without a task, if the server has the like."""
    server_of = getattr(socket.server_receive, "source_of", None)
    if server_of is None:
        return None
    server = server_of(socket.server_receive.__self__, waker)  # type: ignore[attr-defined]
    return _SocketSource(socket, server, waker)


# For a consumer's own task, where no middleware has wrapped `receive`.
_Socket.receive.source_of = _source_of  # type: ignore[attr-defined]


def restarted() -> Message:
    """Return what the application is told of a socket that the drain has closed."""
    return {"type": "websocket.disconnect", "code": SERVICE_RESTART}
