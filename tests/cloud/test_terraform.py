"""The folder of a cloud by Terraform's own tests, and against the stand-in without machines."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.cloud.account import TERRAFORM, Account, opened
from tests.cloud.hetzner import NoMachines

NAME = "shape"


@pytest.fixture
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with opened(tmp_path_factory.mktemp("account"), NoMachines(), NAME) as found:
        yield found
        assert found.hetzner.unknown == []


def terraform(account: Account, verb: str, *further: str) -> str:
    """Run a command of Terraform with the variables of the environment; return what it printed."""
    variables = (f"-var=name={NAME}", f"-var-file={account.inventory / 'hcloud.tfvars'}")
    run = account.terraform(verb, *further, *variables)
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.parametrize("folder", ["hcloud", "modules/inventory"])
def test_the_tests_of_terraform_pass(account: Account, folder: str) -> None:
    for verb in ("init", "validate", "test"):
        run = account.run([TERRAFORM, f"-chdir={account.clouds / folder}", verb])
        assert run.returncode == 0, run.stdout
    passed = re.search(r"Success! (\d+) passed, 0 failed", run.stdout)
    assert passed, run.stdout
    assert int(passed[1]) >= 4


def test_two_edges_and_back_by_the_real_provider(account: Account) -> None:
    account.terraform("init")
    for edges, balancers in ((1, []), (2, [f"{NAME}-edge"]), (1, [])):
        account.write_variables(servers={"edge": {"count": edges}})
        terraform(account, "apply", "-auto-approve")
        assert account.names("load_balancers") == balancers
        # 0: a plan after it changes nothing.
        terraform(account, "plan", "-detailed-exitcode")
    terraform(account, "destroy", "-auto-approve")
    assert not any(account.names(kind) for kind in account.hetzner.things)
