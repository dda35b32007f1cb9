"""How many hosts a WebSocket cluster needs: terms, and the least number with which none is short.

A term is one thing that can run out. It says what is needed, what is there, and why. Needs are
calculated with the unfavourable end of each figure's range: the most that something costs, the
least that something carries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugins.module_utils.capacity import (
        SOURCE,
        Cluster,
        Figures,
        Load,
        PlanError,
        Statement,
        Term,
    )
else:
    from ansible.module_utils.capacity import (
        SOURCE,
        Cluster,
        Figures,
        Load,
        PlanError,
        Statement,
        Term,
    )

MOST_HOSTS = 10_000

SYSTEM_MIB = 400
"""The operating system of a host, with sshd, journald and chrony."""

KERNEL_KIB = 4
"""What the kernel keeps for an idle connection; it is in no process."""

EDGE_PORTS = 55_296
"""Connections of one edge to one worker, a port each: net.ipv4.ip_local_port_range of base."""

MOST_PERCENT = 80
"""Of all cores of a host; the rest is for the kernel, for Ansible and for bursts."""

REDIS_PERCENT = 70
"""Of the one core that a Redis instance uses; above, messages wait."""


def app_terms(statement: Statement, figures: Figures, cluster: Cluster) -> list[Term]:
    """Return the terms of the app hosts, when the spare ones are lost."""
    hosts = cluster.carrying(statement)
    workers = hosts * cluster.workers_per_host
    load = Load.of(statement, figures, workers)
    per_host = load.sockets * cluster.workers_per_host
    kib = figures.cost("socket_kib") + KERNEL_KIB
    worker_mib = figures.cost("worker_mib")
    count = 2 * cluster.workers_per_host + cluster.processes
    beyond_sockets = figures.beyond("sockets_per_worker", load.sockets, "sockets a worker")
    beyond_messages = "; ".join(
        filter(
            None,
            (
                beyond_sockets,
                figures.beyond("deliveries_per_second", load.deliveries, "deliveries/s a worker"),
                figures.beyond("workers", load.touched, "workers in a room"),
                figures.beyond("room_size", statement.members, "sockets in a room"),
            ),
        )
    )
    terms = [
        Term(
            "memory of an app host",
            "app",
            "HOST_MEMORY",
            SYSTEM_MIB + count * worker_mib + per_host * kib / 1024,
            cluster.app.memory_mib,
            "MiB",
            f"{SYSTEM_MIB} of the system, {count:g} processes of {worker_mib:.0f} (workers twice:"
            f" in a deploy the new one starts beside the old), {per_host:.0f} sockets of"
            f" {kib:.1f} KiB ({KERNEL_KIB} of them the kernel's)",
            SOURCE,
            beyond_sockets,
        ),
        Term(
            "processor of a worker",
            "app",
            "cluster_workers_per_host",
            load.percent,
            figures.rate("busy_percent"),
            "% of a core",
            f"{load.deliveries:.0f} deliveries/s, {statement.messages * load.touched / workers:.0f}"
            f" messages/s from Redis, {statement.messages / workers:.0f} sent; above this share a"
            " worker delivers later than 250 ms",
            SOURCE,
            beyond_messages,
        ),
        Term(
            "processors of an app host",
            "app",
            "HOST_CORES",
            load.percent * cluster.workers_per_host,
            MOST_PERCENT * cluster.app.cores,
            "% of a core",
            f"{cluster.workers_per_host:g} workers; {MOST_PERCENT} % of {cluster.app.cores} cores",
            SOURCE,
            beyond_messages,
        ),
        Term(
            "ports from an edge to a worker",
            "app",
            "cluster_workers_per_host",
            math.ceil(load.sockets / cluster.carrying_edges),
            EDGE_PORTS,
            "ports",
            "nginx takes a port for each socket to a worker",
            "ip(7), ip_local_port_range",
        ),
        back_term(statement, figures, cluster),
    ]
    if cluster.sockets_per_worker is not None:
        terms.append(
            Term(
                "sockets of a worker",
                "app",
                "cluster_sockets_per_worker",
                load.sockets,
                cluster.sockets_per_worker,
                "sockets",
                "the inventory limits them",
                "the inventory",
            )
        )
    return terms


def back_term(statement: Statement, figures: Figures, cluster: Cluster) -> Term:
    """Return the time until all clients of lost hosts are back on the others."""
    hosts = cluster.carrying(statement)
    lost = math.ceil(statement.sockets / max(1, cluster.app_hosts)) * max(1, statement.spare)
    lost = min(lost, statement.sockets)
    rate = cluster.handshakes_per_worker or 0.8 * figures.rate("handshakes_per_second")
    of_workers = hosts * cluster.workers_per_host * rate
    cpu = figures.cost("handshake_milliseconds")
    of_cores = hosts * cluster.app.cores * MOST_PERCENT * 10 / cpu
    return Term(
        "time until all clients are back after lost hosts",
        "app",
        "BACK",
        lost / min(of_workers, of_cores),
        cluster.back_seconds,
        "s",
        f"{lost} clients; {min(of_workers, of_cores):.0f} handshakes/s on {hosts} hosts"
        + ("" if of_workers <= of_cores else f", limited by their cores ({cpu:.1f} ms each)"),
    )


def redis_terms(
    statement: Statement, figures: Figures, cluster: Cluster, instances: int
) -> list[Term]:
    """Return the terms of the channel layer's Redis."""
    # With all hosts there: the more workers, the more a message costs.
    workers = max(1.0, cluster.app_hosts * cluster.workers_per_host)
    touched = Load.of(statement, figures, workers).touched
    members = statement.members
    microseconds = (
        figures.cost("redis_message_microseconds")
        + touched * figures.cost("redis_worker_microseconds")
        + members * figures.cost("redis_member_microseconds")
    )
    return [
        Term(
            "processor of Redis",
            "redis",
            "redis instances",
            statement.messages * microseconds / 10_000,
            REDIS_PERCENT * instances,
            "% of a core",
            f"{statement.messages:g} messages/s, each {microseconds:.0f} µs for {touched:.1f}"
            f" workers and {members} members; an instance uses one core",
            SOURCE,
            "; ".join(
                filter(
                    None,
                    (
                        figures.beyond("workers", touched, "workers in a room"),
                        figures.beyond("room_size", members, "sockets in a room"),
                    ),
                )
            ),
        )
    ]


