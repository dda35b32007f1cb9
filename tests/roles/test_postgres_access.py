"""The role reaches PostgreSQL as root alone, whatever the rules were before, and through no other
user: not every way to become root also leads to another user."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .house import ROLES, Run, Tree, run, tasks
from .postgres_server import PostgresServer, directory_of_postgres

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone is mapped")

# Of an operator, in the file that the role completes.
FORMER_MAP = "reports  www-data  reporter\n"
DEBIAN_RULES = "local all postgres peer\nlocal all all peer\n"
# What the role does with access; the others need systemd.
ACCESS = ("blockinfile", "pg_hba.conf.j2", "postgres_settings", "_postgres_access_pending")


class Server(PostgresServer):
    """A server with the rules of Debian's package."""

    def __init__(self, directory: Path) -> None:
        # Others must reach the socket.
        directory.chmod(0o755)
        super().__init__(directory, "--auth=peer")
        self.rules, self.maps = self.data / "pg_hba.conf", self.data / "pg_ident.conf"
        self.rules.write_text(DEBIAN_RULES)
        self.maps.write_text(FORMER_MAP)

    def who_logs_in(self, user: str) -> str:
        """Return as whom the server knows a system user who asks for the administrator."""
        result = subprocess.run(
            [
                *("setpriv", f"--reuid={user}", "--clear-groups"),
                *(*self.psql(), "-c", "SELECT current_user"),
            ],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        return result.stdout.strip() or result.stderr.strip()

    def converge(self, home: Path, *more: str) -> Run:
        """Run what the role does with access, with the database and at the end of a run."""
        role = home / "roles" / "postgres"
        (role / "tasks").mkdir(parents=True, exist_ok=True)
        for part in ("defaults", "vars", "templates", "meta"):
            (role / part).unlink(missing_ok=True)
            (role / part).symlink_to(ROLES / "postgres" / part)
        files = ROLES / "postgres" / "tasks"
        access = [
            {key: value for key, value in task.items() if key != "notify"}
            for task in tasks(files / "configure.yml")
            if any(word in json.dumps(task) for word in ACCESS)
        ]
        assert len(access) == len(ACCESS)
        (role / "tasks" / "main.yml").write_text(
            yaml.safe_dump(
                [*access, {"ansible.builtin.import_tasks": str(files / "database.yml")}],
                sort_keys=False,
            )
        )
        (role / "tasks" / "revoke.yml").write_text((files / "revoke.yml").read_text())
        play: Tree = {
            "name": "Database",
            "hosts": "all",
            "gather_facts": False,
            "environment": {"PGHOST": str(self.directory)},
            "tasks": [
                {"ansible.builtin.include_role": {"name": "postgres", "tasks_from": file}}
                for file in ("main", "revoke")
            ],
        }
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "cluster_address": "127.0.0.1",
            "cluster_postgres_port": self.port,
            "cluster_server_names": ["chat.example.org"],
            "postgres_password": "a-password-of-the-tests",
        }
        inventory = {"all": {"hosts": {"data1": host}}, "postgres": {"hosts": {"data1": {}}}}
        found = {
            "_postgres_data": str(self.data),
            "_postgres_rules": str(self.rules),
            "_postgres_maps": str(self.maps),
            "_postgres_conf": str(self.data / "postgresql.conf"),
            "_postgres_clusters": {"stdout": "main"},
        }
        roles = f"{home / 'roles'}:{ROLES}"
        return run(
            home, inventory, [play], "-e", json.dumps(found), *more, ANSIBLE_ROLES_PATH=roles
        )


@pytest.fixture
def server() -> Iterator[Server]:
    with directory_of_postgres() as directory:
        made = Server(directory)
        made.start()
        yield made
        made.stop()


def test_root_alone_brings_a_server_with_the_rules_of_the_package(
    server: Server, tmp_path: Path
) -> None:
    assert 'authentication failed for user "postgres"' in server.who_logs_in("root")

    # Check mode brings nothing into effect. What then cannot be known is left out.
    checked = server.converge(tmp_path, "--check")
    assert checked.code == 0, checked.output
    assert server.rules.read_text() == DEBIAN_RULES

    first = server.converge(tmp_path)
    assert first.code == 0, first.output
    assert server.who_logs_in("root") == server.who_logs_in("postgres") == "postgres"
    assert 'authentication failed for user "postgres"' in server.who_logs_in("www-data")
    assert FORMER_MAP in server.maps.read_text()

    second = server.converge(tmp_path)
    assert second.code == 0, second.output
    assert "changed=0" in second.output
    checked = server.converge(tmp_path, "--check")
    assert checked.code == 0, checked.output
    assert "changed=0" in checked.output
