"""A system that runs with its clients connected."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fanout.client import Client, ClientError, Shape, connected
from fanout.processes import cpu_seconds, machine_cpu_seconds
from fanout.search import Step
from fanout.systems import Servers, System, serving


class Session:
    """Servers and a client of one shape, made anew after a run in which something was lost.

    Args:
        system: which.
        shape: who is connected.
        program: the client.
    """

    def __init__(self, system: System, shape: Shape, program: Path) -> None:
        self.system = system
        self.shape = shape
        self.program = program
        self._stack = ExitStack()
        self._running: tuple[Servers, Client] | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def run(self, rate: float, seconds: float) -> Step:
        """Try a rate.

        Args:
            rate: deliveries a second.
            seconds: for how long.
        """
        try:
            servers, client = self._open()
            cpu, redis_cpu = servers.cpu_seconds(), cpu_seconds(servers.redis)
            everybody, start = machine_cpu_seconds(), time.monotonic()
            counted = client.run(rate / self.shape.members, seconds)
            everybody = machine_cpu_seconds() - everybody
            taken = (time.monotonic() - start) * (os.cpu_count() or 1)
            cpu = servers.cpu_seconds() - cpu
            redis_cpu = cpu_seconds(servers.redis) - redis_cpu
            others = max(0.0, everybody - cpu - redis_cpu - counted.client_cpu) / taken
        except (ClientError, RuntimeError, FileNotFoundError) as error:
            self._close()
            return Step(rate, 0.0, 0.0, 0.0, None, str(error))
        if not counted.whole:
            self._close()
        return Step(
            rate,
            1e6 * cpu / max(1, counted.received),
            1e6 * redis_cpu / max(1, counted.messages),
            100 * others,
            counted,
        )

    def _open(self) -> tuple[Servers, Client]:
        if self._running is None:
            directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            servers = self._stack.enter_context(
                serving(self.system, self.shape.processes, directory)
            )
            client = self._stack.enter_context(
                connected(
                    self.program, self.system.wire, self.system.path, servers.ports, self.shape
                )
            )
            self._running = servers, client
        return self._running

    def _close(self) -> None:
        self._running = None
        self._stack.close()
