import argparse
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from channels_kit.load import ClientOutcome, Limits, Outcome, Recovery
from channels_kit.load.__main__ import build_parser
from channels_kit.load.latencies import Latencies
from channels_kit.load.report import MOST_FAULTS, as_json, render_text, timeline_as_json
from channels_kit.load.timeline import Second
from channels_kit.probe import UsageError

WELL = ClientOutcome(
    name="client-1",
    room="red",
    user="alice",
    failure=None,
    first=0,
    last=2,
    delivered=2,
    lost=(),
    duplicates=(),
    out_of_order=(),
    conflicts=(),
    duplicates_dropped=1,
    gaps_asked=2,
    resent=3,
    closes={1006: 2, 1012: 1},
    early_closes={1011: 1},
    failed_connects={"502": 4},
    failed_connects_detail={"answered 502": 4},
    rejected_frames={"flood": 5},
    recoveries=(Recovery(1006, 0.5), Recovery(1012, 1.5)),
    throttled=0,
)


def outcome(*clients: ClientOutcome, **changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "run": "run",
        "seconds": 60.0,
        "sent": 2,
        "delivered": 2,
        "undelivered": {},
        "stored_twice": {},
        "connected_latencies": Latencies([0.002]),
        "other_latencies": Latencies([1.25]),
        "reconnect_attempts_per_second": 7,
        "reconnected_per_second": 3,
        "began_at": "2026-01-01T00:00:00.000+00:00",
        "timeline": (Second({"app1": 1}, 1, 0, 1, {1012: 1}, {"503": 1}),),
        "limits": Limits(),
        "clients": clients or (WELL,),
        **changes,
    }
    return Outcome(**values)


def test_the_text_of_a_proof() -> None:
    assert render_text(outcome()) == (
        "load: 1 client in 1 room, 2 messages sent in 60 s, 2 of 2 deliveries\n"
        "  latency while connected: p50 2.0 ms, p99 2.0 ms, max 2.0 ms;"
        " overall: p50 2.0 ms, p99 1250.0 ms, max 1250.0 ms\n"
        "  connections lost: 3 (1006: 2, 1012: 1); failed connects: 4 (answered 502: 4)\n"
        "  recovery: p50 500.0 ms, p99 1500.0 ms, max 1500.0 ms;"
        " after 1006: p50 500.0 ms, p99 500.0 ms, max 500.0 ms;"
        " after 1012: p50 1500.0 ms, p99 1500.0 ms, max 1500.0 ms\n"
        "  peak per second: 7 reconnect attempts, 3 reconnected\n"
        "  duplicates dropped: 1; gaps asked for: 2; resent: 3; rejected frames: 5 (flood: 5)\n"
        "\n"
        "Proved. Every client received all of 2 messages once and in order,"
        " over 3 lost connections."
    )


@pytest.mark.parametrize(
    ("changes", "fault", "advice"),
    [
        ({"failure": "closed with 4003"}, "closed with 4003", "the user may log in"),
        ({"first": None}, "never joined: 4 (answered 502: 4)", "/-/ready"),
        ({"lost": (3, 5, 6, 7)}, "lost 4: 3, 5-7", "first client-1 number 3"),
        ({"duplicates": (3,)}, "duplicates 1: 3", "a bug of the load tool's own client"),
        ({"out_of_order": (3,)}, "out of order 1: 3", "a bug of the load tool's own client"),
        ({"conflicts": (3,)}, "conflicts 1: 3", "the same database"),
    ],
)
def test_any_fault_of_a_client_is_no_proof_and_is_named(
    changes: dict[str, Any], fault: str, advice: str
) -> None:
    found = outcome(replace(WELL, **changes))
    assert not found.ok
    lines = render_text(found).splitlines()
    assert f"  client-1 (alice in red): {fault}" in lines
    assert lines[-1].startswith("Not proved. ")
    assert advice in lines[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"undelivered": {"run-1": "client-1"}},
            "message run-1 of client-1: received by no client",
        ),
        ({"stored_twice": {"run-1": (4, 9)}}, "message run-1: stored 2 times, as 4, 9"),
        ({"sent": 0}, "No message was sent"),
    ],
)
def test_any_fault_of_a_message_is_no_proof_and_is_named(
    changes: dict[str, Any], words: str
) -> None:
    found = outcome(**changes)
    assert not found.ok
    assert words in render_text(found)


