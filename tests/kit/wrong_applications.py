"""Applications that the tests of the examination make: a good one, and what is done to it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from channels_kit.examine.examiner import Examiner
from channels_kit.examine.finding import Finding, Subject

SECRET_KEY = "a-secret-key-of-the-cluster-0123456789abcdef0123456789"
PASSWORD = "a-password-of-the-cluster"
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "shop.settings",
    "SECRET_KEY": SECRET_KEY,
    "DATABASE_URL": f"postgresql://channels:{PASSWORD}@10.0.0.20:5432/channels",
    "CHANNEL_LAYER_URL": f"redis://channels:{PASSWORD}@10.0.0.20:6379/0",
    "ALLOWED_HOSTS": "shop.example.org",
}
SUBJECT: dict[str, Any] = {
    "application": "shop.asgi:application",
    "settings_module": "shop.settings",
    "domains": ["shop.example.org"],
    "hosts": 2,
    "workers": 4,
    "limit": 60,
    "environment": ENVIRONMENT,
}

SETTINGS = """
import os
from pathlib import Path
from urllib.parse import urlsplit

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = False
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
_database = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": _database.path[1:],
    "USER": _database.username, "PASSWORD": _database.password,
    "HOST": _database.hostname, "PORT": _database.port,
}}
CHANNEL_LAYERS = {"default": {
    "BACKEND": "channels_redis.core.RedisChannelLayer",
    "CONFIG": {"hosts": [os.environ["CHANNEL_LAYER_URL"]]},
}}
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.staticfiles", "channels", "orders",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
"""

ASGI = """
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

pages = get_asgi_application()

from orders.consumers import OrderConsumer

application = ProtocolTypeRouter({
    "http": pages, "websocket": URLRouter([path("ws/", OrderConsumer.as_asgi())]),
})
"""

GOOD = {
    "manage.py": 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n',
    "shop/__init__.py": "",
    "shop/settings.py": SETTINGS,
    "shop/asgi.py": ASGI,
    "shop/urls.py": """
        from django.urls import path
        from orders.views import index
        urlpatterns = [path("", index)]
    """,
    "orders/__init__.py": "",
    "orders/apps.py": """
        from django.apps import AppConfig
        class OrdersConfig(AppConfig):
            name = "orders"
    """,
    "orders/models.py": """
        from django.db import models
        class Order(models.Model):
            title = models.CharField(max_length=20)
    """,
    "orders/views.py": """
        from django.http import HttpResponse
        from orders.models import Order
        def index(request):
            return HttpResponse("orders")
    """,
    "orders/consumers.py": """
        from channels.generic.websocket import WebsocketConsumer
        class OrderConsumer(WebsocketConsumer):
            pass
    """,
    "orders/migrations/__init__.py": "",
    "orders/migrations/0001_initial.py": """
        from django.db import migrations, models
        class Migration(migrations.Migration):
            initial = True
            dependencies = []
            operations = [migrations.CreateModel("Order", [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False,
                                           verbose_name="ID")),
                ("title", models.CharField(max_length=20)),
            ])]
    """,
}


def write(directory: Path, changes: Mapping[str, str | None]) -> Path:
    """Write the good application with some files changed, added to (+NAME) or left out (None)."""
    files = {name: textwrap.dedent(content) for name, content in GOOD.items()}
    for name, content in changes.items():
        if content is None:
            del files[name]
        elif name.startswith("+"):
            files[name[1:]] = files.get(name[1:], "") + "\n" + textwrap.dedent(content)
        else:
            files[name] = content
    root = directory / "application"
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return root


def examine(
    directory: Path, changes: Mapping[str, str | None], **subject: Any
) -> dict[str, Finding]:
    """Return what is found in the good application with some files changed, by name."""
    root = write(directory, changes)
    given = Subject.read({**SUBJECT, **subject})
    found: dict[str, Finding] = {}
    for finding in Examiner(root, given).examine():
        found.setdefault(finding.name, finding)
    return found


def obstacles(found: Mapping[str, Finding]) -> set[str]:
    """Return the names of what stops a deploy."""
    return {name for name, finding in found.items() if finding.obstacle}
