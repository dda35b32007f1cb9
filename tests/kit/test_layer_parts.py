"""Races that no Redis shows when it is asked to."""

import subprocess
import sys

from channels_kit.layer.mailbox import Letter, Mailbox, Overflow
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
