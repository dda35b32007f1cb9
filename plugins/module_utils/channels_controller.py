"""What the actions of a roll share; it runs on the controller alone."""

from __future__ import annotations

import sys

from ansible.errors import AnsibleConnectionFailure

TIMES = "_channels_roll_times"
"""The fact that says when a roll began, and how many seconds its proofs took."""


def unreachable_errors() -> tuple[type[Exception], ...]:
    """Return what is raised where the host cannot be reached, by Ansible and by Mitogen.

    Ansible rescues no host that is unreachable, and the others must be put back.
    """
    mitogen = sys.modules.get("mitogen.core")
    return (AnsibleConnectionFailure, *([mitogen.ChannelError] if mitogen else []))


def words_of(output: str) -> str:
    """Return what a proof says it has proved: the last line of its report."""
    last = (output.splitlines() or [""])[-1]
    return f": {last.removeprefix('Proved: ')}" if last.startswith("Proved: ") else ""
