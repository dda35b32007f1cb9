"""roles/channels/tasks/migrate.yml on this machine, with Django's own command.

The application is one that prints while its settings are imported, and says words that Django says.
"""

import os
import sys
from pathlib import Path

import pytest

from .house import ROLES, Run, run

SETTINGS = """\
import sys
print("Applying local settings")
print("Traceback of a failure that was handled", file=sys.stderr)
SECRET_KEY = "x"
INSTALLED_APPS = ["rooms"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
"""
MANAGE = """\
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
MIGRATION = """\
from django.db import migrations, models
class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Room", [("id", models.BigAutoField(primary_key=True))]),
    ]
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """An application with one migration, and a channels-manage that runs its commands."""
    application = tmp_path / "app"
    migrations = application / "rooms" / "migrations"
    migrations.mkdir(parents=True)
    for package in (migrations.parent, migrations):
        (package / "__init__.py").touch()
    (application / "settings.py").write_text(SETTINGS)
    (application / "manage.py").write_text(MANAGE)
    (migrations / "0001_initial.py").write_text(MIGRATION)
    manage = tmp_path / "channels-manage"
    manage.write_text(
        f'#!/bin/sh\nshift 2\ncd {application} && exec {sys.executable} manage.py "$@"\n'
    )
    manage.chmod(0o755)
    return application


def migrate(application: Path, *more: str) -> Run:
    play = {
        "name": "Migrate",
        "hosts": "all",
        "gather_facts": False,
        "vars": {
            "channels_release": {"id": "r1"},
            "_channels_host": {"releases": [{"release": "r1"}]},
        },
        "tasks": [
            {
                "name": "Migrate | Migrate",
                "ansible.builtin.include_role": {
                    "name": "channels",
                    "tasks_from": "migrate",
                    "rolespec_validate": False,
                },
            }
        ],
    }
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    home = application.parent / "home"
    path = f"{application.parent}:{os.environ['PATH']}"
    inventory = {"all": {"hosts": {"app1": host}}}
    return run(home, inventory, [play], *more, PATH=path, ANSIBLE_ROLES_PATH=str(ROLES))


def changed(done: Run) -> str:
    assert done.code == 0, done.output
    return done.output.rpartition("changed=")[2].split()[0]


def test_only_a_migration_is_a_change(application: Path) -> None:
    assert changed(migrate(application, "--check")) == "1"
    assert not (application / "db.sqlite3").stat().st_size
    assert changed(migrate(application)) == "1"
    assert changed(migrate(application)) == "0"
    assert changed(migrate(application, "--check")) == "0"


def test_an_application_that_does_not_start_fails_in_check_mode_too(application: Path) -> None:
    """Also without a traceback, as Django prints a wrong usage."""
    (application / "settings.py").write_text(SETTINGS.replace("rooms", "nowhere"))
    with_traceback = migrate(application, "--check")
    assert with_traceback.code != 0
    assert "No module named 'nowhere'" in with_traceback.output

    (application / "manage.py").write_text("import sys\nsys.exit('CommandError: no')\n")
    without = migrate(application, "--check")
    assert without.code != 0
    assert "CommandError: no" in without.output
