"""What a project is made of is found by looking at its files."""

from pathlib import Path

import pytest

from packing import PackError, project

from .projects import ASGI, MANAGE, django_project, write


def look(top: Path, **given: str) -> project.Project:
    files = [path.relative_to(top).as_posix() for path in sorted(top.rglob("*")) if path.is_file()]
    return project.discover(top, files, **given)


def test_a_project_as_startproject_makes_it(tmp_path: Path) -> None:
    write(tmp_path, django_project())
    assert look(tmp_path) == project.Project(
        root=".",
        settings_module="config.settings",
        application="config.asgi:application",
        celery=None,
        static=True,
        manage=True,
        importable=True,
    )


def test_manage_py_is_found_in_a_directory_below(tmp_path: Path) -> None:
    write(tmp_path, django_project("shopsite", "backend/src/"))
    # A link at the top leads to it, and one of the tests is no project that is deployed.
    (tmp_path / "manage.py").symlink_to("backend/src/manage.py")
    write(tmp_path, {"tests/manage.py": MANAGE.format(settings="tests.settings")})
    found = look(tmp_path)
    assert (found.root, found.settings_module) == ("backend/src", "shopsite.settings")
    assert found.application == "shopsite.asgi:application"


def test_several_projects_are_refused_with_the_choices(tmp_path: Path) -> None:
    write(tmp_path, {**django_project(below="b/"), **django_project("other", "a/")})
    with pytest.raises(PackError, match=r"several.*channels_root.*: a, b$"):
        look(tmp_path)
    assert look(tmp_path, root="a").settings_module == "other.settings"
    assert look(tmp_path, root="b").settings_module == "config.settings"
    with pytest.raises(PackError, match=r"channels_root is c;"):
        look(tmp_path, root="c")


@pytest.mark.parametrize(
    "line",
    [
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")',
        'os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"',
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", os.getenv("MODE", "config.settings"))',
        'from decouple import config; os.environ.setdefault("DJANGO_SETTINGS_MODULE",'
        ' config("SETTINGS", default="config.settings"))',
    ],
)
def test_the_settings_module_is_read_however_it_is_set(tmp_path: Path, line: str) -> None:
    write(tmp_path, {**django_project(), "config/asgi.py": "application = 1\n"})
    write(tmp_path, {"manage.py": f"import os\ndef main():\n    {line}\n    import django\n"})
    assert look(tmp_path).settings_module == "config.settings"


def test_the_server_s_settings_come_before_those_of_manage_py(tmp_path: Path) -> None:
    """Many projects have config.settings.local in manage.py, for the developer's machine."""
    write(
        tmp_path,
        {
            "manage.py": MANAGE.format(settings="config.settings.local"),
            "config/__init__.py": "",
            "config/settings/__init__.py": "",
            "config/settings/base.py": 'ASGI_APPLICATION = "config.asgi.application"\n'
            'THIRD = ["django.contrib.staticfiles"]\nINSTALLED_APPS = THIRD\n',
            "config/settings/local.py": "from .base import *\n",
            "config/settings/production.py": "from .base import *\n",
            "config/asgi.py": ASGI.format(settings="config.settings.production"),
        },
    )
    found = look(tmp_path)
    assert found.settings_module == "config.settings.production"
    assert found.application == "config.asgi:application"
    assert found.static


@pytest.mark.parametrize(
    ("named", "others"),
    [
        ("config.settings.local", {"config/settings/local.py": "DEBUG = True\n"}),
        ("config.settings.development", {}),
        ("config.settings", {"config/settings/dev.py": "DEBUG = True\n"}),
    ],
)
def test_settings_for_production_are_taken(
    tmp_path: Path, named: str, others: dict[str, str]
) -> None:
    """asgi.py names those of developers, or the package; the server's environment the right one."""
    write(
        tmp_path,
        {
            "manage.py": MANAGE.format(settings=named),
            "config/asgi.py": ASGI.format(settings=named),
            "config/settings/__init__.py": "",
            "config/settings/base.py": "INSTALLED_APPS = []\n",
            "config/settings/prod.py": "from .base import *\n",
            **others,
        },
    )
    assert look(tmp_path).settings_module == "config.settings.prod"


