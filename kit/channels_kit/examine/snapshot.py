"""What an application's settings say, as plain values without secrets.

Taken in the child process, whose settings may be any objects; the rules read it in the parent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from channels_kit.examine.sources import holding
from channels_kit.examine.stubs import is_stub

Snapshot = dict[str, Any]

ABSENT = object()
"""What a setting is that is not there."""

Get = Callable[[str], Any]
"""Returns a setting, or ABSENT."""

PLAIN = (
    "DEBUG",
    "ALLOWED_HOSTS",
    "CSRF_TRUSTED_ORIGINS",
    "SECURE_PROXY_SSL_HEADER",
    "SECURE_SSL_REDIRECT",
    "SESSION_COOKIE_SECURE",
    "CSRF_COOKIE_SECURE",
    "SESSION_ENGINE",
    "SESSION_CACHE_ALIAS",
    "SESSION_FILE_PATH",
    "STATIC_ROOT",
    "STATIC_URL",
    "MEDIA_ROOT",
    "INSTALLED_APPS",
    "MIDDLEWARE",
    "ASGI_APPLICATION",
    "SILENCED_SYSTEM_CHECKS",
)


def of_settings(get: Get, root: Path) -> Snapshot:
    """Return what settings say, but for those that are not there or come from a stand-in.

    Args:
        get: returns a setting.
        root: the project.
    """
    readers: Mapping[str, Callable[[Any], Any]] = {
        **dict.fromkeys(PLAIN, plain),
        "DATABASES": lambda value: {alias: database(each) for alias, each in value.items()},
        "CHANNEL_LAYERS": lambda value: {alias: layer(each) for alias, each in value.items()},
        "CACHES": lambda value: {alias: cache(each) for alias, each in value.items()},
        "LOGGING": log_files,
        "SECRET_KEY": lambda value: secret_key(value, root),
        "CELERY_BROKER_URL": url,
        "BROKER_URL": url,
        "CELERY_RESULT_BACKEND": url,
        "STORAGES": lambda value: {alias: each.get("BACKEND", "") for alias, each in value.items()},
        "STATICFILES_STORAGE": str,
        "DEFAULT_FILE_STORAGE": str,
    }
    found = {}
    for name, read in readers.items():
        value = get(name)
        if value is not ABSENT and not is_stub(value):
            try:
                found[name] = read(value)
            except (AttributeError, KeyError, TypeError, ValueError):
                # Not of the form that Django asks for; its own checks say so.
                continue
    return found


def secrets_of(get: Get) -> list[str]:
    """Return what settings have that must not be shown: keys and passwords."""
    found = [get("SECRET_KEY"), *_each(get("SECRET_KEY_FALLBACKS")), get("EMAIL_HOST_PASSWORD")]
    databases = get("DATABASES")
    if isinstance(databases, Mapping):
        found += [each.get("PASSWORD") for each in databases.values() if isinstance(each, Mapping)]
    return [str(each) for each in found if isinstance(each, str) and each]


def located(settings: Snapshot, root: Path) -> Snapshot:
    """Return a snapshot whose paths are relative to the project where they are below it."""

    def place(path: Any) -> Any:
        if not isinstance(path, str) or not path or ":memory:" in path or path.startswith("file:"):
            return path
        absolute = os.path.normpath(root / path)
        if absolute == str(root):
            return "."
        return absolute.removeprefix(f"{root}/")

    found = dict(settings)
    for name in ("STATIC_ROOT", "MEDIA_ROOT", "SESSION_FILE_PATH"):
        if name in found:
            found[name] = place(found[name])
    for database in found.get("DATABASES", {}).values():
        if "sqlite" in database["engine"] or "spatialite" in database["engine"]:
            database["name"] = place(database["name"])
    for cache in found.get("CACHES", {}).values():
        if "file" in cache["backend"].lower():
            cache["location"] = place(cache["location"])
    if "LOGGING" in found:
        found["LOGGING"] = {name: place(file) for name, file in found["LOGGING"].items()}
    return found


def _each(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def database(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a database is."""
    return {
        "engine": str(value.get("ENGINE", "")),
        "host": plain(value.get("HOST")),
        "port": plain(value.get("PORT")),
        "name": plain(value.get("NAME")),
        "password": bool(value.get("PASSWORD")),
        "service": bool((value.get("OPTIONS") or {}).get("service")),
    }


def layer(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a channel layer is and where its servers are."""
    config = value.get("CONFIG") or {}
    hosts = config.get("hosts")
    return {
        "backend": str(value.get("BACKEND", "")),
        "hosts": None if hosts is None else [redis_host(each) for each in hosts],
        "passwords": [has_password(each) for each in hosts or ()],
    }


def has_password(value: Any) -> bool:
    """Return whether a Redis is given with a password; one of Sentinel's is not looked at."""
    if isinstance(value, Mapping):
        if value.get("sentinels") or value.get("password"):
            return True
        value = value.get("address")
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    try:
        return isinstance(value, str) and bool(urlsplit(value).password)
    except ValueError:
        return True


def redis_host(value: Any) -> str | None:
    """Return the host of a Redis as channels_redis takes it; None if there is none."""
    if isinstance(value, Mapping):
        if value.get("sentinels"):
            return redis_host(value["sentinels"][0])
        value = value.get("address") or value.get("host")
    if isinstance(value, list | tuple) and value:
        return str(value[0])
    return url(value)


def url(value: Any) -> str | None:
    """Return the host of a URL, a path if it has none; None if there is no URL."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str) or not value:
        return None
    if "://" not in value:
        return value
    try:
        parts = urlsplit(value)
        return parts.hostname or parts.path or ""
    except ValueError:
        return ""


def cache(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cache is and where."""
    locations = value.get("LOCATION")
    first = locations[0] if isinstance(locations, list | tuple) and locations else locations
    backend = str(value.get("BACKEND", ""))
    if "file" in backend.lower():
        return {"backend": backend, "location": plain(first)}
    return {"backend": backend, "location": url(plain(first)) if first else None}


def log_files(value: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of log handlers that a logger uses, by handler."""
    loggers = [*(value.get("loggers") or {}).values(), value.get("root") or {}]
    used = {name for each in loggers for name in each.get("handlers") or ()}
    handlers = value.get("handlers") or {}
    # Handlers of other handlers, such as a MemoryHandler's target.
    used |= {
        str(each.get("target", "")).removeprefix("cfg://handlers.") for each in handlers.values()
    }
    found = {
        name: each.get("filename") or each.get("file")
        for name, each in handlers.items()
        if each.get("filename")
    }
    # Every handler is made, whether a logger uses it or not, and opens its file unless it delays.
    return {
        name: str(file)
        for name, file in found.items()
        if name in used or not handlers[name].get("delay")
    }


def secret_key(value: Any, root: Path) -> dict[str, Any]:
    """Return what is wrong with a SECRET_KEY, without it."""
    key = str(value or "")
    return {
        "length": len(key),
        "insecure": key.startswith("django-insecure-"),
        "where": holding(root, key) if len(key) >= 8 else "",
    }
