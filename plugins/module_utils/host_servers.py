"""Readings of Redis and PostgreSQL, asked as their administrator. Nothing is written."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.host_readings import Readings, UnreadableError, output_of
from ansible.module_utils.redis_client import Redis, RedisError, pairs, read_password

REDIS = "redis"
POSTGRESQL = "postgresql"

SECONDS = 3.0
"""Seconds that one answer of Redis may take."""

INFO = {
    "connected_clients": "clients",
    "used_memory": "memory in bytes",
    "evicted_keys": "evicted keys",
    "rejected_connections": "rejected connections",
    "redis_version": "version",
    "rdb_last_bgsave_status": "last snapshot",
    "aof_last_write_status": "last write of the append-only file",
    "loading": "loading",
}


def read_redis(readings: Readings, instance: Mapping[str, Any]) -> None:
    """Read one instance of Redis.

    Args:
        readings: collects what is read.
        instance: subject, address, port, user, password or password_file, and settings: the names
            for CONFIG GET.
    """
    subject = instance["subject"]
    place = f"{instance['address']}:{instance['port']}"
    with readings.reading(REDIS, subject, f"Redis at {place}"):
        password = instance.get("password") or ""
        if instance.get("password_file"):
            # Whoever set up the server has chosen it.
            password = read_password(instance["password_file"], minimum=1)
        try:
            server = Redis(instance["address"], int(instance["port"]), SECONDS)
        except OSError as error:
            raise UnreadableError(
                f"cannot connect to {place}: {error.strerror or error}"
            ) from error
        with server:
            try:
                if password:
                    server.ask("AUTH", instance.get("user") or "default", password)
                told = parse_info(server.ask("INFO", "everything"))
            except RedisError as error:
                # The answer to AUTH does not repeat the password.
                raise UnreadableError(f"Redis answered: {error}") from error
            except TimeoutError as error:
                raise UnreadableError(f"no answer within {SECONDS:g} s") from error
            for name, key in INFO.items():
                if name in told:
                    value = told[name]
                    readings.add(
                        REDIS,
                        subject,
                        key,
                        int(value) if value.isdigit() else value,
                        f"INFO ({name})",
                    )
            for name in instance.get("settings") or ():
                source = f"CONFIG GET {name}"
                with readings.reading(REDIS, subject, source, name):
                    try:
                        found = pairs(server.ask("CONFIG", "GET", name))
                    except RedisError as error:
                        raise UnreadableError(f"Redis answered: {error}") from error
                    if name not in found:
                        raise UnreadableError("this Redis has no such setting")
                    readings.add(REDIS, subject, name, found[name], source)


def parse_info(text: str) -> dict[str, str]:
    """Return the fields of INFO."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


# One question: the server's own view, its files as the server reads them, and who is connected. Not
# setting but reset_val: on a local socket the keepalives of TCP are shown as 0.
STATE = """
SELECT json_build_object(
    'settings', (SELECT json_object_agg(lower(name), json_build_array(reset_val, unit))
                 FROM pg_settings WHERE lower(name) = ANY (%s)),
    'pending', ARRAY(SELECT name FROM pg_settings WHERE pending_restart ORDER BY name),
    'connections', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    'most', current_setting('max_connections')::int,
    'rules', (SELECT json_agg(
                  json_build_array(type, database, user_name, address, netmask, auth_method)
                  ORDER BY line_number) FROM pg_hba_file_rules WHERE error IS NULL),
    'broken', (SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL),
    'rules_file', current_setting('hba_file'),
    'loaded', extract(epoch FROM pg_conf_load_time()),
    'recovery', pg_is_in_recovery(),
    'oldest', (SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0)::int
               FROM pg_stat_activity WHERE state = 'idle in transaction'))
"""


def read_postgres(readings: Readings, server: Mapping[str, Any]) -> None:
    """Read a server through its local socket, as the system user postgres.

    Args:
        readings: collects what is read.
        server: subject, port, sockets (the directory of the socket), settings (names).
    """
    subject, port = server["subject"], server["port"]
    source = f"psql on port {port}"
    with readings.reading(POSTGRESQL, subject, source):
        names = list(server.get("settings") or ())
        if not all(name.replace("_", "").replace(".", "").isalnum() for name in names):
            raise UnreadableError(
                "a name of a setting has other characters than letters, digits, _ and ."
            )
        listed = ", ".join(f"'{name.lower()}'" for name in names)
        told = json.loads(output_of(psql(server), STATE % f"ARRAY[{listed}]::text[]"))
        settings = told["settings"] or {}
        for name in names:
            if name.lower() not in settings:
                readings.unreadable(
                    POSTGRESQL, subject, name, "pg_settings", "the server has no such setting"
                )
                continue
            setting, unit = settings[name.lower()]
            readings.add(
                POSTGRESQL,
                subject,
                name,
                f"{setting} {unit or ''}".strip(),
                f"pg_settings ({name})",
            )
        readings.add(
            POSTGRESQL, subject, "settings that need a restart", told["pending"], "pg_settings"
        )
        readings.add(POSTGRESQL, subject, "connections", told["connections"], "pg_stat_activity")
        readings.add(POSTGRESQL, subject, "most connections", told["most"], "pg_settings")
        readings.add(
            POSTGRESQL,
            subject,
            "idle in transaction for seconds",
            told["oldest"],
            "pg_stat_activity",
        )
        read_rules(readings, subject, told)


def read_rules(readings: Readings, subject: str, told: Mapping[str, Any]) -> None:
    """Read the rules of access: those of the file, if the server has read it."""
    source = f"pg_hba_file_rules ({told['rules_file']})"
    with readings.reading(POSTGRESQL, subject, source, "access rules"):
        if told["broken"]:
            raise UnreadableError("the file has errors, so the former rules are in effect")
        if Path(told["rules_file"]).stat().st_ctime > float(told["loaded"]):
            raise UnreadableError(
                "the file was changed after the server read it; reload the server"
            )
        rules = [rule_in_words(*rule) for rule in told["rules"] or ()]
        readings.add(POSTGRESQL, subject, "access rules", rules, source)


def rule_in_words(
    kind: str,
    databases: Sequence[str],
    users: Sequence[str],
    address: str | None,
    mask: str | None,
    method: str,
) -> str:
    """Return a rule as a line of pg_hba.conf, with the mask as a number of bits."""
    words = [kind, ",".join(databases), ",".join(users)]
    if address:
        words.append(f"{address}/{bits(mask)}" if mask else address)
    return " ".join([*words, method])


def bits(mask: str) -> int:
    """Return the number of bits of a mask."""
    if ":" in mask:
        return sum(bin(int(each or "0", 16)).count("1") for each in mask.split(":"))
    return sum(bin(int(each)).count("1") for each in mask.split("."))


def psql(server: Mapping[str, Any]) -> list[str]:
    """Return the command that asks the server. root becomes postgres."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError as error:
            raise UnreadableError("there is no system user postgres") from error
        prefix = [
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
            "--",
        ]
    if not shutil.which("psql"):
        raise UnreadableError("there is no psql")
    return [
        *prefix,
        *("env", "PGCONNECT_TIMEOUT=3", "PGOPTIONS=-c statement_timeout=3000"),
        *("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password"),
        *("--set=ON_ERROR_STOP=1", f"--host={server['sockets']}", f"--port={server['port']}"),
        *("--username=postgres", "--dbname=postgres", "--file=-"),
    ]
