"""Find out what a Django project is made of by looking at its files. Nothing of it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from packing import PackError

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"
STATIC_FILES = "django.contrib.staticfiles"
# A manage.py below one of these belongs to no application that is deployed.
ASIDE = frozenset({"doc", "docs", "demo", "demos", "example", "examples", "test", "tests"})
# Settings of a package, by name.
DEVELOPMENT = frozenset({"debug", "dev", "develop", "development", "local"})
PRODUCTION = ("production", "prod", "deploy")


@dataclass(frozen=True)
class Project:
    """What a play has to know of a Django project.

    Attributes:
        root: the directory of manage.py below the top of the source; "." for the top.
        settings_module: Django's settings, as a module.
        application: the ASGI callable, as module:attribute.
        celery: the module of Celery's application; None if there is none.
        static: whether django.contrib.staticfiles seems to be installed.
        manage: whether there is a manage.py.
        importable: whether the settings are found from root; else the project is to be installed.
    """

    root: str
    settings_module: str
    application: str
    celery: str | None
    static: bool
    manage: bool
    importable: bool


def discover(
    top: Path,
    files: Iterable[str],
    root: str = "",
    settings_module: str = "",
    application: str = "",
) -> Project:
    """Return what a project is made of.

    Args:
        top: the directory of the source.
        files: what would be packed of it, as paths below top.
        root: overrides what is found; so do the other two.
        settings_module: as a module.
        application: as module:attribute.

    Raises:
        PackError: something is not found, or there are several; names the variable to set.
    """
    _text.cache_clear()
    _parsed.cache_clear()
    names = [PurePosixPath(name) for name in files if name.endswith(".py")]
    scripts = manage_scripts(top, names)
    chosen = root_of(top, names, scripts, root)
    modules = _modules(names, PurePosixPath(chosen))
    script = top / chosen / "manage.py"
    told = settings_named_in(script) if script.is_file() else []
    found_settings = settings_module or _settings_of(told, modules, top)
    found_application = application or asgi_application(top, modules, found_settings)
    if not settings_module:
        # The server's settings and those of manage.py can differ: config.settings.production and
        # config.settings.local. What serves decides.
        served = modules.get(found_application.partition(":")[0])
        servers = [served] if served else []
        servers += [modules[name] for name in modules if name.endswith(("asgi", "wsgi"))]
        serving = [name for file in servers for name in settings_named_in(top / file)]
        found_settings = _settings_of(serving, modules, top) or found_settings
        told += serving
    if not found_settings:
        places = f"{_within(chosen, 'manage.py')}, asgi.py or wsgi.py"
        choices = [
            *(name for name in modules if any(name.startswith(f"{each}.") for each in told)),
            *(name for name in modules if _is_settings(top / modules[name])),
        ]
        such = " or ".join(dict.fromkeys(choices)) or "config.settings"
        why = f"No settings module is named in {places} of {top}"
        if told:
            missing = ", ".join(dict.fromkeys(told))
            why = (
                f"{places} of {top} names the settings {missing}, but the source does not have them"
            )
        raise PackError(f"{why}. Set channels_settings_module, such as {such}")
    found_application = found_application or asgi_application(top, modules, found_settings)
    if not found_application:
        raise PackError(
            f"No ASGI callable is found in {top}: {found_settings} sets no ASGI_APPLICATION, and"
            " no asgi.py or routing.py beside it has an application."
            " Set channels_application, such as config.asgi:application"
        )
    return Project(
        root=chosen,
        settings_module=found_settings,
        application=found_application,
        celery=celery_module(top, modules, found_settings),
        static=has_static_files(top, modules, found_settings),
        manage=script.is_file(),
        importable=found_settings in modules,
    )


def manage_scripts(top: Path, names: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """Return the manage.py files of Django projects. A link to another one is none of its own."""
    scripts = [
        name
        for name in names
        if name.name == "manage.py" and not (top / name).is_symlink() and _is_django(top / name)
    ]
    proper = [name for name in scripts if not ASIDE.intersection(name.parts)]
    return proper or scripts


def root_of(
    top: Path, names: Sequence[PurePosixPath], scripts: Sequence[PurePosixPath], root: str
) -> str:
    """Return the directory that the application runs in, below top.

    Raises:
        PackError: it cannot be told.
    """
    if root:
        if not (top / root).is_dir():
            raise PackError(f"channels_root is {root}; {top} has no such directory")
        return str(PurePosixPath(root))
    if len(scripts) == 1:
        return str(scripts[0].parent)
    if scripts:
        choices = ", ".join(sorted(str(script.parent) for script in scripts))
        raise PackError(
            f"{top} has several Django projects. Set channels_root to the directory of one:"
            f" {choices}"
        )
    known = set(names)
    roots = {str(_top_of_package(name, known)) for name in names if name.name == "asgi.py"}
    if len(roots) == 1:
        return roots.pop()
    if roots:
        raise PackError(
            f"{top} has no manage.py and several asgi.py. Set channels_root to the directory of"
            f" one project: {', '.join(sorted(roots))}"
        )
    raise PackError(
        f"{top} has no manage.py and no asgi.py, so it is not a Django project. Set channels_source"
        " to the directory of one, or channels_root to a directory within it"
    )


def settings_named_in(file: Path) -> list[str]:
    """Return the settings modules that a file puts into the environment, in its order."""
    found = []
    for node in ast.walk(_parsed(file)):
        match node:
            # os.environ.setdefault(NAME, value), os.environ.get(NAME, value), os.getenv(...)
            case ast.Call(args=[ast.Constant(value=key), value, *_]):
                pass
            case ast.Assign(targets=[ast.Subscript(slice=ast.Constant(value=key))], value=value):
                pass
            case _:
                continue
        if key == SETTINGS_VARIABLE:
            # setdefault(NAME, os.getenv(OTHER, "config.settings")) names it, too.
            found += [text for text in _strings(value) if "." in text or text.isidentifier()]
    return [text for text in found if text.replace(".", "").isidentifier()]


def asgi_application(top: Path, modules: dict[str, PurePosixPath], settings: str) -> str:
    """Return the ASGI callable as module:attribute; empty if it is not found."""
    for name in _settings_modules(modules, settings):
        for node in _parsed(top / modules[name]).body:
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id="ASGI_APPLICATION")], value=value)
                    | ast.AnnAssign(target=ast.Name(id="ASGI_APPLICATION"), value=value)
                ):
                    for text in _strings(value):
                        module, _, attribute = text.rpartition(".")
                        if module in modules:
                            return f"{module}:{attribute}"
    package = settings.partition(".settings")[0] if ".settings" in settings else ""
    beside = [f"{package}.{name}".lstrip(".") for name in ("asgi", "routing")]
    others = sorted((name for name in modules if name.split(".")[-1] == "asgi"), key=_depth)
    for name in [*beside, *others]:
        if name in modules:
            assigned = _assigned(top / modules[name])
            for attribute in ("application", "app"):
                if attribute in assigned:
                    return f"{name}:{attribute}"
    return ""


def celery_module(top: Path, modules: dict[str, PurePosixPath], settings: str) -> str | None:
    """Return the module that makes Celery's application; one near the settings comes first."""
    package = settings.split(".")[0]
    found = [
        name
        for name, file in modules.items()
        if not ASIDE.intersection(file.parts) and _makes_celery(top / file)
    ]
    order = sorted(
        found,
        key=lambda name: (name.split(".")[0] != package, "celery" not in name, _depth(name), name),
    )
    return order[0] if order else None


