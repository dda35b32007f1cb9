"""Measure what sockets, handshakes and messages cost on the hosts of an inventory.

The figures go to group_vars/all/calibration.yml of the inventory, from where `make plan` and the
limits of the roles take them. Sockets are opened from an app host; processor time and memory are
those of the cluster's processes, from /proc. It restarts one worker, takes about three minutes,
leaves nothing on the hosts, and refuses a cluster that has clients.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from calibration.check import Check
from calibration.hosts import ROOT, CalibrationError, Host, read_values
from calibration.measuring import Cluster, Door, Measuring
from calibration.traffic import Traffic
from channels_kit.load.adapter import LoginRefused, load_adapter
from channels_kit.probe.address import UsageError
from commands import end_on_signals
from management import ManageError, find_running_inventory

DEFAULTS = ROOT / "roles" / "cluster" / "defaults" / "main.yml"
SOCKETS = 400
"""Sockets of the application that are opened on one worker at most."""

HEADER = """\
---
# Written by `make calibrate`: what sockets, handshakes and messages cost on these hosts. make plan
# and the limits of the roles use it. Each figure has a value and the range of the repetitions; one
# with "default: true" could not be measured here. docs/capacity.md says what each means.
"""

LABELS = {
    "worker_mib": ("an idle worker", "MiB"),
    "socket_kib": ("a socket in a worker", "KiB"),
    "socket_microseconds": ("an idle socket in a worker, CPU a second", "µs"),
    "edge_socket_kib": ("a socket in nginx, both sides", "KiB"),
    "edge_tls_socket_kib": ("the same with TLS", "KiB"),
    "handshakes_per_second": ("handshakes of one worker", "/s"),
    "handshake_milliseconds": ("a handshake, CPU of a worker", "ms"),
    "edge_handshake_milliseconds": ("a handshake, CPU of nginx", "ms"),
    "edge_tls_handshake_milliseconds": ("the same with TLS", "ms"),
    "deliveries_per_second": ("deliveries of one worker, p99 below 250 ms", "/s"),
    "busy_percent": ("a worker at that rate", "% of a core"),
    "delivery_microseconds": ("a delivery, CPU of a worker", "µs"),
    "message_microseconds": ("a message that a worker receives, CPU", "µs"),
    "send_microseconds": ("a message that a worker sends, CPU", "µs"),
    "send_member_microseconds": ("the same, for each member of the room", "µs"),
    "edge_delivery_microseconds": ("a delivery, CPU of nginx", "µs"),
    "redis_message_microseconds": ("a message, CPU of Redis", "µs"),
    "redis_worker_microseconds": ("the same, for each worker of the room", "µs"),
    "redis_member_microseconds": ("the same, for each member of the room", "µs"),
    "wave_seconds": ("a wave of a deploy, nobody connected", "s"),
    "deploy_seconds": ("the rest of a deploy", "s"),
}


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def door_of(values: Mapping[str, Any], adapter: str, room: str, login_url: str) -> tuple[Door, str]:
    """Return where sockets of the application are opened, and why there.

    Raises:
        CalibrationError: the adapter cannot be used.
    """
    if adapter:
        users = values["users"]
        if not users:
            raise CalibrationError("ADAPTER= needs a user in channels_users of the inventory.")
        sys.path.insert(0, str(Path(values["source"]).resolve()))
        user, password = next(iter(users.items()))
        try:
            protocol = load_adapter(adapter)
            token = protocol.log_in(login_url, user, password).token
        except (UsageError, LoginRefused, OSError) as error:
            raise CalibrationError(f"ADAPTER='{adapter}': {error}") from error
        path, mark, query = protocol.path(room, token, None).partition("?")
        return Door(path, mark + query), f"ADAPTER={adapter}"
    for check in values["sockets"]:
        given: Mapping[str, Any] = {"path": check} if isinstance(check, str) else check
        if "close" not in given and "status" not in given:
            headers = dict(given.get("headers", {}))
            return Door(str(given["path"]), "", headers), "channels_check_sockets"
    return Door(), "no socket of channels_check_sockets stays open without a login"


async def look(cluster: Cluster, force: bool) -> tuple[dict[str, Any], int]:
    """Return what each app host is, and the number of sockets of the fullest worker.

    Raises:
        CalibrationError: a worker does not answer, or has clients.
    """
    urls = [worker["url"] for worker in cluster.workers]
    states = await cluster.client.ask("live", urls=urls)
    silent = [
        worker["name"]
        for worker, state in zip(cluster.workers, states, strict=True)
        if state is None or state["draining"]
    ]
    if silent:
        raise CalibrationError(
            f"Workers that drain or do not answer: {', '.join(silent)}. Nothing was measured.\n"
            "Start them (make undrain, make converge), then retry."
        )
    present = sum(state["sockets"] for state in states)
    if present and not force:
        raise CalibrationError(
            f"{present} clients are connected. Nothing was measured.\n"
            "Measure while nobody is connected, or set FORCE=yes. Clients then notice the load, and"
            " the figures include the load of the clients."
        )
    machines = {name: await host.ask("host") for name, host in cluster.hosts.items()}
    return machines, max(state["sockets"] for state in states)


async def versions_of(cluster: Cluster, server: str) -> dict[str, str]:
    """Return the versions that the figures are of."""
    python = ["/usr/local/sbin/channels-manage", "--python", "-c"]
    package = "import importlib.metadata as m; print(m.version({!r}))"
    target = cluster.hosts[cluster.target["host"]]
    found: dict[str, str] = await target.ask(
        "versions",
        commands={
            "python": [*python, "import platform; print(platform.python_version())"],
            server: [*python, package.format(server)],
            "django": [*python, package.format("django")],
            "channels": [*python, package.format("channels")],
            "channels_redis": [*python, package.format("channels_redis")],
        },
    )
    found["kernel"] = (await target.ask("host"))["kernel"]
    for host, name, command in (
        (cluster.edge_host, "nginx", ["/usr/sbin/nginx", "-v"]),
        (cluster.redis_host, "redis", ["/usr/bin/redis-server", "--version"]),
    ):
        if host:
            found |= await cluster.hosts[host].ask("versions", commands={name: command})
    found["kit"] = (ROOT / "kit" / "VERSION").read_text().strip()
    return found


def shape_of(cluster: Cluster, machines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what an app host is, and how many hosts share its machine."""
    app = machines[cluster.target["host"]]
    shared = sum(machine["boot"] == app["boot"] for machine in machines.values())
    return {
        "cores": app["cores"],
        "memory_mib": app["memory_mib"],
        "model": app["model"],
        "hosts_on_machine": shared,
    }


