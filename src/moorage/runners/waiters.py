"""Waiters: how a handler waits for its socket, one way for each kind of runner.

Owns      the poll call, and for `WakeableWaiter` the eventfd by which others end it.
Promises  `wait` returns when the socket is ready, when the time is over, or after `wake`.
Refuses   to look at deadlines: the connection computes them and looks again after every return.
"""

import math
import os
import select
from typing import Protocol

_LONGEST = 2**31 - 1  # milliseconds; poll takes an int


class HasDescriptor(Protocol):
    """What is waited for."""

    def fileno(self) -> int: ...


class PlainWaiter:
    """For TCP under threads: whoever ends the connection shuts its socket down, and that wakes `poll`."""

    plain = True
    is_loop = False

    def wait(self, stream: HasDescriptor, mask: int, timeout: float | None) -> bool:
        """Whether the socket became ready in time."""
        poll = select.poll()
        poll.register(stream.fileno(), mask)
        return bool(poll.poll(_milliseconds(timeout)))

    def wake(self, stream: object = None) -> None:
        """Nothing to do."""


class WakeableWaiter:
    """For sockets that cannot be shut to wake their reader: Unix sockets, and all sockets of a forked child.

    One for each thread; a wake-up meant for its last connection only makes the next one look twice.
    """

    plain = False
    is_loop = False
    _bell = -1  # until it is made, which fails when the process has no descriptor left

    def __init__(self) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wait(self, stream: HasDescriptor, mask: int, timeout: float | None) -> bool:
        """Whether the socket became ready; False after a wake-up too."""
        poll = select.poll()
        poll.register(fd := stream.fileno(), mask)
        poll.register(self._bell, select.POLLIN)
        ready = [which for which, _ in poll.poll(_milliseconds(timeout))]
        if self._bell in ready:
            os.eventfd_read(self._bell)
        return fd in ready

    def wake(self, stream: object = None) -> None:
        """End the wait; from any thread and from signal handlers."""
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Close the eventfd."""
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def __del__(self) -> None:
        self.close()


def _milliseconds(timeout: float | None) -> int | None:
    return None if timeout is None else min(_LONGEST, math.ceil(timeout * 1000))
