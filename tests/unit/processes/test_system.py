"""System: the real calls, with real children."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from moorage.deadline import monotonic
from moorage.processes.link import Ready
from moorage.processes.system import UNKNOWN, System
from support.sockets import PATIENCE
from support.waiting import eventually


@pytest.fixture
def child() -> Iterator[int]:
    """A child that waits for its end."""
    pid = fork(hold=True)
    yield pid
    System().kill(pid, signal.SIGKILL)
    System().wait(pid)


def fork(status: int = 0, hold: bool = False) -> int:
    system = System()
    pid = system.fork()
    if pid == 0:
        if hold:
            signal.pause()
        system.exit(status)
    return pid


def has_ended(pid: int) -> bool:
    fd = os.pidfd_open(pid)
    try:
        return bool(select.select([fd], [], [], PATIENCE)[0])
    finally:
        os.close(fd)


def test_system_waits_for_a_child_without_blocking(child: int) -> None:
    assert System().wait(child) is None
    System().kill(child, signal.SIGTERM)
    assert has_ended(child)
    assert System().wait(child) == signal.SIGTERM


def test_system_tells_the_status_that_a_child_left() -> None:
    pid = fork(7)
    assert has_ended(pid)
    status = System().wait(pid)
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == 7


def test_system_asked_for_a_child_that_others_reaped_says_unknown() -> None:
    pid = fork()
    os.waitpid(pid, 0)
    assert System().wait(pid) == UNKNOWN
    assert os.waitstatus_to_exitcode(UNKNOWN) == 255


def test_system_signal_to_a_process_that_is_gone_is_lost() -> None:
    pid = fork()
    os.waitpid(pid, 0)
    System().kill(pid, signal.SIGTERM)


def test_system_tells_the_memory_of_a_process_and_nothing_of_one_that_is_gone(child: int) -> None:
    assert (System().memory(child) or 0) > 1 << 20
    System().kill(child, signal.SIGKILL)
    eventually(lambda: System().wait(child))
    assert System().memory(child) is None


def test_system_is_the_first_process_only_in_a_container_of_its_own() -> None:
    assert System().is_init() is (os.getpid() == 1)


def test_system_clock_is_that_of_the_house() -> None:
    before = monotonic()
    assert before <= System().now() <= monotonic()


def test_system_links_speak_with_each_other() -> None:
    ours, theirs = System().links()
    assert theirs.send(Ready())
    assert ours.receive() == Ready()
    ours.close()
    theirs.close()


def test_system_takes_away_orphans_and_leaves_its_own() -> None:
    """In a process of its own: here it would take the children of other tests."""
    pid = os.fork()
    if pid == 0:
        os._exit(_adopt())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _adopt() -> int:
    system = System()
    system.reap_orphans(())  # without any child
    stranger = fork()
    if not has_ended(stranger):
        return 1
    system.reap_orphans(())
    if system.wait(stranger) != UNKNOWN:
        return 2
    own = fork(3)
    if not has_ended(own):
        return 3
    system.reap_orphans({own})
    return 0 if system.wait(own) == 3 << 8 else 4
