"""What make cluster and make destroy make of directories, states, host keys and a slow cloud."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.account import TERRAFORM, Account, opened
from tests.cloud.hetzner import ApiError, NoMachines

NAME = "environment"
ANSWERS = "s for SSH on "
"""What is printed when the machines and the inventory are there."""


@pytest.fixture
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with opened(tmp_path_factory.mktemp("account"), NoMachines(), NAME) as found:
        yield found
        assert found.hetzner.unknown == []


def make_machines(account: Account) -> str:
    """Run make cluster until it waits for the machines, which are none; return what it said.

    Where it would delete more than app hosts, it ends at the question.
    """
    terminal = account.terminal("cluster")
    if terminal.until("type yes: ", f"type {NAME}: ", ANSWERS) == "type yes: ":
        terminal.press("yes\n")
        terminal.until(ANSWERS)
    terminal.press("\x03")
    terminal.end()
    return terminal.text


def destroy(account: Account) -> None:
    run = account.make("destroy", answer=NAME)
    assert run.returncode == 0, run.stdout
    assert not any(account.names(kind) for kind in account.hetzner.things)


# One state for a name


def test_another_directory_of_the_same_name_is_refused(account: Account, tmp_path: Path) -> None:
    mine, other = account.inventory, tmp_path / NAME
    make_machines(account)
    other.mkdir()
    shutil.copy(mine / "hcloud.tfvars", other)
    account.inventory = other
    for verb in ("cluster", "destroy"):
        run = account.make(verb, answer=NAME)
        assert run.returncode == 1
        assert f"{mine} has the name {NAME}, too." in run.stdout
        assert "Nothing changed." in run.stdout
    assert len(account.names("servers")) == 4

    # It is free when the other one is gone, as its machines are.
    account.inventory = mine
    destroy(account)
    account.inventory = other
    assert "12 to add" in account.make("cluster", answer="no").stdout


def test_a_directory_that_was_moved_keeps_its_state(account: Account, tmp_path: Path) -> None:
    make_machines(account)
    account.inventory = account.inventory.rename(tmp_path / NAME)
    assert "No changes." in make_machines(account)
    destroy(account)


def test_an_inventory_with_machines_and_a_state_without_is_refused(account: Account) -> None:
    make_machines(account)
    shutil.rmtree(account.clouds / "hcloud" / "terraform.tfstate.d")
    for verb in ("cluster", "destroy"):
        run = account.make(verb, answer=NAME)
        assert run.returncode == 1
        assert "lists machines, but Terraform's state of environment is empty" in run.stdout
        assert "Nothing changed." in run.stdout
    assert (account.inventory / "hosts.yml").exists()


def test_another_workspace_of_the_shell_is_not_taken(account: Account) -> None:
    run = account.make("cluster", answer="no", TF_WORKSPACE="other")
    assert "12 to add" in run.stdout


# Files


def test_state_and_plan_are_for_the_operator_alone(account: Account) -> None:
    make_machines(account)
    folder = account.clouds / "hcloud"
    for file in (
        folder / ".terraform" / NAME / "plan",
        folder / "terraform.tfstate.d" / NAME / "terraform.tfstate",
    ):
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_a_state_that_could_not_be_saved_is_saved_by_the_next_run(account: Account) -> None:
    make_machines(account)
    folder = account.clouds / "hcloud"
    state = folder / "terraform.tfstate.d" / NAME / "terraform.tfstate"
    # As after a full disk: half of it is there, and Terraform has put it elsewhere.
    unsaved = folder / ".terraform" / NAME / "errored.tfstate"
    shutil.copy(state, unsaved)
    state.write_text(state.read_text()[:100])
    assert "No changes." in make_machines(account)
    assert not unsaved.exists()
    assert account.unknown_to_terraform() == []


def test_a_backend_takes_over_a_state_and_one_that_it_could_not_save(
    account: Account, tmp_path: Path
) -> None:
    make_machines(account)
    folder = account.clouds / "hcloud"
    (folder / "backend.tf").write_text(
        f'terraform {{\n  backend "local" {{\n    workspace_dir = "{tmp_path}"\n  }}\n}}\n'
    )
    data = folder / ".terraform" / NAME
    moved = account.run(
        [TERRAFORM, f"-chdir={folder}", "init", "-migrate-state"], "yes\n", TF_DATA_DIR=str(data)
    )
    assert moved.returncode == 0, moved.stdout
    assert "No changes." in make_machines(account)

    # As after an outage of the storage: it has an older state.
    newest = json.loads((tmp_path / NAME / "terraform.tfstate").read_text())
    (data / "errored.tfstate").write_text(json.dumps(newest | {"serial": newest["serial"] + 9}))
    assert account.terraform("state", "rm", "hcloud_server.host").returncode == 0
    assert "No changes." in make_machines(account)
    assert not (data / "errored.tfstate").exists()
    assert account.unknown_to_terraform() == []


def test_what_somebody_wrote_into_hosts_yml_is_shown_when_it_goes(account: Account) -> None:
    make_machines(account)
    file = account.inventory / "hosts.yml"
    written = file.read_text()
    file.write_text(written.replace('"10.10.0.30"', '"10.10.0.77"'))
    said = make_machines(account)
    assert 'hosts.yml: -       cluster_address: "10.10.0.77"' in said
    assert 'hosts.yml: +       cluster_address: "10.10.0.30"' in said
    assert file.read_text() == written


def test_lines_of_somebody_else_in_known_hosts_stay(account: Account) -> None:
    file = account.inventory / "known_hosts"
    make_machines(account)
    file.write_text("bastion.example.org ssh-ed25519 AAAA\n192.0.2.9 ssh-ed25519 AAAA app9 id=9\n")
    destroy(account)
    assert file.read_text() == "bastion.example.org ssh-ed25519 AAAA\n"


# Hosts


def test_the_address_for_the_dns_is_printed_before_the_hosts_are_set_up(account: Account) -> None:
    said = make_machines(account)
    (edge,) = (
        server
        for server in account.hetzner.things["servers"].values()
        if server["name"] == f"{NAME}-edge1"
    )
    address = edge["public_net"]["ipv4"]["ip"]
    assert f"cluster_server_names must resolve to {address}\n" in said


def test_a_host_without_an_address_is_named_at_once(account: Account) -> None:
    outputs = account.clouds / "hcloud" / "outputs.tf"
    text = outputs.read_text()
    address = "address         = hcloud_server.host[name].ipv4_address"
    assert address in text
    without = 'address         = name == "app1" ? null : hcloud_server.host[name].ipv4_address'
    outputs.write_text(text.replace(address, without))
    run = account.make("cluster")
    assert run.returncode == 1
    assert "Terraform's output `inventory` has no app1.address." in run.stdout
    assert account.unknown_to_terraform() == []


def test_a_folder_without_the_output_is_named(account: Account) -> None:
    outputs = account.clouds / "hcloud" / "outputs.tf"
    outputs.write_text(outputs.read_text().replace('output "inventory"', 'output "hosts"'))
    run = account.make("cluster")
    assert run.returncode == 1
    assert "has no output `inventory`" in run.stdout


def test_a_missing_program_of_ssh_is_named(account: Account, tmp_path: Path) -> None:
    for name in ("ssh", "ssh-keygen"):
        (tmp_path / name).touch(mode=0o755)
    run = account.make("cluster", PATH=str(tmp_path))
    assert run.returncode == 1
    assert run.stdout == "ssh-keyscan is missing. Install an OpenSSH client. Nothing changed.\n"


def test_of_another_type_is_said_which_machines_stop_before_the_question(account: Account) -> None:
    make_machines(account)
    account.write_variables(servers={"app": {"type": "cx33"}}, labels={"team": "chat"})
    run = account.make("cluster")
    assert run.returncode == 1
    said = (
        "type of these machines:\n  app1: cx23 -> cx33\n  app2: cx23 -> cx33\nFor that, the cloud"
    )
    assert said in run.stdout
    # No habit answers it.
    assert f'the answer is "yes"; allowed: "{NAME}". Nothing changed.' in run.stdout


# A cloud that refuses


class Refusing:
    """Refuses requests for servers, the first ones.

    Args:
        account: where.
        error: the answer.
        times: how many.
    """

    def __init__(self, account: Account, error: ApiError, times: int) -> None:
        self.error, self.left = error, times
        account.hetzner.before = self

    def __call__(self, method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/servers") and self.left:
            self.left -= 1
            raise self.error


def test_too_many_requests_are_made_again(account: Account) -> None:
    limit = Refusing(account, ApiError(429, "rate_limit_exceeded", "limit reached"), 6)
    assert ANSWERS in make_machines(account)
    assert limit.left == 0


@pytest.mark.parametrize(
    "error",
    [
        ApiError(503, "unavailable", "try again later"),
        ApiError(412, "resource_unavailable", "server type is not available in this location"),
    ],
    ids=["unavailable", "server type"],
)
def test_what_the_cloud_refuses_is_made_by_the_next_run(account: Account, error: ApiError) -> None:
    Refusing(account, error, 4)
    run = account.make("cluster")
    assert run.returncode == 1
    assert str(error) in run.stdout
    assert "Its state has what it made. Fix the cause, then run the same command" in run.stdout
    assert account.names("servers") == []
    assert account.unknown_to_terraform() == []
    assert "5 to add" in make_machines(account)
    assert len(account.names("servers")) == 4


def test_what_is_made_in_part_is_destroyed_whole(account: Account) -> None:
    Refusing(account, ApiError(412, "resource_unavailable", "not in this location"), 2)
    assert account.make("cluster").returncode == 1
    assert len(account.names("servers")) == 2
    destroy(account)


# One at a time


def test_a_second_operator_is_refused_meanwhile(account: Account) -> None:
    terminal = account.terminal("cluster")
    terminal.until("type yes: ")
    for verb in ("cluster", "destroy"):
        run = account.make(verb)
        assert run.returncode == 1
        assert "Another make cluster or make destroy is running" in run.stdout
        assert "Nothing changed." in run.stdout
    terminal.press("no\n")
    assert terminal.end() == 1
