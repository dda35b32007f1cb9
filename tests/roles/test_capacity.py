"""The arithmetic of make plan: what is needed, what binds, and how many hosts are the least."""

import importlib
import math
import runpy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugins.filter.cluster import FilterModule

from .house import ROOT, Tree, defaults, own_module_utils

if TYPE_CHECKING:
    from plugins.module_utils import capacity
    from plugins.module_utils import capacity_plan as planning
else:
    own_module_utils()
    capacity = importlib.import_module("ansible.module_utils.capacity")
    planning = importlib.import_module("ansible.module_utils.capacity_plan")

FIGURES: Tree = defaults("cluster")["cluster_figures"]
SHAPE = capacity.Shape(cores=4, memory_mib=8192)
CLUSTER = capacity.Cluster(app=SHAPE, edge=SHAPE, app_hosts=3, workers_per_host=4)


def figures(**changed: float) -> Any:
    """The defaults, without ranges for those that a test changes."""
    content = dict(FIGURES)
    for name, value in changed.items():
        content[name] = {"value": value, "low": value, "high": value}
    return capacity.Figures(content)


# A machine on which everything is easy to calculate in one's head.
EASY = figures(
    worker_mib=100,
    socket_kib=36,
    socket_microseconds=0,
    handshakes_per_second=100,
    handshake_milliseconds=1,
    busy_percent=80,
    delivery_microseconds=100,
    message_microseconds=1000,
    send_microseconds=0,
    send_member_microseconds=0,
    redis_message_microseconds=100,
    redis_worker_microseconds=50,
    redis_member_microseconds=0,
    edge_socket_kib=12,
    edge_handshake_milliseconds=1,
    edge_delivery_microseconds=10,
)


def statement(sockets: int = 10_000, messages: float = 100, room: int = 50, spare: int = 1) -> Any:
    return capacity.Statement(sockets, messages, room, spare)


def term(plan: Any, name: str) -> Any:
    return next(each for each in plan.terms if each.name == name)


# What one term needs


def test_memory_is_of_the_system_the_workers_and_their_sockets() -> None:
    plan = planning.examine(statement(messages=0), EASY, CLUSTER)
    # Two hosts carry everything: 5000 sockets of 36 + 4 KiB each. A deploy starts 4 new workers.
    assert term(plan, "memory of an app host").needs == pytest.approx(400 + 800 + 5000 * 40 / 1024)
    plan = planning.examine(statement(messages=0), EASY, replace(CLUSTER, processes=2))
    assert term(plan, "memory of an app host").needs == pytest.approx(400 + 1000 + 5000 * 40 / 1024)
    # One edge, both sides of each socket.
    assert term(plan, "memory of an edge").needs == pytest.approx(400 + 10_000 * 20 / 1024)


def test_a_worker_pays_for_each_message_and_each_delivery() -> None:
    # A room on one worker: every message is received once, and delivered to 50 sockets.
    alone = replace(CLUSTER, app_hosts=1, workers_per_host=1)
    plan = planning.examine(statement(spare=0), EASY, alone)
    assert term(plan, "processor of a worker").needs == pytest.approx(
        100 * (1000 + 50 * 100) / 10_000
    )
    assert plan.load.deliveries == 5000
    assert plan.load.touched == 1


def test_a_large_room_reaches_every_worker_and_a_small_one_few() -> None:
    load = capacity.Load.of(statement(room=1000), EASY, 8)
    assert load.touched == pytest.approx(8)
    load = capacity.Load.of(statement(room=2), EASY, 1000)
    assert load.touched == pytest.approx(2, abs=0.01)


def test_a_room_has_no_more_members_than_there_are_sockets() -> None:
    assert statement(sockets=10, room=1000).deliveries == 1000


def test_redis_pays_for_each_worker_of_a_room() -> None:
    plan = planning.examine(statement(room=1_000), EASY, CLUSTER)
    # 12 workers, all of which have a member.
    needs = term(plan, "processor of Redis").needs
    assert needs == pytest.approx(100 * (100 + 12 * 50) / 10_000, rel=1e-3)


def test_clients_of_lost_hosts_come_back_at_the_pace_of_the_others() -> None:
    plan = planning.examine(statement(messages=0), EASY, CLUSTER)
    back = term(plan, "time until all clients are back after lost hosts")
    # A third of 10 000 clients to 8 workers, each at 80 % of 100 a second.
    assert back.needs == pytest.approx(3334 / (8 * 80))
    slow = figures(handshakes_per_second=1000, handshake_milliseconds=40)
    back = planning.back_term(statement(), slow, CLUSTER)
    # The cores of two hosts are the limit: 2 x 4 x 80 % of 25 a second.
    assert back.needs == pytest.approx(3334 / 160)
    assert "limited by their cores" in back.reason


