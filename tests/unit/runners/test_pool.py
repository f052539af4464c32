"""ThreadPool: bounded, in order, reused, trimmed, and ended by nothing that a job raises."""

import errno
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from moorage.runners import pool as module
from moorage.runners.pool import ThreadPool
from support.waiting import eventually, in_thread

SOON = 20.0


class Job:
    """Says when it runs, and runs until it may leave."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.thread: threading.Thread | None = None
        self.has_begun = threading.Event()
        self.may_leave = threading.Event()

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.has_begun.set()
        assert self.may_leave.wait(SOON)

    def wait(self) -> None:
        assert self.has_begun.wait(SOON)


class Kept:
    """How many threads of a pool are kept where a test does not say."""

    threads = 0


@pytest.fixture(params=[0, 8], ids=["trimmed", "kept"], autouse=True)
def kept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with threads that wait on a lock, and with threads that wait on a descriptor."""
    Kept.threads = request.param
    yield
    Kept.threads = 0


@contextmanager
def pool_of(limit: int, **options: object) -> Iterator[ThreadPool]:
    pool = ThreadPool(limit, **{"keep": Kept.threads, **options})  # type: ignore[arg-type]
    yield pool
    assert pool.stop(SOON) == []


def run(pool: ThreadPool, job: Callable[[], None]) -> threading.Thread:
    """Run one job to its end; returns its thread."""
    threads: list[threading.Thread] = []
    done = threading.Event()

    def call() -> None:
        threads.append(threading.current_thread())
        done.set()
        job()

    pool.submit(call)
    assert done.wait(SOON)
    eventually(lambda: pool.busy == 0)
    return threads[0]


def nothing() -> None:
    pass


def test_pool_never_has_more_threads_than_its_limit() -> None:
    with pool_of(3) as pool:
        jobs = [Job() for _ in range(10)]
        placed = [pool.submit(job) for job in jobs]
        for job in jobs[:3]:
            job.wait()
        assert placed == [True] * 3 + [False] * 7
        assert (pool.busy, pool.idle, pool.queued) == (3, 0, 7)
        assert not any(job.has_begun.is_set() for job in jobs[3:])
        for job in jobs:
            job.may_leave.set()
        for job in jobs:
            job.wait()
        assert len({job.thread for job in jobs}) <= 3


def test_jobs_that_wait_start_in_the_order_they_came() -> None:
    started: list[int] = []
    with pool_of(1) as pool:
        first = Job()
        pool.submit(first)
        for number in range(20):
            pool.submit(lambda number=number: started.append(number))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        first.may_leave.set()
        eventually(lambda: len(started) == 20)
    assert started == list(range(20))


def test_no_thread_is_made_before_a_job_and_none_more_than_needed() -> None:
    with pool_of(100) as pool:
        assert pool.threads == ()
        threads = {run(pool, nothing) for _ in range(5)}
        assert len(threads) == 1


def test_last_idle_thread_is_used_first() -> None:
    with pool_of(2) as pool:
        first, second = Job(), Job()
        pool.submit(first)
        pool.submit(second)
        first.wait()
        second.wait()
        first.may_leave.set()
        eventually(lambda: pool.idle == 1)
        second.may_leave.set()
        eventually(lambda: pool.idle == 2)
        assert run(pool, nothing) is second.thread


def test_idle_threads_end_after_their_time() -> None:
    with pool_of(5, idle_seconds=0.01, keep=0) as pool:
        thread = run(pool, nothing)
        thread.join(SOON)
        assert not thread.is_alive()
        assert (pool.threads, pool.idle, pool.busy) == ((), 0, 0)
        assert run(pool, nothing) is not thread


