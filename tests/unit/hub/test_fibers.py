"""Fibers: calls in fibers of their own, and deadlines that cost nothing per message."""

import threading
from typing import Any

import greenlet
import pytest

from moorage.deadline import monotonic
from moorage.errors import ConnectionEnded
from moorage.events import Cause
from moorage.hub.crew import KEPT
from moorage.transport.stream import READ, WRITE
from support.loops import Turned, streams

# Calls


def test_call_gets_its_argument(turned: Turned) -> None:
    seen: list[object] = []
    turned.loop.spawn(seen.append, "this")
    turned.loop.spawn(lambda: seen.append("nothing"))
    turned.run(lambda: None)
    assert seen == ["this", "nothing"]


def test_fiber_is_used_again(turned: Turned) -> None:
    used: set[Any] = set()
    for _ in range(10):
        turned.run(lambda: used.add(greenlet.getcurrent()))
    assert len(used) == 1
    assert (turned.loop.fibers, turned.loop.idle, turned.loop.busy) == (1, 1, 0)


def test_no_more_fibers_are_kept_than_are_worth_it(turned: Turned) -> None:
    turned.run(*[turned.loop.give_way] * (3 * KEPT))
    assert (turned.loop.fibers, turned.loop.idle) == (KEPT, KEPT)


def test_retired_fibers_are_gone(turned: Turned) -> None:
    turned.run(*[turned.loop.give_way] * 5)
    turned.loop.retire()
    assert (turned.loop.fibers, turned.loop.idle) == (0, 0)


