"""Filters for ``meta/verify.yml``: what `make verify` reads, from the variables of the roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REDIS_ACCESS = ("address", "port", "user", "password", "password_file")


def answers(units: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return where each worker says whether it is ready."""
    return [{"subject": unit["name"], "url": f"{unit['url']}/-/ready"} for unit in units]


def ports(units: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ports of workers, by their names in the readings."""
    return [f"port {str(unit['url']).rpartition(':')[2]}" for unit in units]


def members(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the workers as an upstream of nginx names them."""
    return [str(worker["url"]).partition("://")[2] for worker in workers]


def urls(edges: Sequence[str], sockets: Sequence[Any]) -> list[str]:
    """Return where sockets are opened: those of ``channels_check_sockets``, at every edge."""
    paths = [each["path"] if isinstance(each, Mapping) else str(each) for each in sockets]
    return [f"{edge.rstrip('/')}{path}" for edge in edges for path in paths]


def redis(
    stated: Mapping[str, Any],
    instances: Mapping[str, Mapping[str, Any]],
    address: str,
    password_file: str,
) -> list[dict[str, Any]]:
    """Return how to ask each instance of Redis for what is stated of it.

    Args:
        stated: what is stated of every instance, by name.
        instances: the instances, each with port and settings.
        address: where they listen.
        password_file: the file on the host with the administrator's password.
    """
    return [
        {
            "subject": unit(name),
            "address": address,
            "port": instance["port"],
            "user": "administrator",
            "password_file": password_file,
            "settings": [*stated, *instance.get("settings", {})],
        }
        for name, instance in instances.items()
    ]


def redis_settings(
    stated: Mapping[str, Any], instances: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return every setting of every instance: subject, name and value."""
    return [
        {"subject": unit(name), "name": setting, "value": unquoted(value)}
        for name, instance in instances.items()
        for setting, value in {**stated, **instance.get("settings", {})}.items()
    ]


def unit_redis(instances: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how to ask each instance of ``units_redis``, which this kit did not set up."""
    return [
        {
            "subject": each["unit"],
            **{key: each[key] for key in REDIS_ACCESS if each.get(key) is not None},
            "settings": ["maxclients", "maxmemory", *each["settings"]],
        }
        for each in instances
    ]


def unit_redis_settings(instances: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every setting that is stated of an instance: subject, name and value."""
    return [
        {"subject": each["unit"], "name": name, "value": value}
        for each in instances
        for name, value in each["settings"].items()
    ]


def unit_postgres(servers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how to ask each server of ``units_postgres``."""
    return [
        {"subject": each["unit"], "port": each["port"], "sockets": each["sockets"]}
        for each in servers
    ]


def unit(instance: str) -> str:
    """Return the unit of an instance of Redis."""
    return f"redis-server@{instance}.service"


def unquoted(value: Any) -> str:
    """Return a value of redis.conf without the quotes around it."""
    text = str(value).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def rules(addresses: Sequence[str], database: str, user: str) -> list[str]:
    """Return the access rules of PostgreSQL that pg_hba.conf has, as the server tells them."""
    return [
        "local all postgres peer",
        *(
            f"host {database} +{user} {address}/{128 if ':' in address else 32} scram-sha-256"
            for address in addresses
        ),
    ]


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "verify_answers": answers,
            "verify_members": members,
            "verify_ports": ports,
            "verify_redis": redis,
            "verify_redis_settings": redis_settings,
            "verify_rules": rules,
            "verify_unit_postgres": unit_postgres,
            "verify_unit_redis": unit_redis,
            "verify_unit_redis_settings": unit_redis_settings,
            "verify_urls": urls,
        }
