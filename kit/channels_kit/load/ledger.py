"""The account of a run: what was sent, and what each client received.

A core without I/O, as `channels_kit.probe.ledger` is. It trusts no client: what a client
delivers twice, or in disorder, is seen here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from channels_kit.load.adapter import Message
from channels_kit.load.latencies import Latencies


@dataclass(slots=True)
class Sending:
    """One message that a client was to send.

    Attributes:
        room: where.
        sender: the client's name.
        at: when, in seconds of any clock.
        at_once: whether it was sent once: its sender was connected, and did not have to send it
            again.
        sequences: the numbers under which it was delivered; one, where all is well.
    """

    room: str
    sender: str
    at: float
    at_once: bool
    sequences: list[int] = field(default_factory=list)


@dataclass
class Account:
    """What one client received.

    Attributes:
        client: its name.
        room: the room it is in.
        first: the newest number when it joined: it expects what comes after. None before.
        last: the highest number delivered.
        delivered: how many were, each counted once.
        duplicates: the numbers that were delivered more than once.
        out_of_order: the numbers that were delivered after a higher one.
        conflicts: the numbers under which it received another message than other clients.
    """

    client: str
    room: str
    first: int | None = None
    last: int = 0
    delivered: int = 0
    duplicates: list[int] = field(default_factory=list)
    out_of_order: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)
    # The numbers below the last that were not delivered.
    skipped: set[int] = field(default_factory=set)

    def begin(self, first: int) -> None:
        """Begin to expect messages, those after the number `first`."""
        self.first = self.last = first

    def add(self, sequence: int) -> bool:
        """Note a delivery; return whether it is the first of its number."""
        if sequence > self.last:
            self.skipped.update(range(self.last + 1, sequence))
            self.last = sequence
        elif sequence in self.skipped:
            self.skipped.remove(sequence)
            self.out_of_order.append(sequence)
        else:
            self.duplicates.append(sequence)
            return False
        self.delivered += 1
        return True


@dataclass
class _Room:
    """What is known of a room from all its clients together."""

    newest: int = 0
    # Each number's message: the client's own name for it, and the user.
    messages: dict[int, tuple[str | None, str]] = field(default_factory=dict)


class Ledger:
    """Accounts for every message of a run.

    Args:
        rooms: the room of each client, by the client's name.
    """

    def __init__(self, rooms: Mapping[str, str]) -> None:
        self.accounts = {client: Account(client, room) for client, room in rooms.items()}
        # Every message sent, by the name its sender gave it.
        self.sendings: dict[str, Sending] = {}
        # How many deliveries there were, duplicates not counted.
        self.delivered = 0
        # From sending to delivery: of messages sent once to clients that were connected all the
        # time, and of the others.
        self.connected_latencies = Latencies()
        self.other_latencies = Latencies()
        # Clients that left the run early, with their first reason.
        self.failures: dict[str, str] = {}
        self._rooms = {room: _Room() for room in rooms.values()}
        # The messages that nobody has received so far, by name.
        self._unseen: dict[str, Sending] = {}

    @property
    def complete(self) -> bool:
        """Whether every client that is left has received every message sent."""
        return all(sending.sender in self.failures for sending in self._unseen.values()) and all(
            not self.missing(account)
            for client, account in self.accounts.items()
            if client not in self.failures
        )

    @property
    def undelivered(self) -> list[str]:
        """The names of messages that no client received; failed clients' too."""
        return list(self._unseen)

    @property
    def stored_twice(self) -> dict[str, list[int]]:
        """The messages that have several numbers, with these numbers."""
        return {
            name: sending.sequences
            for name, sending in self.sendings.items()
            if len(sending.sequences) > 1
        }

    def sent(self, client: str, name: str, at: float, *, connected: bool) -> None:
        """Note that a client sends a message `name`, or would if it were connected."""
        room = self.accounts[client].room
        self.sendings[name] = self._unseen[name] = Sending(room, client, at, connected)

    def sent_again(self, name: str) -> None:
        """Note that a message is sent once more."""
        self.sendings[name].at_once = False

    def began(self, client: str, first: int) -> None:
        """Note that a client joined its room, and knows it up to the number `first`."""
        self.accounts[client].begin(first)
        self.heard_of(client, first)

    def heard_of(self, client: str, sequence: int) -> None:
        """Note that a client learnt that its room has a message `sequence`."""
        room = self._rooms[self.accounts[client].room]
        room.newest = max(room.newest, sequence)

    def newest(self, client: str) -> int:
        """Return the highest number that any client knows of in a client's room."""
        return self._rooms[self.accounts[client].room].newest

    def received(self, client: str, message: Message, at: float, *, since: float) -> None:
        """Note that a client received a message.

        Args:
            client: its name.
            message: what it received.
            at: when.
            since: since when its socket was open.
        """
        account = self.accounts[client]
        room = self._rooms[account.room]
        sequence = message.sequence
        new = account.add(sequence)
        room.newest = max(room.newest, sequence)
        identity = (message.client_id, message.sender)
        sending = self.sendings.get(message.client_id or "")
        if sequence not in room.messages:
            room.messages[sequence] = identity
            if sending is not None:
                sending.sequences.append(sequence)
                self._unseen.pop(message.client_id or "", None)
        elif room.messages[sequence] != identity:
            account.conflicts.append(sequence)
        if not new:
            return
        self.delivered += 1
        if sending is not None:
            connected = sending.at_once and since <= sending.at
            latencies = self.connected_latencies if connected else self.other_latencies
            latencies.add(at - sending.at)

    def failed(self, client: str, reason: str) -> None:
        """Note that a client left the run early."""
        self.failures.setdefault(client, reason)

    def behind(self, account: Account) -> int:
        """Return how many messages of its room a client still lacks."""
        return self._rooms[account.room].newest - account.last + len(account.skipped)

    def lost(self, account: Account) -> list[int]:
        """Return the numbers a client did not receive, of those that its room has."""
        if account.first is None:
            return []
        newest = self._rooms[account.room].newest
        return sorted([*account.skipped, *range(account.last + 1, newest + 1)])

    def missing(self, account: Account) -> bool:
        """Whether a client lacks a message, or never joined its room."""
        return account.first is None or self.behind(account) > 0
