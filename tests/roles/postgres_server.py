"""A PostgreSQL of a test's own."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .redis_server import free_port

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1].parent
AS_POSTGRES = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@contextlib.contextmanager
def directory_of_postgres() -> Iterator[Path]:
    """A directory for a server; a short path, because a socket is there."""
    directory = Path(tempfile.mkdtemp())
    if AS_POSTGRES:
        shutil.chown(directory, "postgres")
    yield directory
    shutil.rmtree(directory)


class PostgresServer:
    """A cluster in a directory, and its server.

    Args:
        directory: where its files and its socket are.
        initdb: options of initdb.
        settings: further lines of postgresql.conf.
        environment: that of its programs; the tests' own without.
    """

    def __init__(
        self,
        directory: Path,
        *initdb: str,
        settings: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.data = directory, directory / "data"
        self.port = free_port()
        self.environment = environment
        self.run("initdb", "--username=postgres", "--no-sync", *initdb)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                f"fsync = off\nlisten_addresses = ''\nport = {self.port}\n"
                f"unix_socket_directories = '{directory}'\n{settings}"
            )

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of the server on its data."""
        subprocess.run(
            [*AS_POSTGRES, POSTGRES / program, f"--pgdata={self.data}", *arguments],
            cwd="/",
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self, verb: str = "start") -> None:
        """Start the server, or restart it."""
        self.run("pg_ctl", verb, "--wait", f"--log={self.directory / 'log'}")

    def stop(self) -> None:
        """Stop the server at once."""
        self.run("pg_ctl", "stop", "--mode=immediate")

    def psql(self, database: str = "postgres") -> list[str]:
        """Return the command that asks the server as its administrator."""
        return [
            *("psql", "--no-psqlrc", "-qtA", "-U", "postgres", "-d", database),
            *("-h", str(self.directory), "-p", str(self.port)),
        ]

    def ask(self, query: str, database: str = "postgres") -> str:
        """Return the answer to a query."""
        return subprocess.run(
            [*self.psql(database), "-c", query],
            env={"PATH": os.environ["PATH"], "PGCLIENTENCODING": "UTF8"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
