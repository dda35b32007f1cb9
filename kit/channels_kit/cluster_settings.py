"""Which Django settings a cluster owns, and what they are there.

A core without Django: the project's settings and an environment go in, new settings and an
account of the changes come out. A setting whose variable is not set stays as it is. Nothing of the
project's is changed in place.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

DATABASE_URL = "CHANNELS_KIT_DATABASE_URL"
LAYER_URL = "CHANNELS_KIT_LAYER_URL"
LAYER_KIND = "CHANNELS_KIT_LAYER_KIND"
LAYER_LIMITS = {
    "capacity": "CHANNELS_KIT_LAYER_CAPACITY",
    "expiry": "CHANNELS_KIT_LAYER_EXPIRY",
    "group_expiry": "CHANNELS_KIT_LAYER_GROUP_EXPIRY",
}
BROKER_URL = "CHANNELS_KIT_BROKER_URL"
CACHE_URL = "CHANNELS_KIT_CACHE_URL"
ALLOWED_HOSTS = "CHANNELS_KIT_ALLOWED_HOSTS"
ORIGINS = "CHANNELS_KIT_ORIGINS"
STATIC_ROOT = "CHANNELS_KIT_STATIC_ROOT"
MEDIA_ROOT = "CHANNELS_KIT_MEDIA_ROOT"

Settings = dict[str, Any]

POSTGRESQL = "django.db.backends.postgresql"
POSTGIS = "django.contrib.gis.db.backends.postgis"

# What an engine for PostgreSQL has in its name: postgresql, postgis, psqlextra, timescale.
_POSTGRES = re.compile("postg|psql|timescale")

# Options of a connection that say where it leads: the URL says that.
_ELSEWHERE = {"service", "passfile", "host", "hostaddr", "port", "dbname", "user", "password"}

CORE_LAYER = "channels_redis.core.RedisChannelLayer"
MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"
LAYERS = {
    "core": CORE_LAYER,
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "fanout": "channels_kit.layer.RedisFanoutLayer",
}
LAYER_OPTIONS = {
    *("hosts", "prefix", "expiry", "group_expiry", "capacity", "channel_capacity"),
    "symmetric_encryption_keys",
}
"""Options that all of them have."""


# What says where a Redis is, in the form of a dict that channels_redis has for a host.
_ADDRESS = {
    *("address", "host", "port", "db", "username", "password", "path", "unix_socket_path"),
    *("sentinels", "master_name", "sentinel_kwargs"),
}

REDIS_CACHE = "django.core.cache.backends.redis.RedisCache"

# A cache that every process has for itself.
_PROCESS_CACHE = "django.core.cache.backends.locmem.LocMemCache"

# Names under which Celery looks for its broker in the settings of Django: with the namespace
# CELERY, and without one.
_BROKERS = ("CELERY_BROKER_URL", "BROKER_URL")
_RESULTS = ("CELERY_RESULT_BACKEND", "RESULT_BACKEND")

_LOCAL_ORIGIN = re.compile(r"\w+://(localhost|127\.|0\.0\.0\.0|\[::1\])")

HIDDEN = "(hidden)"


class OverlayError(Exception):
    """The settings cannot be made the cluster's; the message says what to do."""


@dataclass(frozen=True)
class Change:
    """One setting that the cluster owns.

    Attributes:
        setting: its name.
        was: the project's value, without secrets.
        now: the cluster's value, without secrets; the same where the project's is kept.
        note: why it is so, where that is not plain.
    """

    setting: str
    was: str
    now: str
    note: str = ""

    def as_json(self) -> dict[str, str]:
        """Return what is shown to programs."""
        return asdict(self)


def own_settings(
    project: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Settings, list[Change]]:
    """Return the project's settings with the cluster's in them, and what differs.

    Raises:
        OverlayError: a value of the environment, or what the application has, does not fit.
    """
    overlay = _Overlay(project, environment)
    overlay.set("DEBUG", False)
    if environment.get("SECRET_KEY"):
        overlay.set("SECRET_KEY", environment["SECRET_KEY"])
    if environment.get("SECRET_KEY_FALLBACKS"):
        overlay.set("SECRET_KEY_FALLBACKS", _listed(environment["SECRET_KEY_FALLBACKS"]))
    overlay.own_hosts()
    overlay.own_database()
    overlay.own_layer()
    overlay.own_caches()
    overlay.own_broker()
    for setting, variable in (("STATIC_ROOT", STATIC_ROOT), ("MEDIA_ROOT", MEDIA_ROOT)):
        if environment.get(variable):
            overlay.set(setting, environment[variable])
    overlay.own_logging()
    return overlay.settings, overlay.changes


