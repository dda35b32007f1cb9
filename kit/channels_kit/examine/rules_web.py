"""What of an application's settings does not work behind the edge, or on a read-only host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from channels_kit.examine.finding import OVERLAY, Finding, Subject
from channels_kit.examine.remedies import Remedies
from channels_kit.examine.rules import is_writable, writable_line
from channels_kit.examine.snapshot import Snapshot

STATICFILES = "django.contrib.staticfiles"


def findings(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield what the settings get wrong; a setting that is not in the snapshot is not looked at."""
    for rule in (allowed_hosts, origins, scheme, logs, media, static):
        yield from rule(settings, subject, remedies)


def is_allowed(domain: str, pattern: str) -> bool:
    """Return whether an entry of ALLOWED_HOSTS lets a domain through, as Django does."""
    domain, pattern = domain.lower().strip("[]"), pattern.lower().strip("[]")
    if pattern.startswith("."):
        return domain.endswith(pattern) or domain == pattern[1:]
    return pattern in ("*", domain)


def allowed_hosts(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield what ALLOWED_HOSTS gets wrong."""
    if "ALLOWED_HOSTS" not in settings:
        return
    allowed = settings["ALLOWED_HOSTS"] or []
    line = remedies.for_setting("ALLOWED_HOSTS", "hosts")
    entries = [allowed] if isinstance(allowed, str) else [str(each) for each in allowed]
    malformed = [
        each for each in entries if "/" in each or re.search(r"^[^:\[\]]*:\d+$|\]:\d+$", each)
    ]
    for each in malformed:
        yield Finding(
            name="allowed-hosts-form",
            what="ALLOWED_HOSTS",
            value=repr(each),
            why="Django compares names without scheme and port: this entry matches no request.",
            line=line,
        )
    wanted = [
        name for name in subject.domains if not any(is_allowed(name, each) for each in entries)
    ]
    # An entry with a port was meant to be one of them, and was named.
    wanted = [name for name in wanted if not any(name in each for each in malformed)]
    if wanted:
        yield Finding(
            name="allowed-hosts",
            what="ALLOWED_HOSTS",
            value=", ".join(entries) or "empty",
            why=f"Every page of {', '.join(wanted)} would be answered with 400.",
            line=line,
        )


def origins(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield what CSRF_TRUSTED_ORIGINS gets wrong."""
    for each in settings.get("CSRF_TRUSTED_ORIGINS") or []:
        if "://" not in str(each):
            yield Finding(
                name="csrf-origins-form",
                what="CSRF_TRUSTED_ORIGINS",
                value=repr(each),
                why="Django takes origins with their scheme, such as https://example.org.",
                line=remedies.for_setting("CSRF_TRUSTED_ORIGINS", "origins"),
            )


def scheme(settings: Snapshot, subject: Subject, _: Remedies) -> Iterator[Finding]:
    """Yield what a page's scheme gets wrong: the edge speaks to the workers without TLS."""
    if not subject.domains:
        return
    cookies = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE")
    if subject.https:
        if off := [name for name in cookies if settings.get(name) is False]:
            yield Finding(
                name="insecure-cookies",
                what=", ".join(off),
                value="False",
                why="Browsers also send these cookies over http, where others can read them.",
                line="In the settings: set to True if the edge serves https.",
                obstacle=False,
            )
        return
    if settings.get("SECURE_SSL_REDIRECT"):
        yield Finding(
            name="ssl-redirect",
            what="SECURE_SSL_REDIRECT",
            value="True",
            why="Every page is redirected to https, but this cluster serves only http.",
            line="cluster_tls: acme  # or files",
        )
    if insecure := [name for name in cookies if settings.get(name)]:
        yield Finding(
            name="secure-cookies",
            what=", ".join(insecure),
            value="True",
            why="This cluster serves only http. Browsers send these cookies over http to localhost"
            " only: nobody can log in.",
            line="cluster_tls: acme  # or files",
            obstacle=False,
        )


def logs(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield log files that a process cannot open."""
    del remedies
    for handler, file in settings.get("LOGGING", {}).items():
        if not is_writable(file, subject):
            directory = file.rpartition("/")[0]
            yield Finding(
                name="log-file",
                what=f'LOGGING["handlers"]["{handler}"]',
                value=file,
                why="A process opens this file when it starts, but cannot on a host: a release and"
                " the system are read-only.",
                line=writable_line(directory, subject) if subject.overlay else OVERLAY,
            )


def media(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield uploads that a process cannot store."""
    del remedies
    if "MEDIA_ROOT" not in settings:
        return
    storages = settings.get("STORAGES", {})
    backend = settings.get("DEFAULT_FILE_STORAGE") or storages.get("default", "")
    if not str(backend).endswith("FileSystemStorage"):
        return
    fields: Sequence[str] = settings.get("file_fields", ())
    place = str(settings["MEDIA_ROOT"] or ".")
    if not fields or is_writable(place, subject):
        return
    yield Finding(
        name="media-read-only",
        what="MEDIA_ROOT",
        value=place if settings["MEDIA_ROOT"] else "not set: the project's directory",
        why=f"Uploads are stored there ({_few(fields)}), but a release and the system are"
        " read-only on a host.",
        line=writable_line(place, subject),
    )


def static(settings: Snapshot, subject: Subject, remedies: Remedies) -> Iterator[Finding]:
    """Yield static files that nobody can collect or find."""
    if STATICFILES in settings.get("INSTALLED_APPS", ()):
        if not subject.static and not settings.get("STATIC_ROOT", "?"):
            yield Finding(
                name="static-root",
                what="STATIC_ROOT",
                value="not set",
                why="collectstatic has no directory to write to: pages get no static files.",
                line=remedies.for_setting("STATIC_ROOT"),
            )
        if "STATIC_URL" in settings and not settings["STATIC_URL"]:
            yield Finding(
                name="static-url",
                what="STATIC_URL",
                value="not set",
                why="Templates cannot name static files.",
                line='In the settings: STATIC_URL = "static/"',
            )


def _few(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
