"""What make cluster makes of a plan and of outputs, without Terraform and without hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioning import inventory, pins
from provisioning.cloud import Cloud, cloud_of
from provisioning.plan import costs_in_words, plan_of
from tests.cloud.account import ROOT, TOKEN, opened
from tests.cloud.hetzner import NoMachines

KEYS = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAlMxkr5LTOemdFgqF9Wyulvmeofj7VLqkbixqlFrp13",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKEbT63vkOcCr+pmiyPXjMZM7QmCQKFTVaA6U3SoQd1E",
]


def output(*apps: str, **changes: Any) -> dict[str, Any]:
    """Return the output of a cloud with some app hosts, an edge and a data host."""
    groups = {"data1": ["postgres", "redis"], "edge1": ["nginx"]} | {
        app: ["channels"] for app in apps
    }
    hosts = {
        name: {
            "id": str(number),
            "groups": of,
            "address": f"192.0.2.{number}",
            "private_address": f"10.10.0.{number}",
            "mounts": {"/var/lib/postgresql": "/dev/sdb"} if name == "data1" else {},
        }
        for number, (name, of) in enumerate(groups.items(), 1)
    }
    said = {"user": "deploy", "proxies": [], "proxy_protocol": False, "entry": ["192.0.2.2"]}
    return {**said, "hosts": hosts, **changes}


def shown(before: Any, after: Any, *changes: tuple[str, str, list[str]]) -> dict[str, Any]:
    """Return what Terraform shows of a plan: changes are resource, host and actions."""
    unknown: dict[str, Any] = {
        "hosts": {name: {"id": True} for _, name, do in changes if "create" in do}
    }
    return {
        "output_changes": {
            "inventory": {"before": before, "after": after, "after_unknown": unknown},
            "costs": {"before": None, "after": None},
        },
        "resource_changes": [
            {
                "address": f'{resource}["{name}"]',
                "index": name,
                "change": {
                    "actions": actions,
                    "before": {"id": before["hosts"].get(name, {}).get("id")} if before else None,
                },
            }
            for resource, name, actions in changes
        ],
    }


# Plans


def test_nobody_leaves_a_cluster_that_is_new() -> None:
    plan = plan_of(shown(None, output("app1"), ("server", "app1", ["create"])))
    assert (plan.before, plan.leaving, plan.gone, plan.others) == (None, (), (), ())


def test_app_hosts_that_are_deleted_or_replaced_leave_and_others_stay() -> None:
    before = output("app1", "app2", "app3")
    plan = plan_of(
        shown(
            before,
            output("app1", "app2"),
            ("server", "app2", ["delete", "create"]),
            ("server", "app3", ["delete"]),
            ("server", "app1", ["update"]),
        )
    )
    assert plan.leaving == ("app2", "app3")
    assert plan.staying == ["app1"]
    assert plan.others == ()
    # Such as another label.
    assert plan.stopping == ()


def test_hosts_that_somebody_else_deleted_are_gone_and_not_drained() -> None:
    before = output("app1", "app2")
    plan = plan_of(shown(before, before, ("server", "app2", ["create"])))
    assert (plan.leaving, plan.gone, plan.staying) == ((), ("app2",), ["app1"])


def test_everything_else_that_is_deleted_is_named() -> None:
    before = output("app1", "app2")
    plan = plan_of(
        shown(
            before,
            before,
            ("server", "data1", ["delete", "create"]),
            ("server", "app2", ["delete"]),
            ("target", "app2", ["delete"]),
        )
    )
    assert plan.others == ('server["data1"]',)


# Costs


def costs(*lines: tuple[str, int, float | None]) -> dict[str, Any]:
    said = {"date": "2026-05-27T00:00:00Z", "currency": "EUR", "note": "Without VAT."}
    listed = [{"what": what, "count": count, "price": price} for what, count, price in lines]
    return {**said, "lines": listed}


def test_costs_are_added_up_with_their_date() -> None:
    text = costs_in_words(
        costs(("server cx23", 4, 3.99), ("volume, GB", 10, 0.0572)),
        costs(("server cx23", 3, 3.99), ("volume, GB", 10, 0.0572)),
    )
    assert text.splitlines() == [
        "Costs a month in EUR, by prices of 2026-05-27. Without VAT.",
        "  4 x server cx23                        3.99     15.96",
        "  10 x volume, GB                      0.0572      0.57",
        "  total                                           16.53 (now 12.54)",
    ]


def test_a_price_that_nobody_knows_is_not_zero() -> None:
    text = costs_in_words(costs(("server cx23", 1, 3.99), ("server cx99", 1, None)))
    assert "  1 x server cx99                    not in prices.yml" in text
    assert "at least " in text


def test_the_table_of_prices_is_read_from_the_price_list(tmp_path: Path) -> None:
    with opened(tmp_path, NoMachines(), "prices") as account:
        table = tmp_path / "prices.yml"
        program = ROOT / "terraform" / "hcloud" / "prices.py"
        run = account.run([sys.executable, program, f"--table={table}"])
    assert run.returncode == 0, run.stdout
    found = yaml.safe_load(table.read_text())
    assert found["servers"] == {"cx23": 7.0, "cx33": 7.0, "cax11": 7.0}
    assert (found["ipv4"], found["volume_gigabyte"]) == (0.5, 0.06)
    assert found["load_balancers"] == {"lb11": 6.0}
    # Those with the same prices, and not ash.
    assert found["locations"] == ["fsn1"]
    assert set(found) == set(yaml.safe_load((program.with_name("prices.yml")).read_text()))


@pytest.mark.parametrize(
    ("token", "location", "said"),
    [
        ("w" * 64, "fsn1", "Cannot read Hetzner's price list: HTTP Error 401"),
        (TOKEN, "moon", "--location is 'moon'; allowed: ash, fsn1"),
        ("", "fsn1", "HCLOUD_TOKEN is not set"),
    ],
    ids=["token", "location", "none"],
)
def test_the_table_of_prices_is_kept_if_it_cannot_be_read(
    tmp_path: Path, token: str, location: str, said: str
) -> None:
    table = tmp_path / "prices.yml"
    program = ROOT / "terraform" / "hcloud" / "prices.py"
    with opened(tmp_path, NoMachines(), "prices") as account:
        run = account.run(
            [sys.executable, program, f"--table={table}", f"--location={location}"],
            HCLOUD_TOKEN=token,
        )
    assert run.returncode == 1
    assert said in run.stdout
    assert "Traceback" not in run.stdout
    assert not table.exists()


# The inventory


def test_the_inventory_says_what_the_cloud_says_and_ansible_reads_it(tmp_path: Path) -> None:
    cloud = cloud_of(output("app2", "app10", proxies=["10.10.0.5"], proxy_protocol=True))
    directory = tmp_path / "prod"
    directory.mkdir()
    inventory.write(directory / "hosts.yml", cloud)
    # These lie beside it, and are no inventories.
    (directory / "known_hosts").write_text("192.0.2.1 ssh-ed25519 AAAA app2 id=1\n")
    (directory / "hcloud.tfvars").write_text('location = "fsn1"\n')
    run = subprocess.run(
        ["ansible-inventory", "-i", directory, "--list"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(run.stdout)
    assert run.stderr == ""
    groups = {group: found[group]["hosts"] for group in ("nginx", "channels", "postgres", "redis")}
    assert groups == {
        "nginx": ["edge1"],
        "channels": ["app2", "app10"],
        "postgres": ["data1"],
        "redis": ["data1"],
    }
    hosts = found["_meta"]["hostvars"]
    assert set(hosts) == {"app2", "app10", "data1", "edge1"}
    assert hosts["data1"]["base_mounts"] == {"/var/lib/postgresql": "/dev/sdb"}
    assert (hosts["app2"]["ansible_host"], hosts["app2"]["cluster_address"]) == (
        "192.0.2.3",
        "10.10.0.3",
    )
    assert hosts["edge1"]["cluster_trusted_proxies"] == ["10.10.0.5"]
    assert hosts["edge1"]["cluster_proxy_protocol"] is True
    assert "StrictHostKeyChecking=yes" in hosts["app2"]["ansible_ssh_common_args"]


def test_the_example_may_be_replaced_and_an_inventory_of_somebody_else_not(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    inventory.refuse_foreign(file)
    file.write_text(inventory.EXAMPLE.read_text())
    inventory.refuse_foreign(file)
    inventory.write(file, cloud_of(output("app1")))
    inventory.refuse_foreign(file)
    file.write_text("all: {}\n")
    with pytest.raises(inventory.ForeignFileError, match="did not write it"):
        inventory.refuse_foreign(file)


# Host keys


class Answers:
    """Hosts that answer with a key each, after some time."""

    def __init__(self, keys: dict[str, str], silent: int = 0) -> None:
        self.keys, self.silent = keys, silent

    def __call__(self, address: str) -> str:
        if self.silent:
            self.silent -= 1
            return ""
        return self.keys.get(address, "")


def small() -> Cloud:
    return cloud_of(output("app1")).without(["data1"])


def both(edge: str = KEYS[0], app: str = KEYS[1]) -> dict[str, str]:
    return {"192.0.2.2": edge, "192.0.2.3": app}


def test_a_new_machine_is_pinned_and_the_fingerprint_is_said(tmp_path: Path) -> None:
    file, said = tmp_path / "known_hosts", list[str]()
    pins.pin_hosts(file, small(), said.append, Answers(both(), silent=1))
    assert file.read_text() == (f"192.0.2.3 {KEYS[1]} app1 id=3\n192.0.2.2 {KEYS[0]} edge1 id=2\n")
    assert [line.split(": pinned SHA256:")[0] for line in said] == [
        "app1 192.0.2.3",
        "edge1 192.0.2.2",
    ]
    # ssh reads it.
    found = subprocess.run(
        ["ssh-keygen", "-F", "192.0.2.2", "-f", file], check=True, capture_output=True, text=True
    )
    assert KEYS[0] in found.stdout


def test_another_key_of_the_same_machine_is_refused_and_named(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    pins.pin_hosts(file, small(), list[str]().append, Answers(both()))
    before = file.read_text()
    with pytest.raises(pins.PinError) as caught:
        pins.pin_hosts(file, small(), list[str]().append, Answers(both(app=KEYS[0])))
    assert file.read_text() == before
    assert f"app1 (192.0.2.3): pinned {pins.fingerprint(KEYS[1])}" in str(caught.value)
    assert "edge1" not in str(caught.value)


def test_another_machine_with_the_name_and_the_address_gets_a_new_pin(tmp_path: Path) -> None:
    file, said = tmp_path / "known_hosts", list[str]()
    pins.pin_hosts(file, small(), said.append, Answers(both()))
    told = output("app1")
    told["hosts"]["app1"]["id"] = "99"
    pins.pin_hosts(file, cloud_of(told).without(["data1"]), said.append, Answers(both(app=KEYS[0])))
    assert f"192.0.2.3 {KEYS[0]} app1 id=99\n" in file.read_text()
    assert len(said) == 3


def test_pins_of_machines_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    pins.pin_hosts(file, small(), list[str]().append, Answers(both()))
    pins.pin_hosts(file, small().without(["app1"]), list[str]().append, Answers(both()))
    assert [pin.name for pin in pins.read(file)[0]] == ["edge1"]


def test_a_host_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(pins.PinError, match=r"app1 \(192\.0\.2\.3\) does not answer by SSH"):
        pins.pin_hosts(
            tmp_path / "known_hosts",
            small(),
            list[str]().append,
            Answers({"192.0.2.2": KEYS[0]}),
            patience=0.1,
        )
