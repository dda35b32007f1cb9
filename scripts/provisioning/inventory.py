"""inventories/ENV/hosts.yml, written from what the cloud says."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import jinja2

from provisioning.cloud import GROUPS, Cloud

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "templates"
EXAMPLE = ROOT / "inventories" / "production" / "hosts.yml"
HEADER = (
    "# Written by make cluster. It writes this file again: put your variables into group_vars.\n"
)


class ForeignFileError(Exception):
    """hosts.yml was written by somebody else."""


def render(cloud: Cloud) -> str:
    """Return the inventory of a cluster."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        # YAML, and not HTML: each value is written as JSON, which is YAML.
        autoescape=False,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = lambda value: json.dumps(value, ensure_ascii=False)
    groups = {group: cloud.group(group) for group in GROUPS}
    return HEADER + environment.get_template("inventory.yml.j2").render(cloud=cloud, groups=groups)


def is_own(file: Path) -> bool:
    """Return whether this program has written an inventory."""
    return file.exists() and file.read_text().startswith(HEADER)


def refuse_foreign(file: Path) -> None:
    """Refuse to replace an inventory that this program has not written.

    Raises:
        ForeignFileError: it is neither its own nor the example.
    """
    if file.exists() and not is_own(file) and file.read_text() != EXAMPLE.read_text():
        raise ForeignFileError(
            f"make cluster would replace {file}, and did not write it. Move it away, or choose"
            " another ENV."
        )


def write(file: Path, cloud: Cloud) -> list[str]:
    """Write the inventory, whole or not at all.

    Returns: the lines that it loses and gets; none where it is new.
    """
    before, after = file.read_text() if is_own(file) else "", render(cloud)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(after)
    temporary.replace(file)
    if not before:
        return []
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in lines if line.startswith(("+", "-"))]
