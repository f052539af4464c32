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
