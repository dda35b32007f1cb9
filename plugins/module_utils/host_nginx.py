"""Readings of the configuration that nginx runs with.

``nginx -T`` prints files, and nginx may run with former ones: a reload was forgotten, or failed. So
what the files say counts only if nginx has read them: its worker processes are younger than the
files, and the configuration that it reports on its local port is the one in the file.
"""

from __future__ import annotations

import os
import re
import socket
import time
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.host_kernel import outgoing_ports
from ansible.module_utils.host_readings import EVERY, Readings, UnreadableError, output_of
from ansible.module_utils.nginx_config import (
    ConfigurationError,
    Directive,
    Location,
    dumped,
    in_a_handshake,
    location_of,
    locations,
    members_of,
    parse_dump,
    seconds,
    upstreams,
    value_of,
)

PROC = Path("/proc")
NGINX = "nginx"
SOURCE = "nginx -T"

GLOBAL = {
    "worker_connections": ("events", "worker_connections"),
    "worker_rlimit_nofile": ("worker_rlimit_nofile",),
    "worker_processes": ("worker_processes",),
    "worker_shutdown_timeout": ("worker_shutdown_timeout",),
}
DEFAULTS = {"worker_connections": "512", "worker_processes": "1"}

PROXIED = (
    "proxy_read_timeout",
    "proxy_send_timeout",
    "proxy_connect_timeout",
    "proxy_http_version",
    "proxy_buffering",
    "proxy_buffer_size",
    "proxy_next_upstream",
)

# In the configuration of the kit: what nginx answers on its local port.
GENERATION = re.compile(r'return 200 "(\S+) \$pid"')


CONNECT_SECONDS = 3.0
"""Seconds that a server behind nginx has to take a connection."""


def read_nginx(
    readings: Readings, binary: str, generation_url: str, urls: Sequence[str] = ()
) -> None:
    """Read the configuration of nginx.

    Args:
        readings: collects what is read.
        binary: the program.
        generation_url: where nginx reports its configuration; empty: it does not.
        urls: where sockets are opened; what holds there, and what is behind it, is read of each.
    """
    with readings.reading(NGINX, EVERY, SOURCE):
        text = output_of([binary, "-T", "-q"], either=True)
        files = dumped(text)
        if not files:
            raise UnreadableError(f"nginx -T printed no configuration: {text}")
        why = why_not_in_effect(list(files), workers())
        source = f"start of the worker processes, and {next(iter(files))}"
        if generation_url and not why:
            source = f"GET {generation_url}, and {next(iter(files))}"
            why = other_generation(generation_url, text)
        state = why or "in effect"
        readings.add(NGINX, "nginx", "configuration", state, source)
        if why:
            raise UnreadableError(f"the files are not what nginx runs with: {why}")
        try:
            directives = parse_dump(text)
            read_directives(readings, directives)
            read_workers(readings, directives)
            for url in urls:
                read_url(readings, directives, url)
        except ConfigurationError as error:
            raise UnreadableError(f"the configuration cannot be read: {error}") from error


def read_directives(readings: Readings, directives: Sequence[Directive]) -> None:
    """Read what a configuration says."""
    for key, path in GLOBAL.items():
        value: Any = value_of(directives, *path) or DEFAULTS.get(key, "")
        readings.add(NGINX, "nginx", key, number(value), SOURCE)
    for name, servers in upstreams(directives).items():
        readings.add(NGINX, f"upstream {name}", "members", servers, SOURCE)
    for location in locations(directives):
        read_location(readings, directives, location, location.name, SOURCE)


def read_location(
    readings: Readings,
    directives: Sequence[Directive],
    location: Location,
    subject: str,
    source: str,
) -> None:
    """Read what holds at a place that passes requests on."""
    for key in PROXIED:
        readings.add(NGINX, subject, key, number(location.holds[key]), source)
    for header in ("Upgrade", "Connection"):
        # Without the directive, nginx closes the connection and passes on no Upgrade.
        given = location.headers.get(header.lower(), "close" if header == "Connection" else "")
        told = in_a_handshake(directives, given).lower()
        readings.add(NGINX, subject, f"{header} of a handshake", told, source)
    readings.add(NGINX, subject, "passes to", location.passes, source)


def read_workers(readings: Readings, directives: Sequence[Directive], proc: Path = PROC) -> None:
    """Read how many sockets the worker processes can hold, by their connections and their files."""
    source = "/proc/PID/limits of the worker processes"
    with readings.reading(NGINX, "nginx", source, "open files of a worker"):
        found = workers(proc)
        files = nofile_of(found, proc)
        if files is None:
            raise UnreadableError("no worker process of nginx runs with a limit")
        readings.add(NGINX, "nginx", "open files of a worker", files, source)
        told = value_of(directives, *GLOBAL["worker_connections"])
        connections = int(told or DEFAULTS["worker_connections"])
        # Each socket is two connections: of the client, and to the server behind.
        carried = len(found) * min(connections, files) // 2
        readings.add(NGINX, "nginx", "sockets that it can hold", carried, f"{SOURCE}, {source}")


