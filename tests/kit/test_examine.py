"""Wrong applications: each fault is named before anything changes, with what removes it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from channels_kit.examine import report
from channels_kit.examine.examiner import Examiner
from channels_kit.examine.finding import Subject

from .wrong_applications import (
    ENVIRONMENT,
    PASSWORD,
    SECRET_KEY,
    SUBJECT,
    examine,
    obstacles,
    write,
)

KIT = Path(__file__).parents[2] / "kit"

OVERLAY = "channels_settings_overlay: true"
SETTINGS = "+shop/settings.py"
LAYERS = {"core": "", "pubsub": "PubSub"}


@pytest.mark.parametrize("layer", ["core", "pubsub"])
def test_a_good_application_has_no_obstacle(tmp_path: Path, layer: str) -> None:
    backend = f"channels_redis.{layer}.Redis{LAYERS[layer]}ChannelLayer"
    assert (
        examine(tmp_path, {SETTINGS: f"CHANNEL_LAYERS['default']['BACKEND'] = {backend!r}"}) == {}
    )


def test_by_hand_the_settings_need_no_variable(tmp_path: Path) -> None:
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "DJANGO_SETTINGS_MODULE"}
    assert environment != ENVIRONMENT
    assert examine(tmp_path, {}, environment=environment) == {}


WRONG: dict[str, tuple[dict[str, str | None], dict[str, Any], str, str, str]] = {
    # what is done: files, subject; what is found: name, value, a part of its line
    "no migrations": (
        {"orders/migrations/0001_initial.py": None, "orders/migrations/__init__.py": None},
        {},
        "no-migrations",
        "none",
        "makemigrations orders",
    ),
    "a field without a migration": (
        {
            "+orders/models.py": """
                class Line(models.Model):
                    order = models.ForeignKey(Order, models.CASCADE)
            """
        },
        {},
        "migrations-missing",
        "Create model Line",
        "makemigrations orders",
    ),
    "two last migrations": (
        {
            f"orders/migrations/{name}.py": """
                from django.db import migrations
                class Migration(migrations.Migration):
                    dependencies = [("orders", "0001_initial")]
                    operations = []
            """
            for name in ("0002_one", "0002_two")
        },
        {},
        "migrations-conflict",
        "0002_one, 0002_two",
        "makemigrations --merge orders",
    ),
    "a migration that is not there": (
        {
            "orders/migrations/0002_next.py": """
                from django.db import migrations
                class Migration(migrations.Migration):
                    dependencies = [("orders", "0001_another")]
                    operations = []
            """
        },
        {},
        "migrations-broken",
        "0001_another",
        "commit the missing migration",
    ),
    "syntax error": (
        {"+orders/tasks.py": "def broken(:\n    pass\n"},
        {},
        "syntax-error",
        "invalid syntax",
        "orders/tasks.py: fix line 2",
    ),
    "missing variable": (
        {SETTINGS: 'PAYMENT_KEY = os.environ["PAYMENT_KEY"]'},
        {},
        "missing-variable",
        "not set",
        "channels_environment:\n  PAYMENT_KEY: ...",
    ),
    "missing variable that is named by the application": (
        {
            SETTINGS: """
                from django.core.exceptions import ImproperlyConfigured
                if not os.environ.get("POSTGRES_HOST"):
                    raise ImproperlyConfigured("Please set POSTGRES_HOST.")
            """
        },
        {},
        "missing-variable",
        "not set",
        '  POSTGRES_HOST: "{{ cluster.database.host }}"',
    ),
    "missing variable that is taken for a text": (
        {
            SETTINGS: """
                CACHE_HOST = os.getenv("CACHE_REDIS_HOST")
                CACHE = "redis://" + os.getenv("CACHE_REDIS_HOST")
            """
        },
        {},
        "missing-variable",
        "not set",
        '  CACHE_REDIS_HOST: "{{ cluster.layer.host }}"',
    ),
    "a variable of another form": (
        {SETTINGS: 'import json\nPROXIES = json.loads(os.environ["ALLOWED_HOSTS"])'},
        {"environment": {**ENVIRONMENT, "ALLOWED_HOSTS": "shop.example.org"}},
        "variable-form",
        "cannot be read",
        "ALLOWED_HOSTS: '{{ cluster.hosts.split(\",\") | to_json }}'",
    ),
    "a variable whose absence is noticed late": (
        {
            SETTINGS: 'MEDIA_URL = os.getenv("MEDIA_URL")',
            "+shop/urls.py": """
                from django.conf import settings
                from django.conf.urls.static import static
                urlpatterns += static(
                    settings.MEDIA_URL or "",
                )
            """,
        },
        {},
        "missing-variable",
        "not set",
        "MEDIA_URL: ...",
    ),
    "a layer with options that its connection does not take": (
        {
            SETTINGS: """
                CHANNEL_LAYERS = {"default": {
                    "BACKEND": "channels_redis.core.RedisChannelLayer",
                    "CONFIG": {"hosts": [
                        {"address": os.environ["CHANNEL_LAYER_URL"], "ssl_cert_reqs": None},
                    ]},
                }}
            """
        },
        {},
        "layer-fails",
        "ssl_cert_reqs",
        OVERLAY,
    ),
    "layer in memory": (
        {
            SETTINGS: """
                CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
            """
        },
        {},
        "layer-in-memory",
        "in memory",
        OVERLAY,
    ),
    "no layer": ({SETTINGS: "CHANNEL_LAYERS = {}"}, {}, "layer-none", "no default", OVERLAY),
    "layer on the app host": (
        {SETTINGS: 'CHANNEL_LAYERS["default"]["CONFIG"]["hosts"] = [("127.0.0.1", 6379)]'},
        {},
        "layer-local",
        "Redis at 127.0.0.1",
        OVERLAY,
    ),
    "layer of Docker Compose": (
        {SETTINGS: 'CHANNEL_LAYERS["default"]["CONFIG"]["hosts"] = ["redis://redis:6379/1"]'},
        {},
        "layer-unknown-host",
        "Redis at redis",
        OVERLAY,
    ),
    "layer of a variable that is not set": (
        {SETTINGS: 'CHANNEL_LAYERS["default"]["CONFIG"]["hosts"] = [os.getenv("CHAT_REDIS_URL")]'},
        {},
        "layer-unset",
        "hosts: [None]",
        '  CHAT_REDIS_URL: "{{ cluster.layer.url }}"',
    ),
    "a layer's package is not installed": (
        {SETTINGS: 'CHANNEL_LAYERS["default"]["BACKEND"] = "channels_postgres.core.Layer"'},
        {},
        "missing-driver",
        "channels_postgres.core",
        "In the project's requirements: add channels-postgres",
    ),
    "file database with two hosts": (
        {
            SETTINGS: """
                DATABASES = {"default": {
                    "ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3",
                }}
            """
        },
        {},
        "database-file",
        "SQLite, db.sqlite3",
        OVERLAY,
    ),
    "database on the app host": (
        {SETTINGS: 'DATABASES["default"]["HOST"] = os.environ.get("DB_HOST", "localhost")'},
        {},
        "database-local",
        "postgresql at localhost",
        '  DB_HOST: "{{ cluster.database.host }}"',
    ),
    "DEBUG on": ({SETTINGS: "DEBUG = True"}, {}, "debug-on", "True", OVERLAY),
    "DEBUG on by default": (
        {SETTINGS: 'DEBUG = os.environ.get("APP_DEBUG", "1") == "1"'},
        {},
        "debug-on",
        "True",
        'APP_DEBUG: "0"',
    ),
    "port in ALLOWED_HOSTS": (
        {SETTINGS: 'ALLOWED_HOSTS = ["shop.example.org:8080"]'},
        {},
        "allowed-hosts-form",
        "'shop.example.org:8080'",
        OVERLAY,
    ),
    "another domain in ALLOWED_HOSTS": (
        {SETTINGS: 'ALLOWED_HOSTS = [".example.com"]'},
        {},
        "allowed-hosts",
        ".example.com",
        OVERLAY,
    ),
    "origin without scheme": (
        {SETTINGS: 'CSRF_TRUSTED_ORIGINS = ["shop.example.org"]'},
        {},
        "csrf-origins-form",
        "'shop.example.org'",
        OVERLAY,
    ),
    "redirect to a scheme that nobody answers": (
        {SETTINGS: "SECURE_SSL_REDIRECT = True"},
        {},
        "ssl-redirect",
        "True",
        "cluster_tls: acme",
    ),
    "missing module": (
        {"+orders/views.py": "import yaml_of_nobody"},
        {},
        "missing-module",
        "not installed",
        "In the project's requirements: add yaml-of-nobody",
    ),
    "a module that git does not know": (
        {"+orders/views.py": "from shop.local import RATE"},
        {},
        "missing-module",
        "not in the release",
        "Add shop/local.py to the project's repository",
    ),
    "missing application": (
        {SETTINGS: 'INSTALLED_APPS += ["shipping_of_nobody"]'},
        {},
        "missing-module",
        "not installed",
        "shipping-of-nobody",
    ),
    "wrong callable": (
        {},
        {"application": "shop.asgi:app"},
        "no-asgi-callable",
        "shop.asgi:app",
        "channels_application: shop.asgi:application",
    ),
    "callable in a module that is not there": (
        {},
        {"application": "shop.routing:application"},
        "no-asgi-callable",
        "shop.routing:application",
        "channels_application: shop.asgi:application",
    ),
    "WSGI callable": (
        {
            "+shop/wsgi.py": """
                from django.core.wsgi import get_wsgi_application
                application = get_wsgi_application()
            """
        },
        {"application": "shop.wsgi:application"},
        "no-asgi-callable",
        "shop.wsgi:application",
        "channels_application: shop.asgi:application",
    ),
    "settings module missing": (
        {},
        {
            "settings_module": "shop.production",
            "environment": {**ENVIRONMENT, "DJANGO_SETTINGS_MODULE": "shop.production"},
        },
        "no-settings",
        "shop.production",
        "channels_settings_module: shop.settings",
    ),
    "insecure key": (
        {SETTINGS: 'SECRET_KEY = "django-insecure-0123456789abcdef0123456789abcdef0123456789ab"'},
        {},
        "secret-key",
        "in the source, shop/settings.py:",
        OVERLAY,
    ),
    "empty key": ({SETTINGS: 'SECRET_KEY = ""'}, {}, "secret-key", "empty", OVERLAY),
    "log file in a read-only place": (
        {
            SETTINGS: """
                LOGGING = {
                    "version": 1,
                    "handlers": {"file": {"class": "logging.FileHandler",
                                          "filename": BASE_DIR / "logs" / "shop.log"}},
                    "root": {"handlers": ["file"]},
                }
            """
        },
        {"overlay": True},
        "log-file",
        "logs/shop.log",
        "channels_writable: [logs]",
    ),
    "media in a read-only place": (
        {
            SETTINGS: 'MEDIA_ROOT = BASE_DIR / "media"',
            "orders/models.py": """
                from django.db import models
                class Order(models.Model):
                    title = models.CharField(max_length=20)
                    slip = models.FileField(upload_to="slips")
            """,
            "orders/migrations/0002_slip.py": """
                from django.db import migrations, models
                class Migration(migrations.Migration):
                    dependencies = [("orders", "0001_initial")]
                    operations = [migrations.AddField(
                        "order", "slip", models.FileField(upload_to="slips", default=""),
                        preserve_default=False)]
            """,
        },
        {},
        "media-read-only",
        "media",
        "channels_writable: [media]",
    ),
    "connects at import": (
        {"+orders/views.py": 'import socket\nsocket.create_connection(("10.0.0.20", 6379))'},
        {},
        "connects-at-import",
        "10.0.0.20:6379",
        "connect on first use",
    ),
    "asks the database at import": (
        {"+orders/views.py": "COUNT = Order.objects.count()"},
        {},
        "connects-at-import",
        "database",
        "connect on first use",
    ),
    "writes at import": (
        {SETTINGS: '(BASE_DIR / "cache").mkdir()'},
        {},
        "writes-at-import",
        "cache",
        "channels_writable: [cache]",
    ),
    "a layer without the password of the cluster": (
        {
            SETTINGS: """
                CHANNEL_LAYERS["default"]["CONFIG"]["hosts"] = [("10.0.0.20", 6379)]
                os.environ.get("REDIS_PASSWORD")
            """
        },
        {},
        "layer-no-password",
        "Redis at 10.0.0.20",
        'REDIS_PASSWORD: "{{ cluster.layer.password }}"',
    ),
    "a layer without the password that its settings do not ask for": (
        {SETTINGS: 'CHANNEL_LAYERS["default"]["CONFIG"]["hosts"] = ["redis://10.0.0.20:6379/1"]'},
        {},
        "layer-no-password",
        "Redis at 10.0.0.20",
        OVERLAY,
    ),
    "a database without the password of the cluster": (
        {SETTINGS: 'DATABASES["default"]["PASSWORD"] = os.environ.get("DB_PASSWORD", "")'},
        {},
        "database-no-password",
        "10.0.0.20",
        'DB_PASSWORD: "{{ cluster.database.password }}"',
    ),
    "exits at import": (
        {"+orders/views.py": "import sys\nsys.exit(3)"},
        {},
        "exits-at-import",
        "exit status 3",
        "orders/views.py",
    ),
    "ends the process at import": (
        {"+orders/views.py": "import os\nos._exit(4)"},
        {},
        "exits-at-import",
        "exit status 4",
        "orders/views.py",
    ),
    "is killed at import": (
        {"+orders/views.py": "import os\nos.kill(os.getpid(), 9)"},
        {},
        "ends-at-import",
        "signal 9",
        "manage.py check --deploy",
    ),
    "infinite loop at import": (
        {"+orders/views.py": "while True:\n    pass"},
        {"limit": 5},
        "endless-start",
        "5 s",
        "orders/views.py",
    ),
    "raises at import": (
        {"+orders/views.py": "RATE = 1 / 0"},
        {},
        "fails-at-import",
        "ZeroDivisionError: division by zero",
        "In orders/views.py: fix line 7",
    ),
    "custom user that is not installed": (
        {SETTINGS: 'AUTH_USER_MODEL = "people.User"'},
        {},
        "fails-at-import",
        "people.User",
        "",
    ),
    "a check of Django fails": (
        {
            "+orders/models.py": """
                class Basket(models.Model):
                    total = models.DecimalField(max_digits=5)
                    class Meta:
                        managed = False
            """
        },
        {},
        "fields.E130",
        "decimal_places",
        "In the application",
    ),
    "static file missing under a manifest": (
        {
            SETTINGS: """
                STORAGES = {
                    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
                    "staticfiles": {
                        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
                    },
                }
            """,
            "orders/templates/orders/index.html": '{% load static %}{% static "dist/app.js" %}',
            "package.json": "{}",
        },
        {},
        "static-missing",
        "dist/app.js (orders/templates/orders/index.html:1)",
        "channels_build: [npm ci, npm run build]",
    ),
    "sessions in the memory of a process": (
        {SETTINGS: 'SESSION_ENGINE = "django.contrib.sessions.backends.cache"'},
        {},
        "sessions-in-process",
        "each process's memory",
        OVERLAY,
    ),
    "sessions in files": (
        {SETTINGS: 'SESSION_ENGINE = "django.contrib.sessions.backends.file"'},
        {},
        "sessions-in-files",
        "backends.file",
        "backends.db",
    ),
    "cache in a read-only place": (
        {
            SETTINGS: """
                CACHES = {"default": {
                    "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                    "LOCATION": "/var/cache/shop",
                }}
            """
        },
        {},
        "cache-file",
        "/var/cache/shop",
        "channels_writable: [NAME]",
    ),
    "broker on the app host": (
        {SETTINGS: 'CELERY_BROKER_URL = os.getenv("CELERY_BROKER_URL", "redis://localhost:6379")'},
        {"processes": {"celery": {"celery": "worker"}}},
        "broker-local",
        "localhost",
        '  CELERY_BROKER_URL: "{{ cluster.broker.url }}"',
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_application_is_refused_by_name(
    tmp_path: Path, wrong: tuple[dict[str, str | None], dict[str, Any], str, str, str]
) -> None:
    files, subject, name, value, line = wrong
    found = examine(tmp_path, files, **subject)
    assert obstacles(found) == {name}, found
    assert value in found[name].value
    assert line in found[name].line
    assert found[name].why
    said = repr(found)
    assert PASSWORD not in said
    assert SECRET_KEY not in said


TEN: dict[str, str | None] = {
    "shop/settings.py": """
        import os
        import shipping_of_nobody
        from pathlib import Path

        BASE_DIR = Path(__file__).resolve().parent.parent
        PAYMENT_KEY = os.environ["PAYMENT_KEY"]
        PAYMENT_URL = os.environ["PAYMENT_URL"]
        DEBUG = True
        SECRET_KEY = "django-insecure-0123456789abcdef0123456789abcdef0123456789abcdef"
        ALLOWED_HOSTS = ["shop.example.org:8080"]
        CSRF_TRUSTED_ORIGINS = ["shop.example.org"]
        DATABASES = {"default": {
            "ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3",
        }}
        CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
        INSTALLED_APPS = [
            "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
            "channels", "orders",
        ]
        ROOT_URLCONF = "shop.urls"
        LOGGING = {
            "version": 1,
            "handlers": {"file": {"class": "logging.FileHandler", "filename": "shop.log"}},
            "root": {"handlers": ["file"]},
        }
    """,
    "+orders/views.py": "from orders.rates import rate",
    "orders/rates.py": "def rate(:",
    "+orders/consumers.py": "import tax_of_nobody",
    "orders/migrations/0001_initial.py": None,
    "orders/migrations/__init__.py": None,
}


def test_every_fault_is_named_in_one_run(tmp_path: Path) -> None:
    root = write(tmp_path, TEN)
    found = Examiner(root, Subject.read(SUBJECT)).examine()
    named = {(each.name, each.what) for each in found if each.obstacle}
    assert named == {
        ("missing-module", "shipping_of_nobody"),
        ("missing-module", "tax_of_nobody"),
        ("missing-variable", "PAYMENT_KEY"),
        ("missing-variable", "PAYMENT_URL"),
        ("syntax-error", "orders/rates.py:1"),
        ("debug-on", "DEBUG"),
        ("secret-key", "SECRET_KEY"),
        ("allowed-hosts-form", "ALLOWED_HOSTS"),
        ("csrf-origins-form", "CSRF_TRUSTED_ORIGINS"),
        ("database-file", 'DATABASES["default"]'),
        ("layer-in-memory", 'CHANNEL_LAYERS["default"]'),
        ("log-file", 'LOGGING["handlers"]["file"]'),
        ("no-migrations", "migrations of orders"),
    }
    said = report.message(found)
    assert said.startswith("The application has 13 obstacles. Nothing changed.\n")
    assert "channels_environment:\n     PAYMENT_KEY: ..." in said


def test_what_follows_a_write_at_import_is_examined(tmp_path: Path) -> None:
    """The directory, and a key in it, as projects with a directory of data make them."""
    settings = """
        DATA = BASE_DIR / "data"
        DATA.mkdir(exist_ok=True)
        (DATA / ".secret").write_text("secret")
        (BASE_DIR / "boot.txt").write_text("")
        MEDIA_ROOT = DATA / "media"
        DEBUG = True
        PAYMENT_KEY = os.environ["PAYMENT_KEY"]
    """
    found = examine(tmp_path, {SETTINGS: settings})
    assert obstacles(found) == {"writes-at-import", "debug-on", "missing-variable"}
    assert not (tmp_path / "data").exists()


def test_variables_with_the_prefix_of_the_project_are_understood(tmp_path: Path) -> None:
    settings = """
        _names = ("HOST", "PORT", "NAME", "USER", "PASS")
        _read = {name: os.environ.get(f"SHOP_DB_{name}", "") for name in _names}
        DATABASES["default"] |= {"HOST": _read["HOST"] or "localhost", "PORT": _read["PORT"]}
        SECRET_KEY = os.environ["SHOP_DJANGO_SECRET"]
        for name in "ABCDEFG":
            os.environ.get(f"SHOP_OPTION_{name}")
        STRIPE = os.environ["STRIPE_SECRET_KEY"]
    """
    root = write(tmp_path, {SETTINGS: settings})
    found = Examiner(root, Subject.read(SUBJECT)).examine()
    lines = {each.what: each.line for each in found if each.obstacle}
    assert 'SHOP_DB_HOST: "{{ cluster.database.host }}"' in lines['DATABASES["default"]']
    assert 'SHOP_DJANGO_SECRET: "{{ cluster.secret_key }}"' in lines["SHOP_DJANGO_SECRET"]
    assert "STRIPE_SECRET_KEY: ..." in lines["STRIPE_SECRET_KEY"]


def test_changes_of_models_that_no_table_needs_stop_nothing(tmp_path: Path) -> None:
    """A relation by a model of its own, and names in another language."""
    models = """
        from django.db import models
        from django.utils.translation import gettext_lazy as _
        class Order(models.Model):
            title = models.CharField(_("password"), max_length=20)
            lines = models.ManyToManyField("self", through="Line")
        class Line(models.Model):
            one = models.ForeignKey(Order, models.CASCADE, related_name="ones")
            other = models.ForeignKey(Order, models.CASCADE, related_name="others")
    """
    migration = """
        import django.db.models.deletion
        from django.db import migrations, models
        class Migration(migrations.Migration):
            dependencies = [("orders", "0001_initial")]
            operations = [
                migrations.AlterField(
                    "order", "title", models.CharField(max_length=20, verbose_name="password")),
                migrations.CreateModel("Line", [
                    ("id", models.BigAutoField(auto_created=True, primary_key=True,
                                               serialize=False, verbose_name="ID")),
                    ("one", models.ForeignKey("orders.Order", django.db.models.deletion.CASCADE,
                                              related_name="ones")),
                    ("other", models.ForeignKey("orders.Order", django.db.models.deletion.CASCADE,
                                                related_name="others")),
                ]),
            ]
    """
    found = examine(
        tmp_path,
        {
            "orders/models.py": models,
            "orders/migrations/0002_line.py": migration,
            SETTINGS: 'LANGUAGE_CODE = "de"',
        },
    )
    assert obstacles(found) == set()
    assert found["migrations-missing"].value == "Add field lines to order"


def test_settings_that_another_module_would_have_set_are_not_judged(tmp_path: Path) -> None:
    found = examine(
        tmp_path,
        {
            SETTINGS: "DEBUG = True\nfrom shop.production import *",
            "shop/production.py": "RATE = 1 / 0\nDEBUG = False",
        },
    )
    assert obstacles(found) == {"fails-at-import"}


def test_a_fault_that_is_allowed_by_name_stops_nothing(tmp_path: Path) -> None:
    found = examine(tmp_path, {SETTINGS: "DEBUG = True"}, allowed=["debug-on"])
    assert obstacles(found) == set()
    assert "debug-on" in found


def test_what_works_in_a_cluster_is_no_obstacle(tmp_path: Path) -> None:
    """One host of its own, a database on it, a log file and uploads where it may write."""
    found = examine(
        tmp_path,
        {
            SETTINGS: """
                DATABASES = {"default": {
                    "ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "data/db.sqlite3",
                }}
                CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
                SESSION_ENGINE = "django.contrib.sessions.backends.cache"
                LOGGING = {
                    "version": 1,
                    "handlers": {"file": {"class": "logging.FileHandler",
                                          "filename": BASE_DIR / "data/shop.log"}},
                    "root": {"handlers": ["file"]},
                }
                (BASE_DIR / "data").mkdir(exist_ok=True)
                try:
                    RATE = os.environ["RATE"]
                except KeyError:
                    RATE = "1"
                import subprocess
                try:
                    subprocess.check_output(["git", "rev-parse", "HEAD"])
                except OSError:
                    pass
            """,
            # Nobody imports it, and Python 3 cannot read it.
            "tools/old.py": "print 'old'",
        },
        hosts=1,
        workers=1,
        writable=["data"],
    )
    assert obstacles(found) == set()
    assert set(found) == {"syntax-error"}


def test_what_the_application_prints_is_not_the_answer(tmp_path: Path) -> None:
    """The command's last line is its own, whatever the application prints, and has no secret."""
    root = write(
        tmp_path,
        {
            SETTINGS: f"""
                import atexit, json, sys
                said = json.dumps({{"obstacles": [], "message": ""}})
                print(said, os.environ["DATABASE_URL"], flush=True)
                atexit.register(print, said)
                os.write(1, said.encode())
                DEBUG = True
                raise RuntimeError("no access to " + os.environ["DATABASE_URL"] + "{PASSWORD}")
            """
        },
    )
    result = subprocess.run(
        [sys.executable, "-m", "channels_kit.examine", f"--root={root}"],
        input=json.dumps(SUBJECT),
        env={**os.environ, "PYTHONPATH": str(KIT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)  # nothing else is there
    assert {each["name"] for each in answer["obstacles"]} == {"debug-on", "fails-at-import"}
    assert "no access to (not shown)" in answer["message"]
    for secret in (PASSWORD, SECRET_KEY):
        assert secret not in result.stdout + result.stderr


def test_nothing_is_written_outside_of_a_temporary_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    found = examine(
        tmp_path,
        {
            SETTINGS: f"""
                import sqlite3, tempfile
                for act in (
                    lambda: open("{outside}/a", "w"),
                    lambda: os.open("{outside}/b", os.O_CREAT | os.O_WRONLY),
                    lambda: os.mkdir("{outside}/c"),
                    lambda: sqlite3.connect("{outside}/d"),
                    lambda: os.rename(__file__, "{outside}/e"),
                    lambda: os.system("touch {outside}/f"),
                ):
                    try:
                        act()
                    except OSError:
                        continue
                    raise AssertionError(act)
                tempfile.NamedTemporaryFile().close()
            """
        },
    )
    assert obstacles(found) == set()
    assert list(outside.iterdir()) == []


def test_no_connection_is_opened(tmp_path: Path) -> None:
    """Neither by Python nor by a library of C; one that the application goes on without is told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        found = examine(
            tmp_path,
            {
                SETTINGS: f"""
                    import psycopg, socket
                    try:
                        socket.create_connection(("127.0.0.1", {port}), timeout=2)
                    except OSError:
                        pass
                    try:
                        psycopg.connect("host=127.0.0.1 port={port} connect_timeout=2")
                    except psycopg.OperationalError as error:
                        assert "refused" in str(error), error
                """
            },
        )
        with pytest.raises(BlockingIOError):
            server.accept()
    assert obstacles(found) == set()
    assert found["connects-at-import"].value == f"127.0.0.1:{port}"


def test_processes_that_the_inventory_does_not_name_are_told(tmp_path: Path) -> None:
    changes: dict[str, str | None] = {
        "+shop/asgi.py": """
            from channels.routing import ChannelNameRouter
            application.application_mapping["channel"] = ChannelNameRouter({
                "mail": OrderConsumer.as_asgi(), "thumbnails": OrderConsumer.as_asgi(),
            })
        """,
        "shop/celery.py": "from celery import Celery\napp = Celery('shop')\n",
    }
    found = examine(tmp_path, changes, processes={"small": {"runworker": ["thumbnails"]}})
    assert found["no-runworker"].value == "mail"
    assert found["no-celery"].line == "channels_processes:\n  celery: {celery: worker}"
    assert obstacles(found) == set()


def test_an_application_that_takes_no_signal_is_ended(tmp_path: Path) -> None:
    """It catches everything, so the parent ends it; what was found before is told, too."""
    loop = """
        def wait():
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    continue
        wait()
    """
    found = examine(tmp_path, {SETTINGS: "DEBUG = True", "+orders/views.py": loop}, limit=8)
    assert {"ends-at-import", "debug-on"} <= obstacles(found)
