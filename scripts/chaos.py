"""The accidents of scripts/rehearse.py: check that a cluster recovers without an operator.

The accidents kill services, restart services and hosts, one by one and all at once, and give the
data host its address late. Before each accident, the application accepts delayed messages. After
it, the script waits until all services run, delivery is proved, all clients are connected, and each
delayed message has arrived once.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

# The services of the cluster. The other services of a host are not tested.
SERVICES = ("channels-*.service", "nginx.service", "redis-server@*.service", "postgresql@*.service")
RESTARTED = ("redis-server@layer.service", "redis-server@broker.service", "postgresql@*.service")

DELAYED = 3
"""Messages that are accepted before an accident."""
DELAY = 5
"""Seconds after which they are due."""
PATIENCE = 300.0
"""Maximum seconds until the cluster has recovered."""
ABSENCE = 20.0
"""Seconds without the address. In this time, services start again and fail."""

SHOW = "systemctl show --property=Id,SubState,MainPID " + " ".join(
    f"'{pattern}'" for pattern in SERVICES
)


class NotBackError(Exception):
    """The cluster did not recover after an accident. Printed without a traceback."""


@dataclass(frozen=True)
class Accident:
    """A failure that the script causes.

    Attributes:
        what: the description in the table.
        cause: causes the accident. The recovery time starts when it returns.
        killed: host and name of each service that must run in another process afterwards.
    """

    what: str
    cause: Callable[[], None]
    killed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Recovery:
    """The description of an accident, and the seconds from its end until each recovery."""

    what: str
    running: float
    proved: float
    connected: float
    late: float


class Api:
    """The application's HTTP API, asked through the edge.

    Args:
        url: the edge's.
        users: the passwords by user.
        room: where delayed messages are said.
    """

    def __init__(self, url: str, users: Mapping[str, str], room: str) -> None:
        self.url, self.room = url, room
        self.open = build_opener(ProxyHandler({})).open
        self.user, self.password = next(iter(users.items()))

    def ask(self, path: str, content: object = None, token: str = "") -> dict[str, Any]:
        """Return the answer to a GET, or to a POST where there is content.

        Raises:
            OSError: there was none, or an error.
        """
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if content is None else json.dumps(content).encode()
        request = Request(self.url + path, data, headers)  # noqa: S310 - the edge, by http
        try:
            with self.open(request, timeout=10) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except (HTTPException, ValueError) as error:
            raise OSError(f"{path}: {type(error).__name__}") from None

    def token(self) -> str:
        """Return a new token: an old one may expire meanwhile."""
        names = {"username": self.user, "password": self.password}
        return str(self.ask("/api/token/", names)["token"])

    def accept(self, count: int, delay: int) -> tuple[dict[str, float], int]:
        """Have delayed messages accepted; return when each is due, and the room's number before.

        Times are seconds of the epoch, here and in `said`: hosts on this machine have its clock.
        """
        token, path = self.token(), f"/api/rooms/{self.room}/messages/"
        before = int(self.ask(f"{path}?after=0", token=token)["sequence"])
        due = {}
        for _ in range(count):
            name = uuid.uuid4().hex
            message = {"message": "delayed", "client_id": name, "delay": delay}
            self.ask(path, message, token)
            due[name] = time.time() + delay
        return due, before

    def said(self, names: Iterable[str], after: int) -> dict[str, list[float]]:
        """Return when each message was said, among those after a number of the room."""
        token = self.token()
        found: dict[str, list[float]] = {name: [] for name in names}
        while True:
            path = f"/api/rooms/{self.room}/messages/?after={after}"
            page = self.ask(path, token=token)["messages"]
            for message in page:
                if (name := message.get("client_id")) in found:
                    found[name].append(datetime.fromisoformat(message["sent_at"]).timestamp())
            if not page:
                return found
            after = page[-1]["sequence"]


@dataclass
class Chaos:
    """Causes accidents, and measures how long the cluster takes to recover.

    Attributes:
        ssh: run a command on a host; raises OSError where that fails.
        docker: run the engine's client with arguments.
        hosts: `staging_container` and `ansible_host`, an address, of each host.
        api: the application's.
        connected_since: the time, in seconds of the epoch, since which all clients are connected.
        report: where the table is written after each accident.
    """

    ssh: Callable[[str, str], str]
    docker: Callable[..., str]
    hosts: Mapping[str, Mapping[str, str]]
    api: Api
    connected_since: Callable[[], float | None]
    report: Path
    recoveries: list[Recovery] = field(default_factory=list)

    def running(self) -> dict[tuple[str, str], str]:
        """Return the process of each service that runs, by host and name."""
        found = {}
        for host in self.hosts:
            for block in self.ssh(host, SHOW).strip().split("\n\n"):
                shown = dict(line.split("=", 1) for line in block.splitlines())
                if shown.get("SubState") == "running":
                    found[host, shown["Id"]] = shown["MainPID"]
        return found

    def accidents(self) -> Iterator[Accident]:
        """Yield every accident: services, then hosts, then all of them."""
        services = tuple(self.running())
        data = next(host for host, unit in services if unit == RESTARTED[0])
        for host, unit in services:
            yield Accident(
                f"`{unit}` on {host} killed",
                lambda host=host, unit=unit: self.kill(host, unit),  # type: ignore[misc]
                ((host, unit),),
            )
        for pattern in RESTARTED:
            yield Accident(
                f"`{pattern}` on {data} restarted",
                lambda pattern=pattern: self.restart(data, pattern),  # type: ignore[misc]
            )
        yield Accident(
            "every service of every host killed", lambda: self.kill_all(services), services
        )
        for host in self.hosts:
            yield Accident(f"{host} rebooted", lambda host=host: self.reboot(host))  # type: ignore[misc]
        for host in self.hosts:
            yield Accident(f"{host} loses power and starts", lambda host=host: self.power(host))  # type: ignore[misc]
        yield Accident(
            "all hosts lose power at once and start together", lambda: self.power(*self.hosts)
        )
        yield Accident(
            f"{data} boots without its address, which is added after {ABSENCE:.0f} s",
            lambda: self.late(data),
        )

    def kill(self, host: str, unit: str) -> None:
        """Kill every process of a service."""
        self.ssh(host, f"sudo systemctl kill --signal=KILL '{unit}'")

    def kill_all(self, services: Iterable[tuple[str, str]]) -> None:
        """Kill services, all of a host at once."""
        for host in self.hosts:
            units = " ".join(f"'{unit}'" for on, unit in services if on == host)
            self.ssh(host, f"sudo systemctl kill --signal=KILL {units}")

    def restart(self, host: str, unit: str) -> None:
        """Restart a service as an upgrade of its package does."""
        self.ssh(host, f"sudo systemctl restart '{unit}'")

    def reboot(self, host: str) -> None:
        """Shut a host down cleanly, and start it."""
        container = self.hosts[host]["staging_container"]
        self.docker("stop", "--time", "120", container)
        self.docker("start", container)

    def power(self, *hosts: str) -> None:
        """Kill hosts at once, and start them together."""
        containers = [self.hosts[host]["staging_container"] for host in hosts]
        self.docker("kill", *containers)
        self.docker("start", *containers)

    def late(self, host: str) -> None:
        """Boot a host without its address; add the address after its services have started."""
        container = self.hosts[host]["staging_container"]
        network, address = container.removesuffix(f"-{host}"), self.hosts[host]["ansible_host"]
        self.docker("kill", container)
        self.docker("network", "disconnect", network, container)
        self.docker("start", container)
        time.sleep(ABSENCE)
        self.docker("network", "connect", "--ip", address, network, container)

    def run(self) -> None:
        """Cause every accident, and wait after each until the cluster has recovered.

        Raises:
            NotBackError: the cluster did not recover, or a delayed message arrived twice.
        """
        for accident in self.accidents():
            self.recoveries.append(self.recover_from(accident))
            self.report.write_text(table(self.recoveries))

    def recover_from(self, accident: Accident) -> Recovery:
        """Cause an accident, and measure how long the cluster takes to recover."""
        print(f"\n     {accident.what} ...", end=" ", flush=True)
        before = self.running()
        try:
            due, number = self.api.accept(DELAYED, DELAY)
            accident.cause()
        except OSError as error:
            raise NotBackError(f"Cannot cause the accident: {accident.what}. {error}") from None
        began = time.time()

        def until(what: str, is_so: Callable[[], bool]) -> float:
            while time.time() < began + PATIENCE:
                with contextlib.suppress(OSError):
                    if is_so():
                        return time.time() - began
                time.sleep(0.1)
            raise NotBackError(
                f"No recovery within {PATIENCE:.0f} s. Accident: {accident.what}. Expected: {what}."
            )

        def all_run() -> bool:
            now = self.running()
            return all(
                service in now and (service not in accident.killed or now[service] != process)
                for service, process in before.items()
            )

        with ThreadPoolExecutor() as pool:
            waits = [
                pool.submit(until, what, is_so)
                for what, is_so in (
                    ("all services run", all_run),
                    ("delivery is proved", lambda: self.proved(before)),
                    ("all clients are connected", lambda: self.connected_since() is not None),
                    (
                        "all delayed messages have arrived",
                        lambda: all(self.api.said(due, number).values()),
                    ),
                )
            ]
            running, proved, *_ = [wait.result() for wait in waits]
        said = self.api.said(due, number)
        if any(len(times) > 1 for times in said.values()):
            raise NotBackError(f"A delayed message arrived twice. Accident: {accident.what}.")
        recovery = Recovery(
            accident.what,
            running,
            proved,
            # Clients that stayed connected have a time before the accident.
            max(0.0, (self.connected_since() or time.time()) - began),
            max(0.0, *(times[0] - due[name] for name, times in said.items())),
        )
        print(
            f"services run after {recovery.running:.1f} s, delivery proved after"
            f" {recovery.proved:.1f} s, all clients connected after {recovery.connected:.1f} s,"
            f" delayed messages {recovery.late:.1f} s late",
            end=" ",
            flush=True,
        )
        return recovery

    def proved(self, services: Iterable[tuple[str, str]]) -> bool:
        """Return whether every worker among the services reaches every worker."""
        workers = [
            (host, unit.removeprefix("channels-web@").removesuffix(".service"))
            for host, unit in services
            if unit.startswith("channels-web@")
        ]
        arguments = " ".join(
            f"--worker={host}:{port}=http://{self.hosts[host]['ansible_host']}:{port}"
            for host, port in workers
        )
        self.ssh(workers[0][0], f"sudo channels-prove current --hold=0 {arguments}")
        return True


def table(recoveries: list[Recovery]) -> str:
    """Return the recoveries as a table of Markdown."""
    lines = [
        "| accident | services run after, s | delivery proved after, s"
        " | all clients connected after, s | delayed messages late by, s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.what} | {each.running:.1f} | {each.proved:.1f} | {each.connected:.1f}"
        f" | {each.late:.1f} |"
        for each in recoveries
    ]
    return "\n".join(lines) + "\n"
