"""Generation: its places, one by one; whole lives are in test_supervisor."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from moorage.events import WorkerFailed, WorkerRecycled
from moorage.processes.crew import Crew
from moorage.processes.generation import MOST_TRIES, Generation, Phase
from moorage.processes.link import End, Go, Leave
from moorage.processes.worker_handle import WorkerHandle
from support.fake_processes import Stage


class Bench:
    """A generation on a stage without a supervisor."""

    def __init__(self, count: int = 2, **settings: Any) -> None:
        self.stage = Stage(**settings)
        watch: Any = self.stage.watch
        self.told: list[object] = []
        self.crew = Crew(
            system=self.stage.system, watch=watch, events=self.stage.events, scoreboard=self.stage.scoreboard,
            tokens=self.stage.tokens, doors=lambda: self.stage.listeners,
        )  # fmt: skip
        self.generation = Generation(
            1, self.stage.plan, self.stage.listeners, count,
            crew=self.crew, system=self.stage.system, watch=watch, events=self.stage.events, random=Random(1),
        )  # fmt: skip

    def start(self) -> None:
        self.generation.start(
            lambda: self.told.append("ready"),
            lambda worker, reason, is_operator: self.told.append((reason, is_operator)),
        )

    def serve(self) -> None:
        self.start()
        for worker in self.stage.system.workers:
            worker.ready()
        self.settle()
        self.generation.go(lambda reason: self.told.append(f"hopeless: {reason}"))
        assert [worker.heard() for worker in self.stage.system.workers] == [[Go()]] * len(self.generation)
        self.told.clear()

    def settle(self, seconds: float = 0) -> None:
        self.stage.watch.pass_time(seconds)
        while self.stage.watch._do_what_is_ready():
            pass
        self.crew.reap()

    def close(self) -> None:
        self.crew.abandon()
        with self.stage:
            pass


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_generation_tells_once_when_all_are_ready(bench: Bench) -> None:
    bench.start()
    bench.stage.worker(2).ready()
    bench.settle()
    assert (bench.told, bench.generation.is_ready) == ([], False)
    bench.stage.worker(1).ready()
    bench.settle()
    assert (bench.told, bench.generation.phase) == (["ready"], Phase.BOOTING)


def test_generation_tells_once_when_it_cannot_become_ready(bench: Bench) -> None:
    bench.start()
    for worker in bench.stage.system.workers:
        worker.fail("no", is_operator=True)
    bench.settle()
    assert (bench.told, bench.generation.phase) == ([("no", True)], Phase.OVER)


def test_generation_whose_first_fork_fails_forks_nobody_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        if not forks:
            forks.append(1)
            raise OSError("none left")
        return fake()

    forks: list[int] = []
    fake = bench.stage.system.fork
    monkeypatch.setattr(bench.stage.system, "fork", fork)
    bench.start()
    assert bench.told == [("it could not be forked (none left)", False)]
    assert bench.stage.system.workers == []


def test_generation_resized_while_it_boots_waits_for_the_added_ones_too(bench: Bench) -> None:
    bench.start()
    bench.generation.resize(3)
    for worker in bench.stage.system.workers[:2]:
        worker.ready()
    bench.settle()
    assert bench.told == []
    bench.generation.resize(2)
    assert bench.told == ["ready"]
    assert bench.stage.worker(3).heard() == [End()]


def test_generation_that_is_over_is_not_resized(bench: Bench) -> None:
    bench.serve()
    bench.generation.leave([0])
    bench.generation.resize(5)
    assert len(bench.stage.system.workers) == 2
    assert [worker.heard() for worker in bench.stage.system.workers] == [[Leave((0,))]] * 2


def test_generation_that_is_over_replaces_nobody(bench: Bench) -> None:
    bench.serve()
    bench.stage.worker(1).die()
    bench.settle()  # the next one comes in half a second
    bench.generation.close(WorkerHandle.end)
    bench.stage.worker(2).die()
    bench.settle(60)
    assert len(bench.stage.system.workers) == 2


def test_generation_that_is_over_ends_who_was_to_take_over(bench: Bench) -> None:
    bench.serve()
    bench.stage.worker(1).die()
    bench.settle()
    bench.settle(1)
    bench.generation.leave()
    assert [worker.heard() for worker in bench.stage.system.workers[1:]] == [[Leave()], [End()]]


def test_generation_tries_a_fork_that_fails_again(bench: Bench) -> None:
    bench.serve()
    bench.stage.watch.now += 20
    bench.stage.system.fork_error = BlockingIOError("no processes")
    bench.stage.worker(1).die()
    bench.settle()
    bench.stage.system.fork_error = None
    bench.settle(0.6)
    assert len(bench.stage.system.workers) == 3
    assert bench.stage.sink.of(WorkerFailed) == [WorkerFailed(1, 0, "it could not be forked (no processes)", 0.5)]


def test_generation_gives_up_when_nobody_is_left_and_no_try_goes_well() -> None:
    bench = Bench(1)
    bench.serve()
    bench.stage.watch.now += 20
    bench.stage.worker(1).die()
    bench.settle()
    for attempt in range(MOST_TRIES):
        assert bench.told == []
        assert len(bench.stage.system.workers) == 2 + attempt
        bench.stage.system.workers[-1].fail("no database")
        bench.settle()
        bench.settle(30)
    assert bench.told == ["hopeless: no database"]
    bench.close()


def test_generation_that_serves_by_one_alone_does_not_give_up(bench: Bench) -> None:
    bench.serve()
    bench.stage.watch.now += 20
    bench.stage.worker(1).die()
    bench.settle()
    for _ in range(2 * MOST_TRIES):
        bench.stage.system.workers[-1].fail("no database")
        bench.settle()
        bench.settle(31)
    assert bench.told == []


def test_generation_does_not_give_up_while_another_place_is_about_to_have_a_worker(bench: Bench) -> None:
    bench.serve()
    bench.stage.watch.now += 20
    for worker in bench.stage.system.workers:
        worker.die()
    bench.settle()
    slow = bench.stage.system.workers[-1]
    failing = bench.stage.system.workers[-2]
    for _ in range(MOST_TRIES):
        failing.fail("no database")
        bench.settle()
        bench.settle(30)
        failing = bench.stage.system.workers[-1]
    assert (slow.is_alive, bench.told) == (True, [])


def test_generation_counts_only_failures_in_a_row() -> None:
    bench = Bench(1)
    bench.serve()
    for _ in range(3):
        bench.stage.watch.now += 20
        bench.stage.system.workers[-1].die()
        bench.settle()
        for _ in range(MOST_TRIES - 1):
            bench.stage.system.workers[-1].fail("no database")
            bench.settle()
            bench.settle(31)
        bench.stage.system.workers[-1].ready()
        bench.settle()
    assert bench.told == []
    bench.close()


def test_generation_forgets_failures_when_a_worker_becomes_ready() -> None:
    bench = Bench(1)
    bench.serve()
    for _ in range(2 * MOST_TRIES):
        bench.stage.system.workers[-1].die()
        bench.settle()
        bench.settle(31)
        bench.stage.system.workers[-1].ready()
        bench.settle()
    assert bench.told == []
    bench.close()


def test_generation_recycles_a_worker_that_is_due_and_tells_it_once() -> None:
    bench = Bench(recycle_age=100.0)
    bench.serve()
    bench.settle(120)
    for _ in range(3):
        bench.generation.recycle()
    assert len(bench.stage.system.workers) == 3
    bench.stage.worker(3).fail("no memory")
    bench.settle()
    bench.generation.recycle()  # its next try is to come; the other place is due, too
    assert len(bench.stage.system.workers) == 4
    bench.settle(1)
    for worker in bench.stage.system.workers[3:]:
        worker.ready()
    bench.settle()
    assert [worker.heard() for worker in bench.stage.system.workers[:2]] == [[Leave()]] * 2
    assert [event.number for event in bench.stage.sink.of(WorkerRecycled)] == [1, 2]
    bench.close()


def test_generation_goes_on_with_the_next_when_the_recycled_one_dies_first() -> None:
    bench = Bench(recycle_age=100.0)
    bench.serve()
    bench.settle(120)
    bench.generation.recycle()
    bench.stage.worker(1).die()
    bench.settle(5)
    assert len(bench.stage.system.workers) == 3
    bench.stage.worker(3).ready()
    bench.settle()
    assert bench.stage.worker(3).heard() == [Go()]
    bench.close()
