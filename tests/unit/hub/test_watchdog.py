"""Watchdog: holds are counted and told of once per place; who is idle is left alone."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from moorage.events import HandlerHeldHub
from moorage.hub import watchdog as module
from moorage.hub.watchdog import SO_FAR, Bell, Watchdog
from support.clock import FakeClock
from support.sockets import PATIENCE
from support.waiting import eventually, in_thread

LIMIT = 0.02

Call = Callable[[], object]


class CountingClock(FakeClock):
    """The watchdog asks for the time once in each look."""

    looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


class FakeLoop:
    """Calls what it is given, in its thread, and is asleep when that is nothing."""

    def __init__(self) -> None:
        self.switches = self.thread_id = 0
        self.asleep = False
        self.bell: Any = None
        self.calls = SimpleQueue[Call | None]()

    def run(self) -> None:
        self.thread_id = threading.get_ident()
        while (call := self._next()) is not None:
            call()

    def _next(self) -> Call | None:
        self.switches += 1
        self.asleep = True
        call = self.calls.get()
        self.asleep = False
        if self.bell is not None:
            bell, self.bell = self.bell, None
            bell.release()
        return call


class Gate:
    """Where a handler blocks: it says in one line that it is there, and waits."""

    def __init__(self) -> None:
        self.outside, self.lock = threading.Lock(), threading.Lock()
        self.outside.acquire()
        self.arrive: Call = self.outside.release
        self.lock.acquire()


def block(gate: Gate) -> object:
    return gate.arrive(), gate.lock.acquire()


def block_elsewhere(gate: Gate) -> object:
    return gate.arrive(), gate.lock.acquire()


def block_in_a_third_place(gate: Gate) -> object:
    return gate.arrive(), gate.lock.acquire()


class Kennel:
    """A watchdog, its loop, and what it told."""

    def __init__(self) -> None:
        self.loop, self.clock, self.holds = FakeLoop(), CountingClock(), SimpleQueue[HandlerHeldHub]()
        self.dog = Watchdog(self.loop, self.holds.put, LIMIT, self.clock)

    def wait_for_looks(self) -> None:
        """Until a look that began after this call is over."""
        looks = self.clock.looks
        eventually(lambda: self.clock.looks >= looks + 2)

    def pass_time(self, seconds: float) -> None:
        """Time passes, and the watchdog has seen what that means."""
        self.clock.advance(seconds)
        self.wait_for_looks()

    def wait_until_idle(self) -> None:
        """Until the watchdog waits for the bell."""
        eventually(lambda: self.loop.bell is not None)

    @contextmanager
    def held(self, by: Callable[[Gate], object] = block) -> Iterator[None]:
        """The hub is held while this lasts."""
        gate = Gate()
        self.loop.calls.put(lambda: by(gate))
        assert gate.outside.acquire(timeout=PATIENCE)
        self.wait_for_looks()  # from here on the time counts
        try:
            yield
        finally:
            gate.lock.release()

    def hold(self, seconds: float, by: Callable[[Gate], object] = block) -> None:
        """The hub was held for so long, and is idle again."""
        with self.held(by):
            self.pass_time(seconds)
        self.wait_until_idle()

    def told(self) -> HandlerHeldHub:
        """The next report, which has to come."""
        return self.holds.get(timeout=PATIENCE)

    def assert_quiet(self) -> None:
        """Nothing was told that was not asked for."""
        with pytest.raises(Empty):
            self.holds.get_nowait()


@pytest.fixture
def kennel() -> Iterator[Kennel]:
    kennel = Kennel()
    with in_thread(kennel.loop.run):
        kennel.dog.start()
        yield kennel
        kennel.dog.stop()
        kennel.loop.calls.put(None)


def line_of(function: Callable[..., object]) -> int:
    return function.__code__.co_firstlineno + 1


def test_hold_that_ends_is_told_with_its_whole_duration(kennel: Kennel) -> None:
    with kennel.held():
        kennel.pass_time(0.05)
        kennel.pass_time(0.2)
        assert kennel.dog.count == 1
        kennel.assert_quiet()  # it may become longer
    hold = kennel.told()
    assert (hold.file, hold.line, hold.function) == (__file__, line_of(block), "block")
    assert hold.seconds == pytest.approx(0.25)
    assert hold.is_over
    assert hold.advice == "it waits in threading.Lock; use moorage.Lock, which lets the other fibers run"


def test_hold_that_does_not_end_is_told_once_with_the_time_so_far(kennel: Kennel) -> None:
    with kennel.held():
        kennel.pass_time(SO_FAR - 0.1)
        kennel.assert_quiet()
        kennel.pass_time(0.2)
        hold = kennel.told()
        assert not hold.is_over
        assert hold.seconds == pytest.approx(SO_FAR + 0.1)
        kennel.pass_time(60)
    kennel.wait_until_idle()
    kennel.assert_quiet()
    assert kennel.dog.count == 1


def test_hold_below_the_limit_is_none(kennel: Kennel) -> None:
    kennel.hold(LIMIT * 0.99)
    assert kennel.dog.count == 0
    kennel.assert_quiet()


def test_hold_at_a_known_place_is_only_counted(kennel: Kennel) -> None:
    for _ in range(3):
        kennel.hold(LIMIT * 2)
    assert kennel.told().function == "block"
    kennel.assert_quiet()
    assert kennel.dog.count == 3


def test_holds_at_two_places_are_told_of_both(kennel: Kennel) -> None:
    kennel.hold(LIMIT * 2)
    kennel.hold(LIMIT * 2, block_elsewhere)
    assert [kennel.told().function, kennel.told().function] == ["block", "block_elsewhere"]
    assert kennel.dog.count == 2


def test_places_beyond_those_remembered_push_out_the_oldest(kennel: Kennel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", 2)
    for place in (block, block_elsewhere, block_in_a_third_place, block_in_a_third_place, block):
        kennel.hold(LIMIT * 2, place)
    told = [kennel.told().function for _ in range(4)]
    assert told == ["block", "block_elsewhere", "block_in_a_third_place", "block"]
    kennel.assert_quiet()


def test_idle_hub_is_not_looked_at(kennel: Kennel, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    wait = Bell.wait

    def counted(bell: Bell, seconds: float = -1) -> None:
        waits.append(seconds)
        wait(bell, seconds)

    monkeypatch.setattr(Bell, "wait", counted)
    kennel.loop.calls.put(lambda: None)
    eventually(lambda: waits[-1:] == [-1])  # the last wait has no end of its own
    assert kennel.loop.bell is not None


def test_hub_that_wakes_after_a_long_sleep_has_held_nothing(kennel: Kennel) -> None:
    kennel.wait_until_idle()
    kennel.clock.advance(3600)
    kennel.hold(0)
    kennel.hold(LIMIT * 2)
    assert kennel.told().seconds == pytest.approx(LIMIT * 2)
    assert kennel.dog.count == 1


def test_hub_that_switches_all_the_time_is_not_held(kennel: Kennel) -> None:
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            kennel.loop.switches += 1

    kennel.loop.calls.put(work)
    for _ in range(5):
        kennel.pass_time(LIMIT * 2)
    done.set()
    kennel.wait_until_idle()
    assert kennel.dog.count == 0


def test_loop_that_leaves_its_wait_while_the_bell_is_hung_is_not_waited_for() -> None:
    """It looked for a bell before there was one; nobody will ring."""
    loop = FakeLoop()
    dog = Watchdog(loop, print, LIMIT)
    for seen, is_asleep in ((loop.switches, False), (loop.switches - 1, True)):
        dog._seen, loop.asleep = seen, is_asleep
        with in_thread(lambda: dog._sleep(Bell())):
            pass  # it returns
        assert loop.bell is None


def test_place_that_is_left_before_it_was_read_is_not_blamed(kennel: Kennel) -> None:
    kennel.wait_until_idle()
    kennel.dog._seen = kennel.loop.switches
    assert kennel.dog._find_place() is None  # asleep by now
    kennel.dog._seen = kennel.loop.switches - 1
    assert kennel.dog._find_place() is None  # others have run


def test_thread_that_is_gone_is_at_no_place() -> None:
    assert Watchdog(FakeLoop(), print)._find_place() is None


def test_bell_that_rang_before_the_wait_and_twice_is_heard_once() -> None:
    bell = Bell()
    bell.release()
    bell.release()
    bell.wait()
    with in_thread(bell.wait) as waiting:
        waiting.wait_asleep()
        bell.release()


def test_start_and_stop_may_come_twice_and_leave_no_thread(kennel: Kennel) -> None:
    kennel.dog.start()
    threads = [thread for thread in threading.enumerate() if thread.name == "moorage-watchdog"]
    assert len(threads) == 1
    assert threads[0].daemon
    kennel.dog.stop()
    kennel.dog.stop()
    assert not threads[0].is_alive()
    Watchdog(kennel.loop, print).stop()  # never started


def test_stop_ends_the_wait_for_an_idle_hub_and_takes_the_bell_away(kennel: Kennel) -> None:
    kennel.wait_until_idle()
    kennel.dog.stop()
    assert kennel.loop.bell is None


def test_watchdog_that_was_stopped_can_be_started_again(kennel: Kennel) -> None:
    kennel.dog.stop()
    kennel.dog.start()
    kennel.hold(LIMIT * 2)
    assert kennel.told().function == "block"


def test_stop_during_a_hold_tells_of_it(kennel: Kennel) -> None:
    with kennel.held():
        kennel.pass_time(LIMIT * 2)
        kennel.dog.stop()
        hold = kennel.told()
    assert hold.seconds == pytest.approx(LIMIT * 2)
    assert not hold.is_over


def test_stop_by_the_report_itself_does_not_wait_for_itself() -> None:
    kennel = Kennel()
    stopped = threading.Event()

    def stop(_hold: HandlerHeldHub) -> None:
        kennel.dog.stop()
        stopped.set()

    kennel.dog = Watchdog(kennel.loop, stop, LIMIT, kennel.clock)
    with in_thread(kennel.loop.run):
        kennel.dog.start()
        with kennel.held():
            kennel.clock.advance(SO_FAR)
            assert stopped.wait(PATIENCE)
        kennel.loop.calls.put(None)


EXIT = """
import threading
from moorage.hub.watchdog import Watchdog

class Loop:
    switches, asleep, bell, thread_id = 1, {asleep}, None, threading.get_ident()

told = threading.Event()
Watchdog(Loop, lambda hold: told.set(), 0.001).start()
{wait}
"""


@pytest.mark.parametrize(
    "program",
    [
        EXIT.format(asleep=True, wait="while Loop.bell is None: pass"),
        EXIT.format(asleep=False, wait="told.wait()"),
        EXIT.format(asleep=False, wait=""),
    ],
    ids=["asleep", "held", "at once"],
)
def test_interpreter_exit_with_a_watchdog_is_clean(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
