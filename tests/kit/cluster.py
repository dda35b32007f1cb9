"""Real processes on ephemeral ports: a Redis, and workers under each server."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.request import urlopen

APP = Path(__file__).parents[2] / "app"
SERVED = Path(__file__).parent / "served"


class Process:
    """A process whose output is kept, ended on exit."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.output: list[str] = []
        self.grown = threading.Condition()
        self.ended = False
        self.popen = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self.grown:
                self.output.append(line)
                self.grown.notify_all()
        with self.grown:
            self.ended = True
            self.grown.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the output has `pattern`."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, "".join(self.output))

        with self.grown:
            self.grown.wait_for(lambda: found() or self.ended, timeout=20)
        match = found()
        assert match, f"{pattern!r} is not in the output:\n" + "".join(self.output)
        return match

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.reader.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


class Redis(Process):
    """A Redis without persistence, on a Unix socket: no port to collide on."""

    def __init__(self) -> None:
        binary = shutil.which("redis-server")
        assert binary, "redis-server not found. Install it: apt-get install redis-server"
        self.directory = TemporaryDirectory()
        path = Path(self.directory.name, "redis.sock")
        self.url = f"unix://{path}"
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
        super().__init__([binary, *options], dict(os.environ))
        self.wait_for("eady to accept connections")

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self.directory.cleanup()


SERVERS = ("uvicorn", "daphne", "hypercorn")
# What follows the server's name in the units.
_OPTIONS = (
    "--host 127.0.0.1 --port 0 --ws-max-size 1048576"
    " --timeout-graceful-shutdown {grace} --forwarded-allow-ips 127.0.0.1,::1"
)


def command(server: str, python: str | Path = sys.executable, grace: int = 2) -> list[str]:
    """Return the command line of a worker, as the units have it."""
    options = _OPTIONS.format(grace=grace).split()
    return [os.fspath(python), "-m", f"channels_kit.serving.{server}", *options]


class Server(Process):
    """One server that listens on a port of its own."""

    @cached_property
    def port(self) -> int:
        """Where it listens, as the kernel has it: not every server says so."""
        deadline = time.monotonic() + 120
        while self.popen.poll() is None and time.monotonic() < deadline:
            for port in listening(self.popen.pid):
                return port
            time.sleep(0.01)
        raise AssertionError("it does not listen:\n" + "".join(self.output))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


class Worker(Server):
    """A server that serves the tests' application inside the kit's wrapper.

    `grace` is the seconds it has to stop.
    """

    def __init__(
        self, name: str, environment: dict[str, str], server: str = "uvicorn", grace: int = 2
    ) -> None:
        self.name = name
        super().__init__(
            command(server, grace=grace),
            {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{APP}{os.pathsep}{SERVED}",
                "DJANGO_SETTINGS_MODULE": "served_settings",
                "CHANNELS_KIT_APPLICATION": "served_asgi:application",
                "CHANNELS_KIT_WORKER": name,
                "CHANNELS_KIT_REVISION": "r1",
                **environment,
            },
        )


def listening(process: int | str) -> Iterator[int]:
    """Yield the ports of 127.0.0.1 on which a process, or "self", listens."""
    held = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # it has been closed
            held.add(str(file.readlink()))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        # proc_pid_net(5): local address, state (0A: listening), inode.
        _, local, _, state, *_ = fields = line.split()
        if state == "0A" and f"socket:[{fields[9]}]" in held:
            yield int(local.partition(":")[2], 16)


class Cluster:
    """Workers that share a Redis."""

    def __init__(
        self, redis: Redis, token: str, names: Sequence[str], server: str = "uvicorn"
    ) -> None:
        self.redis = redis
        self.stack = ExitStack()
        environment = {
            "CHANNELS_KIT_PROBE_TOKEN": token,
            "CHANNELS_KIT_HANDSHAKE_TIMEOUT": "0.2",
            "SERVED_REDIS": redis.url,
        }
        self.workers = [
            self.stack.enter_context(Worker(name, environment, server)) for name in names
        ]

        for worker in self.workers:
            # The first look at the layer imports its client, which may take longer than that.
            with urlopen(f"{worker.url}/-/ready"):
                pass

    @property
    def arguments(self) -> list[str]:
        """The probe's arguments that name every worker."""
        return [f"--worker={worker.name}={worker.url}" for worker in self.workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()
