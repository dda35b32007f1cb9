"""The module postgres_settings, against a real PostgreSQL: what is in effect, not written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .house import Tree
from .modules import run_module
from .postgres_server import PostgresServer, directory_of_postgres
from .redis_server import free_port


class Server(PostgresServer):
    """A server whose settings and rules are in files of their own, as on a host."""

    def __init__(self, directory: Path) -> None:
        self.settings = directory / "conf.d" / "kit.conf"
        include = f"include_dir = '{self.settings.parent}'\n"
        super().__init__(directory, "--auth=trust", "--no-locale", settings=include)
        self.rules = self.data / "pg_hba.conf"
        self.settings.parent.mkdir()
        self.settings.write_text("max_connections = 30\nwork_mem = '5MB'\n")
        self.settings.chmod(0o644)

    def show(self, setting: str) -> str:
        return self.ask(f"SHOW {setting}")

    def bring(self, check: bool = False) -> Tree:
        return run_module(
            "postgres_settings",
            check=check,
            data_directory=str(self.data),
            files=[str(self.settings), str(self.rules)],
        )


@pytest.fixture(scope="module")
def made() -> Iterator[Server]:
    with directory_of_postgres() as directory:
        server = Server(directory)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def server(made: Server) -> Iterator[Server]:
    """With its own files in effect again after the test."""
    settings, rules = made.settings.read_text(), made.rules.read_text()
    yield made
    made.settings.write_text(settings)
    made.rules.write_text(rules)
    (made.data / "postgresql.auto.conf").write_text("")
    made.start("restart")


def test_a_server_that_has_read_its_files_is_left_alone(server: Server) -> None:
    server.bring()
    answer = server.bring()
    assert (answer["changed"], answer["pending_restart"], answer["overridden"]) == (False, [], [])


def test_files_that_were_written_and_not_applied_are_applied(server: Server) -> None:
    """As a run leaves them that ends before its handler."""
    server.settings.write_text("max_connections = 30\nwork_mem = '7MB'\n")
    predicted = server.bring(check=True)
    assert (predicted["changed"], server.show("work_mem")) == (True, "5MB")

    answer = server.bring()

    assert (answer["changed"], answer["pending_restart"]) == (True, [])
    assert server.show("work_mem") == "7MB"
    assert server.bring()["changed"] is False


def test_rules_that_were_written_and_not_applied_are_applied(server: Server) -> None:
    server.bring()
    server.rules.write_text(server.rules.read_text() + "host all nobody 192.0.2.1/32 reject\n")
    assert server.bring()["reloaded"] is True
    assert server.bring()["changed"] is False


@pytest.mark.parametrize("wanted", ["max_connections = 40\n", ""], ids=["another", "none"])
def test_a_setting_that_takes_a_restart_is_named_until_it_was_restarted(
    server: Server, wanted: str
) -> None:
    server.settings.write_text(f"{wanted}work_mem = '5MB'\n")
    first, second = server.bring(), server.bring()
    assert (first["reloaded"], first["pending_restart"]) == (True, ["max_connections"])
    assert (second["reloaded"], second["pending_restart"]) == (False, ["max_connections"])
    assert second["changed"] is True
    assert server.show("max_connections") == "30"

    server.run("pg_ctl", "restart", "--wait", f"--log={server.directory / 'log'}")
    assert server.bring()["changed"] is False


@pytest.mark.parametrize(
    ("file", "wrong", "words"),
    [
        ("settings", "work_mem = 'plenty'\n", "kit.conf:1: work_mem setting could not be applied"),
        ("settings", "nonsense = 1\n", "kit.conf:1: nonsense unrecognized configuration parameter"),
        ("settings", "work_mem = 'open\n", "kit.conf:1: syntax error"),
        ("rules", "host all all nowhere/99 trust\n", "pg_hba.conf:1: "),
    ],
)
def test_a_mistake_in_a_file_is_told_in_the_servers_words(
    server: Server, file: str, wrong: str, words: str
) -> None:
    server.bring()
    getattr(server, file).write_text(wrong)
    answer = server.bring()
    assert answer["failed"] is True
    assert words in answer["msg"]
    assert server.show("work_mem") == "5MB"


def test_a_setting_that_another_file_overrides_is_named(server: Server) -> None:
    auto = server.data / "postgresql.auto.conf"
    auto.write_text("work_mem = '9MB'\n")
    answer = server.bring()
    assert answer["overridden"] == ["work_mem"]


def test_another_port_takes_a_restart_and_the_server_is_found_until_then(server: Server) -> None:
    server.settings.write_text(f"port = {free_port()}\n")
    for _ in range(2):
        assert "port" in server.bring()["pending_restart"]


def test_a_server_that_does_not_run_is_a_failure(tmp_path: Path) -> None:
    answer = run_module("postgres_settings", data_directory=str(tmp_path), files=[str(tmp_path)])
    assert answer["msg"].startswith("PostgreSQL is not running: ")
    (tmp_path / "postmaster.pid").write_text(f"1\n{tmp_path}\n1\n5432\n{tmp_path}\n\n")
    answer = run_module("postgres_settings", data_directory=str(tmp_path), files=[str(tmp_path)])
    assert "Querying PostgreSQL failed: psql: error: " in answer["msg"]
