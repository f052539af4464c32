"""Crew: births, words and deaths of workers; a fake system save where it says real."""

import errno
import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moorage.errors import InternalError
from moorage.events import Events, WorkerEnded, WorkerReady, WorkerStarted, WorkerStuck
from moorage.listener import Listener, open_listeners
from moorage.processes.crew import AUDITS, Crew
from moorage.processes.link import Failed, Link, Ready, Reopen
from moorage.processes.scoreboard import Scoreboard
from moorage.processes.stacks import StackFile
from moorage.processes.system import System
from moorage.processes.tokens import LOOKS, Tokens
from moorage.processes.worker import Order
from moorage.processes.worker_handle import State, WorkerHandle
from moorage.watch import Watch
from support.fake_processes import FakeSystem, FakeWorker, Left, StagedWatch, plan_of
from support.sink import Sink
from support.sockets import PATIENCE
from support.waiting import eventually


class Owner:
    """Notes what it is told of its workers."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def ready(self, worker: WorkerHandle) -> None:
        self.told.append(("ready", worker.number))

    def failed(self, worker: WorkerHandle, reason: str, is_operator: bool) -> None:
        self.told.append(("failed", worker.number, reason, is_operator))

    def gone(self, worker: WorkerHandle) -> None:
        self.told.append(("gone", worker.number))


class Bench:
    """A crew, and what it needs."""

    def __init__(self, system: System | None = None, watch: Watch | None = None, **arguments: Any) -> None:
        self.fake_watch = StagedWatch()
        self.system = FakeSystem(self.fake_watch.clock)
        other: Any = self.fake_watch
        self.watch: Watch = watch or other
        self.events = Events()
        self.sink = Sink(self.events)
        self.board = Scoreboard(rows=4)
        self.tokens = Tokens(10)
        self.doors: list[Listener] = []
        self.owner = Owner()
        self.plan = plan_of()
        self.crew = Crew(
            system=system or self.system, watch=self.watch, events=self.events, scoreboard=self.board,
            tokens=self.tokens, doors=lambda: self.doors, **arguments,
        )  # fmt: skip

    def fork(self, number: int = 1, *listeners: Listener) -> WorkerHandle:
        return self.crew.fork(number, self.plan, listeners, generation=1, owner=self.owner)

    def worker(self, handle: WorkerHandle) -> FakeWorker:
        return self.system.worker(handle.pid)

    def serving(self, number: int = 1) -> WorkerHandle:
        handle = self.fork(number)
        self.worker(handle).ready()
        self.settle()
        handle.go()
        self.owner.told.clear()
        return handle

    def settle(self) -> None:
        """Have the crew hear and see all there is."""
        while self.fake_watch._do_what_is_ready():
            pass
        self.crew.reap()

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.fake_watch.now += 1.0
            self.crew.look()
            self.settle()

    def close(self) -> None:
        self.crew.abandon()
        self.system.close()
        self.tokens.close()
        self.board.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


# Births


def test_crew_forks_a_worker_with_a_row_of_its_own(bench: Bench) -> None:
    first, second = bench.fork(1), bench.fork(2)
    assert [handle.state for handle in bench.crew] == [State.BOOTING] * 2
    assert (first.pid in bench.crew, 7 in bench.crew, len(bench.crew)) == (True, False, 2)
    assert [row.get("number") for row in bench.board.rows()] == [1, 2]
    assert [row.get("generation") for row in bench.board.rows()] == [1, 1]
    assert bench.sink.seen == [WorkerStarted(1, first.pid), WorkerStarted(2, second.pid)]


def test_crew_that_cannot_fork_leaves_nothing_of_the_try(bench: Bench) -> None:
    bench.system.fork_error = BlockingIOError(errno.EAGAIN, "no more processes")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(BlockingIOError, match="no more processes"):
        bench.fork()
    assert (len(bench.crew), bench.board.rows()) == (0, [])
    assert set(os.listdir("/proc/self/fd")) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_crew_without_a_free_row_does_not_fork(bench: Bench) -> None:
    for number in range(4):
        bench.fork(number)
    with pytest.raises(InternalError, match="all 4 rows"):
        bench.fork(5)
    assert len(bench.system.workers) == 4


def test_crew_forks_with_signals_blocked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: list[set[int]] = []

    def fork() -> int:
        blocked.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        return fake()

    fake = bench.system.fork
    monkeypatch.setattr(bench.system, "fork", fork)
    bench.fork()
    assert signal.SIGTERM in blocked[0]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# In the child


def test_child_leaves_with_the_status_of_its_work() -> None:
    orders: list[Order] = []

    def work(order: Order) -> int:
        orders.append(order)
        return 3

    bench = Bench(work=work)
    bench.system.be_the_child = True
    with pytest.raises(Left) as left:
        bench.fork(2)
    assert left.value.status == 3
    assert (orders[0].number, orders[0].configuration) == (2, bench.plan.configuration)
    bench.close()


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), SystemExit(0)])
def test_child_in_which_anything_is_raised_leaves_with_status_1(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(order: Order) -> int:
        raise error

    bench = Bench(work=work)
    bench.system.be_the_child = True
    with pytest.raises(Left) as left:
        bench.fork()
    assert left.value.status == 1
    assert type(error).__name__ in capsys.readouterr().err
    bench.close()


def test_real_child_closes_what_is_not_its_own() -> None:
    """The supervisor's ends, the listeners of others and the watch are closed; its own are open; signals wait."""
    read, write = os.pipe()
    forgotten: list[str] = []

    def work(order: Order) -> int:
        mine = (order.link.fileno(), order.stacks, order.listeners[0].fileno())
        order.close()
        is_blocked = signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        is_right = is_open(*mine) and not any(map(is_open, others)) and is_blocked and forgotten == ["forgotten"]
        os.write(write, b"yes" if is_right else b"no")
        return 0

    own, other = open_listeners([plan_of().configuration.listeners[0], plan_of().configuration.listeners[0]])
    bench = Bench(System(), Watch(), work=work, forget=lambda: forgotten.append("forgotten"))
    bench.doors = [own, other]
    sibling_link, sibling_stacks = System().links(), StackFile()
    others = [sibling_link[0].fileno(), sibling_stacks.fd, other.fileno(), *bench.watch.own_fds()]
    sibling = WorkerHandle(
        9, os.getpid(), generation=1, settings=bench.plan.settings, link=sibling_link[0], row=bench.board.allot(),
        stacks=sibling_stacks, owner=bench.owner, system=bench.system,
    )  # fmt: skip
    bench.crew._members[sibling.pid] = sibling
    bench.watch.call_soon(lambda: forgotten.append("a call of the supervisor"))
    handle = bench.fork(1, own)
    assert select.select([read], [], [], PATIENCE)[0]
    assert os.read(read, 10) == b"yes"
    del bench.crew._members[sibling.pid]
    eventually(lambda: has_reaped(bench.crew))
    assert handle.state is State.GONE
    for one in (own, other, sibling_link[0], sibling_link[1], sibling_stacks, bench.watch):
        one.close()
    os.close(read)
    os.close(write)
    bench.close()


