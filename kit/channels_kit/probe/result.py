"""What a proof found: plain values, for programs and for `channels_kit.probe.report`."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from channels_kit.probe.ledger import Pair


@dataclass(frozen=True)
class Endpoint:
    """One socket of a run.

    Attributes:
        name: its name within the run.
        worker: the worker it was opened for or reached; None where that is not known.
        url: where it was to be opened.
        revision: what the worker said it was started with; None where it said nothing.
        failure: why it took no part, or no part to the end; None where it did.
    """

    name: str
    worker: str | None
    url: str
    revision: str | None
    failure: str | None

    @property
    def label(self) -> str:
        """How an operator knows it."""
        return self.worker or f"socket {self.name}"


@dataclass(frozen=True)
class Latency:
    """How late messages were, in milliseconds; percentiles are of the nearest rank."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Latency | None":
        """Summarise latencies in seconds; None where there are none."""
        ranked = sorted(second * 1000 for second in seconds)
        if not ranked:
            return None

        def percentile(share: float) -> float:
            return round(ranked[ceil(share * len(ranked)) - 1], 3)

        return cls(p50=percentile(0.5), p99=percentile(0.99), max=percentile(1))


@dataclass(frozen=True)
class Cell:
    """What all sockets of one worker received from all sockets of another.

    Attributes:
        sender: the sending worker, or the label of a socket whose worker is not known.
        receiver: the receiving one.
        pairs: the pairs of sockets that were added up, at least one.
    """

    sender: str
    receiver: str
    pairs: tuple[Pair, ...]

    @property
    def expected(self) -> int:
        """How many messages were to arrive."""
        return sum(pair.expected for pair in self.pairs)

    @property
    def delivered(self) -> int:
        """How many did."""
        return sum(pair.delivered for pair in self.pairs)

    @property
    def ok(self) -> bool:
        """Whether every message of every pair arrived once and in order."""
        return all(pair.ok for pair in self.pairs)


@dataclass(frozen=True)
class Part:
    """One run: `directly` to the workers, or `through the edge`.

    Attributes:
        name: which of the two.
        run: the run's own name, in the paths of its sockets.
        planned: how many rounds were to be sent.
        begun: how many were; fewer where messages were missing.
        endpoints: every socket that was to take part.
        pairs: the account of every ordered pair of them, each with itself too.
        unreached: the workers that no socket reached, though they were named.
        fuller: those of which that was to be expected: they had so many more sockets than the
            others that an edge which balances by their number passes them over.
        left: workers of a former release whose sockets ended in the silence, and why. In a roll
            that is not judged: the new release may be what mends it.
        silence: seconds of silence before the last round; 0 where there was none.
        touched: the workers that the run is about: the pairs are those from and to them. Empty: it
            is about all.
    """

    name: str
    run: str
    planned: int
    begun: int
    endpoints: tuple[Endpoint, ...]
    pairs: tuple[Pair, ...]
    unreached: tuple[str, ...] = ()
    fuller: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    silence: float = 0.0
    touched: tuple[str, ...] = ()

    @property
    def failed_endpoints(self) -> tuple[Endpoint, ...]:
        """The sockets that took no part, or not to the end."""
        return tuple(endpoint for endpoint in self.endpoints if endpoint.failure)

    @property
    def ok(self) -> bool:
        """Whether the run proves delivery; one without a message proves nothing."""
        return (
            bool(self.pairs)
            and all(pair.ok for pair in self.pairs)
            and not self.failed_endpoints
            and not self.unreached
        )

    @property
    def latency(self) -> Latency | None:
        """How late the messages of the run were."""
        return Latency.of(latency for pair in self.pairs for latency in pair.latencies)

    def cells(self) -> list[Cell]:
        """Add the pairs of sockets up by worker, in the order of the sockets."""
        labels = {endpoint.name: endpoint.label for endpoint in self.endpoints}
        grouped: defaultdict[tuple[str, str], list[Pair]] = defaultdict(list)
        for pair in self.pairs:
            grouped[labels[pair.sender], labels[pair.receiver]].append(pair)
        return [Cell(*names, tuple(pairs)) for names, pairs in grouped.items()]


@dataclass(frozen=True)
class Asked:
    """What was asked for, and where.

    Attributes:
        path: the page, or where the socket was opened.
        place: the worker, or the edge.
        url: the server's base.
        direct: whether a worker was asked.
    """

    path: str
    place: str
    url: str
    direct: bool


@dataclass(frozen=True)
class PageResult(Asked):
    """What a server answered to one request for a page.

    Attributes:
        way: the path that answered last, where redirects were followed; None: there were none.
        status: its status; None where there was no answer.
        failure: why that is no success; None where it is one.
    """

    way: str | None
    status: int | None
    failure: str | None


@dataclass(frozen=True)
class SocketResult(Asked):
    """What became of a socket of the application.

    Attributes:
        expected: how it was to be refused, in words; empty: it was to stay open.
        seconds: how long it had to stay open; 0 where it only had to open.
        failure: what else became of it; None where it was as expected.
        answered: whether the server answered the handshake at all.
    """

    expected: str
    seconds: float
    failure: str | None
    answered: bool = True


@dataclass(frozen=True)
class Report:
    """What all parts of a proof found.

    Attributes:
        parts: the wires: one run directly, one through each edge.
        pages: every answer to every page, at every place.
        sockets: every socket of the application, at every place.
        named: how many pages and sockets the operator has named: what is named and was looked at
            nowhere was not proved.
        release: the release that every worker had to run; empty: none was named.
        strangers: the workers that run something else, with what they were started with.
    """

    parts: tuple[Part, ...]
    pages: tuple[PageResult, ...] = ()
    sockets: tuple[SocketResult, ...] = ()
    named: tuple[int, int] = (0, 0)
    release: str = ""
    strangers: tuple[tuple[str, str], ...] = ()

    @property
    def wires_ok(self) -> bool:
        """Whether delivery is proved in every part; without a part nothing is."""
        return bool(self.parts) and all(part.ok for part in self.parts)

    @property
    def pages_ok(self) -> bool | None:
        """Whether every page was answered; None where none was asked for."""
        return all(page.failure is None for page in self.pages) if self.pages else None

    @property
    def sockets_ok(self) -> bool | None:
        """Whether every socket was as expected; None where none was opened."""
        return all(socket.failure is None for socket in self.sockets) if self.sockets else None

    @property
    def ok(self) -> bool:
        """Whether all that was looked at is proved, the wires at least."""
        return (
            self.wires_ok
            and self.pages_ok is not False
            and self.sockets_ok is not False
            and not self.strangers
        )

    @property
    def missing_pairs(self) -> tuple[Cell, ...]:
        """The pairs of workers between which a message is missing, in all parts."""
        return tuple(
            cell
            for part in self.parts
            for cell in part.cells()
            if any(pair.missing for pair in cell.pairs)
        )
