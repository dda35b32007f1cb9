"""A filter for the check that Ansible can become root; see playbooks/preflight.yml."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten
from typing import Any

LENGTH = 300
"""Maximum length of an error in a message. Errors of Mitogen contain the whole command."""


def login_failure(result: Mapping[str, Any]) -> str:
    """Return the error of a task that needs root, as the failing program printed it.

    Args:
        result: what Ansible returned for the task.
    """
    # If no module ran, msg has no cause: it only says that the module did not answer.
    words = (result.get(name) for name in ("module_stderr", "module_stdout", "stderr", "msg"))
    said = next((str(each) for each in words if str(each or "").strip()), "failed")
    return shorten(said, LENGTH)


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"login_failure": login_failure}