def has_reaped(crew: Crew) -> bool:
    """Whether none is left, after a look."""
    crew.reap()
    return not len(crew)


def is_open(*fds: int) -> bool:
    """Whether all of these are open."""
    try:
        return all(os.fstat(fd) for fd in fds)
    except OSError:
        return False


# Words


def test_crew_tells_the_owner_who_is_ready(bench: Bench) -> None:
    handle = bench.fork()
    bench.fake_watch.now += 2.0
    bench.worker(handle).ready()
    bench.settle()
    assert (handle.state, bench.owner.told) == (State.READY, [("ready", 1)])
    assert bench.sink.of(WorkerReady) == [WorkerReady(1, handle.pid, 2.0)]


def test_crew_tells_the_owner_once_who_cannot_boot(bench: Bench) -> None:
    bench.worker(bench.fork()).fail("there is no module nosuch", is_operator=True)
    bench.settle()
    assert bench.owner.told == [("failed", 1, "there is no module nosuch", True), ("gone", 1)]
    assert bench.sink.of(WorkerEnded) == [WorkerEnded(1, 1001, "exit status 1", True, has_served=False)]


def test_crew_hears_the_last_words_of_a_worker_that_is_dead_already(bench: Bench) -> None:
    bench.worker(bench.fork()).fail("no database")
    bench.crew.reap()  # before the link was heard
    assert bench.owner.told == [("failed", 1, "no database", False), ("gone", 1)]


