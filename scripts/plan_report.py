"""The plan as lines for people: the answer, the binding constraint, then how it follows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model import (
    Figures,
    Plan,
    Shape,
    Term,
    deploy_seconds,
    drain_rounds,
    wave_size,
)

WIDTH = 118


def grouped(value: float) -> str:
    """Return a number with spaces between thousands; small ones with a digit after the point."""
    digits = 1 if abs(value) < 10 and value != round(value) else 0
    return f"{value:,.{digits}f}".replace(",", " ")


def memory(mebibytes: float) -> str:
    """Return a size in GiB from one GiB on."""
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def times(count: float, what: str) -> str:
    """Return a number of things."""
    return f"{grouped(count)} {what}" + ("" if count == 1 else "s")


def enumerated(words: Sequence[str]) -> str:
    """Return things as they are said: a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def seconds(number: float) -> str:
    """Return a time."""
    return f"{number:.0f} s" if number < 180 else f"{number / 60:.0f} min"


@dataclass(frozen=True)
class Report:
    """What is printed.

    Attributes:
        question: the command that the operator has run, with its arguments.
        answer: the plan: of the inventory, or of the hosts that are needed.
        enough: the least hosts that are enough.
        expected: the same hosts as in `answer`, with the values of the figures instead of their
            unfavourable ends.
        figures: what it stands on.
        values: the variables as Ansible evaluates them, of the planned hosts.
        asked: whether hosts were asked for, or the inventory was examined.
        app_source: where cores and memory of an app host are from.
        edge_source: where those of an edge are from.
        calibrated: whether the figures were measured for this inventory.
        layer: `channels_layer` of this inventory; empty: the application's own.
    """

    question: str
    answer: Plan
    enough: Plan
    expected: Plan
    figures: Figures
    values: Mapping[str, Any]
    asked: bool
    app_source: str
    edge_source: str
    calibrated: bool
    layer: str

    def lines(self) -> list[str]:
        """Return the whole plan."""
        return [
            *self.answer_lines(),
            "",
            *self.term_lines(),
            "",
            *self.time_lines(),
            "",
            *self.limit_lines(),
            "",
            *self.source_lines(),
        ]

    def answer_lines(self) -> Iterator[str]:
        """Yield the answer, and the binding constraint."""
        plan = self.answer
        stated, cluster = plan.statement, plan.cluster
        carried = (
            f"{grouped(stated.sockets)} sockets, {grouped(stated.messages)} messages/s and rooms of"
            f" {grouped(stated.room)}, with"
            f" {times(stated.spare, 'app host') if stated.spare else 'no app host'} to spare"
        )
        if self.asked:
            yield f"You need {self.hosts_in_words(plan)}, to carry {carried}."
            yield from (
                f"Raise {term.variable} in the inventory. {term.name}:"
                f" needs {grouped(term.needs)}, has {grouped(term.has)}."
                for term in plan.terms
                if not term.fits
            )
        elif plan.fits:
            yield f"This inventory carries {carried}."
        else:
            short = ", ".join(term.name for term in plan.terms if not term.fits)
            yield f"This inventory does NOT carry {carried}. Short: {short}."
            yield f"Enough are {self.hosts_in_words(self.enough)}."
        if "ASSUMED" in self.app_source + self.edge_source:
            yield f"This is so if the hosts are as ASSUMED below. {self.how_to_know()}"
        yield ""
        by_name = {term.name: term for term in plan.terms}
        app_memory = by_name["memory of an app host"]
        edge_memory = by_name["memory of an edge"]
        server = "your own server"
        if "postgres_connections" in self.values["table"]:
            server = f"max_connections {self.limit('postgres_connections')}"
        rows = [
            (
                "app hosts",
                f"{hosts_to_spare(cluster.app_hosts, stated.spare)};"
                f" {shape(cluster.app)}, {self.app_source}",
            ),
            ("workers", f"{plan.workers}, {self.workers_of_hosts()}"),
            (
                "memory",
                f"needs {memory(app_memory.needs)} on an app host,"
                f" {memory(edge_memory.needs)} on an edge",
            ),
            ("Redis", times(plan.redis, "instance") + " for the channel layer, one core each"),
            (
                "edges",
                f"{hosts_to_spare(cluster.edges, min(1, cluster.edges - 1))};"
                f" {shape(cluster.edge)}, {self.edge_source}",
            ),
            (
                "PostgreSQL",
                f"{self.limit('database_connections')} connections of the pools; {server}",
            ),
            (
                "deliveries",
                f"{grouped(stated.deliveries)}/s ({grouped(stated.messages)} messages/s x"
                f" {grouped(stated.members)} sockets), {grouped(plan.load.deliveries)}/s a worker,"
                f" each message to {plan.load.touched:.1f} workers",
            ),
        ]
        yield from (f"  {name:12} {text}" for name, text in rows)
        yield ""
        binding = plan.binding
        yield (
            f"Binding constraint: {binding.name}: needs {grouped(binding.needs)} {binding.unit},"
            f" has {grouped(binding.has)}, head-room {binding.headroom:.0f} %."
        )
        if plan.redis > 1:
            yield (
                f"One Redis carries {grouped(stated.messages / self.redis_share())} messages/s of"
                f" this kind: name {plan.redis} instances in the hosts of the channel layer"
                " (channels_redis shards by group)."
            )

    def how_to_know(self) -> str:
        """Return what to run to have a plan without an assumption."""
        if not self.asked:
            # With HOST_CORES or HOST_MEMORY, it would plan a new cluster.
            return f"When they answer, run: {self.question}"
        app = self.answer.cluster.app
        stated = {"HOST_CORES": app.cores, "HOST_MEMORY": f"{app.memory_mib}M"}
        missing = [f"{name}={value}" for name, value in stated.items() if name not in self.question]
        return f"Run it with what they have: {' '.join([self.question, *missing])}"

    def redis_share(self) -> float:
        """Return how many instances the messages need, as a fraction."""
        term = next(term for term in self.answer.terms if term.of == "redis")
        return float(term.needs * self.answer.redis / term.has)

    def hosts_in_words(self, plan: Plan) -> str:
        """Return the hosts of a plan."""
        return enumerated(
            (
                f"{times(plan.cluster.app_hosts, 'app host')} with"
                f" {times(plan.cluster.workers_per_host, 'worker')} each",
                times(plan.cluster.edges, "edge"),
                times(plan.redis, "Redis instance"),
            )
        )

    def workers_of_hosts(self) -> str:
        """Return how many workers a host has."""
        cluster = self.answer.cluster
        if cluster.uneven:
            return f"{min(cluster.uneven)} to {max(cluster.uneven)} a host"
        return f"{cluster.workers_per_host:g} a host"

    def term_lines(self) -> Iterator[str]:
        """Yield the terms, the one with the least head-room first."""
        expected = {term.name: term for term in self.expected.terms}
        rows = [("term", "needs", "expected", "has", "unit", "head-room", "why")]
        for term in sorted(self.answer.terms, key=lambda term: term.headroom):
            rows.append(
                (
                    term.name,
                    grouped(term.needs),
                    grouped(expected.get(term.name, term).needs),
                    grouped(term.has),
                    term.unit,
                    f"{term.headroom:.0f} %" + ("" if term.fits else " SHORT"),
                    why(term),
                )
            )
        yield (
            "What runs out first, when the spare hosts are lost (needs: with the worse end of each"
            " figure; expected: with its value)"
        )
        yield from columns(rows, right={1, 2, 3})

    def time_lines(self) -> Iterator[str]:
        """Yield how long a deploy takes."""
        plan, figures = self.answer, self.figures
        hosts = self.values["groups"]["channels"]
        first = self.values["hosts"][hosts[0]]
        pace = float(first["drain_pace"])
        # All hosts are there in a deploy.
        sockets = math.ceil(plan.statement.sockets / plan.workers)
        limit = first["roll_limit"]
        per_host = plan.cluster.workers_per_host
        yield f"Time of a deploy (channels_roll_limit: {limit})"
        for count in dict.fromkeys((plan.workers, 100)):
            size = wave_size(limit, count)
            rounds = drain_rounds(size, per_host, count, plan.statement.spare)
            drains = rounds * math.ceil(sockets / pace)
            yield (
                f"  {times(count, 'worker')}, {size} at once:"
                f" {seconds(deploy_seconds(count, size, figures))} with nobody connected,"
                f" {seconds(deploy_seconds(count, size, figures, drains))} with all sockets open"
                f" ({times(rounds, 'round')} of drains; a worker closes {sockets} at {pace:g} a"
                " second)"
            )

    def limit(self, name: str) -> str:
        """Return the value of a line of the table."""
        line = self.values["table"].get(name)
        return str(line["value"]) if line else "?"

    def limit_lines(self) -> Iterator[str]:
        """Yield the limits that follow, as Ansible evaluates them."""
        yield "Limits that follow (roles/cluster/vars/main.yml; as Ansible evaluates them)"
        rows = [("limit", "value", "unit", "variable", "why")]
        for name, line in self.values["table"].items():
            set_by = line["variable"] or ""
            if line["overridden"]:
                set_by += f" (set; the table has {line['derived']})"
            rows.append(
                (
                    name,
                    str(line["value"]),
                    line["unit"],
                    set_by,
                    f"{line['reason']} [{line['source']}]",
                )
            )
        yield from columns(rows, right={1})
        # The values of hosts are not in the table of limits.
        others = {name for values in self.values["hosts"].values() for name in values}
        reasons: dict[str, list[str]] = {}
        for name, error in self.values["errors"].items():
            if name not in others:
                _, _, reason = error.partition(": ")
                reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            yield f"  {enumerated(names)} cannot be evaluated: {reason}"

    def source_lines(self) -> Iterator[str]:
        """Yield what the figures are of, and where the plan goes beyond them."""
        content = self.figures.content
        machine = content.get("host") or {}
        kind = "measured for this inventory" if self.calibrated else "DEFAULTS, not from your hosts"
        yield (
            f"Figures: {kind}; {content.get('date', 'no date')},"
            f" {content.get('machine') or 'unknown machine'}"
        )
        versions = content.get("versions") or {}
        yield "  " + ", ".join(f"{name} {version}" for name, version in versions.items())
        if not self.calibrated:
            yield "  Run make calibrate to measure your application on your hosts."
        defaults = [
            name
            for name, each in content.items()
            if isinstance(each, Mapping) and each.get("default")
        ]
        if self.calibrated and defaults:
            yield f"  Not measured, so defaults: {', '.join(defaults)}"
        beyond = [
            f"{term.name}: {term.extrapolated}" for term in self.answer.terms if term.extrapolated
        ]
        app = self.answer.cluster.app
        if machine and (app.cores, app.memory_mib) != (
            machine.get("cores"),
            machine.get("memory_mib"),
        ):
            beyond.append(
                f"another machine: {times(app.cores, 'core')} and {memory(app.memory_mib)}"
                f" instead of {machine.get('cores')}"
                f" and {memory(float(machine.get('memory_mib') or 0))}"
            )
        measured = (content.get("measured") or {}).get("layer", self.layer)
        if measured != self.layer and (self.calibrated or self.layer):
            has, had = (each or "that of the application" for each in (self.layer, measured))
            beyond.append(
                f"another channel layer: {has} instead of {had}. Messages cost more or less there."
                " Run make calibrate"
            )
        if (machine.get("hosts_on_machine") or 1) > 1:
            beyond.append(
                f"{machine['hosts_on_machine']} hosts shared the machine of the figures: hosts of"
                " their own carry more"
            )
        if beyond:
            yield "Extrapolated:"
            yield from (f"  - {line}" for line in beyond)
        else:
            yield "Nothing is extrapolated."


def hosts_to_spare(hosts: int, spare: int) -> str:
    """Return a number of hosts, and how many of them may be lost."""
    left = hosts - spare
    if not spare:
        return f"{hosts}, none to spare"
    carries = "the other one carries" if left == 1 else f"the other {left} carry"
    return f"{hosts}; when {spare} {'is' if spare == 1 else 'are'} lost, {carries} everything"


def shape(host: Shape) -> str:
    """Return what a host has."""
    return f"{times(host.cores, 'core')} and {memory(host.memory_mib)} each"


def why(term: Term) -> str:
    """Return the reason of a term, with its source and how far it was measured."""
    mark = f"; EXTRAPOLATED: {term.extrapolated}" if term.extrapolated else ""
    return f"{term.reason} [{term.source}{mark}]"


def columns(rows: Sequence[Sequence[str]], right: set[int]) -> Iterator[str]:
    """Yield rows as a table; the last column is below the others."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]) - 1)]
    for position, row in enumerate(rows):
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield ("  " + "  ".join(cells)).rstrip()
        if position:
            yield from textwrap.wrap(
                row[-1], WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
