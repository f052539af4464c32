"""Timers: never early, at most one slot late, cancelled from anywhere; the same in both twins."""

import math
import sys
import threading
from functools import partial

import pytest

from moorage.timers import AT_ONCE, COARSE, SLOTS_PER_SECOND, Timer, Wheel
from support.clock import FakeClock
from support.twins import BOTH, twin

SLOT = COARSE / SLOTS_PER_SECOND
SHARP = 1 / SLOTS_PER_SECOND


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=BOTH)
def wheel(request: pytest.FixtureRequest, clock: FakeClock) -> Wheel:
    made: Wheel = twin(request.param, "moorage.timers").Wheel(clock)
    return made


@pytest.mark.parametrize("offset", [0.0, 0.001, SLOT / 2, SLOT, 0.7, 59.999])
def test_timer_is_never_early_and_at_most_a_slot_late(wheel: Wheel, clock: FakeClock, offset: float) -> None:
    moment = clock.now + offset
    called: list[float] = []
    wheel.call_at(moment, lambda: called.append(clock.now))
    clock.now = moment - 1e-6
    wheel.run_due()
    assert called == []
    clock.now = moment + SLOT
    wheel.run_due()
    assert len(called) == 1


def test_sharp_timer_is_never_early_and_at_most_a_millisecond_late(wheel: Wheel, clock: FakeClock) -> None:
    called: list[str] = []
    moment = clock.now + 0.0042
    wheel.call_at(moment, lambda: called.append("coarse"))
    wheel.call_sharply_at(moment, lambda: called.append("sharp"))
    assert 0.0042 <= (wheel.delay() or 0) <= 0.0042 + SHARP
    clock.now = moment - 1e-6
    wheel.run_due()
    assert called == []
    clock.now = moment + SHARP
    wheel.run_due()
    assert called == ["sharp"]
    clock.now = moment + SLOT
    wheel.run_due()
    assert called == ["sharp", "coarse"]


