"""What an operator is told who gives Terraform something wrong: before anything is made."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.account import PROVISION, TOKEN, Account, opened
from tests.cloud.hetzner import NoMachines

NAME = "wrong"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3q ann@example.org"

WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"operator_addresses": ["203.0.113.7"]},
        'operator_addresses has ["203.0.113.7"]; allowed: networks with a prefix length',
    ),
    (
        {"operator_addresses": ["203.0.113.0/24", "300.1.2.3/32"]},
        'operator_addresses has ["300.1.2.3/32"]; allowed: networks with a prefix length',
    ),
    (
        {"operator_addresses": ["0.0.0.0/0"]},
        'operator_addresses has ["0.0.0.0/0"], which lets nearly everybody connect to SSH',
    ),
    (
        {"operator_addresses": ["::/1", "203.0.113.7/32"]},
        'operator_addresses has ["::/1"], which lets nearly everybody connect to SSH; allowed:'
        " IPv4 networks from /16 to /32, IPv6 networks from /32 to /128",
    ),
    (
        {"operator_addresses": ["203.0.113.7/24", "2001:db8:0::1/64", "2001:db8:0::/48"]},
        'operator_addresses has ["203.0.113.7/24","2001:db8:0::1/64"], with bits of a host;'
        ' allowed: ["203.0.113.0/24","2001:db8::/64","2001:db8::/48"].',
    ),
    ({"operator_addresses": []}, "operator_addresses is empty; allowed: at least one network"),
    ({"servers": {"data": {"count": 0}}}, "servers.data.count is 0; allowed: 1."),
    (
        {"servers": {"app": {"count": 0}}},
        "servers.app.count is 0; allowed: a whole number from 1 to 100.",
    ),
    (
        {"servers": {"edge": {"count": 1.5}}},
        "servers.edge.count is 1.5; allowed: a whole number from 1 to 10.",
    ),
    (
        {"servers": {"app": {"type": "cx999"}, "data": {"type": "cx33"}, "edge": {"type": "x"}}},
        'servers.app.type is "cx999", servers.edge.type is "x"; allowed: cx23, cx33, cax11.',
    ),
    (
        {
            "servers": {
                "app": {"image": "debian-99"},
                "data": {"image": "12"},
                "edge": {"image": ""},
            }
        },
        'servers.app.image is "debian-99", servers.data.image is "12", servers.edge.image is "";'
        " allowed: debian-12, debian-13, or the id of an image of your own.",
    ),
    ({"location": "moon"}, 'location is "moon"; allowed: fsn1, nbg1, ash.'),
    ({"load_balancer_type": "lb99"}, 'load_balancer_type is "lb99"; allowed: lb11.'),
    ({"ssh_keys": {}}, "ssh_keys is empty; allowed: at least one public key"),
    (
        {"ssh_keys": {"ann": KEY, "bob": KEY.replace("IJ3q", "IJ3r"), "eve": f"{KEY}.uk"}},
        "ssh_keys has the same key as ann and eve; allowed: each key once.",
    ),
    (
        {"labels": {"team": "web chat", "example.org/cost-centre": "42", "_of": "", "none": ""}},
        'labels has {"_of":"","team":"web chat"}; allowed: names and values of up to 63 letters',
    ),
    ({"network": "203.0.113.0/24"}, 'network is "203.0.113.0/24"; allowed: a private IPv4 network'),
    (
        {"network": "10.10.0.5/24"},
        'network is "10.10.0.5/24"; allowed: a private IPv4 network of /16 to /24 without host'
        " bits, such as 10.10.0.0/24.",
    ),
    (
        {"volume_gigabytes": 5},
        "volume_gigabytes is 5; allowed: a whole number from 10 to 10240.",
    ),
    (
        {"volume_gigabytes": 10.5},
        "volume_gigabytes is 10.5; allowed: a whole number from 10 to 10240.",
    ),
]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with opened(tmp_path_factory.mktemp("account"), NoMachines(), NAME) as found:
        yield found
        assert found.hetzner.unknown == []


@pytest.fixture(autouse=True)
def valid_again(account: Account) -> Iterator[None]:
    before = dict(account.variables)
    yield
    account.variables = before
    account.write_variables()


def words(text: str) -> str:
    """Return a text without the frames and line breaks of Terraform."""
    return re.sub(r"[\s│╷╵]+", " ", text)


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said[:50] for _, said in WRONG])
def test_wrong_input_is_named_before_anything_is_made(
    account: Account, changes: dict[str, Any], said: str
) -> None:
    account.write_variables(**changes)
    run = account.make("cluster")
    assert run.returncode == 1
    assert said in words(run.stdout), run.stdout
    assert "Nothing changed." in run.stdout
    assert not any(account.names(kind) for kind in account.hetzner.things)


def test_a_private_key_is_refused(account: Account) -> None:
    private = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
    account.write_variables(ssh_keys={"ann": private})
    run = account.make("cluster")
    assert run.returncode == 1
    assert "ssh_keys: ann is not a public key" in words(run.stdout)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "not found in the HCLOUD_TOKEN environment variable"),
        ("w" * 63, "entered token is invalid (must be exactly 64 characters long)"),
        (f"{TOKEN}\n", "entered token is invalid (must be exactly 64 characters long)"),
        (f" {TOKEN}", "entered token is invalid (must be exactly 64 characters long)"),
        ("w" * 64, "unable to authenticate"),
    ],
    ids=["none", "short", "newline", "space", "another"],
)
def test_a_wrong_token_is_refused_and_not_printed(account: Account, token: str, said: str) -> None:
    run = account.make("cluster", HCLOUD_TOKEN=token)
    assert run.returncode == 1
    assert said in words(run.stdout)
    assert "Nothing changed." in run.stdout
    assert not token.strip() or token.strip() not in run.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "my_shop",
            'ENV is "my_shop"; allowed: a lower-case letter, then up to 30 lower-case letters',
        ),
        ("my shop", 'ENV is "my shop"; allowed: a lower-case letter, then'),
        ("größe", 'ENV is "größe"; allowed: a lower-case letter, then'),
        ("-x", 'ENV is "-x"; allowed: a lower-case letter, then'),
        ("default", 'and not "default", which Terraform keeps for itself'),
        ("n" * 32, f'ENV is "{"n" * 32}"; allowed: a lower-case letter, then up to 30'),
    ],
)
def test_a_name_that_no_host_can_have_is_refused(account: Account, name: str, said: str) -> None:
    other = account.inventory.with_name(name)
    account.inventory = account.inventory.rename(other)
    try:
        run = account.make("cluster")
    finally:
        account.inventory = other.rename(other.with_name(NAME))
    assert run.returncode == 1
    assert said in words(run.stdout)
    assert "Nothing changed." in run.stdout


def test_a_name_that_the_account_has_is_refused(account: Account) -> None:
    taken = {"name": f"{NAME}-inner", "rules": []}
    created = account.hetzner.create("firewalls", taken)["firewall"]
    try:
        run = account.make("cluster")
    finally:
        account.make("destroy", answer=NAME)
        account.hetzner.delete("firewalls", created)
    assert run.returncode == 1
    assert "firewall name is already used" in words(run.stdout)
    # What was made until then, Terraform knows.
    assert "run the same command again" in words(run.stdout)
    assert not any(account.names(kind) for kind in account.hetzner.things)


def test_an_answer_that_is_not_yes_changes_nothing(account: Account) -> None:
    run = account.make("cluster", answer="y")
    assert run.returncode == 1
    assert "total" in run.stdout
    assert 'Not confirmed: the answer is "y"; allowed: "yes". Nothing changed.' in run.stdout
    assert not any(account.names(kind) for kind in account.hetzner.things)


def test_an_inventory_of_somebody_else_is_kept(account: Account) -> None:
    file = account.inventory / "hosts.yml"
    file.write_text("all: {hosts: {mine: }}\n")
    try:
        run = account.make("cluster")
        assert file.read_text() == "all: {hosts: {mine: }}\n"
    finally:
        file.unlink()
    assert run.returncode == 1
    assert "did not write it. Move it away" in run.stdout


def test_destroy_keeps_an_inventory_of_somebody_else(account: Account) -> None:
    files = [account.inventory / name for name in ("hosts.yml", "known_hosts")]
    for file in files:
        file.write_text("mine: {}\n")
    try:
        run = account.make("destroy")
        kept = [file.read_text() for file in files if file.exists()]
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    assert run.returncode == 0, run.stdout
    assert kept == ["mine: {}\n"] * 2
    assert "hosts.yml stays: make cluster did not write it" in run.stdout


def test_without_anybody_to_answer_nothing_changes(account: Account) -> None:
    closed: list[str | Path] = ["bash", "-c", 'exec "$@" <&-', "bash"]
    closed += [sys.executable, PROVISION, "cluster"]
    run = account.run([*closed, account.inventory, f"--clouds={account.clouds}"])
    assert run.returncode == 1
    assert 'Not confirmed: the answer is ""; allowed: "yes". Nothing changed.' in run.stdout
    assert not any(account.names(kind) for kind in account.hetzner.things)


def test_an_environment_without_variables_for_a_cloud_is_named(account: Account) -> None:
    file = account.inventory / "hcloud.tfvars"
    content = file.read_text()
    file.unlink()
    try:
        run = account.make("cluster")
    finally:
        file.write_text(content)
    assert run.returncode == 1
    assert (
        "has no .tfvars file; allowed: one file, named after a cloud: hcloud.tfvars." in run.stdout
    )