def test_crew_does_not_take_for_ready_who_is_dead_already(bench: Bench) -> None:
    bench.worker(bench.fork()).ready()
    bench.system.workers[0].die()
    bench.crew.reap()
    assert bench.owner.told == [("failed", 1, "killed by SIGKILL", False), ("gone", 1)]
    assert bench.sink.of(WorkerReady) == []


def test_crew_sends_no_signal_to_the_number_of_a_dead_worker(bench: Bench) -> None:
    handle = bench.fork()
    bench.worker(handle).link._sock.send(b"nonsense")
    bench.worker(handle).exit(0)
    bench.crew.reap()
    assert bench.worker(handle).signals == []
    assert "none of ours" in bench.owner.told[0][2]


def test_crew_kills_who_speaks_nonsense(bench: Bench) -> None:
    handle = bench.fork()
    bench.worker(handle).link._sock.send(b"?")
    bench.settle()
    assert bench.worker(handle).signals == [signal.SIGKILL]
    assert bench.owner.told[0][:2] == ("failed", 1)
    assert "none of ours" in bench.owner.told[0][2]


def test_crew_takes_no_word_of_a_worker_that_it_does_not_wait_for(bench: Bench) -> None:
    handle = bench.fork()
    handle.end()
    bench.worker(handle).ready()
    bench.worker(handle).link.send(Failed("late", False))
    bench.settle()
    assert (handle.state, bench.owner.told) == (State.ENDING, [])


def test_crew_has_all_open_their_logs_anew(bench: Bench) -> None:
    handles = [bench.fork(1), bench.fork(2)]
    bench.crew.reopen()
    assert [bench.worker(handle).heard() for handle in handles] == [[Reopen()], [Reopen()]]


# Deaths


@pytest.mark.parametrize(
    ("end", "manner"),
    [
        (lambda worker: worker.exit(0), "exit status 0"),
        (lambda worker: worker.exit(3), "exit status 3"),
        (lambda worker: worker.die(signal.SIGSEGV), "killed by SIGSEGV"),
        (lambda worker: worker.die(signal.SIGRTMIN + 1), "killed by signal 35"),
    ],
)
def test_crew_tells_how_a_worker_ended(bench: Bench, end: Callable[[FakeWorker], None], manner: str) -> None:
    handle = bench.serving()
    end(bench.worker(handle))
    bench.settle()
    assert bench.owner.told == [("gone", 1)]
    assert bench.sink.of(WorkerEnded) == [WorkerEnded(1, handle.pid, manner, False)]
    assert (handle.state, len(bench.crew), bench.fake_watch.listening) == (State.GONE, 0, {})


def test_crew_expects_the_end_of_who_was_asked(bench: Bench) -> None:
    handle = bench.serving()
    handle.drain()
    bench.worker(handle).exit()
    bench.settle()
    assert bench.sink.of(WorkerEnded)[0].is_expected


def test_crew_gives_back_what_a_dead_worker_held_and_folds_its_row(bench: Bench) -> None:
    handle = bench.serving()
    assert all(bench.tokens.take() for _ in range(4))
    handle.row.add("held", 4)
    handle.row.set("open", 3)
    handle.row.add("accepted", 5)
    bench.worker(handle).die()
    bench.settle()
    assert bench.tokens.free() == 10
    assert bench.board.rows() == []
    assert [bench.board.total(name) for name in ("open", "held", "accepted", "ended:killed")] == [0, 0, 5, 3]


def test_crew_finds_a_place_that_was_lost_between_count_and_row(bench: Bench) -> None:
    handle = bench.serving()
    assert bench.tokens.take()  # and killed before it was in the row
    bench.worker(handle).die()
    bench.settle()
    bench.look(LOOKS)
    assert bench.tokens.free() == 10


def test_crew_does_not_search_for_lost_places_when_nobody_died_lately(bench: Bench) -> None:
    bench.serving()
    bench.tokens.take()
    bench.look(LOOKS)
    assert bench.tokens.free() == 9
    bench.worker(bench.serving(2)).die()
    bench.settle()
    bench.look(AUDITS)
    assert bench.crew._suspicions == 0