@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt, greenlet.GreenletExit])
def test_what_a_call_raises_reaches_main_and_nobody_else(turned: Turned, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("of the call")

    said: list[str] = []

    def live() -> None:
        turned.loop.give_way()
        said.append("I live")

    turned.loop.spawn(fail)
    with pytest.raises(kind):
        turned.run(live)
    while turned.running:
        turned.turn()
    assert said == ["I live"]
    assert turned.loop.busy == 0


# Parking


def test_parked_fiber_goes_on_when_it_is_ready(turned: Turned) -> None:
    said: list[str] = []

    def sleep() -> None:
        fibers.append(greenlet.getcurrent())
        turned.loop.park()
        said.append("awake")

    def wake() -> None:
        said.append("wake up")
        turned.loop.ready(fibers[0])

    fibers: list[Any] = []
    turned.run(sleep, wake)
    assert said == ["wake up", "awake"]


def test_parked_fiber_goes_on_at_its_moment(turned: Turned) -> None:
    begun = monotonic()

    def sleep() -> None:
        while monotonic() < begun + 0.05:
            turned.loop.park(begun + 0.05)

    turned.run(sleep)
    assert 0.05 <= monotonic() - begun < 1.0
    assert turned.wheel.delay() is None


def test_parked_fiber_leaves_no_timer_when_it_was_woken_before(turned: Turned) -> None:
    fibers: list[Any] = []

    def sleep() -> None:
        fibers.append(greenlet.getcurrent())
        turned.loop.park(monotonic() + 1000)

    turned.run(sleep, lambda: turned.loop.ready(fibers[0]))
    assert turned.wheel.delay() is None


# Being stopped


def test_exception_is_raised_where_a_fiber_waits_and_is_nobodys_affair_then(turned: Turned) -> None:
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            turned.loop.park()
        except BaseException as error:
            raised.append(error)
            raise

    fiber = turned.loop.spawn(wait)
    error = SystemExit("leave")
    turned.run(turned.loop.give_way, lambda: turned.loop.throw(fiber, error))
    turned.run(turned.loop.give_way)
    assert raised == [error]
    assert turned.loop.busy == 0


def test_fiber_that_is_stopped_before_it_began_never_begins(turned: Turned) -> None:
    fiber = turned.loop.spawn(lambda: pytest.fail("it began"))
    turned.loop.throw(fiber, SystemExit())
    turned.run(turned.loop.give_way)
    assert turned.run(lambda: "and the next call is not stopped") == ["and the next call is not stopped"]


def test_fiber_that_has_ended_is_not_stopped(turned: Turned) -> None:
    fiber = turned.loop.spawn(lambda: None)
    turned.run(lambda: None)
    turned.loop.throw(fiber, SystemExit())
    assert turned.run(lambda: turned.loop.give_way() or "lives") == ["lives"]


def test_stopped_reader_leaves_its_stream_to_the_next(turned: Turned) -> None:
    with streams(turned) as (both,):
        fiber = turned.loop.spawn(lambda: both.stream.recv(1))
        turned.run(turned.loop.give_way, lambda: turned.loop.throw(fiber, SystemExit()))
        both.peer.sendall(b"x")
        assert turned.run(lambda: both.stream.recv(1)) == [b"x"]


# Deadlines


def test_timeout_of_a_fiber_is_kept_and_loses_no_byte(turned: Turned) -> None:
    with streams(turned) as (both,):

        def read() -> bytes:
            both.stream.settimeout(0.05)
            both.arrive(b"half ")
            with pytest.raises(TimeoutError):
                both.stream.readline()
            both.peer.sendall(b"a line\n")
            return bytes(both.stream.readline())

        assert turned.run(read) == [b"half a line\n"]


def test_write_deadline_of_a_fiber_is_kept(turned: Turned) -> None:
    with streams(turned, write_timeout=0.1) as (both,):
        [error] = turned.run(lambda: both.stream.sendall(b"x" * 50_000_000))
        assert isinstance(error, ConnectionEnded)
        assert both.stream.causes == [Cause.WRITE_STALLED]


def test_message_deadline_of_a_fiber_is_kept(turned: Turned) -> None:
    with streams(turned, message_timeout=0.1) as (both,):
        both.arrive(b"half")
        [error] = turned.run(both.stream.readline)
        assert isinstance(error, ConnectionEnded)
        assert both.stream.causes == [Cause.MESSAGE_DEADLINE]


def test_many_messages_under_a_timeout_share_one_timer(turned: Turned) -> None:
    with streams(turned) as (both,):
        timers: set[int] = set()

        def read() -> None:
            both.stream.settimeout(100)
            for _ in range(200):
                turned.call_soon(lambda: both.peer.sendall(b"x"))
                both.stream.recv(1)
                timers.add(id(both.stream._deadline_look))

        turned.run(read)
        assert len(timers) == 1


def test_shorter_timeout_after_a_longer_one_is_kept(turned: Turned) -> None:
    with streams(turned) as (both,):

        def read() -> float:
            both.stream.settimeout(100)
            turned.call_soon(lambda: both.peer.sendall(b"x"))
            both.stream.recv(1)
            both.stream.settimeout(0.05)
            begun = monotonic()
            with pytest.raises(TimeoutError):
                both.stream.recv(1)
            return monotonic() - begun

        assert 0.05 <= turned.run(read)[0] < 2.0


def test_forgotten_stream_leaves_no_timer(turned: Turned) -> None:
    with streams(turned) as (both,):

        def read() -> None:
            both.stream.settimeout(1000)
            turned.call_soon(lambda: both.peer.sendall(b"x"))
            both.stream.recv(1)

        turned.run(read)
    assert turned.wheel.delay() is None


# From outside


def test_wake_from_another_thread_ends_the_wait(turned: Turned) -> None:
    with streams(turned) as (both,):
        both.stream._readable = False
        waking = threading.Thread(target=lambda: turned.loop.wake(both.stream))
        turned.call_soon(waking.start)
        assert turned.run(lambda: turned.loop.wait(both.stream, READ, None)) == [False]
        waking.join()


def test_thread_that_is_no_fiber_waits_for_a_stream_by_itself(turned: Turned) -> None:
    with streams(turned) as (both,):
        assert not turned.loop.wait(both.stream, READ, 0.01)
        assert turned.loop.wait(both.stream, WRITE, 20)
        both.arrive(b"x")
        received: list[bytes] = []
        reading = threading.Thread(target=lambda: received.append(both.stream.recv(1)))
        reading.start()
        reading.join(20)
        assert received == [b"x"]