def test_a_breached_limit_is_no_proof_and_is_named() -> None:
    limits = Limits(codes=frozenset({1012, 1001}), recovery_p99=1, reconnect_rate=5)
    found = outcome(limits=limits)
    assert not found.ok
    lines = render_text(found).splitlines()
    breaches = [
        "unexpected close codes: 2 with 1006, 1 with 1011; expected: 1001, 1012",
        "recovery took 1.5 s (p99); allowed: 1 s",
        "7 reconnect attempts within one second; allowed: 5",
    ]
    assert lines[-5:-2] == [f"  {breach}" for breach in breaches]
    assert lines[-1].startswith(
        "Not proved. Every client received all of 2 messages once and in order,"
        f" but a limit is breached: {'; '.join(breaches)}. Next: "
    )
    # What was lost is more than how.
    worse = outcome(replace(WELL, lost=(3,)), limits=limits)
    assert render_text(worse).splitlines()[-1].startswith("Not proved. 1 client lost messages")
    assert outcome(limits=replace(limits, codes=frozenset({1006, 1011, 1012}))).breaches == tuple(
        breaches[1:]
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"codes": frozenset({1012, 12})}, "close code is 12; allowed: 1000 to 4999"),
        ({"recovery_p99": 0}, "recovery_p99 is 0"),
        ({"reconnect_rate": float("inf")}, "reconnect_rate is inf"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Limits(**values)


def test_incomplete_recoveries_and_delayed_attempts_are_reported() -> None:
    text = render_text(
        outcome(replace(WELL, recoveries=(Recovery(1012, 3, complete=False),), throttled=2))
    )
    assert "max 3000.0 ms; 1 client not recovered at the end\n" in text
    assert " reconnected; 2 attempts delayed by the load tool's own rate limit\n" in text


def test_who_has_not_recovered_is_no_riddle_of_the_database() -> None:
    client = replace(WELL, lost=(3,), recoveries=(Recovery(1012, 3, complete=False),))
    text = render_text(outcome(client, undelivered={"run-1": "client-1"}))
    assert "1 client had not recovered when the grace period ended. Next: check" in text


def test_what_is_lost_was_expected() -> None:
    assert outcome(WELL, replace(WELL, lost=(1, 2, 3))).expected == 5


def test_more_faults_than_anybody_reads_are_counted() -> None:
    clients = [replace(WELL, name=f"client-{number}", lost=(1,)) for number in range(50)]
    lines = render_text(outcome(*clients)).splitlines()
    assert sum("lost 1: 1" in line for line in lines) == MOST_FAULTS
    assert f"  and {50 - MOST_FAULTS} more faults; --json lists all" in lines


def test_many_numbers_are_cut_short() -> None:
    text = render_text(outcome(replace(WELL, lost=tuple(range(1, 40, 2)))))
    assert "lost 20: 1, 3, 5, 7, 9, ...\n" in text


def test_json_holds_everything() -> None:
    content = as_json(outcome(replace(WELL, lost=(3,)), stored_twice={"run-1": (4, 9)}))
    assert content["ok"] is False
    assert content["stored_twice"] == {"run-1": (4, 9)}
    assert content["closes"] == {1006: 2, 1012: 1}
    assert content["early_closes"] == {1011: 1}
    assert content["failed_connects"] == {"502": 4}
    assert content["reconnects"] == {
        "attempts_per_second_max": 7,
        "reconnected_per_second_max": 3,
        "throttled": 0,
    }
    assert content["recovery_milliseconds_by_code"] == {
        1006: {"p50": 500, "p99": 500, "max": 500},
        1012: {"p50": 1500, "p99": 1500, "max": 1500},
    }
    assert content["latency_connected_milliseconds"] == {"p50": 2.0, "p99": 2.0, "max": 2.0}
    [client] = content["clients"]  # type: ignore[misc]
    assert client["lost"] == (3,)  # type: ignore[has-type]
    assert client["recoveries"][0] == {"code": 1006, "seconds": 0.5, "complete": True}  # type: ignore[has-type]
    assert client["ok"] is False  # type: ignore[has-type]


def test_the_timeline_is_for_a_file() -> None:
    assert json.loads(json.dumps(timeline_as_json(outcome()))) == {
        "run": "run",
        "began_at": "2026-01-01T00:00:00.000+00:00",
        "clients": 1,
        "seconds": [
            {
                "sockets": {"app1": 1},
                "connect_attempts": 1,
                "reconnect_attempts": 0,
                "opened": 1,
                "closes": {"1012": 1},
                "failed_connects": {"503": 1},
            }
        ],
    }


def test_the_documentation_names_every_key_and_option() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "load.md").read_text()
    content = as_json(outcome())
    timeline = timeline_as_json(outcome())
    keys = {*content, *timeline, *content["reconnects"]}  # type: ignore[misc]
    for each in (ClientOutcome, Recovery, Second):
        keys |= {field.name for field in fields(each)}
    run = next(
        verbs.choices["run"]
        for verbs in build_parser()._actions
        if isinstance(verbs, argparse._SubParsersAction)
    )
    options = {option for action in run._actions for option in action.option_strings}
    names = keys | options - {"-h", "--help"}
    assert {"recoveries", "reconnect_attempts", "--grace"} <= names
    assert not [name for name in names if not re.search(rf"`{name}[` ]", page)]
