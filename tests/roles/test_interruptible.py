"""What the processes of Ansible leave in the pipe that they share, when somebody presses Ctrl-C."""

import os
import signal
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
from ansible.executor.task_queue_manager import FinalQueue
from plugins.callback import interruptible

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