def edge_terms(statement: Statement, figures: Figures, cluster: Cluster) -> list[Term]:
    """Return the terms of the edges, when one of several is lost."""
    edges = cluster.carrying_edges
    sockets = math.ceil(statement.sockets / edges)
    prefix = "edge_tls_" if cluster.tls else "edge_"
    # Both sides of a socket are connections of the edge.
    kib = figures.cost(f"{prefix}socket_kib") + 2 * KERNEL_KIB
    handshakes = cluster.handshakes_per_worker or 0.8 * figures.rate("handshakes_per_second")
    handshakes *= cluster.app_hosts * cluster.workers_per_host / edges
    cpu = figures.cost(f"{prefix}handshake_milliseconds")
    deliveries = (statement.deliveries + statement.messages) / edges
    percent = deliveries * figures.cost("edge_delivery_microseconds") / 10_000
    return [
        Term(
            "memory of an edge",
            "edge",
            "HOST_MEMORY",
            SYSTEM_MIB + sockets * kib / 1024,
            cluster.edge.memory_mib,
            "MiB",
            f"{SYSTEM_MIB} of the system, {sockets} sockets of {kib:.1f} KiB"
            f" ({2 * KERNEL_KIB} of them the kernel's)",
        ),
        Term(
            "processors of an edge",
            "edge",
            "HOST_CORES",
            percent,
            MOST_PERCENT * cluster.edge.cores,
            "% of a core",
            f"{deliveries:.0f} messages/s; {MOST_PERCENT} % of {cluster.edge.cores} cores",
        ),
        Term(
            "processors of an edge while clients come back",
            "edge",
            "HOST_CORES",
            handshakes * cpu / 10,
            100 * cluster.edge.cores,
            "% of a core",
            f"{handshakes:.0f} handshakes/s of {cpu:.2f} ms{' with TLS' if cluster.tls else ''}",
        ),
    ]


LIMITS = (
    # What it is, the line of what is needed, and the line of what the processes get.
    ("open files of a worker", "sockets_per_worker", "nofile"),
    ("connections of an nginx process", "edge_connections", "worker_connections"),
    ("connections of Redis", "redis_clients", "redis_maxclients"),
    ("connections of PostgreSQL", "database_connections", "postgres_connections"),
)


def limit_terms(table: Mapping[str, Mapping[str, Any]]) -> list[Term]:
    """Return the limits of the table of the roles that are short, because an inventory set one.

    Args:
        table: `cluster_capacity`, evaluated.
    """
    terms = []
    for name, needed, given in LIMITS:
        try:
            needs, has = float(table[needed]["value"]), float(table[given]["value"])
            line = table[given]
            words = (str(line["variable"] or needed), str(line["unit"]))
            reason = str(table[needed]["reason"])
        except (KeyError, TypeError, ValueError):
            continue
        of = "the inventory" if line["overridden"] else str(line["source"])
        if needs > has:
            terms.append(Term(name, "limits", words[0], needs, has, words[1], reason, of))
    return terms


