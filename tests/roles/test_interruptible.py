"""Ansible and its processes, when somebody presses Ctrl-C: nobody waits, and nobody goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
from ansible.executor.task_queue_manager import FinalQueue
from plugins.callback import interruptible

from .house import ROOT

LARGE = "x" * 1_000_000
"""More than a pipe holds: it is written while somebody reads."""


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(FinalQueue, "put", interruptible.whole(FinalQueue.put))
    return FinalQueue()


def started(queue: Any, message: str) -> ForkProcess:
    """Start a process that writes a message, and that Ctrl-C ends as it ends Ansible's."""

    def write() -> None:
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(1))
        os.write(ready, b"!")
        queue.put(message)

    begun, ready = os.pipe()
    process = ForkProcess(target=write)
    process.start()
    os.read(begun, 1)
    os.close(begun)
    os.close(ready)
    # It sleeps when it waits for a reader, or for the lock.
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
        os.sched_yield()
    return process


def interrupt(process: ForkProcess) -> None:
    assert process.pid
    os.kill(process.pid, signal.SIGINT)


def ended(process: ForkProcess) -> int | None:
    """Wait until a process has ended; return its exit status, or nothing if it hangs."""
    process.join(60)
    status = process.exitcode
    process.kill()
    return status


def test_an_interrupted_process_completes_its_message_and_ends(queue: Any) -> None:
    process = started(queue, LARGE)
    # The end of an incomplete message is an error, and not a wait.
    queue._writer.close()
    interrupt(process)
    assert queue.get() == LARGE
    assert ended(process) == 1
    # Ansible needs it at its end.
    assert queue._wlock.acquire(timeout=60)


def test_an_interrupted_process_that_waits_for_another_one_ends_at_once(queue: Any) -> None:
    writer = started(queue, LARGE)
    waiting = started(queue, "never")
    interrupt(waiting)
    assert ended(waiting) == 1
    assert queue.get() == LARGE
    assert ended(writer) == 0
    assert queue.empty()


def test_an_interrupted_process_ends_although_nobody_reads(
    queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruptible, "PATIENCE", 1)
    process = started(queue, LARGE)
    interrupt(process)
    assert ended(process) == -signal.SIGALRM


# Ctrl-C while Python forks: what is raised in these functions is printed and forgotten.
FORKS = """
import os, signal, sys
from multiprocessing.context import ForkProcess
from plugins.callback import interruptible

os.register_at_fork(after_in_{side}=lambda: os.kill(os.getpid(), signal.SIGINT))
process = ForkProcess(target=print, args=["went on"])
heard = False
try:
    interruptible.heard(ForkProcess.start)(process)
except KeyboardInterrupt:
    heard = True
# Both processes write to one pipe: one after the other.
process.join()
print(heard, process.exitcode)
"""


@pytest.mark.parametrize(
    ("side", "said"), [("parent", "went on\nTrue 0\n"), ("child", "False 1\n")]
)
def test_an_interrupt_in_a_fork_is_heard(side: str, said: str) -> None:
    program = FORKS.format(side=side)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == said


class Forgets:
    """Is interrupted while it is deleted."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class Manager:
    """Asks its processes, as a TaskQueueManager does, and interrupts."""

    def __init__(self) -> None:
        closed = ForkProcess(target=int)
        closed.start()
        closed.join()
        closed.close()
        self._workers = [closed, None]
        self.asked = 0

    def handle(self, _number: int, _frame: object) -> None:
        for worker in self._workers:
            assert worker is None or not worker.is_alive()
        self.asked += 1
        raise KeyboardInterrupt


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_forgets_is_raised_until_ansible_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive = interruptible.unless_closed(ForkProcess.is_alive)
    monkeypatch.setattr(ForkProcess, "is_alive", alive)
    manager = Manager()
    signal.signal(signal.SIGINT, interruptible.until_heard(manager.handle))

    ended: list[object] = []

    def go_on() -> None:
        try:
            Forgets()
            # Until it is interrupted again.
            time.sleep(60)
        finally:
            interruptible.hearing(ended.append)(manager)

    with pytest.raises(KeyboardInterrupt):
        go_on()
    assert manager.asked == 1
    assert ended == [manager]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
