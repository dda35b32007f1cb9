"""scripts/scaling.py: what it takes from a benchmark, and how it deals rooms out."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import scaling
from model import Cluster, Figures, PlanError, Shape, Statement, examine
from scaling import Question, costs, deal, figures_of, report, row

BASE = yaml.safe_load(scaling.DEFAULTS.read_text())["cluster_figures"]
DELIVERY, ONCE = 2.0, 300.0
MEASURED = {
    "delivery_microseconds": 2.0,
    "message_microseconds": 100.0,
    "send_microseconds": 100.0,
    "send_member_microseconds": 0.0,
    "redis_message_microseconds": 15.0,
    "redis_worker_microseconds": 1.0,
    "redis_member_microseconds": 0.0,
}


def result(members: int, rate: float, cpu: float, passes: bool = True) -> dict[str, Any]:
    shape = {"rooms": 1, "members": members, "payload": 64, "idle": 0, "processes": 2}
    step = {"rate": rate, "cpu": cpu, "passes": passes}
    return {"system": "tier2", "shape": shape, "quiet": None, "steps": [step]}


@pytest.fixture
def benchmark() -> dict[str, Any]:
    return {
        "date": "2026-01-01",
        "machine": "a machine",
        "results": [
            # A delivery costs 2 µs, and a message 300 µs, whatever its room.
            result(10, 1000, DELIVERY + ONCE / 10),
            result(1000, 5000, DELIVERY + ONCE / 1000),
            # A rate that was too high says nothing, and a lower one less.
            result(1000, 9000, 99.0, passes=False),
            result(1000, 500, 50.0),
        ],
        "redis": {"message": 15.0, "subscriber": 1.0},
    }


def test_the_cost_of_a_message_and_of_a_delivery_are_told_apart(benchmark: dict[str, Any]) -> None:
    assert costs(benchmark, "tier2") == pytest.approx(MEASURED)


@pytest.mark.parametrize("missing", ["redis", "rooms"])
def test_a_benchmark_that_is_not_complete_is_refused(
    benchmark: dict[str, Any], missing: str
) -> None:
    if missing == "redis":
        benchmark["redis"] = None
    else:
        del benchmark["results"][0]

    with pytest.raises(PlanError, match="Run make bench-fanout"):
        costs(benchmark, "tier2")


def test_the_hosts_are_those_of_make_plan() -> None:
    question = Question()
    figures = figures_of(BASE, MEASURED)
    plan = row(100_000, figures, question).plan

    assert plan.fits
    assert plan == examine(plan.statement, figures, plan.cluster, plan.redis)
    assert figures.cost("delivery_microseconds") == 2.0
    assert figures.cost("socket_kib") == Figures(BASE).cost("socket_kib")


def dealt(**changes: float) -> scaling.Dealt:
    host = Shape(4, 8192)
    cluster = Cluster(host, host, app_hosts=5, workers_per_host=4)
    statement = Statement(sockets=20_000, messages=400, room=50, spare=1)
    plan = examine(statement, figures_of(BASE, MEASURED), cluster, redis=4)
    return deal(plan, Question(room=50, **changes))  # type: ignore[arg-type]


def test_chance_reaches_as_many_processes_as_the_model_says() -> None:
    # The model: of 20 processes, those that are drawn at least once by 50 members.
    assert dealt(skew=0.0).reached == pytest.approx(20 * (1 - (19 / 20) ** 50), rel=0.02)


def test_rooms_that_are_busier_than_others_make_shards_uneven() -> None:
    even, uneven = dealt(skew=0.0), dealt(skew=1.5)

    assert 1.0 < even.shard < 1.3 < uneven.shard
    assert 1.0 < even.worker < uneven.worker
    assert even.room == pytest.approx(1.0)
    assert uneven.room > 10


def test_the_table_has_every_size(benchmark: dict[str, Any]) -> None:
    text = "\n".join(report(benchmark, BASE, Question(system="tier2")))

    for size in scaling.SIZES:
        assert f"| {scaling.spaced(size)} |" in text
    # 0.7 s of a processor a second: (15 + 8 x 1) µs.
    assert "30 435 to 8 processes" in text


def test_figures_of_the_reader_count(
    benchmark: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fanout.json"
    outputs = []
    for delivery in (2.0, 200.0):
        benchmark["results"][0]["steps"][0]["cpu"] = delivery + ONCE / 10
        benchmark["results"][1]["steps"][0]["cpu"] = delivery + ONCE / 1000
        file.write_text(json.dumps(benchmark))
        assert scaling.main(["--benchmark", str(file), "--system", "tier2", "--room", "20"]) == 0
        outputs.append(capsys.readouterr().out)

    assert outputs[0].startswith("Rooms of 20,")
    assert outputs[0] != outputs[1]


def test_a_system_that_was_not_measured_is_named(
    benchmark: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fanout.json"
    file.write_text(json.dumps(benchmark))

    assert scaling.main(["--benchmark", str(file), "--system", "core"]) == 1
    assert "no complete result of core" in capsys.readouterr().err
