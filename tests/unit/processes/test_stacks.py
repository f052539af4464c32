"""The stacks of a worker that stands still, read by another process."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from moorage.processes.stacks import MOST_BYTES, StackFile, arm, fold
from support.waiting import eventually, is_asleep


@pytest.fixture
def file() -> Iterator[StackFile]:
    stacks = StackFile()
    yield stacks
    stacks.close()


class Child:
    """A forked process that is armed, and then runs a function for ever."""

    def __init__(self, file: StackFile, run: Callable[[int], object]) -> None:
        ready, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                arm(file.fd)
                run(tell)
            finally:
                os._exit(1)
        os.close(tell)
        assert os.read(ready, 1) == b"!"
        os.close(ready)

    def end_by(self, signum: int) -> int:
        """Its exit code, after this signal."""
        os.kill(self.pid, signum)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def stand_still(tell: int) -> None:
    """A wait that nothing ends, within one call of C."""
    os.write(tell, b"!")
    os.read(os.pipe()[0], 1)


def wait_for_work(work: threading.Event) -> None:
    work.wait()


def stand_still_among_others(tell: int) -> None:
    work = threading.Event()
    threads = [threading.Thread(target=wait_for_work, args=(work,), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: all(map(is_asleep, threads)))  # faulthandler may crash at the stack of one that runs
    stand_still(tell)


def test_child_that_stands_still_tells_where_it_is(file: StackFile) -> None:
    assert Child(file, stand_still).end_by(signal.SIGABRT) == -signal.SIGABRT
    stacks = file.read()
    assert " in stand_still\n" in stacks
    assert __file__ in stacks
    assert file.read() == stacks  # reading moves nothing


def test_child_with_threads_tells_all_of_them(file: StackFile) -> None:
    Child(file, stand_still_among_others).end_by(signal.SIGABRT)
    stacks = file.read()
    assert " in stand_still\n" in stacks
    assert " in wait_for_work\n" in stacks


def test_child_that_crashes_leaves_its_stacks_too(file: StackFile) -> None:
    assert Child(file, stand_still).end_by(signal.SIGSEGV) == -signal.SIGSEGV
    assert " in stand_still\n" in file.read()


def test_child_that_is_killed_tells_nothing(file: StackFile) -> None:
    assert Child(file, stand_still).end_by(signal.SIGKILL) == -signal.SIGKILL
    assert file.read() == ""


def test_child_reads_nothing_of_another_one(file: StackFile) -> None:
    other = StackFile()
    Child(file, stand_still).end_by(signal.SIGABRT)
    assert other.read() == ""
    other.close()


def test_file_that_is_too_long_is_cut_and_bytes_that_are_no_text_are_replaced(file: StackFile) -> None:
    os.pwrite(file.fd, b"\xff" + b"x" * (2 * MOST_BYTES), 0)
    stacks = file.read()
    assert len(stacks) == MOST_BYTES
    assert stacks.startswith("�x")


def test_file_is_not_inherited_by_another_program_and_may_be_closed_twice() -> None:
    file = StackFile()
    assert not os.get_inheritable(file.fd)
    file.close()
    file.close()


WAITING = '  File "pool.py", line 7 in wait\n  File "pool.py", line 3 in run'
STUCK = 'Current thread 0x03 (most recent call first):\n  File "app.py", line 9 in compute'


def test_fold_tells_threads_at_the_same_place_once() -> None:
    stacks = "\n\n".join(
        ["Fatal Python error: Aborted", *(f"Thread 0x{n} (most recent call first):\n{WAITING}" for n in "12"), STUCK]
    )
    assert fold(stacks + "\n") == "\n\n".join(
        ["Fatal Python error: Aborted", f"2 threads (most recent call first):\n{WAITING}", STUCK]
    )


def test_fold_leaves_one_thread_as_it_is() -> None:
    stacks = f"Thread 0x1 (most recent call first):\n{WAITING}\n\n{STUCK}"
    assert fold(stacks) == stacks
    assert fold("") == ""
