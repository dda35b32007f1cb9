"""Readings of the configuration that nginx runs with.

``nginx -T`` prints files, and nginx may run with former ones: a reload was forgotten, or failed. So
what the files say counts only if nginx has read them: its worker processes are younger than the
files, and the configuration that it reports on its local port is the one in the file.
"""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.host_readings import EVERY, Readings, UnreadableError, output_of
from ansible.module_utils.nginx_config import (
    ConfigurationError,
    Directive,
    dumped,
    in_a_handshake,
    locations,
    parse_dump,
    seconds,
    upstreams,
    value_of,
)

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


def read_nginx(readings: Readings, binary: str, generation_url: str) -> None:
    """Read the configuration of nginx.

    Args:
        readings: collects what is read.
        binary: the program.
        generation_url: where nginx reports its configuration; empty: it does not.
    """
    with readings.reading(NGINX, EVERY, SOURCE):
        text = output_of([binary, "-T", "-q"], either=True)
        files = dumped(text)
        if not files:
            raise UnreadableError(f"nginx -T printed no configuration: {text}")
        why = why_not_in_effect(list(files), binary)
        source = f"start of the worker processes, and {next(iter(files))}"
        if generation_url and not why:
            source = f"GET {generation_url}, and {next(iter(files))}"
            why = other_generation(generation_url, text)
        state = why or "in effect"
        readings.add(NGINX, "nginx", "configuration", state, source)
        if why:
            raise UnreadableError(f"the files are not what nginx runs with: {why}")
        try:
            read_directives(readings, parse_dump(text))
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
        for key in PROXIED:
            readings.add(NGINX, location.name, key, number(location.holds[key]), SOURCE)
        for header in ("Upgrade", "Connection"):
            # Without the directive, nginx closes the connection and passes on no Upgrade.
            given = location.headers.get(header.lower(), "close" if header == "Connection" else "")
            told = in_a_handshake(directives, given)
            readings.add(NGINX, location.name, f"{header} of a handshake", told, SOURCE)
        readings.add(NGINX, location.name, "passes to", location.passes, SOURCE)


def number(text: str) -> Any:
    """Return a number, or a time in seconds, as a number; another text as it is."""
    if text.isdigit():
        return int(text)
    amount = seconds(text)
    if amount is None or "." in text:
        return text
    return int(amount) if amount == int(amount) else amount


def why_not_in_effect(files: Sequence[str], binary: str, proc: Path = Path("/proc")) -> str:
    """Return why nginx does not run with its files; nothing if it does."""
    started = worker_start(proc)
    if started is None:
        return f"no worker process of {Path(binary).name} runs"
    changed = {path: Path(path).stat().st_ctime for path in files if Path(path).exists()}
    newest = max(changed, key=lambda path: changed[path])
    # A tick of the kernel's clock is a hundredth of a second.
    if changed[newest] > started + 0.02:
        return f"{newest} was changed after nginx read it"
    return ""


def worker_start(proc: Path) -> float | None:
    """Return when the youngest worker process of nginx began, in seconds since 1970."""
    boot = re.search(r"^btime (\d+)$", (proc / "stat").read_text(), re.M)
    uptime = float((proc / "uptime").read_text().split()[0])
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            title = (directory / "cmdline").read_bytes()
            if title.rstrip(b"\0 ") != b"nginx: worker process":
                continue
            stat = (directory / "stat").read_text()
        except OSError:  # it has ended
            continue
        found.append(int(stat.rpartition(")")[2].split()[19]) / ticks)
    if not found or boot is None:
        return None
    # btime has whole seconds; the clock and the time since boot are exact.
    return time.time() - uptime + max(found)


def other_generation(url: str, text: str) -> str:
    """Return why nginx does not run with the configuration in the file, by its own report."""
    written = GENERATION.search(text)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as response:
            runs = response.read(200).decode(errors="replace").split()
    except OSError as error:
        raise UnreadableError(
            f"nginx does not report its configuration on {url}: {error}"
        ) from error
    if written is None:
        return "the file does not name its configuration"
    if not runs or runs[0] != written[1]:
        return f"the file has the configuration {written[1]}, nginx runs {runs[0] if runs else ''}"
    return ""
