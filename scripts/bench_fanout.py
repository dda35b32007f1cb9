"""Compare the kit's fan-out with Channels' own layers, Node `ws` and Socket.IO.

One run, one machine, one client (fanout/client.c): the systems take turns. For each it finds the
highest rate at which nothing is lost and 99 of 100 deliveries take less than 250 ms, in rooms of
several shapes, and what a delivery costs the servers' processors. docs/fanout.md has the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import commands
from commands import ROOT
from fanout.client import Shape, build
from fanout.redis_cost import measure_redis
from fanout.report import Result, Run, draw, page, summary
from fanout.search import LEAST_MESSAGES, LEAST_RATE, Step, search
from fanout.session import Session
from fanout.systems import SYSTEMS, System, install_peers, versions

NAME = "fanout"
DOCS = ROOT / "docs"

MAIN = Shape()
ROUNDS = 2
"""Searches of the main shape for each system: what they differ by is the machine's noise."""

IDLE = Shape(idle=6000)
OTHERS = (
    Shape(rooms=1000, members=10),
    Shape(rooms=20, members=250),
    Shape(members=5000),
    Shape(processes=1),
    Shape(payload=2048),
)
SLOW = ("core", "pubsub")
"""Compared in the main shape, and not in the others: they take long, and are far below."""

QUIET_MESSAGES, QUIET_SECONDS = 5.0, 6.0
STEP_SECONDS = 2.0
IDLE_SECONDS = 5.0
IDLE_SHARE = 0.1
"""Of the highest rate."""

PRECISION, ROUGH_PRECISION = 1.1, 1.2


class Bench:
    """One run.

    Attributes:
        run: what it has found.
    """

    def __init__(self, systems: Sequence[System], program: Path) -> None:
        self.systems = systems
        self.program = program
        self.run = Run(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            machine=machine(),
            versions=versions(),
        )

    def measure(self, shape: Shape, system: System, precision: float, quiet: bool) -> None:
        """Find the highest rate of a system in a shape."""
        self.say(f"{shape.title}: {system.title}")
        with Session(system, shape, self.program) as session:
            first = self.quiet_room(session) if quiet else None
            start = max(LEAST_RATE, LEAST_MESSAGES * shape.members)
            steps = search(lambda rate: self.attempt(session, rate), start, precision)
        self.run.results.append(Result(shape, system.name, first, steps))

    def quiet_room(self, session: Session) -> Step:
        """Send a few messages, each when the one before has long arrived."""
        step = session.run(QUIET_MESSAGES * session.shape.members, QUIET_SECONDS)
        self.tell(step)
        return step

    def attempt(self, session: Session, rate: float) -> Step:
        """Try one rate."""
        step = session.run(rate, STEP_SECONDS)
        self.tell(step)
        return step

    def idle(self, system: System) -> None:
        """Send a part of the highest rate, with idle sockets beside."""
        highest = self.run.highest(system.name, MAIN)
        if not highest:
            return
        self.say(f"{IDLE.title}: {system.title}")
        with Session(system, IDLE, self.program) as session:
            step = session.run(highest * IDLE_SHARE, IDLE_SECONDS)
        self.tell(step)
        self.run.results.append(Result(IDLE, system.name, None, [step]))

    def tell(self, step: Step) -> None:
        """Print a step."""
        counted = step.counted
        if counted is None:
            self.say(f"  {step.rate:10.0f}/s  ended: {step.reason[-200:]}")
            return
        self.say(
            f"  {step.rate:10.0f}/s  p50 {counted.p50:7.1f} ms, p99 {counted.p99:7.1f} ms,"
            f" {counted.received} of {counted.expected}, {step.cpu:.2f} µs a delivery,"
            f" client {counted.client_cpu / counted.seconds:.0%}, others {step.others:.0f} %"
            f"{'' if step.passes else '  fails'}"
        )

    @staticmethod
    def say(line: str) -> None:
        """Print a line of progress."""
        print(line, file=sys.stderr, flush=True)


def machine() -> str:
    """Return what all of it ran on."""
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return (
        f"{os.cpu_count()} cores of {', '.join(models)}, {memory} GiB, Linux {platform.release()}"
    )


def measure_all(bench: Bench, short: bool) -> None:
    """Measure everything, or the main shape once."""
    for _ in range(1 if short else ROUNDS):
        for system in bench.systems:
            bench.measure(MAIN, system, ROUGH_PRECISION if short else PRECISION, quiet=True)
    if short:
        return
    bench.say("Redis")
    bench.run.redis = measure_redis()
    for system in bench.systems:
        bench.idle(system)
    for shape in OTHERS:
        for system in bench.systems:
            if system.name not in SLOW:
                bench.measure(shape, system, ROUGH_PRECISION, quiet=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write docs/fanout.*; return the status to end with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="the main shape once; writes nothing")
    parser.add_argument(
        "--systems",
        default=",".join(SYSTEMS),
        help="which of %(default)s (default: all); with fewer, nothing is written",
    )
    options = parser.parse_args(arguments)
    names = options.systems.split(",")
    if unknown := set(names) - set(SYSTEMS):
        parser.error(f"unknown system {min(unknown)}; systems: {', '.join(SYSTEMS)}")
    commands.end_on_signals()
    try:
        with commands.locked(NAME, "make bench-fanout"), tempfile.TemporaryDirectory() as name:
            install_peers()
            bench = Bench([SYSTEMS[name] for name in names], build(Path(name)))
            measure_all(bench, options.short)
    except KeyboardInterrupt:
        return commands.interrupted("\nInterrupted; the servers have ended.")
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(summary(bench.run))
    if not options.short and set(names) == set(SYSTEMS):
        write(bench.run)
    return 0


def write(run: Run) -> None:
    """Write the result into docs/."""
    (DOCS / "fanout.json").write_text(json.dumps(run.content(), indent=1) + "\n")
    file = DOCS / "fanout.md"
    file.write_text(page(file.read_text(), run))
    draw(run, DOCS / "fanout.svg")


if __name__ == "__main__":
    sys.exit(main())
