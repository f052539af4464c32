"""Worker handle: states, deadlines, and when a worker is stuck."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.config import resolve
from moorage.drain import LEAVE_SECONDS
from moorage.errors import InternalError
from moorage.processes.link import Drain, End, Go, Leave, Link, Reopen
from moorage.processes.scoreboard import Scoreboard
from moorage.processes.stacks import StackFile
from moorage.processes.worker_handle import (
    BOOT_GRACE_SECONDS,
    GRACE_SECONDS,
    LEAST_SILENCE,
    NEXT,
    STACKS_SECONDS,
    State,
    WorkerHandle,
)
from support.clock import FakeClock
from support.fake_processes import FakeSystem, FakeWorker


class Owner:
    """Whose worker it is; nothing is told by the handle itself."""

    def ready(self, worker: WorkerHandle) -> None: ...
    def failed(self, worker: WorkerHandle, reason: str, is_operator: bool) -> None: ...
    def gone(self, worker: WorkerHandle) -> None: ...


class Bench:
    """One worker, its handle, and the time."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.system = FakeSystem(self.clock)
        self.board = Scoreboard(rows=1)
        link, theirs = self.system.links()
        theirs.close()
        self.handle = WorkerHandle(
            1, self.system.fork(), generation=1, settings=resolve(None, settings)[0], link=link, row=self.board.allot(),
            stacks=StackFile(), owner=Owner(), system=self.system,
        )  # fmt: skip

    @property
    def worker(self) -> FakeWorker:
        return self.system.workers[0]

    def serve(self) -> WorkerHandle:
        self.handle.move(State.READY)
        self.handle.go()
        assert self.worker.heard() == [Go()]
        return self.handle

    def overdue_after(self) -> float:
        """Seconds until it should have ended, in quarters."""
        began = self.clock.now
        while not self.handle.is_overdue():
            assert self.clock.now < began + 1000
            self.clock.advance(0.25)
        return self.clock.now - began - 0.25

    def close(self) -> None:
        self.handle.let_go()
        self.system.close()
        self.board.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.mark.parametrize("state", State)
def test_worker_moves_only_as_the_table_says(bench: Bench, state: State) -> None:
    for after in State:
        bench.handle.state = state
        if after in NEXT[state]:
            bench.handle.move(after)
            assert bench.handle.state is after
        else:
            with pytest.raises(InternalError, match=f"from {state.value} to {after.value}"):
                bench.handle.move(after)


def test_worker_that_serves_is_told_to_leave_and_has_its_drain_for_it(bench: Bench) -> None:
    handle = bench.serve()
    handle.leave([1])
    assert (handle.state, handle.is_asked) == (State.LEAVING, True)
    assert bench.worker.heard() == [Leave((1,))]
    assert bench.overdue_after() == 30 + LEAVE_SECONDS + GRACE_SECONDS


def test_worker_that_leaves_is_not_told_again_but_can_be_ended(bench: Bench) -> None:
    handle = bench.serve()
    handle.drain()
    handle.drain()
    handle.leave()
    assert bench.worker.heard() == [Drain()]
    handle.end()
    handle.end()
    handle.drain()
    assert bench.worker.heard() == [End()]
    assert bench.overdue_after() == LEAVE_SECONDS + GRACE_SECONDS


def test_worker_without_limit_of_its_drain_is_never_overdue() -> None:
    bench = Bench(drain_timeout=None)
    bench.serve().drain()
    bench.clock.advance(1e9)
    assert not bench.handle.is_overdue()
    bench.close()


@pytest.mark.parametrize("word", ["leave", "drain", "end"])
@pytest.mark.parametrize("state", [State.BOOTING, State.READY])
def test_worker_that_serves_nobody_yet_is_ended(bench: Bench, word: str, state: State) -> None:
    bench.handle.state = state
    getattr(bench.handle, word)()
    assert bench.worker.heard() == [End()]
    assert bench.handle.state is State.ENDING
    assert not bench.handle.is_awaited
    assert bench.overdue_after() == BOOT_GRACE_SECONDS


def test_worker_is_killed_and_killed_again_when_that_has_no_effect(bench: Bench) -> None:
    bench.serve()
    bench.worker.is_immortal = True
    bench.handle.kill("it was in the way")
    assert not bench.handle.is_overdue()
    bench.overdue_after()
    bench.handle.kill("later")
    assert bench.worker.signals == [signal.SIGKILL, signal.SIGKILL]
    assert bench.handle.remark == "it was in the way"


