"""A fake of the calls that make, tell and wait for processes.

Owns      scripted processes: they fork when asked, end when the test says so, and remember what they were told.
Promises  the pidfds are real descriptors (eventfds), so that pollers work on them.
"""

import os
from typing import NoReturn

from moorage.runners.children import Child, OperatingSystem

__all__ = ["FakeSystem", "Left"]


class Left(BaseException):
    """A fake child left with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class FakeSystem(OperatingSystem):
    """Hands out pids from 1001 on; `pidfds=False` is a system without pidfds."""

    def __init__(self, *, pidfds: bool = True) -> None:
        self.pidfds = pidfds
        #: make the next fork return in the child
        self.be_the_child = False
        #: raise this from the next fork
        self.fork_error: OSError | None = None
        self.told: list[tuple[int, int]] = []
        self.asked: list[int] = []
        self._last = 1000
        self._eventfds: dict[int, int] = {}
        self._statuses: dict[int, int | None] = {}

    def fork(self) -> int:
        """The next pid, 0 in the child."""
        if self.fork_error is not None:
            raise self.fork_error
        if self.be_the_child:
            return 0
        self._last += 1
        return self._last

    def exit(self, status: int) -> NoReturn:
        """Leave the fake child."""
        raise Left(status)

    def open_pidfd(self, pid: int) -> int | None:
        """An eventfd in the place of a pidfd."""
        if not self.pidfds:
            return None
        self._eventfds[pid] = os.eventfd(0)
        return self._eventfds[pid]

    def tell(self, child: Child, signum: int) -> None:
        """Remember the signal."""
        self.told.append((child.pid, signum))

    def wait(self, pid: int) -> tuple[bool, int | None]:
        """What `end()` said of this pid."""
        self.asked.append(pid)
        return pid in self._statuses, self._statuses.get(pid)

    def end(self, pid: int, status: int | None = 0) -> None:
        """Let a fake process end."""
        self._statuses[pid] = status
        if pid in self._eventfds:
            os.eventfd_write(self._eventfds.pop(pid), 1)
