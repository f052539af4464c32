"""Locks: exclusion, hand-over and order, the same between threads, between fibers, and between the two."""

import queue
import random
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from moorage.deadline import monotonic
from moorage.hub import parking
from moorage.locks import Condition, Event, Lock, Queue, RLock
from support.strands import (
    FIBERS,
    KINDS,
    FiberStrands,
    Strands,
    fibers,
    pause,
    run_all,
    strands_of,
    threads,
    until_waiting,
)
from support.waiting import eventually, in_thread

SHORT = 0.05
AnyLock = Lock | RLock
BOTH = pytest.mark.parametrize("make", [Lock, RLock])


class Stop(BaseException):
    """As `HandlerStopped`: no handler expects it."""


class Waiters(list[Any]):
    """Those who wait, and what happens just before one is added, or just after nobody was seen in it; once."""

    def __init__(self, before_append: Callable[[], object] | None, after_look: Callable[[], object] | None) -> None:
        super().__init__()
        self._before_append = before_append
        self._after_look = after_look

    def append(self, parker: Any) -> None:
        act, self._before_append = self._before_append, None
        if act is not None:
            act()
        super().append(parker)

    def __bool__(self) -> bool:
        found, (act, self._after_look) = len(self) > 0, (self._after_look, None)
        if act is not None:
            act()
        return found


class Counter:
    """Wrong in the end when two were in it at once."""

    def __init__(self, lock: Any) -> None:
        self.value = 0
        self._lock = lock

    def count(self, times: int) -> None:
        for _ in range(times):
            with self._lock:
                before = self.value
                pause()
                self.value = before + 1


@pytest.fixture(params=[KINDS, *([kind, kind] for kind in FIBERS)], ids="+".join)
def crowd(request: pytest.FixtureRequest) -> Iterator[list[Strands]]:
    """Several kinds of strands at once, or two loops."""
    with ExitStack() as stack:
        yield [stack.enter_context(strands_of(kind)) for kind in request.param]


def hold(lock: Any, strands: Strands) -> Callable[[], object]:
    """Have one of the strands take this lock; the call has it give the lock back."""
    enough, taken = Event(), Event()

    def take() -> None:
        with lock:
            taken.set()
            enough.wait()

    task = strands.start(take)
    assert taken.wait(20)

    def free() -> None:
        enough.set()
        task.result()

    return free


# --- Lock and RLock ---


@BOTH
def test_lock_lets_in_one_strand_at_a_time(make: Callable[[], AnyLock], strands: Strands) -> None:
    counter = Counter(make())
    run_all(strands, *[partial(counter.count, 50)] * 10)
    assert counter.value == 500


@BOTH
def test_lock_excludes_threads_and_fibers_of_several_loops(make: Callable[[], AnyLock], crowd: list[Strands]) -> None:
    counter = Counter(make())
    tasks = [strands.start(partial(counter.count, 50)) for strands in crowd for _ in range(4)]
    for task in tasks:
        task.result()
    assert counter.value == len(tasks) * 50


def test_lock_of_threading_does_not_exclude_fibers(hub: FiberStrands) -> None:
    """Why there is an RLock of ours."""
    counter = Counter(threading.RLock())
    run_all(hub, *[partial(counter.count, 50)] * 10)
    assert counter.value < 500


@BOTH
def test_lock_that_is_taken_is_not_waited_for_without_blocking(make: Callable[[], AnyLock], strands: Strands) -> None:
    lock = make()
    free = hold(lock, strands)
    assert strands.start(lambda: lock.acquire(False)).result() is False
    free()
    assert strands.start(lambda: lock.acquire(False)).result() is True


@BOTH
def test_lock_is_waited_for_no_longer_than_the_timeout(make: Callable[[], AnyLock], strands: Strands) -> None:
    lock = make()
    free = hold(lock, strands)

    def wait() -> tuple[bool, float]:
        began = monotonic()
        return lock.acquire(timeout=SHORT), monotonic() - began

    seen: Any = strands.start(wait).result()
    assert seen[0] is False
    assert seen[1] >= SHORT
    free()
    assert not lock.locked()