def in_words(shape: Mapping[str, Any]) -> str:
    """Say what machine it is."""
    shared = shape["hosts_on_machine"]
    return f"{shape['cores']} cores of {shape['model']}, {shape['memory_mib']} MiB" + (
        f", shared by {shared} hosts of the cluster" if shared > 1 else ""
    )


def content_of(
    measuring: Measuring,
    versions: Mapping[str, str],
    shape: Mapping[str, Any],
    former: Mapping[str, Any],
    inventory: str,
) -> dict[str, Any]:
    """Return cluster_figures; what was not measured is the former figure, or the default."""
    defaults = yaml.safe_load(DEFAULTS.read_text())["cluster_figures"]
    figures: dict[str, Any] = {
        # Limits that only figures of the application itself justify look for this.
        "inventory": inventory,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": in_words(shape),
        "host": dict(shape),
        "versions": dict(sorted(versions.items())),
        "measured": measuring.measured,
    }
    for name in LABELS:
        if name in measuring.figures:
            figures[name] = measuring.figures[name].as_json()
        elif name in former:
            figures[name] = former[name]
        elif name in defaults:
            figures[name] = {**defaults[name], "default": True}
    return figures


def table_of(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures as lines for people."""
    lines = [f"{'':46} {'value':>8} {'low':>8} {'high':>8}"]
    for name, (label, unit) in LABELS.items():
        if name in figures:
            figure = figures[name]
            numbers = " ".join(f"{figure[part]:8g}" for part in ("value", "low", "high"))
            mark = "  (default, not measured)" if figure.get("default") else ""
            lines.append(f"{label:46} {numbers} {unit}{mark}")
    return lines


def file_of(inventory: Path) -> Path:
    """Return where Ansible reads the figures of an inventory."""
    directory = inventory if inventory.is_dir() else inventory.parent
    return directory / "group_vars" / "all" / "calibration.yml"


def write(inventory: Path, figures: Mapping[str, Any]) -> Path:
    """Write the figures; return the file."""
    file = file_of(inventory)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(
        {"cluster_figures": dict(figures)}, sort_keys=False, default_flow_style=None, width=100
    )
    file.write_text(HEADER + text)
    return file


def cluster_of(values: Mapping[str, Any], hosts: Mapping[str, Host], door: Door) -> Cluster:
    """Return what is measured."""
    groups = values["groups"]
    own = values["hosts"]
    client = groups["channels"][0]
    first = own[client]
    edges = groups.get("nginx") or []
    tls = ""
    if edges and first["edge_tls"]:
        address = own[edges[0]]["edge_address"]
        bare = f"[{address}]" if ":" in address else address
        tls = f"https://{bare}:{first['edge_https_port']}"
    name = first["names"][0].removeprefix(".")
    return Cluster(
        hosts=hosts,
        client=hosts[client],
        workers=first["workers"],
        site=name,
        origin=f"{'https' if first['edge_tls'] else 'http'}://{name}",
        edge=first["edges"][0] if edges else "",
        edge_tls=tls,
        edge_host=edges[0] if edges else "",
        redis_host=(groups.get("redis") or [""])[0],
        door=door,
        sockets=min(SOCKETS, int(first["sockets_per_worker"]) - 64),
        pace=pace_of(own[edges[0]]) if edges else 0.0,
    )


def pace_of(edge: Mapping[str, Any]) -> float:
    """Return the handshakes a second that an edge takes from one address, with some to spare."""
    of_one_address = float(edge["handshakes_per_address"]) or float("inf")
    limits = [float(edge["handshakes_per_second"]), of_one_address]
    return 0.8 * min(limits)


async def calibrate(options: argparse.Namespace) -> None:
    """Measure, print the table, write the file.

    Raises:
        CalibrationError: it cannot be measured; the file is as it was.
    """
    began = time.monotonic()
    inventory = find_running_inventory(options.environment)
    values = read_values(inventory, values_contact=False)
    if not values["groups"].get("channels"):
        raise CalibrationError(f"{inventory} has no host in the group channels.")
    first = values["hosts"][values["groups"]["channels"][0]]
    name = first["names"][0].removeprefix(".")
    login_url = options.login or f"{'https' if first['edge_tls'] else 'http'}://{name}"
    door, why = door_of(first, options.adapter, options.room, login_url)
    say(f"sockets: {door.words} ({why})")
    names = [
        *values["groups"]["channels"],
        *(values["groups"].get("nginx") or [])[:1],
        *(values["groups"].get("redis") or [])[:1],
    ]
    async with AsyncExitStack() as stack:
        hosts = {
            name: await stack.enter_async_context(Host(values["hosts"][name]))
            for name in dict.fromkeys(names)
        }
        cluster = cluster_of(values, hosts, door)
        machines, present = await look(cluster, options.force)
        measuring = (
            Check(cluster, say, first["figures"]) if options.check else Traffic(cluster, say)
        )
        measuring.present = present
        shape = shape_of(cluster, machines)
        say(f"app hosts: {in_words(shape)}; client on {cluster.client.name}")
        versions = await versions_of(cluster, first["server"])
        await measuring.run()
    if isinstance(measuring, Check):
        say("")
        for line in measuring.lines():
            say(line)
        say(f"\nCompared with the figures of {first['figures'].get('date')}. Nothing was written.")
        return
    former = file_of(inventory)
    known = yaml.safe_load(former.read_text()) if former.exists() else {}
    figures = content_of(
        measuring, versions, shape, known.get("cluster_figures", {}), inventory.name
    )
    if options.room and options.adapter:
        figures["measured"]["handshake"] = f"{door.path} ({options.adapter})"
    file = write(inventory, figures)
    say("")
    for line in table_of(figures):
        say(line)
    say(f"\nCalibrated in {time.monotonic() - began:.0f} s: {file}")
    if shape["hosts_on_machine"] > 1:
        say(
            "Several hosts share this machine: rates are lower and vary more than on a machine for"
            " each host."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the figures that make plan stands on.")
    parser.add_argument("environment", help="a directory of inventories/")
    parser.add_argument("--force", default="", help="yes: measure although clients are connected")
    parser.add_argument(
        "--adapter",
        default="",
        metavar="MODULE:CLASS",
        help="log in as the load tool does, with the first of channels_users (docs/load.md)",
    )
    parser.add_argument(
        "--check",
        default="",
        help="yes: compare the figures of the inventory with a measurement, and write nothing",
    )
    parser.add_argument("--room", default="lobby", help="the room of --adapter")
    parser.add_argument("--login", default="", metavar="URL", help="where --adapter logs in")
    options = parser.parse_args(arguments)
    for name in ("force", "check"):
        value = getattr(options, name)
        if value not in ("", "yes"):
            print(f"{name.upper()} is '{value}'; allowed: yes, or nothing", file=sys.stderr)
            return 2
        setattr(options, name, value == "yes")
    end_on_signals()
    try:
        asyncio.run(calibrate(options))
    except (CalibrationError, ManageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The sockets are closed; the file did not change.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
