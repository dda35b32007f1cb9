"""How far a proof is, for whoever waits for it."""

from typing import TextIO

ERASE_LINE = "\r\x1b[K"


class Progress:
    """Told how far a proof is; this one keeps it to itself."""

    def phase(self, text: str) -> None:
        """Take note that a phase begins."""

    def step(self, text: str) -> None:
        """Take note of how far it is now."""

    def done(self) -> None:
        """Take note that the proof is over."""


class LineProgress(Progress):
    """A line for each phase: for logs.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def phase(self, text: str) -> None:
        """Write the phase."""
        print(text, file=self.stream, flush=True)


class TerminalProgress(Progress):
    """One line that is written over and over, and is gone at the end.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def phase(self, text: str) -> None:
        """Show the phase."""
        self.step(text)

    def step(self, text: str) -> None:
        """Show how far it is."""
        self.stream.write(ERASE_LINE + text)
        self.stream.flush()

    def done(self) -> None:
        """Leave an empty line for the report."""
        self.step("")


def progress_on(stream: TextIO) -> Progress:
    """Return the kind of progress that suits a stream."""
    return TerminalProgress(stream) if stream.isatty() else LineProgress(stream)
