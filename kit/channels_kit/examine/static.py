"""Whether the static files are there that the project's templates and style sheets name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag

from channels_kit.examine.finding import Finding

if TYPE_CHECKING:
    from channels_kit.examine.child import Child

TAG = re.compile(r"""\{%-?\s*static\s+(['"])([^'"{}]+)\1\s*-?%\}""")
COMMENTS = re.compile(r"\{#.*?#\}|\{%\s*comment\b.*?\{%\s*endcomment\s*%\}|<!--.*?-->", re.DOTALL)
LINK = re.compile(
    r"""url\(\s*['"]?([^'")]+?)['"]?\s*\)|@import\s+['"]([^'"]+)['"]""", re.IGNORECASE
)
CSS_COMMENTS = re.compile(r"/\*.*?\*/", re.DOTALL)


def look(child: Child) -> None:
    """Tell the parent which static files are missing."""
    from django.apps import apps

    if not apps.is_installed("django.contrib.staticfiles"):
        return
    named: dict[str, str] = {}
    for name, where in [*in_templates(child.root), *in_style_sheets(child.root)]:
        named.setdefault(name, where)
    missing = [(name, where) for name, where in named.items() if not _is_there(name)]
    if not missing:
        return
    strict = _is_strict()
    few = ", ".join(f"{name} ({where})" for name, where in missing[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    child.tell_finding(
        Finding(
            name="static-missing",
            what="static files",
            value=few + more,
            why="Templates or style sheets name these files, but no application has them. "
            + (
                "With a manifest of hashed names, collectstatic fails, or the pages that name them"
                " answer 500."
                if strict
                else "Browsers get 404 for them."
            ),
            line=_build_line(child.root),
            obstacle=strict,
        )
    )


def _build_line(root: Path) -> str:
    """Return the line that makes the files, where the project has a build of its own."""
    for directory in (root, *list(root.parents)[:3]):
        if (directory / "package.json").is_file():
            return "channels_build: [npm ci, npm run build]"
    return "In the project: add the files, or remove what names them."


def _is_strict() -> bool:
    """Return whether the storage of static files knows each by a name from a manifest."""
    from django.conf import settings
    from django.contrib.staticfiles.storage import ManifestFilesMixin
    from django.utils.module_loading import import_string

    # Not the storage itself: one without STATIC_ROOT cannot be made, and the kit's sets it.
    storages = getattr(settings, "STORAGES", None) or {}
    name = storages.get("staticfiles", {}).get("BACKEND") or getattr(
        settings, "STATICFILES_STORAGE", ""
    )
    kind = import_string(name)
    return issubclass(kind, ManifestFilesMixin) and bool(getattr(kind, "manifest_strict", True))


def _is_there(name: str) -> bool:
    from django.contrib.staticfiles import finders

    try:
        return bool(finders.find(name))
    except Exception:
        # A name that leaves the directories: SuspiciousFileOperation.
        return False


def in_templates(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the static files that templates of the project name, and where."""
    for directory in _template_directories(root):
        for file in sorted(directory.rglob("*.html")):
            text = COMMENTS.sub(lambda match: "\n" * match[0].count("\n"), _read(file))
            for found in TAG.finditer(text):
                name = urldefrag(found[2].strip())[0]
                line = text.count("\n", 0, found.start()) + 1
                if name and not name.endswith("/"):
                    yield name, f"{file.relative_to(root).as_posix()}:{line}"


def _template_directories(root: Path) -> list[Path]:
    from django.apps import apps
    from django.conf import settings

    engines: Any = settings.TEMPLATES
    named = [Path(each) for engine in engines for each in engine.get("DIRS", ())]
    named += [Path(config.path, "templates") for config in apps.get_app_configs()]
    return [
        each
        for each in dict.fromkeys(root / each for each in named)
        if each.is_relative_to(root) and each.is_dir()
    ]


def in_style_sheets(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the static files that style sheets of the project name, and where."""
    from django.conf import settings
    from django.contrib.staticfiles.finders import get_finders

    prefix = str(settings.STATIC_URL or "/static/")
    finders: Any = get_finders()
    for finder in finders:
        for path, storage in _all_of(finder):
            if not path.endswith(".css"):
                continue
            file = Path(storage.path(path))
            if not file.is_relative_to(root):
                continue
            text = CSS_COMMENTS.sub(lambda match: "\n" * match[0].count("\n"), _read(file))
            for found in LINK.finditer(text):
                link = unquote(re.split(r"[?#]", (found[1] or found[2]).strip())[0])
                if not link or re.match(r"[a-z]+:|//", link, re.IGNORECASE):
                    continue
                if link.startswith("/"):
                    if not link.startswith(prefix):
                        continue
                    name = link.removeprefix(prefix)
                else:
                    prefixed = posixpath.join(getattr(storage, "prefix", "") or "", path)
                    name = posixpath.normpath(posixpath.join(posixpath.dirname(prefixed), link))
                line = text.count("\n", 0, found.start()) + 1
                yield name, f"{file.relative_to(root).as_posix()}:{line}"


def _all_of(finder: Any) -> Any:
    return finder.list(ignore_patterns=["node_modules"])


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