def test_worker_told_to_abort_has_a_moment_for_its_stacks(bench: Bench) -> None:
    bench.serve()
    bench.handle.abort(31.0)
    assert bench.worker.signals == [signal.SIGABRT]
    assert (bench.handle.stuck, bench.handle.is_asked) == (31.0, False)
    assert bench.overdue_after() == STACKS_SECONDS


def test_worker_expected_to_end_has_a_deadline_of_its_own(bench: Bench) -> None:
    bench.serve()
    bench.handle.expect_end(is_asked=False)
    bench.handle.expect_end(is_asked=False)
    assert not bench.handle.is_asked
    assert bench.overdue_after() == GRACE_SECONDS


def test_worker_is_late_after_the_boot_timeout_only_while_it_boots(bench: Bench) -> None:
    bench.clock.advance(60.0)
    assert not bench.handle.is_late()
    bench.clock.advance(0.1)
    assert bench.handle.is_late()
    bench.serve()
    assert not bench.handle.is_late()


def test_worker_without_boot_timeout_is_never_late() -> None:
    bench = Bench(boot_timeout=None)
    bench.clock.advance(1e6)
    assert not bench.handle.is_late()
    bench.close()


def look(bench: Bench, seconds: float) -> bool:
    """Whether it is stuck, after so many looks a second apart."""
    is_stuck = False
    for _ in range(int(seconds)):
        bench.clock.advance(1.0)
        is_stuck = bench.handle.is_stuck(1.0)
    return is_stuck


def test_worker_whose_heart_stands_still_is_stuck_after_the_timeout(bench: Bench) -> None:
    bench.serve()
    bench.handle.row.beat(bench.clock.now)
    assert not look(bench, 31)  # the first look takes note of the beat
    assert look(bench, 1)


def test_worker_whose_heart_beats_is_never_stuck(bench: Bench) -> None:
    bench.serve()
    for _ in range(100):
        bench.handle.row.beat(bench.clock.now)
        assert not look(bench, 1)


def test_worker_on_a_host_that_slept_is_not_stuck(bench: Bench) -> None:
    """Its supervisor slept as long: what neither has seen pass does not count."""
    bench.serve()
    bench.handle.row.beat(bench.clock.now)
    assert not look(bench, 2)
    bench.clock.advance(3600.0)
    assert not bench.handle.is_stuck(3600.0)
    assert not look(bench, 5)


def test_worker_with_a_tiny_timeout_is_not_stuck_between_two_beats() -> None:
    bench = Bench(stuck_timeout=0.5)
    bench.serve()
    bench.handle.row.beat(bench.clock.now)
    assert not look(bench, 1 + LEAST_SILENCE)
    assert look(bench, 1)
    bench.close()


@pytest.mark.parametrize("settings", [{"stuck_timeout": None}, {"runner": "inline"}])
def test_worker_that_may_stand_still_is_never_stuck(settings: dict[str, Any]) -> None:
    bench = Bench(**settings)
    bench.serve()
    bench.handle.row.beat(bench.clock.now)
    assert not look(bench, 100)
    bench.close()


def test_worker_that_has_not_served_or_is_ending_is_not_stuck(bench: Bench) -> None:
    bench.handle.row.beat(bench.clock.now)
    assert not look(bench, 100)
    bench.serve().end()
    assert not look(bench, 100)


def test_worker_that_leaves_may_wait_for_its_handlers_at_the_end(bench: Bench) -> None:
    bench.serve().leave()
    bench.handle.row.beat(bench.clock.now)
    assert not look(bench, 31 + LEAVE_SECONDS)
    assert look(bench, 1)


def test_worker_is_told_to_open_its_log_anew(bench: Bench) -> None:
    bench.handle.reopen()
    assert bench.worker.heard() == [Reopen()]


def test_worker_whose_end_of_the_link_is_gone_is_told_nothing(bench: Bench) -> None:
    bench.serve()
    bench.worker.link.close()
    bench.handle.drain()
    assert bench.handle.state is State.LEAVING


def test_worker_status_is_made_of_its_row_and_its_clock(bench: Bench) -> None:
    bench.serve()
    bench.handle.row.set("open", 3)
    bench.handle.row.add("accepted", 5)
    assert bench.handle.status()["heartbeat"] is None
    bench.handle.row.beat(bench.clock.now)
    bench.clock.advance(2.0)
    assert bench.handle.status() == {
        "number": 1, "pid": 1001, "state": "serving", "generation": 1, "age": 2.0,
        "open": 3, "accepted": 5, "heartbeat": 2.0,
    }  # fmt: skip


def test_worker_let_go_has_nothing_open(bench: Bench) -> None:
    bench.handle.let_go()
    assert (bench.handle.link.fileno(), bench.handle.stacks.fd) == (-1, -1)
    assert isinstance(bench.handle.link, Link)