def test_the_edge_passes_on_what_the_inventory_lets_it() -> None:
    limited = replace(CLUSTER, handshakes_per_worker=20)
    assert planning.back_term(statement(), EASY, limited).needs == pytest.approx(3334 / 160)


def test_the_edge_needs_no_more_processors_than_its_clients_take_when_they_come_back() -> None:
    name = "processors of an edge while clients come back"
    plan = planning.examine(statement(messages=0), EASY, CLUSTER)
    # 12 workers at 80 % of 100 a second, each 1 ms.
    assert term(plan, name).needs == pytest.approx(12 * 80 / 10)
    # A third of 600 clients: a second of the workers would be 960.
    plan = planning.examine(statement(sockets=600, messages=0), EASY, CLUSTER)
    assert term(plan, name).needs == pytest.approx(200 / 10)


def test_the_unfavourable_end_of_each_range_counts() -> None:
    content = {
        **FIGURES,
        "socket_kib": {"value": 30, "low": 20, "high": 40},
        "busy_percent": {"value": 70, "low": 60, "high": 80},
    }
    careful, expected = capacity.Figures(content), capacity.Figures(content, expected=True)
    assert (careful.cost("socket_kib"), careful.rate("busy_percent")) == (40, 60)
    assert (expected.cost("socket_kib"), expected.rate("busy_percent")) == (30, 70)


# What binds


@pytest.mark.parametrize(
    ("asked", "host", "binding"),
    [
        (statement(sockets=400_000, messages=0), replace(SHAPE, cores=64), "memory of an app host"),
        (statement(messages=900), SHAPE, "processor of a worker"),
        (
            statement(sockets=60_000, messages=1),
            SHAPE,
            "time until all clients are back after lost hosts",
        ),
        (statement(messages=200, room=1), SHAPE, "processor of Redis"),
    ],
)
def test_the_binding_term_is_the_one_with_the_least_headroom(
    asked: Any, host: Any, binding: str
) -> None:
    cluster = replace(CLUSTER, app=host, edge=replace(SHAPE, cores=64, memory_mib=2**20))
    patience = 10_000 if binding == "memory of an app host" else 100
    known = EASY
    if binding == "processor of Redis":
        slow = figures(redis_message_microseconds=5000).content["redis_message_microseconds"]
        known = capacity.Figures({**EASY.content, "redis_message_microseconds": slow})
    plan = planning.examine(asked, known, replace(cluster, back_seconds=patience))
    assert plan.binding.name == binding
    assert plan.binding.headroom == min(each.headroom for each in plan.terms)


def test_more_of_what_binds_makes_it_fit() -> None:
    plan = planning.examine(statement(messages=900), EASY, CLUSTER)
    assert not plan.fits
    enough = planning.least(statement(messages=900), EASY, CLUSTER)
    assert enough.fits
    fewer = replace(enough.cluster, app_hosts=enough.cluster.app_hosts - 1)
    assert not planning.examine(enough.statement, EASY, fewer, enough.redis).fits


def test_several_edges_are_one_more_than_needed() -> None:
    small = replace(CLUSTER, edge=capacity.Shape(cores=64, memory_mib=1024))
    plan = planning.least(statement(sockets=60_000, messages=1), EASY, small)
    # 31 948 sockets of 20 KiB in 624 MiB.
    assert plan.cluster.edges == 3
    assert plan.cluster.carrying_edges == 2


def test_one_redis_carries_no_more_than_a_core() -> None:
    plan = planning.least(statement(messages=5000, room=2), EASY, CLUSTER)
    assert plan.redis > 1
    assert plan.fits


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        (replace(SHAPE, memory_mib=512), "memory of an app host needs"),
        (replace(SHAPE, cores=1), "processors of an app host needs"),
    ],
)
def test_hosts_of_which_no_number_is_enough_are_refused(shape: Any, named: str) -> None:
    idle = figures(socket_microseconds=0, busy_percent=100, message_microseconds=100_000)
    asked = statement(sockets=1_000_000, messages=10, room=1_000_000)
    with pytest.raises(capacity.PlanError, match=named):
        planning.least(asked, idle, replace(CLUSTER, app=shape, back_seconds=1e9))


# For any numbers

SOCKETS = st.integers(1, 300_000)
MESSAGES = st.integers(0, 500)
ROOMS = st.integers(1, 2000)