@BOTH
def test_lock_is_had_within_the_timeout(make: Callable[[], AnyLock], strands: Strands) -> None:
    lock = make()
    free = hold(lock, strands)
    waiting = strands.start(lambda: lock.acquire(timeout=20))
    until_waiting(getattr(lock, "_lock", lock) if make is RLock else lock)
    free()
    assert waiting.result() is True


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((False, 1), ValueError),
        ((True, -2), ValueError),
        ((False, 0), ValueError),
        ((True, threading.TIMEOUT_MAX), None),
    ],
)
@pytest.mark.parametrize("make", [Lock, RLock, threading.Lock, threading.RLock])
def test_lock_takes_the_arguments_that_threading_takes(
    make: Callable[[], Any], arguments: tuple[bool, float], error: type[Exception] | None
) -> None:
    lock = make()
    if error is None:
        assert lock.acquire(*arguments) is True
    else:
        with pytest.raises(error):
            lock.acquire(*arguments)


@pytest.mark.parametrize("make", [Lock, RLock, threading.Lock, threading.RLock])
def test_lock_that_is_free_is_not_released(make: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="release un"):
        make().release()


@BOTH
def test_lock_tells_whether_it_is_taken(make: Callable[[], AnyLock]) -> None:
    lock = make()
    assert not lock.locked()
    with lock as taken:
        assert taken is True
        assert lock.locked()
    assert not lock.locked()


def test_lock_is_handed_over_in_the_order_of_those_who_wait(strands: Strands) -> None:
    lock, order = Lock(), list[int]()
    lock.acquire()

    def wait(number: int) -> None:
        with lock:
            order.append(number)

    tasks = []
    for number in range(5):
        tasks.append(strands.start(partial(wait, number)))
        until_waiting(lock, number + 1)
    lock.release()
    for task in tasks:
        task.result()
    assert order == [0, 1, 2, 3, 4]


def test_lock_is_not_taken_again_before_those_who_wait(strands: Strands) -> None:
    lock = Lock()
    lock.acquire()
    waiting = strands.start(lock.acquire)
    until_waiting(lock)
    lock.release()
    assert lock.acquire(False) is False
    assert waiting.result() is True


def test_lock_skips_a_waiter_whose_time_is_over(strands: Strands) -> None:
    lock = Lock()
    lock.acquire()
    first = strands.start(lambda: lock.acquire(timeout=SHORT))
    until_waiting(lock)
    second = strands.start(lock.acquire)
    assert first.result() is False
    until_waiting(lock)
    lock.release()
    assert second.result() is True


def test_lock_skips_a_killed_waiter(hub: FiberStrands) -> None:
    lock = Lock()
    lock.acquire()
    first = hub.start(lock.acquire)
    until_waiting(lock)
    second = hub.start(lock.acquire)
    until_waiting(lock, 2)
    hub.kill(first, Stop())
    assert isinstance(first.error(), Stop)
    lock.release()
    assert second.result() is True


def test_lock_goes_on_when_a_waiter_is_killed_that_just_got_it(hub: FiberStrands) -> None:
    lock = Lock()
    lock.acquire()
    first = hub.start(lock.acquire)
    until_waiting(lock)
    second = hub.start(lock.acquire)
    until_waiting(lock, 2)

    def release_and_kill() -> None:
        lock.release()
        hub.loop.throw(first.fiber, Stop())

    hub.start(release_and_kill).result()
    assert isinstance(first.error(), Stop)
    assert second.result() is True
    lock.release()
    assert not lock.locked()


def test_lock_released_just_before_a_waiter_is_seen_is_had(strands: Strands) -> None:
    lock = Lock()
    lock.acquire()
    lock._waiters = Waiters(lock.release, None)
    assert strands.start(lambda: lock.acquire(timeout=5)).result() is True
    assert lock.locked()


def test_lock_goes_to_a_waiter_who_came_just_before_it_was_freed(strands: Strands) -> None:
    lock, tasks = Lock(), list[Any]()
    lock.acquire()

    def come() -> None:
        tasks.append(strands.start(lambda: lock.acquire(timeout=5)))
        until_waiting(lock)

    lock._waiters = Waiters(None, come)
    lock.release()
    assert tasks[0].result() is True
    assert lock.locked()


