"""A role's interface is whole: what it documents, what it has, and what it uses are the same."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from .house import (
    ROLE_NAMES,
    ROLES,
    ROOT,
    Tree,
    defaults,
    options,
    private,
    read_yaml,
    rules,
    tasks,
    yaml_files,
)

# Expressions without braces around them.
BARE = ("when", "that", "failed_when", "changed_when", "until")
PREFIXES = tuple(f"{role}_" for role in ROLE_NAMES)
READ_LATE = ("preflight", "terms", "verify")
"""Files of meta/ with expressions that the preflight and verify evaluate."""
READ_BY_OTHERS = {"cluster", "cluster_capacity"}
"""Private variables that inventories and other roles read."""


def test_every_role_is_found() -> None:
    directories = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
    assert directories == ROLE_NAMES
    assert {"base", "channels", "cluster", "nginx", "postgres", "redis"} <= set(ROLE_NAMES)


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_default_is_an_option(role: str) -> None:
    assert set(defaults(role)) - set(options(role)) == set()


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_an_option_has_a_default_or_is_required(role: str) -> None:
    required = {name for name, option in options(role).items() if option.get("required")}
    assert required & set(defaults(role)) == set(), "required, and yet it has a default"
    assert set(options(role)) - required - set(defaults(role)) == set(), "may stay undefined"


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_option_says_its_type_and_what_it_is(role: str) -> None:
    assert options(role)
    for name, option in options(role).items():
        assert option.get("type") in {"str", "int", "float", "bool", "list", "dict", "path"}, name
        assert str(option.get("description", "")).endswith("."), name
        assert ("elements" in option) == (option["type"] == "list"), name


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_names_begin_with_the_role(role: str) -> None:
    for name in options(role):
        assert name.startswith(f"{role}_")
    for name in private(role):
        assert name.startswith(f"_{role}_") or name in READ_BY_OTHERS


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_rule_of_preflight_is_about_an_option(role: str) -> None:
    """Of its own role, or as the role that owns it has it: a password that two roles need."""
    for rule in rules(role):
        assert set(rule) == {"variable", "that", "allowed"}
        if rule["variable"] not in options(role):
            owner = rule["variable"].split("_")[0]
            assert options(owner)[rule["variable"]]
            assert rule in rules(owner)
        assert rule["variable"] in names_in_expression(rule["that"])


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_what_holds_a_secret_is_not_shown(role: str) -> None:
    """By its name, or as its default is made of a secret."""
    secrets = {
        name for every in ROLE_NAMES for name, option in options(every).items() if hides(option)
    }
    for name, option in options(role).items():
        by_name = re.search(r"password|secret|token|users$|environment$", name)
        by_default = secrets.intersection(names_in(defaults(role).get(name)))
        if by_name or by_default:
            assert hides(option), f"{name} is shown: {by_default or by_name}"


def hides(option: Tree) -> bool:
    return option.get("no_log") is True


# What is mentioned


def names_in_template(text: str) -> Iterator[str]:
    """The variables that a template reads: neither filters, tests, attributes nor keywords."""
    tokens = [
        (kind, value)
        for _, kind, value in jinja2.Environment().lex(text)
        if kind not in {"whitespace", "data", "comment"}
    ]
    around = [("", ""), *tokens, ("", "")]
    for before, (kind, value), after in zip(around, tokens, around[2:], strict=False):
        if kind != "name" or before[1] in {".", "|", "is"}:
            continue
        if after[1] == "=" and before[1] in {"(", ","}:  # a keyword argument
            continue
        yield value


def names_in_expression(text: str) -> set[str]:
    return set(names_in_template("{{ " + text + " }}"))


def names_in(tree: Any, bare: bool = False) -> Iterator[str]:
    """The variables that the strings of a tree of YAML read."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from names_in(key)
            yield from names_in(value, bare=key in BARE)
    elif isinstance(tree, list):
        for value in tree:
            yield from names_in(value, bare)
    elif isinstance(tree, str):
        yield from names_in_template("{{ " + tree + " }}" if bare and "{{" not in tree else tree)


def mentioned(file: Path) -> set[str]:
    if file.suffix == ".j2":
        return set(names_in_template(file.read_text()))
    return set(names_in(read_yaml(file)))


def set_by_tasks(directory: Path) -> set[str]:
    """The names that tasks register or set."""
    found: set[str] = set()
    for file in yaml_files(directory):
        if file.parent.name not in {"tasks", "handlers", "playbooks"}:
            continue
        for task in tasks(file, blocks=True):
            found.update({task["register"]} if "register" in task else ())
            found.update(task.get("ansible.builtin.set_fact", ()))
            found.update(task.get("vars", ()))
            control = task.get("loop_control", {})
            found.update(control[key] for key in ("loop_var", "index_var") if key in control)
    return found


def files_of(role: str) -> list[Path]:
    directories = ("defaults", "vars", "tasks", "handlers", "templates")
    found = [
        file
        for directory in directories
        for file in (ROLES / role / directory).rglob("*")
        if file.suffix in {".yml", ".j2"}
    ]
    assert any(file.suffix == ".yml" for file in found)
    return [*found, *(ROLES / role / "meta" / f"{name}.yml" for name in READ_LATE)]


PUBLIC = {name for role in ROLE_NAMES for name in options(role)} | {
    name for role in ROLE_NAMES for name in set_by_tasks(ROLES / role) if not name.startswith("_")
}


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_a_role_mentions_only_variables_that_there_are(role: str) -> None:
    """So a variable that is renamed in one place and not in another is found."""
    own = set(private(role)) | set_by_tasks(ROLES / role)
    seen = set()
    for file in files_of(role):
        for name in mentioned(file):
            if re.match("_[a-z]", name):  # another role's are none of this one's business
                assert name in own, f"{file.relative_to(ROOT)} mentions {name}"
                seen.add(name)
            elif name.startswith(PREFIXES):
                assert name in PUBLIC | READ_BY_OTHERS, f"{file.relative_to(ROOT)} mentions {name}"
                seen.add(name)
    assert seen, "nothing was looked at"
    assert set(private(role)) - seen - READ_BY_OTHERS == set(), "nobody reads it"


def test_playbooks_mention_only_variables_that_there_are() -> None:
    playbooks = [ROOT / "site.yml", *yaml_files(ROOT / "playbooks")]
    own = set_by_tasks(ROOT / "playbooks")
    seen = set()
    for file in [*playbooks, *yaml_files(ROOT / "inventories" / "staging" / "group_vars")]:
        content = read_yaml(file)
        for name in mentioned(file) | (set(content) if isinstance(content, dict) else set()):
            if name.startswith(PREFIXES):
                assert name in PUBLIC | own, f"{file.relative_to(ROOT)} mentions {name}"
                seen.add(name)
    assert {"cluster_web_workers", "cluster_server_names"} <= seen


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_template_is_used(role: str) -> None:
    templates = {file.name for file in (ROLES / role / "templates").glob("*")}
    # Named by a task, or included by another template.
    files = [*yaml_files(ROLES / role), *(ROLES / role / "templates").glob("*")]
    texts = "".join(file.read_text() for file in files)
    assert [name for name in templates if name not in texts] == []


def test_every_server_has_a_module_of_the_kit() -> None:
    serving = ROLES.parent / "kit" / "channels_kit" / "serving"
    for server in options("channels")["channels_server"]["choices"]:
        assert (serving / f"{server}.py").is_file()