def test_timer_runs_once(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []
    wheel.call_at(clock.now, lambda: called.append(1))
    for _ in range(3):
        clock.advance(1)
        wheel.run_due()
    assert called == [1]


def test_timers_run_in_the_order_of_their_moments(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []
    for seconds in (5, 1, 3, 2, 4):
        wheel.call_at(clock.now + seconds, partial(called.append, seconds))
    clock.advance(10)
    wheel.run_due()
    assert called == [1, 2, 3, 4, 5]


def test_delay_tells_when_to_look_again(wheel: Wheel, clock: FakeClock) -> None:
    assert wheel.delay() is None
    wheel.call_at(clock.now + 10, lambda: None)
    wheel.call_at(clock.now + 2, lambda: None)
    assert wheel.delay() == pytest.approx(2, abs=SLOT)
    clock.advance(3)
    assert wheel.delay() == 0.0


def test_delay_is_exactly_when_the_timer_runs(wheel: Wheel, clock: FakeClock) -> None:
    """Woken too early a loop would turn twice, or many times."""
    called: list[int] = []
    wheel.call_at(clock.now + 0.77, lambda: called.append(1))
    delay = wheel.delay()
    assert delay is not None
    clock.advance(delay)
    wheel.run_due()
    assert called == [1]


def test_cancelled_timer_is_not_called_and_not_waited_for(wheel: Wheel, clock: FakeClock) -> None:
    timer = wheel.call_at(clock.now + 1, lambda: pytest.fail("was cancelled"))
    timer.cancel()
    timer.cancel()
    assert wheel.delay() is None
    clock.advance(2)
    wheel.run_due()


def test_cancel_after_the_call_does_nothing(wheel: Wheel, clock: FakeClock) -> None:
    timer = wheel.call_at(clock.now, lambda: None)
    clock.advance(1)
    wheel.run_due()
    timer.cancel()
    assert wheel.delay() is None


def test_moment_of_a_cancelled_timer_can_be_used_again(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []
    moment = clock.now + 1
    wheel.call_at(moment, lambda: called.append(1)).cancel()
    assert wheel.delay() is None
    wheel.call_at(moment, lambda: called.append(2))
    clock.advance(2)
    wheel.run_due()
    assert called == [2]


def test_timer_cancelled_by_another_of_its_slot_is_not_called(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []
    timers: list[Timer] = []
    moment = clock.now + 1

    def call(number: int) -> None:
        called.append(number)
        for timer in timers:
            timer.cancel()

    timers += [wheel.call_at(moment, lambda: call(1)), wheel.call_at(moment, lambda: call(2))]
    clock.advance(2)
    wheel.run_due()
    assert len(called) == 1


def test_timer_set_again_by_its_own_call_runs_at_its_next_moment(wheel: Wheel, clock: FakeClock) -> None:
    called: list[float] = []

    def again() -> None:
        called.append(clock.now)
        wheel.call_at(clock.now + 1, again)

    wheel.call_at(clock.now, again)
    for _ in range(5):
        delay = wheel.delay()
        assert delay is not None
        clock.advance(delay)
        wheel.run_due()
    assert len(called) == 5
    assert called == sorted(set(called))


def test_timers_may_be_cancelled_by_another_thread_while_they_run(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []
    timers = [wheel.call_at(clock.now + number % 7, lambda: called.append(1)) for number in range(5000)]
    threads = [
        threading.Thread(target=lambda part=timers[start::4]: [timer.cancel() for timer in part]) for start in range(2)
    ]
    for thread in threads:
        thread.start()
    for _ in range(20):
        clock.advance(0.5)
        wheel.run_due()
    for thread in threads:
        thread.join()
    while wheel.delay() == 0.0:  # what is still due is called in the next goes
        wheel.run_due()
    assert wheel.delay() is None
    assert 2500 <= len(called) <= 5000


def test_cost_of_cancelled_timers_is_not_kept(wheel: Wheel, clock: FakeClock) -> None:
    """A connection that lives a millisecond has an idle deadline in a minute."""

    def call() -> None:
        pytest.fail("was cancelled")

    before = sys.getrefcount(call)
    for _ in range(10_000):
        wheel.call_at(clock.now + 60, call).cancel()
    assert sys.getrefcount(call) == before
    assert wheel.delay() is None


def test_many_that_are_due_together_are_called_a_few_at_a_time(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []
    for number in range(2 * AT_ONCE + 1):
        wheel.call_at(1.0, partial(called.append, number))
    clock.now = 2.0
    for expected in (AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1):
        assert wheel.delay() == 0.0
        wheel.run_due()
        assert len(called) == expected
    assert wheel.delay() is None
    assert sorted(called) == list(range(2 * AT_ONCE + 1))


def test_timer_keeps_its_call(wheel: Wheel, clock: FakeClock) -> None:
    def call() -> None:
        pytest.fail("is not due")

    assert wheel.call_at(clock.now + 1, call).call is call


@pytest.mark.parametrize("moment", [math.nan, math.inf, -math.inf])
def test_moment_that_is_no_number_is_refused(wheel: Wheel, moment: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        wheel.call_at(moment, lambda: None)
    assert wheel.delay() is None


def test_moment_long_ago_is_due_now(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []
    wheel.call_at(-1000.5, lambda: called.append(1))
    assert wheel.delay() == 0.0
    wheel.run_due()
    assert called == [1]


def test_call_that_raises_leaves_the_later_slots_alone(wheel: Wheel, clock: FakeClock) -> None:
    called: list[int] = []

    def fail() -> None:
        raise ValueError("mine")

    wheel.call_at(clock.now + 1, fail)
    wheel.call_at(clock.now + 2, lambda: called.append(1))
    clock.advance(3)
    with pytest.raises(ValueError, match="mine"):
        wheel.run_due()
    wheel.run_due()
    assert called == [1]
