"""What is looked at once the settings are imported: each step on its own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core import checks

from channels_kit.examine.failures import failed_module, frames
from channels_kit.examine.finding import OVERLAY, Finding
from channels_kit.examine.guards import RefusedError
from channels_kit.examine.sources import asgi_callables, package_of
from channels_kit.examine.stubs import Stub, is_stub

if TYPE_CHECKING:
    from channels_kit.examine.child import Child

OWN = {
    "security.W004",  # HSTS: the edge's
    "security.W005",
    "security.W008",  # the redirect to https: the edge's
    "security.W010",
    "security.W011",
    "security.W012",  # cookies over https alone: a rule of its own
    "security.W016",
    "security.W009",  # SECRET_KEY: a rule of its own
    "security.W018",  # DEBUG, likewise
    "security.W020",  # ALLOWED_HOSTS, likewise
    "security.W021",
    "security.E023",
    "4_0.E001",  # CSRF_TRUSTED_ORIGINS, likewise
}
"""Checks that the edge, or a rule of this package, answers."""

WITHOUT_MODELS = ("security.", "urls.", "templates.", "staticfiles.", "caches.", "files.")
"""Checks whose errors are true although a stand-in is in the place of a module."""


def own_configs(root: Path) -> list[Any]:
    """Return the applications of the project itself."""
    return [each for each in apps.get_app_configs() if Path(each.path).is_relative_to(root)]


def system_checks(child: Child) -> None:
    """Run every check of ``manage.py check --deploy`` that asks no database."""
    for check in checks.registry.registry.get_checks(include_deployment_checks=True):
        if checks.Tags.database in getattr(check, "tags", ()):
            continue
        messages: list[Any] = []
        with child.doing("the system checks run"):
            try:
                messages = list(check(app_configs=None, databases=None) or ())
            except Exception as error:
                # A check that asks the database, or a cache of Django's that makes its directory: a
                # rule names that.
                mine = failed_module(error, child.root, child.settings_module)
                if _asks_a_database(error) and not mine:
                    continue
                if isinstance(error, RefusedError) and not frames(error, child.root):
                    continue
                raise
        for message in messages:
            if message.id not in OWN and not message.is_silenced():
                _report(child, message)


def _asks_a_database(error: Exception) -> bool:
    from django.db import DatabaseError, InterfaceError

    return isinstance(error, DatabaseError | InterfaceError)


def _report(child: Child, message: Any) -> None:
    is_error = message.level >= checks.ERROR
    if child.stubs and is_error and not str(message.id).startswith(WITHOUT_MODELS):
        return
    where = message.obj
    if isinstance(where, type) or hasattr(where, "_meta"):
        where = getattr(getattr(where, "_meta", None), "label", where)
    child.tell_finding(
        Finding(
            name=str(message.id or "check"),
            what=str(where or message.id or "check"),
            value=" ".join(str(message.msg).split()),
            why=" ".join(str(message.hint or "A system check of Django reports this.").split()),
            line="In the application: fix this." if is_error else "",
            obstacle=is_error,
        )
    )


def asgi(child: Child) -> None:
    """Import the ASGI callable and look at what it answers."""
    module_name, _, attribute = child.application.partition(":")
    candidates = ", ".join(asgi_callables(child.root))
    line = f"channels_application: {candidates.split(', ')[0] if candidates else '...'}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not (error.name and f"{module_name}.".startswith(f"{error.name}.")):
            raise
        child.tell_finding(
            Finding(
                name="no-asgi-callable",
                what="channels_application",
                value=child.application,
                why=f"The project has no module {error.name}."
                + (f" It has: {candidates}." if candidates else ""),
                line=line,
            )
        )
        return
    found: Any = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if is_stub(found):
        return
    why = ""
    if found is None:
        why = f"The module {module_name} has no {attribute}."
    elif not callable(found):
        why = f"{attribute} is {type(found).__name__}, which cannot be called."
    elif _is_wsgi(found):
        why = f"{attribute} is a WSGI callable: it answers pages but no sockets."
    if why:
        child.tell_finding(
            Finding(
                name="no-asgi-callable",
                what="channels_application",
                value=child.application,
                why=why + (f" It has: {candidates}." if candidates else ""),
                line=line,
            )
        )
    else:
        _look_at_routes(child, found)


def _is_wsgi(found: Any) -> bool:
    from django.core.handlers.wsgi import WSGIHandler

    if isinstance(found, WSGIHandler):
        return True
    try:
        names = list(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return False
    return names[:2] in (["environ", "start_response"], ["env", "start_response"])


def _look_at_routes(child: Child, application: Any) -> None:
    from django.core.handlers.asgi import ASGIHandler

    routes = getattr(application, "application_mapping", None)
    answers_sockets = not isinstance(application, ASGIHandler)
    if isinstance(routes, dict) and not isinstance(routes, Stub):
        answers_sockets = "websocket" in routes
        channels = getattr(routes.get("channel"), "application_mapping", None)
        if isinstance(channels, dict):
            child.tell_facts(channels=sorted(map(str, channels)))
    if not answers_sockets:
        child.tell_finding(
            Finding(
                name="no-sockets",
                what=child.application,
                value="pages only",
                why="It routes no WebSockets: browsers that open one are refused.",
                line='In the application: ProtocolTypeRouter({"http": ..., "websocket": ...})',
                obstacle=False,
            )
        )


def servers(child: Child) -> None:
    """Look whether what the settings name can be imported: engines, layers, caches."""
    wanted = {
        f"DATABASES[{alias!r}]": f"{database.get('ENGINE', '')}.base"
        for alias, database in settings.DATABASES.items()
        if database.get("ENGINE")
    }
    for group in ("CHANNEL_LAYERS", "CACHES"):
        for alias, each in (getattr(settings, group, None) or {}).items():
            wanted[f"{group}[{alias!r}]"] = str(each.get("BACKEND", "")).rpartition(".")[0]
    failed = set()
    for what, module in wanted.items():
        if not module or is_stub(module):
            continue
        try:
            importlib.import_module(module)
        except Exception as error:
            failed.add(what)
            child.tell_finding(_cannot_import(what, module, error))
    if "CHANNEL_LAYERS['default']" in wanted and not failed & {"CHANNEL_LAYERS['default']"}:
        try:
            layers = importlib.import_module("channels.layers")
            _make_connection(layers.get_channel_layer())
        except Exception as error:
            child.tell_finding(
                Finding(
                    name="layer-fails",
                    what='CHANNEL_LAYERS["default"]',
                    value=" ".join(str(error).split())[:300],
                    why="The channel layer or its connection cannot be created.",
                    line="In the settings: fix CHANNEL_LAYERS."
                    if settings.SETTINGS_MODULE.startswith("channels_kit.")
                    else OVERLAY,
                )
            )


def _make_connection(layer: Any) -> None:
    """Make a connection of channels_redis.core, and do not connect it.

    It takes the options of its host only then: such as those of TLS, for an address without TLS.
    """
    # Of the class: the layer of pubsub asks an event loop for any attribute that it has not.
    if not hasattr(type(layer), "create_pool"):
        return
    # Those that are not set have a finding of their own.
    if all(any(host.values()) for host in layer.hosts if isinstance(host, dict)):
        layer.create_pool(0).make_connection()


def _cannot_import(what: str, module: str, error: Exception) -> Finding:
    name = getattr(error, "name", None) or module
    package = package_of(str(name))
    if "psycopg" in str(error):
        package = "psycopg[binary]"
    elif "MySQLdb" in str(error):
        package = "mysqlclient"
    return Finding(
        name="missing-driver",
        what=what.replace("'", '"'),
        value=module.removesuffix(".base"),
        why=f"It cannot be imported: {' '.join(str(error).split()).split('. ')[0][:200]}.",
        line=f"In the project's requirements: add {package}",
    )


def files(child: Child) -> None:
    """Tell which models store files in the default place, and what the project calls Celery."""
    from django.core.files.storage import FileSystemStorage, default_storage
    from django.db.models import FileField

    fields = []
    for config in own_configs(child.root):
        for model in config.get_models():
            for field in model._meta.local_fields:
                if isinstance(field, FileField):
                    storage = field.storage
                    if storage is default_storage or type(storage) is FileSystemStorage:
                        fields.append(f"{model._meta.label}.{field.name}")
    child.tell_facts(file_fields=fields, celery=_celery_module(child.root))


def _celery_module(root: Path) -> str:
    """Return the package of the project that makes a Celery application; empty if none does."""
    for file in sorted([*root.glob("*/celery.py"), *root.glob("*/*/celery.py")]):
        if "Celery(" in file.read_text(errors="replace"):
            return ".".join(file.parent.relative_to(root).parts)
    return ""


def migrations(child: Child) -> None:
    """Look at the migrations of the project's applications, without a database."""
    from channels_kit.examine.migrations import look

    look(child)


def static(child: Child) -> None:
    """Look for static files that templates and style sheets name."""
    from channels_kit.examine.static import look

    look(child)


STEPS: tuple[tuple[str, Callable[[Child], None]], ...] = (
    ("the ASGI callable is imported", asgi),
    ("the system checks run", system_checks),
    ("the servers' libraries are imported", servers),
    ("the models' files are looked at", files),
    ("the migrations are read", migrations),
    ("the static files are looked for", static),
)