def read_url(readings: Readings, directives: Sequence[Directive], url: str) -> None:
    """Read what holds where sockets are opened, and whether the servers behind can be reached."""
    with readings.reading(NGINX, url, SOURCE):
        location = location_of(directives, url)
        if location is None:
            raise UnreadableError("nginx has no location that proxies this URL")
        source = f"{SOURCE} ({location.name})"
        read_location(readings, directives, location, url, source)
        if "$" in location.passes:
            raise UnreadableError(f"nginx passes it to a variable: {location.passes}")
        members = members_of(directives, location.passes)
        readings.add(NGINX, url, "members", members, source)
        with ThreadPoolExecutor(16) as pool:
            answers = dict(zip(members, pool.map(why_no_connection, members), strict=True))
        refusing = [f"{member} ({why})" for member, why in answers.items() if why]
        where = f"a connection to each of {len(members)}"
        readings.add(NGINX, url, "members that take no connection", refusing, where)
        remote = [each for each in set(members) if not each.startswith("unix:")]
        if len(remote) == len(set(members)):
            most = len(remote) * outgoing_ports()
            readings.add(
                NGINX, url, "sockets that outgoing ports allow", most, "ip_local_port_range"
            )


def why_no_connection(member: str) -> str:
    """Return why a server takes no connection; nothing if it takes one."""
    try:
        if member.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(CONNECT_SECONDS)
                connection.connect(member.partition(":")[2])
        else:
            host, _, port = member.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except TimeoutError:
        return f"no answer within {CONNECT_SECONDS:g} s"
    except OSError as error:
        return str(error.strerror or error).lower()
    return ""


def number(text: str) -> Any:
    """Return a number, or a time in seconds, as a number; another text as it is."""
    if text.isdigit():
        return int(text)
    amount = seconds(text)
    if amount is None or "." in text:
        return text
    return int(amount) if amount == int(amount) else amount


def why_not_in_effect(files: Sequence[str], found: Sequence[Worker]) -> str:
    """Return why nginx does not run with its files; nothing if it does.

    Args:
        files: what nginx reads when it starts or reloads.
        found: its worker processes.
    """
    if not found:
        return "no worker process of nginx runs"
    # The oldest counts: a reload starts all of them. After a crash, nginx starts only the one that
    # crashed, with what it had read before.
    started = min(each.started_at for each in found)
    changed = {path: Path(path).stat().st_ctime for path in files if Path(path).exists()}
    newest = max(changed, key=lambda path: changed[path], default="")
    # A tick of the kernel's clock is a hundredth of a second.
    if newest and changed[newest] > started + 0.02:
        return f"{newest} was changed after nginx read it"
    return ""


@dataclass(frozen=True)
class Worker:
    """A worker process of nginx that takes connections.

    Attributes:
        process: its id.
        parent: the id of its master process.
        started_at: when it began, in seconds since 1970.
    """

    process: str
    parent: str
    started_at: float


def workers(proc: Path = PROC) -> list[Worker]:
    """Return the worker processes of every nginx that runs; not those that shut down."""
    found = []
    # Not btime, which has whole seconds; the clock and the time since boot are exact.
    booted = time.time() - float((proc / "uptime").read_text().split()[0])
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            title = (directory / "cmdline").read_bytes()
            if title.rstrip(b"\0 ") != b"nginx: worker process":
                continue
            stat = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        started = booted + int(stat[19]) / os.sysconf("SC_CLK_TCK")
        found.append(Worker(directory.name, stat[1], started))
    return found


def nginx_freshness(
    files: Sequence[str], url: str, generation: str, proc: Path = PROC
) -> dict[str, Any]:
    """Return whether the nginx that answers runs with its files.

    Args:
        files: what it reads when it starts or reloads.
        url: where it answers with the name of its configuration and the id of a worker process.
        generation: the name of the configuration in the files.
        proc: the processes of the host.

    Returns:
        What the module nginx_freshness returns.
    """
    nofile = None
    try:
        runs, process = reported(url)
        everyone = workers(proc)
        # Another nginx, of a container for example, has files of its own.
        master = next((each.parent for each in everyone if each.process == process), "")
        own = [each for each in everyone if each.parent == master]
        if runs != generation:
            why = f"the configuration is {generation}, nginx runs with {runs}"
        else:
            why = why_not_in_effect(files, own)
        nofile = nofile_of(own, proc)
    except UnreadableError as error:
        why = str(error)
    return {"stale": bool(why), "reason": why, "nofile": nofile}


def nofile_of(found: Iterable[Worker], proc: Path = PROC) -> int | None:
    """Return the smallest limit of open files of worker processes; None where none has one."""
    limits = []
    for each in found:
        with suppress(OSError):  # it has ended
            text = (proc / each.process / "limits").read_text()
            limits += re.findall(r"^Max open files +(\d+)", text, re.M)
    return min(map(int, limits), default=None)


def reported(url: str) -> tuple[str, str]:
    """Return the name of the configuration that nginx runs with, and the process that answered.

    Raises:
        UnreadableError: nginx gives no such answer.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as response:
            runs, process = response.read(200).decode(errors="replace").split()
    except (OSError, ValueError) as error:
        raise UnreadableError(
            f"nginx does not report its configuration on {url}: {error}"
        ) from error
    return runs, process


def other_generation(url: str, text: str) -> str:
    """Return why nginx does not run with the configuration in the file, by its own report."""
    written = GENERATION.search(text)
    runs, _ = reported(url)
    if written is None:
        return "the file does not name its configuration"
    if runs != written[1]:
        return f"the file has the configuration {written[1]}, nginx runs with {runs}"
    return ""
