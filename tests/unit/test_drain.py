"""Drain: doors first, then the quiet, then the rest at the deadline, and over exactly once."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from moorage.drain import LAST_PART, LEAVE_SECONDS, Drain
from moorage.events import Cause, DrainFinished, DrainStarted, Events, HandlerFailed
from support.fake_watch import FakeWatch
from support.sink import Sink

CAUSE = Cause.DRAIN_DEADLINE


@dataclass(frozen=True)
class Settings:
    drain_delay: float = 0.0
    drain_quiet: float = 1.0
    drain_spread: float = 0.0


class FakeGuest:
    """Busy unless `quiet` says since when it is not."""

    peer = "peer"

    def __init__(self, hall: "Hall", id: int, quiet: float | None = None) -> None:
        self.hall = hall
        self.id = id
        self.quiet = quiet
        self.on_drain: Callable[[], None] | None = None
        self.told_at: list[float] = []
        self.ended: list[tuple[float, Cause]] = []
        self.has_left = False

    @property
    def is_over(self) -> bool:
        return bool(self.ended)

    def quiet_since(self) -> float | None:
        return None if self.told_at or self.ended else self.quiet

    def tell(self) -> None:
        self.told_at.append(self.hall.watch.now)

    def end(self, cause: Cause) -> None:
        self.ended.append((self.hall.watch.now, cause))

    def leave(self) -> None:
        self.hall.guests.remove(self)
        if not self.hall.guests:
            self.hall.on_empty()
        self.hall.watch.run_calls()


class FakeDoor:
    """Says that its backlog is served when the test does, unless it is empty."""

    def __init__(self, is_empty: bool = True) -> None:
        self.is_empty = is_empty
        self.done: list[Callable[[], None]] = []
        self.stops = 0

    def finish_backlog(self, done: Callable[[], None]) -> None:
        self.done.append(done)
        if self.is_empty or self.stops:
            self.finish()

    def stop(self) -> None:
        self.stops += 1
        self.finish()

    def finish(self) -> None:
        while self.done:
            self.done.pop()()


class Hall:
    """A drain and its neighbours; it is also the reception, and the runner."""

    def __init__(self, doors: Iterable[FakeDoor] = (), cut_after: float = 0.0, **settings: float) -> None:
        self.watch = FakeWatch()
        self.start = self.watch.now
        self.draining = False
        self.on_empty: Callable[[], None] = lambda: None
        self.guests: list[FakeGuest] = []
        self.doors = list(doors)
        self.shut: list[Any] = []
        self.overs = 0
        self.deadlines: list[float | None] = []
        events = Events()
        self.sink = Sink(events)
        self.end = Drain(
            Settings(**settings), self.watch, events, guests=self, runner=RunnerOf(self), over=self.over,
            cut_after=cut_after, clock=self.watch.clock,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.guests)

    def __iter__(self) -> Iterator[FakeGuest]:
        return iter(tuple(self.guests))

    def over(self) -> None:
        self.overs += 1

    def guest(self, quiet: float | None = None) -> FakeGuest:
        """One who has been quiet for so long, None when busy."""
        self.guests.append(FakeGuest(self, len(self.guests) + 1, None if quiet is None else self.watch.now - quiet))
        return self.guests[-1]

    def drain(self, timeout: float | None, cause: Cause = CAUSE, at_once: Collection[FakeDoor] | None = None) -> None:
        self.end.begin(self.doors, self.shut.append, timeout, cause, at_once)
        self.watch.run_calls()

    def wait(self, seconds: float) -> None:
        """As time passes the Watch turns."""
        end = self.watch.now + seconds
        while self.watch.now < end:
            timers = [timer.when for timer in self.watch.timers if not timer.is_cancelled]
            self.watch.pass_time(min([end, *timers]) - self.watch.now)
            self.watch.run_calls()


class RunnerOf:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    def drain(self, deadline: float | None) -> None:
        self._hall.deadlines.append(deadline)

    def notify(self, calls: Iterable[Callable[[], None]]) -> None:
        for call in calls:
            call()


def test_drain_of_an_empty_house_is_over_at_once() -> None:
    hall = Hall([FakeDoor(), FakeDoor()])
    hall.drain(30)
    assert hall.overs == 1
    assert hall.shut == hall.doors
    assert hall.sink.of(DrainStarted) == [DrainStarted(0, 30)]
    assert hall.sink.of(DrainFinished) == [DrainFinished(0, 0.0)]


def test_drain_waits_for_what_is_in_the_backlog() -> None:
    door = FakeDoor(is_empty=False)
    hall = Hall([door])
    hall.drain(30)
    hall.wait(5)
    assert hall.overs == 0
    late = hall.guest(quiet=0)
    door.finish()
    hall.wait(2)
    assert len(late.told_at) == 1
    late.leave()
    assert hall.overs == 1
    assert hall.shut == [door]


def test_draining_is_said_and_the_runner_knows_the_deadline() -> None:
    hall = Hall()
    hall.guest()
    hall.drain(30)
    assert hall.draining
    assert hall.deadlines == [hall.start + 30]


def test_only_the_quiet_are_told() -> None:
    hall = Hall()
    busy, just_now, quiet = hall.guest(), hall.guest(quiet=0.4), hall.guest(quiet=1.5)
    hall.drain(30)
    assert [len(guest.told_at) for guest in (busy, just_now, quiet)] == [0, 0, 1]
    hall.wait(0.6)
    assert just_now.told_at == [pytest.approx(hall.start + 0.6)]
    hall.wait(20)
    assert busy.told_at == []
    assert len(quiet.told_at) == 1


def test_busy_one_is_told_soon_after_it_fell_quiet() -> None:
    hall = Hall()
    guest = hall.guest()
    hall.drain(30)
    hall.wait(5)
    guest.quiet = hall.watch.now
    hall.wait(1.3)
    assert guest.told_at == [pytest.approx(hall.start + 6, abs=0.3)]
    assert guest.ended == []


def test_quiet_one_that_speaks_again_is_served_on() -> None:
    hall = Hall()
    guest = hall.guest(quiet=0.5)
    hall.drain(30)
    hall.wait(0.3)
    guest.quiet = hall.watch.now
    hall.wait(0.5)
    assert guest.told_at == []
    hall.wait(0.6)
    assert len(guest.told_at) == 1


def test_nobody_need_be_quiet_for_long_in_the_last_part() -> None:
    hall = Hall(drain_quiet=100.0)
    guest, busy = hall.guest(quiet=0), hall.guest()
    hall.drain(10)
    hall.wait(10 * (1 - LAST_PART) - 0.1)
    assert guest.told_at == []
    hall.wait(0.4)
    assert len(guest.told_at) == 1
    assert busy.told_at == []


def test_last_part_of_a_short_drain_is_not_missed() -> None:
    hall = Hall(drain_quiet=100.0)
    guest = hall.guest(quiet=0)
    hall.drain(0.5)
    hall.wait(0.499)
    assert len(guest.told_at) == 1
    assert guest.ended == []


def test_drain_without_a_limit_waits_and_tells() -> None:
    hall = Hall()
    guest = hall.guest()
    hall.drain(None)
    hall.wait(1000)
    assert guest.ended == []
    guest.quiet = hall.watch.now
    hall.wait(2)
    assert len(guest.told_at) == 1
    guest.leave()
    assert hall.overs == 1


def test_tellings_are_spread() -> None:
    hall = Hall(drain_spread=10.0)
    guests = [hall.guest(quiet=100) for _ in range(50)]
    hall.drain(30)
    hall.wait(10)
    moments = sorted(guest.told_at[0] - hall.start for guest in guests)
    assert 0 <= moments[0] < 1
    assert 9 < moments[-1] <= 10
    assert max(after - before for before, after in pairwise(moments)) < 1


def test_spread_fits_into_the_window() -> None:
    hall = Hall(drain_spread=1000.0)
    guests = [hall.guest(quiet=100) for _ in range(50)]
    hall.drain(10)
    hall.wait(9.5)
    assert all(len(guest.told_at) == 1 for guest in guests)


def test_last_part_of_a_short_drain_has_many_looks() -> None:
    """On a busy machine a conversation is seen between two requests only now and then."""
    hall = Hall()
    busy = hall.guest()
    looks: list[float] = []
    busy.quiet_since = lambda: looks.append(hall.watch.now)  # type: ignore[method-assign]  # busy, and counts
    hall.drain(3)
    hall.wait(2.99)
    assert sum(look >= hall.start + 3 * (1 - LAST_PART) for look in looks) >= 15


def test_rest_is_ended_at_the_deadline_and_counted_once() -> None:
    hall = Hall([FakeDoor()])
    busy, other, gone = hall.guest(), hall.guest(), hall.guest()
    gone.end(Cause.LIFETIME)
    hall.drain(5)
    hall.wait(5)
    assert busy.ended == other.ended == [(hall.start + 5, CAUSE)]
    assert hall.doors[0].stops >= 1
    hall.wait(1)
    assert hall.end.cut == 2
    assert len(busy.ended) == 1
    assert hall.overs == 0
    for guest in (busy, other, gone):
        guest.leave()
    assert hall.overs == 1
    assert hall.sink.of(DrainFinished) == [DrainFinished(2, 6.0)]


def test_rest_is_left_for_a_while_to_who_asked_for_the_drain() -> None:
    """A forked child and its parent have the same deadline; the parent is to end the connection, and to count it."""
    hall = Hall(cut_after=1.0)
    busy = hall.guest()
    hall.drain(5)
    hall.wait(5.9)
    assert busy.ended == []
    hall.wait(0.1)
    assert busy.ended == [(hall.start + 6, CAUSE)]


def test_drain_does_not_wait_for_lingering_after_the_deadline() -> None:
    hall = Hall()
    lingering, busy = hall.guest(), hall.guest()
    lingering.has_left = True
    hall.drain(5)
    hall.wait(5.1)
    assert hall.overs == 0
    busy.has_left = True
    hall.wait(0.1)
    assert hall.overs == 1


def test_drain_is_over_soon_after_the_deadline_whoever_stays() -> None:
    hall = Hall()
    guest = hall.guest()
    hall.drain(5)
    hall.wait(5 + LEAVE_SECONDS - 0.01)
    assert hall.overs == 0
    hall.wait(0.5)
    assert hall.overs == 1
    guest.leave()
    hall.wait(100)
    assert hall.overs == 1


def test_door_that_never_finishes_does_not_hold_the_end() -> None:
    hall = Hall([FakeDoor(is_empty=False)])
    hall.drain(5)
    hall.wait(5)
    assert hall.doors[0].stops >= 1
    assert hall.overs == 1
    assert hall.shut == hall.doors


def test_drain_of_no_time_ends_everybody_now() -> None:
    hall = Hall(drain_delay=10.0)
    guest = hall.guest()
    hall.drain(0, Cause.CLOSED_BY_OPERATOR)
    assert guest.ended == [(hall.start, Cause.CLOSED_BY_OPERATOR)]
    guest.leave()
    assert hall.overs == 1


def test_second_call_brings_the_deadline_nearer_with_its_cause() -> None:
    hall = Hall()
    guest = hall.guest()
    hall.drain(30)
    hall.wait(5)
    hall.drain(0, Cause.CLOSED_BY_OPERATOR)
    assert guest.ended == [(hall.start + 5, Cause.CLOSED_BY_OPERATOR)]
    assert hall.end.cut == 1


@pytest.mark.parametrize("second", [None, 100.0])
def test_second_call_never_puts_the_deadline_off(second: float | None) -> None:
    hall = Hall()
    guest = hall.guest()
    hall.drain(10)
    hall.drain(second, Cause.CLOSED_BY_OPERATOR)
    hall.wait(10)
    assert guest.ended == [(hall.start + 10, CAUSE)]


def test_second_call_limits_a_drain_without_a_limit() -> None:
    hall = Hall()
    guest = hall.guest()
    hall.drain(None)
    hall.wait(50)
    hall.drain(5)
    hall.wait(5)
    assert guest.ended == [(hall.start + 55, CAUSE)]


def test_delay_goes_on_accepting() -> None:
    hall = Hall([FakeDoor()], drain_delay=10.0)
    guest = hall.guest(quiet=100)
    hall.drain(30)
    hall.wait(9.9)
    before = (hall.draining, list(hall.shut))
    hall.wait(0.2)
    assert before == (False, [])
    assert (hall.draining, hall.shut) == (True, hall.doors)
    assert len(guest.told_at) == 1
    assert hall.sink.of(DrainStarted) == [DrainStarted(1, 30)]


def test_same_call_again_during_the_delay_changes_nothing() -> None:
    hall = Hall(drain_delay=10.0)
    guest = hall.guest()
    hall.drain(30)
    hall.wait(5)
    hall.drain(30)
    hall.wait(34.9)
    assert guest.ended == []
    hall.wait(0.2)
    assert len(guest.ended) == 1


def test_call_during_the_delay_may_bring_the_deadline_nearer() -> None:
    hall = Hall(drain_delay=10.0)
    guest = hall.guest()
    hall.drain(30)
    hall.drain(2, Cause.CLOSED_BY_OPERATOR)
    hall.wait(9)
    assert not hall.draining
    hall.wait(3)
    assert guest.ended == [(hall.start + 12, Cause.CLOSED_BY_OPERATOR)]


def test_call_without_time_during_the_delay_ends_now_and_once() -> None:
    hall = Hall([FakeDoor()], drain_delay=10.0)
    guest = hall.guest()
    hall.drain(30)
    hall.wait(1)
    hall.drain(0)
    assert len(guest.ended) == 1
    guest.leave()
    hall.wait(60)
    assert hall.overs == 1
    assert len(hall.sink.of(DrainStarted)) == 1


def test_doors_that_others_keep_open_stop_at_once() -> None:
    shared, ours = FakeDoor(is_empty=False), FakeDoor(is_empty=False)
    hall = Hall([shared, ours])
    hall.drain(30, at_once=[shared])
    assert (shared.stops, ours.stops) == (1, 0)
    assert hall.shut == [shared]
    assert hall.overs == 0
    ours.finish()
    hall.watch.run_calls()
    assert hall.shut == [shared, ours]
    assert hall.overs == 1


def test_quiet_rule_holds_also_where_doors_stop_at_once() -> None:
    hall = Hall([FakeDoor(is_empty=False)])
    busy, quiet = hall.guest(), hall.guest(quiet=1.5)
    hall.drain(30, at_once=hall.doors)
    assert [len(guest.told_at) for guest in (busy, quiet)] == [0, 1]
    hall.wait(30)
    assert busy.ended == [(hall.start + 30, CAUSE)]


@pytest.mark.parametrize("stopped", [0, 1], ids=["no door", "every door"])
def test_delay_has_no_purpose_where_others_serve_on(stopped: int) -> None:
    hall = Hall([FakeDoor()], drain_delay=10.0)
    hall.drain(30, at_once=hall.doors[:stopped])
    assert hall.draining
    assert hall.shut == hall.doors


def test_doors_that_are_to_stop_at_once_do_so_during_the_delay_too() -> None:
    hall = Hall([FakeDoor(is_empty=False)], drain_delay=10.0)
    guest = hall.guest()
    hall.drain(5)
    hall.wait(1)
    hall.drain(30, at_once=hall.doors)
    assert hall.shut == hall.doors
    hall.wait(14)
    assert guest.ended == [(hall.start + 15, CAUSE)], "the deadline of the first call, which is nearer"
    assert len(hall.sink.of(DrainStarted)) == 1


def test_doors_stop_at_once_in_the_middle_of_a_drain() -> None:
    hall = Hall([FakeDoor(is_empty=False)])
    hall.drain(30)
    hall.wait(1)
    hall.drain(30, at_once=hall.doors)
    assert hall.shut == hall.doors
    assert hall.overs == 1


def test_handlers_that_asked_hear_of_it_once() -> None:
    hall = Hall()
    heard: list[str] = []
    first, _, second = hall.guest(), hall.guest(), hall.guest()
    first.on_drain = lambda: heard.append("first")
    second.on_drain = lambda: heard.append("second")
    hall.drain(30)
    hall.drain(20)
    hall.wait(5)
    assert heard == ["first", "second"]


def test_goodbye_that_fails_costs_nobody_else_theirs() -> None:
    hall = Hall()
    heard: list[str] = []
    error = ZeroDivisionError()

    def fail() -> None:
        raise error

    first, second = hall.guest(), hall.guest()
    first.on_drain = fail
    second.on_drain = lambda: heard.append("second")
    hall.drain(30)
    assert heard == ["second"]
    assert hall.sink.of(HandlerFailed) == [HandlerFailed(1, "peer", error)]


def test_events_nobody_wants_are_not_built() -> None:
    hall = Hall()
    hall.sink.unsubscribe()
    hall.guest()
    hall.drain(0)
    hall.wait(5)
    assert hall.overs == 1
    assert not hall.sink.seen
