"""What can be told of an application without running it."""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from channels_kit.examine.finding import Finding

SKIPPED = {"__pycache__", "node_modules", "site-packages"}
ASIDE = re.compile(
    r"(?:^|/)(?:tests?|docs?|examples?|conftest\.py|test_[^/]*|[^/]*_tests?\.py)(?:/|$)"
)
"""Files that no process of a cluster imports."""

NEWEST = (3, 13)
"""The newest Python that the kit is tested with."""

SETTINGS_SET = re.compile(
    r"""DJANGO_SETTINGS_MODULE['"]\s*(?:,|\]\s*=)\s*\(?\s*['"]([A-Za-z_][\w.]*)['"]"""
)

PACKAGES = {
    "Crypto": "pycryptodome",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "allauth": "django-allauth",
    "bs4": "beautifulsoup4",
    "corsheaders": "django-cors-headers",
    "crispy_forms": "django-crispy-forms",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "debug_toolbar": "django-debug-toolbar",
    "decouple": "python-decouple",
    "dj_database_url": "dj-database-url",
    "django_celery_beat": "django-celery-beat",
    "django_extensions": "django-extensions",
    "django_filters": "django-filter",
    "django_redis": "django-redis",
    "dotenv": "python-dotenv",
    "environ": "django-environ",
    "jwt": "PyJWT",
    "oauth2_provider": "django-oauth-toolkit",
    "psycopg2": "psycopg2-binary",
    "rest_framework": "djangorestframework",
    "rest_framework_simplejwt": "djangorestframework-simplejwt",
    "sentry_sdk": "sentry-sdk",
    "sklearn": "scikit-learn",
    "split_settings": "django-split-settings",
    "storages": "django-storages",
    "strawberry_django": "strawberry-graphql-django",
    "yaml": "PyYAML",
}
"""Packages whose module is called otherwise, by the module."""


def package_of(module: str) -> str:
    """Return the package that a module most likely comes from."""
    top = module.partition(".")[0]
    return PACKAGES.get(top, top.replace("_", "-"))


def python_files(directory: Path) -> Iterator[Path]:
    """Yield the Python files below a directory in a fixed order."""
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(
            name for name in directories if name not in SKIPPED and not name.startswith(".")
        )
        yield from (Path(parent, name) for name in sorted(names) if name.endswith(".py"))


def is_importable(file: Path, root: Path) -> bool:
    """Return whether a process of the application may import a file."""
    relative = file.relative_to(root)
    if ASIDE.search(relative.as_posix()):
        return False
    if not all(part.isidentifier() for part in relative.with_suffix("").parts):
        return False
    return len(relative.parts) == 1 or any(
        (parent / "__init__.py").is_file() for parent in file.parents if parent.is_relative_to(root)
    )


def syntax_errors(root: Path) -> Iterator[Finding]:
    """Yield a finding for each file that this Python cannot read."""
    for file in python_files(root):
        name = file.relative_to(root).as_posix()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(file.read_bytes(), name, "exec", dont_inherit=True, flags=ast.PyCF_ONLY_AST)
        except SyntaxError as error:
            yield syntax_finding(error, name, is_importable(file, root))
        except (OSError, ValueError):
            # A link to nowhere; a file with zero bytes in it.
            continue


def syntax_finding(error: SyntaxError, name: str, imported: bool) -> Finding:
    """Return what to say of a syntax error in a file."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    why = f"Python {version} cannot parse this file."
    line = f"In {name}: fix line {error.lineno or 1}."
    if sys.version_info < NEWEST:
        newest = ".".join(map(str, NEWEST))
        line += f' Or, if a newer Python can parse it: channels_python: "{newest}"'
    return Finding(
        name="syntax-error",
        what=f"{name}:{error.lineno or 1}",
        value=str(error.msg),
        why=why if imported else f"{why} It seems that no process imports it.",
        line=line,
        obstacle=imported,
    )


def settings_modules(root: Path) -> list[str]:
    """Return the settings modules that the project's own files name, the most likely first."""
    found = []
    for file in sorted(python_files(root), key=lambda each: (each.name != "manage.py", str(each))):
        if file.name in ("manage.py", "asgi.py", "wsgi.py", "celery.py"):
            found += SETTINGS_SET.findall(file.read_text(errors="replace"))
    return list(dict.fromkeys(found))


def asgi_callables(root: Path) -> list[str]:
    """Return what may be an ASGI callable: names that a file asgi.py or routing.py assigns."""
    found = []
    for file in python_files(root):
        if file.stem not in ("asgi", "routing") or ASIDE.search(str(file.relative_to(root))):
            continue
        module = ".".join(file.relative_to(root).with_suffix("").parts)
        found += [f"{module}:{name}" for name in assigned(file) if name in ("application", "app")]
    return sorted(found, key=lambda each: "asgi:" not in each)


def assigned(file: Path) -> list[str]:
    """Return the names that a module assigns at its top level."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []
    targets = [
        target
        for node in tree.body
        for target in (node.targets if isinstance(node, ast.Assign) else [])
    ]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def holding(root: Path, text: str) -> str:
    """Return the first Python file, with its line, that holds a text; empty if none does."""
    wanted = text.encode()
    for file in python_files(root):
        content = file.read_bytes()
        if (position := content.find(wanted)) >= 0:
            line = content.count(b"\n", 0, position) + 1
            return f"{file.relative_to(root).as_posix()}:{line}"
    return ""
