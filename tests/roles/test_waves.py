"""The filters about the waves of a roll, by what is known of the hosts."""

from typing import Any

import pytest
from plugins.filter.waves import FilterModule

Tree = dict[str, Any]
WAVES = FilterModule().filters()
HOSTS = [f"app{number}" for number in range(1, 11)]


def worker(host: str, port: int) -> Tree:
    return {
        "name": f"channels-web@{port}.service",
        "label": f"{host}:{port}",
        "url": f"http://{host}:{port}",
        "replaced_process": 100,
    }


def looked(**changes: Any) -> Tree:
    """A worker as a look tells of it: 100 MiB, ready, of a kit that can be replaced."""
    told = {"active": True, "ready": True, "replaceable": True, "retired": [], "process": 100}
    return {**told, "memory": 100, "memory_left": None, **changes}


CELERY = {"name": "channels-process-celery.service", "label": "celery"}


def cluster(
    hosts: list[str] = HOSTS, workers: int = 2, background: bool = False, **changes: Any
) -> Tree:
    """The variables of hosts that are to be rolled; changes are those of every worker's look."""
    known = {}
    for host in hosts:
        units = [worker(host, 8001 + number) for number in range(workers)]
        found = {unit["name"]: looked(**changes) for unit in units}
        known[host] = {
            "_channels_rolled_units": units + ([CELERY] if background else []),
            "_channels_look": {"units": found, "memory_available": 10_000},
        }
    return known


def every(known: Tree, workers: int = 2) -> list[Tree]:
    return [{"host": host, "name": f"{host}:{8001 + n}"} for host in known for n in range(workers)]


def waves(known: Tree, limit: int | str = "20%", spare: int = 1, workers: int = 2) -> list[Tree]:
    found: list[Tree] = WAVES["channels_roll_waves"](
        list(known), known, every(known, workers), limit, spare
    )
    return found


def sizes(found: list[Tree]) -> list[int]:
    return [len(wave["workers"]) for wave in found]


def test_the_canary_is_alone_and_the_others_are_replaced_in_waves() -> None:
    found = waves(cluster())
    assert sizes(found) == [1, 4, 4, 4, 4, 3]
    assert {wave["state"] for wave in found} == {"reloaded"}
    assert found[0]["workers"] == ["app1:8001"]
    # Of as few hosts as can be.
    assert found[1]["workers"] == ["app1:8002", "app2:8001", "app2:8002", "app3:8001"]
    assert list(found[1]["units"]) == ["app1", "app2", "app3"]
    assert sorted(name for wave in found for name in wave["workers"]) == sorted(
        each["name"] for each in every(cluster())
    )


@pytest.mark.parametrize(
    ("limit", "total", "most"),
    [("20%", 20, 4), ("20%", 4, 1), ("100%", 7, 7), (3, 20, 3), ("5", 20, 5), ("1%", 20, 1)],
)
def test_a_limit_is_a_number_or_a_share(limit: int | str, total: int, most: int) -> None:
    assert WAVES["channels_roll_limit"](limit, total) == most


def test_where_new_processes_start_beside_spare_capacity_limits_no_wave() -> None:
    assert sizes(waves(cluster(), "50%", spare=0)) == [1, 10, 9]


@pytest.mark.parametrize(
    ("spare", "expected"), [(0, [1] * 20), (1, [1, *[2] * 9, 1]), (4, [1, 4, 4, 4, 4, 3])]
)
def test_workers_that_have_to_be_restarted_are_never_more_than_are_spare(
    spare: int, expected: list[int]
) -> None:
    found = waves(cluster(replaceable=False), spare=spare)
    assert {wave["state"] for wave in found} == {"restarted"}
    assert sizes(found) == expected


def test_spare_capacity_limits_restarts_beside_replacements_too() -> None:
    known = cluster()
    for host in HOSTS[5:]:
        for found in known[host]["_channels_look"]["units"].values():
            found["replaceable"] = False
    found = waves(known, "50%", spare=1)
    assert [(wave["state"], len(wave["workers"])) for wave in found] == [
        ("reloaded", 1),
        ("reloaded", 9),
        *[("restarted", 2)] * 5,
    ]


def test_a_host_on_which_nothing_runs_is_one_of_the_spare_ones() -> None:
    known = cluster(replaceable=False)
    known["app10"] = {}
    found = waves(known, spare=1)
    assert set(sizes(found)) == {1}
    # One that this run has started carries its share.
    known["app10"] = {"_channels_start": {"changed": True}}
    assert max(sizes(waves(known, spare=1))) == 2


@pytest.mark.parametrize(
    "changes",
    [{"ready": False}, {"replaceable": False}, {"memory": 0}, {"memory_left": 99}],
)
def test_a_worker_that_cannot_be_replaced_is_restarted_after_the_others(changes: Tree) -> None:
    """Who leaves it comes to a worker that is not restarted again."""
    known = cluster(["app1", "app2"])
    known["app1"]["_channels_look"]["units"]["channels-web@8001.service"].update(changes)
    found = waves(known)
    assert [(wave["state"], wave["workers"]) for wave in found] == [
        ("reloaded", ["app1:8002"]),
        ("reloaded", ["app2:8001"]),
        ("reloaded", ["app2:8002"]),
        ("restarted", ["app1:8001"]),
    ]


