"""scripts/staging/cluster.py without an engine: what it wants, writes and refuses."""

import importlib.util
import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.house import ROLE_NAMES, ROLES, ROOT, options, read_yaml

PROGRAM = ROOT / "scripts" / "staging" / "cluster.py"
HOSTS = """---
nginx:
  hosts:
    lb1:
channels:
  hosts:
    app1:
    app2:
postgres:
  hosts:
    data1:
redis:
  hosts:
    data1:
"""
# The same hosts, in other words and files.
SAME: dict[str, dict[str, str]] = {
    "all at the root": {
        "hosts.yml": """
all:
  children:
    nginx: {hosts: {lb1: }}
    channels: {hosts: {app1: , app2: }}
    postgres: {hosts: {data1: }}
    redis: {hosts: {data1: }}
"""
    },
    "children of groups": {
        "hosts.yml": """
all:
  children:
    edges: {children: {nginx: {hosts: {lb1: }}}}
    channels: {children: {blue: {hosts: {app1: }}, green: {children: {new: {hosts: {app2: }}}}}}
    data: {hosts: {data1: {note: "1"}}}
    postgres: {children: {data: }}
    redis: {children: {data: }}
"""
    },
    "ranges": {
        "hosts.yml": """
nginx: {hosts: {"lb[1:1]": }}
channels: {hosts: {"app[1:2]": {note: "{{ no_such }}"}}}
postgres: {hosts: {data1: }}
redis: {hosts: {data1: }}
"""
    },
    "an ini file": {
        "hosts": """
[nginx]
lb1
[channels]
app[1:2] note=1
[data]
data1
[postgres:children]
data
[redis:children]
data
[monitoring]
mon1
"""
    },
    "several files": {
        "10-edge.yaml": "nginx: {hosts: {lb1: }}",
        "20-apps": "[channels]\napp2\n",
        "30-apps.yml": "channels: {hosts: {app1: }}",
        "data.json": '{"postgres": {"hosts": {"data1": {}}}, "redis": {"hosts": {"data1": {}}}}',
        "host_vars/app1.yml": "cluster_workers: 3",
        "group_vars/all/vault.yml": "a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3030\n",
        "group_vars/channels.yml": "note: {a: 1}",
    },
    "hosts of somebody else": {
        "hosts.yml": HOSTS
        + "monitoring: {hosts: {mon1: {ansible_host: 192.0.2.1}}}\nall: {hosts: {localhost: }}\n"
    },
}
NO_CLUSTER = "No staging cluster is running. Start one: make up"
DOCKER = """#!/bin/sh
echo "$*" >> "{calls}"
"""

# For an engine that has a container of the cluster.
CONTAINER = """
case "$1" in ps) echo '{"name": "one-app1", "state": "exited", "definition": ""}' ;; esac
"""

Calls = Callable[[], list[str]]


def list_a_container(directory: Path) -> None:
    """Let the engine of the tests say that it has a container of the cluster."""
    docker = directory / "bin" / "docker"
    docker.write_text(docker.read_text() + CONTAINER)


