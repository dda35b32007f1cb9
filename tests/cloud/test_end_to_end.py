"""A cluster from an empty account to nothing left, by make cluster and make destroy.

The API is a stand-in; Terraform, its provider, cloud-init, SSH, the roles and the proof are real.
The tests are steps: each begins where the one before ended.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from staging.cluster import APPLICATION_SECRETS, SECRETS, docker
from tests.cloud.account import ROOT, TOKEN, Account, opened, write_group_variables
from tests.cloud.machines import Containers, machines_of_checkout

NAME = "stand-in"
USERS = {user: secrets.token_hex(8) for user in ("alice", "bob")}
MADE_UP = {name: secrets.token_hex(24) for name in (*SECRETS, *APPLICATION_SECRETS)}


@pytest.fixture(scope="module")
def machines() -> Iterator[Containers]:
    with machines_of_checkout() as found:
        yield found


@pytest.fixture(scope="module")
def account(machines: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    directory = tmp_path_factory.mktemp("account")
    key = directory / "id_ed25519"
    make_key(key)
    with opened(directory, machines, NAME) as found:
        write_group_variables(
            found.inventory, key, machines.nofile(), MADE_UP | {"sample_users": USERS}
        )
        found.write_variables(
            ssh_keys={"ann": key.with_suffix(".pub").read_text()}, network=machines.free_subnet()
        )
        yield found
        assert found.hetzner.unknown == []


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def inventory(account: Account) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((account.inventory / "hosts.yml").read_text())
    return found


def phases(printed: str) -> list[str]:
    """Return the numbers of the phases that a run has begun."""
    return re.findall(r"^== (\d/\d) [^:]*$", printed, re.MULTILINE)


def pins(account: Account) -> dict[str, tuple[str, ...]]:
    """Return address, type, key and id of each host's pin."""
    lines = (account.inventory / "known_hosts").read_text().splitlines()
    return {words[3]: (*words[:3], words[4]) for words in map(str.split, lines)}


@pytest.mark.parametrize(
    "marks",
    [
        ("To apply the plan, type yes: ", 'hcloud_server.host["app1"]: Creating...'),
        ("== 3/5 Wait for SSH and cloud-init", "Reachable | Say why", "Ctrl-C"),
        ("== 4/5 Converge", "TASK [base : "),
        ("== 5/5 Prove",),
    ],
    ids=["machines", "wrong key", "converge", "prove"],
)
def test_a_run_that_is_interrupted_leaves_nothing_unknown(
    account: Account, marks: tuple[str, ...], tmp_path: Path
) -> None:
    wrong_key = account.inventory / "group_vars" / "all" / "key.yml"
    if "Reachable | Say why" in marks:
        make_key(tmp_path / "id_ed25519")
        wrong_key.write_text(f"ansible_ssh_private_key_file: {tmp_path / 'id_ed25519'}\n")
    terminal = account.terminal("cluster")
    for mark in marks:
        terminal.until(mark)
        if mark.endswith("type yes: "):
            # What it costs is said before the question.
            assert "Costs a month" in terminal.text
            terminal.press("yes\n")
    terminal.press("\x03")
    assert terminal.end() == 130
    wrong_key.unlink(missing_ok=True)
    assert account.unknown_to_terraform() == []
    in_operation = "== 4/5 Converge" in marks
    assert ("converge: interrupted after " in terminal.text) == in_operation
    # How to go on is said once, by the operation where there is one.
    advice = "Run the same command again: it completes what this one left."
    assert (advice in terminal.text) == in_operation
    assert ("To continue, run the same command again." in terminal.text) != in_operation


def test_an_empty_account_becomes_a_proved_cluster(account: Account) -> None:
    run = account.make("cluster")
    assert run.returncode == 0, run.stdout
    assert "Verified: " in run.stdout
    assert phases(run.stdout) == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    hosts = inventory(account)
    assert [*hosts["channels"]["hosts"]] == ["app1", "app2"]
    assert set(pins(account)) == {"app1", "app2", "data1", "edge1"}


