"""The sample and all that it runs on: real processes that can be restarted and killed."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

from tests.kit.cluster import APP, Process

PASSWORD = "enchantress-of-numbers"

# As the kit's roles have it: roles/redis, users and settings of the broker.
ACL = "user default off ~* &* +@all\nuser channels on >{0} ~* &* +@all -@admin -@dangerous +info\n"
BROKER = ("--appendonly", "yes", "--appendfsync", "everysec")
LAYER = ("--save", "", "--appendonly", "no")

# Seconds, much more than anything here may take.
LONG = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def eventually(look: Callable[[], Any], what: str, seconds: float = LONG) -> Any:
    """Return what a look returns once it is true; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class Postgres:
    """A PostgreSQL of its own."""

    def __init__(self, directory: Path) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self.binaries = binaries[-1]
        self.data = directory / "data"
        self.port = free_port()
        # PostgreSQL refuses to be root's.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(directory, self.user)
        self.run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale",
                 "--no-sync")  # fmt: skip
        self.start()

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), "--pgdata", str(self.data), *arguments]
        home = pwd.getpwnam(self.user).pw_dir if self.user else "/"
        subprocess.run(
            command, user=self.user, cwd=home, check=True, stdout=subprocess.DEVNULL, timeout=LONG
        )

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.data.parent} -c fsync=off"
        self.run("pg_ctl", "start", "--silent", "--wait", "--log", str(self.data.parent / "log"),
                 "--options", options)  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "stop", "--silent", "--wait", "--mode", mode)


class Redis:
    """An instance with the kit's users and settings."""

    def __init__(self, directory: Path, settings: tuple[str, ...]) -> None:
        self.port = free_port()
        self.url = f"redis://channels:secret@127.0.0.1:{self.port}/0"
        directory.mkdir()
        (directory / "users.acl").write_text(ACL.format("secret"))
        self.command = [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--dir", str(directory), "--aclfile", str(directory / "users.acl")),
            *("--maxmemory-policy", "noeviction", *settings),
        ]
        self.start()

    def start(self) -> None:
        self.process = Process(self.command, dict(os.environ))
        self.process.wait_for("eady to accept connections")

    def stop(self) -> None:
        self.process.__exit__()

    def kill(self) -> None:
        self.process.popen.kill()
        self.process.__exit__()


class Program:
    """A process of the application, which its unit starts again whenever it ends."""

    def __init__(self, environment: dict[str, str], ready: str, *command: str) -> None:
        self.command = [sys.executable, *command]
        self.environment = environment
        self.ready = ready
        self.start()

    def start(self) -> None:
        # A group of its own, as a unit has: what it has started ends with it.
        self.process = Process(["setsid", *self.command], self.environment)
        self.process.wait_for(self.ready)

    def kill(self) -> None:
        """End it and all it has started with -9."""
        os.killpg(self.process.popen.pid, 9)
        self.process.__exit__()

    def stop(self) -> None:
        """End it as its unit does."""
        if self.process.popen.poll() is None:
            self.process.popen.terminate()
            self.process.popen.wait(LONG)
        self.process.__exit__()

    @property
    def printed(self) -> str:
        """All that its process has printed."""
        return "".join(self.process.output)

    @property
    def is_running(self) -> bool:
        return self.process.popen.poll() is None


class Services:
    """All of it, with two users and one web worker."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.directory = Path(mkdtemp())
        self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        (self.directory / "postgres").mkdir()
        self.directory.chmod(0o755)
        self.postgres = Postgres(self.directory / "postgres")
        self.stack.callback(self.postgres.stop, "immediate")
        self.layer = Redis(self.directory / "layer", LAYER)
        self.stack.callback(lambda: self.layer.stop())
        self.broker = Redis(self.directory / "broker", BROKER)
        self.stack.callback(lambda: self.broker.stop())
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{APP}{os.pathsep}{APP.parent / 'kit'}",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "SECRET_KEY": "of no use outside the tests",
            "JWT_KEY": "of no use outside the tests, and long",
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_URL": f"postgres://postgres@127.0.0.1:{self.postgres.port}/postgres",
            "CHANNEL_LAYER_URL": self.layer.url,
            "BROKER_URL": self.broker.url,
            "CHANNELS_KIT_APPLICATION": "config.asgi:application",
        }
        self.manage("migrate")
        self.manage("ensure_users", stdin=json.dumps({"ada": PASSWORD, "bob": PASSWORD}))
        self.port = free_port()
        self.programs: list[Program] = []
        self.web = self.program(
            "web", "Uvicorn|draining|", "-m", "channels_kit.serving.uvicorn",
            "--host", "127.0.0.1", "--port", str(self.port),
        )  # fmt: skip
        self.celery = self.program(
            "celery", r"celery@\S+ ready", "-m", "celery", "--app", "config", "worker",
            "--concurrency", "2", "--loglevel", "INFO", "--without-gossip", "--without-mingle",
        )  # fmt: skip
        self.thumbnails = self.program(
            "thumbnails", "Running worker for channels", str(APP / "manage.py"), "runworker",
            "thumbnails",
        )  # fmt: skip
        eventually(self.answers, "the worker answers")

    def supervise(self) -> None:
        """Start again what has ended, as the units do."""
        for program in self.programs:
            if not program.is_running:
                program.stop()
                program.start()

    def program(self, name: str, ready: str, *command: str) -> Program:
        environment = {**self.environment, "CHANNELS_KIT_WORKER": f"app1:{name}"}
        program = Program(environment, ready, *command)
        self.stack.callback(program.kill)
        self.programs.append(program)
        return program

    def manage(self, *arguments: str, stdin: str = "") -> str:
        """Run a management command; return what it prints."""
        result = subprocess.run(
            [sys.executable, APP / "manage.py", *arguments],
            env=self.environment, input=stdin, text=True, capture_output=True, timeout=LONG,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    def answers(self) -> bool:
        try:
            return self.request("GET", "/-/live")[0] == 200
        except OSError:
            return False

    def request(
        self, method: str, path: str, content: object = None, token: str = ""
    ) -> tuple[int, Any]:
        """Ask the worker for JSON; return status and content of the answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=LONG)) as connection:
            body = None if content is None else json.dumps(content)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
        return response.status, json.loads(text) if text[:1] in (b"{", b"[") else text

    def token(self, user: str = "ada", password: str = PASSWORD) -> str:
        """Log in by the API."""
        credentials = {"username": user, "password": password}
        status, answer = self.request("POST", "/api/token/", credentials)
        assert status == 200, answer
        return str(answer["token"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()
