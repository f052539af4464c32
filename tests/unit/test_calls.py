"""Calls: sleep, run_blocking and spawn, in fibers, in threads, and where no handler is."""

import contextvars
import math
import os
import threading
from collections.abc import Iterator

import pytest

from moorage import calls
from moorage.deadline import monotonic
from moorage.hub import parking
from moorage.runners.pool import ThreadPool
from support.strands import FIBERS, KINDS, FiberStrands, Strands, fibers, pause, run_all, strands_of
from support.waiting import eventually

SHORT = 0.05
TAG: contextvars.ContextVar[str] = contextvars.ContextVar("tag", default="none")


class Stop(BaseException):
    """As `HandlerStopped`: no handler expects it."""


@pytest.fixture(params=KINDS)
def strands(request: pytest.FixtureRequest) -> Iterator[Strands]:
    with strands_of(request.param) as strands:
        yield strands


@pytest.fixture(params=FIBERS)
def loop(request: pytest.FixtureRequest) -> Iterator[FiberStrands]:
    with fibers(request.param) as strands:
        yield strands


# sleep


def test_sleep_is_never_short(strands: Strands) -> None:
    def sleep() -> float:
        begun = monotonic()
        calls.sleep(SHORT)
        return monotonic() - begun

    assert all(isinstance(took, float) and took >= SHORT for took in run_all(strands, sleep, sleep))


def test_sleep_lets_the_other_fibers_run(loop: FiberStrands) -> None:
    order: list[str] = []

    def long() -> None:
        calls.sleep(4 * SHORT)
        order.append("long")

    def short() -> None:
        calls.sleep(SHORT)
        order.append("short")

    run_all(loop, long, short)
    assert order == ["short", "long"]


def test_sleep_of_nothing_gives_way(loop: FiberStrands) -> None:
    order: list[str] = []

    def wait() -> None:
        loop.loop.spawn(lambda: order.append("other"))
        for _ in range(5):
            calls.sleep(0)
        order.append("mine")

    loop.start(wait).result()
    assert order == ["other", "mine"]


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (math.nan, ValueError), (math.inf, OverflowError)])
def test_sleep_refuses_what_is_no_time(strands: Strands, seconds: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        strands.start(lambda: calls.sleep(seconds)).result()


def test_sleep_of_a_killed_fiber_ends(loop: FiberStrands) -> None:
    task = loop.start(lambda: calls.sleep(1000))
    eventually(lambda: task.fiber is not None)
    loop.kill(task, Stop())
    assert isinstance(task.error(), Stop)


# run_blocking


def test_run_blocking_returns_and_passes_arguments(strands: Strands) -> None:
    assert strands.start(lambda: calls.run_blocking(int, "ff", base=16)).result() == 255


@pytest.mark.parametrize("error", [ValueError, StopIteration, SystemExit, KeyboardInterrupt])
def test_run_blocking_raises_what_the_call_raises(strands: Strands, error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("asked for")

    with pytest.raises(error, match="asked for"):
        strands.start(lambda: calls.run_blocking(fail)).result()


def test_run_blocking_outside_of_fibers_is_a_plain_call() -> None:
    assert calls.run_blocking(threading.get_ident) == threading.get_ident()


def test_run_blocking_in_a_fiber_is_made_in_another_thread(loop: FiberStrands) -> None:
    thread = loop.start(lambda: calls.run_blocking(threading.current_thread)).result()
    assert isinstance(thread, threading.Thread)
    assert thread.daemon
    assert thread.ident != loop.loop.thread_id
    assert thread.name.startswith("moorage-blocking")


def test_run_blocking_lets_the_other_fibers_run(loop: FiberStrands) -> None:
    may_go = threading.Event()
    waiting = loop.start(lambda: calls.run_blocking(may_go.wait, 20))
    loop.start(may_go.set).result()
    assert waiting.result() is True


def test_run_blocking_within_run_blocking_stays_in_its_thread(loop: FiberStrands) -> None:
    def outer() -> bool:
        return calls.run_blocking(threading.get_ident) == threading.get_ident()

    assert loop.start(lambda: calls.run_blocking(outer)).result() is True


def test_run_blocking_has_a_copy_of_the_context(loop: FiberStrands) -> None:
    def change() -> str:
        before = TAG.get()
        TAG.set("changed")
        return before

    def call() -> list[str]:
        TAG.set("mine")
        return [calls.run_blocking(change), TAG.get()]

    assert loop.start(lambda: contextvars.copy_context().run(call)).result() == ["mine", "mine"]


def test_run_blocking_of_a_killed_fiber_drops_what_comes_back(loop: FiberStrands) -> None:
    begun, may_go, returned = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        may_go.wait(20)
        returned.set()

    task = loop.start(lambda: calls.run_blocking(block))
    assert begun.wait(20)
    loop.kill(task, Stop())
    assert isinstance(task.error(), Stop)
    may_go.set()
    assert returned.wait(20)
    assert loop.start(lambda: calls.run_blocking(int, "1")).result() == 1


def test_run_blocking_that_has_not_begun_is_never_made_for_a_killed_fiber(
    loop: FiberStrands, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ThreadPool(1, idle_seconds=0.1)
    monkeypatch.setattr(calls, "_pool", lambda pid: pool)
    may_go, made = threading.Event(), list[int]()
    first = loop.start(lambda: calls.run_blocking(may_go.wait, 20))
    eventually(lambda: pool.busy == 1)
    second = loop.start(lambda: calls.run_blocking(made.append, 2))
    eventually(lambda: pool.queued == 1)
    loop.kill(second, Stop())
    assert isinstance(second.error(), Stop)
    may_go.set()
    first.result()
    assert made == []
    assert pool.queued == 0


def test_run_blocking_uses_at_most_so_many_threads(loop: FiberStrands, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(2, idle_seconds=0.1)
    monkeypatch.setattr(calls, "_pool", lambda pid: pool)
    at_once, most, lock = [0], [0], threading.Lock()

    def block() -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        pause()
        with lock:
            at_once[0] -= 1

    run_all(loop, *[lambda: calls.run_blocking(block)] * 20)
    assert 1 <= most[0] <= 2


def test_in_thread_gives_up_in_time(loop: FiberStrands) -> None:
    may_go = threading.Event()
    with pytest.raises(TimeoutError):
        loop.start(lambda: calls.in_thread(lambda: may_go.wait(20), SHORT)).result()
    may_go.set()


def test_blocking_threads_are_those_of_this_process() -> None:
    assert calls._pool(os.getpid()) is calls._pool(os.getpid())
    assert calls._pool(os.getpid()) is not calls._pool(-1)  # as in a child, where these threads do not exist
    assert calls._pool(os.getpid()).limit == calls.BLOCKING_THREADS


# spawn


def test_spawn_without_a_handler_is_refused(strands: Strands) -> None:
    with pytest.raises(RuntimeError, match="there is no handler here"):
        strands.start(lambda: calls.spawn(print)).result()


def test_nothing_here_thinks_it_is_a_fiber() -> None:
    assert parking.this_loop() is None
