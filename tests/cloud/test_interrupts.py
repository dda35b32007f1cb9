"""What make cluster and make destroy leave, and say, when somebody interrupts them."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.account import ROOT, Account, Terminal, opened
from tests.cloud.hetzner import NoMachines

NAME = "interrupted"
CTRL_C = "\x03"
SERVERS = ["app1", "app2", "data1", "edge1"]


@pytest.fixture
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with opened(tmp_path_factory.mktemp("account"), NoMachines(), NAME) as found:
        yield found
        assert found.hetzner.unknown == []


class Held:
    """Requests whose answers are held back, as if the cloud were slow.

    Args:
        account: where.
        method: of the requests.
        path: how their path begins.
        done: whether the requests are done before.
    """

    def __init__(self, account: Account, method: str, path: str, done: bool = True) -> None:
        self.wanted = (method, path)
        self.reached, self.released = threading.Event(), threading.Event()
        setattr(account.hetzner, "after" if done else "before", self)

    def __call__(self, method: str, path: str) -> None:
        if method == self.wanted[0] and path.startswith(self.wanted[1]):
            self.reached.set()
            self.released.wait()


def applying(account: Account, **environment: str) -> tuple[Held, Terminal]:
    """Start make cluster, and hold the answers to Terraform, which makes the servers."""
    servers = Held(account, "POST", "/v1/servers")
    terminal = account.terminal("cluster", **environment)
    terminal.until("type yes: ")
    terminal.press("yes\n")
    servers.reached.wait()
    return servers, terminal


def left(account: Account) -> list[str]:
    return [name for kind in account.hetzner.things for name in account.names(kind)]


def test_terraform_completes_what_it_makes_and_the_next_run_goes_on(account: Account) -> None:
    servers, terminal = applying(account)
    terminal.press(CTRL_C)
    terminal.until("Interrupted. Terraform completes the plan first")
    assert "To stop Terraform now, press Ctrl-C again." in terminal.text
    servers.released.set()
    assert terminal.end() == 130
    assert "Terraform has completed the plan. To continue, run the same command" in terminal.text
    assert account.names("servers") == [f"{NAME}-{host}" for host in SERVERS]
    assert account.unknown_to_terraform() == []

    # The next run has nothing to make. While it waits for hosts that do not answer, it can end.
    terminal = account.terminal("cluster")
    terminal.until("s for SSH on ")
    assert "No changes." in terminal.text
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    assert "Interrupted. To continue, run the same command again." in terminal.text
    assert "Traceback" not in terminal.text

    run = account.make("destroy", answer=NAME)
    assert run.returncode == 0, run.stdout
    assert left(account) == []


def test_who_insists_is_told_what_the_state_does_not_have(account: Account) -> None:
    servers, terminal = applying(account)
    terminal.press(CTRL_C)
    terminal.until("press Ctrl-C again")
    terminal.press(CTRL_C)
    terminal.until("Terraform stops, and saves its state.")
    # One interrupt is Terraform's, however often somebody presses.
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    servers.released.set()
    assert "Two interrupts received" not in terminal.text
    _, _, said = terminal.text.partition("Its state does not have these.")
    lost = account.unknown_to_terraform()
    assert lost
    assert set(lost) <= {f"{NAME}-{host}" for host in SERVERS}
    for name in lost:
        assert f", named {name}\n" in said
    # What the state has is not named.
    assert "hcloud_network.private" not in said

    for server in [*account.hetzner.things["servers"].values()]:
        if server["name"] in lost:
            account.hetzner.delete("servers", server)
    terminal = account.terminal("cluster")
    terminal.until("type yes: ")
    terminal.press("yes\n")
    terminal.until("s for SSH on ")
    terminal.press(CTRL_C)
    terminal.end()
    assert account.names("servers") == [f"{NAME}-{host}" for host in SERVERS]
    assert account.unknown_to_terraform() == []
    assert account.make("destroy", answer=NAME).returncode == 0
    assert left(account) == []


def test_who_insists_is_told_all_if_the_state_cannot_be_read(
    account: Account, tmp_path: Path
) -> None:
    program = tmp_path / "terraform"
    real = subprocess.run(
        ["bash", "-c", ". scripts/lib.sh && terraform_program"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    program.write_text(
        f"""#!/bin/sh
case " $* " in *" state list "*) echo The state is asked for. >/dev/tty; exec sleep 300 ;; esac
exec {real.strip()} "$@"
"""
    )
    program.chmod(0o755)
    servers, terminal = applying(account, PATH=f"{tmp_path}:{os.environ['PATH']}")
    terminal.press(CTRL_C)
    terminal.until("press Ctrl-C again")
    terminal.press(CTRL_C)
    terminal.until("The state is asked for.")
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    servers.released.set()
    _, _, said = terminal.text.partition("cannot be read, and may not have these.")
    for host in SERVERS:
        assert f", named {NAME}-{host}\n" in said


def test_terraform_completes_its_plan_without_its_terminal(account: Account) -> None:
    servers, terminal = applying(account)
    terminal.hang_up()
    servers.released.set()
    assert terminal.end() == 130
    assert account.names("servers") == [f"{NAME}-{host}" for host in SERVERS]
    assert account.unknown_to_terraform() == []


def test_an_interrupted_plan_changes_nothing(account: Account) -> None:
    locations = Held(account, "GET", "/v1/locations")
    terminal = account.terminal("cluster")
    locations.reached.wait()
    terminal.press(CTRL_C)
    terminal.until("Interrupt received.")
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    locations.released.set()
    assert "Interrupted. Nothing changed." in terminal.text
    assert "Two interrupts received" not in terminal.text


@pytest.mark.parametrize("keys", [CTRL_C, "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_an_interrupted_question_changes_nothing(account: Account, keys: str) -> None:
    terminal = account.terminal("cluster")
    terminal.until("type yes: ")
    terminal.press(keys)
    assert terminal.end() == (130 if keys == CTRL_C else 1)
    assert "Nothing changed." in terminal.text
    assert left(account) == []


def test_an_interrupted_destroy_stops_at_once_and_the_next_one_completes(account: Account) -> None:
    account.terraform("init")
    terminal = account.terminal("cluster")
    terminal.until("type yes: ")
    terminal.press("yes\n")
    terminal.until("s for SSH on ")
    terminal.press(CTRL_C)
    terminal.end()
    servers = Held(account, "DELETE", "/v1/servers")
    terminal = account.terminal("destroy")
    terminal.until(f"type {NAME}: ")
    terminal.press(f"{NAME}\n")
    servers.reached.wait()
    terminal.press(CTRL_C)
    terminal.until("Interrupt received.")
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    servers.released.set()
    assert "Two interrupts received" not in terminal.text
    assert "Terraform was stopped." in terminal.text
    assert left(account) != []
    run = account.make("destroy", answer=NAME)
    assert run.returncode == 0, run.stdout
    assert left(account) == []
