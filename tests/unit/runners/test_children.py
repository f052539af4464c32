"""Unit tests of `moorage.runners.children`: the fake for the rules, real forks for the facts."""

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from moorage.deadline import Deadline
from moorage.runners.children import Child, Children, OperatingSystem
from support.fake_os import FakeSystem, Left

SOON = 10.0


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


@pytest.fixture
def make() -> Iterator[Callable[..., Children]]:
    made: list[Children] = []

    def maker(*args: object, **kwargs: object) -> Children:
        made.append(Children(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield maker
    for children in made:
        children.close()


@pytest.fixture
def real(make: Callable[..., Children]) -> Iterator[Children]:
    """A registry of real processes that leaves none behind."""
    children = make(8)
    yield children
    children.tell_all(signal.SIGKILL)
    assert children.wait(Deadline(SOON))


def hang() -> int:
    """A child that only a signal ends."""
    while True:
        signal.pause()


def kinds_of_descriptors() -> list[str]:
    """What the descriptors of this process are, as the kernel calls them."""
    kinds = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own is gone by now
            kinds.append(os.readlink(f"/proc/self/fd/{number}"))
    return kinds


def readable(children: Children, seconds: float = SOON) -> bool:
    return bool(select.select([children], [], [], seconds)[0])


class TestRules:
    def test_fork_at_the_limit_refuses_as_the_system_would(
        self, make: Callable[..., Children], system: FakeSystem
    ) -> None:
        children = make(2, system=system)
        children.fork(hang)
        assert [children.full, children.fork(hang).ended, children.full] == [False, False, True]
        with pytest.raises(BlockingIOError) as caught:
            children.fork(hang)
        assert caught.value.errno == errno.EAGAIN
        assert children.pids == {1001, 1002}

    def test_reap_frees_a_place_and_reports_each_end_once(
        self, make: Callable[..., Children], system: FakeSystem
    ) -> None:
        ends: list[tuple[int, int | None]] = []
        children = make(2, lambda child, status: ends.append((child.pid, status)), system)
        first, second = children.fork(hang), children.fork(hang)
        system.end(second.pid, -9)
        assert children.reap() == 1
        assert children.reap() == 0
        assert ends == [(second.pid, -9)]
        assert (second.ended, second.status, second.pidfd) == (True, -9, None)
        assert not first.ended
        assert children.pids == {first.pid}
        assert not children.full

    def test_reap_asks_only_for_those_that_ended(self, make: Callable[..., Children], system: FakeSystem) -> None:
        children = make(50, system=system)
        forked = [children.fork(hang) for _ in range(50)]
        system.end(forked[17].pid)
        children.reap()
        assert system.asked == [forked[17].pid]

    def test_reap_without_pidfds_asks_for_each_own_pid(self, make: Callable[..., Children]) -> None:
        system = FakeSystem(pidfds=False)
        children = make(3, system=system)
        forked = [children.fork(hang) for _ in range(3)]
        system.end(forked[0].pid, 5)
        assert children.reap() == 1
        assert system.asked == [child.pid for child in forked]
        assert forked[0].status == 5

    def test_reap_of_a_child_that_others_reaped_gives_no_status(
        self, make: Callable[..., Children], system: FakeSystem
    ) -> None:
        ends: list[int | None] = []
        children = make(1, lambda _, status: ends.append(status), system)
        system.end(children.fork(hang).pid, None)
        children.reap()
        assert ends == [None]
        assert not children.pids

    def test_tell_after_the_end_reaches_nobody(self, make: Callable[..., Children], system: FakeSystem) -> None:
        children = make(2, system=system)
        gone, alive = children.fork(hang), children.fork(hang)
        system.end(gone.pid)
        children.reap()
        children.tell(gone, signal.SIGTERM)
        children.tell_all(signal.SIGTERM)
        assert system.told == [(alive.pid, signal.SIGTERM)]

    def test_stop_tells_by_term_and_after_the_grace_by_kill(self, make: Callable[..., Children]) -> None:
        class Stubborn(FakeSystem):
            def tell(self, child: Child, signum: int) -> None:
                super().tell(child, signum)
                if signum == signal.SIGKILL or child.pid == 1001:
                    self.end(child.pid, -signum)

        system = Stubborn()
        children = make(2, system=system)
        polite, stubborn = children.fork(hang), children.fork(hang)
        children.stop(grace=0.01)
        assert (polite.status, stubborn.status) == (-signal.SIGTERM, -signal.SIGKILL)
        assert (polite.pid, signal.SIGKILL) not in system.told

    def test_fork_that_fails_changes_nothing(self, make: Callable[..., Children], system: FakeSystem) -> None:
        children = make(1, system=system)
        system.fork_error = OSError(errno.ENOMEM, "no memory")
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with pytest.raises(OSError, match="no memory"):
            children.fork(hang, block={signal.SIGUSR1})
        assert not children.pids
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask

    def test_child_closes_runs_and_leaves_in_this_order(
        self, make: Callable[..., Children], system: FakeSystem
    ) -> None:
        children, steps = make(2, system=system), list[str]()
        children.fork(hang)
        system.be_the_child = True

        def run() -> int:
            steps.append(f"run with {len(children)} children")
            return 7

        with pytest.raises(Left) as left:
            children.fork(run, close=lambda: steps.append("close"))
        assert left.value.status == 7
        assert steps == ["close", "run with 0 children"]

    @pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
    def test_child_left_by_an_exit_is_silent_with_status_1(
        self,
        make: Callable[..., Children],
        system: FakeSystem,
        capsys: pytest.CaptureFixture[str],
        error: BaseException,
    ) -> None:
        system.be_the_child = True

        def run() -> int:
            raise error

        with pytest.raises(Left) as left:
            make(1, system=system).fork(run)
        assert left.value.status == 1
        assert capsys.readouterr().err == ""

    def test_child_left_by_an_error_shows_its_traceback(
        self, make: Callable[..., Children], system: FakeSystem, capsys: pytest.CaptureFixture[str]
    ) -> None:
        system.be_the_child = True
        with pytest.raises(Left) as left:
            make(1, system=system).fork(lambda: 1 // 0)
        assert left.value.status == 1
        assert "ZeroDivisionError" in capsys.readouterr().err


class TestProcesses:
    def test_child_runs_and_its_status_arrives(self, real: Children) -> None:
        child = real.fork(lambda: 7)
        assert child.pid in real.pids
        assert readable(real)
        assert real.reap() == 1
        assert child.status == 7

    def test_child_killed_gives_a_negative_status(self, real: Children) -> None:
        child = real.fork(hang)
        real.tell(child, signal.SIGKILL)
        assert real.wait(Deadline(SOON))
        assert child.status == -signal.SIGKILL

    def test_fileno_is_quiet_while_all_work(self, real: Children) -> None:
        real.fork(hang)
        assert not readable(real, 0.0)

    def test_reap_works_without_pidfds(self, make: Callable[..., Children]) -> None:
        class Old(OperatingSystem):
            def open_pidfd(self, pid: int) -> int | None:
                return None

        children = make(3, system=Old())
        forked = [children.fork(lambda: 3), children.fork(hang)]
        assert children.wait(Deadline(SOON), at_most=1)
        assert forked[0].status == 3
        children.stop()
        assert forked[1].status == -signal.SIGTERM

    def test_wait_ends_at_its_deadline(self, real: Children) -> None:
        real.fork(hang)
        assert not real.wait(Deadline(0.01))

    def test_stop_kills_a_child_that_ignores_term(self, real: Children) -> None:
        ready, say = os.pipe()

        def stubborn() -> int:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(say, b"!")
            return hang()

        child = real.fork(stubborn)
        assert os.read(ready, 1) == b"!"
        real.stop(grace=0.05)
        assert child.status == -signal.SIGKILL
        os.close(ready)
        os.close(say)

    def test_exit_statuses_of_the_programs_own_subprocesses_are_not_stolen(self, real: Children) -> None:
        own = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])
        os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
        real.fork(lambda: 0)
        assert real.wait(Deadline(SOON))
        assert own.wait() == 7

    def test_status_that_others_took_is_none(self, real: Children) -> None:
        child = real.fork(lambda: 4)
        os.waitpid(child.pid, 0)
        assert real.wait(Deadline(SOON))
        assert child.ended
        assert child.status is None

    def test_signals_held_back_reach_the_child_when_it_lets_them_in(self, real: Children) -> None:
        told, say = os.pipe()

        def run() -> int:
            os.read(told, 1)
            seen = list[int]()
            signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            return 42 if seen else 1

        child = real.fork(run, block={signal.SIGUSR1})
        real.tell(child, signal.SIGUSR1)
        os.write(say, b"!")
        assert real.wait(Deadline(SOON))
        assert child.status == 42
        os.close(told)
        os.close(say)

    def test_child_has_none_of_the_registrys_descriptors(self, real: Children) -> None:
        real.fork(hang)
        answer, say = os.pipe()

        def run() -> int:
            os.write(say, "\n".join(kinds_of_descriptors()).encode())
            return 0

        real.fork(run)
        os.close(say)
        with open(answer, "rb") as stream:
            inherited = stream.read().decode()
        assert "pipe:" in inherited
        assert "pidfd" not in inherited
        assert "eventpoll" not in inherited

    def test_nothing_is_left_behind(self, make: Callable[..., Children]) -> None:
        before = len(os.listdir("/proc/self/fd"))
        children = make(4)
        for _ in range(4):
            children.fork(hang)
        children.stop()
        children.close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_output_is_flushed_once_and_exit_handlers_do_not_run(self) -> None:
        program = (
            "import atexit, os, sys\n"
            "from moorage.deadline import Deadline\n"
            "from moorage.runners.children import Children\n"
            "atexit.register(lambda: print('exit handler of', 'parent' if os.getpid() == parent else 'child'))\n"
            "parent = os.getpid()\n"
            "print('buffered before')\n"
            "children = Children(1)\n"
            "children.fork(lambda: print('from the child') or 0)\n"
            "children.wait(Deadline(10))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
        assert done.stderr == ""
        assert done.stdout.splitlines() == ["buffered before", "from the child", "exit handler of parent"]

    def test_fork_in_a_process_that_inherited_the_registry_starts_anew(self, real: Children) -> None:
        outer = real.fork(hang)

        def run() -> int:
            mine = real.fork(lambda: 5)
            real.wait(Deadline(SOON))
            return 0 if mine.status == 5 and outer.pid not in real.pids else 1

        middle = real.fork(run)
        assert real.wait(Deadline(SOON), at_most=1)
        assert middle.status == 0
        assert real.pids == {outer.pid}
        real.tell(outer, signal.SIGKILL)
        assert real.wait(Deadline(SOON))

    def test_reap_by_many_threads_reports_each_end_once(self, make: Callable[..., Children]) -> None:
        ends: list[int] = []
        children = make(20, lambda child, status: ends.append(child.pid))
        forked = {children.fork(lambda: 0).pid for _ in range(20)}
        threads = [threading.Thread(target=children.wait, args=(Deadline(SOON),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        children.reap()
        assert sorted(ends) == sorted(forked)
