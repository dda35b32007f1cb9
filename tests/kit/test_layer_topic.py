"""What a process knows of a topic, driven by calls: every order of messages, losses and answers."""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from channels_kit.layer import topic as module
from channels_kit.layer.codec import Entry
from channels_kit.layer.topic import Position, Question, State, Topic

E1, E2 = b"epoch-1", b"epoch-2"


def entry(offset: int, number: int, epoch: bytes = E1, sender: bytes = b"a") -> Entry:
    return Entry(epoch, offset, sender, number, b"%d" % number)


def numbers(entries: object) -> list[int]:
    return [each.number for each in entries]  # type: ignore[attr-defined]


def live(at: int = 0) -> Topic:
    topic = Topic("t", Position(E1, at))
    topic.subscribed()
    return topic


def lost(topic: Topic) -> Question:
    """Lose the connection, and get another one."""
    topic.lost()
    question = topic.subscribed()
    assert question is not None
    return question


def test_a_new_topic_delivers_at_once_and_from_now_on() -> None:
    topic = Topic("t", Position(E1, 7))
    # Of a former subscription.
    assert not topic.arrived(entry(8, 1))
    assert topic.subscribed() is None
    assert numbers(topic.arrived(entry(9, 2))) == [2]


def test_what_was_published_while_it_subscribed_is_not_lost_with_the_connection() -> None:
    topic = live(7)
    found = topic.answered(lost(topic), Position(E1, 8), [entry(8, 1)])
    assert (numbers(found.entries), found.gap) == ([1], False)


def test_what_was_missed_comes_before_what_has_come_meanwhile_and_once() -> None:
    topic = live()
    topic.arrived(entry(1, 1))
    question = lost(topic)
    assert question.position == Position(E1, 1)
    assert not topic.arrived(entry(4, 4))
    assert not topic.arrived(entry(5, 5))
    missed = [entry(2, 2), entry(3, 3), entry(4, 4)]
    found = topic.answered(question, Position(E1, 4), missed)
    assert (numbers(found.entries), found.gap) == ([2, 3, 4, 5], False)
    # On its way since before the answer; known by its offset alone.
    assert not topic.arrived(entry(4, 7, sender=b"another"))
    assert numbers(topic.arrived(entry(6, 6))) == [6]


def test_a_history_that_is_too_short_is_a_gap() -> None:
    topic = live(1)
    found = topic.answered(lost(topic), Position(E1, 4), [entry(3, 3), entry(4, 4)])
    assert (numbers(found.entries), found.gap) == ([3, 4], True)


def test_what_was_held_fills_a_history_that_is_too_short() -> None:
    topic = live(1)
    question = lost(topic)
    topic.arrived(entry(2, 2))
    topic.arrived(entry(3, 3))
    found = topic.answered(question, Position(E1, 3), [entry(3, 3)])
    assert (numbers(found.entries), found.gap) == ([2, 3], False)


def test_a_new_epoch_is_a_gap_and_what_a_replica_has_kept_is_delivered() -> None:
    topic = live()
    topic.arrived(entry(1, 1))
    topic.arrived(entry(2, 2))
    missed = [entry(1, 1), entry(2, 2), entry(3, 3), entry(4, 4, E2)]
    found = topic.answered(lost(topic), Position(E2, 4), missed)
    assert (numbers(found.entries), found.gap) == ([3, 4], True)
    assert topic.position == Position(E2, 4)


def test_an_answer_to_a_former_connection_is_ignored() -> None:
    topic = live(1)
    old, new = lost(topic), lost(topic)
    assert topic.answered(old, Position(E1, 2), [entry(2, 2)]) == module.Found()
    assert topic.state is State.CATCHING_UP
    assert numbers(topic.answered(new, Position(E1, 2), [entry(2, 2)]).entries) == [2]


def test_an_inbox_gets_what_was_sent_before_its_first_subscription() -> None:
    topic = Topic("t", None)
    question = topic.subscribed()
    assert question is not None
    found = topic.answered(question, Position(E1, 2), [entry(1, 1), entry(2, 2)])
    assert (numbers(found.entries), found.gap) == ([1, 2], False)


def test_a_second_copy_is_dropped_also_of_another_epoch() -> None:
    topic = live()
    assert numbers(topic.arrived(entry(1, 1))) == [1]
    assert not topic.arrived(entry(2, 1))
    assert not topic.arrived(entry(1, 1, E2))
    assert numbers(topic.arrived(entry(2, 1, E2, sender=b"b"))) == [1]
    assert topic.duplicates == 2


def test_senders_that_are_heard_of_no_more_are_forgotten() -> None:
    topic = live()
    topic.arrived(entry(1, 7))
    for number in range(module.SENDERS):
        topic.arrived(entry(2 + number, 1, sender=b"%d" % number))
    offset = module.SENDERS + 2
    assert numbers(topic.arrived(entry(offset, 7))) == [7]
    assert not topic.arrived(entry(offset + 1, 7))


