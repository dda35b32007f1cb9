"""What the tests of the roles read and run: the files of the roles, and Ansible itself."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "roles"
ROLE_NAMES = sorted(path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml"))

Tree = dict[str, Any]


class Loader(yaml.SafeLoader):
    """Reads YAML as Ansible writes it: its own tags are kept as their text."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value)


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader) if path.exists() else None


def checks_of(path: Path) -> list[Tree]:
    """The checks of a file for verify, with those of the sets that it uses."""
    sets = read_yaml(ROLES / "cluster" / "meta" / "verify.yml")["sets"]
    entries = read_yaml(path)["checks"]
    return [
        each for entry in entries for each in (sets[entry["use"]] if "use" in entry else [entry])
    ]


def options(role: str) -> Tree:
    """The options of all entry points of a role's argument specs."""
    specs = read_yaml(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry["options"].items()}


def defaults(role: str) -> Tree:
    return read_yaml(ROLES / role / "defaults" / "main.yml") or {}


def private(role: str) -> Tree:
    return read_yaml(ROLES / role / "vars" / "main.yml") or {}


def rules(role: str) -> list[dict[str, str]]:
    return read_yaml(ROLES / role / "meta" / "preflight.yml") or []


def yaml_files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.yml"))


def tasks(file: Path, blocks: bool = False) -> Iterator[Tree]:
    """Every task of a file of tasks, handlers or plays, those in blocks too; or also the blocks."""

    def below(entries: list[Tree]) -> Iterator[Tree]:
        for entry in entries:
            sections = ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always")
            inside = [section for section in sections if isinstance(entry.get(section), list)]
            is_play = "hosts" in entry or "ansible.builtin.import_playbook" in entry
            if not is_play and (blocks or "block" not in entry):
                yield entry
            for section in inside:
                yield from below(entry[section])

    yield from below(read_yaml(file) or [])


@dataclass(frozen=True)
class Run:
    """What a run of ansible-playbook said."""

    code: int
    output: str


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a run, which leaves nothing in anybody's home directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **kept,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_HOME": str(home / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(home / "local"),
        "ANSIBLE_REMOTE_TEMP": str(home / "remote"),
        "ANSIBLE_NOCOLOR": "1",
        # Python reads sitecustomize from there: 15 to 45 % less processor time.
        "PYTHONPATH": str(Path(__file__).parent / "quick"),
        # What is on the screen as on a terminal that never ends a line.
        "COLUMNS": "4000",
        **more,
    }


def start(home: Path, inventory: Tree, plays: list[Tree], *more: str, **variables: str) -> Any:
    """Start ansible-playbook over an inventory of Python's own words."""
    home.mkdir(parents=True, exist_ok=True)
    hosts, playbook = home / "hosts.yml", home / "playbook.yml"
    hosts.write_text(yaml.safe_dump(inventory))
    playbook.write_text(yaml.safe_dump(plays, sort_keys=False))
    return subprocess.Popen(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", hosts, playbook, *more],
        cwd=ROOT,
        env=environment(home, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: Any) -> Run:
    with process:
        output, _ = process.communicate()
    return Run(process.returncode, output)


def run(home: Path, inventory: Tree, plays: list[Tree], *more: str, **variables: str) -> Run:
    return finish(start(home, inventory, plays, *more, **variables))


def own_module_utils() -> None:
    """Have Python find the project's module_utils where Ansible has its own, as on a host."""
    directory = str(ROOT / "plugins" / "module_utils")
    if directory not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(directory)


def run_module(name: str, arguments: Mapping[str, Any], check: bool = False) -> Tree:
    """Run a module in this process, and return its answer."""
    own_module_utils()
    main = runpy.run_path(str(ROOT / "plugins" / "modules" / f"{name}.py"))["main"]
    given = {**arguments, "_ansible_check_mode": check}
    with (
        patch_module_args(given),
        redirect_stdout(StringIO()) as output,
        pytest.raises(SystemExit) as ended,
    ):
        main()
    answer: Tree = json.loads(output.getvalue())
    assert ended.value.code == (1 if answer.get("failed") else 0)
    del answer["invocation"]
    return answer


def run_program(program: Path, arguments: Mapping[str, Any], check: bool = False) -> Tree:
    """Run what an action sends to a host, in this process, and return its answer."""
    main = runpy.run_path(str(program))["main"]
    with redirect_stdout(StringIO()) as output:
        code = main(json.dumps({**arguments, "check": check}))
    answer: Tree = json.loads(output.getvalue())
    assert code == (1 if answer.get("failed") else 0)
    return answer
