"""Waiting for what has no event: a condition that becomes true, looked at again and again.

Promises  returns as soon as the condition holds; fails, saying which, when it does not in time.
Note      prefer an event, a socket or a thread's end; this is for conditions inside the kernel.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from moorage.deadline import Deadline

from .sockets import PATIENCE

T = TypeVar("T")

LOOK_EVERY = 0.002


def eventually(predicate: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first true answer of the predicate."""
    deadline, pause = Deadline(seconds), threading.Event()
    while not (answer := predicate()):
        if deadline.is_due():
            raise AssertionError(f"never came true: {inspect.getsource(predicate).strip()}")
        pause.wait(LOOK_EVERY)
    return answer


def is_asleep(thread: threading.Thread) -> bool:
    """Whether the kernel has this thread waiting: in a read, in `poll`, for a lock."""
    with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


class Running:
    """A call under way in a thread of its own; see `in_thread`."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._result: object = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> object:
        """What the call returned; raises what it raised; fails when it does not end."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the call does not return"
        if self._error is not None:
            raise self._error
        return self._result

    def error(self) -> BaseException | None:
        """What the call raised."""
        try:
            self.result()
        except BaseException as error:
            return error
        return None

    def wait_asleep(self) -> None:
        """Wait until the call waits for something."""
        eventually(lambda: is_asleep(self.thread))


@contextmanager
def in_thread(call: Callable[[], object]) -> Iterator[Running]:
    """Make this call in another thread, which has ended when the `with` block ends."""
    running = Running(call)
    yield running
    running.thread.join(PATIENCE)
    assert not running.thread.is_alive(), "the call does not return"