@dataclass
class Redis:
    """What a Redis has of a topic."""

    size: int
    epoch: int = 0
    offset: int = 0
    history: list[Entry] = field(default_factory=list)

    @property
    def position(self) -> Position:
        return Position(b"%d" % self.epoch, self.offset)

    def publish(self, number: int) -> Entry:
        self.offset += 1
        entry = Entry(b"%d" % self.epoch, self.offset, b"a", number, b"")
        self.history = [*self.history, entry][-self.size :]
        return entry

    def answer(self, question: Question) -> tuple[Position, list[Entry]]:
        """As the script does."""
        known, kept = question.position, list(self.history)
        if known is None:
            return self.position, kept
        if known.epoch == self.position.epoch:
            missed = self.offset - known.offset
            return self.position, kept[-missed:] if missed > 0 else []
        return self.position, kept


class Wire(RuleBasedStateMachine):
    """One sender, one Redis, one topic, and everything that can happen between them.

    What must hold: messages come in order and once, and what does not come has a gap.
    """

    def __init__(self) -> None:
        super().__init__()
        self.redis = Redis(4)
        self.topic: Topic
        self.number = 0
        # On its way from Redis, in this order: messages, answers with their questions.
        self.flying: list[Entry] = []
        self.questions: list[Question] = []
        self.answers: list[tuple[int, Question, Position, list[Entry]]] = []
        self.connected = False
        # Since which message the topic waits, and from which one on it is a member.
        self.joined_at = 0
        self.member_from: int | None = None
        self.delivered: list[int] = []
        # Up to where gaps excuse what is missing: who reads the history then finds all of it.
        self.excused = 0

    @rule()
    def publish(self) -> None:
        self.number += 1
        entry = self.redis.publish(self.number)
        if self.connected:
            self.flying.append(entry)

    @rule(back=st.integers(1, 3))
    def publish_again(self, back: int) -> None:
        """The sender has not heard that it was taken. It sends all again from there on."""
        # A member may well get the second copy of what was sent before.
        back = min(back, self.number - self.joined_at)
        for number in range(max(1, self.number - back + 1), self.number + 1):
            entry = self.redis.publish(number)
            if self.connected:
                self.flying.append(entry)

    @initialize(before=st.integers(0, 3))
    def join(self, before: int) -> None:
        for _ in range(before):
            self.publish()
        self.joined_at = self.number
        self.topic = Topic("t", self.redis.position)

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        self.connected = True
        if self.member_from is None:
            self.member_from = self.number + 1
        question = self.topic.subscribed()
        if question is not None:
            self.questions.append(question)

    @precondition(lambda self: self.questions)
    @rule()
    def ask(self) -> None:
        question = self.questions.pop(0)
        self.answers.append((self.number, question, *self.redis.answer(question)))

    @precondition(lambda self: self.answers)
    @rule()
    def answer(self) -> None:
        number, question, here, missed = self.answers.pop(0)
        found = self.topic.answered(question, here, missed)
        self.delivered += numbers(found.entries)
        if found.gap:
            self.excused = number

    @precondition(lambda self: self.flying)
    @rule()
    def arrive(self) -> None:
        self.delivered += numbers(self.topic.arrived(self.flying.pop(0)))

    @precondition(lambda self: self.connected)
    @rule()
    def lose(self) -> None:
        self.connected = False
        self.flying.clear()
        self.topic.lost()

    @rule(kept=st.integers(0, 4))
    def fail_over(self, kept: int) -> None:
        """A replica becomes the master that has only the first of what was published last."""
        if self.connected:
            self.lose()
        lost = min(kept, len(self.redis.history))
        self.redis.history = self.redis.history[: len(self.redis.history) - lost]
        self.redis.offset -= lost
        self.redis.epoch += 1

    @invariant()
    def in_order_and_once(self) -> None:
        assert self.delivered == sorted(set(self.delivered))

    @invariant()
    def what_is_missing_has_a_gap(self) -> None:
        expected = self.member_from or 0
        for number in self.delivered:
            # What was published while it became a member may come, or not.
            assert number <= max(expected, self.excused + 1), (self.delivered, self.excused)
            assert number > self.joined_at
            expected = max(expected, number + 1)

    def teardown(self) -> None:
        """Connect, and let all arrive: then nothing is missing without a gap."""
        if not hasattr(self, "topic"):
            return
        if not self.connected:
            self.connect()
        while self.questions:
            self.ask()
        while self.answers:
            self.answer()
        while self.flying:
            self.arrive()
        self.what_is_missing_has_a_gap()
        assert self.member_from is not None
        last = self.delivered[-1] if self.delivered else self.member_from - 1
        assert max(last, self.excused) == self.number


TestWire = Wire.TestCase


def test_what_is_held_is_delivered_when_redis_refuses_the_question() -> None:
    topic = live()
    question = lost(topic)
    topic.arrived(entry(3, 3))
    found = topic.refused(question)
    assert (numbers(found.entries), found.gap) == ([3], True)
    assert numbers(topic.arrived(entry(4, 4))) == [4]
    # Not that of a former connection.
    assert lost(topic).attempt != question.attempt
    found = topic.refused(question)
    assert (found.entries, found.gap, topic.state) == ([], False, State.CATCHING_UP)
