"""System: the calls by which a supervisor makes, tells and waits for processes.

Owns      the calls of the operating system, and the clock; tests put a fake in its place.
Promises  a signal to a process that is gone is lost; waiting never blocks, and only for a process that is asked
          for by its number; what an orphan leaves is taken away where this process is the first of its system.
Refuses   to wait for any child (`waitpid(-1)`): that takes the exit status from `subprocess` and from the program.
"""

import os
from collections.abc import Container
from typing import NoReturn

from ..deadline import monotonic
from .link import Link, make_links

#: what a process left whose status somebody else has taken: an exit status that says "unknown"
UNKNOWN = 255 << 8
_PAGE = os.sysconf("SC_PAGE_SIZE")


class System:
    """This operating system."""

    def fork(self) -> int:
        """As `os.fork`."""
        return os.fork()

    def links(self) -> tuple[Link, Link]:
        """The link of a worker that is to be forked: our end, and its own."""
        return make_links()

    def exit(self, status: int) -> NoReturn:
        """As `os._exit`: no cleanup of the parent's things runs in a child."""
        os._exit(status)

    def kill(self, pid: int, signum: int) -> None:
        """Send a signal; does nothing when the process is gone."""
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            pass

    def wait(self, pid: int) -> int | None:
        """The wait status of this child, None while it runs."""
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return UNKNOWN
        return status if found else None

    def now(self) -> float:
        """Seconds of a clock that is never set; the same in every process."""
        return monotonic()

    def memory(self, pid: int) -> int | None:
        """The bytes that the process holds in memory; None when it is gone, or where nobody tells."""
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return None

    def is_init(self) -> bool:
        """Whether this process is the first one (of a container), who inherits every orphan."""
        return os.getpid() == 1

    def reap_orphans(self, own: Container[int]) -> None:
        """Take away the children that have ended and are not among our own."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in own:  # one of ours ended just now: SIGCHLD brings us back
                return
            self.wait(ended.si_pid)