def test_a_plan_after_it_changes_nothing(account: Account) -> None:
    plan = account.terraform(
        *("plan", "-detailed-exitcode", f"-var=name={NAME}"),
        f"-var-file={account.inventory / 'hcloud.tfvars'}",
    )
    assert plan.returncode == 0, plan.stdout
    assert "No changes." in plan.stdout


def test_postgresql_keeps_its_data_on_the_volume(account: Account, machines: Containers) -> None:
    host = next(
        each for each in account.hetzner.things["servers"].values() if "data1" in each["name"]
    )
    source = ("findmnt", "--noheadings", "--output", "SOURCE,FSTYPE", "/var/lib/postgresql")
    (volume,) = account.hetzner.things["volumes"].values()
    found = docker("exec", machines.container(host), *source)
    assert found.split() == [volume["linux_device"], "ext4"]


def test_a_volume_that_would_hide_files_is_refused(account: Account) -> None:
    run = account.run(
        [
            *(ROOT / "scripts" / "ansible-playbook", "-i", account.inventory, "site.yml"),
            *("--limit", "edge1", "--tags", "install"),
            *("-e", json.dumps({"base_mounts": {"/etc/nginx": "/dev/sdb"}})),
        ]
    )
    assert run.returncode != 0
    assert "/etc/nginx is not empty, and the volume /dev/sdb would hide" in run.stdout


def test_hosts_come_back_and_are_added(account: Account) -> None:
    before = pins(account)
    by_name = {server["name"]: server for server in account.hetzner.things["servers"].values()}
    account.hetzner.delete("servers", by_name[f"{NAME}-app2"])  # behind Terraform's back
    account.write_variables(servers={"app": {"count": 3}})
    run = account.make("cluster")
    assert run.returncode == 0, run.stdout
    assert "Plan: 2 to add, 0 to change, 0 to destroy." in run.stdout
    assert "Verified: " in run.stdout
    assert account.names("servers") == [
        f"{NAME}-{name}" for name in ("app1", "app2", "app3", "data1", "edge1")
    ]
    after = pins(account)
    assert {name for name, pin in before.items() if after[name] == pin} == {
        "app1",
        "data1",
        "edge1",
    }


def test_no_host_is_deleted_if_the_others_are_not_proved(
    account: Account, machines: Containers
) -> None:
    before = account.names("servers")
    app1 = next(
        each for each in account.hetzner.things["servers"].values() if "app1" in each["name"]
    )
    account.write_variables(servers={"app": {"count": 2}})
    # Converge restarts a worker that hangs. That the edge does not reach one, only a proof tells.
    edge = inventory(account)["all"]["hosts"]["edge1"]["cluster_address"]
    route = ("exec", machines.container(app1), "ip", "route")
    docker(*route, "add", "unreachable", edge)
    try:
        run = account.make("cluster")
    finally:
        docker(*route, "del", "unreachable", edge)
    assert run.returncode != 0
    assert "converge: done" in run.stdout
    assert "NOT verified" in run.stdout
    said = "The cluster is not proved without app3: see above. Terraform has changed nothing."
    assert said in run.stdout
    assert account.names("servers") == before


def test_who_keeps_a_drained_host_gets_it_back(account: Account) -> None:
    account.write_variables(servers={"app": {"count": 3}})
    run = account.make("cluster")
    assert "No changes." in run.stdout
    assert "Drained: app3" in run.stdout
    undrain = account.run([ROOT / "scripts" / "operate", account.inventory, "undrain", "app3"])
    assert undrain.returncode == 0, undrain.stdout
    verify = account.run([ROOT / "scripts" / "verify", account.inventory])
    assert verify.returncode == 0, verify.stdout
    assert "Drained" not in verify.stdout


