from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection
from django.utils import timezone

from chat.history import MessageHistory
from chat.models import Message, Room


def test_each_room_counts_from_one_without_gaps(
    lobby: Room, ada: User, say: Callable[[str], int]
) -> None:
    cellar = Room.objects.create(name="cellar", title="Cellar")
    assert [say("a"), say("b")] == [1, 2]
    message = MessageHistory(cellar.pk).append(user=ada, text="c", worker="w")
    assert message.sequence == 1
    assert say("d") == 3
    lobby.refresh_from_db()
    assert lobby.last_sequence == 3


def test_a_message_that_fails_gives_its_number_back(
    lobby: Room, ada: User, say: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(timezone, "now", lambda: None)
        with pytest.raises(IntegrityError):
            say("fails")
    assert say("works") == 1


def test_a_number_is_used_once(lobby: Room, ada: User, say: Callable[[str], int]) -> None:
    sequence = say("first")
    with pytest.raises(IntegrityError):
        Message.objects.create(
            room=lobby,
            sequence=sequence,
            user=ada,
            text="second",
            sent_at=timezone.now(),
            worker="w",
        )


def test_a_room_that_is_gone_takes_no_message(lobby: Room, say: Callable[[str], int]) -> None:
    lobby.delete()
    with pytest.raises(Room.DoesNotExist):
        say("hello?")


def test_reading_is_oldest_first(lobby: Room, ada: User, say: Callable[[str], int]) -> None:
    for number in range(1, 6):
        say(str(number))
    cellar = Room.objects.create(name="cellar", title="Cellar")
    MessageHistory(cellar.pk).append(user=ada, text="elsewhere", worker="w")
    history = MessageHistory(lobby.pk)
    assert [message.sequence for message in history.latest(3)] == [3, 4, 5]
    assert [message.sequence for message in history.after(1, 2)] == [2, 3]
    assert [message.sequence for message in history.after(0, 9)] == [1, 2, 3, 4, 5]
    assert history.after(5, 2) == []


@pytest.mark.skipif(
    connection.vendor == "sqlite", reason="SQLite in memory locks whole tables; set DATABASE_URL"
)
def test_concurrent_senders_get_numbers_without_gaps(
    lobby: Room, say: Callable[[str], int]
) -> None:
    def send(number: int) -> int:
        try:
            return say(str(number))
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        sequences = list(pool.map(send, range(80)))
    assert sorted(sequences) == list(range(1, 81))
