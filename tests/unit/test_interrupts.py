"""Signals that end the wait of a Watch."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from moorage.interrupts import woken_by_signals
from moorage.watch import Watch

SOON = 10.0


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


@pytest.fixture(autouse=True)
def _sigint_as_in_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def heard() -> Iterator[list[int]]:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGUSR1, before)


def test_signal_before_the_wait_ends_the_wait(watch: Watch, heard: list[int]) -> None:
    with woken_by_signals(watch):
        os.kill(os.getpid(), signal.SIGUSR1)
        watch.turn(SOON)  # would last, since the system call is not interrupted any more
        assert heard == [signal.SIGUSR1]


def test_signal_that_was_heard_does_not_end_the_next_wait(watch: Watch, heard: list[int]) -> None:
    with woken_by_signals(watch):
        os.kill(os.getpid(), signal.SIGUSR1)
        watch.turn(SOON)
        late: list[bool] = []
        watch.call_at(0.0, lambda: late.append(True))
        watch.turn(SOON)
    assert heard == [signal.SIGUSR1]
    assert late == [True]


def test_wakeup_fd_is_gone_afterwards(watch: Watch) -> None:
    with woken_by_signals(watch):
        pass
    assert signal.set_wakeup_fd(-1) == -1


def test_wakeup_fd_of_somebody_else_stays(watch: Watch) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(write)
    try:
        with woken_by_signals(watch):
            assert signal.set_wakeup_fd(write) == write
        assert signal.set_wakeup_fd(before) == write
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def test_other_thread_leaves_the_wakeup_fd_alone(watch: Watch) -> None:
    entered = threading.Event()
    leave = threading.Event()

    def serve() -> None:
        with woken_by_signals(watch):
            entered.set()
            leave.wait(SOON)

    thread = threading.Thread(target=serve)
    thread.start()
    assert entered.wait(SOON)
    assert signal.set_wakeup_fd(-1) == -1
    leave.set()
    thread.join(SOON)


def test_ctrl_c_is_known_before_and_after_the_watch_has_heard_of_it(watch: Watch) -> None:
    with woken_by_signals(watch) as ctrl_c:
        assert not ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert ctrl_c()
        watch.turn(0)
        assert ctrl_c()
    assert ctrl_c()


def test_ctrl_c_that_the_watch_has_heard_first_is_remembered(watch: Watch) -> None:
    with woken_by_signals(watch) as ctrl_c:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        watch.turn(0)
        assert ctrl_c()


def test_other_signals_are_no_ctrl_c(watch: Watch, heard: list[int]) -> None:
    with woken_by_signals(watch) as ctrl_c:
        signal.raise_signal(signal.SIGUSR1)
        assert not ctrl_c()
        watch.turn(0)
        assert not ctrl_c()
    assert heard == [signal.SIGUSR1]


def test_ctrl_c_may_have_come_where_somebody_else_hears_the_signals(watch: Watch) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(write)
    try:
        with woken_by_signals(watch) as ctrl_c:
            assert ctrl_c()
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def test_ctrl_c_never_comes_to_another_thread(watch: Watch) -> None:
    answers: list[bool] = []

    def serve() -> None:
        with woken_by_signals(watch) as ctrl_c:
            answers.append(ctrl_c())

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(SOON)
    assert answers == [False]