@dataclass(frozen=True)
class Plan:
    """The answer.

    Attributes:
        statement: what is carried.
        cluster: the hosts.
        redis: instances of the channel layer.
        load: of one worker, when the spare hosts are lost.
        terms: all of them.
    """

    statement: Statement
    cluster: Cluster
    redis: int
    load: Load
    terms: tuple[Term, ...] = field(default=())

    @property
    def fits(self) -> bool:
        """Whether nothing is short."""
        return all(term.fits for term in self.terms)

    @property
    def binding(self) -> Term:
        """The term of the hosts with the least head-room; a limit can be raised."""
        terms = [term for term in self.terms if term.of != "limits"]
        return min(terms, key=lambda term: term.headroom)

    @property
    def workers(self) -> int:
        """All of them."""
        return round(self.cluster.app_hosts * self.cluster.workers_per_host)


def examine(statement: Statement, figures: Figures, cluster: Cluster, redis: int = 1) -> Plan:
    """Return what given hosts have to carry, and what is short."""
    workers = cluster.carrying(statement) * cluster.workers_per_host
    terms = [
        *app_terms(statement, figures, cluster),
        *redis_terms(statement, figures, cluster, redis),
        *edge_terms(statement, figures, cluster),
    ]
    return Plan(statement, cluster, redis, Load.of(statement, figures, workers), tuple(terms))


def least(statement: Statement, figures: Figures, cluster: Cluster) -> Plan:
    """Return the least hosts of these shapes that carry it; the numbers of `cluster` do not count.

    Raises:
        PlanError: no number of them does.
    """
    fewest = replace(cluster, edges=MOST_HOSTS, app_hosts=statement.spare + 1)
    if not all(term.fits for term in edge_terms(statement, figures, fewest)):
        _refuse(edge_terms(statement, figures, fewest))
    edges, hosts = 1, 0
    # More edges make no term of the app hosts worse.
    for edges in range(1, MOST_HOSTS):
        tried = replace(cluster, edges=edges)
        found = _least_app_hosts(statement, figures, tried)
        if found is None:
            _refuse(app_terms(statement, figures, replace(tried, app_hosts=MOST_HOSTS)))
        hosts = found or 0
        tried = replace(tried, app_hosts=hosts)
        if all(term.fits for term in edge_terms(statement, figures, tried)):
            break
    else:
        _refuse(edge_terms(statement, figures, replace(cluster, edges=MOST_HOSTS, app_hosts=hosts)))
    planned = replace(cluster, app_hosts=hosts, edges=edges)
    term = redis_terms(statement, figures, planned, 1)[0]
    return examine(statement, figures, planned, max(1, math.ceil(term.needs / REDIS_PERCENT)))


def _least_app_hosts(statement: Statement, figures: Figures, cluster: Cluster) -> int | None:
    def fits(hosts: int) -> bool:
        terms = app_terms(statement, figures, replace(cluster, app_hosts=hosts))
        return all(term.fits for term in terms)

    return next((n for n in range(statement.spare + 1, MOST_HOSTS + 1) if fits(n)), None)


def _refuse(terms: list[Term]) -> None:
    short = min(terms, key=lambda term: term.headroom)
    raise PlanError(
        f"No number of these hosts carries it: {short.name} needs {short.needs:.0f} {short.unit},"
        f" and has {short.has:.0f}. Change {short.variable}"
    )


def wave_size(limit: Any, workers: int, spare_workers: int) -> int:
    """Return how many workers are restarted at once: a number or a share, within the spare ones."""
    text = str(limit if limit not in (None, "") else 1)
    if share := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
        size = int(workers * float(share[1]) / 100)
    elif re.fullmatch(r"\d+", text):
        size = int(text)
    else:
        raise PlanError(f"channels_roll_limit is {text!r}; allowed: a number, or a share like 20%")
    return max(1, min(size, spare_workers or 1, workers))


def deploy_seconds(workers: int, size: int, figures: Figures, drain: float = 0.0) -> float:
    """Return how long a deploy takes: the canary alone, then waves.

    Args:
        workers: all of them.
        size: of a wave.
        figures: with the seconds of a wave, and of what a deploy does once.
        drain: seconds that a worker takes to close its sockets.
    """
    waves = 1 + math.ceil(max(0, workers - 1) / size)
    return figures.cost("deploy_seconds") + waves * (figures.cost("wave_seconds") + drain)
