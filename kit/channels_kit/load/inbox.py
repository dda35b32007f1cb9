"""What a client does with what it hears: each message once, in the order of the numbers.

A core without I/O: `channels_kit.load.client` tells it what came, and delivers what it
returns.
"""

from collections.abc import Iterable

from channels_kit.load.adapter import Filling, History, Message


class Inbox:
    """Puts the messages of one room in order, over all sockets of one client."""

    def __init__(self) -> None:
        # Everything up to this number was delivered or passed over; None before the first history.
        self.last: int | None = None
        # The highest number heard of.
        self.newest = 0
        # How many messages were dropped because they had come before.
        self.dropped = 0
        # Messages that came before one with a lower number, by their number.
        self._held: dict[int, Message] = {}

    @property
    def gap(self) -> tuple[int, int] | None:
        """The first numbers that are missing, both included; None where none is."""
        if self.last is None or self.last >= self.newest:
            return None
        return self.last + 1, min(self._held, default=self.newest + 1) - 1

    def history(self, history: History) -> list[Message]:
        """Take what a socket begins with; return what is delivered."""
        self.heard_of(history.known)
        if self.last is None:
            # What was said before this client came is none of its messages.
            self.last = history.known
            return self._ready()
        return self._take(history.messages)

    def message(self, message: Message) -> list[Message]:
        """Take one message; return what is delivered."""
        if self.last == self.newest == message.sequence - 1:
            # Nearly always: nothing is missing, and so nothing is held.
            self.last = self.newest = message.sequence
            return [message]
        return self._take((message,))

    def filling(self, filling: Filling) -> list[Message]:
        """Take the answer to a gap, and pass over what the room does not have.

        Returns:
            What is delivered.
        """
        self.heard_of(filling.newest)
        delivered = self._take(filling.messages)
        while self.last is not None and self.last < min(filling.last, filling.newest):
            self.last += 1
            delivered += self._ready()
        return delivered

    def heard_of(self, sequence: int) -> None:
        """Take note that the room has a message `sequence`."""
        self.newest = max(self.newest, sequence)

    def _take(self, messages: Iterable[Message]) -> list[Message]:
        for message in messages:
            known = self.last is not None and message.sequence <= self.last
            if known or message.sequence in self._held:
                self.dropped += 1
            else:
                self._held[message.sequence] = message
                self.heard_of(message.sequence)
        return self._ready()

    def _ready(self) -> list[Message]:
        """Take out what is next in order."""
        ready: list[Message] = []
        if self.last is None:
            return ready
        while message := self._held.pop(self.last + 1, None):
            self.last += 1
            ready.append(message)
        return ready
