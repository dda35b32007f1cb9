"""Write roles/*/README.md: what a role does, what it needs, its variables, an example.

All of it comes from the role's own files: defaults/main.yml, and main.yml, argument_specs.yml and
preflight.yml of meta/. Between two marks a README has lines that are written by hand (what the role
does, which downtime to expect); they are kept.

usage: scripts/role_readme.py           writes the READMEs
       scripts/role_readme.py --check   changes nothing, and fails where one would be written
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- By hand: what the role does, and which downtime to expect. -->"
END = "<!-- The rest is written by scripts/role_readme.py. -->"
DOWNTIME = "## Downtime to expect"
LONGEST_DEFAULT = 60
"""Characters of a default that the table shows; for a longer one it links to defaults/main.yml."""


class ReadmeError(Exception):
    """What must be written by hand first; printed without a traceback."""


@dataclass(frozen=True)
class Role:
    """A role's own files.

    Attributes:
        directory: where they are.
        information: meta/main.yml.
        entry_points: meta/argument_specs.yml, by entry point.
        defaults: defaults/main.yml.
        rules: what a value must be beside its type, by variable; of meta/preflight.yml.
    """

    directory: Path
    information: dict[str, Any]
    entry_points: dict[str, dict[str, Any]]
    defaults: dict[str, Any]
    rules: dict[str, str]

    @classmethod
    def read(cls, directory: Path) -> Role:
        """Read the files of the role in a directory."""

        def content(name: str) -> Any:
            path = directory / name
            return yaml.safe_load(path.read_text()) if path.exists() else None

        return cls(
            directory,
            content("meta/main.yml") or {},
            content("meta/argument_specs.yml")["argument_specs"],
            content("defaults/main.yml") or {},
            {rule["variable"]: rule["allowed"] for rule in content("meta/preflight.yml") or ()},
        )

    @property
    def name(self) -> str:
        """The role's name."""
        return self.directory.name

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The options of all entry points."""
        return {
            name: option
            for entry in self.entry_points.values()
            for name, option in (entry.get("options") or {}).items()
        }


def readme(role: Role, by_hand: str) -> str:
    """Return the text of a role's README."""
    information = role.information.get("galaxy_info", {})
    parts = [
        f"# {role.name}",
        sentence(information.get("description") or first_description(role)),
        f"{BEGIN}\n\n{by_hand}\n\n{END}",
        "## Requirements",
        requirements(role, information),
        "## Variables",
        "A run refuses a value that is not allowed, before it changes anything.",
        table(role),
        "## Example",
        example(role),
        "## License",
        str(information.get("license", "")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def first_description(role: Role) -> str:
    """Return the short description of the first entry point."""
    return str(next(iter(role.entry_points.values())).get("short_description", role.name))


def requirements(role: Role, information: dict[str, Any]) -> str:
    """Return what the role needs, as a list."""
    lines = [f"- ansible-core {information.get('min_ansible_version', '')} or later"]
    for platform in information.get("platforms", ()):
        versions = ", ".join(map(str, platform.get("versions", ())))
        lines.append(f"- {platform['name']}: {versions}")
    for dependency in role.information.get("dependencies") or ():
        name = dependency["role"] if isinstance(dependency, dict) else dependency
        lines.append(
            f"- the role [{name}](../{name}/README.md), whose variables it reads;"
            " Ansible runs it as a dependency"
        )
    return "\n".join(lines)


def table(role: Role) -> str:
    """Return the table of variables: first those that must be set, then as they have defaults."""
    order = list(role.defaults)
    options = sorted(
        role.options.items(),
        key=lambda item: order.index(item[0]) if item[0] in order else -1,
    )
    rows = [
        (f"`{name}`", type_of(option), default_of(role, name, option), describe(role, name, option))
        for name, option in options
    ]
    head = [("variable", "type", "default", "description"), ("---",) * 4]
    return "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows))


def type_of(option: dict[str, Any]) -> str:
    """Return the type of an option as people say it."""
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def default_of(role: Role, name: str, option: dict[str, Any]) -> str:
    """Return the default of an option, as a cell."""
    if option.get("required"):
        return "**required**"
    if name not in role.defaults:
        return ""
    value = role.defaults[name]
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    if len(text) > LONGEST_DEFAULT:
        what = "derived" if "{{" in text else "see"
        return f"{what}: [defaults/main.yml](defaults/main.yml)"
    return code(text)


def describe(role: Role, name: str, option: dict[str, Any]) -> str:
    """Return what an option is, and what is allowed, as a cell."""
    description = option.get("description", "")
    parts = description if isinstance(description, list) else [description]
    if option.get("no_log"):
        parts = ["**Secret.**", *parts]
    if option.get("choices"):
        parts = [*parts, f"One of {', '.join(f'`{choice}`' for choice in option['choices'])}."]
    if name in role.rules:
        parts = [*parts, f"Allowed: {sentence(role.rules[name], capital=False)}"]
    return cell(markup(" ".join(map(str, parts))))


def example(role: Role) -> str:
    """Return what an inventory sets for the role, and who runs it."""
    values = {name: option for name, option in role.options.items() if option.get("required")}
    secret = [f"{name}: ..." for name, option in values.items() if option.get("no_log")]
    plain = [f"{name}: {sample(name, option)}" for name, option in values.items()]
    plain = [
        line
        for line, option in zip(plain, values.values(), strict=True)
        if not option.get("no_log")
    ]
    parts = [
        listing("In the inventory:", plain),
        listing(
            "In `group_vars/all/vault.yml` of the inventory, encrypted. Generate each value:"
            " `openssl rand -hex 32`",
            secret,
        ),
        *([] if values else ["No variable is required."]),
        hosts_of(role),
    ]
    return "\n\n".join(part for part in parts if part)


def listing(text: str, lines: list[str]) -> str:
    """Return a block of YAML with a line above it; nothing where it has no lines."""
    return f"{text}\n\n```yaml\n" + "\n".join(lines) + "\n```" if lines else ""


def hosts_of(role: Role) -> str:
    """Return on which hosts site.yml runs the role."""
    site = (role.directory.parents[1] / "site.yml").read_text()
    if f"'{role.name}' in group_names" in site or f"hosts: {role.name}\n" in site:
        return f"`site.yml` runs the role on the hosts of the group `{role.name}`."
    if f"name: {role.name}\n" in site or f"['{role.name}']" in site:
        return "`site.yml` runs the role on every host of the cluster."
    return "The other roles depend on this role. No play runs it directly."


def sample(name: str, option: dict[str, Any]) -> str:
    """Return a value to show, as YAML."""
    if name.endswith("_address"):
        return "10.0.0.11"
    return "[chat.example.org]" if option.get("type") == "list" else "..."


def markup(text: str) -> str:
    """Return Ansible's markup as Markdown's."""
    return re.sub(r"[CVO]\(([^)]*)\)", r"`\1`", text)


def sentence(text: str, capital: bool = True) -> str:
    """Return a text with a full stop, and with a capital letter where one is asked for."""
    text = text.strip()
    text = text if text.endswith((".", "`")) else f"{text}."
    return text[0].upper() + text[1:] if capital else text


def cell(text: str) -> str:
    """Return a text as a cell of a table takes it."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{cell(text)}{fence}"


def written_by_hand(role: Role) -> str:
    """Return the lines between the marks of the README that is there.

    Raises:
        ReadmeError: they are missing, or do not name the downtime.
    """
    path = role.directory / "README.md"
    text = path.read_text() if path.exists() else ""
    _, begin, rest = text.partition(BEGIN)
    kept, end, _ = rest.partition(END)
    if not begin or not end or DOWNTIME not in kept:
        raise ReadmeError(
            f"{path}: describe the role and add a section {DOWNTIME!r} between these two lines,"
            f" then run scripts/role_readme.py:\n{BEGIN}\n{END}"
        )
    return kept.strip()


def main() -> int:
    """Write the READMEs, or compare them."""
    parser = argparse.ArgumentParser(description="Write the READMEs of the roles.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if stale")
    parser.add_argument("--roles", type=Path, default=ROOT / "roles", help="default: %(default)s")
    arguments = parser.parse_args()
    stale = []
    try:
        for specs in sorted(arguments.roles.glob("*/meta/argument_specs.yml")):
            role = Role.read(specs.parents[1])
            path = role.directory / "README.md"
            text = readme(role, written_by_hand(role))
            if path.read_text() == text:
                continue
            stale.append(path)
            if not arguments.check:
                path.write_text(text)
                print(f"{path}: written")
    except ReadmeError as error:
        print(error, file=sys.stderr)
        return 1
    if stale and arguments.check:
        names = ", ".join(str(path) for path in stale)
        print(f"Stale: {names}\nRegenerate them: scripts/role_readme.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
