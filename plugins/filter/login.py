"""A filter about the way to root on a host; see playbooks/preflight.yml."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten
from typing import Any

LENGTH = 300
"""Characters of an answer that are shown; Mitogen's has the whole command."""


def login_failure(result: Mapping[str, Any]) -> str:
    """Return why a task failed that needs root, in the words of the program that said so.

    Args:
        result: what Ansible returned for the task.
    """
    # If no module ran, msg only says that there is no answer.
    words = (result.get(name) for name in ("module_stderr", "module_stdout", "stderr", "msg"))
    said = next((str(each) for each in words if str(each or "").strip()), "failed")
    return shorten(said, LENGTH)


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"login_failure": login_failure}
