"""Ansible callback: let one Ctrl-C end Ansible.

Ansible forks a process per task and host. Of ansible-core 2.19:

- These processes write what they have to say into one pipe, under one lock. At Ctrl-C, Ansible ends
  them at once, and then writes into the pipe itself (``StrategyBase.cleanup``). If one ended while
  it was writing, its lock stays taken, and Ansible waits for it without end. Here a process that is
  writing ends after its message. Measured with 12 hosts whose results are large: without this, 9 of
  12 interrupted runs did not end.
- Ctrl-C raises KeyboardInterrupt wherever Ansible is. In a fork, and where an object is deleted,
  Python prints and forgets it: Ansible goes on, and waits without end for processes that it has
  ended. Here a Ctrl-C waits until a fork is over, and is raised again until Ansible ends. Measured
  with 5 hosts on a busy machine: without this, 8 of 42 interrupted runs went on.
- It asks all processes whether they live, in the handler and when it cleans up, and fails at one
  that it has closed and not yet replaced by the next (2 of these 42 runs). Here that one is dead.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ansible.executor.process.worker import WorkerProcess
from ansible.executor.task_queue_manager import FinalQueue, TaskQueueManager
from ansible.plugins.callback import CallbackBase
from ansible.plugins.strategy import StrategyBase

DOCUMENTATION = """
name: interruptible
type: aggregate
short_description: Lets one Ctrl-C end Ansible
description:
  - Lets an interrupted process of this run of Ansible complete the message that it is writing.
options: {}
"""

PATIENCE = 10
"""Seconds until an interrupted process ends whose message nobody reads."""

AGAIN = 0.2
"""Seconds until Ansible is interrupted again, if it goes on."""


@contextmanager
def held(hear: Callable[[Any], None]) -> Iterator[None]:
    """Let a Ctrl-C wait for the end of a block.

    Args:
        hear: called when it comes, with the handler that waits; may end this process.
    """
    before = signal.getsignal(signal.SIGINT)
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        hear(before)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)


def whole(put: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Return a way to write a message that no Ctrl-C cuts short in the processes of this one."""
    controller = os.getpid()

    def put_whole(queue: Any, message: Any) -> None:
        # Python runs handlers in the main thread: they cut no other one short.
        if os.getpid() == controller or threading.current_thread() is not threading.main_thread():
            put(queue, message)
            return

        def hear(before: Any) -> None:
            if queue._wlock._semlock._is_mine():
                signal.alarm(PATIENCE)
            else:
                # It waits for the lock; later, nobody may read what it has to say.
                signal.signal(signal.SIGINT, before)
                signal.raise_signal(signal.SIGINT)

        with held(hear):
            put(queue, message)

    return put_whole


def heard(start: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a way to start a process in which no Ctrl-C is lost."""
    controller = os.getpid()

    def hear(_before: Any) -> None:
        if os.getpid() != controller:
            # Just forked. A terminal interrupts the controller, too.
            os._exit(1)

    def start_heard(process: Any) -> None:
        with held(hear):
            start(process)

    return start_heard


def unless_closed(is_alive: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a way to ask whether a process lives: one that is closed does not."""
    return lambda process: not process._closed and is_alive(process)


def until_heard(handle: Any) -> Any:
    """Return a handler of Ctrl-C which interrupts until Ansible ends."""

    def again(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def handle_until_heard(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        handle(number, frame)

    return handle_until_heard


def hearing(clean_up: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a way to clean up in which Ansible is not interrupted again."""

    def clean_up_undisturbed(owner: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        clean_up(owner)

    return clean_up_undisturbed


class CallbackModule(CallbackBase):
    """Does it when it is loaded, which is before the first process; has no output."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "interruptible"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        FinalQueue.put = whole(FinalQueue.put)
        WorkerProcess.start = heard(WorkerProcess.start)
        WorkerProcess.is_alive = unless_closed(WorkerProcess.is_alive)
        StrategyBase.cleanup = hearing(StrategyBase.cleanup)
        TaskQueueManager.cleanup = hearing(TaskQueueManager.cleanup)
        signal.signal(signal.SIGINT, until_heard(signal.getsignal(signal.SIGINT)))
