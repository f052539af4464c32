"""Deadline: what is left of one timeout."""

import time

import pytest

from moorage.deadline import Deadline, monotonic, soonest
from support.clock import FakeClock


def test_remaining_shrinks_as_time_passes() -> None:
    clock = FakeClock()
    deadline = Deadline(5, clock)
    assert deadline.remaining() == 5
    clock.advance(3)
    assert deadline.remaining() == 2


def test_remaining_is_never_negative() -> None:
    clock = FakeClock()
    deadline = Deadline(5, clock)
    clock.advance(60)
    assert deadline.remaining() == 0


def test_deadline_is_due_from_its_moment_on() -> None:
    clock = FakeClock()
    deadline = Deadline(5, clock)
    clock.advance(4.999)
    assert not deadline.is_due()
    clock.advance(0.001)
    assert deadline.is_due()


def test_deadline_of_zero_seconds_is_due_at_once() -> None:
    assert Deadline(0, FakeClock()).is_due()


def test_no_deadline_never_comes() -> None:
    clock = FakeClock()
    deadline = Deadline(None, clock)
    clock.advance(1e9)
    assert deadline.at is None
    assert deadline.remaining() is None
    assert not deadline.is_due()


def test_deadline_counts_on_the_monotonic_clock_by_default() -> None:
    assert monotonic is time.monotonic
    before = time.monotonic()
    moment = Deadline(10).at
    assert moment is not None
    assert before + 10 <= moment <= time.monotonic() + 10


@pytest.mark.parametrize(
    ("moments", "first"),
    [((3.0, 1.0, 2.0), 1.0), ((None, 2.0), 2.0), ((None, None), None), ((), None), ((0.0, None), 0.0)],
)
def test_soonest_is_the_first_moment_that_comes_at_all(moments: tuple[float | None, ...], first: float | None) -> None:
    assert soonest(*moments) == first
