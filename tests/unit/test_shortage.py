"""Shortage: what is reported of a time without descriptors."""

import errno

import pytest

from moorage.events import AcceptPaused, AcceptResumed, Event, Events
from moorage.shortage import Shortage
from support.fake_watch import FakeWatch

NO_FD = OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def watch() -> FakeWatch:
    return FakeWatch()


@pytest.fixture
def said() -> list[Event]:
    return []


@pytest.fixture
def shortage(watch: FakeWatch, said: list[Event]) -> Shortage:
    events = Events()
    events.subscribe(said.append)
    return Shortage(watch, events, watch.clock)


def test_shortage_first_failure_is_reported_at_once(shortage: Shortage, said: list[Event]) -> None:
    shortage.met(NO_FD)
    assert said == [AcceptPaused(NO_FD, 0.1, 1)]
    assert shortage.is_on


def test_shortage_further_failures_are_reported_once_a_second_with_their_count(
    shortage: Shortage, watch: FakeWatch, said: list[Event]
) -> None:
    shortage.met(NO_FD)
    for _ in range(24):
        watch.pass_time(0.125)
        shortage.met(NO_FD)
    assert [event.failures for event in said if isinstance(event, AcceptPaused)] == [1, 8, 8, 8]


def test_shortage_end_is_reported_once_accept_has_worked_for_a_second(
    shortage: Shortage, watch: FakeWatch, said: list[Event]
) -> None:
    shortage.met(NO_FD)
    watch.pass_time(0.5)
    shortage.over()
    watch.pass_time(0.75)
    assert len(said) == 1
    watch.pass_time(0.25)
    assert said[1:] == [AcceptResumed(0.5)]


def test_shortage_that_comes_and_goes_is_one_shortage(shortage: Shortage, watch: FakeWatch, said: list[Event]) -> None:
    for _ in range(16):
        shortage.met(NO_FD)
        watch.pass_time(0.125)
        shortage.over()
        watch.pass_time(0.125)
    watch.pass_time(1.0)
    kinds = [type(event) for event in said]
    assert kinds == [AcceptPaused] * 4 + [AcceptResumed]
    assert said[-1] == AcceptResumed(15 * 0.25 + 0.125)


def test_shortage_after_a_reported_end_begins_anew(shortage: Shortage, watch: FakeWatch, said: list[Event]) -> None:
    for _ in range(2):
        shortage.met(NO_FD)
        shortage.over()
        watch.pass_time(2.0)
    assert [type(event) for event in said] == [AcceptPaused, AcceptResumed] * 2
    assert said[2] == AcceptPaused(NO_FD, 0.1, 1)


def test_shortage_forgotten_reports_no_end(shortage: Shortage, watch: FakeWatch, said: list[Event]) -> None:
    shortage.met(NO_FD)
    shortage.over()
    shortage.forget()
    watch.pass_time(5.0)
    assert len(said) == 1


def test_shortage_without_subscribers_builds_no_event(watch: FakeWatch) -> None:
    shortage = Shortage(watch, Events(), watch.clock)
    shortage.met(NO_FD)
    shortage.over()
    watch.pass_time(2.0)
    assert not shortage.is_on
