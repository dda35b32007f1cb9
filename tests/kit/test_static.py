"""Static files of a release, as a worker serves them."""

import asyncio
import gzip
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from channels_kit.serving.static import StaticFiles, with_static_files

HASHED = "app.0123456789ab.js"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers that it was asked."""
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"the application"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "static"
    (root / "chat").mkdir(parents=True)
    (root / "chat" / "a.css").write_text("a{}")
    (root / HASHED).write_text("x" * 200_000)
    (root / f"{HASHED}.gz").write_bytes(gzip.compress(b"x" * 200_000))
    (root / "staticfiles.json").write_text("{}")
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    return root


class Answer:
    def __init__(self, messages: list[Any]) -> None:
        start, *rest = messages
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(each.get("body", b"") for each in rest)
        self.ended = not rest[-1].get("more_body", False)


def ask(
    served: Any, path: str, method: str = "GET", headers: Mapping[bytes, bytes] | None = None
) -> Answer:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    scope = {"type": "http", "path": path, "method": method, "headers": [*(headers or {}).items()]}
    asyncio.run(served(scope, receive, send))
    return Answer(messages)


def test_a_file_is_served_with_its_type(root: Path) -> None:
    answer = ask(StaticFiles(application, root, "/static/"), "/static/chat/a.css")
    assert (answer.status, answer.body, answer.ended) == (200, b"a{}", True)
    assert answer.headers["content-type"] == 'text/css; charset="utf-8"'
    assert answer.headers["content-length"] == "3"
    assert answer.headers["cache-control"] == "max-age=60, public"


def test_a_file_that_is_named_after_its_content_is_kept_for_ever(root: Path) -> None:
    served = StaticFiles(application, root, "/static/")
    assert "immutable" in ask(served, f"/static/{HASHED}").headers["cache-control"]
    (root / "staticfiles.json").unlink()
    served = StaticFiles(application, root, "/static/")
    assert "immutable" not in ask(served, f"/static/{HASHED}").headers["cache-control"]


def test_a_compressed_one_is_sent_to_who_takes_it(root: Path) -> None:
    served = StaticFiles(application, root, "/static/")
    packed = ask(served, f"/static/{HASHED}", headers={b"accept-encoding": b"gzip, br"})
    assert gzip.decompress(packed.body) == b"x" * 200_000
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == len(packed.body)
    plain = ask(served, f"/static/{HASHED}")
    assert plain.body == b"x" * 200_000
    assert "content-encoding" not in plain.headers
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["content-type"] == plain.headers["content-type"]
    assert packed.headers["etag"] != plain.headers["etag"]


def test_a_client_that_has_it_gets_no_body(root: Path) -> None:
    served = StaticFiles(application, root, "/static/")
    etag = ask(served, "/static/chat/a.css").headers["etag"]
    answer = ask(served, "/static/chat/a.css", headers={b"if-none-match": etag.encode()})
    assert (answer.status, answer.body) == (304, b"")
    assert "content-length" not in answer.headers
    head = ask(served, "/static/chat/a.css", "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "3")


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", "GET"),
        ("/static", "GET"),
        ("/static/", "GET"),
        ("/static/chat", "GET"),
        ("/static/missing.css", "GET"),
        ("/static/chat/a.css", "POST"),
        ("/static/../secret", "GET"),
        ("/static//etc/passwd", "GET"),
        ("/static/link", "GET"),
        ("/static/chat/a.css\0", "GET"),
        ("/static/" + "x" * 5000, "GET"),
    ],
)
def test_all_else_is_the_applications(root: Path, path: str, method: str) -> None:
    assert ask(StaticFiles(application, root, "/static/"), path, method).status == 418


def test_without_collected_files_the_application_is_as_it_was(tmp_path: Path) -> None:
    assert with_static_files(application, {}) is application
    (tmp_path / "empty").mkdir()
    environment = {"CHANNELS_KIT_STATIC_ROOT": str(tmp_path / "empty")}
    assert with_static_files(application, environment) is application


PROJECT = """
import json, os, sys
from pathlib import Path
from django.conf import settings
settings.configure(STATIC_URL={url!r}, STATIC_ROOT={own!r})
from channels_kit.serving.static import StaticFiles, with_static_files
found = with_static_files(lambda: None)
print(getattr(found, "prefix", None), settings.STATIC_ROOT)
"""


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("static/", "/static/"),
        ("/assets/", "/assets/"),
        ("https://cdn.example/", None),
        ("/", None),
        (None, None),
    ],
)
def test_the_prefix_is_that_of_the_project(root: Path, url: str, prefix: str | None) -> None:
    told = said(root, url=url, own=None)
    assert told == f"{prefix} {root if prefix else None}"


def test_a_directory_of_the_projects_own_stays(root: Path) -> None:
    assert said(root, url="/static/", own=str(root.parent)) == f"/static/ {root.parent}"


def said(root: Path, **values: Any) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROJECT.format(**values)],
        env={"CHANNELS_KIT_STATIC_ROOT": str(root), "PYTHONPATH": "kit"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_static_files_are_collected_into_the_release(tmp_path: Path) -> None:
    """By manage.py with the settings of the kit, whatever the project's STATIC_ROOT is."""
    (tmp_path / "shop" / "static").mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "static" / "a.css").write_text("a{}")
    (tmp_path / "shop_settings.py").write_text(
        "INSTALLED_APPS = ['django.contrib.staticfiles', 'shop']\nSTATIC_URL = 'static/'\n"
        "SECRET_KEY = 'x'\n"
    )
    (tmp_path / "manage.py").write_text(
        "import os, sys\nfrom django.core.management import execute_from_command_line\n"
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop_settings')\n"
        "execute_from_command_line(sys.argv)\n"
    )
    collected = tmp_path / "collected"
    environment = {
        "CHANNELS_KIT_COLLECTS_FROM": "shop_settings",
        "CHANNELS_KIT_STATIC_ROOT": str(collected),
        "DJANGO_SETTINGS_MODULE": "shop_settings",
        "PYTHONPATH": f".:{Path('kit').resolve()}",
    }
    command = [sys.executable, "manage.py", "collectstatic", "--settings=channels_kit.collected"]
    ended = subprocess.run(
        [*command, "--no-input", "--verbosity", "0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == '{"static_root": ""}'
    assert (collected / "a.css").is_file()
