"""Races that no Redis shows when it is asked to."""

import subprocess
import sys

from hypothesis import example, given
from hypothesis import strategies as st

from channels_kit.layer import codec
from channels_kit.layer.gatherer import Gatherer
from channels_kit.layer.mailbox import GAP, Letter, Mailbox, Overflow
from channels_kit.layer.outlet import Outlet, Room
from channels_kit.layer.statistics import Statistics
from channels_kit.layer.subscriber import Subscriber


async def nobody() -> None:
    """Take no turn."""


async def test_only_the_last_of_several_subscriptions_counts() -> None:
    """Between the first one and the last, Redis ends the subscription."""
    confirmed: list[str] = []
    subscriber = Subscriber(
        *(None, lambda name, data: None, confirmed.append, lambda: None, nobody, Statistics())
    )
    subscriber.add("a")
    subscriber.remove("a")
    subscriber.add("a")
    subscriber.add("b")
    assert subscriber._commands() == [
        ["SUBSCRIBE", "a"],
        ["UNSUBSCRIBE", "a"],
        ["SUBSCRIBE", "a", "b"],
    ]
    subscriber._confirm("a")
    assert confirmed == []
    subscriber._confirm("a")
    subscriber._confirm("b")
    assert confirmed == ["a", "b"]
    # Nobody wants it any more.
    subscriber.add("c")
    subscriber.remove("c")
    subscriber._commands()
    subscriber._confirm("c")
    assert confirmed == ["a", "b"]
    await subscriber.close()


async def test_who_gives_up_when_it_is_its_turn_leaves_the_turn_to_the_next() -> None:
    box = Mailbox("channel", 10, Overflow.DROP_OLDEST)
    first, second, third = (box.wait() for _ in range(3))
    box.put(Letter(b"", 0.0))
    assert first.done()
    assert not second.done()
    box.give_up(first)
    assert second.done()
    box.give_up(third)
    assert not box.receivers
    assert not third.done()


def test_it_is_of_use_without_the_rest_of_the_kit_and_without_channels_redis() -> None:
    program = "import sys, channels_kit.layer; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    names = [name for name in done.stdout.split() if name.startswith("channels_")]
    assert "channels_kit.layer.hub" in names
    assert {".".join(name.split(".")[:2]) for name in names} == {
        "channels_kit",
        "channels_kit.layer",
    }


def test_a_closed_mailbox_takes_nothing_in() -> None:
    box = Mailbox("channel", 1, Overflow.CLOSE)
    for _ in range(2):
        box.put(Letter(b"", 0.0))
    assert box.closed
    assert box.put(Letter(b"", 0.0)) == "overflow, close"
    assert not box.letters


STEP = st.sampled_from(["put a", "put b", "put", "lose a", "frame", "frame", "take", "age"])


# Two are dropped behind a gap, each between frames.
@example(
    ["put a", "put a", "put b", "frame", "put b", "frame", "put b", "frame", "put b"],
    Overflow.DROP_OLDEST,
    3,
)
# A frame between a gap and what is dropped behind it.
@example(["put a", "frame", "put a", "put b", "put b"], Overflow.DROP_OLDEST, 2)
# A gap that is older than what is dropped before it.
@example(["put a", "put a", "lose a", "frame", "put b", "frame", "put b"], Overflow.DROP_OLDEST, 3)
@given(
    steps=st.lists(STEP, max_size=40),
    overflow=st.sampled_from([Overflow.DROP_OLDEST, Overflow.DROP_NEWEST]),
    capacity=st.integers(1, 4),
)
async def test_gaps_and_frames_keep_their_places(
    steps: list[str], overflow: Overflow, capacity: int
) -> None:
    """A gap comes before what was put in after the loss; a frame between what came around it."""
    box, now = Mailbox("channel", capacity, overflow), 0
    box.report_gaps()
    # What the consumer and the client get: messages and frames by number, gaps by group.
    got: list[int | str] = []

    def write(frames: bytes, messages: int, limit: int) -> bool:
        got.extend(int(frames[at : at + 3]) for at in range(0, len(frames), 3))
        return True

    outlet = Outlet(write, lambda code, reason: None, None, 1013, lambda _: None)  # type: ignore[arg-type]
    gatherer, room = Gatherer(1 << 20, Statistics()), Room()
    box.outlet = outlet
    gatherer.open(outlet, box)
    gatherer.join(outlet, room)
    # Messages that were put in, by group; and those that are lost, with how much was got before.
    put: dict[int, str] = {}
    lost: dict[int, int] = {}

    def take() -> bool:
        if outlet.is_blocked:
            outlet.release()
        letter = box.take()
        if letter is None:
            return False
        if letter.ends == GAP:
            box.told(letter.group)
            got.append(codec.unpack(letter.packed)["group"])
        elif letter.ends < now:
            box.expire(now, letter.group)
        else:
            got.append(int(letter.packed))
        look()
        return True

    def look() -> None:
        gaps = [each.group for each in box.letters if each.ends == GAP]
        assert len(box.letters) - len(gaps) <= capacity
        assert len(set(gaps)) == len(gaps)
        assert set(gaps) == set(box.gaps or ())
        there = {int(each.packed) for each in box.letters if each.ends != GAP}
        for number in put.keys() - there - set(got):
            lost.setdefault(number, len(got))

    for number, step in enumerate(steps):
        verb, _, name = step.partition(" ")
        if verb == "put":
            put[number] = name
            waiting = sum(each.ends != GAP for each in box.letters)
            reason = box.put(Letter(str(number).encode(), now, name or None))
            assert (reason is not None) == (waiting == capacity)
        elif verb == "lose":
            put[number] = name
            box.miss(name, len(box.letters))
        elif verb == "frame":
            gatherer.publish(room, f"{number:3}".encode())
            gatherer.flush_one(outlet)
        elif verb == "age":
            now += 1
        else:
            take()
        look()
    while take():
        pass
    assert not outlet.held
    for number, before in lost.items():
        if name := put[number]:
            # Frames between messages that are too old come before their gap.
            groups = (name,) if "age" in steps else (name, None)
            mine = (each for each in got[before:] if each == name or isinstance(each, int))
            after = [each for each in mine if each == name or put.get(each) in groups]  # type: ignore[arg-type]
            later = [at for at, each in enumerate(after) if each != name and each > number]  # type: ignore[operator]
            assert name in after[: min(later, default=len(after))]
    numbers = [each for each in got if isinstance(each, int)]
    assert numbers == sorted(numbers)
    frames = [number for number, step in enumerate(steps) if step == "frame"]
    assert [each for each in numbers if each not in put] == frames
