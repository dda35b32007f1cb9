"""Print how many hosts a cluster needs, or whether the hosts of an inventory carry what they must.

Without SOCKETS and the others, the plan is of the inventory as it is. With them it is of a cluster
of the same kind of hosts. Limits are the values that Ansible evaluates, overrides of the inventory
too: playbooks/values.yml. No host changes.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from calibration.hosts import CalibrationError, read_values
from commands import end_on_signals, interrupted
from management import ManageError, find_inventory
from model import (
    BACK_SECONDS,
    Cluster,
    Figures,
    PlanError,
    Shape,
    Statement,
    examine,
    least,
    limit_terms,
)
from plan_report import Report

MOST_WORKERS = 256
"""Workers of a host, as the preflight allows (roles/cluster/meta/preflight.yml)."""

NEEDED = (
    *("statement", "figures", "workers", "workers_per_host", "processes"),
    *("sockets_per_worker", "edge_tls", "drain_pace", "roll_limit"),
)
"""Of the values of an inventory."""

QUESTION = ("SOCKETS", "MESSAGES", "ROOM", "SPARE", "HOST_MEMORY", "HOST_CORES", "BACK")
"""The arguments of make plan, besides ENV."""

UNITS = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}


def number(name: str, text: str) -> int | None:
    """Return the number of an argument; None for an empty one.

    Raises:
        PlanError: it is none.
    """
    if not text:
        return None
    digits = re.sub(r"[ _]", "", text)
    # More digits than any number that is allowed; Python refuses thousands of them.
    if not re.fullmatch(r"[0-9]{1,30}", digits):
        raise PlanError(f"{name} is '{text}'; allowed: a whole number from 0, such as 100000")
    return int(digits)


def mebibytes(name: str, text: str) -> int | None:
    """Return memory in MiB; None for an empty argument.

    Raises:
        PlanError: it is no size.
    """
    if not text:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([MGT]?)", text)
    if not found:
        raise PlanError(f"{name} is '{text}'; allowed: a size, such as 8G or 8192M")
    return int(found[1]) * UNITS[found[2]]


def changed(options: argparse.Namespace) -> dict[str, int]:
    """Return the variables of the statement that the command sets.

    Raises:
        PlanError: one is no number, or not allowed.
    """
    given = {
        "cluster_sockets": number("SOCKETS", options.sockets),
        "cluster_messages_per_second": number("MESSAGES", options.messages),
        "cluster_room_size": number("ROOM", options.room),
        "cluster_spare_hosts": number("SPARE", options.spare),
    }
    # Refuses what is out of bounds, before Ansible runs.
    Statement(
        given["cluster_sockets"] if given["cluster_sockets"] is not None else 1,
        given["cluster_messages_per_second"] or 0,
        given["cluster_room_size"] if given["cluster_room_size"] is not None else 1,
        given["cluster_spare_hosts"] or 0,
    )
    return {name: value for name, value in given.items() if value is not None}


def shape_of(
    values: Mapping[str, Any], group: str, cores: int | None, memory: int | None, figures: Figures
) -> tuple[Shape, str]:
    """Return the smallest host of a group, and in words where that is from."""
    hosts = [values["hosts"][name] for name in values["groups"][group]]
    known = [host for host in hosts if host["cores"] and host["memory_mib"]]
    calibrated = figures.content.get("host") or {}
    source = f"read from {len(known)} of {len(hosts)} hosts"
    if not known:
        source = "ASSUMED, because no host answered: the machine of the calibration"
    if cores and memory:
        source = "as given"
    elif cores or memory:
        source = f"{'cores' if cores else 'memory'} as given, the rest {source}"
    fact_cores = min((int(host["cores"]) for host in known), default=calibrated.get("cores", 2))
    fact_memory = min(
        (int(host["memory_mib"]) for host in known), default=calibrated.get("memory_mib", 4096)
    )
    return Shape(cores or fact_cores, memory or fact_memory), source


def question_of(options: argparse.Namespace) -> str:
    """Return the command that the operator has run, with its arguments."""
    given = {name: vars(options)[name.lower()] for name in QUESTION}
    env = "" if options.environment == "staging" else options.environment
    words = {"ENV": env, **given}
    said = (f"{name}={shlex.quote(value)}" for name, value in words.items() if value)
    return " ".join(["make plan", *said])


def plan(options: argparse.Namespace) -> list[str]:
    """Return the lines of the plan.

    Raises:
        PlanError: the question cannot be answered.
        CalibrationError: Ansible cannot read the inventory.
    """
    variables = changed(options)
    cores = number("HOST_CORES", options.host_cores)
    memory = mebibytes("HOST_MEMORY", options.host_memory)
    back = number("BACK", options.back)
    if back is not None and not 1 <= back <= 10_000_000:
        raise PlanError(f"BACK is {back}; allowed: 1 to 10000000 seconds")
    # Refuses what is out of bounds, before Ansible runs.
    Shape(1 if cores is None else cores, 256 if memory is None else memory)
    inventory = find_inventory(options.environment)
    asked = bool(variables or cores or memory)
    groups = ("channels", "nginx")
    values = read_values(
        inventory,
        groups,
        NEEDED,
        values_variables=variables,
        values_contact=not (cores and memory),
    )
    app_hosts, edges = (values["groups"][group] for group in groups)
    first = values["hosts"][app_hosts[0]]
    stated = {name: int(value) for name, value in first["statement"].items()}
    figures = Figures(first["figures"])
    app, source = shape_of(values, "channels", cores, memory, figures)
    edge, edge_source = shape_of(values, "nginx", cores, memory, figures)
    counts = Counter(worker["host"] for worker in first["workers"])
    workers = len(first["workers"]) / len(app_hosts)
    uneven = tuple(counts.values()) if len(set(counts.values())) > 1 else ()
    if asked:
        uneven = ()
        # One process uses one core.
        workers = float(min(cores, MOST_WORKERS) if cores else first["workers_per_host"])
        stated["spare"] = variables.get("cluster_spare_hosts", max(1, stated["spare"]))
    statement = Statement(**stated)
    overridden = values["table"].get("sockets_per_worker", {}).get("overridden")
    handshakes = values["hosts"][edges[0]]["handshakes_per_worker"]
    cluster = Cluster(
        app=app,
        edge=edge,
        app_hosts=len(app_hosts),
        workers_per_host=workers,
        edges=len(edges),
        processes=int(first["processes"]),
        tls=bool(first["edge_tls"]),
        sockets_per_worker=int(first["sockets_per_worker"]) if overridden else None,
        handshakes_per_worker=float(handshakes) if handshakes else None,
        back_seconds=back or BACK_SECONDS,
        uneven=uneven,
    )
    usual = float(first["workers_per_host"]) if uneven else workers
    enough = least(statement, figures, replace(cluster, workers_per_host=usual))
    answer = enough if asked else examine(statement, figures, cluster)
    if asked:
        more = {
            **variables,
            "cluster_spare_hosts": statement.spare,
            "cluster_workers_per_host": round(workers),
            # The planned hosts are alike, whatever the inventory has for one of its own.
            "cluster_workers": round(workers),
        }
        values = read_values(
            inventory,
            groups,
            NEEDED,
            values_variables=more,
            values_counts={
                "channels": answer.cluster.app_hosts,
                "nginx": answer.cluster.edges,
            },
            values_contact=False,
        )
    limits = limit_terms(values["table"], answer.cluster.edge.cores)
    answer = replace(answer, terms=(*answer.terms, *limits))
    report = Report(
        question=question_of(options),
        answer=answer,
        enough=enough,
        expected=examine(statement, replace(figures, expected=True), answer.cluster, answer.redis),
        figures=figures,
        values=values,
        asked=asked,
        app_source=source,
        edge_source=edge_source,
        calibrated="inventory" in figures.content,
        layer=first["layer"],
    )
    return report.lines()


def build_parser() -> argparse.ArgumentParser:
    """Return the command line; the Makefile passes what it was given."""
    parser = argparse.ArgumentParser(description="Print the plan of a cluster.")
    parser.add_argument("environment", help="a directory of inventories/")
    for name in QUESTION:
        parser.add_argument(f"--{name.lower().replace('_', '-')}", default="")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan; return the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        lines = plan(options)
    except (PlanError, CalibrationError, ManageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted("\nInterrupted. A plan changes nothing.")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    end_on_signals()
    sys.exit(main())
