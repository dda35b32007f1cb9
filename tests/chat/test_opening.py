"""What sockets that open at the same time ask for together."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from django.contrib.auth.models import User

from chat import history, opening, post, protocol
from chat.models import Message, Room
from chat.people import Person

Question = tuple[int, str, int | None]


def say(room: Room, user: User, number: int) -> None:
    for each in range(number):
        post.store(room, Person(user.pk, user.username), f"{room.name} {each}")


def frames(asked: list[Question]) -> list[tuple[list[int], int, bool]]:
    found = opening._frames(asked)
    answers = []
    for frame in (found[question] for question in asked):
        assert frame is not None
        content = json.loads(frame.text)
        assert content["sequence"] == frame.known
        numbers = [message["sequence"] for message in content["messages"]]
        answers.append((numbers, frame.known, frame.is_last))
    return answers


def test_each_gets_what_it_misses(lobby: Room, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """By little or by much behind, not behind, new, and beyond the end."""
    monkeypatch.setattr(protocol, "HISTORY_PAGE", 3)
    other = Room.objects.create(name="other", title="Other")
    empty = Room.objects.create(name="empty", title="Empty")
    say(lobby, ada, 5)
    say(other, ada, 2)
    asked: list[Question] = [
        *((lobby.pk, "lobby", known) for known in (3, 4, 5, 1, 99, None)),
        *((other.pk, "other", known) for known in (0, 1)),
        *((empty.pk, "empty", known) for known in (0, 7)),
    ]
    everything = [1, 2, 3, 4, 5]
    expected = [
        *(([4, 5], 5, True), ([5], 5, True), ([], 5, True)),
        *(([2, 3, 4], 4, False), ([], 5, True), (everything, 5, True)),
        *(([1, 2], 2, True), ([2], 2, True)),
        *(([], 0, True), ([], 0, True)),
    ]
    assert frames(asked) == expected
    # Whoever asks with whom.
    assert [frames([question])[0] for question in asked] == expected


def test_many_rooms_with_little_news_are_two_queries(
    ada: User, django_assert_num_queries: Any
) -> None:
    rooms = [Room.objects.create(name=f"room-{each}", title="A room") for each in range(20)]
    for room in rooms:
        say(room, ada, 2)
    with django_assert_num_queries(2):
        answers = frames([(room.pk, room.name, 1) for room in rooms])
    assert answers == [([2], 2, True)] * len(rooms)


@pytest.mark.parametrize(
    ("before", "known", "meanwhile", "answer"),
    [(1, 0, 3, ([1, 2, 3], 3, False)), (2, 1, 1, ([2, 3], 3, True))],
    ids=["no longer than a page", "known then"],
)
def test_what_is_said_meanwhile_is_in_the_page(
    lobby: Room,
    ada: User,
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    known: int,
    meanwhile: int,
    answer: tuple[list[int], int, bool],
) -> None:
    monkeypatch.setattr(protocol, "HISTORY_PAGE", 3)
    read = history.newer

    def after_others_have_spoken(known: Mapping[int, int]) -> dict[int, list[Message]]:
        say(lobby, ada, meanwhile)
        return read(known)

    say(lobby, ada, before)
    monkeypatch.setattr(history, "newer", after_others_have_spoken)
    assert frames([(lobby.pk, "lobby", known)]) == [answer]