@settings(max_examples=60, deadline=None, database=None)
@given(SOCKETS, st.integers(0, 100_000), MESSAGES, ROOMS, st.integers(0, 2))
def test_more_sockets_never_need_fewer_hosts(
    sockets: int, more: int, messages: int, room: int, spare: int
) -> None:
    few = planning.least(capacity.Statement(sockets, messages, room, spare), EASY, CLUSTER)
    many = planning.least(capacity.Statement(sockets + more, messages, room, spare), EASY, CLUSTER)
    assert many.cluster.app_hosts >= few.cluster.app_hosts
    assert many.cluster.edges >= few.cluster.edges
    assert few.fits


@settings(max_examples=60, deadline=None, database=None)
@given(SOCKETS, MESSAGES, st.integers(1, 200), ROOMS)
def test_more_messages_and_more_spare_hosts_never_need_fewer(
    sockets: int, messages: int, more: int, room: int
) -> None:
    few = planning.least(capacity.Statement(sockets, messages, room, 0), EASY, CLUSTER)
    busy = planning.least(capacity.Statement(sockets, messages + more, room, 0), EASY, CLUSTER)
    safe = planning.least(capacity.Statement(sockets, messages, room, 1), EASY, CLUSTER)
    assert busy.cluster.app_hosts >= few.cluster.app_hosts
    assert busy.redis >= few.redis
    assert safe.cluster.app_hosts >= few.cluster.app_hosts


def test_the_largest_question_is_answered() -> None:
    asked = statement(sockets=10_000_000, messages=1000, room=1000)
    plan = planning.least(asked, EASY, replace(CLUSTER, edge=replace(SHAPE, memory_mib=512)))
    assert plan.fits
    assert plan.cluster.app_hosts > 100
    assert plan.cluster.edges > 1000
    fewer = replace(plan.cluster, edges=plan.cluster.edges - 1)
    assert not planning.examine(asked, EASY, fewer, plan.redis).fits


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.integers(1, 8), min_size=2, max_size=6), st.integers(0, 1))
def test_uneven_hosts_are_planned_for_the_loss_of_the_largest(
    workers: list[int], spare: int
) -> None:
    mean = sum(workers) / len(workers)
    even = replace(CLUSTER, app_hosts=len(workers), workers_per_host=mean)
    plan = planning.examine(statement(spare=spare), EASY, replace(even, uneven=tuple(workers)))
    left = sum(sorted(workers)[: len(workers) - spare])
    assert plan.load == capacity.Load.of(statement(spare=spare), EASY, left)
    assert plan.workers == sum(workers)
    alike = planning.examine(statement(spare=spare), EASY, even)
    for name in ("processor of a worker", "memory of an app host"):
        assert term(plan, name).needs >= term(alike, name).needs - 1e-9


# How far it was measured


def test_what_is_beyond_the_calibration_is_said() -> None:
    content = {
        **EASY.content,
        "measured": {
            "workers": 4,
            "sockets_per_worker": 400,
            "room_size": 176,
            "deliveries_per_second": 4000,
        },
    }
    measured = capacity.Figures(content)
    plan = planning.examine(statement(), measured, CLUSTER)
    assert term(plan, "memory of an app host").extrapolated == "measured up to 400 sockets a worker"
    assert "measured up to 4 workers in a room" in term(plan, "processor of a worker").extrapolated
    near = planning.examine(
        statement(sockets=800, room=20),
        measured,
        replace(CLUSTER, app_hosts=2, workers_per_host=2),
    )
    assert not any(each.extrapolated for each in near.terms)


# Limits


def line(value: Any, derived: Any, variable: str = "", overridden: bool = False) -> Tree:
    return {
        "value": value,
        "derived": derived,
        "variable": variable,
        "overridden": overridden,
        "unit": "connections",
        "reason": "why",
        "source": "where",
    }


def test_a_limit_that_the_inventory_sets_too_low_is_short() -> None:
    table = {
        "edge_connections": line(20_512, 20_512),
        "worker_connections": line(19_000, 20_512, "nginx_worker_connections", True),
        "redis_clients": line(10_000, 10_000),
        "redis_maxclients": line(10_000, 10_000, "redis_maxclients"),
    }
    (short,) = planning.limit_terms(table, 1)
    assert (short.variable, short.needs, short.has) == ("nginx_worker_connections", 20_512, 19_000)
    assert short.source == "the inventory"
    assert not short.fits
    # Each processor of an edge has a process with this limit.
    assert planning.limit_terms(table, 2) == []


@pytest.mark.parametrize(("processes", "taken"), [(1, 1000), (2, 1900), (4, 3800)])
def test_processes_of_nginx_share_their_connections_unevenly(processes: int, taken: int) -> None:
    # What the plan counts, and the preflight by the filter.
    filters = FilterModule().filters()
    assert filters["cluster_nginx_connections"](1000, processes) == taken
    assert capacity.nginx_connections(1000, processes) == taken


