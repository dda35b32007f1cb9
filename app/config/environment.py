"""The environment variables of the application, read by their kind.

A wrong value stops the process while it starts. The error names the variable, the value and what is
allowed; a value that may carry a password is not repeated.
"""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

CONNECT_TIMEOUT = 5
"""Seconds for a new PostgreSQL connection, unless DATABASE_URL says another number.

All queries of a process share one thread, so one that waits for an unreachable host holds up every
socket of the process; libpq's own limit is about two minutes.
"""

DEAD_PEER = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
}
"""Settings with which libpq detects a database host that lost power.

The values are seconds; the last one is milliseconds. Such a host does not close its connections.
Without these settings, a process that sends a query waits 15 minutes, and one that waits for an
answer two hours or until long after the host is back.
"""

LAYER_KEEPALIVE = {
    getattr(socket, name): DEAD_PEER[setting]
    for name, setting in (
        ("TCP_KEEPIDLE", "keepalives_idle"),
        ("TCP_KEEPINTVL", "keepalives_interval"),
        ("TCP_KEEPCNT", "keepalives_count"),
        ("TCP_USER_TIMEOUT", "tcp_user_timeout"),
    )
    if hasattr(socket, name)
}
"""The same for the layer's connections, where the system has these options.

Not socket_timeout of redis-py 7.4: with it, a task that waits for a message can swallow the
CancelledError that is to end it.
"""

LAYER_KIND = "CHANNEL_LAYER_KIND"

LAYERS = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "fanout": "channels_kit.layer.RedisFanoutLayer",
}
"""The channel layers that CHANNEL_LAYER_KIND names."""

LAYER_LIMITS = {
    "capacity": ("CHANNEL_LAYER_CAPACITY", 2000),
    "expiry": ("CHANNEL_LAYER_EXPIRY", 60),
    "group_expiry": ("CHANNEL_LAYER_GROUP_EXPIRY", 86400),
}
"""Limits of the channel layer: the variable of each, and its default.

The capacity is the number of messages that wait in Redis for a process; beyond it the layer drops
new ones, at INFO only. Channels' own is 100, for all sockets of a process together: at 50 messages
a second one that is held up for two seconds would lose the third, and everybody would ask the
database for it. The others are in seconds, and Channels' own.
"""

POOL_TIMEOUT = 10
"""Seconds a query waits for a connection of the pool while others have them all."""

POOL_MAX_IDLE = 300
"""Seconds after which a connection of the pool that nobody used is closed."""