def test_settings_that_are_named_and_missing_are_in_the_message(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "manage.py": MANAGE.format(settings="config.settings"),
            "config/asgi.py": ASGI.format(settings="config.settings.gone"),
            "config/settings/__init__.py": "",
            "config/settings/base.py": "",
        },
    )
    with pytest.raises(
        PackError,
        match=r"names the settings config.settings, config.settings.gone, but the source does"
        r".*channels_settings_module, such as config.settings.base",
    ):
        look(tmp_path)


def test_settings_that_are_not_there_are_not_taken(tmp_path: Path) -> None:
    files = django_project()
    files["config/asgi.py"] = ASGI.format(settings="config.settings.gone")
    write(tmp_path, files)
    assert look(tmp_path).settings_module == "config.settings"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config/settings.py": 'ASGI_APPLICATION = "config.routing.app"'}, "config.routing:app"),
        ({"config/settings.py": 'ASGI_APPLICATION: str = "config.asgi.top"'}, "config.asgi:top"),
        ({"config/settings.py": ""}, "config.asgi:application"),
        ({"config/settings.py": "", "config/asgi.py": "app = 1"}, "config.asgi:app"),
        # One that is not in the project is in nobody's release.
        ({"config/settings.py": 'ASGI_APPLICATION = "gone.app"'}, "config.asgi:application"),
    ],
)
def test_the_asgi_callable(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    write(tmp_path, {**django_project(), "config/routing.py": "app = 1\n", **files})
    assert look(tmp_path).application == expected


def test_what_is_given_overrides_what_is_found(tmp_path: Path) -> None:
    write(tmp_path, django_project())
    found = look(tmp_path, settings_module="packaged.settings", application="packaged:app")
    assert (found.settings_module, found.application) == ("packaged.settings", "packaged:app")
    assert not found.importable


def test_what_is_not_found_names_the_variable_to_set(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no manage.py and no asgi.py.*channels_source.*"):
        look(tmp_path)
    write(tmp_path, {"manage.py": "import django\n"})
    with pytest.raises(PackError, match=r"No settings module.*channels_settings_module"):
        look(tmp_path)
    write(tmp_path, {"manage.py": MANAGE.format(settings="settings"), "settings.py": "A = 1\n"})
    with pytest.raises(PackError, match=r"No ASGI callable.*channels_application"):
        look(tmp_path)
    assert look(tmp_path, application="shop:app").settings_module == "settings"


def test_a_project_without_manage_py(tmp_path: Path) -> None:
    write(tmp_path, django_project(below="src/"))
    (tmp_path / "src/manage.py").unlink()
    found = look(tmp_path)
    assert (found.root, found.manage) == ("src", False)
    assert found.settings_module == "config.settings"


def test_flat_modules_beside_manage_py(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "site/manage.py": MANAGE.format(settings="settings"),
            "site/settings/__init__.py": "from split_settings import include\n",
            "site/settings/core.py": 'ASGI_APPLICATION = "asgi.application"\n',
            "site/asgi.py": ASGI.format(settings="settings"),
        },
    )
    found = look(tmp_path)
    assert (found.root, found.settings_module) == ("site", "settings")
    assert (found.application, found.static) == ("asgi:application", False)


def test_the_application_of_celery(tmp_path: Path) -> None:
    write(tmp_path, django_project())
    write(
        tmp_path, {"tests/__init__.py": "", "tests/c.py": "from celery import Celery\na = Celery()"}
    )
    assert look(tmp_path).celery is None
    write(tmp_path, {"config/celery.py": 'from celery import Celery\napp = Celery("shop")\n'})
    assert look(tmp_path).celery == "config.celery"


def test_code_that_cannot_be_read_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path, {**django_project(), "shop/old.py": "print 'Python 2'\n"})
    (tmp_path / "shop/bytes.py").write_bytes(b"\xff\xfe\x00Celery(")
    assert look(tmp_path).settings_module == "config.settings"
