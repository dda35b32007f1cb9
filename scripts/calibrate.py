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
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from calibration.check import Check
from calibration.hosts import CalibrationError, Host, read_values
from calibration.measuring import Cluster, Door, Measuring
from calibration.traffic import Traffic
from channels_kit.load.adapter import LoginRefused, load_adapter
from channels_kit.probe.address import UsageError
from commands import ROOT, end_on_signals, interrupted
from management import ManageError, find_running_inventory
from model import PlanError

DEFAULTS = ROOT / "roles" / "cluster" / "defaults" / "main.yml"
SOCKETS, LEAST_SOCKETS = 400, 32
"""Sockets of the application that are opened on one worker, at most and at least."""

NEEDED = (
    *("workers", "edges", "names", "edge_tls", "edge_https_port", "edge_address", "server"),
    *("sockets", "sockets_per_worker", "figures"),
    *("handshakes_per_second", "handshakes_per_address"),
)
"""Of the values of an inventory."""

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
        except (UsageError, ImportError) as error:
            said = str(error).removeprefix("--adapter: ")
            raise CalibrationError(
                f"ADAPTER is '{adapter}', which cannot be used: {said}"
            ) from error
        try:
            token = protocol.log_in(login_url, user, password).token
        # Of a URL that is none, too.
        except (LoginRefused, OSError, ValueError) as error:
            raise CalibrationError(f"The login of {user} at {login_url} failed: {error}") from error
        path, mark, query = protocol.path(room, token, None).partition("?")
        return Door(path, mark + query), f"ADAPTER={adapter}"
    for check in values["sockets"]:
        given: Mapping[str, Any] = {"path": check} if isinstance(check, str) else check
        if "close" not in given and "status" not in given:
            headers = dict(given.get("headers", {}))
            return Door(str(given["path"]), "", headers), "channels_check_sockets"
    return Door(), "no socket of channels_check_sockets stays open without a login"


async def look(cluster: Cluster, force: bool) -> tuple[dict[str, Any], int]:
    """Return what each host is, and the number of sockets of the fullest worker.

    Raises:
        CalibrationError: somebody changes the cluster, or a worker does not answer, is not
            restarted as it is now, or has clients.
    """
    names = dict.fromkeys(worker["host"] for worker in cluster.workers)
    for name in names:
        if holder := await cluster.hosts[name].ask("locked"):
            raise CalibrationError(
                f"Locked by {holder} on {name}. Nothing was measured.\n"
                "Wait until the operation ends, then retry. If abandoned: make unlock"
            )
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
    # A restart would close what retired processes serve, and start another release than now runs.
    # A revision is a release, and a hash of the unit file, which differs from host to host.
    releases = {state["revision"].rpartition("-")[0] for state in states}
    revisions = {
        (worker["host"], state["revision"])
        for worker, state in zip(cluster.workers, states, strict=True)
    }
    if any(state["beside"] for state in states) or len(releases) > 1 or len(revisions) > len(names):
        raise CalibrationError(
            "A deploy is not complete: workers have retired processes, or run different releases."
            " Nothing was measured.\n"
            "Look at make releases, complete the deploy (make converge), then retry."
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


def room_for(limit: int, present: int) -> int:
    """Return how many sockets are opened on a worker; a tenth of its free places stays free.

    Args:
        limit: sockets that it takes.
        present: sockets that it has.

    Raises:
        CalibrationError: too few for a measurement.
    """
    count = min(SOCKETS, (limit - present) * 9 // 10)
    if count < LEAST_SOCKETS:
        raise CalibrationError(
            f"cluster_sockets_per_worker is {limit}, and a worker has {present} sockets. Calibrate"
            f" opens {LEAST_SOCKETS} more on it at least, and leaves a tenth of the rest free."
            " Nothing was measured.\n"
            "Raise cluster_sockets, or retry when fewer clients are connected."
        )
    return count


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
        "measured": dict(measuring.measured),
    }
    for name in LABELS:
        measured = measuring.figures.get(name)
        if measured and (usable := measured.usable()):
            figures[name] = usable.as_json()
        elif name in former:
            figures[name] = former[name]
        elif name in defaults:
            figures[name] = {**defaults[name], "default": True}
    # Handshakes that were not measured now are of the former figures, or of the defaults.
    rate = "handshakes_per_second"
    if (found := measuring.figures.get(rate)) is None or not found.usable():
        of_former = rate in former and not former[rate].get("default")
        kept = (former if of_former else defaults).get("measured") or {}
        figures["measured"]["handshake"] = kept.get("handshake", "not known")
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
    """Write the figures as a whole; return the file.

    Raises:
        CalibrationError: it cannot be written, and is as it was.
    """
    file = file_of(inventory)
    text = yaml.safe_dump(
        {"cluster_figures": dict(figures)}, sort_keys=False, default_flow_style=None, width=100
    )
    unfinished = file.with_suffix(".new")  # which Ansible does not read
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(HEADER + text)
        unfinished.replace(file)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise CalibrationError(f"The figures were not written to {file}: {error}") from error
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
        pace=pace_of(own[edges[0]]) if edges else 0.0,
        sockets=SOCKETS,
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
    values = read_values(inventory, ("channels",), NEEDED, values_contact=False)
    first = values["hosts"][values["groups"]["channels"][0]]
    name = first["names"][0].removeprefix(".")
    login_url = options.login or f"{'https' if first['edge_tls'] else 'http'}://{name}"
    door, why = door_of(first, options.adapter, options.room or "lobby", login_url)
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
        cluster.sockets = room_for(int(first["sockets_per_worker"]), present)
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
    known = first["figures"]
    measuring.measured["layer"] = first["layer"]
    former = known if "inventory" in known else {}
    if options.adapter:
        measuring.measured["handshake"] = f"{door.path} ({options.adapter})"
    figures = content_of(measuring, versions, shape, former, inventory.name)
    say("")
    for line in table_of(figures):
        say(line)
    file = write(inventory, figures)
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
    parser.add_argument("--room", default="", help="the room of --adapter; default: lobby")
    parser.add_argument("--login", default="", metavar="URL", help="where --adapter logs in")
    options = parser.parse_args(arguments)
    for name in ("force", "check"):
        value = getattr(options, name)
        if value not in ("", "yes"):
            print(f"{name.upper()} is '{value}'; allowed: yes, or nothing", file=sys.stderr)
            return 2
        setattr(options, name, value == "yes")
    for name in ("room", "login"):
        if (value := getattr(options, name)) and not options.adapter:
            print(
                f"{name.upper()} is '{value}', but nothing logs in: set ADAPTER too, as"
                " docs/capacity.md shows",
                file=sys.stderr,
            )
            return 2
    try:
        asyncio.run(calibrate(options))
    except (CalibrationError, ManageError, PlanError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted(
            "\nInterrupted. The figures did not change. The program on the hosts ends with its"
            " connection, and so do its sockets."
        )
    return 0


if __name__ == "__main__":
    end_on_signals()
    sys.exit(main())
