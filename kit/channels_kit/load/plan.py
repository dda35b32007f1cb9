"""The plan of a run: which clients, in which rooms, at which rate, for how long."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from channels_kit.load.adapter import Adapter
from channels_kit.load.limits import Limits
from channels_kit.probe.address import UsageError, check_base


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        urls: base URLs of the edge or of workers; clients are spread over them, and go to the
            next one whenever they reconnect.
        rooms: the rooms' names; clients are spread over them.
        users: the password of each user; clients are spread over them.
        adapter: the application's protocol.
        clients: how many, at least 1.
        rate: messages a second, of all clients together.
        duration: seconds of sending; 0 to connect, send nothing and report.
        grace: seconds to wait, at most: for the clients to connect, beyond what the
            `connect_rate` takes, and for outstanding deliveries after the last message.
        connect_rate: handshakes a second, at most.
        reconnect_rate: the same, of clients that reconnect after a loss; infinite for no limit.
            None for the `connect_rate`, which then limits both together.
        origin: the Origin header; None for that of each URL.
        limits: what else the outcome has to keep.

    Raises:
        UsageError: a value makes no sense.
    """

    urls: Sequence[str]
    rooms: Sequence[str]
    users: Mapping[str, str] = field(repr=False)
    adapter: Adapter
    clients: int = 200
    rate: float = 20.0
    duration: float = 120.0
    grace: float = 60.0
    connect_rate: float = 50.0
    reconnect_rate: float | None = None
    origin: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.urls or not self.rooms or not self.users:
            raise UsageError("name at least one URL, one room and one user")
        for url in self.urls:
            check_base(url)
        if self.clients < len(self.rooms):
            raise UsageError(
                f"{self.clients} clients for {len(self.rooms)} rooms;"
                " allowed: at least one per room"
            )
        for name in ("rate", "connect_rate"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name} is {value:g}; allowed: a number above 0")
        for name in ("duration", "grace"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(f"{name} is {value:g}; allowed: 0 or a number above")
        most = self.connect_rate if self.reconnect_rate is None else self.reconnect_rate
        if not most > 0:
            raise UsageError(f"reconnect_rate is {most:g}; allowed: a number above 0, or inf")
        limit = self.limits.reconnect_rate
        if limit is not None and most <= limit:
            raise UsageError(
                f"clients reconnect at most {most:g} times per second, so the limit of {limit:g}"
                " cannot be exceeded; allowed: a reconnect_rate above the limit, or inf"
            )
