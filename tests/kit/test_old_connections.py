"""Connections to databases, as Channels and as the kit close the old ones: at the same events."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.roles.postgres_server import PostgresServer, directory_of_postgres

PROGRAM = Path(__file__).with_name("old_connections.py")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with directory_of_postgres() as directory:
        server = PostgresServer(directory, "--auth=trust")
        server.start()
        yield server
        server.stop()


def traces(database: dict[str, Any], dispatched_by: str) -> Any:
    """Return what the consumers of old_connections.py see of their connections."""
    content = subprocess.run(
        [sys.executable, PROGRAM, json.dumps(database), dispatched_by],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    ).stdout
    return json.loads(content)


def test_connections_to_postgres(postgres: PostgresServer) -> None:
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": str(postgres.directory),
        "PORT": postgres.port,
        "NAME": "postgres",
        "USER": "postgres",
    }
    ours = traces(database, "kit")
    assert ours == traces(database, "channels")
    assert ours["a lifetime of 0"] == {"query": "ok", "other event": "ok", "open": 0}
    assert ours["a lifetime that ends"] == {"query": "ok", "open": 1, "then, an event": 0}
    assert ours["no lifetime"] == {"query": "ok", "other event": "ok", "open": 1}
    assert ours["killed, with health checks"] == ["ok", "ok", "ok"]
    assert ours["killed"] == ["ok", "OperationalError", "ok"]
    assert ours["autocommit is off"] == {"query": "ok", "other event": "ok", "open": 0}
    assert ours["closed by the end of a socket"] == {"query": "ok", "open": 0}


def test_connections_to_sqlite(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db")}
    ours = traces(database, "kit")
    assert ours == traces(database, "channels")
    assert ours["a lifetime of 0"] == {"query": "ok", "other event": "ok", "open": 0}
    assert ours["no lifetime"] == {"query": "ok", "other event": "ok", "open": 1}


def test_the_thread_is_asked_only_where_it_may_have_old_connections(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db")}
    ours = traces(database, "kit, counted")
    # 100 events that touch no database, then the same after a query.
    assert ours == {"before": 0, "after": 1}
