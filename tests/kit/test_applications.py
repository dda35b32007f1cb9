"""The kit around applications as people have them: each in an environment of its own.

None of the environments has the kit's packages. What is asked of each worker is what the proof and
a browser ask.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import connect

from channels_kit.probe import Target, prove
from tests.roles.postgres_server import PostgresServer, directory_of_postgres

from .applications import (
    STARLETTE,
    Shape,
    make_environment,
    make_kit,
    write_application,
)
from .cluster import Process, Redis, Server, command
from .conftest import TOKEN

UVICORN = "uvicorn==0.54.0"
REDIS = "redis<8"
PUBSUB = "pubsub.RedisPubSubChannelLayer"
KEYS = {"symmetric_encryption_keys": ["a key of the tests"]}
ON_STARLETTE = Shape(
    "settings package, encrypted, Starlette on top",
    f"django==6.0.* channels==4.3.* channels-redis[cryptography]==4.3.* {REDIS} {UVICORN}"
    " starlette",
    python="3.12",
    layer=PUBSUB,
    config=KEYS,
    package=True,
    top=STARLETTE.format(before="pass"),
)
SHAPES = [
    Shape(
        "pins of 2021",
        f"django==4.0.10 channels==3.0.4 channels-redis==3.3.1 {UVICORN}"
        " websockets==10.4 h11==0.9.0 httptools==0.5.0 prometheus-client==0.8.0",
    ),
    Shape(
        "Django 4.2, Channels 3",
        f"django==4.2.* channels==3.0.5 channels-redis==3.4.1 {UVICORN}",
        layer=PUBSUB,
        python="3.12",
    ),
    Shape(
        "uvloop, httptools, WhiteNoise, custom user",
        f"django==5.2.* channels==4.3.* channels-redis==4.3.* {REDIS} {UVICORN}"
        " uvloop httptools==0.6.4 websockets==12.0 whitenoise",
        layer=PUBSUB,
        python="3.13",
        middleware=("whitenoise.middleware.WhiteNoiseMiddleware",),
        user=True,
    ),
    ON_STARLETTE,
    Shape(
        "Daphne",
        f"django==5.2.* channels[daphne]==4.2.* channels-redis==4.2.* {REDIS} daphne>=4.2.2",
        server="daphne",
        apps=("daphne",),
    ),
    Shape(
        "Hypercorn",
        f"django==5.2.* channels==4.1.* channels-redis[cryptography]==4.2.* {REDIS}"
        " hypercorn==0.18.* starlette",
        server="hypercorn",
        python="3.13",
        config=KEYS,
        top=STARLETTE.format(before="pass"),
    ),
]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kit(tmp_path_factory.mktemp("release") / "kit")


class Application:
    """An application on disk, with its environment."""

    def __init__(self, shape: Shape, directory: Path, kit: Path, redis: Redis) -> None:
        self.shape = shape
        write_application(shape, directory / "app")
        self.python = make_environment(shape.requirements, shape.python, directory / "environment")
        self.environment = {
            "PYTHONPATH": f"{directory / 'app'}:{kit}",
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "CHANNELS_KIT_APPLICATION": "project.asgi:application",
            "CHANNELS_KIT_WORKER": "app1:8001",
            "CHANNELS_KIT_PROBE_TOKEN": TOKEN,
            # Environments of this size are read from disk for the first time.
            "CHANNELS_KIT_READY_TIMEOUT": "10",
            "SERVED_REDIS": redis.url,
        }

    def start(self, **environment: str) -> Server:
        return Server(command(self.shape.server, self.python), {**self.environment, **environment})

    def manage(self, *arguments: str, **environment: str) -> None:
        """Run a command of Django's."""
        subprocess.run(
            [self.python, "-m", "django", *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def fails(self, **environment: str) -> tuple[int, str]:
        """Start a worker that ends by itself; return its exit code and what it says."""
        with Process(
            command(self.shape.server, self.python), {**self.environment, **environment}
        ) as process:
            code = process.popen.wait(30)
            process.reader.join()
            return code, "".join(process.output)


def get(url: str) -> bytes:
    try:
        with urlopen(url, timeout=30) as response:
            return bytes(response.read())
    except HTTPError as error:
        # What it says is what the test shows.
        return bytes(error.read())


async def hears_itself(worker: Server) -> None:
    """Open a socket of the application, and have it hear itself through the layer."""
    async with connect(f"{worker.ws_url}/room/", proxy=None) as socket, asyncio.timeout(10):
        said = ""
        # With a layer that subscribes, the first one may overtake the subscription.
        while said != "hello":
            await socket.send("hello")
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    said = str(await socket.recv())


def pinned(shape: Shape, package: str) -> str | None:
    match = re.search(rf"(?<!\S){package}(\[\w+\])?==([\d.]+)", shape.requirements)
    return match[2].removesuffix(".") if match else None


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_an_application_is_served_as_it_is(
    shape: Shape, tmp_path: Path, kit: Path, redis: Redis
) -> None:
    with Application(shape, tmp_path, kit, redis).start() as worker:
        ready = json.loads(get(f"{worker.url}/-/ready"))
        assert ready["status"] == "ready", ready["checks"]
        assert ready["layer"] == f"channels_redis.{shape.layer}"
        assert set(ready["checks"]) == {"channel_layer", "database"}
        assert b"channels_kit_layer_up 1.0" in get(f"{worker.url}/-/metrics")

        page = json.loads(get(f"{worker.url}/"))
        assert page["python"] == shape.python
        assert page["user"] == ("Person" if shape.user else "User")
        for package in ("django", "channels", "websockets", "prometheus-client"):
            version = pinned(shape, package)
            assert version is None or f"{page[package]}.".startswith(f"{version}."), package

        report = await prove([Target("app1:8001", worker.url)], token=TOKEN, rounds=2)
        assert report.ok, report

        await hears_itself(worker)
    assert "Traceback" not in "".join(worker.output)


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a PostgreSQL."""
    with directory_of_postgres() as directory:
        server = PostgresServer(directory)
        server.start()
        yield f"postgresql://postgres@/postgres?host={directory}&port={server.port}"
        server.stop()


async def test_the_overlay_makes_a_project_a_clusters(
    tmp_path: Path, kit: Path, redis: Redis, database: str
) -> None:
    """SQLite becomes PostgreSQL, and what is elsewhere or in memory becomes the cluster's."""
    requirements = (
        f"django==5.2.* channels==4.3.* channels-redis==4.3.* {REDIS} {UVICORN} psycopg[binary]"
    )
    application = Application(Shape("overlay", requirements), tmp_path, kit, redis)
    overlay = {
        "DJANGO_SETTINGS_MODULE": "channels_kit.overlay",
        "CHANNELS_KIT_SETTINGS": "project.settings",
        "CHANNELS_KIT_DATABASE_URL": database,
        "CHANNELS_KIT_LAYER_URL": redis.url,
        "CHANNELS_KIT_ALLOWED_HOSTS": "127.0.0.1",
    }
    application.manage("migrate", **overlay)
    own = json.dumps({"BACKEND": "channels.layers.InMemoryChannelLayer"})
    with application.start(**overlay, SERVED_LAYER=own) as worker:
        ready = json.loads(get(f"{worker.url}/-/ready"))
        assert ready["status"] == "ready", ready["checks"]
        assert ready["layer"] == "channels_redis.core.RedisChannelLayer"
        assert json.loads(get(f"{worker.url}/"))["database"] == "postgresql"
        report = await prove([Target("app1:8001", worker.url)], token=TOKEN, rounds=2)
        assert report.ok, report
        await hears_itself(worker)


def test_what_does_not_start_says_why(tmp_path: Path, kit: Path, redis: Redis) -> None:
    application = Application(ON_STARLETTE, tmp_path, kit, redis)

    code, said = application.fails(DJANGO_SETTINGS_MODULE="project.setings")
    assert code == 1
    assert said == (
        "error: DJANGO_SETTINGS_MODULE is 'project.setings'; allowed: a settings module,"
        " such as project.settings (no module 'project.setings')\n"
    )

    code, said = application.fails(DJANGO_SETTINGS_MODULE="channels_kit.overlay")
    assert code == 1
    assert said.startswith("error: CHANNELS_KIT_SETTINGS is ''; allowed: ")

    code, said = application.fails(CHANNELS_KIT_APPLICATION="project.asgi:app")
    assert code == 1
    assert "\nerror: CHANNELS_KIT_APPLICATION is 'project.asgi:app'" in said

    # An error of the application's own comes with its traceback.
    asgi = tmp_path / "app" / "project" / "asgi.py"
    top = STARLETTE.format(before="raise LookupError('no such broker')")
    asgi.write_text(asgi.read_text() + top)
    code, said = application.fails()
    assert code == 3
    assert "LookupError: no such broker" in said
    assert said.endswith("Application startup failed. Exiting.\n")


def test_a_server_that_is_too_old_is_named(tmp_path: Path, kit: Path, redis: Redis) -> None:
    requirements = "django==4.2.* channels==3.0.5 channels-redis==3.4.1 uvicorn==0.17.6"
    application = Application(Shape("old", requirements), tmp_path, kit, redis)
    code, said = application.fails()
    assert code == 1
    assert said.startswith("error: uvicorn 0.17.6 is too old for this kit; allowed: uvicorn>=")