@pytest.fixture(scope="module")
def program() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("staging_cluster", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What docker was asked, for an engine that has nothing and says nothing."""
    file, programs = tmp_path / "calls", tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER.format(calls=file))
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return lambda: file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (inventory / "hosts.yml").write_text(HOSTS)
    return inventory


@pytest.fixture
def cluster(program: Any, inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(program, "STATE", tmp_path / "state")
    return program.Cluster(inventory, "tested")


def main(program: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cluster.py", *arguments])
    code: int = program.main()
    return code


# What is wanted


WANTED = ("an-image:1", "ssh-ed25519 AAAA", "172.30.0.0/16", 8080)


def test_the_same_wishes_are_the_same_hosts(program: Any, cluster: Any, inventory: Path) -> None:
    again = program.Cluster(inventory, "tested").wanted(*WANTED)
    assert cluster.wanted(*WANTED) == again
    assert [host.definition for host in again] == [
        host.definition for host in cluster.wanted(*WANTED)
    ]


def test_a_host_is_a_container_with_an_address_of_its_own(cluster: Any) -> None:
    hosts = cluster.wanted(*WANTED)
    assert [host.name for host in hosts] == ["app1", "app2", "data1", "lb1"]
    assert [host.container for host in hosts] == [f"{cluster.name}-{host.name}" for host in hosts]
    assert len({host.address for host in hosts}) == len({host.definition for host in hosts}) == 4
    for host in hosts:
        assert host.address.startswith("172.30.0.")
        assert host.address not in {"172.30.0.0", "172.30.0.1"}, "the network, and the machine"
        assert host.arguments[-1] == "an-image:1"
        assert "--privileged" not in host.arguments
        published = [word for word in host.arguments if word.startswith("127.0.0.1:")]
        both = ["127.0.0.1:8080:80", "127.0.0.1:8443:443"]
        assert published == (both if host.name == "lb1" else [])
        # What app hosts share, and others do not see.
        shared = [word for word in host.arguments if word.endswith(":/srv/shared")]
        assert shared == ([f"{cluster.name}-shared:/srv/shared"] if "app" in host.name else [])


@pytest.mark.parametrize(
    ("place", "value", "changed"),
    [
        (0, "an-image:2", {"app1", "app2", "data1", "lb1"}),
        (1, "ssh-ed25519 BBBB", {"app1", "app2", "data1", "lb1"}),
        (2, "172.31.0.0/16", {"app1", "app2", "data1", "lb1"}),
        (3, 8081, {"lb1"}),
    ],
    ids=["image", "key", "subnet", "port"],
)
def test_another_wish_is_another_definition(
    cluster: Any, place: int, value: Any, changed: set[str]
) -> None:
    wishes = list(WANTED)
    wishes[place] = value
    pairs = zip(cluster.wanted(*WANTED), cluster.wanted(*wishes), strict=True)
    assert {old.name for old, new in pairs if old.definition != new.definition} == changed


def test_another_host_leaves_the_others_as_they_are(
    program: Any, cluster: Any, inventory: Path
) -> None:
    hosts = cluster.wanted(*WANTED)
    cluster.write_inventory(hosts, 8080, 20000)
    before = {host.name: host.definition for host in hosts}
    (inventory / "hosts.yml").write_text(HOSTS.replace("    app2:\n", "    app2:\n    app3:\n"))
    after = program.Cluster(inventory, "tested").wanted(*WANTED)
    assert before.items() <= {host.name: host.definition for host in after}.items()


def test_two_checkouts_and_two_clusters_have_different_names(
    program: Any, cluster: Any, inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {cluster.name, program.Cluster(inventory, "other").name}
    monkeypatch.setattr(program, "ROOT", tmp_path / "other" / "checkout")
    names.add(program.Cluster(inventory, "tested").name)
    assert len(names) == 3
    assert all(name.startswith("channels-kit-") for name in names)


# How the inventory is written


def write_files(inventory: Path, files: dict[str, str]) -> None:
    (inventory / "hosts.yml").unlink()
    for name, text in files.items():
        (inventory / name).parent.mkdir(parents=True, exist_ok=True)
        (inventory / name).write_text(text)


@pytest.mark.parametrize("files", SAME.values(), ids=SAME)
def test_it_does_not_matter_how_the_inventory_is_written(
    program: Any, cluster: Any, inventory: Path, files: dict[str, str]
) -> None:
    """Ansible reads it. Hosts in none of the kit's groups get no container, and no variable."""
    wanted = cluster.wanted(*WANTED)
    write_files(inventory, files)
    again = program.Cluster(inventory, "tested")
    assert again.wanted(*WANTED) == wanted
    assert again.edge == "lb1"
    assert again.groups == {
        "nginx": ["lb1"],
        "channels": again.groups["channels"],
        "postgres": ["data1"],
        "redis": ["data1"],
    }
    assert sorted(again.groups["channels"]) == ["app1", "app2"]
    assert set(write(again)["hosts"]) == {"app1", "app2", "data1", "lb1"}
    # And with what was generated beside it.
    assert program.Cluster(inventory, "tested").wanted(*WANTED) == wanted


def test_an_inventory_that_is_a_program_is_asked(
    program: Any, cluster: Any, inventory: Path
) -> None:
    wanted = cluster.wanted(*WANTED)
    groups = {"nginx": ["lb1"], "channels": ["app1", "app2"], "redis": ["data1"]}
    answer = json.dumps({name: {"hosts": hosts} for name, hosts in groups.items()})
    write_files(inventory, {"hosts": f"#!/bin/sh\necho '{answer}'\n"})
    (inventory / "hosts").chmod(0o755)
    assert program.Cluster(inventory, "tested").wanted(*WANTED) == wanted


def test_the_groups_are_those_that_get_roles(program: Any) -> None:
    (task,) = read_yaml(ROLES / "cluster" / "tasks" / "preflight.yml")
    assert set(program.KIT_GROUPS) == set(task["preflight"]["by_group"])


@pytest.mark.parametrize(
    "files",
    [
        {"hosts.yml": "nginx: [\n"},
        {"hosts.yml": "nginx: {hosts: [lb1]}"},
        {"hosts": "[nginx\n"},
        {},
    ],
    ids=["no yaml", "a list", "no ini", "empty"],
)
def test_a_broken_inventory_is_named_and_does_not_keep_the_cluster_from_being_removed(
    program: Any,
    cluster: Any,
    inventory: Path,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
) -> None:
    write(cluster)
    write_files(inventory, files)
    given = ("--inventory", str(inventory), "--name", "tested")
    assert main(program, monkeypatch, *given, "up") == 1
    printed = capsys.readouterr().err
    assert str(inventory) in printed
    assert "Traceback" not in printed
    list_a_container(tmp_path)
    # What is there is shown all the same.
    for verb in ("status", "credentials", "url"):
        assert main(program, monkeypatch, *given, verb) == 0
    assert main(program, monkeypatch, *given, "ssh", "ap1") == 1
    assert "Hosts: app1, app2, data1, lb1" in capsys.readouterr().err
    assert main(program, monkeypatch, *given, "down") == 0
    assert "rm --force --volumes one-app1" in calls()
    assert not cluster.generated.exists()


def test_a_cluster_whose_inventory_is_gone_is_removed(
    program: Any,
    cluster: Any,
    inventory: Path,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    list_a_container(tmp_path)
    shutil.rmtree(inventory)
    given = ("--inventory", str(inventory), "--name", "tested")
    assert main(program, monkeypatch, *given, "down") == 0
    inventory.touch()
    assert main(program, monkeypatch, *given, "down") == 0
    assert calls().count("rm --force --volumes one-app1") == 2


@pytest.mark.parametrize("hosts", ["    lb1:\n", "{}"])
def test_an_inventory_without_an_edge_is_refused(program: Any, inventory: Path, hosts: str) -> None:
    text = HOSTS.replace("  hosts:\n    lb1:\n", "  hosts: {}\n" if hosts == "{}" else "  hosts:\n")
    (inventory / "hosts.yml").write_text(text)
    with pytest.raises(program.StagingError, match=r"The group nginx in .* has no host"):
        program.Cluster(inventory, "tested").wanted(*WANTED)


# What is written


def write(cluster: Any, port: int = 8080) -> Any:
    hosts = cluster.wanted("an-image:1", "key", "172.30.0.0/16", port)
    cluster.write_inventory(hosts, port, 20000)
    return yaml.safe_load(cluster.generated.read_text())["all"]


def test_the_inventory_has_all_that_the_roles_ask_for(program: Any, cluster: Any) -> None:
    written = write(cluster)
    assert set(written["hosts"]) == {"app1", "app2", "data1", "lb1"}
    for host in written["hosts"].values():
        assert host["cluster_address"] == host["ansible_host"]
    names = [*program.SECRETS, *program.APPLICATION_SECRETS]
    values = [written["vars"][name] for name in names]
    values += written["vars"]["sample_users"].values()
    assert len(set(values)) == len(values), "each secret is another one"
    assert all(len(written["vars"][name]) >= 32 for name in names)
    assert set(written["vars"]["sample_users"]) == {"alice", "bob"}


def test_the_secrets_are_those_that_the_roles_require(program: Any) -> None:
    required = {
        name
        for role in ROLE_NAMES
        for name, option in options(role).items()
        if option.get("required") and option.get("no_log")
    }
    assert len(required) >= 5
    assert set(program.SECRETS) == required
    assert len(program.SECRETS) == len(required)


def test_a_second_write_keeps_every_secret(cluster: Any) -> None:
    first, second = write(cluster), write(cluster, port=8081)
    assert second["vars"].pop("staging_edge_port") == 8081
    assert first["vars"].pop("staging_edge_port") == 8080
    assert second == first


def test_the_inventory_is_its_owners_alone(cluster: Any) -> None:
    before = os.umask(0)
    try:
        write(cluster)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cluster.generated.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_file_as_it_was(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(cluster)
    before = cluster.generated.read_text()
    write_text = Path.write_text

    def full(path: Path, text: str) -> int:
        write_text(path, text[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write(cluster, port=8081)
    assert cluster.generated.read_text() == before


def test_an_equal_file_is_left_alone(cluster: Any) -> None:
    write(cluster)
    before = cluster.generated.stat()
    write(cluster)
    after = cluster.generated.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(path.name for path in cluster.generated.parent.iterdir()) == [
        "generated.yml",
        "hosts.yml",
    ]


# What an interrupted run leaves behind


def test_the_network_is_made_with_its_subnet_or_not_at_all(
    program: Any, cluster: Any, calls: Calls, tmp_path: Path
) -> None:
    """Hosts can have fixed addresses only there; one without would be taken for the cluster's."""
    docker = tmp_path / "bin" / "docker"
    answers = 'case "$*" in *inspect*-subnet) echo 172.30.0.0/16;; esac\n'
    docker.write_text(docker.read_text() + answers)
    assert cluster.subnet() == "172.30.0.0/16"
    created = [call for call in calls() if call.startswith("network create")]
    assert [call.endswith(f" {cluster.name}") for call in created] == [False, True]
    assert "--subnet 172.30.0.0/16" in created[-1]
    # What was asked is removed, also where it is left from a run that was interrupted.
    removed = [call for call in calls() if call == f"network rm {cluster.name}-subnet"]
    assert len(removed) == 2
    label = f"--label {program.LABEL}={cluster.name}"
    assert all(label in call for call in created), "make down finds it by its label"


def test_a_subnet_that_another_cluster_took_meanwhile_is_asked_for_again(
    cluster: Any, calls: Calls, tmp_path: Path
) -> None:
    docker, taken = tmp_path / "bin" / "docker", tmp_path / "taken"
    docker.write_text(
        docker.read_text()
        + f"subnet=172.30.0.0/16; [ ! -e {taken} ] || subnet=172.31.0.0/16\n"
        + 'case "$*" in *inspect*-subnet) echo $subnet;; *172.30.0.0*)'
        + f" touch {taken}; echo Pool overlaps with other one >&2; exit 1;; esac\n"
    )
    assert cluster.subnet() == "172.31.0.0/16"
    assert calls()[-1].endswith(f"--subnet 172.31.0.0/16 {cluster.name}")


def test_down_removes_every_network_of_the_cluster(
    cluster: Any, calls: Calls, tmp_path: Path
) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.write_text(docker.read_text() + 'case "$*" in "network ls "*) echo one; echo two;; esac')
    cluster.down()
    assert "network rm one two" in calls()
    assert f"volume rm --force {cluster.name}-shared" in calls()


def test_down_removes_what_is_the_clusters_alone(program: Any, cluster: Any) -> None:
    state = [
        cluster.state / "id_ed25519",
        program.STATE / "staging.lock",
        program.STATE / "other" / "id_ed25519",
    ]
    for path in state:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write(cluster)
    cluster.down()
    assert [path.exists() for path in state] == [False, True, True]
    assert not cluster.generated.exists()
    # Nothing is left of any cluster but the lock: it may be held.
    program.Cluster(cluster.inventory, "other").down()
    assert [path.name for path in program.STATE.iterdir()] == ["staging.lock"]


# What is refused


def test_a_taken_port_is_refused_before_anything_is_made(
    program: Any,
    inventory: Path,
    calls: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(program, "STATE", tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = main(
            program, monkeypatch, "--inventory", str(inventory), "up", f"--edge-port={port}"
        )
    assert code == 1
    error = capsys.readouterr().err
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Nothing changed." in error
    assert f"make up EDGE_PORT={port + 1}" in error
    # Asked whether the port is this cluster's own, and for nothing else.
    assert [call.split()[0] for call in calls()] == ["port"]
    assert not (tmp_path / "state").exists()
    assert not (inventory / "generated.yml").exists()


def test_the_port_of_the_cluster_itself_is_no_obstacle(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(cluster, "published_port", lambda: port)
        cluster.refuse_taken_port(port)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["credentials"], NO_CLUSTER),
        (["status"], NO_CLUSTER),
        (["ssh", "app1"], NO_CLUSTER),
        (["logs", "app1"], NO_CLUSTER),
        (["ssh", "ap1"], "HOST='ap1' is not a host of this cluster. Hosts: app1, app2, data1, lb1"),
        (["logs", ""], "HOST='' is not a host of this cluster. Hosts: app1, app2, data1, lb1"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_says_what_to_do(
    program: Any,
    inventory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main(program, monkeypatch, "--inventory", str(inventory), *arguments) == 1
    printed = capsys.readouterr()
    assert printed.err == f"{message}\n"
    assert printed.out == ""


def test_an_engine_that_fails_is_quoted(
    program: Any,
    inventory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\necho 'Cannot connect' >&2\nexit 1\n")
    assert main(program, monkeypatch, "--inventory", str(inventory), "status") == 1
    assert capsys.readouterr().err == "docker ps failed: Cannot connect\n"


def test_the_credentials_are_those_of_the_inventory(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    users = write(cluster, port=8099)["vars"]["sample_users"]
    cluster.credentials()
    printed = capsys.readouterr().out
    assert printed.startswith("Log in at http://127.0.0.1:8099/ with one of these users:\n")
    for user, password in users.items():
        assert f"    {user}  {password}\n" in printed


def test_a_shell_asks_for_the_key_and_the_host_that_were_written(
    program: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = write(cluster)["hosts"]["data1"]["ansible_host"]
    became: list[Any] = []
    monkeypatch.setattr(program.os, "execvp", lambda *command: became.append(command))
    cluster.ssh("data1", ["uptime"])
    ((command, words),) = became
    assert command == words[0] == "ssh"
    assert words[-2:] == [f"deploy@{address}", "uptime"]
    assert str(cluster.state / "id_ed25519") in words
    assert f"UserKnownHostsFile={cluster.state / 'known_hosts'}" in words


def test_the_hosts_keep_their_release_of_debian(
    program: Any, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.state = tmp_path
    monkeypatch.delenv("STAGING_RELEASE", raising=False)
    assert cluster.release() == "bookworm"
    monkeypatch.setenv("STAGING_RELEASE", "trixie")
    assert cluster.release() == "trixie"
    monkeypatch.delenv("STAGING_RELEASE")
    assert cluster.release() == "trixie"
    monkeypatch.setenv("STAGING_RELEASE", "buster")
    with pytest.raises(program.StagingError, match="STAGING_RELEASE is buster; allowed: bookworm"):
        cluster.release()
