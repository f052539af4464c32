"""Sink: events are delivered to those who asked for them, and to nobody else."""

import threading

import pytest

from moorage.events import (
    EVENT_TYPES,
    AcceptResumed,
    Event,
    Events,
    ServerResumed,
    ServerStopped,
    ServerSuspended,
    SubscriberRemoved,
)
from support.waiting import in_thread


@pytest.fixture
def events() -> Events:
    return Events()


def test_nothing_is_wanted_without_a_subscriber(events: Events) -> None:
    assert events.wanted == frozenset()
    events.emit(ServerStopped())


def test_subscriber_gets_the_types_it_asked_for(events: Events) -> None:
    seen: list[Event] = []
    events.subscribe(seen.append, ServerStopped, ServerResumed)
    assert events.wanted == {ServerStopped, ServerResumed}
    for event in (ServerStopped(), ServerSuspended(), ServerResumed()):
        events.emit(event)
    assert seen == [ServerStopped(), ServerResumed()]


def test_subscriber_without_types_gets_all(events: Events) -> None:
    seen: list[Event] = []
    events.subscribe(seen.append)
    assert events.wanted == set(EVENT_TYPES)
    events.emit(ServerStopped())
    assert seen == [ServerStopped()]


def test_wanted_is_what_the_remaining_subscribers_want(events: Events) -> None:
    first = events.subscribe(lambda _: None, ServerStopped, ServerResumed)
    events.subscribe(lambda _: None, ServerStopped)
    first()
    first()
    assert events.wanted == {ServerStopped}


def test_one_function_subscribed_twice_is_removed_once(events: Events) -> None:
    seen: list[Event] = []
    remove = events.subscribe(seen.append, ServerStopped)
    events.subscribe(seen.append, ServerStopped)
    remove()
    events.emit(ServerStopped())
    assert len(seen) == 1


def test_events_come_in_the_thread_that_emits(events: Events) -> None:
    seen: list[int] = []
    events.subscribe(lambda _: seen.append(threading.get_ident()), ServerStopped)
    with in_thread(lambda: events.emit(ServerStopped())) as running:
        running.result()
    assert seen == [running.thread.ident]


def test_subscriber_that_raises_is_removed_and_reported(events: Events) -> None:
    error = ZeroDivisionError("no")
    seen: list[Event] = []

    def fail(_: Event) -> None:
        raise error

    events.subscribe(fail, ServerStopped)
    events.subscribe(seen.append)
    events.emit(ServerStopped())
    events.emit(ServerStopped())
    reports = [event for event in seen if isinstance(event, SubscriberRemoved)]
    assert len(reports) == 1
    assert reports[0].error is error
    assert "fail" in reports[0].subscriber
    assert seen.count(ServerStopped()) == 2


def test_subscriber_that_fails_at_everything_ends_no_loop(events: Events) -> None:
    """Its own report must not come back to it for ever."""

    def fail(_: Event) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        events.subscribe(fail)
    events.emit(ServerStopped())
    assert events.wanted == frozenset()


def test_subscriber_may_unsubscribe_while_it_is_called(events: Events) -> None:
    seen: list[str] = []

    def once(_: Event) -> None:
        seen.append("once")
        remove()

    remove = events.subscribe(once, ServerStopped)
    events.subscribe(lambda _: seen.append("always"), ServerStopped)
    events.emit(ServerStopped())
    events.emit(ServerStopped())
    assert seen == ["once", "always", "always"]


def test_cleared_sink_has_no_subscribers_and_works(events: Events) -> None:
    events.subscribe(lambda _: pytest.fail("belongs to the parent"))
    events._lock.acquire()  # as a fork may leave it
    events.clear()
    assert events.wanted == frozenset()
    seen: list[Event] = []
    events.subscribe(seen.append)
    events.emit(ServerStopped())
    assert seen == [ServerStopped()]


def test_queue_keeps_events_for_its_reader(events: Events) -> None:
    queue = events.queue(5, ServerStopped, ServerResumed)
    events.emit(ServerStopped())
    events.emit(ServerSuspended())
    events.emit(ServerResumed())
    assert [queue.get(0), queue.get(0)] == [ServerStopped(), ServerResumed()]
    assert queue.dropped == 0


def test_full_queue_drops_the_oldest_and_counts(events: Events) -> None:
    queue = events.queue(2, AcceptResumed)
    for number in range(5):
        events.emit(AcceptResumed(number))
    assert queue.dropped == 3
    assert [queue.get(0), queue.get(0)] == [AcceptResumed(3), AcceptResumed(4)]


def test_empty_queue_says_so_after_its_timeout(events: Events) -> None:
    with pytest.raises(TimeoutError, match="no event came in time"):
        events.queue(1).get(0.001)


def test_queue_wakes_the_reader_who_waits(events: Events) -> None:
    queue = events.queue(1, ServerStopped)
    with in_thread(lambda: queue.get(20)) as reader:
        reader.wait_asleep()
        events.emit(ServerStopped())
        assert reader.result() == ServerStopped()


def test_closed_queue_wants_nothing(events: Events) -> None:
    queue = events.queue(1, ServerStopped)
    queue.close()
    assert events.wanted == frozenset()
