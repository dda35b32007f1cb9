"""One report of `make verify`, as its JSON file has it.

    {"format": 1, "kit": "0.5.0", "environment": "staging", "began": "2026-11-28T21:15:00Z",
     "seconds": 12.3, "verdict": "verified" | "failed" | "incomplete",
     "checks": [{"host", "subject", "term", "expected", "effective", "source",
                 "status": "ok" | "failed" | "unreadable" | "skipped", "message",
                 "advice", "used", "limit", "unit"}],
     "matrix": {"workers": [...], "edges": [...],
                "cells": [{"from", "to", "way", "status", "seconds", "message"}]},
     "behaviour": [{"name", "subject", "status", "seconds", "message", "advice"}]}

Only `format` to `verdict`, a check's `host` and `term`, a cell's `from` and `to`, the name of a
behaviour check and every `status` must be there. Other keys are ignored.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

FORMAT = 1
OK, FAILED, UNREADABLE, SKIPPED = STATUSES = ("ok", "failed", "unreadable", "skipped")
VERIFIED, INCOMPLETE = "verified", "incomplete"
VERDICTS = (VERIFIED, FAILED, INCOMPLETE)

LONGEST = 2000
"""Characters of a text that are shown."""


class ReportError(Exception):
    """A file is not a report that can be read; the message says why."""


@dataclass(frozen=True)
class Check:
    """A term of a process or host, compared.

    Attributes:
        host: where.
        subject: the process, file or setting.
        term: what was compared.
        expected: by the inventory.
        effective: what is in effect.
        source: where that was read.
        status: one of STATUSES.
        message: what is wrong.
        advice: what to do.
        used: how much of the limit is taken.
        limit: what may be taken.
        unit: of both; `bytes` is shown as KiB, MiB and GiB.
    """

    host: str
    subject: str
    term: str
    expected: str
    effective: str
    source: str
    status: str
    message: str
    advice: str
    used: float | None
    limit: float | None
    unit: str


@dataclass(frozen=True)
class Cell:
    """A message from one worker to another.

    Attributes:
        sender: the worker that sent it.
        receiver: the worker on which it was expected.
        way: how it went, such as `directly` or `through the edge`.
        status: one of STATUSES.
        seconds: how long it took.
        message: what is wrong.
    """

    sender: str
    receiver: str
    way: str
    status: str
    seconds: float | None
    message: str


@dataclass(frozen=True)
class Behaviour:
    """Something that was done, as a client does it.

    Attributes:
        name: what.
        subject: with which edge, worker or page.
        status: one of STATUSES.
        seconds: how long it took.
        message: what is wrong.
        advice: what to do.
    """

    name: str
    subject: str
    status: str
    seconds: float | None
    message: str
    advice: str


@dataclass(frozen=True)
class Report:
    """What one run has found.

    Attributes:
        kit: the version of the kit.
        environment: the directory of inventories/.
        began: when the run began.
        seconds: how long it took.
        stated: the verdict in the file.
        checks: what was compared.
        workers: those of the matrix, in its order.
        edges: those that were asked.
        cells: the matrix.
        behaviour: what was done.
    """

    kit: str
    environment: str
    began: datetime
    seconds: float
    stated: str
    checks: Sequence[Check]
    workers: Sequence[str]
    edges: Sequence[str]
    cells: Sequence[Cell]
    behaviour: Sequence[Behaviour]

    @cached_property
    def counts(self) -> Counter[str]:
        """How many checks, pairs and behaviour checks there are of each status."""
        return Counter(
            item.status for part in (self.checks, self.cells, self.behaviour) for item in part
        )

    @property
    def total(self) -> int:
        """How many checks apply, and pairs."""
        return self.counts.total() - self.counts[SKIPPED]

    @cached_property
    def verdict(self) -> str:
        """The stated verdict, or a worse one where the content does not bear it out.

        A failure is a failure whatever the file states, and nothing checked is no success.
        """
        if self.counts[FAILED] or self.stated == FAILED:
            return FAILED
        return self.stated if self.counts[OK] else INCOMPLETE

    @cached_property
    def delays(self) -> list[float]:
        """The seconds of the messages that arrived, in ascending order."""
        return sorted(
            cell.seconds for cell in self.cells if cell.status == OK and cell.seconds is not None
        )

    def delay(self, share: float) -> float | None:
        """Return the delay that a share of the messages did not exceed; None without a message."""
        if not self.delays:
            return None
        return self.delays[max(0, math.ceil(share * len(self.delays)) - 1)]


def read(file: Path) -> Report:
    """Read a report.

    Raises:
        ReportError: the file cannot be read or is no report.
    """
    try:
        return parse(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ReportError(f"{file.name}: {error.strerror}") from error
    except RecursionError as error:
        raise ReportError(f"{file.name}: nested too deeply") from error
    except ValueError as error:  # also of the encoding
        raise ReportError(f"{file.name} contains no JSON: {error}") from error
    except ReportError as error:
        raise ReportError(f"{file.name}: {error}") from error


def parse(content: Any) -> Report:
    """Return the report of a file's content.

    Raises:
        ReportError: it is no report.
    """
    top = _Item("report", content)
    if (version := top.content.get("format")) != FORMAT:
        raise ReportError(f"format is {version!r}, not {FORMAT}: written by another version")
    matrix = top.item("matrix")
    cells = [
        Cell(
            sender=each.text("from"),
            receiver=each.text("to"),
            way=each.text("way", ""),
            status=each.choice("status", STATUSES),
            seconds=each.number("seconds"),
            message=each.text("message", ""),
        )
        for each in matrix.items("cells")
    ]
    named = [_text(name) for name in matrix.sequence("workers")]
    # A worker that only a cell names is one, too.
    named += [name for cell in cells for name in (cell.sender, cell.receiver)]
    return Report(
        kit=top.text("kit"),
        environment=top.text("environment"),
        began=top.time("began"),
        seconds=top.number("seconds") or 0.0,
        stated=top.choice("verdict", VERDICTS),
        checks=[_check(each) for each in top.items("checks")],
        workers=list(dict.fromkeys(named)),
        edges=[_text(name) for name in matrix.sequence("edges")],
        cells=cells,
        behaviour=[
            Behaviour(
                name=each.text("name"),
                subject=each.text("subject", ""),
                status=each.choice("status", STATUSES),
                seconds=each.number("seconds"),
                message=each.text("message", ""),
                advice=each.text("advice", ""),
            )
            for each in top.items("behaviour")
        ],
    )


def _check(item: _Item) -> Check:
    return Check(
        host=item.text("host"),
        subject=item.text("subject", ""),
        term=item.text("term"),
        expected=item.text("expected", ""),
        effective=item.text("effective", ""),
        source=item.text("source", ""),
        status=item.choice("status", STATUSES),
        message=item.text("message", ""),
        advice=item.text("advice", ""),
        used=item.number("used"),
        limit=item.number("limit"),
        unit=item.text("unit", ""),
    )


class _Item:
    """An object of the file, and where it is."""

    def __init__(self, where: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise ReportError(f"{where} is no object")
        self.where = where
        self.content = content

    def item(self, key: str) -> _Item:
        return _Item(key, self.content.get(key) or {})

    def sequence(self, key: str) -> Sequence[Any]:
        value = self.content.get(key) or []
        if not isinstance(value, list):
            raise ReportError(f"{self.where}.{key} is no list")
        return value

    def items(self, key: str) -> list[_Item]:
        return [_Item(f"{key}[{number}]", each) for number, each in enumerate(self.sequence(key))]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.content.get(key)
        if value is None:
            if default is None:
                raise ReportError(f"{self.where}.{key} is missing")
            return default
        return _text(value)

    def number(self, key: str) -> float | None:
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ReportError(f"{self.where}.{key} is no number: {value!r:.40}")
        # JSON has neither NaN nor Infinity, but Python writes and reads them.
        return value if math.isfinite(value) else None

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value = self.content.get(key)
        if value not in choices:
            raise ReportError(f"{self.where}.{key} is {value!r:.40}, not {' or '.join(choices)}")
        return str(value)

    def time(self, key: str) -> datetime:
        try:
            time = datetime.fromisoformat(self.text(key))
            return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ReportError(f"{self.where}.{key} is no time") from error


def _text(value: Any) -> str:
    """Return a value in one line, without what a terminal or a browser obeys."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = value
    elif isinstance(value, int | float):
        text = f"{value:g}" if isinstance(value, float) else str(value)
    else:
        text = json.dumps(value)
    text = " ".join(text.split())
    # Control characters, marks that reverse the direction of a line, halves of characters.
    shown = "".join("\ufffd" if unicodedata.category(each)[0] == "C" else each for each in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