class Environment:
    """Reads typed values from a mapping of strings.

    A variable that is set to nothing counts as unset, so that an environment file can show a name
    without giving it a value.

    Args:
        variables: where the values are, ``os.environ`` outside of tests.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str, default: str, *, max_length: int | None = None) -> str:
        """Return the value as it is, or the default; not longer than ``max_length`` characters."""
        value = self._variables.get(name) or default
        if max_length is not None and len(value) > max_length:
            raise ImproperlyConfigured(
                f"{name}={value!r} has {len(value)} characters; at most {max_length} are allowed."
            )
        return value

    def secret(self, name: str, default: str, *, min_length: int) -> str:
        """Return a secret or the default; not shorter than ``min_length`` characters."""
        return self._long_enough(name, self._variables.get(name) or default, min_length)

    def secrets(self, name: str, *, min_length: int) -> list[str]:
        """Return a list of secrets, none shorter than ``min_length`` characters."""
        return [self._long_enough(name, secret, min_length) for secret in self.words(name)]

    def number(self, name: str, default: int, *, lowest: int, highest: int) -> int:
        """Return a whole number, or the default; from ``lowest`` to ``highest``, both allowed."""
        value = self._variables.get(name) or str(default)
        # Nine digits: int() refuses thousands of them with an error of its own.
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else -1
        if not lowest <= number <= highest:
            raise ImproperlyConfigured(
                f"{name}={value!r} is not allowed; allowed are whole numbers from {lowest}"
                f" to {highest}."
            )
        return number

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return whether a variable is 1; only 0 and 1 are allowed."""
        value = self._variables.get(name)
        if not value:
            return default
        if value not in {"0", "1"}:
            raise ImproperlyConfigured(f"{name}={value!r} is not a flag; allowed are 0 and 1.")
        return value == "1"

    def words(self, name: str) -> list[str]:
        """Return the items of a comma-separated list, without blanks around them."""
        return [word for part in self._variables.get(name, "").split(",") if (word := part.strip())]

    def hosts(self, name: str) -> list[str]:
        """Return a list of host names; a scheme, a port or a path is a mistake."""
        hosts = self.words(name)
        for host in hosts:
            if "/" in host or (":" in host and not host.startswith("[")):
                raise ImproperlyConfigured(
                    f"{name}={host!r} is not a host name; allowed are names and addresses without"
                    " scheme and port, .example.com for a domain with all below it, and *."
                )
        return hosts

    def origins(self, name: str) -> list[str]:
        """Return a list of origins, each with its scheme."""
        origins = self.words(name)
        for origin in origins:
            if not origin.startswith(("http://", "https://")):
                raise ImproperlyConfigured(
                    f"{name}={origin!r} is not an origin; allowed is scheme and host,"
                    " such as https://chat.example.com."
                )
        return origins

    def database(self, name: str, *, default: Path, pool_size: int) -> dict[str, Any]:
        """Return Django's settings of a database from its URL, of SQLite at ``default`` without.

        Args:
            name: the variable with the URL.
            default: the file of the SQLite without one.
            pool_size: how many connections a process may have to PostgreSQL.
        """
        url = self._variables.get(name) or f"sqlite:///{default}"
        allowed = "postgres://user:password@host:port/name or sqlite:////absolute/path"
        scheme = url.partition(":")[0]
        if scheme not in {"postgres", "postgresql", "sqlite"}:
            raise ImproperlyConfigured(f"{name} has the scheme {scheme!r}; allowed is {allowed}.")
        try:
            database: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=0))
        except dj_database_url.ParseError:
            # Its text repeats the URL, and the URL has a password.
            raise ImproperlyConfigured(f"{name} is not a URL; allowed is {allowed}.") from None
        if not database["NAME"]:
            raise ImproperlyConfigured(f"{name} names no database; allowed is {allowed}.")
        if scheme != "sqlite":
            options = database.setdefault("OPTIONS", {})
            for option, value in {"connect_timeout": CONNECT_TIMEOUT, **DEAD_PEER}.items():
                options.setdefault(option, value)
            # Every request has a thread of its own, and would have its own connection.
            options["pool"] = {
                "min_size": 0,
                "max_size": pool_size,
                "timeout": POOL_TIMEOUT,
                "max_idle": POOL_MAX_IDLE,
            }
            # A connection is tried before it is used: after a restart of PostgreSQL all are dead.
            database["CONN_HEALTH_CHECKS"] = True
        return database

    def channel_layer(self, name: str) -> dict[str, Any]:
        """Return Django's settings of a channel layer from its URL, of one in memory without."""
        url = self._redis(name)
        kind = self.text(LAYER_KIND, "core")
        if kind not in LAYERS:
            raise ImproperlyConfigured(
                f"{LAYER_KIND}={kind!r} is not allowed; allowed are {', '.join(LAYERS)}."
            )
        if not url:
            return {"BACKEND": "channels.layers.InMemoryChannelLayer"}
        return {
            "BACKEND": LAYERS[kind],
            "CONFIG": {
                "hosts": [
                    {
                        "address": url,
                        "socket_connect_timeout": CONNECT_TIMEOUT,
                        "socket_keepalive": True,
                        "socket_keepalive_options": LAYER_KEEPALIVE,
                    }
                ],
                **{
                    option: self.number(variable, default, lowest=1, highest=31_536_000)
                    for option, (variable, default) in LAYER_LIMITS.items()
                },
                # To hear workers with core while a cluster is moved from one to the other.
                **({"bridge": True} if kind == "fanout" else {}),
            },
        }

    def broker(self, name: str) -> str:
        """Return the URL of the Redis that is Celery's broker, nothing without."""
        return self._redis(name)

    def _redis(self, name: str) -> str:
        url = self._variables.get(name, "")
        if not url:
            return ""
        allowed = "redis://user:password@host:port/0 (rediss:// with TLS)"
        scheme = url.partition(":")[0]
        if scheme not in {"redis", "rediss"}:
            raise ImproperlyConfigured(f"{name} has the scheme {scheme!r}; allowed is {allowed}.")
        try:
            parts = urlsplit(url)
            complete = bool(parts.hostname) and parts.port != 0
        except ValueError:
            complete = False
        database = parts.path.removeprefix("/") if complete else ""
        if not complete or (database and not database.isdecimal()):
            raise ImproperlyConfigured(f"{name} is not the URL of a Redis; allowed is {allowed}.")
        return url

    def _long_enough(self, name: str, secret: str, min_length: int) -> str:
        if secret and len(secret) < min_length:
            raise ImproperlyConfigured(
                f"{name} has a secret of {len(secret)} characters;"
                f" allowed are {min_length} or more."
            )
        return secret
