"""A release that is bad in any way ends on no worker: the cluster runs as before, and is proved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.ansible import ROOT, WATCHED
from harness.cluster import Cluster

CRASH_AFTER_SECONDS = 5
# Only in a worker: the examination on the controller does not see what this guards.
IN_A_WORKER = "\nif 'CHANNELS_KIT_WORKER' in os.environ:\n"
# A readiness that is not waited for longer than a test needs.
HURRY = ["-e", '{"channels_ready_timeout": 10}']
# These show after some seconds.
LATE = ("crash after some seconds", "a layer that gives up while it waits")


def append(file: str, text: str) -> Callable[[Path], None]:
    def change(application: Path) -> None:
        with (application / file).open("a") as opened:
            opened.write(text)

    return change


def together(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(application: Path) -> None:
        for each in changes:
            each(application)

    return change


def add_migration(application: Path) -> None:
    migrations = application / "chat" / "migrations"
    last = sorted(path.stem for path in migrations.glob("0*.py"))[-1]
    (migrations / "9999_bad.py").write_text(f"""
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("chat", "{last}")]
    operations = [migrations.RunSQL("SELECT * FROM a_table_that_is_not_there")]
""")


# By name: the change, what the messages must say, and how many workers have another process then.
# The new process of the canary starts beside the former one, which gets its port back. Only if the
# new one ends by itself has systemd ended both.
BAD: dict[str, tuple[Callable[[Path], None], tuple[str, ...], int]] = {
    "import error": (
        append(
            "config/asgi.py",
            f"\nimport os\n{IN_A_WORKER}    __import__('a_module_that_is_not_there')\n",
        ),
        ("No module named 'a_module_that_is_not_there'",),
        0,
    ),
    "bad settings": (
        append("config/settings.py", "\nraise RuntimeError('settings are bad')\n"),
        ("The application has 1 obstacle. Nothing changed.",),
        0,
    ),
    "a missing package": (
        append("chat/models.py", "\nimport a_module_that_is_not_there\n"),
        ("a_module_that_is_not_there: not installed [missing-module]",),
        0,
    ),
    "failing migration": (add_migration, ("a_table_that_is_not_there",), 0),
    "never ready": (
        append(
            "config/settings.py",
            f"{IN_A_WORKER}"
            "    CHANNEL_LAYERS['default']['CONFIG']['hosts'] = ['redis://127.0.0.1:1/0']\n",
        ),
        ("the new process was not ready in time",),
        0,
    ),
    "crash after some seconds": (
        append(
            "config/asgi.py",
            f"\nimport os, threading\n{IN_A_WORKER}"
            f"    threading.Timer({CRASH_AFTER_SECONDS}, os._exit, [3]).start()\n",
        ),
        ("exited with status 3",),
        1,
    ),
    "nothing reaches anybody": (
        together(
            append(
                "config/settings.py",
                f"{IN_A_WORKER}    CHANNEL_LAYERS['default'] ="
                " {'BACKEND': 'channels.layers.InMemoryChannelLayer'}\n",
            ),
            append("chat/templates/chat/login.html", "{% a_tag_that_is_not_there %}\n"),
            append("chat/routing.py", "\nwebsocket_urlpatterns.clear()\n"),
        ),
        (
            "-> app2:8001: 0 of 1 delivered",
            "/login/ on app1:8001: answered 500",
            "/ws/chat/lobby/ on app1:8001: answered 403, not closed with 4001",
        ),
        0,
    ),
    # As redis 8 has it after 5 s.
    "a layer that gives up while it waits": (
        append(
            "config/settings.py",
            f"{IN_A_WORKER}"
            "    CHANNEL_LAYERS['default']['CONFIG']['hosts'][0]['socket_timeout'] = 3\n",
        ),
        ("s of silence",),
        0,
    ),
}


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A copy of the sample application, to be spoilt, and of the workspace with its lock."""
    copy = tmp_path / "app"
    (tmp_path / "kit").mkdir()
    for name in ("pyproject.toml", "uv.lock", "kit/pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("__pycache__", "db.sqlite3", "staticfiles")
    shutil.copytree(ROOT / "app", copy, ignore=ignored)
    return copy


@pytest.mark.parametrize("name", BAD)
def test_a_bad_release_is_taken_back(cluster: Cluster, application: Path, name: str) -> None:
    change, words, touched = BAD[name]
    before = cluster.running()
    processes = {worker.name: cluster.process_of(worker) for worker in cluster.workers}
    assert len(before) == 1
    change(application)

    watched = WATCHED if name in LATE else ()
    run = cluster.deploy("deploy", "--", "-e", f"channels_source={application}", *HURRY, *watched)

    assert run.rc != 0, run.output
    assert [each for each in words if each not in run.output] == [], run.output
    assert cluster.running() == before
    after = {worker.name: cluster.process_of(worker) for worker in cluster.workers}
    moved = [worker for worker in processes if processes[worker] != after[worker]]
    assert len(moved) == touched, moved
    assert cluster.prove().rc == 0
    # Nobody is locked out by what has failed, and it is in the log of every host.
    for host in cluster.group("channels"):
        assert not cluster.hosts[host].file("/run/channels-deploy.lock").exists
        last = cluster.hosts[host].check_output("tail -n 1 /var/log/channels-deploys.log")
        line = json.loads(last)
        assert line["result"] == "failed"
        # Of a deploy that has failed, too, it is known what it was about.
        assert len(line["release"]) == 12
        # systemd has read the files that were put back.
        units = "systemctl show --property=NeedDaemonReload --value 'channels-*'"
        assert set(cluster.hosts[host].check_output(units).split()) == {"no"}
