"""scripts/role_readme.py: what a README says, and that a stale one is found."""

import subprocess
import sys
from pathlib import Path

import pytest

from .house import ROOT

PROGRAM = ROOT / "scripts" / "role_readme.py"
BEGIN = "<!-- By hand: what the role does, and which downtime to expect. -->"
END = "<!-- The rest is written by scripts/role_readme.py. -->"
BY_HAND = f"{BEGIN}\nIt sells.\n\n## Downtime to expect\n\nNone.\n{END}\n"
FILES = {
    "meta/main.yml": """
galaxy_info:
  description: A shop
  license: BSD-3-Clause
  min_ansible_version: "2.19"
  platforms: [{name: Debian, versions: [bookworm]}]
dependencies: [{role: cluster}]
""",
    "meta/argument_specs.yml": """
argument_specs:
  main:
    options:
      shop_names: {type: list, elements: str, description: Names of C(shop_port).}
      shop_kind: {type: str, choices: [small, large], description: How large it is.}
      shop_key: {type: str, required: true, no_log: true, description: Opens it.}
      shop_port: {type: int, description: Where it listens.}
      shop_derived: {type: int, description: Made of others.}
""",
    "meta/preflight.yml": """
- {variable: shop_port, that: shop_port > 0, allowed: "1 | 2"}
""",
    "defaults/main.yml": """
shop_port: 1
shop_kind: small
shop_names: []
shop_derived: "{{ shop_port | int + shop_port | int + shop_port | int + shop_port | int + 1 }}"
""",
    "README.md": BY_HAND,
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A checkout with a role of its own; returns the role's README."""
    (tmp_path / "site.yml").write_text("- hosts: shop\n  roles: [shop]\n")
    for name, content in FILES.items():
        path = tmp_path / "roles" / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "roles" / "shop" / "README.md"


def write(readme: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command: list[str | Path] = [
        sys.executable,
        PROGRAM,
        f"--roles={readme.parents[1]}",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_readmes_of_the_roles_are_what_the_program_writes() -> None:
    result = write(ROOT / "roles" / "base" / "README.md", "--check")
    assert result.returncode == 0, result.stderr


def test_it_says_what_the_files_of_the_role_say(shop: Path) -> None:
    assert write(shop).returncode == 0
    text = shop.read_text()
    assert text.startswith(f"# shop\n\nA shop.\n\n{BEGIN}\n\nIt sells.\n")
    derived = "derived: [defaults/main.yml](defaults/main.yml)"
    assert [line for line in text.splitlines() if line.startswith("|")][2:] == [
        "| `shop_key` | str | **required** | **Secret.** Opens it. |",
        r"| `shop_port` | int | `1` | Where it listens. Allowed: 1 \| 2. |",
        "| `shop_kind` | str | `small` | How large it is. One of `small`, `large`. |",
        "| `shop_names` | list of str | `[]` | Names of `shop_port`. |",
        f"| `shop_derived` | int | {derived} | Made of others. |",
    ]
    assert "- Debian: bookworm\n- the role [cluster](../cluster/README.md)" in text
    assert "```yaml\nshop_key: ...\n```" in text
    assert "`site.yml` runs the role on the hosts of the group `shop`." in text
    assert text.endswith("## License\n\nBSD-3-Clause\n")


def test_a_role_in_the_loop_over_every_host_is_named_as_such(shop: Path) -> None:
    site = shop.parents[2] / "site.yml"
    site.write_text(
        "- hosts: all\n  loop: \"{{ ['shop'] + ['bank'] | intersect(group_names) }}\"\n"
    )
    assert write(shop).returncode == 0
    assert "`site.yml` runs the role on every host of the cluster." in shop.read_text()


def test_a_second_run_changes_nothing(shop: Path) -> None:
    assert "written" in write(shop).stdout
    before = shop.read_text()
    assert write(shop).stdout == ""
    assert shop.read_text() == before


@pytest.mark.parametrize("name", ["defaults/main.yml", "meta/preflight.yml", "README.md"])
def test_a_check_finds_one_that_is_stale_and_leaves_it(shop: Path, name: str) -> None:
    write(shop)
    assert write(shop, "--check").returncode == 0
    path = shop.parent / name
    path.write_text(path.read_text().replace("1", "3").replace("bookworm", "trixie"))
    before = shop.read_text()
    result = write(shop, "--check")
    assert result.returncode == 1
    assert result.stderr == f"Stale: {shop}\nRegenerate them: scripts/role_readme.py\n"
    assert shop.read_text() == before


@pytest.mark.parametrize(
    "text", ["", f"{BEGIN}\nIt sells.\n{END}\n", BY_HAND.replace(END, "")], ids=[0, 1, 2]
)
@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["write", "check"])
def test_one_that_lacks_what_is_written_by_hand_is_refused(
    shop: Path, text: str, arguments: tuple[str, ...]
) -> None:
    shop.write_text(text)
    result = write(shop, *arguments)
    assert result.returncode == 1
    assert "describe the role and add a section '## Downtime to expect'" in result.stderr
    assert shop.read_text() == text
