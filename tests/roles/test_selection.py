"""What a run selects: with every limit and tag it is checked first, or it says why it does nothing.

No host answers here: what goes on after the checks ends at the first host.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .house import ROLES, ROOT, Run, Tree, environment, finish, read_yaml, run, tasks, yaml_files
from .test_preflight import GOOD

PLAYBOOKS = [ROOT / "site.yml", *yaml_files(ROOT / "playbooks")]
VERBS = {
    name: f"{name}.yml" if name == "site" else f"playbooks/{name}.yml"
    for name in ("site", "deploy", "drain", "undrain", "verify", "releases", "unlock")
}
CHECKED = ("site", "deploy")
KIT = "nginx:channels:postgres:redis"
# Not one of theirs needs the kit: a host of Prometheus, and the controller.
FOREIGN: Tree = {"mon1": {"nginx_exporter_port": 9113, "cluster_nofile": "any"}, "localhost": {}}
GROUPS = {
    "nginx": ["lb1"],
    "channels": ["app1", "app2"],
    "postgres": ["data1"],
    "redis": ["data1"],
    "monitoring": ["mon1"],
}


def inventory(**variables: Any) -> Tree:
    """Hosts that refuse every connection."""
    away = {"ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_connection": "ssh"}
    own = {host for hosts in GROUPS.values() for host in hosts} - set(FOREIGN)
    common = {**GOOD, **variables}
    common.pop("cluster_address")
    # Every host needs an address of its own.
    hosts = {
        host: {**away, "cluster_address": f"10.0.0.{number}"}
        for number, host in enumerate(sorted(own), start=1)
    }
    foreign = {host: {**away, **own} for host, own in FOREIGN.items()}
    return {
        "all": {
            "hosts": {**hosts, **foreign},
            "vars": {**common, "ansible_become": False, "drain_host": "app1"},
            "children": {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in GROUPS.items()},
        }
    }


@dataclass
class Desk:
    """Where an operator types, with an inventory."""

    home: Path
    mitogen: str

    def start(
        self,
        verb: str,
        *arguments: str,
        hosts: Tree | None = None,
        more: dict[str, str] | None = None,
    ) -> Any:
        self.home.mkdir(exist_ok=True)
        file = self.home / "hosts.yml"
        file.write_text(yaml.safe_dump(inventory() if hosts is None else hosts))
        return subprocess.Popen(
            [ROOT / "scripts/ansible-playbook", "-i", file, VERBS.get(verb, verb), *arguments],
            cwd=ROOT,
            env=environment(self.home, CHANNELS_KIT_MITOGEN=self.mitogen, **(more or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, verb: str, *arguments: str, hosts: Tree | None = None) -> Run:
        return finish(self.start(verb, *arguments, hosts=hosts))


@pytest.fixture(params=["yes", "no"], ids=["mitogen", "without mitogen"])
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    return Desk(tmp_path / "desk", request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk", "no")


def said(run: Run) -> str:
    """What a run has said, however YAML folds it."""
    return " ".join(run.output.split())


def recap(run: Run) -> dict[str, str]:
    _, _, lines = run.output.partition("PLAY RECAP")
    return dict(re.findall(r"^(\S+) +: (ok=.*)$", lines, re.M))


# With a limit


@pytest.mark.parametrize("verb", CHECKED)
def test_a_limit_without_the_controller_is_checked_all_the_same(desk: Desk, verb: str) -> None:
    """What every user of Ansible types; the variables of hosts beyond the limit count as well."""
    refused = desk.run(verb, "--limit", "app1", hosts=inventory(redis_maxclients=1))
    assert refused.code == 2
    assert "Preflight found 1 problem. Nothing changed." in said(refused)
    assert "data1: redis_maxclients is 1" in said(refused)
    assert "unreachable=0" in recap(refused)["app1"]


@pytest.mark.parametrize(
    ("verb", "limit"),
    [
        *((verb, "app1") for verb in VERBS),
        *(("verify", limit) for limit in ("app1,localhost", "all,!app2,!mon1", "~app[1]", "app*")),
    ],
)
def test_a_limit_of_app_hosts_goes_on_to_them(plain: Desk, verb: str, limit: str) -> None:
    """And to no other."""
    arguments = ("-e", "deploy_release=running") if verb == "deploy" else ()
    done = plain.run(verb, "--limit", limit, *arguments)
    assert done.code == 4, done.output
    assert "UNREACHABLE" in done.output
    found = recap(done)
    assert "unreachable=1" in found["app1"]
    assert not {"mon1", "localhost"} & {host for host in found if "unreachable=1" in found[host]}
    assert "app2" not in found or limit == "app*"


@pytest.mark.parametrize("verb", VERBS)
def test_a_limit_without_an_app_host_is_no_success(plain: Desk, verb: str) -> None:
    done = plain.run(verb, "--limit", "mon1")
    assert done.code == 2
    kind, hosts = "app host", "app1 app2"
    # It has something to do on the others, and undrain ends with it.
    if verb == "site":
        kind, hosts = "host of the cluster", "lb1 app1 app2 data1"
    message = f"No {kind} is selected. Nothing changed. Selected: mon1. Select at least one of: "
    assert message + hosts in said(done)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "channels,!app1,!app2"), "leaves us with no hosts to target"),
        (
            ("--limit", "app1,!ap2,lb9"),
            "--limit or WITHOUT= has names that match no host or group of the inventory: "
            "!ap2, lb9. "
            "Nothing changed. Hosts of the inventory: ",
        ),
        (
            ("--tags", "configure,confgure"),
            "No task has the tag confgure. Nothing changed. Allowed tags:",
        ),
        (
            ("--skip-tags", "always"),
            'The option "--skip-tags always" is not allowed: it skips the preflight and the lock.',
        ),
        (
            ("--start-at-task", "a typo"),
            "The option --start-at-task is not allowed: it skips the preflight and the lock.",
        ),
        (("--tags", "typo", "--skip-tags", "always"), "No task ran on any host."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("verb", ["site", "verify"])
def test_what_selects_nothing_is_no_success(
    plain: Desk, verb: str, arguments: tuple[str, ...], message: str
) -> None:
    done = plain.run(verb, *arguments)
    assert done.code not in (0, 4), done.output
    assert message in said(done)
    assert "UNREACHABLE" not in done.output


def test_what_selects_nothing_is_no_success_with_mitogen(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk", "yes")
    for arguments in (("--limit", "mon1"), ("--start-at-task", "x"), ("--tags", "typo")):
        done = desk.run("verify", *arguments)
        assert done.code not in (0, 4), done.output


@pytest.mark.parametrize(
    ("verb", "hosts"),
    [
        *((verb, {"all": {}}) for verb in VERBS),
        *((verb, {"web": {"hosts": {"web1": None}}}) for verb in ("site", "verify")),
    ],
)
def test_an_inventory_without_hosts_of_the_kit_is_no_success(
    plain: Desk, verb: str, hosts: Tree
) -> None:
    done = plain.run(verb, hosts=hosts)
    assert done.code == 2
    wanted = "No app host is selected. Nothing changed. Selected: "
    if verb in CHECKED:
        wanted = "the group channels is empty; allowed: at least one host"
    assert wanted in said(done)


# The lock

LOCK = """
import os
from pathlib import Path

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        host = self._task.delegate_to or task_vars["inventory_hostname"]
        with Path(os.environ["RECORD"]).open("a") as record:
            asked = self._task.args
            record.write(f"{host} {asked['state']} {asked.get('result', '')}\\n")
        if host == os.environ["BROKEN"]:
            return {"failed": True, "msg": "no Python"}
        refused = self._task.args["state"] == "present" and host == os.environ["LOCKED"]
        return {"changed": False, "refused": refused, "msg": "Locked by ann."}
