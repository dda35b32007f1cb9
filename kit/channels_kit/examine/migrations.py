"""Whether the migrations of the project make the tables that its models need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from channels_kit.examine.finding import Finding

if TYPE_CHECKING:
    from channels_kit.examine.child import Child

BREAKING = {
    "AddField",
    "AlterModelTable",
    "AlterOrderWithRespectTo",
    "CreateModel",
    "RemoveField",
    "RenameField",
    "RenameModel",
}
"""Operations without which queries of the models fail."""

SURE = {"AddField", "CreateModel"}
"""Those that no stand-in for a module brings about."""


def look(child: Child) -> None:
    """Tell the parent what the migrations lack."""
    from django.db.migrations.exceptions import MigrationSchemaMissing, NodeNotFoundError
    from django.db.migrations.loader import MigrationLoader
    from django.utils import translation

    from channels_kit.examine.steps import own_configs

    # As makemigrations does: names in another language are no change.
    translation.deactivate_all()
    own = {config.label: config for config in own_configs(child.root)}
    try:
        loader = MigrationLoader(None, ignore_no_migrations=True)
        for finding in problems(loader, own, set(child.stubs)):
            child.tell_finding(finding)
    except (NodeNotFoundError, MigrationSchemaMissing) as error:
        child.tell_finding(
            Finding(
                name="migrations-broken",
                what="migrations",
                value=" ".join(str(error).split())[:300],
                why="A migration depends on one that the project does not have: migrate fails.",
                line="In the project: commit the missing migration.",
            )
        )


def problems(loader: Any, own: dict[str, Any], stubs: set[str]) -> Iterator[Finding]:
    """Yield what is wrong with the migrations that a loader has read.

    Args:
        loader: Django's, which has no database.
        own: the project's applications by label.
        stubs: modules that are stand-ins.
    """
    for label, names in loader.detect_conflicts().items():
        yield Finding(
            name="migrations-conflict",
            what=f"migrations of {label}",
            value=", ".join(sorted(names)),
            why="Two migrations conflict: each is the last one. migrate fails.",
            line=f"In the project: manage.py makemigrations --merge {label}",
        )
    for label, config in own.items():
        models = [each for each in config.get_models() if each._meta.can_migrate("default")]
        if models and label not in loader.migrated_apps:
            yield Finding(
                name="no-migrations",
                what=f"migrations of {label}",
                value="none",
                why=f"Its {len(models)} models ({_few(each.__name__ for each in models)}) get no"
                " tables.",
                line=_line(label),
            )
    yield from _changes(loader, own, stubs)


def _changes(loader: Any, own: dict[str, Any], stubs: set[str]) -> Iterator[Finding]:
    """Yield changes of models that are in no migration, of an application each."""
    from django.apps import apps
    from django.db.migrations.autodetector import MigrationAutodetector
    from django.db.migrations.questioner import MigrationQuestioner
    from django.db.migrations.state import ProjectState

    detector = MigrationAutodetector(
        loader.project_state(), ProjectState.from_apps(apps), MigrationQuestioner(dry_run=True)
    )
    for label, migrations in detector.changes(graph=loader.graph).items():
        if label not in loader.migrated_apps or label not in own:
            continue
        operations = [each for migration in migrations for each in migration.operations]
        if stubs:
            operations = [each for each in operations if type(each).__name__ in SURE]
        if not operations:
            continue
        breaking = any(_breaks(each) for each in operations)
        yield Finding(
            name="migrations-missing",
            what=f"migrations of {label}",
            value=_few(each.describe() for each in operations),
            why="The models have changed since the last migration."
            + (" Queries of them fail." if breaking else ""),
            line=_line(label),
            obstacle=breaking,
        )


def _breaks(operation: Any) -> bool:
    """Return whether queries fail as long as an operation is not done."""
    field: Any = getattr(operation, "field", None)
    if type(operation).__name__ == "AddField" and getattr(field, "many_to_many", False):
        # A relation by a model of its own: that model has the table.
        through = field.remote_field.through
        return through is None or bool(
            getattr(through, "_meta", None) and through._meta.auto_created
        )
    managed: bool = getattr(operation, "options", {}).get("managed", True)
    return type(operation).__name__ in BREAKING and managed


def _line(label: str) -> str:
    return f"In the project: manage.py makemigrations {label}, and commit what it writes."


def _few(words: Any) -> str:
    """Return the first of several words, and how many more there are."""
    words = list(words)
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more
