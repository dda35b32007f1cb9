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
    message, _ = MessageHistory(cellar.pk).append(user_id=ada.pk, text="c", worker="w")
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
    MessageHistory(cellar.pk).append(user_id=ada.pk, text="elsewhere", worker="w")
    history = MessageHistory(lobby.pk)
    assert [message.sequence for message in history.latest(3)] == [3, 4, 5]
    assert [message.sequence for message in history.after(1, 2)] == [2, 3]
    assert [message.sequence for message in history.after(0, 9)] == [1, 2, 3, 4, 5]
    assert history.after(5, 2) == []
    assert [message.sequence for message in history.between(2, 4)] == [2, 3, 4]
    assert [message.sequence for message in history.between(4, 99)] == [4, 5]
    assert history.between(6, 9) == []


def test_a_message_is_stored_once_under_its_client_id(lobby: Room, ada: User) -> None:
    history = MessageHistory(lobby.pk)

    def append(text: str, client_id: str | None) -> tuple[int, str, bool]:
        message, is_new = history.append(user_id=ada.pk, text=text, worker="w", client_id=client_id)
        return message.sequence, message.text, is_new

    assert append("first", "a") == (1, "first", True)
    assert append("again", "a") == (1, "first", False)
    assert history.position() == 1
    # None is no name: any number of messages may have it.
    assert append("second", None) == (2, "second", True)
    assert append("third", None) == (3, "third", True)


needs_row_locks = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="SQLite in memory locks whole tables"
)


@needs_row_locks
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


@needs_row_locks
def test_of_concurrent_senders_of_one_client_id_one_is_new(lobby: Room, ada: User) -> None:
    def send(number: int) -> tuple[int, bool]:
        try:
            message, is_new = MessageHistory(lobby.pk).append(
                user_id=ada.pk, text="hello", worker=f"worker {number}", client_id="a-1"
            )
            return message.sequence, is_new
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(send, range(40)))
    assert {sequence for sequence, _ in sent} == {1}
    assert sum(is_new for _, is_new in sent) == 1
    lobby.refresh_from_db()
    assert lobby.last_sequence == 1
