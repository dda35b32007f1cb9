"""What a conversation is to be: who talks, where, how much and for how long."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from channels_kit.load.adapter import Adapter
from channels_kit.load.limits import Limits
from channels_kit.probe.address import UsageError, check_base


@dataclass(frozen=True)
class Plan:
    """A conversation.

    Attributes:
        urls: base URLs of the edge or of workers; clients are spread over them, and go to the
            next one whenever they come back.
        rooms: the rooms' names; clients are spread over them.
        users: the password of each user; clients are spread over them.
        adapter: the application's protocol.
        clients: how many, at least 1.
        rate: messages a second, of all clients together.
        duration: seconds of sending.
        settle: seconds after which nothing more is waited for: while the clients come in, and
            after the last message.
        connect_rate: handshakes a second, at most.
        reconnect_rate: the same, of clients that come back after a loss; infinite to leave that
            to the clients alone. None for the `connect_rate`, which holds both back together.
        origin: the Origin header; None for that of each URL.
        limits: what else is asked of the outcome.

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
    settle: float = 60.0
    connect_rate: float = 50.0
    reconnect_rate: float | None = None
    origin: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.urls or not self.rooms or not self.users:
            raise UsageError("a URL, a room and a user are needed, at least one of each")
        for url in self.urls:
            check_base(url)
        if self.clients < len(self.rooms):
            raise UsageError(
                f"{self.clients} clients for {len(self.rooms)} rooms; allowed: one a room or more"
            )
        for name in ("rate", "duration", "settle", "connect_rate"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name} is {value:g}; allowed: a number above 0")
        pace = self.connect_rate if self.reconnect_rate is None else self.reconnect_rate
        if not pace > 0:
            raise UsageError(f"reconnect_rate is {pace:g}; allowed: a number above 0, or inf")
        most = self.limits.reconnect_rate
        if most is not None and pace <= most:
            raise UsageError(
                f"the probe lets {pace:g} clients a second come back, so that they cannot exceed"
                f" {most:g}; allowed: a reconnect_rate above that, or inf"
            )
