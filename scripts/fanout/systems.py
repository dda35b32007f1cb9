"""The systems that are compared: how each is started, and what its clients speak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from fanout.processes import cpu_seconds, find, free_port, redis, running

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
APPLICATION = HERE / "channels_app"


@dataclass(frozen=True)
class System:
    """A system.

    Attributes:
        name: in options and results.
        title: for people.
        command: of one process, from its port and the URL of its Redis.
        environment: of a process, beside PATH; `{redis}` stands for the URL.
        wire: what client.c speaks with it.
        path: of a handshake; `%s` stands for the room.
    """

    name: str
    title: str
    command: Callable[[int, str], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    wire: str = "ws"
    path: str = "/ws/%s/"


def _uvicorn(port: int, _: str) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", *options, "rooms:application"]


def _serving(port: int, _: str) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "channels_kit.serving.uvicorn", *options]


def _node(program: str) -> Callable[[int, str], list[str]]:
    return lambda port, url: [find("node"), str(PEERS / program), str(port), url]


def _channels(backend: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(APPLICATION),
        "DJANGO_SETTINGS_MODULE": "settings",
        "BENCH_LAYER": json.dumps({"BACKEND": backend, "CONFIG": {"hosts": ["{redis}"]}}),
    }


def _kit(application: str) -> dict[str, str]:
    return _channels("channels_kit.layer.RedisFanoutLayer") | {
        "CHANNELS_KIT_APPLICATION": application,
        "CHANNELS_KIT_WORKER": "bench:1",
    }


SYSTEMS = {
    system.name: system
    for system in (
        System(
            "core",
            "Channels, channels_redis core, uvicorn",
            _uvicorn,
            _channels("channels_redis.core.RedisChannelLayer"),
        ),
        System(
            "pubsub",
            "Channels, channels_redis pubsub, uvicorn",
            _uvicorn,
            _channels("channels_redis.pubsub.RedisPubSubChannelLayer"),
        ),
        System("tier1", "this kit, tier 1", _serving, _kit("rooms:application")),
        System("tier2", "this kit, tier 2", _serving, _kit("rooms:fanout")),
        System("ws", "Node ws + Redis", _node("ws_server.mjs"), {"NODE_ENV": "production"}),
        System(
            "socketio",
            "Socket.IO + its Redis adapter",
            _node("socketio_server.mjs"),
            {"NODE_ENV": "production"},
            wire="socketio",
            path="/socket.io/?EIO=4&transport=websocket&room=%s",
        ),
    )
}


@dataclass(frozen=True)
class Servers:
    """Processes of a system that run.

    Attributes:
        system: whose.
        ports: of 127.0.0.1, one a process.
        processes: their ids.
        redis: the id of their Redis.
    """

    system: System
    ports: tuple[int, ...]
    processes: tuple[int, ...]
    redis: int

    def cpu_seconds(self) -> float:
        """Return the processor time that the servers have used, without Redis."""
        return sum(cpu_seconds(process) for process in self.processes)


@contextmanager
def serving(system: System, processes: int, directory: Path) -> Iterator[Servers]:
    """Run a system on a Redis of its own.

    Args:
        system: which.
        processes: how many.
        directory: for logs.

    Raises:
        RuntimeError: a process does not start.
    """
    with ExitStack() as stack:
        redis_process, url = stack.enter_context(redis(directory / "redis.log"))
        environment = {"PATH": os.environ["PATH"]} | {
            name: value.replace("{redis}", url) for name, value in system.environment.items()
        }
        ports, started = [], []
        for _ in range(processes):
            port = free_port()
            log = directory / f"{system.name}-{port}.log"
            command = system.command(port, url)
            started.append(stack.enter_context(running(command, environment, port, log)))
            ports.append(port)
        yield Servers(system, tuple(ports), tuple(started), redis_process)


def install_peers() -> None:
    """Install the packages of the Node systems, as their lock has them.

    Raises:
        subprocess.CalledProcessError: npm failed, and has said why.
    """
    command = [find("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, cwd=PEERS, check=True)


def versions() -> dict[str, str]:
    """Return what is compared, in which versions."""
    found = {
        name: version(name)
        for name in ("channels", "channels-redis", "uvicorn", "uvloop", "httptools", "hiredis")
    }
    found["redis-py"] = version("redis")
    found["python"] = sys.version.split()[0]
    found["kit"] = version("channels-kit")
    for program in ("node", "redis-server"):
        output = subprocess.run(
            [find(program), "--version"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        found[program] = output.split("v=")[-1].split()[0].lstrip("v")
    pinned: dict[str, str] = json.loads((PEERS / "package.json").read_text())["dependencies"]
    return found | pinned