class _Overlay:
    def __init__(self, project: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.project = project
        self.environment = environment
        self.settings: Settings = dict(project)
        self.changes: list[Change] = []

    def set(self, setting: str, value: Any, note: str = "") -> None:
        was = _shown(setting, self.project[setting]) if setting in self.project else "not set"
        self.settings[setting] = value
        self.changes.append(Change(setting, was, _shown(setting, value), note))

    def keep(self, setting: str, note: str) -> None:
        shown = _shown(setting, self.project.get(setting))
        self.changes.append(Change(setting, shown, shown, note))

    def own_hosts(self) -> None:
        """Own the names of the site, and how to know that a request was encrypted."""
        if self.environment.get(ALLOWED_HOSTS):
            self.set("ALLOWED_HOSTS", _listed(self.environment[ALLOWED_HOSTS]))
        if self.environment.get(ORIGINS):
            origins = _listed(self.environment[ORIGINS])
            others = [
                origin
                for origin in self.project.get("CSRF_TRUSTED_ORIGINS", [])
                if "://" in origin and not _LOCAL_ORIGIN.match(origin) and origin not in origins
            ]
            self.set("CSRF_TRUSTED_ORIGINS", origins + others)
        self.set("SECURE_PROXY_SSL_HEADER", ("HTTP_X_FORWARDED_PROTO", "https"))

    def own_database(self) -> None:
        """Own the default database: PostgreSQL at the URL, otherwise as the project has it."""
        url = self.environment.get(DATABASE_URL)
        if not url:
            return
        if not (find_spec("psycopg") or find_spec("psycopg2")):
            raise OverlayError(
                "the application has no driver for PostgreSQL; allowed: psycopg[binary] (Django 4.2"
                " or newer) or psycopg2-binary in its requirements"
            )
        databases = dict(self.project.get("DATABASES", {}))
        own = dict(databases.get("default", {}))
        engine = str(own.get("ENGINE", ""))
        kept = _POSTGRES.search(engine) is not None
        options = own.get("OPTIONS", {}) if kept else {}
        connection = parse_database_url(url)
        geographic = ".gis." in engine
        own |= {
            **connection,
            "ENGINE": engine if kept else POSTGIS if geographic else POSTGRESQL,
            "OPTIONS": {
                **{name: value for name, value in options.items() if name not in _ELSEWHERE},
                **connection["OPTIONS"],
            },
        }
        databases["default"] = own
        self.set("DATABASES", databases, "" if kept or not engine else "its ENGINE was replaced")

    def own_layer(self) -> None:
        """Own where the default channel layer is; how it is stays the project's.

        What it is, too, unless the inventory names another one.
        """
        url = self.environment.get(LAYER_URL)
        if not url:
            return
        layers = dict(self.project.get("CHANNEL_LAYERS", {}))
        own = dict(layers.get("default", {}))
        config = dict(own.get("CONFIG", {}))
        backend = str(own.get("BACKEND", ""))
        note = ""
        if backend in ("", MEMORY_LAYER):
            if not find_spec("channels_redis"):
                raise OverlayError(
                    "the channel layer is in memory, which processes do not share, and the"
                    " application has no channels_redis; allowed: channels-redis in its"
                    " requirements"
                )
            note = "processes do not share a layer in memory" if backend else ""
            own["BACKEND"] = backend = CORE_LAYER
        if kind := self.environment.get(LAYER_KIND):
            if kind not in LAYERS:
                raise OverlayError(f"{LAYER_KIND} is {kind!r}; allowed: {', '.join(LAYERS)}")
            if backend != LAYERS[kind]:
                note = f"channels_layer is {kind}"
                own["BACKEND"] = backend = LAYERS[kind]
                config = {key: value for key, value in config.items() if key in LAYER_OPTIONS}
        if "postgres" in backend:
            if self.environment.get(DATABASE_URL):
                config |= parse_database_url(self.environment[DATABASE_URL])
                # Django gives every one of DATABASES this; the layer has a database of its own.
                config.setdefault("TIME_ZONE", None)
        elif "hosts" in config or re.search("redis|valkey", backend, re.IGNORECASE):
            config["hosts"] = _hosts(config.get("hosts"), url.split())
            if backend == LAYERS["fanout"] and find_spec("channels_redis"):
                # To hear workers with core while the cluster is moved from one to the other.
                config.setdefault("bridge", True)
            if backend in LAYERS.values():
                for option, variable in LAYER_LIMITS.items():
                    if limit := self.environment.get(variable):
                        config.setdefault(option, int(limit))
        else:
            self.keep(
                "CHANNEL_LAYERS", f"{backend} is not supported; the project's setting is kept"
            )
            return
        own["CONFIG"] = config
        self.set("CHANNEL_LAYERS", {**layers, "default": own}, note)

    def own_caches(self) -> None:
        """Own where a cache in Redis is, and share one that each process would have for itself.

        A cache in the memory of a process is wrong with several: a session, a lock or a limit that
        one worker knows is unknown to the next. One in the database or in Memcached stays, and so
        does one that keeps nothing (DummyCache) or that is in files: neither breaks anything.
        """
        url = self.environment.get(CACHE_URL) or _second_database(
            self.environment.get(BROKER_URL, "")
        )
        if not url:
            return
        caches = dict(self.project.get("CACHES", {}))
        caches.setdefault("default", {"BACKEND": _PROCESS_CACHE})
        note = ""
        for alias, cache in caches.items():
            backend = str(cache.get("BACKEND", ""))
            own = {**cache, "LOCATION": url}
            if backend == _PROCESS_CACHE:
                if not (find_spec("redis") and find_spec("django.core.cache.backends.redis")):
                    note = "not shared by processes: replacing a cache in memory needs redis-py"
                    continue
                own = {key: value for key, value in own.items() if key != "OPTIONS"}
                own["BACKEND"] = REDIS_CACHE
                note = "processes do not share a cache in memory"
            elif not re.search("redis|valkey", backend, re.IGNORECASE):
                continue
            if alias != "default":
                # They share a database now, and are not to share their keys.
                own.setdefault("KEY_PREFIX", alias)
            caches[alias] = own
        if caches != self.project.get("CACHES", {}) and not note.endswith("redis-py"):
            self.set("CACHES", caches, note)
        else:
            self.keep("CACHES", note or "no cache in the memory of a process")

    def own_broker(self) -> None:
        """Own Celery's broker, and its results where they are in Redis."""
        url = self.environment.get(BROKER_URL)
        if not url:
            return
        for setting in [name for name in _BROKERS if name in self.project] or _BROKERS[:1]:
            self.set(setting, url)
        for setting in _RESULTS:
            if re.match("rediss?:|valkeys?:", str(self.project.get(setting, ""))):
                self.set(setting, url)

    def own_logging(self) -> None:
        """Have what is written to files written to the journal."""
        logging = self.project.get("LOGGING")
        handlers = (logging or {}).get("handlers", {})
        files = {name for name, handler in handlers.items() if "filename" in handler}
        if not logging or not files:
            return
        stays = ("level", "formatter", "filters")
        own = {
            name: {
                "class": "logging.StreamHandler",
                **{key: value for key, value in handler.items() if key in stays},
            }
            if name in files
            else handler
            for name, handler in handlers.items()
        }
        names = ", ".join(sorted(files))
        self.set("LOGGING", {**logging, "handlers": own}, f"to the journal: {names}")


def parse_database_url(url: str) -> Settings:
    """Return what Django has for `postgresql://user:password@host:port/name?sslmode=require`."""
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql") or not parts.path.strip("/"):
        raise OverlayError(f"{DATABASE_URL} is not usable (not shown); allowed: postgresql://...")
    return {
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": dict(parse_qsl(parts.query)),
    }


def _hosts(former: Any, urls: list[str]) -> list[Any]:
    """Return the hosts of a layer in Redis; options that the project gives a host stay."""
    first = former[0] if isinstance(former, list | tuple) and former else None
    options = {
        key: value
        for key, value in (first.items() if isinstance(first, dict) else ())
        if key not in _ADDRESS and (not key.startswith("ssl") or urls[0].startswith("rediss:"))
    }
    return [{"address": url, **options} for url in urls] if options else urls


def _second_database(url: str) -> str:
    """Return the URL of a Redis with another database, for keys of another kind; "" for others."""
    parts = urlsplit(url)
    return parts._replace(path="/1").geturl() if parts.scheme in ("redis", "rediss") else ""


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_SECRET = re.compile("PASS|SECRET|TOKEN|KEY$|KEYS$|_KEY_", re.IGNORECASE)


def _shown(setting: str, value: Any) -> str:
    """Return a value as it may be printed."""
    if setting == "DATABASES":
        return ", ".join(f"{alias}: {_shown_database(each)}" for alias, each in value.items())
    if setting == "LOGGING":
        return ", ".join(
            f"{name}: {each.get('filename', each.get('class', '?'))}"
            for name, each in value.get("handlers", {}).items()
        )
    return str(_without_secrets(setting, value))


def _shown_database(database: Mapping[str, Any]) -> str:
    where = str(database.get("NAME", ""))
    if database.get("HOST"):
        user, host, port = (database.get(key, "") for key in ("USER", "HOST", "PORT"))
        where = f"{user}@{host}:{port}/{where}" if port else f"{user}@{host}/{where}"
    return f"{database.get('ENGINE', '?')} {where}".strip()


def _without_secrets(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_secrets(str(key), each) for key, each in value.items()}
    if value and _SECRET.search(name):
        return HIDDEN
    if isinstance(value, list | tuple):
        return type(value)(_without_secrets(name, each) for each in value)
    if isinstance(value, str):
        return re.sub(r"(?<=://)[^/@\s]*@", lambda user: user[0].split(":")[0] + ":***@", value)
    return value


def table(changes: list[Change]) -> str:
    """Return the changes as a table: what was, what is, and why."""
    lines = []
    for change in changes:
        lines.append(change.setting + (f"  ({change.note})" if change.note else ""))
        if change.was == change.now:
            lines.append(f"  is   {change.now}")
        else:
            lines.extend((f"  was  {change.was}", f"  is   {change.now}"))
    return "\n".join(lines)
