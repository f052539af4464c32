"""ThreadsRunner: a thread for each, in order, within its bound; queue deadlines by a fake clock."""

import errno
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from moorage.config import ServerSettings
from moorage.events import Cause, ConnectionClosed, Events, HandlerFailed, PoolSaturated
from moorage.runners.threads import SATURATED_EVERY, ThreadsRunner
from moorage.runners.waiters import PlainWaiter, WakeableWaiter
from support.fake_watch import FakeWatch
from support.guests import Guest
from support.sink import Sink
from support.sockets import read_all
from support.waiting import eventually

SOON = 20.0


class Floor:
    """A runner with the handlers in the test's hand."""

    def __init__(self, **settings: Any) -> None:
        self.watch = FakeWatch()
        self.events = Events()
        self.sink = Sink(self.events)
        self.served: list[Any] = []
        self.waiters: list[Any] = []
        self.may_leave = threading.Event()
        watch: Any = self.watch
        serve: Any = self.serve
        self.runner = ThreadsRunner(serve, ServerSettings(**settings), watch, self.events)
        self.runner.start()
        self.guests: list[Guest] = []

    def serve(self, connection: Any) -> None:
        self.waiters.append(connection._waiter)
        self.served.append(connection)
        assert self.may_leave.wait(SOON)
        connection.release()

    def submit(self, family: str = "tcp") -> Guest:
        guest = Guest(family, begin=False)
        self.guests.append(guest)
        guest.connection.id = len(self.guests)  # no two of a server have the same
        guest.connection.queue()
        self.runner.submit(guest.connection)
        return guest


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    floors: list[Floor] = []

    def make(**settings: Any) -> Floor:
        floors.append(Floor(**settings))
        monkeypatch.setattr("moorage.runners.threads.monotonic", floors[-1].watch.clock)
        return floors[-1]

    yield make
    for floor in floors:
        floor.may_leave.set()
        assert floor.runner.stop(SOON) == []
        for guest in floor.guests:
            guest.close()


def test_each_connection_has_a_thread_up_to_the_limit(floor: Any) -> None:
    one = floor(threads=2)
    for _ in range(4):
        one.submit()
    eventually(lambda: len(one.served) == 2)
    one.may_leave.set()
    eventually(lambda: len(one.served) == 4)


def test_threads_are_as_many_as_connections_by_default(floor: Any) -> None:
    assert floor(max_connections=17).runner._pool.limit == 17
    assert floor(max_connections=17, threads=5).runner._pool.limit == 5


def test_those_who_wait_are_served_in_order(floor: Any) -> None:
    one = floor(threads=1)
    guests = [one.submit() for _ in range(5)]
    one.may_leave.set()
    eventually(lambda: len(one.served) == 5)
    assert one.served == [guest.connection for guest in guests]


def test_who_waits_too_long_is_ended_and_never_served(floor: Any) -> None:
    one = floor(threads=1, queue_timeout=30)
    first, second = one.submit(), one.submit()
    eventually(lambda: one.served)
    one.watch.pass_time(29)
    assert not second.connection.is_over
    one.watch.pass_time(1)
    assert second.connection.cause is Cause.QUEUE_TIMEOUT
    second.home.watch.release_lingering()
    [event] = second.home.sink.of(ConnectionClosed)
    assert event.phase == "waiting"
    assert second.ticket.given_back == 1
    one.may_leave.set()
    eventually(lambda: one.runner._pool.busy == 0)
    assert one.served == [first.connection]


def test_who_was_served_in_time_has_no_timer_left(floor: Any) -> None:
    one = floor(threads=1, queue_timeout=30)
    one.submit(), one.submit()
    one.may_leave.set()
    eventually(lambda: len(one.served) == 2)
    eventually(lambda: all(timer.is_cancelled for timer in one.watch.timers))


