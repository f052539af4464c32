"""Limiter: few lines, and a count of the others."""

from moorage.observe.limiter import Limiter
from support.clock import FakeClock


def test_lines_beyond_the_burst_are_left_out_and_counted() -> None:
    clock = FakeClock()
    limiter: Limiter[str] = Limiter(burst=2, window=10, clock=clock)
    assert [limiter.admit("a") for _ in range(5)] == [True, True, False, False, False]
    assert limiter.admit("b")
    assert limiter.overdue() == []
    clock.advance(10)
    assert limiter.overdue() == [("a", 3)]
    assert limiter.admit("a")


def test_window_that_left_nothing_out_is_forgotten_in_silence() -> None:
    clock = FakeClock()
    limiter: Limiter[str] = Limiter(burst=2, window=10, clock=clock)
    limiter.admit("a")
    clock.advance(10)
    assert limiter.overdue() == []
    assert [limiter.admit("a") for _ in range(3)] == [True, True, False]


def test_everything_is_told_when_asked_for() -> None:
    limiter: Limiter[str] = Limiter(burst=1, window=10, clock=FakeClock())
    assert [limiter.admit("a") for _ in range(3)] == [True, False, False]
    assert limiter.overdue(everything=True) == [("a", 2)]
    assert limiter.overdue(everything=True) == []