"""


def locking(
    desk: Desk, tmp_path: Path, limit: str, locked: str = "", broken: str = ""
) -> tuple[Run, list[str]]:
    """Take and release the lock; return what was asked of which app host."""
    actions, record = tmp_path / "actions", tmp_path / "record"
    actions.mkdir()
    (actions / "channels_lock.py").write_text(LOCK)
    record.touch()
    playbook = tmp_path / "lock.yml"
    parts = [
        {"name": name, "ansible.builtin.import_playbook": str(ROOT / "playbooks" / f"{name}.yml")}
        for name in ("lock", "release_lock")
    ]
    playbook.write_text(yaml.safe_dump(parts))
    process = desk.start(
        str(playbook),
        f"--limit={limit}",
        more={
            "ANSIBLE_ACTION_PLUGINS": f"{actions}:{ROOT / 'plugins/action'}",
            "RECORD": str(record),
            "LOCKED": locked,
            "BROKEN": broken,
        },
    )
    done = finish(process)
    return done, [line.strip() for line in record.read_text().splitlines()]


@pytest.mark.parametrize("limit", ["data1", "lb1,data1,mon1"])
def test_a_run_without_app_hosts_takes_the_lock_there_all_the_same(
    desk: Desk, tmp_path: Path, limit: str
) -> None:
    done, record = locking(desk, tmp_path, limit)
    assert done.code == 0, done.output
    assert record == ["app1 present", "app2 present", "app1 absent ok", "app2 absent ok"]


def test_a_lock_that_an_app_host_refuses_is_given_back(desk: Desk, tmp_path: Path) -> None:
    done, record = locking(desk, tmp_path, "data1", locked="app2")
    assert done.code == 2
    assert "Locked by ann." in done.output
    both = ["app1 present", "app2 present"]
    assert record == [*both, "app1 absent refused", "app2 absent refused"]


def test_an_app_host_that_is_broken_keeps_no_data_host_from_its_run(
    desk: Desk, tmp_path: Path
) -> None:
    """It answers, but Ansible cannot run modules there; nobody can operate it meanwhile."""
    done, record = locking(desk, tmp_path, "data1", broken="app1")
    assert done.code == 0, done.output
    assert record == ["app1 present", "app2 present", "app1 absent ok", "app2 absent ok"]


def test_a_run_with_an_app_host_takes_the_lock_once(desk: Desk, tmp_path: Path) -> None:
    done, record = locking(desk, tmp_path, "app1,data1")
    assert done.code == 0, done.output
    assert record == ["app1 present", "app1 absent ok"]


def test_app_hosts_that_do_not_answer_keep_no_data_host_from_its_run(
    desk: Desk, tmp_path: Path
) -> None:
    """The lock is on those that answer."""
    after = {
        "name": "After",
        "hosts": "data1",
        "gather_facts": False,
        "tasks": [{"name": "After | Go on", "ansible.builtin.debug": {"msg": "it goes on"}}],
    }
    lock, release = (
        {"name": name, "ansible.builtin.import_playbook": str(ROOT / "playbooks" / f"{name}.yml")}
        for name in ("lock", "release_lock")
    )
    playbook = tmp_path / "lock.yml"
    playbook.write_text(yaml.safe_dump([lock, after, release]))
    done = desk.run(str(playbook), "--limit", "data1")
    assert done.code == 0, done.output
    assert "it goes on" in done.output


# Whose hosts they are


def test_no_host_of_somebody_else_is_in_a_play_that_does_something() -> None:
    """Only plays that check what is selected are of all hosts, and those also of the controller."""
    checks = {"preflight.yml", "app_hosts.yml", "which_host.yml"}
    found: dict[str, set[str]] = {}
    for file in PLAYBOOKS:
        for play in read_yaml(file):
            if "hosts" in play:
                found.setdefault(play["hosts"], set()).add(file.name)
    assert found.pop("localhost:all") == checks
    # It evaluates variables on the controller.
    assert found.pop("localhost") == {"values.yml"}
    assert found.pop(KIT) == {
        "site.yml",
        "preflight.yml",
        "rollout.yml",
        "finish.yml",
        "lock.yml",
        "release_lock.yml",
        # They read facts, or wait.
        "reachable.yml",
        "values.yml",
        "verify.yml",
    }
    # It reads hosts that others have set up, and opens sockets there.
    assert found.pop("all") == {"verify_units.yml"}
    one = "{{ drain_host | default('none') }}"
    assert set(found) == {"channels", "nginx", "postgres:redis", one}


def test_the_groups_of_the_kit_are_those_that_the_preflight_checks() -> None:
    (task,) = tasks(ROLES / "cluster" / "tasks" / "preflight.yml")
    assert set(task["preflight"]["by_group"]) == set(KIT.split(":"))


def test_a_whole_run_speaks_to_no_host_of_somebody_else(desk: Desk) -> None:
    done = desk.run("site")
    assert done.code == 4
    assert {host for host, told in recap(done).items() if "unreachable=1" in told} == {
        "app1",
        "app2",
        "data1",
        "lb1",
    }
    listed = desk.run("site", "--list-hosts").output
    plays = re.findall(r"play #\d+ \((\S+)\).*?hosts \(\d+\):\n((?: {6}\S+\n)*)", listed, re.S)
    assert len(plays) > 10
    for pattern, hosts in plays:
        assert (pattern == "localhost:all") == ("mon1" in hosts), pattern


# Tags


def test_the_tags_are_those_of_the_roles() -> None:
    used: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "tags":
                    used.update([value] if isinstance(value, str) else value)
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    for file in [*PLAYBOOKS, *sorted(ROLES.glob("*/tasks/*.yml"))]:
        if file.name != "app_hosts.yml":
            walk(read_yaml(file))
    (play,) = read_yaml(ROOT / "playbooks" / "app_hosts.yml")
    assert set(play["vars"]["selection_tags"]) == used - {"always"}


# Old passwords


@pytest.mark.parametrize("answered", [["app1", "app2"], ["app1"]])
def test_passwords_are_revoked_when_every_app_host_has_the_new_ones(
    tmp_path: Path, answered: list[str]
) -> None:
    """Else the processes of those that were left out could log in no more."""
    for role in ("postgres", "redis"):
        file = tmp_path / "roles" / role / "tasks" / "revoke.yml"
        file.parent.mkdir(parents=True)
        task = {"name": "Revoke | Say so", "ansible.builtin.debug": {"msg": f"revoked: {role}"}}
        file.write_text(yaml.safe_dump([{**task, "tags": "revoke"}]))
    answers = {
        "name": "Answers",
        "hosts": ",".join(answered),
        "gather_facts": False,
        "tasks": [{"ansible.builtin.set_fact": {"_channels_host": {"current": "a"}}}],
    }
    (revoke,) = [play for play in read_yaml(ROOT / "site.yml") if play["name"] == "Revoke"]
    done = run(
        tmp_path / "home",
        inventory(),
        [answers, revoke],
        ANSIBLE_ROLES_PATH=str(tmp_path / "roles"),
    )
    assert done.code == 0, done.output
    everybody = answered == GROUPS["channels"]
    assert ("revoked: postgres" in done.output) == everybody
    assert ("revoked: redis" in done.output) == everybody
    assert ("Old passwords stay valid: app2 may use them" in done.output) == (not everybody)
