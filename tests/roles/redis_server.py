"""A redis-server of a test's own."""

import contextlib
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from .modules import run_module

ADMINISTRATOR = "administrator-password-of-the-tests"
SECRET = "password-of-the-application"
RULES = "~* &* +@all -@admin -@dangerous +info"
PATIENCE = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Instance:
    """An instance with a file of users, as the role configures one.

    Args:
        directory: where its files are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.acl = directory / "users.acl"
        self.password_file = directory / "administrator.password"
        self.password_file.write_text(ADMINISTRATOR)
        self.settings: dict[str, str] = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "aclfile": str(self.acl),
            "dir": str(directory),
            "save": '""',
            "appendonly": "no",
            "maxclients": "100",
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def content(self) -> str:
        return "".join(f"{name} {value}\n" for name, value in self.settings.items())

    def users(self, password: str | None = SECRET, **more: Any) -> dict[str, Any]:
        """Arguments of redis_users as the role gives them."""
        return {
            "address": "127.0.0.1",
            "port": self.port,
            "path": str(self.acl),
            "owner": "root",
            "group": "root",
            "login_password_file": str(self.password_file),
            "users": [
                {"name": "default", "enabled": False, "rules": "~* &* +@all"},
                {"name": "administrator", "rules": "~* &* +@all"},
                {"name": "channels", "password": password, "rules": RULES},
            ],
            **more,
        }

    def bring_users(self, password: str | None = SECRET, **more: Any) -> dict[str, Any]:
        return run_module("redis_users", **self.users(password, **more))

    def bring_settings(self, **more: Any) -> dict[str, Any]:
        return run_module(
            "redis_settings",
            **{
                "address": "127.0.0.1",
                "port": self.port,
                "unit": "redis-server@none.service",
                "content": self.content,
                "login_password_file": str(self.password_file),
                **more,
            },
        )

    def start(self) -> None:
        (self.directory / "redis.conf").write_text(self.content)
        with (self.directory / "log").open("a") as log:
            self.process = subprocess.Popen(
                ["redis-server", self.directory / "redis.conf"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            # It listens before it has read its users, and answers after that.
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as asked,
            ):
                asked.sendall(b"PING\r\n")
                if asked.recv(64):
                    return
            assert self.process.poll() is None, (self.directory / "log").read_text()
            time.sleep(0.01)
        raise AssertionError("Redis does not answer")

    def stop(self) -> None:
        if self.process is None:
            return
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
            # Redis refuses to end while it writes its first append-only file, and forgets it.
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.5)
        assert time.monotonic() < deadline, (self.directory / "log").read_text()
        self.process = None

    def cli(
        self,
        *words: str,
        user: str = "administrator",
        password: str = ADMINISTRATOR,
        stdin: str | None = None,
    ) -> str:
        """What Redis answers a user; commands by standard input are one connection's."""
        return subprocess.run(
            ["redis-cli", "-p", str(self.port), "--user", user, "--no-auth-warning", *words],
            env={"REDISCLI_AUTH": password, "PATH": "/usr/bin:/bin"},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()

    def lets_in(self, password: str, user: str = "channels") -> bool:
        return self.cli("SET", "a", "1", user=user, password=password) == "OK"