def test_crew_kills_who_let_go_of_the_link_and_lives_on(bench: Bench) -> None:
    handle = bench.serving()
    worker = bench.worker(handle)
    worker.link.close()
    bench.settle()
    assert handle.state is State.ENDING
    bench.look(5)
    assert worker.is_alive
    bench.look()
    assert worker.signals == [signal.SIGKILL]
    assert bench.sink.of(WorkerEnded)[0].manner == "killed by SIGKILL (it had not left in time)"
    assert bench.owner.told == [("gone", 1)]


def test_crew_waits_for_its_own_alone(bench: Bench) -> None:
    bench.crew.reap()
    assert bench.system.orphans_asked == 0


# Looks


def test_crew_kills_who_is_not_ready_in_time(bench: Bench) -> None:
    handle = bench.fork()
    bench.look(60)
    assert bench.worker(handle).is_alive
    bench.look()
    assert bench.worker(handle).signals == [signal.SIGKILL]
    assert bench.owner.told == [("failed", 1, "it was not ready after 60 s", False), ("gone", 1)]


def test_crew_kills_who_overstays_its_drain(bench: Bench) -> None:
    handle = bench.serving()
    handle.drain()
    bench.look(37)  # 30 to drain, 2 for handlers to leave, 5 of grace
    assert bench.worker(handle).is_alive
    bench.look()
    assert bench.worker(handle).signals == [signal.SIGKILL]
    assert not bench.sink.of(WorkerEnded)[0].is_expected


def test_crew_kills_who_is_told_to_end_in_the_middle_of_an_import(bench: Bench) -> None:
    handle = bench.fork()
    handle.end()
    bench.look(3)
    assert bench.worker(handle).signals == [signal.SIGKILL]
    assert bench.sink.of(WorkerEnded) == [WorkerEnded(1, handle.pid, "killed by SIGKILL", True, has_served=False)]


def test_crew_has_a_stuck_worker_tell_its_stacks_and_kills_it(bench: Bench) -> None:
    handle = bench.serving()
    worker = bench.worker(handle)
    handle.row.beat(bench.fake_watch.now)
    bench.look(31)
    assert worker.signals == []
    bench.look()
    assert worker.signals == [signal.SIGABRT]
    os.write(handle.stacks.fd, b"Thread 1:\n  File x.py, line 3 in spin\n")
    bench.look(3)  # it did not even die of that
    assert worker.signals == [signal.SIGABRT, signal.SIGKILL]
    stuck = bench.sink.of(WorkerStuck)
    assert [(event.number, event.pid, event.seconds) for event in stuck] == [(1, handle.pid, 31.0)]
    assert "in spin" in stuck[0].stacks
    ended = bench.sink.of(WorkerEnded)
    assert (ended[0].manner, ended[0].is_expected) == ("killed by SIGKILL", False)
    assert bench.sink.seen.index(stuck[0]) < bench.sink.seen.index(ended[0])
    assert bench.owner.told == [("gone", 1)]


def test_crew_takes_back_places_above_a_smaller_limit_as_they_come(bench: Bench) -> None:
    assert all(bench.tokens.take() for _ in range(10))
    bench.crew.resize_tokens(4)
    assert (bench.tokens.free(), bench.tokens.owed) == (0, 6)
    for _ in range(6):
        bench.tokens.put()
        bench.settle()
    assert (bench.tokens.free(), bench.tokens.owed) == (0, 0)
    bench.tokens.put()
    bench.settle()
    assert bench.tokens.free() == 1
    assert bench.tokens.fd not in bench.fake_watch.listening


def test_crew_abandoned_lets_its_workers_read_end_of_stream(bench: Bench) -> None:
    handle = bench.serving()
    worker = bench.worker(handle)
    worker.heard()
    bench.crew.abandon()
    assert worker.link.receive() is None
    assert len(bench.crew) == 0


def test_link_of_a_crew_is_that_of_the_system(bench: Bench) -> None:
    assert isinstance(bench.fork().link, Link)
    assert bench.system.workers[0].link.send(Ready())
