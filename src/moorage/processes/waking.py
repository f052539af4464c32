"""Waking: what ends the wait of a supervisor, besides descriptors and timers.

Owns      the handler of SIGCHLD, and the descriptor that signals wake by, while within.
Promises  the end of any child ends the wait; a worker does not wake its supervisor; afterwards all is as before.
Refuses   to reap: each child is waited for by whoever forked it.
"""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Self

from ..interrupts import Watch, woken_by_signals


class Waking:
    """While entered, signals and the ends of children wake this Watch; for the main thread."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._fds: set[int] = set()
        self._within = ExitStack()

    def __enter__(self) -> Self:
        self._within.enter_context(woken_by_signals(self))
        # Without a handler of its own nobody is told of this signal.
        before = signal.signal(signal.SIGCHLD, _hear)
        self._within.callback(signal.signal, signal.SIGCHLD, signal.SIG_DFL if before is None else before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._within.close()

    def forget(self) -> None:
        """In a worker: close both ends of what wakes the supervisor."""
        fd = signal.set_wakeup_fd(-1)
        for one in {*self._fds, *([fd] if fd >= 0 else [])}:
            os.close(one)
        self._fds.clear()

    # As the Watch of `woken_by_signals`, to know its descriptor

    def listen(self, fd: int, call: Callable[[], None]) -> None:
        """Wait for it."""
        self._fds.add(fd)
        self._watch.listen(fd, call)

    def unlisten(self, fd: int) -> None:
        """Wait for it no more."""
        self._fds.discard(fd)
        self._watch.unlisten(fd)


def _hear(_number: int, _frame: FrameType | None) -> None:
    """The interpreter has written to the descriptor that wakes; no more is needed."""
