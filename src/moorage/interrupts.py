"""Interrupts: no signal is slept through by a loop in the main thread.

Owns      the wake-up descriptor of the `signal` module, while a loop runs in the main thread and nobody else
          has set one.
Promises  a Python signal handler runs at once, also for a signal that comes just before the loop begins to
          wait; a Ctrl-C that was delivered can be told from an exception of the same class; everything is as
          before afterwards.
Refuses   to handle a signal: which are caught, and what they mean, is the program's affair.
Why       the interpreter only notes a signal and runs the handler between two bytecodes; one that comes
          between the last bytecode and the system call waits until the call returns, and ours has no reason
          to (`socketserver` hides this by polling twice a second).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_PIPE_BYTES = 65536  # more than can be waiting: pipe(7)


class Watch(Protocol):
    """What is to be woken."""

    def listen(self, fd: int, call: Callable[[], None]) -> None: ...
    def unlisten(self, fd: int) -> None: ...


@contextmanager
def woken_by_signals(watch: Watch) -> Iterator[Callable[[], bool]]:
    """While within, a signal ends the wait of this Watch; does nothing outside of the main thread.

    What it gives says whether a Ctrl-C has been delivered, or could have been.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before >= 0:  # an event loop around us, or a loop within a loop: it was there first
        signal.set_wakeup_fd(before)
    heard = _Heard(read)
    watch.listen(read, heard.listen)
    try:
        yield heard.ctrl_c if before < 0 else lambda: True
    finally:
        heard.is_over = True
        watch.unlisten(read)
        if before < 0:
            signal.set_wakeup_fd(-1)
        os.close(write)
        os.close(read)


class _Heard:
    """What came through the pipe: the interpreter writes the number of a signal there as it is delivered."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._has_ctrl_c = False
        self.is_over = False

    def listen(self) -> None:
        """Empty the pipe."""
        try:
            if signal.SIGINT in os.read(self._fd, _PIPE_BYTES):
                self._has_ctrl_c = True
        except BlockingIOError:
            pass

    def ctrl_c(self) -> bool:
        """Whether SIGINT was among them."""
        if not self.is_over:  # else the number may be somebody else's by now
            self.listen()
        return self._has_ctrl_c