def test_a_host_that_leaves_is_drained_and_nobody_loses_a_message(
    account: Account, tmp_path: Path
) -> None:
    account.write_variables(servers={"app": {"count": 2}})
    with talking(account, tmp_path) as report:
        run = account.make("cluster")
    assert run.returncode == 0, run.stdout
    said = "takes them out of the edge, and proves the others: app3"
    assert phases(run.stdout) == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    order = [said, "drain: done", "converge: done", "Verified: ", "Destroying...", "== 5/5 Prove"]
    places = [run.stdout.index(each) for each in order]
    assert places == sorted(places)
    assert account.names("servers") == [
        f"{NAME}-{name}" for name in ("app1", "app2", "data1", "edge1")
    ]
    found = json.loads(report.read_text())
    assert found["ok"], found
    assert found["delivered"] == found["expected"] > 0
    # Nobody was cut off: app3 closed its sockets one by one.
    assert set(found["closes"]) == {"1012"}


def test_no_secret_is_in_state_plan_inventory_or_output(account: Account) -> None:
    folder = account.clouds / "hcloud"
    plan = account.terraform("show", "-json", str(folder / ".terraform" / NAME / "plan")).stdout
    state = account.terraform("show", "-json").stdout
    assert NAME in plan and NAME in state  # noqa: PT018 - they were read
    files = [
        *folder.glob("terraform.tfstate.d/**/*"),
        *account.clouds.parent.glob("*.log"),
        *(account.inventory / name for name in ("hosts.yml", "known_hosts", "hcloud.tfvars")),
    ]
    texts = [path.read_text() for path in files if path.is_file()] + [plan, state]
    private = (account.clouds.parent / "id_ed25519").read_text().splitlines()[2]
    for secret in (TOKEN, private, *MADE_UP.values(), *USERS.values()):
        assert not any(secret in text for text in texts)
    assert not any(re.search(r"PRIVATE KEY|root_password", text) for text in texts)


def test_destroy_asks_for_the_name_and_leaves_nothing(
    account: Account, machines: Containers
) -> None:
    refused = account.make("destroy", answer="yes")
    assert refused.returncode == 1
    said = f'Not confirmed: the answer is "yes"; allowed: "{NAME}". Nothing changed.'
    assert said in refused.stdout
    assert len(account.names("servers")) == 4
    run = account.make("destroy", answer=NAME)
    assert run.returncode == 0, run.stdout
    assert {kind for kind in account.hetzner.things if account.names(kind)} == set()
    assert machines.left() == []
    assert not (account.inventory / "hosts.yml").exists()
    assert not (account.inventory / "known_hosts").exists()
    # Nor of Terraform.
    folder = account.clouds / "hcloud"
    assert not (folder / "terraform.tfstate.d" / NAME).exists()
    assert not (folder / ".terraform" / NAME).exists()


@contextmanager
def talking(account: Account, directory: Path) -> Iterator[Path]:
    """Have clients talk through the edge; yield where the report will be."""
    report, log, users = (directory / name for name in ("load.json", "load.log", "users.json"))
    users.write_text(json.dumps(USERS))
    edge = inventory(account)["all"]["hosts"]["edge1"]["ansible_host"]
    with log.open("w") as stream:
        clients = subprocess.Popen(
            [
                *(sys.executable, "-m", "channels_kit.load", "run", "--url", f"http://{edge}"),
                *("--room", "lobby", "--adapter", "chat.load_adapter:RoomAdapter"),
                *("--credentials", str(users), "--clients", "60", "--rate", "5"),
                *("--duration", "36000", "--json", str(report)),
            ],
            env={"PYTHONPATH": str(ROOT / "app"), "PATH": "/usr/bin:/bin"},
            cwd=ROOT,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        while " sending: " not in log.read_text() and clients.poll() is None:
            time.sleep(0.2)
        yield report
    finally:
        if clients.poll() is None:
            clients.send_signal(signal.SIGINT)
        clients.wait()
