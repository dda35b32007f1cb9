"""The overlay in front of a project, as Django loads it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KIT = Path(__file__).parents[2] / "kit"

BASE = """
SECRET_KEY = "the project's own"
ALLOWED_HOSTS = ["localhost"]
LINK = f"http://{ALLOWED_HOSTS[0]}/"
INSTALLED_APPS = []
not_a_setting = 1
"""

# What prints the settings as Django has them, and as a module that imports the project's has them.
PRINT = """
import json
from django.conf import settings
from project import settings as direct

names = ("ALLOWED_HOSTS", "LINK", "DEBUG", "SECRET_KEY", "STATIC_ROOT")
print(json.dumps([{name: getattr(each, name) for name in names} for each in (settings, direct)]))
"""


@pytest.fixture(params=["module", "package"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "__init__.py").touch()
    if request.param == "module":
        (directory / "settings.py").write_text(BASE)
    else:
        (directory / "settings").mkdir()
        (directory / "settings/__init__.py").write_text("from .base import *\nDEBUG = True\n")
        (directory / "settings/base.py").write_text(BASE)
    return tmp_path


def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={
            "PYTHONPATH": f"{project}{os.pathsep}{KIT}",
            "DJANGO_SETTINGS_MODULE": "channels_kit.overlay",
            "CHANNELS_KIT_SETTINGS": "project.settings",
            "CHANNELS_KIT_ALLOWED_HOSTS": "chat.example.org",
            "CHANNELS_KIT_STATIC_ROOT": "/srv/static",
            "SECRET_KEY": "the clusters own",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_django_and_the_project_see_the_clusters_settings(project: Path) -> None:
    done = run(project, "-c", PRINT)
    assert done.stderr == ""
    by_django, by_project = json.loads(done.stdout)
    assert by_django == {
        "ALLOWED_HOSTS": ["chat.example.org"],
        "LINK": "http://localhost/",
        "DEBUG": False,
        "SECRET_KEY": "the clusters own",
        "STATIC_ROOT": "/srv/static",
    }
    assert by_project == by_django


def test_django_has_no_setting_of_the_overlays_own(project: Path) -> None:
    names = "import channels_kit.overlay as o; print([name for name in dir(o) if name.isupper()])"
    done = run(project, "-c", names)
    assert eval(done.stdout) == [
        *("ALLOWED_HOSTS", "DEBUG", "INSTALLED_APPS", "LINK", "SECRET_KEY"),
        *("SECURE_PROXY_SSL_HEADER", "STATIC_ROOT"),
    ]


def test_it_prints_what_it_changes(project: Path) -> None:
    done = run(project, "-m", "channels_kit.overlay")
    assert done.stderr == ""
    assert "ALLOWED_HOSTS\n  was  ['localhost']\n  is   ['chat.example.org']\n" in done.stdout
    assert "own" not in done.stdout
    changes = json.loads(run(project, "-m", "channels_kit.overlay", "--json").stdout)
    assert {
        "setting": "STATIC_ROOT",
        "was": "not set",
        "now": "/srv/static",
        "note": "",
    } in changes


@pytest.mark.parametrize("name", ["", "channels_kit.overlay"])
def test_a_missing_settings_module_is_named(project: Path, name: str) -> None:
    done = run(project, "-m", "channels_kit.overlay", CHANNELS_KIT_SETTINGS=name)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: CHANNELS_KIT_SETTINGS is {name!r}; allowed: ")