def test_lock_survives_ctrl_c_while_the_main_thread_waits() -> None:
    lock, main = Lock(), threading.get_ident()
    lock.acquire()

    def interrupt() -> None:
        until_waiting(lock)
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with in_thread(interrupt), pytest.raises(KeyboardInterrupt):
            lock.acquire(timeout=20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert lock._waiters == []
    lock.release()
    assert lock.acquire(False)


def test_lock_survives_waiters_that_give_up_at_every_moment(crowd: list[Strands]) -> None:
    """The time is over while the lock is being handed over: it is either had or left, and never lost."""
    lock, inside, numbers = Lock(), list[int](), random.Random(1)

    def try_often() -> int:
        had = 0
        for _ in range(60):
            if lock.acquire(timeout=numbers.choice([0, 0.0001, 0.001, 0.01])):
                inside.append(1)
                pause()
                assert inside == [1]
                inside.pop()
                lock.release()
                had += 1
        return had

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        tasks = [strands.start(try_often) for strands in crowd for _ in range(4)]
        counts: list[Any] = [task.result() for task in tasks]
    finally:
        sys.setswitchinterval(interval)
    assert sum(counts) > 0
    assert lock._waiters == []
    assert not lock.locked()


def test_lock_survives_kills_at_every_moment(hub: FiberStrands) -> None:
    lock, numbers = Lock(), random.Random(2)

    def use() -> None:
        while True:
            with lock:
                pause()

    tasks = [hub.start(use) for _ in range(20)]
    until_waiting(lock, 19)
    while tasks:
        hub.kill(tasks[numbers.randrange(len(tasks))], Stop())
        tasks = [task for task in tasks if not task.is_done()]
        hub.start(pause).result()
    assert lock._waiters == []
    assert not lock.locked()


@BOTH
def test_lock_without_contention_allocates_nothing(make: Callable[[], AnyLock]) -> None:
    lock = make()

    def use() -> None:
        for _ in range(100):
            with lock:
                pass
            lock.acquire()
            lock.release()

    use()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        use()
        assert tracemalloc.get_traced_memory()[1] - before < 1024
    finally:
        tracemalloc.stop()


# --- RLock ---


def test_rlock_is_taken_again_by_its_owner(strands: Strands) -> None:
    lock = RLock()

    def take_twice() -> list[bool]:
        with lock, lock:
            pause()
            held = [lock.locked()]
        return [*held, lock.locked()]

    assert strands.start(take_twice).result() == [True, False]


def test_rlock_stays_taken_until_it_was_given_back_as_often(strands: Strands) -> None:
    lock, other = RLock(), Event()

    def take_twice() -> None:
        with lock:
            with lock:
                pass
            other.wait()

    task = strands.start(take_twice)
    eventually(lambda: len(other._waiters) == 1)
    assert strands.start(lambda: lock.acquire(False)).result() is False
    other.set()
    task.result()
    assert strands.start(lambda: lock.acquire(False)).result() is True


def test_rlock_is_released_by_its_owner_alone(strands: Strands) -> None:
    lock = RLock()
    free = hold(lock, strands)
    assert isinstance(strands.start(lock.release).error(), RuntimeError)
    with threads() as others:
        assert isinstance(others.start(lock.release).error(), RuntimeError)
    free()


# --- Event ---


def test_event_wakes_all(crowd: list[Strands]) -> None:
    event = Event()
    tasks = [strands.start(event.wait) for strands in crowd for _ in range(5)]
    until_waiting(event, len(tasks))
    event.set()
    assert [task.result() for task in tasks] == [True] * len(tasks)


def test_event_that_is_set_is_not_waited_for(strands: Strands) -> None:
    event = Event()
    event.set()
    assert event.is_set()
    assert strands.start(event.wait).result() is True


def test_event_is_waited_for_no_longer_than_the_timeout(strands: Strands) -> None:
    event = Event()
    assert strands.start(lambda: event.wait(SHORT)).result() is False
    assert strands.start(lambda: event.wait(0)).result() is False
    assert event._waiters == []


def test_event_is_waited_for_again_after_clear(strands: Strands) -> None:
    event = Event()
    event.set()
    event.clear()
    assert not event.is_set()
    waiting = strands.start(event.wait)
    until_waiting(event)
    event.set()
    assert waiting.result() is True


def test_event_that_was_set_and_cleared_still_wakes(strands: Strands) -> None:
    event = Event()
    waiting = strands.start(event.wait)
    until_waiting(event)
    event.set()
    event.clear()
    assert waiting.result() is True


def test_event_set_just_before_a_waiter_is_seen_is_not_waited_for(strands: Strands) -> None:
    event = Event()
    event._waiters = Waiters(event.set, None)
    assert strands.start(lambda: event.wait(5)).result() is True
    assert event._waiters == []


def test_event_forgets_a_killed_waiter(hub: FiberStrands) -> None:
    event = Event()
    waiting = hub.start(event.wait)
    until_waiting(event)
    hub.kill(waiting, Stop())
    assert isinstance(waiting.error(), Stop)
    assert event._waiters == []


def test_event_is_set_by_a_signal_handler() -> None:
    """With `threading.Event` this may deadlock: it has a lock inside."""
    event, main = Event(), threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda *_: event.set())

    def interrupt() -> None:
        until_waiting(event)
        signal.pthread_kill(main, signal.SIGUSR1)

    try:
        with in_thread(interrupt):
            assert event.wait(20)
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- Condition ---