def test_waiting_without_a_queue_timeout_has_no_end(floor: Any) -> None:
    one = floor(threads=1, queue_timeout=None)
    one.submit()
    second = one.submit()
    one.watch.pass_time(1e6)
    assert second.connection.cause is None


def test_full_pool_is_said_once_a_minute(floor: Any) -> None:
    one = floor(threads=1, queue_timeout=None)
    one.submit()
    assert one.sink.of(PoolSaturated) == []
    one.submit()
    one.submit()
    assert one.sink.of(PoolSaturated) == [PoolSaturated(1, 1)]
    one.watch.pass_time(SATURATED_EVERY)
    one.submit()
    assert one.sink.of(PoolSaturated) == [PoolSaturated(1, 1), PoolSaturated(1, 3)]


def test_unix_connections_have_a_waiter_that_can_be_woken(floor: Any) -> None:
    one = floor(threads=1)
    one.may_leave.set()
    for family in ("tcp", "unix", "unix"):
        one.submit(family)
    eventually(lambda: len(one.waiters) == 3)
    assert [type(waiter) for waiter in one.waiters] == [PlainWaiter, WakeableWaiter, WakeableWaiter]
    assert one.waiters[1] is one.waiters[2], "one for each thread"


def test_goodbyes_are_said_in_a_thread_of_their_own(floor: Any) -> None:
    one = floor(threads=1)
    one.submit()
    eventually(lambda: one.served)
    blocked, done = threading.Event(), threading.Event()
    one.runner.notify([lambda: blocked.wait(SOON) and None, done.set])
    assert not done.is_set()
    blocked.set()
    assert done.wait(SOON)


def test_runner_knows_its_own_threads(floor: Any) -> None:
    one = floor(threads=1)
    assert not one.runner.has_this_thread()
    seen: list[bool] = []
    one.runner._pool.submit(lambda: seen.append(one.runner.has_this_thread()))
    eventually(lambda: seen)
    assert seen == [True]


def test_stop_tells_where_the_stubborn_are(floor: Any) -> None:
    one = floor(threads=1)
    one.submit()
    eventually(lambda: one.served)
    [stack] = one.runner.stop(0)
    assert stack.startswith("moorage-1:\n")
    assert "in serve" in stack


def test_stop_of_an_idle_runner_has_nothing_to_tell(floor: Any) -> None:
    assert floor(threads=1).runner.stop(SOON) == []