def test_no_more_new_processes_start_on_a_host_than_there_is_memory_for() -> None:
    known = cluster(["app1"], workers=4)
    known["app1"]["_channels_look"]["memory_available"] = 300
    found = waves(known, "100%", workers=4)
    # A fifth is left for what grows meanwhile.
    assert [(wave["state"], len(wave["workers"])) for wave in found] == [
        ("reloaded", 1),
        ("reloaded", 1),
        ("restarted", 2),
    ]


def test_background_units_join_the_first_wave_of_their_host_but_not_the_canary() -> None:
    found = waves(cluster(["app1", "app2"], background=True), "100%")
    assert [
        {host: [unit["label"] for unit in units] for host, units in wave["units"].items()}
        for wave in found
    ] == [
        {"app1": ["app1:8001"]},
        {"app1": ["app1:8002", "celery"], "app2": ["app2:8001", "app2:8002", "celery"]},
    ]


def test_background_units_alone_are_restarted_in_waves() -> None:
    known = cluster(background=True)
    for host in HOSTS:
        known[host]["_channels_rolled_units"] = [CELERY]
    found = waves(known)
    assert [(wave["state"], len(wave["units"])) for wave in found] == [
        ("restarted", 4),
        ("restarted", 4),
        ("restarted", 2),
    ]
    assert sizes(found) == [0, 0, 0]
    # Beside no canary: it may show that the release is bad.
    assert [len(wave["units"]) for wave in waves(cluster(["app1"], 1, True), workers=1)] == [1, 1]


def test_a_wave_says_whose_first_and_last_it_is() -> None:
    found = waves(cluster(["app1", "app2"]))
    assert [(wave["begins"], wave["ends"]) for wave in found] == [
        (["app1"], []),
        ([], ["app1"]),
        (["app2"], []),
        ([], ["app2"]),
    ]


def test_where_nothing_is_outdated_there_is_no_wave() -> None:
    known = cluster()
    for host in HOSTS:
        known[host]["_channels_rolled_units"] = []
    assert waves(known) == []
    # Hosts that the run leaves out are not known at all.
    assert waves({**known, "app11": {}}) == []


def test_workers_of_which_a_reload_says_so_are_restarted_in_waves() -> None:
    known = cluster()
    for host in HOSTS[:3]:
        known[host]["ansible_facts"] = {"_channels_left_units": ["channels-web@8002.service"]}
    found = WAVES["channels_left_waves"](HOSTS, known, every(known), "20%", 1)
    assert [(wave["state"], wave["workers"]) for wave in found] == [
        ("restarted", ["app1:8002", "app2:8002"]),
        ("restarted", ["app3:8002"]),
    ]


# Replaced processes


@pytest.mark.parametrize(
    ("limit", "spare", "hosts"),
    [("20%", 1, 1), ("20%", 5, 2), ("100%", 3, 3), (1, 3, 1), ("20%", 0, 1)],
)
def test_no_more_hosts_drain_at_once_than_are_spare(
    limit: int | str, spare: int, hosts: int
) -> None:
    known = cluster()
    found = WAVES["channels_drain_hosts"](HOSTS, known, every(known), limit, spare)
    assert found == hosts


def test_what_was_replaced_now_or_before_is_drained() -> None:
    units = [worker("app1", port) for port in (8001, 8002, 8003)]
    look = {
        "units": {
            units[0]["name"]: looked(),
            units[1]["name"]: looked(retired=[99]),
            units[2]["name"]: looked(),
        }
    }
    found = WAVES["channels_retired_units"]([*units, CELERY], look, [units[2], CELERY])
    assert [unit["label"] for unit in found] == ["app1:8002", "app1:8003"]


def test_hosts_without_replaced_processes_are_known_from_the_look() -> None:
    known = cluster(["app1", "app2", "app3"])
    for host in known:
        known[host]["_channels_rolled_units"] = []
    known["app2"]["_channels_look"]["units"]["channels-web@8001.service"]["retired"] = [99]
    assert WAVES["channels_hosts_with_retired"]([*known, "app4"], {**known, "app4": {}}) == ["app2"]
    known["app3"]["_channels_rolled_units"] = [CELERY, worker("app3", 8001)]
    assert WAVES["channels_hosts_with_retired"](list(known), known) == ["app2", "app3"]


def test_the_process_of_before_gets_its_port_back_if_it_still_runs() -> None:
    former = [worker("app1", port) for port in (8001, 8002)]
    before = {unit["name"]: looked(process=41 + n) for n, unit in enumerate(former)}
    # One was replaced; the other was restarted, and has a process of an earlier roll.
    now = {
        former[0]["name"]: looked(process=900, retired=[7, 41]),
        former[1]["name"]: looked(process=901, retired=[7]),
    }
    [found] = WAVES["channels_resumable"](former, before, now)
    assert (found["label"], found["replaced_process"]) == ("app1:8001", 41)