@pytest.fixture(params=[Lock, RLock])
def condition(request: pytest.FixtureRequest) -> Condition:
    return Condition(request.param())


def wait_on(condition: Condition, timeout: float | None = None) -> bool:
    with condition:
        return condition.wait(timeout)


def notify(condition: Condition, count: int) -> None:
    with condition:
        condition.notify(count)


def test_condition_wakes_as_many_as_it_is_told(condition: Condition, strands: Strands) -> None:
    woken: list[int] = []

    def wait(number: int) -> None:
        wait_on(condition)
        woken.append(number)

    tasks = []
    for number in range(5):
        tasks.append(strands.start(partial(wait, number)))
        until_waiting(condition, number + 1)
    strands.start(partial(notify, condition, 2)).result()
    for task in tasks[:2]:
        task.result()
    assert sorted(woken) == [0, 1]
    assert len(condition._waiters) == 3
    strands.start(partial(notify, condition, 99)).result()
    for task in tasks:
        task.result()


def test_condition_wakes_all(condition: Condition, crowd: list[Strands]) -> None:
    tasks = [strands.start(partial(wait_on, condition)) for strands in crowd for _ in range(5)]
    until_waiting(condition, len(tasks))
    with condition:
        condition.notify_all()
    assert [task.result() for task in tasks] == [True] * len(tasks)


def test_condition_is_waited_on_no_longer_than_the_timeout(condition: Condition, strands: Strands) -> None:
    assert strands.start(partial(wait_on, condition, SHORT)).result() is False
    assert strands.start(partial(wait_on, condition, 0)).result() is False
    assert condition._waiters == []
    assert condition.acquire(False)
    condition.release()


def test_condition_is_waited_on_with_the_lock_free(strands: Strands) -> None:
    condition = Condition()

    def wait() -> bool:
        with condition, condition:  # however often it was taken
            return condition.wait()

    waiting = strands.start(wait)
    until_waiting(condition)
    strands.start(partial(notify, condition, 1)).result()
    assert waiting.result() is True


def test_condition_waits_for_a_predicate(condition: Condition, strands: Strands) -> None:
    values: list[int] = []

    def wait() -> list[int]:
        with condition:
            return condition.wait_for(lambda: values[1:])

    def add(value: int) -> None:
        with condition:
            values.append(value)
            condition.notify()

    waiting = strands.start(wait)
    for value in range(2):
        until_waiting(condition)
        strands.start(partial(add, value)).result()
    assert waiting.result() == [1]


def test_condition_waits_for_a_predicate_no_longer_than_the_timeout(condition: Condition, strands: Strands) -> None:
    def wait() -> bool:
        with condition:
            return condition.wait_for(lambda: False, SHORT)

    assert strands.start(wait).result() is False


def test_condition_is_used_by_the_holder_of_its_lock_alone(condition: Condition) -> None:
    with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
        condition.wait()
    with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
        condition.notify()


def test_condition_refuses_the_locks_of_threading() -> None:
    """They would stop the hub."""
    with pytest.raises(TypeError, match=r"needs a moorage.Lock"):
        Condition(threading.Lock())  # type: ignore[arg-type]  # what is tested


