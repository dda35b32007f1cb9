"""How many hosts a WebSocket cluster needs: terms, and the least number with which none is short.

A term is one thing that can run out. It says what is needed, what is there, and why. Needs are
calculated with the unfavourable end of each figure's range: the most that something costs, the
least that something carries.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from plugins.module_utils.capacity import (
        MOST_HOSTS,
        SOURCE,
        Cluster,
        Figures,
        Load,
        PlanError,
        Statement,
        Term,
        nginx_connections,
    )
else:
    from ansible.module_utils.capacity import (
        MOST_HOSTS,
        SOURCE,
        Cluster,
        Figures,
        Load,
        PlanError,
        Statement,
        Term,
        nginx_connections,
    )

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
    workers = cluster.carrying_workers(statement)
    load = Load.of(statement, figures, workers)
    most = cluster.most_workers
    per_host = load.sockets * most
    kib = figures.cost("socket_kib") + KERNEL_KIB
    worker_mib = figures.cost("worker_mib")
    count = 2 * most + cluster.processes
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
            load.percent * most,
            MOST_PERCENT * cluster.app.cores,
            "% of a core",
            f"{most:g} workers; {MOST_PERCENT} % of {cluster.app.cores} cores",
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
    lost = lost_clients(statement, cluster)
    rate = cluster.handshakes_per_worker or 0.8 * figures.rate("handshakes_per_second")
    of_workers = cluster.carrying_workers(statement) * rate
    cpu = figures.cost("handshake_milliseconds")
    of_cores = hosts * cluster.app.cores * MOST_PERCENT * 10 / cpu if cpu else math.inf
    return Term(
        "time until all clients are back after lost hosts",
        "app",
        "BACK",
        lost / min(of_workers, of_cores),
        cluster.back_seconds,
        "s",
        f"{lost} clients; {min(of_workers, of_cores):.0f} handshakes/s on {hosts}"
        f" host{'' if hosts == 1 else 's'}"
        + ("" if of_workers <= of_cores else f", limited by their cores ({cpu:.1f} ms each)"),
    )


def lost_clients(statement: Statement, cluster: Cluster) -> int:
    """Return the sockets of the hosts that may be lost; of one host, if none may be."""
    return math.ceil(statement.sockets * cluster.lost_share(statement))


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
    # What the workers take at most. Fewer clients than that are back within a second.
    handshakes *= cluster.app_hosts * cluster.workers_per_host
    handshakes = min(handshakes, lost_clients(statement, cluster)) / edges
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
    ("connections of nginx", "edge_connections", "worker_connections"),
    ("connections of Redis", "redis_clients", "redis_maxclients"),
    ("connections of PostgreSQL", "database_connections", "postgres_connections"),
)


def limit_terms(table: Mapping[str, Mapping[str, Any]], edge_cores: int) -> list[Term]:
    """Return the limits of the table of the roles that are short, because an inventory set one.

    Args:
        table: `cluster_capacity`, evaluated.
        edge_cores: of an edge, each with an nginx process that has the limit of connections.
    """
    terms = []
    for name, needed, given in LIMITS:
        try:
            needs, has = float(table[needed]["value"]), float(table[given]["value"])
            line = table[given]
            if given == "worker_connections":
                has = nginx_connections(int(has), edge_cores)
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
    workers = cluster.carrying_workers(statement)
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
    cluster = replace(cluster, uneven=())

    def with_edges(edges: int) -> Cluster:
        return _least_app_hosts(statement, figures, replace(cluster, edges=edges))

    def edges_fit(tried: Cluster) -> bool:
        return all(term.fits for term in edge_terms(statement, figures, tried))

    fewest = replace(cluster, edges=MOST_HOSTS, app_hosts=statement.spare + 1)
    if not edges_fit(fewest):
        _refuse(edge_terms(statement, figures, fewest))
    counts = range(1, MOST_HOSTS + 1)
    # More edges make no term worse, neither of the edges nor of the app hosts.
    found = bisect_left(counts, True, key=lambda edges: edges_fit(with_edges(edges)))
    planned = with_edges(counts[min(found, len(counts) - 1)])
    if found == len(counts):
        _refuse(edge_terms(statement, figures, planned))
    term = redis_terms(statement, figures, planned, 1)[0]
    return examine(statement, figures, planned, max(1, math.ceil(term.needs / REDIS_PERCENT)))


def _least_app_hosts(statement: Statement, figures: Figures, cluster: Cluster) -> Cluster:
    """Return the cluster with as few app hosts as carry it; more of them make no term worse."""

    def terms(hosts: int) -> list[Term]:
        return app_terms(statement, figures, replace(cluster, app_hosts=hosts))

    counts = range(statement.spare + 1, MOST_HOSTS + 1)
    found = bisect_left(counts, True, key=lambda hosts: all(term.fits for term in terms(hosts)))
    if found == len(counts):
        _refuse(terms(MOST_HOSTS))
    return replace(cluster, app_hosts=counts[found])


def _refuse(terms: list[Term]) -> NoReturn:
    short = min(terms, key=lambda term: term.headroom)
    raise PlanError(
        f"No number of these hosts carries it, up to {MOST_HOSTS}: {short.name} needs"
        f" {short.needs:.0f} {short.unit}, and has {short.has:.0f}. Change {short.variable}"
    )


def wave_size(limit: Any, workers: int) -> int:
    """Return how many workers a wave replaces: channels_roll_limit, a number or a share."""
    text = str(limit if limit not in (None, "") else 1)
    if share := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
        size = int(workers * float(share[1]) / 100)
    elif re.fullmatch(r"\d+", text):
        size = int(text)
    else:
        raise PlanError(f"channels_roll_limit is {text!r}; allowed: a number, or a share like 20%")
    return max(1, min(size, workers))


def drain_rounds(size: int, per_host: float, workers: int, spare_hosts: int) -> int:
    """Return in how many rounds the app hosts drain what a deploy has replaced.

    Args:
        size: of a wave.
        per_host: workers of a host.
        workers: all of them.
        spare_hosts: that the others can do without; no more than these drain at once.
    """
    at_once = max(1, math.floor(min(size, spare_hosts * per_host) / per_host))
    return math.ceil(workers / per_host / at_once)


def deploy_seconds(workers: int, size: int, figures: Figures, drains: float = 0.0) -> float:
    """Return how long a deploy takes: the canary alone, then waves, then the drains.

    Args:
        workers: all of them.
        size: of a wave.
        figures: with the seconds of a wave, and of what a deploy does once.
        drains: seconds that all rounds of drains take.
    """
    waves = 1 + math.ceil(max(0, workers - 1) / size)
    return figures.cost("deploy_seconds") + waves * figures.cost("wave_seconds") + drains
