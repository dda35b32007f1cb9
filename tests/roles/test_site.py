"""The playbooks can be read, and every task says what it does and which module does it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .house import ROLES, ROOT, environment, read_yaml, tasks, yaml_files

PLAYBOOKS = [ROOT / "site.yml", *yaml_files(ROOT / "playbooks")]
FILES = [
    *PLAYBOOKS,
    *(file for part in ("tasks", "handlers") for file in sorted(ROLES.glob(f"*/{part}/*.yml"))),
]
OWN_MODULES = {
    file.stem
    for pattern in ("plugins/action/*.py", "plugins/modules/*.py")
    for file in ROOT.glob(pattern)
}
# What a task may have beside its module. Not become_user: with su it takes the password of that
# user, and a module's files need ACLs. Not become: ansible_become of the inventory overrides it.
KEYWORDS = {
    "any_errors_fatal",
    "args",
    "async",
    "block",
    "always",
    "rescue",
    "changed_when",
    "check_mode",
    "connection",
    "delay",
    "delegate_facts",
    "delegate_to",
    "diff",
    "environment",
    "failed_when",
    "ignore_unreachable",
    "listen",
    "loop",
    "loop_control",
    "name",
    "no_log",
    "notify",
    "poll",
    "register",
    "retries",
    "run_once",
    "tags",
    "throttle",
    "timeout",
    "until",
    "vars",
    "when",
}


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_the_playbooks_can_be_read_without_a_cluster(tmp_path: Path) -> None:
    """With what is in the repository alone: `make up` has not written generated.yml yet."""
    inventory = tmp_path / "staging"
    shutil.copytree(
        ROOT / "inventories" / "staging",
        inventory,
        ignore=shutil.ignore_patterns("generated.yml"),
    )
    ansible = str(Path(sys.executable).with_name("ansible-playbook"))
    result = subprocess.run(
        [ansible, "--syntax-check", f"--inventory={inventory}", *map(str, PLAYBOOKS)],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stderr, result.stderr
    for playbook in PLAYBOOKS:
        assert f"playbook: {playbook}" in result.stdout


def test_the_files_of_tasks_are_found() -> None:
    assert {"site.yml", "playbooks/verify.yml", "roles/base/tasks/main.yml"} <= set(
        map(relative, FILES)
    )
    assert {"channels_lock", "channels_roll", "channels_units", "preflight"} <= OWN_MODULES
    assert len([task for file in FILES for task in tasks(file)]) > 40


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_every_task_has_a_section_and_says_what_to_do(file: Path) -> None:
    for task in tasks(file):
        name = task.get("name", f"(a task without a name: {task})")
        assert re.match(r"[A-Z][A-Za-z ]+ \| [A-Z]", name), name
        assert not name.endswith("."), name


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_every_module_is_named_in_full(file: Path) -> None:
    for task in tasks(file):
        modules = set(task) - KEYWORDS
        assert len(modules) == 1, f"{task.get('name')}: {modules}"
        (module,) = modules
        assert module in OWN_MODULES or re.fullmatch(r"\w+\.\w+\.\w+", module), (
            f"{task['name']}: {module}"
        )


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_no_failure_is_swept_under_the_carpet(file: Path) -> None:
    for task in tasks(file):
        assert "ignore_errors" not in task, task["name"]
        assert task.get("failed_when") is not False, task["name"]


def test_a_deploy_brings_a_release_as_site_yml_does() -> None:
    """Select, install, roll out; nothing else brings one."""
    parts = ["select_release.yml", "rollout.yml"]
    for playbook in (ROOT / "site.yml", ROOT / "playbooks" / "deploy.yml"):
        imported = [play.get("ansible.builtin.import_playbook") for play in read_yaml(playbook)]
        names = [Path(path).name for path in imported if path]
        assert [name for name in names if name in parts] == parts, playbook
    # And site.yml brings none but the one that runs.
    plays = read_yaml(ROOT / "site.yml")
    (select,) = (play for play in plays if play["name"] == "Select the release")
    assert select["vars"] == {"deploy_release": "running"}


LOCKED = ("site.yml", "playbooks/deploy.yml", "playbooks/drain.yml", "playbooks/undrain.yml")


@pytest.mark.parametrize("playbook", LOCKED)
def test_what_changes_the_cluster_takes_the_lock_first_and_releases_it_last(playbook: str) -> None:
    def imported(file: Path) -> list[str]:
        found: list[str] = []
        for play in read_yaml(file):
            path = play.get("ansible.builtin.import_playbook")
            if path and Path(path).name == "preflight.yml":
                continue  # changes nothing: see the next test
            if path and Path(path).name not in ("lock.yml", "release_lock.yml"):
                found += imported(file.parent / path)
            else:
                found.append(Path(path).name if path else play["hosts"])
        return found

    plays = [play for play in imported(ROOT / playbook) if play != "localhost:all"]
    assert plays[0] == "lock.yml"
    assert plays[-1] == "release_lock.yml"


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_no_task_becomes_another_user(file: Path) -> None:
    for entry in [*(read_yaml(file) or []), *tasks(file, blocks=True)]:
        assert not {"become", "become_user", "become_method"} & set(entry), entry["name"]


def test_the_preflight_changes_nothing() -> None:
    looks = (
        *("ansible.builtin.assert", "ansible.builtin.import_role", "ansible.builtin.set_fact"),
        "capacity_terms",
    )
    for task in tasks(ROOT / "playbooks" / "preflight.yml"):
        assert task.get("changed_when") is False or any(look in task for look in looks), task


@pytest.mark.parametrize("file", PLAYBOOKS, ids=relative)
def test_every_play_has_a_name(file: Path) -> None:
    for play in read_yaml(file):
        assert re.match("[A-Z]", play.get("name", "")), play


def test_every_notified_handler_is_there() -> None:
    for role in sorted(path for path in ROLES.iterdir() if path.is_dir()):
        handlers = {task["name"] for file in role.glob("handlers/*.yml") for task in tasks(file)}
        notified: set[str] = set()
        for file in role.glob("tasks/*.yml"):
            for task in tasks(file):
                names = task.get("notify", [])
                notified.update([names] if isinstance(names, str) else names)
        assert notified == handlers, role.name


@pytest.mark.parametrize("verb", ["verify", "releases", "unlock"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-i", "inventories/prodcution"], "Completely failed to parse inventory source"),
        (["--limit", "lb1"], "No app host is selected. Nothing changed. Selected: lb1."),
    ],
    ids=["misspelt inventory", "no app host"],
)
def test_a_run_that_looks_at_nothing_is_no_success(
    verb: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("channels: {hosts: {app1: }}\nnginx: {hosts: {lb1: }}\n")
    result = subprocess.run(
        [ROOT / "scripts/ansible-playbook", "-i", inventory, *arguments, f"playbooks/{verb}.yml"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode != 0
    assert said in result.stdout + result.stderr
