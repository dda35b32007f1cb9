"""One part of a proof: open sockets, send rounds from each, account for every arrival.

The asyncio shell around `channels_kit.probe.ledger`. Everything here is bounded in time.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from time import monotonic
from types import TracebackType

from channels_kit.paths import TOUCHED, probe_path
from channels_kit.probe.address import Place, Site
from channels_kit.probe.ledger import CLOSING, Ledger
from channels_kit.probe.progress import Progress
from channels_kit.probe.result import Endpoint, Part
from channels_kit.probe.socket import ProbeSocket, SocketError


class Turns:
    """Has the application asked only while no part of the proof exchanges messages.

    With the core layer of channels_redis, a socket that closes can take a message of another socket
    of its worker with it: its `receive` is cancelled while it passes the message on. An application
    has to live with that (the next message shows the gap); the proof must not cause it.

    Args:
        parts: how many parts exchange messages.
    """

    def __init__(self, parts: int) -> None:
        self.exchanging = parts
        # Set when every part is silent, and when the application has answered.
        self.silent = asyncio.Event()
        self.answered = asyncio.Event()

    def fall_silent(self) -> None:
        """Note that a part is silent; each calls this once."""
        self.exchanging -= 1
        if self.exchanging == 0:
            self.silent.set()


@dataclass(frozen=True)
class Settings:
    """What every part of a proof shares; see `channels_kit.probe.prove`."""

    token: str
    rounds: int
    seconds: float
    origin: str | None
    progress: Progress
    hold: float = 0.0
    site: Site | None = None
    # The release whose workers have to outlive the silence; empty: all of them.
    outliving: str = ""
    turns: Turns = field(default_factory=lambda: Turns(1))
    # The workers that the proof is about; empty: all of them.
    touched: frozenset[str] = frozenset()


def is_of_release(revision: str, release: str) -> bool:
    """Return whether a process that was started with a revision runs a release."""
    return revision == release or revision.startswith(f"{release}-")


class Run:
    """The sockets of one part, and their exchange.

    Args:
        name: the part's name.
        settings: the proof's.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        # Shared by the sockets of this run and no other's, so that runs do not mix.
        self.run = token_hex(8)
        # Where each socket was to be opened, and the worker it was opened for, by its name.
        self.wanted: dict[str, tuple[str, str | None]] = {}
        # The sockets that said a hello that fits, by name.
        self.sockets: dict[str, ProbeSocket] = {}
        # Why the others did not.
        self.failures: dict[str, str] = {}
        # Set when nothing more can arrive in the current round.
        self.round_finished = asyncio.Event()
        # Since when the sockets have been silent on purpose; None while they are not.
        self.silent_since: float | None = None
        # Whether `Turns` knows that this part is silent.
        self.is_silent = False

    async def __aenter__(self) -> "Run":
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(socket.close() for socket in self.sockets.values()))

    @property
    def touched(self) -> frozenset[str]:
        """The sockets of the workers that the proof is about, by name; empty where it is of all."""
        about = self.settings.touched
        return frozenset(name for name, (_, worker) in self.wanted.items() if worker in about)

    @property
    def reached(self) -> set[str]:
        """The workers that have a socket."""
        return {socket.worker for socket in self.sockets.values()}

    def reached_of(self, release: str) -> set[str]:
        """The workers that have a socket and run a release."""
        return {
            socket.worker
            for socket in self.sockets.values()
            if is_of_release(socket.revision, release)
        }

    async def open(self, wanted: Iterable[tuple[str, str | None]]) -> None:
        """Open a socket for each base URL, all at once; a worker given has to answer itself."""
        new = {str(number): each for number, each in enumerate(wanted, len(self.wanted) + 1)}
        self.wanted.update(new)
        self.settings.progress.phase(f"{self.name}: opening {len(new)} sockets")
        await asyncio.gather(
            *(self._open(name, base, worker) for name, (base, worker) in new.items())
        )

    async def exchange(self, unreached: Iterable[str] = (), fuller: Iterable[str] = ()) -> Part:
        """Send the rounds and wait for each; return the account."""
        rounds, hold = self.settings.rounds, self.settings.hold
        ledger = Ledger(self.wanted, rounds + 1 if hold else rounds, touched=self.touched)
        for name, reason in self.failures.items():
            ledger.failed(name, reason)
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(self._read(ledger, name)) for name in self.sockets]
            if ledger.live:
                await self._send_rounds(ledger, readers)
            self._fall_silent()
            for reader in readers:
                reader.cancel()
        return Part(
            name=self.name,
            run=self.run,
            planned=ledger.planned,
            begun=ledger.begun,
            endpoints=tuple(self._endpoint(name, ledger) for name in self.wanted),
            pairs=tuple(ledger.pairs()),
            unreached=tuple(unreached),
            fuller=tuple(fuller),
            left=tuple((self._label(name), reason) for name, reason in ledger.left.items()),
            silence=hold if ledger.begun > rounds else 0.0,
            touched=tuple(self._label(name) for name in self.wanted if name in self.touched),
        )

    async def _open(self, name: str, base: str, worker: str | None) -> None:
        settings = self.settings
        place = Place(worker or self.name, base, settings.site, direct=worker is not None)
        try:
            socket = await ProbeSocket.open(
                place,
                probe_path(self.run, name) + (f"?{TOUCHED}" if name in self.touched else ""),
                token=settings.token,
                origin=settings.origin or place.asked.origin,
                seconds=settings.seconds,
            )
        except SocketError as error:
            self.failures[name] = str(error)
            return
        if worker is not None and socket.worker != worker:
            await socket.close()
            self.failures[name] = f"answered by another worker: {socket.worker}"
            return
        self.sockets[name] = socket
        settings.progress.step(self._open_so_far)

    async def _send_rounds(self, ledger: Ledger, readers: Iterable[asyncio.Task[None]]) -> None:
        self.settings.progress.phase(f"{self._open_so_far}, {ledger.planned} rounds")
        for number in range(1, ledger.planned + 1):
            if number > self.settings.rounds:
                await self._stay_silent(readers)
            self.settings.progress.step(f"{self._open_so_far}, round {number} of {ledger.planned}")
            await self._send_round(ledger, number)
            # What is missing will not come back; the next round would only wait once more.
            if not ledger.complete:
                return
        await self._send_round(ledger, CLOSING)

    async def _stay_silent(self, readers: Iterable[asyncio.Task[None]]) -> None:
        """Send nothing for a while: a time-out of the channel layer ends what waits for it."""
        self.settings.progress.phase(f"{self._open_so_far}, silent for {self.settings.hold:g} s")
        self.silent_since = monotonic()
        self._fall_silent()
        # Readers end with their sockets; when none is left, there is nothing to wait for.
        await asyncio.wait(readers, timeout=self.settings.hold)
        await self.settings.turns.answered.wait()
        self.silent_since = None

    def _fall_silent(self) -> None:
        if not self.is_silent:
            self.is_silent = True
            self.settings.turns.fall_silent()

    async def _send_round(self, ledger: Ledger, number: int) -> None:
        """Send one round from every socket at once; return when it has finished or time is up."""
        ledger.begin(number)
        self.round_finished.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.seconds):
                await asyncio.gather(*(self._send(ledger, name, number) for name in ledger.live))
                if not ledger.round_finished:
                    await self.round_finished.wait()

    async def _send(self, ledger: Ledger, name: str, number: int) -> None:
        ledger.sent(name, number, monotonic())
        # Whoever reads from the socket notes why it is closed.
        with suppress(SocketError):
            # What others owe each other was proved by those who touched them.
            to_touched = bool(self.touched) and name not in self.touched
            await self.sockets[name].send(number, to_touched=to_touched)

    async def _read(self, ledger: Ledger, name: str) -> None:
        try:
            async for sender, number in self.sockets[name].messages():
                ledger.received(sender, name, number, monotonic())
                if ledger.round_finished:
                    self.round_finished.set()
        except SocketError as error:
            silence = "" if self.silent_since is None else self._silence(self.silent_since)
            if silence and self._may_end(name):
                ledger.leave(name, f"{error}{silence}")
            else:
                ledger.failed(name, f"{error}{silence}")
            if ledger.round_finished:
                self.round_finished.set()

    def _may_end(self, name: str) -> bool:
        """Whether a socket's worker is one of a former release: nobody can restart that now."""
        outliving = self.settings.outliving
        return bool(outliving) and not is_of_release(self.sockets[name].revision, outliving)

    @staticmethod
    def _silence(since: float) -> str:
        return f" after {monotonic() - since:.1f} s of silence"

    @property
    def _open_so_far(self) -> str:
        return f"{self.name}: {len(self.sockets)} of {len(self.wanted)} sockets open"

    def _label(self, name: str) -> str:
        return self.wanted[name][1] or self.sockets[name].worker

    def _endpoint(self, name: str, ledger: Ledger) -> Endpoint:
        base, worker = self.wanted[name]
        socket = self.sockets.get(name)
        return Endpoint(
            name=name,
            worker=worker or (socket.worker if socket else None),
            url=base,
            revision=socket.revision if socket else None,
            failure=ledger.failures.get(name),
        )
