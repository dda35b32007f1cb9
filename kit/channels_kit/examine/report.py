"""What an operator reads of an examination."""

from __future__ import annotations

from collections.abc import Sequence

from channels_kit.examine.finding import Finding


def message(found: Sequence[Finding]) -> str:
    """Return every obstacle with the line that removes it; empty if there is none."""
    obstacles = [each for each in found if each.obstacle]
    if not obstacles:
        return ""
    count = "1 obstacle" if len(obstacles) == 1 else f"{len(obstacles)} obstacles"
    lines = [f"The application has {count}. Nothing changed."]
    for number, each in enumerate(obstacles, 1):
        lines += ["", f"{number}. {_head(each)}", *_body(each)]
    lines += [
        "",
        "Add variables to the inventory's group_vars/all. To deploy without fixing an obstacle, set"
        " channels_allow_known_faults: [NAME], with the name in brackets.",
    ]
    return "\n".join(lines)


def advice(found: Sequence[Finding]) -> str:
    """Return what stops nothing, in words; empty if there is nothing."""
    rest = [each for each in found if not each.obstacle]
    if not rest:
        return ""
    lines = ["The examination of the application also found this. It does not stop the deploy."]
    for each in rest:
        lines += [f"- {_head(each)}", *_body(each)]
    return "\n".join(lines)


def _head(finding: Finding) -> str:
    value = f": {finding.value}" if finding.value else ""
    return f"{finding.what}{value} [{finding.name}]"


def _body(finding: Finding) -> list[str]:
    lines = [f"   {finding.why}"] if finding.why else []
    if finding.line:
        lines += [f"   {line}" for line in f"-> {finding.line}".split("\n")]
    return lines