def test_job_given_at_the_last_moment_of_the_idle_wait_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran_in: list[threading.Thread] = []
    answers: list[bool] = []
    with pool_of(1, idle_seconds=0.001, keep=0) as pool:
        decide = pool._give_up_waiting

        def decide_too_late(thread: Any) -> bool:
            if not answers:
                assert pool.submit(lambda: ran_in.append(threading.current_thread()))
            answers.append(decide(thread))
            return answers[-1]

        monkeypatch.setattr(pool, "_give_up_waiting", decide_too_late)
        thread = run(pool, nothing)
        thread.join(SOON)
        assert not thread.is_alive()
    assert ran_in == [thread]
    assert answers == [False, True]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
def test_job_that_raises_is_reported_and_costs_no_thread(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr("threading.excepthook", lambda args: reported.append(args.exc_type))

    def fail() -> None:
        raise error

    with pool_of(1) as pool:
        thread = run(pool, fail)
        assert run(pool, nothing) is thread
    assert reported == [error]


@pytest.mark.parametrize("failure", [BrokenPipeError, ValueError])
def test_job_that_raises_where_nothing_can_be_reported_costs_no_thread(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard error of a daemon may be a closed pipe."""

    def report(_: object) -> None:
        raise failure

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("threading.excepthook", report)
    with pool_of(1) as pool:
        thread = run(pool, fail)
        assert run(pool, nothing) is thread


def test_job_that_exits_is_silent_and_costs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.excepthook", lambda _: pytest.fail("sys.exit in a thread is silent"))

    def leave() -> None:
        raise SystemExit(3)

    with pool_of(1) as pool:
        assert run(pool, leave) is run(pool, nothing)


def test_idle_thread_keeps_no_job_alive() -> None:
    class Connection:
        pass

    with pool_of(1) as pool:
        connection = Connection()
        gone = weakref.ref(connection)
        run(pool, lambda connection=connection: None)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        del connection
        eventually(lambda: gone() is None)


def test_job_that_waits_can_be_withdrawn() -> None:
    with pool_of(1) as pool:
        first, second = Job(), Job()
        pool.submit(first)
        first.wait()
        pool.submit(second)
        assert pool.withdraw(second)
        assert not pool.withdraw(second)
        assert not pool.withdraw(first)
        assert not pool.withdraw(nothing)
        assert pool.queued == 0
        first.may_leave.set()
    assert not second.has_begun.is_set()


def test_stop_ends_idle_threads_and_waits_for_busy_ones() -> None:
    pool = ThreadPool(2)
    idle = run(pool, nothing)
    job = Job()
    pool.submit(job)
    job.wait()
    job.may_leave.set()
    assert pool.stop(SOON) == []
    assert not idle.is_alive()
    assert (pool.threads, pool.busy, pool.idle) == ((), 0, 0)


def test_stop_joins_threads_that_were_idle() -> None:
    """No thread of ours survives."""
    for _ in range(50):
        pool = ThreadPool(1)
        thread = run(pool, nothing)
        pool.stop(SOON)
        assert not thread.is_alive()


def test_stop_gives_up_after_its_time_and_says_who_is_busy() -> None:
    pool = ThreadPool(1)
    job = Job()
    pool.submit(job)
    job.wait()
    assert pool.stop(0) == [job.thread]
    job.may_leave.set()
    assert pool.stop(SOON) == []


def test_stop_still_runs_jobs_that_wait() -> None:
    pool = ThreadPool(1)
    first, second = Job(), Job()
    pool.submit(first)
    pool.submit(second)
    first.wait()
    pool.stop(0)
    first.may_leave.set()
    second.may_leave.set()
    assert pool.stop(SOON) == []
    assert second.has_begun.is_set()


def test_stop_from_a_thread_of_the_pool_does_not_wait_for_itself() -> None:
    pool = ThreadPool(2)
    results: list[list[threading.Thread]] = []
    done = threading.Event()

    def stop() -> None:
        results.append(pool.stop(SOON))
        done.set()

    pool.submit(stop)
    assert done.wait(SOON)
    assert len(results[0]) == 1
    results[0][0].join(SOON)
    assert pool.threads == ()


def test_job_after_stop_is_run_and_its_thread_ends() -> None:
    pool = ThreadPool(1)
    run(pool, nothing)
    pool.stop(SOON)
    thread = run(pool, nothing)
    thread.join(SOON)
    assert not thread.is_alive()


def test_pool_without_reuse_has_a_fresh_thread_for_each_job_and_its_limit() -> None:
    with pool_of(2, reuse=False) as pool:
        jobs = [Job() for _ in range(6)]
        for job in jobs:
            pool.submit(job)
        jobs[0].wait()
        jobs[1].wait()
        assert pool.busy == 2
        assert pool.queued == 4
        for job in jobs:
            job.may_leave.set()
        for job in jobs:
            job.wait()
        assert len({job.thread for job in jobs}) == 6


def test_threads_bear_the_name_of_the_pool_and_hold_up_no_exit() -> None:
    with pool_of(1, name="harbour") as pool:
        thread = run(pool, nothing)
        assert thread.name.startswith("harbour-")
        assert thread.daemon


def test_system_without_threads_says_so_when_there_is_none_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(2)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            pool.submit(nothing)
    assert (pool.threads, pool.queued) == ((), 0)


@pytest.mark.parametrize("becomes_idle", [False, True])
def test_system_without_more_threads_makes_the_job_wait_for_one(
    monkeypatch: pytest.MonkeyPatch, becomes_idle: bool
) -> None:
    with pool_of(2) as pool:
        first = Job()
        pool.submit(first)
        first.wait()
        done = threading.Event()

        def refuse(_: threading.Thread) -> None:
            if becomes_idle:  # at the very moment
                first.may_leave.set()
                eventually(lambda: pool.idle == 1)
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            pool.submit(done.set)
        first.may_leave.set()
        assert done.wait(SOON)


# Short of threads


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_jobs_that_the_system_had_no_thread_for_are_the_first_when_it_has_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    jobs = [Job(name) for name in "abc"]
    with pool_of(3) as pool:
        assert pool.submit(jobs[0])
        jobs[0].wait()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert not pool.submit(jobs[1])
        start = threading.Thread.start

        def note(thread: Any) -> None:
            started.append(thread.job.name)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", note)
        assert pool.submit(jobs[2])
        for job in jobs:
            job.wait()  # none of them has to leave for another
        assert started == ["b", "c"]
        for job in jobs:
            job.may_leave.set()


def test_job_that_waited_in_vain_is_not_run_after_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = threading.Event()
    with pool_of(2) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(ran.set)
        run(pool, nothing)
    assert not ran.is_set()


def test_pool_without_reuse_uses_a_thread_again_before_it_loses_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_of(1, reuse=False) as pool:
        first, second, third = Job(), Job(), Job()
        for job in (first, second, third):
            pool.submit(job)
        first.wait()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            first.may_leave.set()
            second.wait()
        second.may_leave.set()
        third.wait()
        third.may_leave.set()
        assert second.thread is first.thread
        assert third.thread is not first.thread


# Whoever comes in between


def test_stop_waits_for_fresh_threads_of_jobs_that_waited() -> None:
    pool = ThreadPool(1, reuse=False)
    first, second = Job(), Job()
    pool.submit(first)
    pool.submit(second)
    first.wait()
    with in_thread(lambda: pool.stop(SOON)) as stop:
        stop.wait_asleep()
        first.may_leave.set()
        second.wait()
        assert first.thread is not None
        first.thread.join(SOON)
        stop.wait_asleep()
        second.may_leave.set()
        assert stop.result() == []


def test_thread_that_becomes_idle_in_the_middle_of_submit_gets_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would wait for a job, and the job for a thread."""
    first, done = Job(), threading.Event()
    with pool_of(1) as pool:
        pool.submit(first)
        first.wait()
        look = pool._idle_thread

        def look_too_early() -> Any:
            found = look()
            if not first.may_leave.is_set():
                first.may_leave.set()
                eventually(lambda: pool.idle == 1)
            return found

        monkeypatch.setattr(pool, "_idle_thread", look_too_early)
        pool.submit(done.set)
        assert done.wait(SOON)


def test_stop_while_a_thread_is_being_started_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(1)
    start, done = threading.Thread.start, threading.Event()

    def stop_and_start(thread: threading.Thread) -> None:
        assert pool.stop(0) == []
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", stop_and_start)
        pool.submit(done.set)
    assert done.wait(SOON)
    assert pool.stop(SOON) == []
    assert pool.threads == ()


def test_submit_while_a_thread_is_being_made_keeps_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a finaliser does, which may run wherever memory is asked for."""
    first, second = Job(), Job()
    pool = ThreadPool(1)
    jobs = [second]

    class Interrupted(module._PoolThread):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            if jobs:
                pool.submit(jobs.pop())
            super().__init__(*arguments, **options)

    monkeypatch.setattr(module, "_PoolThread", Interrupted)
    pool.submit(first)
    first.wait()
    assert (len(pool.threads), pool.busy, pool.queued) == (1, 1, 1)
    first.may_leave.set()
    second.wait()
    second.may_leave.set()
    assert pool.stop(SOON) == []


@pytest.mark.parametrize("place", ["idle", "fresh", "none"])
def test_submit_from_a_signal_handler_and_a_finaliser_while_the_lock_is_held(place: str) -> None:
    with pool_of(2 if place == "fresh" else 1) as pool:
        holder, done = Job(), threading.Semaphore(0)
        placed: list[bool] = []

        class Finalised:
            def __del__(self) -> None:
                placed.append(pool.submit(done.release))

        if place == "idle":
            run(pool, nothing)
        else:
            pool.submit(holder)
            holder.wait()
        one = Finalised()
        before = signal.signal(signal.SIGUSR1, lambda *_: placed.append(pool.submit(done.release)))
        try:
            with pool._lock:
                signal.raise_signal(signal.SIGUSR1)
                del one
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert placed == [place != "none", False]
        holder.may_leave.set()
        assert done.acquire(timeout=SOON)
        assert done.acquire(timeout=SOON)


def test_jobs_from_many_threads_all_run_and_never_more_than_the_limit_at_once() -> None:
    lock = threading.Lock()
    running, most, ran = 0, 0, 0

    def job() -> None:
        nonlocal running, most, ran
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
            ran += 1

    def submit() -> None:
        for _ in range(200):
            pool.submit(job)

    with pool_of(3, idle_seconds=0.0001, keep=0) as pool:
        submitters = [threading.Thread(target=submit) for _ in range(4)]
        for one in submitters:
            one.start()
        for one in submitters:
            one.join(SOON)
        eventually(lambda: ran == 800)
        eventually(lambda: pool.threads == ())
    assert 1 <= most <= 3


def test_kept_threads_outlive_the_idle_time_and_the_others_do_not() -> None:
    with pool_of(3, idle_seconds=0.01, keep=1) as pool:
        together = threading.Barrier(3)
        threads: list[threading.Thread] = []

        def meet() -> None:
            threads.append(threading.current_thread())
            together.wait(SOON)

        for _ in range(3):
            pool.submit(meet)
        kept = pool.threads[0] if pool.threads[0].name.endswith("-1") else None
        eventually(lambda: len(threads) == 3 and len(pool.threads) == 1)
        (left,) = pool.threads
        assert left.name.endswith("-1")
        assert kept is None or kept is left
        assert run(pool, nothing) is left


def test_kept_threads_leave_no_descriptor_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pool_of(4, keep=4) as pool:
        run(pool, nothing)
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_thread_is_made_without_a_descriptor_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "none left")

    monkeypatch.setattr(os, "eventfd", refuse)
    with pool_of(1, keep=1) as pool:
        assert run(pool, nothing) is run(pool, nothing)
