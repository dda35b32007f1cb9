"""The play Login of playbooks/preflight.yml: no host is changed where one does not become root."""

import os
import re
from pathlib import Path

import pytest

from .house import ROOT, Run, read_yaml, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="modules run as root")

# In the place of sudo: drops its options and runs the command.
SUDO = """\
#!/bin/sh
while [ "$1" != /bin/sh ]; do shift; done
{what}
"""
LEADS_TO_ROOT = 'exec "$@"'
REFUSES = 'echo "deploy is not in the sudoers file." >&2; exit 1'
KEEPS_THE_PATH = 'PATH=/usr/bin:/bin exec "$@"'
# As the program id says it.
LEADS_TO_NOBODY = 'PATH="${0%/*}/nobody:$PATH" exec "$@"'


def log_in(home: Path, sudo: str, *more: str, method: str = "sudo", **variables: str) -> Run:
    """Log in to a host that works and to one with another sudo; then change every host."""
    program = home / "sudo"
    program.write_text(SUDO.format(what=sudo))
    program.chmod(0o755)
    identity = home / "nobody" / "id"
    identity.parent.mkdir(exist_ok=True)
    identity.write_text("#!/bin/sh\necho 65534\n")
    identity.chmod(0o755)
    change = {
        "name": "Change",
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Change | Write a file",
                "ansible.builtin.copy": {
                    "content": "changed\n",
                    "dest": f"{home}/changed-{{{{ inventory_hostname }}}}",
                    "mode": "0644",
                },
            }
        ],
    }
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_become": True,
    }
    other = {
        "ansible_become_method": method,
        "ansible_become_exe": str(program),
    }
    works = {"ansible_become": False}
    inventory = {
        "channels": {"hosts": {"app1": {**host, **works}}},
        "postgres": {"hosts": {"data1": {**host, **other}}},
    }
    plays = read_yaml(ROOT / "playbooks" / "preflight.yml")
    (login,) = [play for play in plays if play["name"] == "Login"]
    # The tests run as root, which Ansible would not become again.
    variables["ANSIBLE_BECOME_ALLOW_SAME_USER"] = "yes"
    return run(home, inventory, [login, change], *more, **variables)


def changed(home: Path) -> set[str]:
    return {path.name for path in home.glob("changed-*")}


def test_hosts_that_become_root_are_changed(tmp_path: Path) -> None:
    done = log_in(tmp_path, LEADS_TO_ROOT)
    assert done.code == 0, done.output
    assert changed(tmp_path) == {"changed-app1", "changed-data1"}


@pytest.mark.parametrize(
    ("sudo", "words"),
    [
        (REFUSES, "deploy is not in the sudoers file."),
        (LEADS_TO_NOBODY, "modules run with the user id 65534 and the PATH "),
        (KEEPS_THE_PATH, "modules run with the user id 0 and the PATH /usr/bin:/bin; they need"),
    ],
    ids=["refuses", "nobody", "path"],
)
@pytest.mark.parametrize("more", [(), ("--check",)], ids=["run", "check"])
def test_no_host_is_changed_where_one_does_not_become_root(
    tmp_path: Path, sudo: str, words: str, more: tuple[str, ...]
) -> None:
    done = log_in(tmp_path, sudo, *more)
    assert done.code != 0
    _, _, said = done.output.partition("work as root on these hosts. Nothing changed.\n")
    assert re.match(rf" *data1: .*{re.escape(words)}", said), done.output
    assert changed(tmp_path) == set()


def test_a_way_that_mitogen_does_not_support_is_refused_with_the_way_out(tmp_path: Path) -> None:
    # As scripts/ansible-playbook switches Mitogen on.
    mitogen = {"ANSIBLE_STRATEGY_PLUGINS": str(tmp_path / "strategies")}
    done = log_in(tmp_path, LEADS_TO_ROOT, method="community.general.machinectl", **mitogen)
    assert done.code != 0
    assert "set CHANNELS_KIT_MITOGEN=no in the environment" in done.output
    assert changed(tmp_path) == set()
    done = log_in(tmp_path, LEADS_TO_ROOT, **mitogen)
    assert done.code == 0, done.output
