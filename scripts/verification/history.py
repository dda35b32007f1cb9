"""The reports of earlier runs, in the directory of an environment."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from verification.report import FAILED, UNREADABLE, Report, ReportError, read

NAME = re.compile(r"\d{8}T\d{6}Z\.json")
"""What a report is called: when its run began."""


@dataclass(frozen=True)
class Run:
    """An earlier run, or the one that is shown.

    Attributes:
        name: its file, without the suffix.
        problem: why the file cannot be read; empty: it can.
        verdict: of the run, and so on; only of a file that can be read.
        began: when it began, for people.
        failed: how many checks, pairs and behaviour checks failed.
        unreadable: how many could not be read.
        total: how many there were.
        p99: what 99 % of the messages took at most, in seconds.
        page: whether it has a page.
    """

    name: str
    problem: str = ""
    verdict: str = ""
    began: str = ""
    failed: int = 0
    unreadable: int = 0
    total: int = 0
    p99: float | None = None
    page: bool = False


def run_of(name: str, report: Report, page: bool) -> Run:
    """Return what the history shows of a report."""
    return Run(
        name=name,
        verdict=report.verdict,
        began=f"{report.began:%Y-%m-%d %H:%M}",
        failed=report.counts[FAILED],
        unreadable=report.counts[UNREADABLE],
        total=report.total,
        p99=report.delay(0.99),
        page=page,
    )


def reports(directory: Path) -> list[Path]:
    """Return the files of the reports, the oldest first."""
    return sorted(path for path in directory.iterdir() if NAME.fullmatch(path.name))


def earlier(file: Path) -> Iterator[Run]:
    """Return the runs before the one of a file, the oldest first."""
    for path in reports(file.parent):
        if path.name >= file.name:
            return
        try:
            yield run_of(path.stem, read(path), path.with_suffix(".html").exists())
        except ReportError as error:
            # The history of a run must not depend on a disk that was full a week ago.
            yield Run(path.stem, problem=str(error))


def write(file: Path, text: str) -> None:
    """Write a file of its owner's as a whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(file)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
