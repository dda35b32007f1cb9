"""docs/recipes.md says what the roles take: each block of YAML passes the preflight.

And what the pages of docs/ name is there: variables, findings of the examination, links.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template

from .house import ROLE_NAMES, ROOT, Tree, options, private
from .values import House

# Of the \Z in the rules; Jinja reads it as it stands.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")

RECIPES = ROOT / "docs" / "recipes.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("roles/*/README.md")]
EVERY = {name for role in ROLE_NAMES for name in options(role)}
PLACES = ("cluster.yml", "vault.yml")
# Where the preflight of values.py has the options of a role.
HOST_OF = {"nginx": "lb1", "postgres": "db1", "redis": "cache1"}


@dataclass(frozen=True)
class Block:
    """A block of YAML, and the section and line that it is at."""

    section: str
    line: int
    text: str

    @property
    def values(self) -> Tree:
        """The variables that it sets."""
        read = yaml.safe_load(self.text)
        assert isinstance(read, dict), f"line {self.line}: no mapping"
        return read


def blocks() -> Iterator[Block]:
    """Yield the blocks of the page."""
    text = RECIPES.read_text()
    for match in re.finditer(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()]
        section = re.findall(r"^## (.+)$", before, re.MULTILINE)[-1]
        yield Block(section, before.count("\n") + 1, match[1])


BLOCKS = list(blocks())


def of_vaults() -> Tree:
    """Return what the blocks for vault.yml set: other blocks may name it."""
    return {
        name: value
        for block in BLOCKS
        if "vault.yml" in block.text
        for name, value in block.values.items()
        if name not in EVERY
    }


def trusted(value: Any) -> Any:
    """Return a value as Ansible reads it from an inventory: with templates."""
    if isinstance(value, dict):
        return {name: trusted(each) for name, each in value.items()}
    if isinstance(value, list):
        return [trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, House]:
    """A cluster with servers of its own, and one whose servers are managed elsewhere."""
    return {
        own: House(tmp_path_factory.mktemp("house"), own_servers=own, **of_vaults())
        for own in (True, False)
    }


def test_there_are_recipes_for_every_kind() -> None:
    sections = {block.section for block in BLOCKS}
    assert len(BLOCKS) >= 15
    assert {"Celery with beat", "Managed PostgreSQL", "Behind Cloudflare", "Uploads"} <= sections


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.section}:{block.line}")
def test_a_block_says_its_file_and_is_short(block: Block) -> None:
    first, *lines = block.text.splitlines()
    assert re.fullmatch(r"# inventories/NAME/group_vars/all/\S+", first), f"line {block.line}"
    assert first.endswith(PLACES)
    assert len([line for line in lines if not line.startswith("#")]) <= 8


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.section}:{block.line}")
def test_a_block_passes_the_preflight(houses: dict[bool, House], block: Block) -> None:
    values = block.values
    assert values
    unknown = set(values) - EVERY - set(of_vaults())
    assert not unknown, f"line {block.line}: no role has {', '.join(sorted(unknown))}"
    assert parts_named(block.text) <= parts_of_cluster()
    # Their addresses have no default without hosts of these groups.
    managed = {"cluster_postgres_address", "cluster_redis_address"} & values.keys()
    servers = dict.fromkeys(("cluster_postgres_address", "cluster_redis_address"), "10.0.0.9")
    given = {**(servers if managed else {}), **trusted(values)}
    hosts = {HOST_OF.get(name.split("_")[0], "app1") for name in values}
    for host in hosts:
        assert houses[not managed].problems(host, **given) == []


def test_the_preflight_of_this_test_refuses(houses: dict[bool, House]) -> None:
    """A variable that there is not, a value that is not allowed, a part that there is not."""
    house = houses[True]
    assert house.problems("app1", channels_recipes="x")
    assert house.problems("app1", channels_processes={"celery": {"celery": "slave"}})
    named = {"DB_HOST": trusted("{{ cluster.database.hostname }}")}
    assert house.problems("app1", channels_environment=named)


def parts_named(text: str) -> set[str]:
    """Return the parts of the cluster that a text names."""
    return set(re.findall(r"\bcluster\.(?!yml)([a-z_]+(?:\.[a-z_]+)?)", text))


def parts_of_cluster() -> set[str]:
    """Return the parts of the cluster that an inventory may name."""
    parts = set()
    for name, part in private("channels")["cluster"].items():
        parts |= {f"{name}.{each}" for each in part} if isinstance(part, dict) else {name}
    return parts


# What the pages name


def in_code(page: Path) -> str:
    """Return what is in backticks on a page, and in its blocks of YAML."""
    text = page.read_text()
    fenced = re.findall(r"^ *```yaml\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    plain = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*re.findall(r"`([^`\n]+)`", plain), *fenced])


@pytest.mark.parametrize(
    "name", ["application", "examine", "onboarding", "packing", "proof", "recipes"]
)
def test_a_page_names_only_variables_that_there_are(name: str) -> None:
    text = in_code(ROOT / "docs" / f"{name}.md")
    named = set(re.findall(r"(?<![\w./-])(?:channels|cluster)_[a-z_]+(?![\w*(.])", text))
    # Packages, Redis' own names and names of faults.
    foreign = {"channels_redis", "channels_postgres", "channels_kit"}
    assert named
    assert named - EVERY - foreign == set()


def findings() -> set[str]:
    """Return the names of what an examination can find."""
    files = (ROOT / "kit" / "channels_kit" / "examine").glob("*.py")
    source = "".join(file.read_text() for file in files)
    found = set(re.findall(r'name=f?"([a-z{}-]+)"', source)) | {"check-fails"}
    kinds = set(re.findall(r'_server\(\s*"([a-z]+)"', source))
    assert kinds == {"broker", "cache", "database", "layer"}
    patterns = {each for each in found if "{" in each}
    made = {each.replace("{kind}", kind) for each in patterns for kind in kinds}
    return (found | made) - patterns


def findings_named(name: str) -> set[str]:
    """Return what looks like the name of a finding on a page of docs/."""
    text = (ROOT / "docs" / f"{name}.md").read_text()
    foreign = {"graphql-transport-ws", "graphql-ws", "per-host", "channels-redis"}
    foreign |= {"dev-packages", "requires-python"}
    return set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", text)) - foreign


def test_recipes_name_only_findings_that_there_are() -> None:
    assert len(findings_named("recipes")) > 5
    assert findings_named("recipes") - findings() == set()


def test_the_page_on_the_examination_names_every_finding() -> None:
    alike = {f"{kind}-unknown-host" for kind in ("layer", "cache", "broker")}
    assert findings_named("examine") == findings() - alike


# Links


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_heading_that_there_is(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_every_page_that_a_file_names_is_there() -> None:
    suffixes = {".md", ".py", ".yml", ".j2", ".js", ".sh", ""}
    directories = ("app", "docs", "inventories", "kit", "playbooks", "plugins", "roles", "scripts")
    files = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(file for each in directories for file in (ROOT / each).rglob("*")),
    ]
    named = set()
    for file in files:
        if file.is_file() and file.suffix in suffixes and "node_modules" not in file.parts:
            text = file.read_text(errors="replace")
            for page in re.findall(r"(?<![\w/.])docs/(\w+\.md)", text):
                assert (ROOT / "docs" / page).is_file(), f"{file.relative_to(ROOT)} names {page}"
                named.add(page)
    assert len(named) > 8
