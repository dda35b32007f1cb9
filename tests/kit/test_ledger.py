from itertools import permutations

import pytest

from channels_kit.probe.ledger import CLOSING, Ledger, Pair

NAMES = ("a", "b")


def exchange(ledger: Ledger, number: int, lost: tuple[tuple[str, str], ...] = ()) -> None:
    """Play one round in which everything arrives except what is `lost`."""
    ledger.begin(number)
    live = ledger.live
    for sender in live:
        ledger.sent(sender, number, at=10.0 * number)
    for sender in live:
        for receiver in live:
            if (sender, receiver) not in lost:
                ledger.received(sender, receiver, number, at=10.0 * number + 0.5)


def test_one_that_leaves_is_accounted_for_no_more() -> None:
    ledger = Ledger(["a", "b"], 2)
    exchange(ledger, 1)
    ledger.leave("b", "closed with 1011")
    assert ledger.live == ["a"]
    ledger.begin(2)
    ledger.sent("a", 2, 0.0)
    ledger.received("a", "a", 2, 0.1)
    assert ledger.round_finished
    assert ledger.complete
    assert [(pair.sender, pair.receiver, pair.ok) for pair in ledger.pairs()] == [("a", "a", True)]
    assert ledger.failures == {}


def pair(ledger: Ledger, sender: str, receiver: str) -> Pair:
    return next(p for p in ledger.pairs() if (p.sender, p.receiver) == (sender, receiver))


def test_everything_arrived() -> None:
    ledger = Ledger(NAMES, planned=3)
    for number in (1, 2, 3, CLOSING):
        exchange(ledger, number)
        assert ledger.round_finished
        assert ledger.complete
    assert len(ledger.pairs()) == 4
    for each in ledger.pairs():
        assert each.ok
        assert (each.expected, each.delivered) == (3, 3)
        assert each.latencies == (0.5, 0.5, 0.5)


def test_a_lost_message_is_missing_and_keeps_the_round_from_settling() -> None:
    ledger = Ledger(NAMES, planned=3)
    exchange(ledger, 1)
    exchange(ledger, 2, lost=(("a", "b"),))
    assert not ledger.round_finished
    assert not ledger.complete
    assert pair(ledger, "a", "b").missing
    assert (pair(ledger, "a", "b").expected, pair(ledger, "a", "b").delivered) == (2, 1)
    assert [p.ok for p in ledger.pairs()] == [True, False, True, True]


def test_the_last_arrival_settles_the_round() -> None:
    ledger = Ledger(NAMES, planned=1)
    exchange(ledger, 1, lost=(("b", "b"),))
    assert not ledger.round_finished
    ledger.received("b", "b", 1, at=11.0)
    assert ledger.round_finished
    assert ledger.complete


def test_a_copy_is_a_duplicate_and_not_a_delivery() -> None:
    ledger = Ledger(NAMES, planned=1)
    exchange(ledger, 1, lost=(("b", "a"),))
    ledger.received("a", "b", 1, at=11.0)
    assert pair(ledger, "a", "b").duplicates == 1
    assert pair(ledger, "a", "b").delivered == 1
    assert pair(ledger, "a", "b").latencies == (0.5,)
    assert not pair(ledger, "a", "b").ok
    assert not pair(ledger, "a", "b").missing
    # It does not stand in for the message that another pair lacks.
    assert not ledger.round_finished


@pytest.mark.parametrize("order", list(permutations((1, 2, CLOSING))))
def test_every_order_but_the_right_one_is_disorder(order: tuple[int, ...]) -> None:
    ledger = Ledger(("a",), planned=2)
    for number in (1, 2, CLOSING):
        ledger.begin(number)
        ledger.sent("a", number, at=0.0)
    for number in order:
        ledger.received("a", "a", number, at=1.0)
    account = pair(ledger, "a", "a")
    assert (account.delivered, account.closed) == (2, True)
    assert account.ok is (order == (1, 2, CLOSING))
    assert bool(account.disordered) is (order != (1, 2, CLOSING))


def test_an_endpoint_that_never_opened_misses_all_that_the_others_sent() -> None:
    ledger = Ledger(NAMES, planned=2)
    ledger.failed("b", "connection refused")
    for number in (1, 2, CLOSING):
        exchange(ledger, number)
        assert ledger.complete
    assert pair(ledger, "a", "a").ok
    for names in (("a", "b"), ("b", "a"), ("b", "b")):
        assert pair(ledger, *names).missing
        assert (pair(ledger, *names).expected, pair(ledger, *names).delivered) == (2, 0)


def test_where_nobody_opened_the_planned_rounds_are_missing() -> None:
    ledger = Ledger(NAMES, planned=5)
    for name in NAMES:
        ledger.failed(name, "connection refused")
    assert ledger.live == []
    assert [(p.expected, p.delivered, p.ok) for p in ledger.pairs()] == [(5, 0, False)] * 4


def test_an_endpoint_that_dies_is_not_waited_for_but_missing() -> None:
    ledger = Ledger(NAMES, planned=3)
    exchange(ledger, 1)
    exchange(ledger, 2, lost=(("a", "b"), ("b", "b")))
    assert not ledger.round_finished
    ledger.failed("b", "closed with 1011")
    assert ledger.round_finished
    assert not ledger.complete
    assert [(p.expected, p.delivered) for p in ledger.pairs()] == [(2, 2), (2, 1), (2, 2), (2, 1)]


def test_the_first_failure_of_an_endpoint_is_its_reason() -> None:
    ledger = Ledger(NAMES, planned=1)
    ledger.failed("b", "closed with 1011")
    ledger.failed("b", "the connection was lost")
    assert ledger.failures == {"b": "closed with 1011"}
    assert ledger.live == ["a"]


def test_a_closing_message_that_is_missing_is_a_missing_message() -> None:
    ledger = Ledger(NAMES, planned=1)
    exchange(ledger, 1)
    exchange(ledger, CLOSING, lost=(("a", "b"),))
    assert (pair(ledger, "a", "b").expected, pair(ledger, "a", "b").delivered) == (1, 1)
    assert pair(ledger, "a", "b").missing
    assert pair(ledger, "b", "a").ok


@pytest.mark.parametrize(("sender", "number"), [("a", 2), ("stranger", 1)])
def test_a_message_that_nobody_sent_fails_its_receiver(sender: str, number: int) -> None:
    ledger = Ledger(NAMES, planned=1)
    exchange(ledger, 1)
    ledger.received(sender, "b", number, at=11.0)
    assert list(ledger.failures) == ["b"]
    assert f"round {number} of {sender!r}" in ledger.failures["b"]


def test_a_late_message_of_an_earlier_round_does_not_settle_this_one() -> None:
    ledger = Ledger(("a",), planned=2)
    exchange(ledger, 1, lost=(("a", "a"),))
    ledger.begin(2)
    ledger.sent("a", 2, at=20.0)
    ledger.received("a", "a", 1, at=21.0)
    assert not ledger.round_finished


def test_only_what_is_touched_is_accounted_for() -> None:
    ledger = Ledger(["a", "b", "c"], planned=1, touched={"b"})
    exchange(ledger, 1, lost=(("a", "c"), ("c", "a")))
    assert ledger.round_finished
    assert ledger.complete
    assert {(p.sender, p.receiver) for p in ledger.pairs()} == {
        *(("b", name) for name in "abc"),
        *((name, "b") for name in "abc"),
    }
