"""Ansible action: write the report of `make verify` and end with its verdict.

Collects what the tasks before have registered on every host, compares what only several hosts
together show (releases, clocks), writes the JSON file, and fails where something is not as stated.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

from ansible.module_utils.host_checks import agree, clocks
from ansible.module_utils.verify_report import (
    answer_of,
    behaviour_of,
    certificate_checks,
    lines,
    matrix_of,
    report_of,
    unproved,
)

KEPT = 30
"""Reports of one environment that are kept: a month of daily runs. The page shows their history.
One of 100 workers takes 2 MB with its page."""

CLOCKS_APART = 1.0
"""Seconds that the clocks of two hosts may differ, beside what the question itself took."""


class ActionModule(ActionBase):
    """The action; runs on the controller alone."""

    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ok, or fail with every verdict that is not ok."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        asked = self._task.args
        hostvars = task_vars["hostvars"]
        parts = asked["parts"]
        told = {host: hostvars.raw_get(host) if host in hostvars else {} for host in asked["hosts"]}
        checks: list[dict[str, Any]] = []
        moments = {}
        for host, known in told.items():
            if reason := why_unread(known, "reading" in parts):
                checks.append(_unread(host, reason))
        if "reading" in parts:
            for host, known in told.items():
                read = known.get("_verify_read") or {}
                if "checks" in read:
                    checks += read["checks"]
                    if read["clock"]:
                        moments[host] = tuple(read["clock"])
                certificate = known.get("_verify_certificate") or {}
                # One for each of several addresses, if the task asked for several.
                for each in certificate.get("results") or [certificate]:
                    if "problems" in each:
                        place = f"{each['item']} " if "item" in each else ""
                        checks.append(
                            certificate_checks(
                                host,
                                each,
                                f"{place}port {asked['tls_port']}",
                                asked["tls_days_left"],
                            )
                        )
            agree(checks)
            checks += clocks(moments, CLOCKS_APART)
        matrix: dict[str, Any] | None = None
        behaviour: list[dict[str, Any]] = []
        if "behaviour" in parts:
            matrix, behaviour = _behaviour(told, asked["refusals"])
        began = float(asked["began"])
        report = report_of(
            checks,
            matrix,
            behaviour,
            kit=asked["kit"],
            environment=asked["environment"],
            began=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(time.time() - began, 1),
        )
        path = write(Path(asked["directory"]), report)
        *text, last = lines(report, str(path))
        said = "\n".join([*text, *_delivery(told, asked.get("drained") or []), last])
        if asked.get("result_file"):
            Path(asked["result_file"]).write_text(f"{report['verdict']}\n{path}\n{said}")
        return {
            **result,
            # Shown after a success too, as a debug task shows its message.
            "_ansible_verbose_always": True,
            "changed": False,
            "failed": report["verdict"] != "verified",
            "msg": said,
            "report": str(path),
            "verdict": report["verdict"],
        }


def why_unread(known: Mapping[str, Any], wanted: bool) -> str:
    """Return why a host was not read, or not as a whole; empty if it was.

    Args:
        known: its variables, with what the tasks before have registered.
        wanted: whether the run compares hosts with the inventory; otherwise it only reads their
            state.
    """
    if "verify_unread" in known:
        return str(known["verify_unread"])
    read: Mapping[str, Any] = known.get("_verify_read") or {}
    for told in (known.get("_channels_host") or {}, read):
        if told.get("unreachable"):
            return f"the host cannot be reached: {told.get('msg', '')}"
    if not wanted or "checks" in read:
        return ""
    return str(read.get("msg") or "it was not asked: see the output of Ansible")


def _unread(host: str, reason: str) -> dict[str, Any]:
    """Return the verdict on a host that was not read, or not as a whole."""
    return {
        "host": host, "kind": "host", "subject": "host", "term": "reading", "expected": "an answer",
        "effective": "none", "source": "Ansible", "status": "unreadable",
        "message": " ".join(reason.split())[:300],
    }  # fmt: skip


def _behaviour(
    told: Mapping[str, Mapping[str, Any]], refusals: list[str]
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the matrix, and the verdicts on what the cluster does."""
    matrix = None
    behaviour = [
        {
            "name": "delivery", "subject": "cluster", "status": "failed", "seconds": None,
            "expected": "a proof", "effective": "none", "message": reason,
        }
        for reason in refusals
    ]  # fmt: skip
    for host, known in told.items():
        proof, edges = known.get("_verify_proof") or {}, known.get("_verify_edges") or {}
        if "stdout" in proof or proof.get("failed"):
            found = answer_of(str(proof.get("stdout", "")))
            if found is None:
                behaviour.append(unproved("delivery between workers", host, proof))
            else:
                matrix = matrix_of(found)
                behaviour += behaviour_of(found)
        if "stdout" in edges or edges.get("failed"):
            found = answer_of(str(edges.get("stdout", "")))
            if found is None:
                behaviour.append(unproved("edges", host, edges))
            else:
                behaviour += found["behaviour"]
    return matrix, behaviour


def _delivery(told: Mapping[str, Mapping[str, Any]], drained: list[str]) -> Iterator[str]:
    """Yield what the proof comes to, in the words of a deploy."""
    for known in told.values():
        found = answer_of(str((known.get("_verify_proof") or {}).get("stdout", "")))
        if found:
            word = "verified" if found["ok"] else "NOT verified"
            named = f" Drained: {', '.join(drained)}." if drained else ""
            yield f"Delivery {word}. {found.get('verdict', '')}{named}"


def write(directory: Path, report: Mapping[str, Any]) -> Path:
    """Write the report as a whole, and remove the oldest ones."""
    directory.mkdir(parents=True, exist_ok=True)
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = directory / f"{name}.json"
    unfinished = directory / f".{name}.{os.getpid()}"
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    unfinished.replace(path)
    for old in sorted(directory.glob("*T*Z.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
        old.with_suffix(".html").unlink(missing_ok=True)
    return path
