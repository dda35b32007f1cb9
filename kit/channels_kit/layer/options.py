"""How a layer is configured, in the shapes that `channels_redis` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from channels_kit.layer.mailbox import Overflow

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection, if `hosts` says nothing else."""

Host = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """What holds for all event loops; docs/layer.md has the meaning of each.

    Attributes:
        hosts: one for each shard, as `pool` reads them.
        prefix: of all keys and channels in Redis.
        expiry: seconds for which a message waits for its consumer.
        group_expiry: seconds for which a membership lasts.
        overflow: what happens to a message for a full mailbox.
        history_size: messages of a topic that Redis keeps.
        history_seconds: seconds for which it keeps them after the last one.
        send_timeout: seconds for which a call waits while Redis is away.
        send_buffer: bytes of messages that wait for one Redis while it is away.
        socket_buffer: bytes that wait for one client.
    """

    hosts: tuple[Host, ...]
    prefix: str
    expiry: float
    group_expiry: float
    overflow: Overflow
    history_size: int
    history_seconds: float
    send_timeout: float
    send_buffer: int
    socket_buffer: int

    def __post_init__(self) -> None:
        for name in (
            "expiry",
            "group_expiry",
            "history_seconds",
            "send_timeout",
            "send_buffer",
            "socket_buffer",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: more than 0")
        if self.history_size < 0:
            raise ValueError(f"history_size is {self.history_size!r}; allowed: 0 and more")


def read_hosts(hosts: Sequence[Any] | None) -> tuple[Host, ...]:
    """Return the entries of `hosts` as dictionaries.

    Raises:
        ValueError: it is no list, or redis-py cannot use an entry.
    """
    if hosts is None:
        return ({"address": "redis://localhost:6379"},)
    if isinstance(hosts, str | bytes | Mapping):
        raise ValueError("hosts must be a list, also with one host")
    if not hosts:
        raise ValueError("hosts is empty; leave it out for redis://localhost:6379")
    found: list[Host] = []
    for host in hosts:
        if isinstance(host, Mapping):
            found.append(host)
        elif isinstance(host, tuple | list):
            found.append({"host": host[0], "port": host[1]})
        else:
            found.append({"address": host})
    for number, host in enumerate(found):
        try:
            pool(host).make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise ValueError(f"hosts[{number}] cannot be used: {error}") from None
    return tuple(found)


def read_overflow(policy: str) -> Overflow:
    """Return a policy by its name.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        return Overflow(policy)
    except ValueError:
        allowed = ", ".join(each.value for each in Overflow)
        raise ValueError(f"overflow is {policy!r}; allowed: {allowed}") from None


def pool(host: Host) -> ConnectionPool:
    """Return what makes connections to one host, for the running event loop."""
    given = dict(host)
    # Time limits of a command are the layer's own: a subscription is silent for hours. What sends
    # again is the layer, too.
    own: dict[str, Any] = {
        "decode_responses": False,
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }
    if int(redis.__version__.split(".", 1)[0]) >= 5:
        own["protocol"] = 2
    given = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_keepalive": True, **given, **own}
    if "address" in given:
        address = given.pop("address")
        if str(address).startswith("unix:"):
            del given["socket_keepalive"]
        return ConnectionPool.from_url(address, **given)
    master = given.pop("master_name", None)
    if master is None:
        return ConnectionPool(**given)
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        given.pop("sentinels"),
        sentinel_kwargs={
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": CONNECT_TIMEOUT,
            **(given.pop("sentinel_kwargs", None) or {}),
        },
    )
    return SentinelConnectionPool(master, sentinel, **given)  # type: ignore[no-untyped-call]