def test_stop_tells_nothing_of_a_thread_that_leaves_at_that_moment(floor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = floor(threads=1)
    one.submit()
    eventually(lambda: one.served)
    looks = [sys._current_frames(), {}]
    monkeypatch.setattr(sys, "_current_frames", lambda: looks.pop(0) if looks else {})
    assert len(one.runner.stop(0)) == 1
    assert one.runner.stop(0) == []


def test_connection_that_no_waiter_can_be_made_for_is_closed_and_reported(
    floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> NoReturn:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("moorage.runners.threads.WakeableWaiter", refuse)
    one = floor(threads=1)
    guest = one.submit("unix")
    failed = one.sink.wait_for(HandlerFailed)
    assert (failed.id, failed.error.errno) == (guest.connection.id, errno.EMFILE)
    assert read_all(guest.peer) == b""
    guest.home.watch.release_lingering()
    [event] = guest.home.sink.of(ConnectionClosed)
    assert event.cause is Cause.SHED
    assert guest.ticket.given_back == 1
    assert one.served == []


def test_goodbyes_are_said_by_the_pool_when_the_system_has_no_more_threads(
    floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one = floor(threads=1)
    one.submit()
    eventually(lambda: one.served)
    said_in: list[threading.Thread] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        one.runner.notify([lambda: said_in.append(threading.current_thread())] * 2)
    assert said_in == []
    [thread] = one.runner._pool.threads
    one.may_leave.set()
    eventually(lambda: len(said_in) == 2)
    assert said_in == [thread, thread]


def test_runner_that_no_thread_can_be_had_for_says_so(floor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one = floor(threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            one.submit()
    assert one.watch.timers == []


def test_full_pool_is_not_said_again_before_the_minute_is_over(floor: Any) -> None:
    one = floor(threads=1, queue_timeout=None)
    one.submit()
    one.submit()
    one.watch.pass_time(SATURATED_EVERY - 0.01)
    one.submit()
    assert len(one.sink.of(PoolSaturated)) == 1
    one.watch.pass_time(0.01)
    one.submit()
    assert len(one.sink.of(PoolSaturated)) == 2


class Gate:
    """Steps that wait until they may go on, and how many of them were under way at once."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.entered: list[str] = []
        self._inside = 0
        self.most = 0
        self._lock = threading.Lock()  # guards the three above

    def step(self) -> None:
        with self._lock:
            self.entered.append(threading.current_thread().name)
            self._inside += 1
            self.most = max(self.most, self._inside)
        assert self.may_go.wait(SOON)
        with self._lock:
            self._inside -= 1


def come_back(one: Any, done: list[int], count: int) -> None:
    """Turn the watch until so many steps have come back."""

    def is_done() -> bool:
        one.watch.run_calls()
        return len(done) == count

    eventually(is_done)


def test_offloaded_step_comes_back_to_the_watch(floor: Any) -> None:
    one, gate, done = floor(threads=1), Gate(), []
    gate.may_go.set()
    one.runner.offload(gate.step, lambda: done.append(threading.current_thread()))
    eventually(lambda: one.watch.calls)
    assert done == []
    one.watch.run_calls()
    assert done == [threading.current_thread()]
    assert gate.entered[0].startswith("moorage-setup-")


@pytest.mark.parametrize(("threads", "cpus", "at_once"), [(1, 8, 1), (7, 8, 1), (8, 8, 2), (400, 8, 8), (16, None, 1)])
def test_steps_have_a_quarter_as_many_threads_as_handlers_and_no_more_than_cpus(
    floor: Any, monkeypatch: pytest.MonkeyPatch, threads: int, cpus: int | None, at_once: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert floor(threads=threads).runner._handshakes.limit == at_once


def test_steps_beyond_their_threads_wait_in_order(floor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    one, gate, done = floor(threads=8), Gate(), []
    for number in range(6):
        one.runner.offload(gate.step, lambda number=number: done.append(number))
    eventually(lambda: len(gate.entered) == 2)
    gate.may_go.set()
    come_back(one, done, 6)
    assert gate.most == 2
    assert sorted(done) == list(range(6))


def test_steps_are_made_while_every_thread_has_a_handler(floor: Any) -> None:
    one, gate, done = floor(threads=1), Gate(), []
    one.submit()
    eventually(lambda: one.served)
    gate.may_go.set()
    one.runner.offload(gate.step, lambda: done.append(1))
    come_back(one, done, 1)
    assert not one.may_leave.is_set()


def test_step_is_made_by_the_watch_when_the_system_has_no_more_threads(
    floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one, gate, done = floor(threads=1), Gate(), []
    gate.may_go.set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        one.runner.offload(gate.step, lambda: done.append(1))
    one.watch.run_calls()
    assert done == [1]
    assert gate.entered == [threading.current_thread().name]


def test_thread_of_a_step_belongs_to_the_runner(floor: Any) -> None:
    one, seen = floor(threads=1), []
    one.runner.offload(lambda: seen.append(one.runner.has_this_thread()), lambda: None)
    eventually(lambda: seen)
    assert seen == [True]


def test_stop_waits_for_steps_too(floor: Any) -> None:
    one, gate = floor(threads=1), Gate()
    one.runner.offload(gate.step, lambda: None)
    eventually(lambda: gate.entered)
    [stack] = one.runner.stop(0)
    assert stack.startswith("moorage-setup-1:\n")
    gate.may_go.set()
    assert one.runner.stop(SOON) == []
