"""Ansible callback: let no run that did nothing end as a success.

Ansible ends with 0 where a run has no task to do, as with a misspelt ``--start-at-task``. No task
can refuse that. What the playbooks can refuse is in ``playbooks/app_hosts.yml``.
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
  - Fails a run in which no task was run on any host.
options: {}
"""

FAILED = 1


def stop(message: str) -> NoReturn:
    """End the run; Ansible cleans up on the way out."""
    Display().error(message)
    sys.exit(FAILED)


class CallbackModule(CallbackBase):
    """Ends runs; says nothing of those that do something."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "nothing_done"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Refuse what skips the preflight."""
        if context.CLIARGS.get("start_at_task"):
            stop(
                "--start-at-task skips the preflight and the lock. Nothing was done."
                " Run without it: a run completes what an interrupted one left."
            )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Fail where no host is in the recap."""
        if not stats.processed:
            stop("No task was run on any host. Nothing was done.")
