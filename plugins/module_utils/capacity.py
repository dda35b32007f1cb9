"""What a WebSocket cluster must carry, what was measured, and the load of a worker that follows.

Pure arithmetic; `capacity_plan` makes a plan of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BACK_SECONDS = 120
"""In which all clients of the spare hosts should be back; set BACK= to plan with another."""

SOURCE = "make calibrate"

MOST_HOSTS = 10_000
"""Hosts of a group that a plan has at most."""


def nginx_connections(of_a_process: int, processes: int) -> int:
    """Return the connections that all processes of an nginx take together.

    If there are several, one is full before the others: 5 % are for an uneven share.
    """
    return max(of_a_process, of_a_process * processes * 19 // 20)


class PlanError(ValueError):
    """The question cannot be answered; the message says what is allowed."""


@dataclass(frozen=True)
class Statement:
    """What the cluster must carry.

    Attributes:
        sockets: concurrent sockets.
        messages: that clients send per second.
        room: sockets that receive each.
        spare: app hosts that may be lost.
    """

    sockets: int
    messages: float
    room: int
    spare: int

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("SOCKETS", self.sockets, 1, 10_000_000),
            ("MESSAGES", self.messages, 0, 10_000_000),
            ("ROOM", self.room, 1, 10_000_000),
            # One more host at least carries the sockets.
            ("SPARE", self.spare, 0, MOST_HOSTS - 1),
        ):
            if not least <= value <= most:
                raise PlanError(f"{name} is {value}; allowed: {least} to {most}")

    @property
    def deliveries(self) -> float:
        """Messages to sockets a second; a room has no more sockets than there are."""
        return self.messages * self.members

    @property
    def members(self) -> int:
        """Sockets that receive a message."""
        return min(self.room, self.sockets)


@dataclass(frozen=True)
class Shape:
    """A host.

    Attributes:
        cores: of its processor.
        memory_mib: its memory.
    """

    cores: int
    memory_mib: int

    def __post_init__(self) -> None:
        if not 1 <= self.cores <= 1024:
            raise PlanError(f"HOST_CORES is {self.cores}; allowed: 1 to 1024")
        if not 256 <= self.memory_mib <= 2**25:
            raise PlanError(f"HOST_MEMORY is {self.memory_mib} MiB; allowed: 256M to 32T")


@dataclass(frozen=True)
class Figures:
    """What was measured: `cluster_figures`.

    Attributes:
        content: as the inventory has it.
        expected: whether to calculate with the values, and not with the unfavourable ends.
    """

    content: Mapping[str, Any]
    expected: bool = False

    def cost(self, name: str) -> float:
        """Return what something costs."""
        return self._of(name, "high")

    def rate(self, name: str) -> float:
        """Return how much of something is carried."""
        return self._of(name, "low")

    def _of(self, name: str, end: str) -> float:
        try:
            number = float(self.content[name]["value" if self.expected else end])
        except (KeyError, TypeError, ValueError):
            number = math.nan
        # A cost may be 0. What is carried divides what is needed.
        if not 0 < number < math.inf and (number != 0 or end == "low"):
            shown = repr(self.content[name]) if name in self.content else "not set"
            raise PlanError(
                f"{name} of cluster_figures is {shown}; allowed: value, low and high, numbers above"
                " 0. Run make calibrate"
            )
        return number

    def measured(self, name: str) -> float | None:
        """Return up to where something was measured; None: it was not."""
        number = (self.content.get("measured") or {}).get(name)
        return float(number) if isinstance(number, (int, float)) else None

    def beyond(self, name: str, value: float, what: str) -> str:
        """Say that a value is beyond what was measured; empty: it is not."""
        most = self.measured(name)
        if most is None or value <= most:
            return ""
        return f"measured up to {most:,.0f} {what}".replace(",", " ")


@dataclass(frozen=True)
class Cluster:
    """Hosts that are planned.

    Attributes:
        app: an app host.
        edge: an edge.
        app_hosts: how many.
        workers_per_host: of an app host, on average.
        edges: how many.
        processes: of an app host, beside its workers.
        tls: whether the edges speak TLS.
        sockets_per_worker: a limit of the inventory; None: it follows from the sockets.
        handshakes_per_worker: what the edges pass on; None: 80 % of what a worker takes.
        back_seconds: in which clients of lost hosts should be back.
        uneven: workers of each app host, where they differ.
    """

    app: Shape
    edge: Shape
    app_hosts: int
    workers_per_host: float
    edges: int = 1
    processes: int = 0
    tls: bool = False
    sockets_per_worker: int | None = None
    handshakes_per_worker: float | None = None
    back_seconds: float = BACK_SECONDS
    uneven: tuple[int, ...] = ()

    def carrying(self, statement: Statement) -> int:
        """Return the app hosts that are left when the spare ones are lost."""
        return max(1, self.app_hosts - statement.spare)

    def carrying_workers(self, statement: Statement) -> float:
        """Return the workers that are left then: the hosts with the most workers are lost."""
        hosts = self.carrying(statement)
        return sum(sorted(self.uneven)[:hosts]) if self.uneven else hosts * self.workers_per_host

    def lost_share(self, statement: Statement) -> float:
        """Return the share of all sockets on the spare hosts; of one host, if none is spare."""
        lost = min(max(1, statement.spare), self.app_hosts)
        if self.uneven:
            return sum(sorted(self.uneven)[-lost:]) / sum(self.uneven)
        return lost / self.app_hosts

    @property
    def most_workers(self) -> float:
        """The workers of the app host that has the most."""
        return max(self.uneven, default=self.workers_per_host)

    @property
    def carrying_edges(self) -> int:
        """The edges that are left when one of several is lost."""
        return max(1, self.edges - 1)


@dataclass(frozen=True)
class Term:
    """One thing that can run out.

    Attributes:
        name: what it is.
        of: whose it is: app, edge or redis.
        variable: what an operator sets to change it; empty: hosts.
        needs: how much is needed.
        has: how much there is.
        unit: of both.
        reason: how it is calculated.
        source: where the figures are from.
        extrapolated: how far it was measured, where it is needed beyond; empty: it is not.
    """

    name: str
    of: str
    variable: str
    needs: float
    has: float
    unit: str
    reason: str
    source: str = SOURCE
    extrapolated: str = ""

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.needs <= self.has

    @property
    def headroom(self) -> float:
        """Percent of what is there that is left; below 0: what is short."""
        return 100 * (1 - self.needs / self.has) if self.has else -math.inf


@dataclass(frozen=True)
class Load:
    """What one worker has to do.

    Attributes:
        sockets: of one worker.
        deliveries: of one worker, a second.
        touched: workers that have a member of the room of a message.
        percent: of a core.
    """

    sockets: int
    deliveries: float
    touched: float
    percent: float

    @classmethod
    def of(cls, statement: Statement, figures: Figures, workers: float) -> Load:
        """Return the load of one of so many workers, over which sockets are spread evenly."""
        members = statement.members
        # Of workers that are drawn for each member, those that are drawn at least once.
        touched = workers * (1 - (1 - 1 / workers) ** members) if workers > 1 else 1.0
        sockets = math.ceil(statement.sockets / workers)
        deliveries = statement.deliveries / workers
        microseconds = (
            sockets * figures.cost("socket_microseconds")
            + deliveries * figures.cost("delivery_microseconds")
            + statement.messages / workers * touched * figures.cost("message_microseconds")
            + statement.messages
            / workers
            * (
                figures.cost("send_microseconds")
                + members * figures.cost("send_member_microseconds")
            )
        )
        return cls(sockets, deliveries, touched, microseconds / 10_000)
