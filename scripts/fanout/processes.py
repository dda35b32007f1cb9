"""Processes of the benchmark: each is started, read from /proc, and ended by its id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process_id: int) -> float:
    """Return the processor time that a process has used, user and system."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_cpu_seconds() -> float:
    """Return the processor time of everything on this machine, and of what it had to wait for."""
    # user nice system idle iowait irq softirq steal
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    numbers = [int(number) for number in fields]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICKS


def find(program: str) -> str:
    """Return the path of a program; end with advice if it is missing."""
    path = shutil.which(program)
    if path is None:
        sys.exit(f"{program} not found. Install what the tests need: scripts/bootstrap tests")
    return path


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], port: int, log: Path
) -> Iterator[int]:
    """Run a server until it is not needed any more; yield its process id when it listens.

    Args:
        command: the program and its arguments.
        environment: all of its environment.
        port: on which it will listen.
        log: the file that its output goes to.

    Raises:
        RuntimeError: it has ended, or does not listen in time; with the end of its log.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C reaches this program alone, which ends the others.
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not listen:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process; kill it, if it takes too long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def redis(log: Path) -> Iterator[tuple[int, str]]:
    """Run a Redis without persistence; yield its process id and its URL."""
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    command = [find("redis-server"), *options, "--dir", str(log.parent)]
    with running(command, dict(os.environ), port, log) as process_id:
        yield process_id, f"redis://127.0.0.1:{port}/0"