def has_static_files(top: Path, modules: dict[str, PurePosixPath], settings: str) -> bool:
    """Return whether a settings file names django.contrib.staticfiles."""
    return any(
        STATIC_FILES in _strings(_parsed(top / modules[name]))
        for name in _settings_modules(modules, settings)
    )


def _settings_modules(modules: dict[str, PurePosixPath], settings: str) -> Iterator[str]:
    """Yield the settings, and then what they may be put together from."""
    if settings in modules:
        yield settings
    inside = [name for name in modules if name.startswith(f"{settings}.")]
    package = settings.rpartition(".")[0]
    beside = [
        name
        for name in modules
        if name.rpartition(".")[0] == package and "settings" in f"{package}.{name}"
    ]
    far = [name for name in modules if "settings" in name]
    seen = {settings}
    for name in [*inside, *beside, *far]:
        if name not in seen:
            seen.add(name)
            yield name


def _modules(names: Sequence[PurePosixPath], root: PurePosixPath) -> dict[str, PurePosixPath]:
    """Return the modules that can be imported with root as the working directory."""
    found = {}
    for name in sorted(names):
        if not name.is_relative_to(root):
            continue
        parts = list(name.relative_to(root).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts and all(part.isidentifier() for part in parts):
            found[".".join(parts)] = name
    return found


def _top_of_package(name: PurePosixPath, known: set[PurePosixPath]) -> PurePosixPath:
    directory = name.parent
    while directory / "__init__.py" in known and directory != PurePosixPath():
        directory = directory.parent
    # A project without __init__.py in its package: config/asgi.py.
    return directory.parent if directory == name.parent else directory


def _settings_of(named: Sequence[str], modules: dict[str, PurePosixPath], top: Path) -> str:
    """Return the first settings that are there; of a package of settings, those for production.

    asgi.py often names config.settings.local, or the package itself, and the environment of the
    server names config.settings.production.
    """
    for name in named:
        file = top / modules.get(name, "__init__.py")
        there = name in modules and (file.name != "__init__.py" or bool(_parsed(file).body))
        package, _, last = name.rpartition(".")
        if there and last not in DEVELOPMENT:
            return name
        for parent in (name, package):
            for module in (f"{parent}.{each}" for each in PRODUCTION):
                if parent and module in modules:
                    return module
        if there:
            return name
    return ""


def _is_settings(file: Path) -> bool:
    return "INSTALLED_APPS" in _assigned(file) or "ROOT_URLCONF" in _assigned(file)


def _within(root: str, name: str) -> str:
    return str(PurePosixPath(root) / name)


def _depth(name: str) -> int:
    return name.count(".")


def _is_django(file: Path) -> bool:
    text = _text(file)
    return SETTINGS_VARIABLE in text or "execute_from_command_line" in text or "django" in text


def _makes_celery(file: Path) -> bool:
    if "Celery(" not in _text(file):
        return False
    for node in _parsed(file).body:
        match node:
            case (
                ast.Assign(
                    value=ast.Call(func=ast.Name(id="Celery") | ast.Attribute(attr="Celery"))
                )
                | ast.AnnAssign(value=ast.Call(func=ast.Name(id="Celery")))
            ):
                return True
    return False


def _assigned(file: Path) -> set[str]:
    """Return the names that a module has at its top."""
    found = set()
    for node in _parsed(file).body:
        match node:
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ImportFrom(names=aliases):
                found |= {alias.asname or alias.name for alias in aliases}
    return found


def _strings(tree: ast.AST | None) -> list[str]:
    if tree is None:
        return []
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@cache
def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@cache
def _parsed(file: Path) -> ast.Module:
    """Return a file's tree; an empty one where it is of another Python, or wrong."""
    try:
        return ast.parse(_text(file))
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])
