"""Parking: fibers and threads are put to sleep and woken, and keep what is theirs."""

import gc
import signal
import threading
import weakref
from functools import partial
from typing import Any

import pytest

from moorage.deadline import monotonic
from moorage.hub import parking
from support.strands import FIBERS, KINDS, FiberStrands, Strands, pause, run_all, strands_of, threads
from support.waiting import eventually, in_thread, is_asleep

SHORT = 0.05


class Stop(BaseException):
    """As `HandlerStopped`: no handler expects it."""


class Thing:
    """Dies where the test can see it."""


# --- who the caller is ---


def test_thread_has_no_loop() -> None:
    assert parking.this_loop() is None
    assert parking.strand() == threading.get_ident()


def test_fiber_has_the_loop_of_its_thread(hub: FiberStrands) -> None:
    assert hub.start(parking.this_loop).result() is hub.loop


def test_main_of_a_loop_is_a_thread(hub: FiberStrands) -> None:
    seen: list[object] = []
    hub.loop.call_soon(lambda: seen.extend([parking.this_loop(), parking.strand()]))
    eventually(lambda: len(seen) == 2)
    assert seen == [None, hub.loop.thread_id]


def test_thread_has_no_loop_any_more_after_leave(hub: FiberStrands) -> None:
    def leave() -> object:
        parking.leave()
        try:
            return parking.this_loop()
        finally:
            parking.enter(hub.loop)

    assert hub.start(leave).result() is None


def test_strands_are_told_apart(strands: Strands) -> None:
    arrived: list[None] = []

    def who() -> object:
        arrived.append(None)
        while len(arrived) < 3:  # one that has ended may be used again, or its number
            pause()
        return parking.strand()

    assert len(set(run_all(strands, who, who, who))) == 3


# --- parkers ---


def test_parker_released_before_does_not_wait(strands: Strands) -> None:
    def wait() -> bool:
        parker = parking.make_parker()
        parker.release()
        return parker.wait(None) and parker.wait(0)

    assert strands.start(wait).result() is True


def test_parker_waits_until_its_time_is_over(strands: Strands) -> None:
    def wait() -> tuple[bool, float]:
        began = monotonic()
        return parking.make_parker().wait(SHORT), monotonic() - began

    seen: Any = strands.start(wait).result()
    assert seen[0] is False
    assert seen[1] >= SHORT


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_parker_without_time_does_not_wait(strands: Strands, timeout: float) -> None:
    assert strands.start(lambda: parking.make_parker().wait(timeout)).result() is False


def test_parker_that_gave_up_may_still_be_released(strands: Strands) -> None:
    def wait() -> bool:
        parker = parking.make_parker()
        assert not parker.wait(0)
        parker.release()
        return parker.wait(0)

    assert strands.start(wait).result() is True


@pytest.mark.parametrize("releaser", KINDS)
def test_parker_is_released_by_any_other_strand(strands: Strands, releaser: str) -> None:
    made: list[parking.Parker] = []

    def wait() -> bool:
        made.append(parking.make_parker())
        return made[0].wait(None)

    with strands_of(releaser) as others:
        waiting = strands.start(wait)
        eventually(lambda: made)
        others.start(made[0].release).result()
        assert waiting.result() is True


def test_fiber_is_released_by_its_neighbour(hub: FiberStrands) -> None:
    made: list[parking.Parker] = []

    def wait() -> bool:
        made.append(parking.make_parker())
        return made[0].wait(None)

    def release() -> None:
        while not made:
            pause()
        made[0].release()

    assert run_all(hub, wait, release) == [True, None]


def test_fiber_that_waits_leaves_the_loop_to_others(hub: FiberStrands) -> None:
    first = parking.make_parker  # in the fiber
    order: list[str] = []

    def wait() -> None:
        first().wait(SHORT)
        order.append("waited")

    waiting = hub.start(wait)
    hub.start(lambda: order.append("other")).result()
    waiting.result()
    assert order == ["other", "waited"]


def test_release_of_a_parker_that_gave_up_disturbs_no_other_wait(hub: FiberStrands) -> None:
    woken: list[str] = []
    made: list[parking.Parker] = []

    def wait() -> None:
        made.append(parking.make_parker())
        assert not made[0].wait(0)
        made.append(parking.make_parker())
        hub.loop.park()  # as for a socket
        woken.append("here")

    waiting = hub.start(wait)
    eventually(lambda: len(made) == 2)
    hub.start(made[0].release).result()
    with threads() as others:
        others.start(made[1].release).result()
    hub.start(pause).result()
    assert woken == []
    hub.loop.call_soon(partial(hub.loop.ready, waiting.fiber))
    waiting.result()


def test_killed_fiber_leaves_its_wait(hub: FiberStrands) -> None:
    made: list[parking.Parker] = []

    def wait() -> None:
        made.append(parking.make_parker())
        made[0].wait(None)

    waiting = hub.start(wait)
    eventually(lambda: made)
    hub.kill(waiting, Stop())
    assert isinstance(waiting.error(), Stop)
    made[0].release()
    hub.start(pause).result()


def test_signal_handler_releases_the_thread_that_it_interrupts() -> None:
    parker, main = parking.make_parker(), threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda *_: parker.release())
    try:
        with in_thread(lambda: signal.pthread_kill(main, signal.SIGUSR1)):
            assert parker.wait(20)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("kind", FIBERS)
def test_signal_handler_releases_a_fiber_of_the_loop_that_it_interrupts(kind: str) -> None:
    strands, made, main = FiberStrands(kind), list[parking.Parker](), threading.get_ident()

    def wait() -> bool:
        made.append(parking.make_parker())
        return made[0].wait(20)

    def interrupt() -> None:
        eventually(lambda: made and strands.loop.asleep and is_asleep(threading.main_thread()))
        signal.pthread_kill(main, signal.SIGUSR1)

    waiting = strands.start(wait)
    strands.close()
    before = signal.signal(signal.SIGUSR1, lambda *_: made[0].release())
    try:
        with in_thread(interrupt):
            began = monotonic()
            strands.turn()
            took = monotonic() - began
    finally:
        signal.signal(signal.SIGUSR1, before)
        strands.discard()
    assert waiting.result() is True
    assert took < 10  # and not when its time was over


# --- what is stored for each ---


def test_storage_belongs_to_one_strand(strands: Strands) -> None:
    def look() -> tuple[bool, parking.Storage]:
        return parking.storage() is parking.storage(), parking.storage()

    answers: Any = run_all(strands, look, look)
    assert all(same for same, _ in answers)
    assert answers[0][1] is not answers[1][1]


def test_storage_dies_with_its_strand(strands: Strands) -> None:
    key, seen = Thing(), []

    def keep() -> None:
        thing: Any = Thing()
        seen.append(weakref.ref(thing))
        parking.storage()[key] = {"thing": thing}

    strands.start(keep).result()
    eventually(lambda: gc.collect() >= 0 and seen[0]() is None)


def test_fiber_that_is_used_again_starts_empty(hub: FiberStrands) -> None:
    key = Thing()

    def use() -> tuple[object, int]:
        before = len(parking.storage())
        parking.storage()[key] = {}
        return parking.strand(), before

    answers: Any = [hub.start(use).result() for _ in range(3)]
    assert len({fiber for fiber, _ in answers}) < 3
    assert [before for _, before in answers] == [0, 0, 0]