def test_condition_has_its_lock_back_when_a_waiter_is_killed(condition: Condition, hub: FiberStrands) -> None:
    order: list[str] = []

    def wait() -> None:
        with condition:
            try:
                condition.wait()
            finally:
                order.append("back")

    waiting = hub.start(wait)
    until_waiting(condition)
    free = hold(condition, hub)
    hub.kill(waiting, Stop())
    hub.start(pause).result()
    hub.kill(waiting, Stop())  # while it waits for the lock
    hub.start(pause).result()
    assert order == []
    free()
    assert isinstance(waiting.error(), Stop)
    assert order == ["back"]
    assert condition._waiters == []
    assert hub.start(lambda: condition.acquire(False)).result() is True


def test_condition_notifies_the_next_when_a_waiter_is_killed_that_was_notified(
    condition: Condition, hub: FiberStrands
) -> None:
    first = hub.start(partial(wait_on, condition))
    until_waiting(condition)
    second = hub.start(partial(wait_on, condition))
    until_waiting(condition, 2)

    def notify_and_kill() -> None:
        notify(condition, 1)
        hub.loop.throw(first.fiber, Stop())

    hub.start(notify_and_kill).result()
    assert isinstance(first.error(), Stop)
    assert second.result() is True


# --- Queue ---


def test_queue_gives_every_item_to_one_consumer(crowd: list[Strands]) -> None:
    items: Queue[int] = Queue(3)
    seen: list[int] = []

    def produce(first: int) -> None:
        for number in range(first, first + 30):
            items.put(number)

    def consume() -> None:
        while (item := items.get()) >= 0:
            pause()
            seen.append(item)
            items.task_done()
        items.task_done()

    consumers = [strands.start(consume) for strands in crowd for _ in range(2)]
    producers = [strands.start(partial(produce, index * 30)) for index, strands in enumerate(crowd)]
    for producer in producers:
        producer.result()
    crowd[-1].start(items.join).result()
    assert sorted(seen) == list(range(30 * len(crowd)))
    for _ in consumers:
        items.put(-1)
    for consumer in consumers:
        consumer.result()
    assert items.empty()


def test_queue_is_one_of_the_standard_library() -> None:
    items: Queue[str] = Queue()
    assert isinstance(items, queue.Queue)
    items.put_nowait("one")
    assert items.qsize() == 1
    assert not items.full()
    assert items.get_nowait() == "one"


def test_queue_that_is_full_or_empty_raises_as_the_standard_one(strands: Strands) -> None:
    items: Queue[int] = Queue(1)
    assert isinstance(strands.start(items.get_nowait).error(), queue.Empty)
    assert isinstance(strands.start(lambda: items.get(timeout=SHORT)).error(), queue.Empty)
    items.put(1)
    assert isinstance(strands.start(lambda: items.put_nowait(2)).error(), queue.Full)
    assert isinstance(strands.start(lambda: items.put(2, timeout=SHORT)).error(), queue.Full)
    assert strands.start(items.get).result() == 1


def test_queue_loses_no_item_to_a_killed_consumer(hub: FiberStrands) -> None:
    items: Queue[int] = Queue()
    first = hub.start(items.get)
    until_waiting(items.not_empty)
    second = hub.start(items.get)
    until_waiting(items.not_empty, 2)

    def put_and_kill() -> None:
        items.put(7)
        hub.loop.throw(first.fiber, Stop())

    hub.start(put_and_kill).result()
    assert isinstance(first.error(), Stop)
    assert second.result() == 7


def test_queue_may_be_subclassed_as_the_standard_one(strands: Strands) -> None:
    class Stack(Queue[int]):
        def _get(self) -> int:
            return int(self.queue.pop())

    items = Stack()
    for number in range(3):
        items.put(number)
    assert [strands.start(items.get).result() for _ in range(3)] == [2, 1, 0]


def test_locks_are_used_before_and_after_there_is_a_loop() -> None:
    """As a module makes them, when it is imported."""
    lock, event = RLock(), Event()
    assert parking.this_loop() is None
    with lock:
        pass
    with fibers(FIBERS[0]) as hub:
        hub.start(partial(Counter(lock).count, 1)).result()
        hub.start(event.set).result()
    assert event.wait(0)
    with lock:
        pass
