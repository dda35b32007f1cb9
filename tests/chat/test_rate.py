import pytest

from chat.rate import FRAMES_AT_ONCE, FRAMES_PER_SECOND, PAUSE, REFUSED_IN_A_ROW, FrameRate


def burst(rate: FrameRate, now: float, frames: int) -> list[float]:
    return [rate.take(now) for _ in range(frames)]


def test_a_burst_is_allowed_and_then_a_steady_stream() -> None:
    rate = FrameRate(0.0)
    assert not any(burst(rate, 0.0, FRAMES_AT_ONCE))
    for frame in range(1, 100):
        # A little more than exactly enough: floats.
        assert rate.take(frame / FRAMES_PER_SECOND + 1e-9) == 0


def test_one_who_is_refused_learns_how_long_to_wait() -> None:
    rate = FrameRate(0.0)
    burst(rate, 0.0, FRAMES_AT_ONCE)
    assert rate.take(0.0) == pytest.approx(1 / FRAMES_PER_SECOND)
    assert rate.take(0.05) == pytest.approx(0.05)
    assert rate.take(0.1 + 1e-9) == 0


def test_a_long_silence_saves_no_more_than_a_burst() -> None:
    rate = FrameRate(0.0)
    allowed = [wait for wait in burst(rate, 3600.0, 2 * FRAMES_AT_ONCE) if not wait]
    assert len(allowed) == FRAMES_AT_ONCE


def test_who_keeps_on_is_abusive() -> None:
    rate = FrameRate(0.0)
    burst(rate, 0.0, FRAMES_AT_ONCE + REFUSED_IN_A_ROW - 1)
    assert not rate.abused
    rate.take(0.0)
    assert rate.abused


def test_a_pause_is_forgiveness() -> None:
    rate = FrameRate(0.0)
    burst(rate, 0.0, FRAMES_AT_ONCE + REFUSED_IN_A_ROW - 1)
    burst(rate, PAUSE, 1)
    burst(rate, PAUSE, FRAMES_PER_SECOND)
    assert not rate.abused


def test_a_frame_that_is_allowed_now_and_then_is_no_pause() -> None:
    rate = FrameRate(0.0)
    burst(rate, 0.0, FRAMES_AT_ONCE)
    for tick in range(2 * REFUSED_IN_A_ROW):
        # Twice as fast as allowed: every second frame is refused.
        rate.take(tick / (2 * FRAMES_PER_SECOND))
    assert rate.abused
