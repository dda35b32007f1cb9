"""The rules of a run, without a socket: what a client delivers, what the ledger says."""

from itertools import permutations

import pytest

from channels_kit.load.adapter import Filling, History, Message
from channels_kit.load.inbox import Inbox
from channels_kit.load.ledger import Ledger
from channels_kit.probe.result import Latency


def message(sequence: int, name: str | None = None) -> Message:
    return Message(sequence, name or f"m{sequence}", "alice")


def numbers(messages: list[Message]) -> list[int]:
    return [each.sequence for each in messages]


def begun(first: int = 0) -> Inbox:
    inbox = Inbox()
    inbox.history(History((), first))
    return inbox


@pytest.mark.parametrize("order", list(permutations((1, 2, 3, 4))))
def test_any_order_is_delivered_in_order(order: tuple[int, ...]) -> None:
    inbox = begun()
    delivered = [each for number in order for each in inbox.message(message(number))]
    assert numbers(delivered) == [1, 2, 3, 4]
    assert inbox.gap is None


def test_a_copy_is_dropped_whether_its_first_was_delivered_or_is_held() -> None:
    inbox = begun()
    inbox.message(message(1))
    inbox.message(message(3))
    assert numbers(inbox.message(message(1)) + inbox.message(message(3))) == []
    assert inbox.dropped == 2
    assert numbers(inbox.message(message(2))) == [2, 3]


def test_the_first_history_is_where_a_client_begins() -> None:
    inbox = Inbox()
    # A message that overtook the history.
    assert inbox.message(message(7)) == []
    assert inbox.gap is None
    assert numbers(inbox.history(History((message(5), message(6)), 6))) == [7]
    assert inbox.last == 7


def test_the_history_after_a_reconnect_is_delivered_without_what_is_known() -> None:
    inbox = begun()
    inbox.message(message(1))
    inbox.message(message(3))
    assert numbers(inbox.history(History((message(1), message(2)), 2))) == [2, 3]
    assert inbox.dropped == 1


def test_a_gap_ends_before_what_is_held() -> None:
    inbox = begun(10)
    inbox.heard_of(20)
    assert inbox.gap == (11, 20)
    inbox.message(message(15))
    assert inbox.gap == (11, 14)
    inbox.message(message(11))
    assert inbox.gap == (12, 14)


def test_a_history_that_promises_more_than_it_has_leaves_a_gap() -> None:
    inbox = begun()
    assert numbers(inbox.history(History((message(1), message(2)), 4))) == [1, 2]
    assert inbox.gap == (3, 4)


def test_what_the_room_does_not_have_is_passed_over() -> None:
    inbox = begun()
    inbox.message(message(4))
    assert numbers(inbox.filling(Filling((message(1), message(3)), 3, 4))) == [1, 3, 4]
    assert inbox.gap is None


def test_an_answer_is_no_word_on_numbers_that_are_not_in_use_yet() -> None:
    inbox = begun()
    inbox.filling(Filling((message(1),), 200, 1))
    assert inbox.last == 1
    assert numbers(inbox.message(message(2))) == [2]


def ledger(*clients: str) -> Ledger:
    ledger = Ledger(dict.fromkeys(clients or ("a", "b"), "red"))
    for client in ledger.accounts:
        ledger.began(client, 0)
    return ledger


def received(ledger: Ledger, client: str, *sequences: int, at: float = 1.0) -> None:
    for sequence in sequences:
        ledger.received(client, message(sequence), at, since=0.0)


def test_all_that_was_sent_is_with_all() -> None:
    account = ledger()
    account.sent("a", "m1", 0.5, connected=True)
    assert not account.complete
    received(account, "a", 1)
    assert not account.complete
    received(account, "b", 1)
    assert account.complete
    assert len(account.connected_latencies) == 2
    assert account.connected_latencies.summary() == Latency(500, 500, 500)
    assert account.delivered == 2


def test_a_number_that_others_have_is_lost() -> None:
    account = ledger()
    received(account, "a", 1, 2, 3, 4)
    received(account, "b", 1, 3)
    assert account.lost(account.accounts["b"]) == [2, 4]
    assert account.behind(account.accounts["b"]) == 2
    assert account.lost(account.accounts["a"]) == []
    assert not account.complete


def test_a_number_that_the_server_named_is_lost_where_nobody_has_it() -> None:
    account = ledger()
    received(account, "a", 1)
    received(account, "b", 1)
    assert account.complete
    account.heard_of("a", 2)
    assert account.newest("b") == 2
    assert not account.complete
    assert account.lost(account.accounts["b"]) == [2]


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_every_order_but_the_right_one_is_disorder(order: tuple[int, ...]) -> None:
    account = ledger("a")
    received(account, "a", *order)
    assert bool(account.accounts["a"].out_of_order) is (order != (1, 2, 3))
    assert account.accounts["a"].delivered == 3
    assert account.complete


def test_a_second_delivery_is_no_delivery() -> None:
    account = ledger("a")
    received(account, "a", 1, 2, 1, 2)
    assert account.accounts["a"].duplicates == [1, 2]
    assert account.delivered == 2
    assert account.accounts["a"].out_of_order == []


def test_what_was_there_before_a_client_came_is_not_expected() -> None:
    account = Ledger({"a": "red"})
    assert not account.complete
    account.began("a", 7)
    assert account.complete
    received(account, "a", 9)
    assert account.lost(account.accounts["a"]) == [8]


def test_a_name_under_two_numbers_is_stored_twice() -> None:
    account = ledger("a")
    account.sent("a", "m1", 0.0, connected=True)
    for sequence in (1, 2):
        account.received("a", message(sequence, "m1"), 1.0, since=0.0)
    assert account.stored_twice == {"m1": [1, 2]}


@pytest.mark.parametrize(
    "other", [Message(1, "m2", "alice"), Message(1, None, "alice"), Message(1, "m1", "bob")]
)
def test_one_number_with_two_contents_is_a_conflict(other: Message) -> None:
    account = ledger()
    received(account, "a", 1)
    account.received("b", other, 1.0, since=0.0)
    assert account.accounts["b"].conflicts == [1]
    assert account.accounts["a"].conflicts == []


def test_rooms_have_numbers_of_their_own() -> None:
    account = Ledger({"a": "red", "b": "blue"})
    for client in "ab":
        account.began(client, 0)
    received(account, "a", 1, 2)
    account.received("b", message(1, "other"), 1.0, since=0.0)
    assert account.complete
    assert account.accounts["b"].conflicts == []


@pytest.mark.parametrize(
    ("connected", "again", "since"), [(False, False, 0.0), (True, True, 0.0), (True, False, 0.7)]
)
def test_the_latency_after_a_loss_is_counted_apart(
    connected: bool, again: bool, since: float
) -> None:
    account = ledger("a")
    account.sent("a", "m1", 0.5, connected=connected)
    if again:
        account.sent_again("m1")
    account.received("a", message(1), 1.0, since=since)
    assert account.other_latencies.summary() == Latency(500, 500, 500)
    assert not account.connected_latencies


def test_who_failed_is_not_waited_for_and_still_accounted_for() -> None:
    account = ledger()
    account.sent("b", "m1", 0.0, connected=True)
    account.failed("b", "closed with 4003")
    account.failed("b", "the connection was lost")
    assert account.complete
    assert account.undelivered == ["m1"]
    assert account.failures == {"b": "closed with 4003"}
    # What it had sent is everybody's, once somebody has it.
    received(account, "a", 1)
    assert account.undelivered == []
    assert account.lost(account.accounts["b"]) == [1]
