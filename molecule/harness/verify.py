"""Runs of `make verify`, and what they say."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.ansible import ROOT, run
from harness.cluster import Cluster

READING = '{"verify_parts": ["reading"]}'


@dataclass(frozen=True)
class Result:
    """What verify said."""

    code: int
    report: dict[str, Any]
    text: str

    def of(self, status: str) -> list[dict[str, Any]]:
        """Return the verdicts with a status."""
        checks: list[dict[str, Any]] = self.report["checks"]
        return [check for check in checks if check["status"] == status]


def verify(cluster: Cluster, *arguments: str, **environment: str) -> Result:
    """Verify as an operator does."""
    done = run(ROOT / "scripts" / "verify", cluster.inventory, "--", *arguments, **environment)
    match = re.search(r"Report: (\S+\.json)", done.output)
    assert match, done.output
    return Result(done.rc, json.loads(Path(match[1]).read_text()), done.output)


def command(cluster: Cluster, host: str, text: str) -> None:
    """Run a command of the shell as root."""
    result = cluster.ssh(host, "sudo", "sh", "-c", text)
    assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
