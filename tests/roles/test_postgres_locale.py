"""The locale, time zone and templates of a host do not decide what the database holds."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .house import ROLES, Run, Tree, defaults, options, run
from .postgres_server import PostgresServer, directory_of_postgres
from .rendered import render
from .test_templates import INVENTORIES

TEXT = "größer 漢字 😀"
HOSTS = {
    # As initdb makes it of the locale of the host.
    "LANG=C": {"LANG": "C"},
    "LANG=C.UTF-8": {"LANG": "C.UTF-8"},
}


class Server(PostgresServer):
    """A server whose cluster was made with a host's environment."""

    def __init__(self, directory: Path, environment: dict[str, str], *initdb: str) -> None:
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        super().__init__(directory, "--auth=trust", *initdb, environment={**path, **environment})

    def database(self, home: Path) -> Run:
        """Run the role's tasks for the database."""
        play: Tree = {
            "name": "Database",
            "hosts": "all",
            "gather_facts": False,
            # libpq's own variable: on a host the socket is where libpq looks for it.
            "environment": {"PGHOST": str(self.directory), "PGUSER": "postgres"},
            "vars": {"ansible_become": False, "ansible_python_interpreter": sys.executable},
            "tasks": [
                {
                    "name": "Database | Create it",
                    "ansible.builtin.include_role": {
                        "name": "postgres",
                        "tasks_from": "database",
                        "rolespec_validate": False,
                    },
                }
            ],
        }
        variables = {
            "ansible_connection": "local",
            "cluster_address": "127.0.0.1",
            "cluster_postgres_port": self.port,
            "cluster_server_names": ["chat.example.org"],
            "postgres_password": "a-password-of-the-tests",
        }
        inventory = {"all": {"hosts": {"data1": variables}}, "postgres": {"hosts": {"data1": {}}}}
        return run(home, inventory, [play], ANSIBLE_ROLES_PATH=str(ROLES))


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def make(environment: dict[str, str], *initdb: str) -> Server:
            directory = stack.enter_context(directory_of_postgres())
            made = Server(directory, environment, *initdb)
            made.start()
            stack.callback(made.stop)
            return made

        yield make


@pytest.mark.parametrize("host", HOSTS)
def test_the_database_holds_every_text_whatever_the_cluster_is(
    server: Callable[..., Server], host: str, tmp_path: Path
) -> None:
    """Also in a cluster that was there before, made of the locale of the host."""
    made = server(HOSTS[host])
    first = made.database(tmp_path)
    assert first.code == 0, first.output
    found = made.ask(
        "SELECT pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba)"
        " FROM pg_database WHERE datname = 'channels'"
    )
    assert found == "UTF8|C.UTF-8|C.UTF-8|channels"
    assert made.ask(f"SELECT upper('{TEXT}')", "channels") == "GRÖßER 漢字 😀"
    second = made.database(tmp_path)
    assert second.code == 0, second.output
    assert "changed=0" in second.output


def test_a_database_with_another_locale_is_left_as_it_is(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    made = server({"LANG": "C.UTF-8"})
    made.ask("CREATE DATABASE channels TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C'")
    run = made.database(tmp_path)
    assert run.code == 0, run.output
    found = made.ask("SELECT datcollate FROM pg_database WHERE datname = 'channels'")
    owner = made.ask("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'channels'")
    assert (found, owner) == ("C", "channels")


def test_a_database_that_cannot_hold_every_text_is_refused(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    made = server({"LANG": "C"})
    made.ask("CREATE DATABASE channels")
    run = made.database(tmp_path)
    assert run.code != 0
    assert "The database channels has the encoding SQL_ASCII; the application needs UTF8." in (
        run.output
    )


def test_a_new_cluster_is_made_for_every_text(server: Callable[..., Server]) -> None:
    """By the options that the package's program takes from the file that the role writes."""
    ((path, content),) = defaults("cluster")["cluster_package_files"]["postgres"].items()
    assert Path(path).parent == Path("/etc/postgresql-common/createcluster.d")
    assert "cluster_package_files" in options("cluster")
    name, _, value = content.strip().partition(" = ")
    assert name == "initdb_options"
    made = server({"LANG": "C", "LC_ALL": "C"}, *value.strip("'").split())
    assert made.ask("SHOW server_encoding") == "UTF8"
    assert made.ask("SHOW lc_collate", "template1") == "C.UTF-8"


def test_the_server_has_its_own_time_zone_and_language(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    files = render(tmp_path, {"minimal": INVENTORIES["minimal"]})["minimal"]["one"]
    conf = files["/etc/postgresql/15/main/conf.d/channels-kit.conf"]
    made = server({"LANG": "C", "TZ": "America/New_York"})
    assert made.ask("SHOW timezone") == "America/New_York"
    with (made.data / "postgresql.conf").open("a") as file:
        ours = ("datestyle", "default_text", "lc_", "log_timezone", "timezone")
        file.write("\n".join(line for line in conf.lines if line.startswith(ours)) + "\n")
    made.start("restart")
    settings = ("timezone", "log_timezone", "lc_messages", "lc_time", "datestyle")
    found = {name: made.ask(f"SHOW {name}") for name in settings}
    assert found == {
        "timezone": "Etc/UTC",
        "log_timezone": "Etc/UTC",
        "lc_messages": "C.UTF-8",
        "lc_time": "C.UTF-8",
        "datestyle": "ISO, MDY",
    }
