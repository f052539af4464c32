"""Waking: the end of a child and a signal end the wait of a Watch."""

import os
import signal

import pytest

from moorage.processes.waking import Waking
from moorage.watch import Watch
from support.sockets import PATIENCE


@pytest.fixture
def before() -> object:
    return signal.getsignal(signal.SIGCHLD)


def test_waking_ends_the_wait_when_a_child_ends(before: object) -> None:
    watch = Watch()
    with Waking(watch):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        watch.call_at(watch._clock() + PATIENCE, lambda: pytest.fail("nothing woke the watch"))
        watch.turn()
        while os.waitpid(pid, os.WNOHANG)[0] == 0:  # it was woken by something else, such as the timer's slot
            watch.turn()
    watch.close()
    assert signal.getsignal(signal.SIGCHLD) is before


def test_waking_puts_back_what_was_there() -> None:
    def mine(_number: int, _frame: object) -> None: ...

    watch = Watch()
    before = signal.signal(signal.SIGCHLD, mine)
    try:
        with Waking(watch):
            assert signal.getsignal(signal.SIGCHLD) is not mine
        assert signal.getsignal(signal.SIGCHLD) is mine
    finally:
        signal.signal(signal.SIGCHLD, before)
        watch.close()


def test_waking_forgotten_in_a_worker_leaves_nothing_of_it_open() -> None:
    watch = Watch()
    with Waking(watch) as waking:
        pid = os.fork()
        if pid == 0:
            waking.forget()
            is_forgotten = signal.set_wakeup_fd(-1) == -1 and not waking._fds
            os._exit(0 if is_forgotten else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert signal.set_wakeup_fd(-1) >= 0  # ours is still there
    watch.close()
