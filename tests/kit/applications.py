"""Small applications as people have them, each with packages of its own."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

KIT = Path(__file__).parents[2] / "kit"

# What a release has for the kit itself, in kit/site-packages.
OF_THE_KIT = ["prometheus-client==0.23.1", "websockets==15.0.1"]


@dataclass(frozen=True)
class Shape:
    """One shape of an application.

    Attributes:
        name: of the test.
        requirements: what it pins, with spaces between.
        python: the version it runs on.
        server: which server of the kit serves it.
        layer: the class of its channel layer, in channels_redis.
        config: of the layer, but for its hosts.
        apps: what it has in INSTALLED_APPS on top.
        middleware: what it has in MIDDLEWARE on top.
        package: whether its settings are a package.
        user: whether it has a user model of its own.
        top: the lines of asgi.py that make `application` of `channels`, the router of Channels.
    """

    name: str
    requirements: str
    python: str = "3.11"
    server: str = "uvicorn"
    layer: str = "core.RedisChannelLayer"
    config: Mapping[str, object] = field(default_factory=dict)
    apps: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    package: bool = False
    user: bool = False
    top: str = "application = channels"


SETTINGS = """\
import json
import os
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "of no use outside the tests"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "channels",
    "rooms",
    {apps}
]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware", {middleware}]
ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_ROOT = os.fspath(BASE_DIR)
STATIC_URL = "/static/"
USE_TZ = True
{user}
CHANNEL_LAYERS = {{
    "default": {{
        "BACKEND": "channels_redis.{layer}",
        "CONFIG": {{"hosts": [os.environ["SERVED_REDIS"]], **{config}}},
    }}
}}
if "SERVED_LAYER" in os.environ:
    CHANNEL_LAYERS["default"] = json.loads(os.environ["SERVED_LAYER"])
"""

ASGI = """\
import os

# As in many a project: the routing, and with it the models, before Django is set up.
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import re_path

from rooms.consumers import Room

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from django.core.asgi import get_asgi_application

channels = ProtocolTypeRouter(
    {{
        "http": get_asgi_application(),
        "websocket": AuthMiddlewareStack(URLRouter([re_path("^room/$", Room.as_asgi())])),
    }}
)
{top}
"""

URLS = """\
import sys
from importlib.metadata import version

import prometheus_client
import websockets
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import JsonResponse
from django.urls import path

import django
import channels


def page(request):
    return JsonResponse(
        {
            "python": "%d.%d" % sys.version_info[:2],
            "django": django.__version__,
            "channels": version("channels"),
            "user": get_user_model().__name__,
            "database": connection.vendor,
            "websockets": websockets.version.version,
            "prometheus-client": version("prometheus-client"),
        }
    )


urlpatterns = [path("", page)]
"""

# A query before any request: Django refuses it where an event loop runs already.
APPS = """\
from django.apps import AppConfig
from django.db import connection


class RoomsConfig(AppConfig):
    name = "rooms"

    def ready(self):
        connection.cursor().execute("SELECT 1")
"""

MODELS = """\
from django.contrib.auth.models import AbstractUser


class Person(AbstractUser):
    pass
"""

CONSUMERS = """\
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import get_user_model

User = get_user_model()


class Room(AsyncWebsocketConsumer):
    groups = ["room"]

    async def connect(self):
        assert isinstance(self.scope["user"].is_anonymous, bool)
        await self.accept()

    async def receive(self, text_data):
        await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(event["text"])
"""

STARLETTE = """\
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount


@asynccontextmanager
async def lifespan(app):
    {before}
    yield


application = Starlette(routes=[Mount("/", app=channels)], lifespan=lifespan)
"""


def write_application(shape: Shape, directory: Path) -> None:
    """Write an application of a shape into a directory."""
    settings = SETTINGS.format(
        apps="".join(f'"{name}", ' for name in shape.apps),
        middleware="".join(f'"{name}", ' for name in shape.middleware),
        user='AUTH_USER_MODEL = "rooms.Person"' if shape.user else "",
        layer=shape.layer,
        config=dict(shape.config),
    )
    files = {
        "project/__init__.py": "",
        "project/urls.py": URLS,
        "project/asgi.py": ASGI.format(top=shape.top),
        "rooms/__init__.py": "",
        "rooms/apps.py": APPS,
        "rooms/models.py": MODELS if shape.user else "",
        "rooms/consumers.py": CONSUMERS,
    }
    if shape.package:
        files["project/settings/__init__.py"] = "from project.settings.base import *\n"
        files["project/settings/base.py"] = settings
    else:
        files["project/settings.py"] = settings
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def uv(*arguments: str) -> str:
    """Run the uv beside the tests' Python; return what it prints."""
    command = [os.fspath(Path(KIT.parent, ".venv/bin/uv")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stderr}"
    return done.stdout


@cache
def python(version: str) -> str:
    """Return an interpreter of a version; the test is skipped where the machine has none."""
    pattern = f".pyenv/versions/{version}.*/bin/python{version}"
    found = [os.fspath(path) for path in Path.home().glob(pattern)]
    for path in [*found, shutil.which(f"python{version}")]:
        # A shim of pyenv is there for versions that it does not start.
        if path and not subprocess.run([path, "-c", ""], capture_output=True).returncode:
            return path
    pytest.skip(f"Python {version} is not installed here")


def make_environment(requirements: str, version: str, directory: Path) -> Path:
    """Install packages into an environment of their own; return its Python."""
    uv("venv", "--quiet", "--python", python(version), os.fspath(directory))
    own = directory / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", os.fspath(own), *requirements.split())
    return own


def make_kit(directory: Path) -> Path:
    """Lay out the kit as a release has it; return what goes into PYTHONPATH."""
    directory.mkdir()
    (directory / "channels_kit").symlink_to(KIT / "channels_kit")
    uv("pip", "install", "--quiet", "--target", f"{directory}/site-packages", *OF_THE_KIT)
    return directory
