"""What of an application's settings does not work in a cluster."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from channels_kit.examine.finding import Finding, Subject
from channels_kit.examine.remedies import Remedies
from channels_kit.examine.snapshot import Snapshot

LOCAL = {"localhost", "127.0.0.1", "::1"}
LOCMEM = "locmem.LocMemCache"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"
DATABASE = (
    "database.url",
    "database.host",
    "database.port",
    "database.name",
    "database.user",
    "database.password",
)
DATABASE_URLS = ("CHANNELS_KIT_DATABASE_URL", "DATABASE_URL")
LAYER_URLS = ("CHANNELS_KIT_LAYER_URL", "CHANNEL_LAYER_URL")
LAYER = ("layer.url", "layer.host", "layer.port", "layer.password")


def findings(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield what the settings get wrong; a setting that is not in the snapshot is not looked at.

    Args:
        settings: what the settings say.
        subject: what the cluster would run.
        remedies: chooses the line of inventory.
    """
    for rule in (debug, secret_key, databases, layers, sessions, caches, celery):
        yield from rule(settings, subject, remedies)


def debug(settings: Snapshot, _: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield what DEBUG gets wrong."""
    if settings.get("DEBUG"):
        yield Finding(
            name="debug-on",
            what="DEBUG",
            value="True",
            why="Error pages show the settings and the source to everybody, and a process keeps"
            " every query in memory.",
            line=remedies.for_setting("DEBUG", "debug"),
        )


def secret_key(settings: Snapshot, _: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield what SECRET_KEY gets wrong."""
    key = settings.get("SECRET_KEY")
    if key is None:
        return
    problem = ""
    if not key["length"]:
        problem, value = "Django refuses an empty key on its first use.", "empty"
    elif key["where"]:
        problem = "Whoever can read the source can sign sessions and password resets."
        value = f"in the source, {key['where']}"
    elif key["insecure"]:
        problem, value = "It is the key of a new project's settings.", "django-insecure-..."
    if problem:
        yield Finding(
            name="secret-key",
            what="SECRET_KEY",
            value=value,
            why=problem,
            line=remedies.for_setting("SECRET_KEY", "secret"),
        )


def databases(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield databases that are not the cluster's, or not reached from a host."""
    line = remedies.for_setting("DATABASES", *DATABASE)
    for alias, database in settings.get("DATABASES", {}).items():
        what = f'DATABASES["{alias}"]'
        engine = database["engine"].rpartition(".")[2]
        host, name = database["host"], database["name"]
        if not database["engine"] or engine == "dummy":
            if alias == "default" and len(settings["DATABASES"]) == 1:
                yield Finding(
                    name="database-none",
                    what=what,
                    value="none",
                    why="The settings name no database.",
                    line=line,
                )
        elif engine in ("sqlite3", "spatialite"):
            memory = ":memory:" in str(name or ":memory:") or "mode=memory" in str(name)
            why = "A release is read-only, and the next release would start with another file."
            if memory:
                why = "Each process has a database of its own, which is lost when the process ends."
            elif subject.hosts > 1:
                why = f"Each of the {subject.hosts} app hosts would have a database of its own."
            elif is_writable(str(name), subject):
                continue
            yield Finding(
                name="database-file",
                what=what,
                value=f"SQLite, {name or ':memory:'}",
                why=why,
                line=line,
            )
        elif database["service"]:
            continue
        elif not name or host is None:
            yield Finding(
                name="database-unset",
                what=what,
                value=f"{engine}, {'HOST' if name else 'NAME'} is {host if name else name!r}",
                why="The settings name no database of this cluster."
                if not name
                else "Without a host, the application looks for it on the app host itself.",
                line=line,
            )
        else:
            yield from _server("database", what, engine, str(host) or "localhost", subject, line)
            known = (
                database["password"] or {"PGPASSWORD", "PGPASSFILE"} & subject.environment.keys()
            )
            if not known and subject.needs_password(str(host), *DATABASE_URLS):
                yield Finding(
                    name="database-no-password",
                    what=what,
                    value=f"{engine} at {host}, without a password",
                    why="The PostgreSQL of this cluster requires one. No migration can run.",
                    line=remedies.for_setting(
                        "the password of DATABASES", "database.url", "database.password"
                    ),
                )


def layers(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield what is wrong with the channel layers."""
    if "CHANNEL_LAYERS" not in settings:
        return
    line = remedies.for_setting("CHANNEL_LAYERS", *LAYER)
    found = settings["CHANNEL_LAYERS"]
    if "default" not in found and subject.workers > 1:
        yield Finding(
            name="layer-none",
            what="CHANNEL_LAYERS",
            value="no default",
            why=f"The {subject.workers} workers cannot send to each other's sockets.",
            line=line,
        )
    for alias, layer in found.items():
        what = f'CHANNEL_LAYERS["{alias}"]'
        backend = layer["backend"]
        if backend == IN_MEMORY:
            if subject.workers > 1:
                yield Finding(
                    name="layer-in-memory",
                    what=what,
                    value="in memory",
                    why=f"A message reaches the sockets of only one of {subject.workers} workers.",
                    line=line,
                )
        elif backend.startswith("channels_redis."):
            # Without hosts, channels_redis takes 127.0.0.1.
            for host in layer["hosts"] if layer["hosts"] is not None else ["localhost"]:
                if host is None:
                    yield Finding(
                        name="layer-unset",
                        what=what,
                        value="hosts: [None]",
                        why="The settings name no Redis.",
                        line=line,
                    )
                else:
                    yield from _server("layer", what, "Redis", host, subject, line)
            for host, password in zip(layer["hosts"] or (), layer["passwords"], strict=True):
                if host and not password and subject.needs_password(host, *LAYER_URLS):
                    yield Finding(
                        name="layer-no-password",
                        what=what,
                        value=f"Redis at {host}, without a password",
                        why="The Redis of this cluster requires one. No worker would get ready.",
                        line=remedies.for_setting(
                            "the password of CHANNEL_LAYERS", "layer.url", "layer.password"
                        ),
                    )


def sessions(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield sessions that one process or one host keeps for itself."""
    engine = str(settings.get("SESSION_ENGINE", ""))
    if subject.workers < 2:
        return
    alias = settings.get("SESSION_CACHE_ALIAS") or "default"
    cache = settings.get("CACHES", {}).get(alias, {"backend": ""})
    if engine.endswith(".backends.cache") and cache["backend"].endswith(LOCMEM):
        yield Finding(
            name="sessions-in-process",
            what="SESSION_ENGINE",
            value=f"{engine}, and CACHES[{alias!r}] is in each process's memory",
            why=f"Only one of the {subject.workers} workers knows a session: a user is logged out"
            " when another worker gets the request.",
            line=remedies.for_setting("CACHES", "layer.url"),
        )
    elif engine.endswith(".backends.file"):
        yield Finding(
            name="sessions-in-files",
            what="SESSION_ENGINE",
            value=engine,
            why="Each worker has its own directory for temporary files, so only one of the"
            f" {subject.workers} workers knows a session.",
            line='In the settings: SESSION_ENGINE = "django.contrib.sessions.backends.db"',
        )


def caches(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield caches that a host cannot reach or write."""
    line = remedies.for_setting("CACHES", "layer.url")
    for alias, cache in settings.get("CACHES", {}).items():
        what, backend, location = f'CACHES["{alias}"]', cache["backend"], cache["location"]
        kind = backend.rpartition(".")[2]
        if backend.endswith(LOCMEM):
            if subject.workers > 1 and cache.get("chosen"):
                yield Finding(
                    name="cache-per-process",
                    what=what,
                    value="in memory",
                    why=f"Each of the {subject.workers} workers has a cache of its own: counters,"
                    " locks and limits do not hold across workers.",
                    line=line,
                    obstacle=False,
                )
        elif kind == "FileBasedCache":
            if not is_writable(str(location), subject):
                yield Finding(
                    name="cache-file",
                    what=what,
                    value=f"files, {location}",
                    why="A worker cannot write there: a release and the system are read-only.",
                    line=writable_line(str(location), subject),
                )
        elif "Redis" in kind or "Memcache" in kind:
            yield from _server("cache", what, kind, location or "localhost", subject, line)


def celery(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield brokers that a host cannot reach."""
    if not subject.celery:
        return
    line = remedies.for_setting("CELERY_BROKER_URL", "broker.url")
    for setting in ("CELERY_BROKER_URL", "BROKER_URL", "CELERY_RESULT_BACKEND"):
        host = settings.get(setting)
        if host and not host.startswith(("django-", "db+", "cache+", "rpc")):
            yield from _server("broker", setting, "server", host, subject, line)


def _server(
    kind: str, what: str, engine: str, host: str, subject: Subject, line: str
) -> Iterator[Finding]:
    """Yield a finding if a host of the cluster does not find a server at an address."""
    if host.startswith("/") or host.lower() in LOCAL:
        if not subject.local:
            yield Finding(
                name=f"{kind}-local",
                what=what,
                value=f"{engine} at {host}",
                why="That is the app host itself, which does not run this server.",
                line=line,
            )
    elif not _is_known(host, subject):
        yield Finding(
            name=f"{kind}-unknown-host",
            what=what,
            value=f"{engine} at {host}",
            why="A name without a domain, as in Docker Compose. The hosts cannot resolve it.",
            line=line,
        )


def _is_known(host: str, subject: Subject) -> bool:
    """Return whether a host can find a name: it has a domain, or the inventory has it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." in host or host in subject.names
    return True


def is_writable(path: str, subject: Subject) -> bool:
    """Return whether a process on a host may write to a path."""
    places: list[Any] = [*subject.writable, "/tmp", "/var/tmp"]  # noqa: S108 - a unit's own
    return any(path == each or path.startswith(f"{str(each).rstrip('/')}/") for each in places)


def writable_line(path: str, subject: Subject) -> str:
    """Return the lines that make a directory writable: one of the project, below it."""
    name = path.rstrip("/")
    if name and not name.startswith(("/", ".")):
        line = f"channels_writable: [{name}]"
        if subject.hosts > 1:
            line += "\nchannels_writable_store: ...  # a directory that all app hosts share"
        return line
    return (
        "In the settings: use a directory of the project. In the inventory:"
        " channels_writable: [NAME]"
    )