# Deploys


@pytest.mark.parametrize(
    ("limit", "workers", "size"),
    [(None, 20, 1), ("20%", 20, 4), ("20 %", 5, 1), (5, 20, 5), ("1%", 20, 1), (50, 4, 4)],
)
def test_a_wave_is_a_number_or_a_share_of_the_workers(limit: Any, workers: int, size: int) -> None:
    assert planning.wave_size(limit, workers) == size


@pytest.mark.parametrize("limit", [1, 3, 7, "20%", "55%"])
@pytest.mark.parametrize("spare", [0, 1, 3])
@pytest.mark.parametrize("hosts", [1, 2, 7])
def test_waves_and_drains_are_those_of_a_roll(limit: Any, spare: int, hosts: int) -> None:
    roll = runpy.run_path(str(ROOT / "plugins/filter/waves.py"))
    names = [f"app{number}" for number in range(hosts)]
    workers = [{"host": name} for name in names for _ in range(2)]
    runs = {"_channels_look": {"units": {"a": {"active": True}}}}
    size = planning.wave_size(limit, len(workers))
    assert size == min(roll["roll_limit"](limit, len(workers)), len(workers))
    at_once = roll["drain_hosts"](names, dict.fromkeys(names, runs), workers, limit, spare)
    assert planning.drain_rounds(size, 2, len(workers), spare) == math.ceil(hosts / at_once)


def test_a_deploy_is_a_canary_and_waves() -> None:
    known = figures(deploy_seconds=20, wave_seconds=3)
    assert planning.deploy_seconds(20, 4, known) == 20 + 6 * 3
    assert planning.deploy_seconds(20, 4, known, drains=50) == 20 + 6 * 3 + 50
    with pytest.raises(capacity.PlanError, match="channels_roll_limit is 'many'"):
        planning.wave_size("many", 4)


# Arguments


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1, 1, 0), "SOCKETS is 0; allowed: 1 to 10000000"),
        ((1, -1, 1, 0), "MESSAGES is -1; allowed: 0 to"),
        ((1, 1, 0, 0), "ROOM is 0; allowed: 1 to"),
        ((1, 1, 1, -1), "SPARE is -1; allowed: 0 to"),
        ((10_000_001, 1, 1, 0), "SOCKETS is 10000001"),
        # All hosts that a plan may have would be spare.
        ((1, 1, 1, 10_000), "SPARE is 10000; allowed: 0 to 9999"),
    ],
)
def test_a_statement_that_makes_no_sense_is_refused(
    values: tuple[int, int, int, int], message: str
) -> None:
    with pytest.raises(capacity.PlanError, match=message):
        capacity.Statement(*values)


@pytest.mark.parametrize(("cores", "memory"), [(0, 1024), (1025, 1024), (2, 255), (2, 2**26)])
def test_a_host_that_there_is_not_is_refused(cores: int, memory: int) -> None:
    with pytest.raises(capacity.PlanError, match="allowed"):
        capacity.Shape(cores, memory)


def test_a_figure_that_is_missing_is_named() -> None:
    with pytest.raises(capacity.PlanError, match="socket_kib of cluster_figures is not set; allow"):
        capacity.Figures({}).cost("socket_kib")


@pytest.mark.parametrize("value", [-1, "many", None, float("nan"), float("inf"), [1]])
def test_a_figure_that_is_no_number_is_refused(value: Any) -> None:
    for name in ("busy_percent", "socket_kib", "handshakes_per_second"):
        wrong = {**FIGURES, name: {"value": value, "low": value, "high": value}}
        with pytest.raises(capacity.PlanError, match=f"{name} of cluster_figures is "):
            planning.examine(statement(), capacity.Figures(wrong), CLUSTER)


def test_a_cost_may_be_nothing_and_a_rate_may_not() -> None:
    free = {name: 0 for name in FIGURES if name.endswith(("microseconds", "milliseconds"))}
    assert planning.examine(statement(), figures(**free), CLUSTER).fits
    with pytest.raises(capacity.PlanError, match="handshakes_per_second of cluster_figures"):
        planning.examine(statement(), figures(handshakes_per_second=0), CLUSTER)


def test_the_defaults_have_every_figure_that_the_plan_needs() -> None:
    plan = planning.least(statement(), capacity.Figures(FIGURES), replace(CLUSTER, tls=True))
    assert plan.fits
    assert planning.least(statement(), capacity.Figures(FIGURES), CLUSTER).fits
