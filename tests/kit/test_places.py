"""Which handshakes a worker takes: driven by a clock and by calls, without a socket."""

import asyncio

import pytest

from channels_kit.serving.places import HANDSHAKE_WAIT, HANDSHAKES, Places


class Worker:
    """A worker on a clock of its own; what it has in hand is decided first come, first served."""

    def __init__(self, wait: float = HANDSHAKE_WAIT, sockets: int = 100_000) -> None:
        self.places = Places(sockets, wait)
        self.now = 1000.0
        self.refused = 0

    async def pass_turn(self) -> None:
        """Let the event loop begin another turn."""
        await asyncio.sleep(0)

    def come(self, clients: int) -> int:
        """Let clients come at once; return how many are taken."""
        taken = 0
        for _ in range(clients):
            if self.places.refusal(self.now):
                self.refused += 1
            else:
                self.places.begin(self.now)
                self.places.taken += 1
                taken += 1
        return taken

    def work(self, decisions: int, seconds: float) -> None:
        """Decide handshakes one after the other; each takes some seconds."""
        for _ in range(decisions):
            self.now += seconds
            self.places.decide(self.now)

    async def warm_up(self, seconds: float) -> None:
        """Decide handshakes, one at a time, until their rate is known."""
        for _ in range(int(5 / seconds)):
            self.come(1)
            self.work(1, seconds)
            await self.pass_turn()
        self.refused = 0


async def test_a_worker_that_has_just_started_takes_a_few() -> None:
    assert Worker().come(1000) == HANDSHAKES


async def test_one_fast_handshake_shows_little() -> None:
    worker = Worker()
    worker.come(1)
    worker.work(1, 0.0001)
    assert worker.come(1000) == HANDSHAKES


async def test_a_light_application_refuses_none_of_a_crowd() -> None:
    """64 at once, of which each takes a millisecond: what a constant of 32 refused."""
    worker = Worker()
    await worker.warm_up(0.001)
    for _ in range(100):
        worker.come(64 - worker.places.undecided)
        worker.work(40, 0.001)
        await worker.pass_turn()
    assert worker.refused == 0


@pytest.mark.parametrize("seconds", [0.001, 0.005, 0.02])
async def test_as_many_are_taken_as_are_decided_in_time(seconds: float) -> None:
    worker = Worker()
    await worker.warm_up(seconds)
    taken = worker.come(10_000)
    assert taken * seconds == pytest.approx(HANDSHAKE_WAIT, rel=0.1)


async def test_overload_goes_on_and_none_that_is_taken_waits_longer() -> None:
    """Ten times what the worker can do, for a minute: the bound must not drift."""
    worker = Worker()
    await worker.warm_up(0.02)
    queue: list[float] = []
    waited = []
    for _ in range(3000):
        queue += [worker.now] * worker.come(10)
        worker.work(1, 0.02)
        waited.append(worker.now - queue.pop(0))
        await worker.pass_turn()
    assert max(waited) < HANDSHAKE_WAIT * 1.2
    # And the worker is never idle for caution.
    assert sorted(waited)[300] > HANDSHAKE_WAIT * 0.7
    assert worker.refused > 26_000


async def test_an_application_that_has_become_slow_is_noticed() -> None:
    worker = Worker()
    await worker.warm_up(0.002)
    worker.come(HANDSHAKES)
    for _ in range(300):
        worker.work(1, 0.1)
        await worker.pass_turn()
        worker.come(10)
    assert worker.places.undecided <= HANDSHAKES


async def test_waiting_for_somebody_else_is_not_work() -> None:
    """Of logins that take 0.5 s each, all at once, any number is taken in time."""
    worker = Worker()
    for _ in range(20):
        worker.come(1000)
        in_hand = worker.places.undecided
        worker.now += 0.5
        for _ in range(in_hand):
            worker.places.decide(worker.now)
        await worker.pass_turn()
    assert in_hand > 10 * HANDSHAKES


async def test_slow_logins_have_the_places_that_are_always_there() -> None:
    worker = Worker()
    for _ in range(5):
        assert worker.come(100) == HANDSHAKES
        worker.now += 10
        for _ in range(HANDSHAKES):
            worker.places.decide(worker.now)
        await worker.pass_turn()


async def test_a_night_without_clients_is_not_slowness() -> None:
    worker = Worker()
    await worker.warm_up(0.001)
    worker.now += 8 * 3600
    assert worker.come(500) == 500


async def test_handshakes_that_never_end_show_no_rate() -> None:
    worker = Worker()
    await worker.warm_up(0.001)
    worker.come(200)
    worker.now += 10
    await worker.pass_turn()
    for _ in range(200 - HANDSHAKES):
        worker.places.abandon(worker.now)
    assert worker.come(1) == 0
    # They go, and the worker serves again.
    for _ in range(HANDSHAKES):
        worker.places.abandon(worker.now)
    assert worker.places.undecided == 0
    assert worker.come(100) == HANDSHAKES
    for _ in range(30):
        worker.work(worker.places.undecided, 0.001)
        await worker.pass_turn()
        worker.come(100)
    assert worker.places.undecided == 100


async def test_a_turn_of_the_loop_takes_no_longer_than_a_handshake_may_wait() -> None:
    """Those that wait in the loop are in nobody's hand."""
    worker = Worker()
    taken = 0
    for _ in range(500):
        if worker.come(1):
            worker.work(1, 0.02)
            taken += 1
    assert taken == pytest.approx(HANDSHAKE_WAIT / 0.02, abs=2)
    await worker.pass_turn()
    assert worker.come(1) == 1


async def test_the_proof_has_its_own_and_no_more() -> None:
    worker = Worker(wait=0, sockets=64)
    for _ in range(1000):
        worker.come(1)
        worker.work(1, 0.0001)
        worker.places.taken -= 1
        worker.now += 1
    assert worker.come(100) == HANDSHAKES


async def test_a_full_worker_says_that_it_is_full() -> None:
    worker = Worker(sockets=3)
    assert worker.come(5) == 3
    assert worker.places.refusal(worker.now) == "full"
