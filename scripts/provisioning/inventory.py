"""inventories/ENV/hosts.yml, written from what the cloud says."""

from __future__ import annotations

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


def refuse_foreign(file: Path) -> None:
    """Refuse to replace an inventory that this program has not written.

    Raises:
        ForeignFileError: it is neither its own nor the example.
    """
    if not file.exists():
        return
    text = file.read_text()
    if not text.startswith(HEADER) and text != EXAMPLE.read_text():
        raise ForeignFileError(
            f"{file} was not written by make cluster, which would replace it. Move it away first,"
            " or choose another ENV."
        )


def write(file: Path, cloud: Cloud) -> None:
    """Write the inventory, whole or not at all."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(render(cloud))
    temporary.replace(file)
