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
    """

    name: str
    run: str
    planned: int
    begun: int
    endpoints: tuple[Endpoint, ...]
    pairs: tuple[Pair, ...]
    unreached: tuple[str, ...] = ()
    fuller: tuple[str, ...] = ()

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
class Report:
    """What all parts of a proof found."""

    parts: tuple[Part, ...]

    @property
    def ok(self) -> bool:
        """Whether delivery is proved in every part."""
        return bool(self.parts) and all(part.ok for part in self.parts)

    @property
    def missing_pairs(self) -> tuple[Cell, ...]:
        """The pairs of workers between which a message is missing, in all parts."""
        return tuple(
            cell
            for part in self.parts
            for cell in part.cells()
            if any(pair.missing for pair in cell.pairs)
        )
