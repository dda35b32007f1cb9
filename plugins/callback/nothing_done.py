"""Ansible callback: fail a run that did nothing.

Ansible exits with status 0 if a run has no task to do, for example with a misspelt
``--start-at-task``. No task can check for that. The checks that a playbook can do are in
``playbooks/app_hosts.yml``.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.utils.display import Display

DOCUMENTATION = """
name: nothing_done
type: notification
short_description: Fails a run that did nothing, or that would skip the preflight
description:
  - Refuses C(--start-at-task) before the first play. It would skip the preflight and the lock.
  - Fails a run in which no task ran on any host.
options: {}
"""

FAILED = 1


def stop(message: str) -> NoReturn:
    """Print an error and end the run. Ansible cleans up at exit."""
    Display().error(message)
    sys.exit(FAILED)


class CallbackModule(CallbackBase):
    """Ends a run that does nothing or skips the preflight; has no output otherwise."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "nothing_done"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Refuse an option that skips the preflight."""
        if context.CLIARGS.get("start_at_task"):
            stop(
                "The option --start-at-task is not allowed: it skips the preflight and the lock."
                " Nothing changed. Remove it and run the command again: each run completes the"
                " steps that an interrupted run left out."
            )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Fail if the recap has no host."""
        if not stats.processed:
            stop("No task ran on any host. Nothing changed.")
