"""Every way to root that Ansible supports works, on hosts whose shell prints at each login.

Each host has its own: sudo, root itself where sudo is missing, su with the password of root.
"""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.ansible import Run, play
from harness.cluster import Cluster

# Words that look like an answer, on both streams, in the first line: bash ends others early.
PREPARE = """\
set -eu
install -d -m 0700 /root/.ssh
install -m 0600 /home/deploy/.ssh/authorized_keys /root/.ssh/authorized_keys
printf 'root:%s\\n' "$1" | chpasswd
for file in /root/.bashrc /home/deploy/.bashrc; do
    sed -i '1i echo "Welcome to $HOSTNAME"; echo "[ok] {1}" >&2 # of the test' "$file"
done
case $2 in
root) mv /usr/bin/sudo /usr/bin/sudo.away ;;
su) rm /etc/sudoers.d/deploy ;;
esac
"""
# As root: nobody else may be able to.
RESTORE = """\
sed -i '/# of the test$/d' /root/.bashrc /home/deploy/.bashrc
[ ! -e /usr/bin/sudo.away ] || mv /usr/bin/sudo.away /usr/bin/sudo
echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy
chmod 0440 /etc/sudoers.d/deploy
usermod --password "*" root
rm -r /root/.ssh
"""
LOGINS = {"app1": "sudo", "app2": "root", "data1": "su", "lb1": "root"}
AS_ROOT = ("-o", "ControlPath=none", "-l", "root")
# What a run removes because it is old, whoever logs in.
PRUNED = "Prune | Remove old releases and environments"


@pytest.fixture(scope="module")
def inventory(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, ...]]:
    """The arguments by which Ansible logs in to each host in its own way."""
    password = secrets.token_urlsafe(16)
    ways = {
        "sudo": {},
        "root": {"ansible_user": "root"},
        "su": {"ansible_become_method": "su", "ansible_become_password": password},
    }
    file = tmp_path_factory.mktemp("logins") / "logins.json"
    file.write_text(json.dumps({"all": {"hosts": {host: ways[LOGINS[host]] for host in LOGINS}}}))
    try:
        for host, way in LOGINS.items():
            prepared = cluster.ssh(host, "sudo", "sh", "-s", "--", password, way, stdin=PREPARE)
            assert prepared.returncode == 0, prepared.stderr
            said = cluster.ssh(host, "true", options=("-o", "ControlPath=none"))
            assert (said.stdout, said.stderr) == (f"Welcome to {host}\n", "[ok] {1}\n")
        yield ("-i", str(file))
    finally:
        for host in LOGINS:
            restored = cluster.ssh(host, "sh", stdin=RESTORE, options=AS_ROOT)
            assert restored.returncode == 0, f"{host}: {restored.stderr}"


def assert_unchanged(run: Run) -> None:
    assert run.rc == 0, run.output
    assert {task for tasks in run.changed.values() for task in tasks} <= {PRUNED}, run.output


def test_a_converge_changes_nothing(cluster: Cluster, inventory: tuple[str, ...]) -> None:
    assert_unchanged(cluster.converge(*inventory))


def test_a_deploy_of_the_same_release_and_its_proof_work(
    cluster: Cluster, inventory: tuple[str, ...]
) -> None:
    deployed = cluster.deploy("deploy", "--", *inventory)
    assert deployed.rc == 0, deployed.output
    verified = play(cluster.inventory, "playbooks/verify.yml", *inventory)
    assert verified.rc == 0, verified.output
    assert "Delivery verified. Proved: wires (" in verified.output


def test_the_database_is_set_up_by_su_without_mitogen(
    cluster: Cluster, inventory: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ansible copies each module to the host, as the user who logs in."""
    monkeypatch.setenv("CHANNELS_KIT_MITOGEN", "no")
    arguments = ("--tags=postgres,redis", "--limit=localhost,data1")
    assert_unchanged(cluster.converge(*inventory, *arguments))


def test_a_wrong_password_is_refused_before_anything_is_changed(
    cluster: Cluster, inventory: tuple[str, ...], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"all": {"hosts": {"data1": {"ansible_become_password": "no"}}}}))
    run = cluster.converge(*inventory, "-i", str(wrong))
    assert run.rc != 0
    assert "Ansible cannot work as root on these hosts. Nothing changed." in run.output
    assert "data1: " in run.output
    assert "TASK [channels : Lock | Take the lock]" not in run.output
