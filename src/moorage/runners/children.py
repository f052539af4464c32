"""Children: the forked processes of one server, bounded and reaped without blocking.

Owns      the registry of the children it forked, and one pidfd for each.
Promises  never more than `limit` at once; waits only for own pids, so that the exit status of the
          program's own subprocesses is not stolen; `reap()` never blocks and costs what has ended, not
          what is there; a signal never reaches a stranger who got the number of a dead child.
Refuses   to run exit handlers in a child: those of the parent are not the child's to run, and the
          standard library's forking server runs none either. Standard output and error are flushed.
Why       `waitpid(-1)` gave `Popen.wait()` a 0 for a child that exited 7, and a blocking wait at the
          limit hangs `shutdown()` (both measured on `socketserver`).

Whoever turns a loop watches `fileno()`, which is readable while an ended child waits to be reaped, and
calls `reap()`; without pidfds (not Linux, or out of descriptors) `reap()` asks for each pid in turn.
"""

import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn

from ..deadline import Deadline, soonest

__all__ = ["Child", "Children", "OperatingSystem", "flush_standard_streams"]

#: How often children without a pidfd are asked for while `wait()` has nothing to wait on.
POLL_SECONDS = 0.02

#: How long a child told by SIGTERM may take before SIGKILL.
GRACE_SECONDS = 1.0

#: How long the end of a killed child is waited for: one in the middle of a disk access cannot be killed.
KILL_SECONDS = 5.0


class OperatingSystem:
    """The calls that make, tell and wait for processes; tests put a fake in its place."""

    def fork(self) -> int:
        """As `os.fork`."""
        return os.fork()

    def exit(self, status: int) -> NoReturn:
        """As `os._exit`."""
        os._exit(status)

    def open_pidfd(self, pid: int) -> int | None:
        """A descriptor that is readable once the process has ended; None where there is none to have."""
        try:
            return os.pidfd_open(pid)
        except (AttributeError, OSError):
            return None

    def tell(self, child: "Child", signum: int) -> None:
        """Send a signal; one to a child that has ended is lost."""
        try:
            if child.pidfd is not None:
                signal.pidfd_send_signal(child.pidfd, signum)
            else:
                os.kill(child.pid, signum)
        except ProcessLookupError:
            pass

    def wait(self, pid: int) -> tuple[bool, int | None]:
        """Whether the process has ended, and its exit code (negative: a signal; None: reaped by others)."""
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return True, None
        return (True, os.waitstatus_to_exitcode(status)) if found else (False, None)


class Child:
    """One forked process, seen from its parent."""

    __slots__ = ("ended", "pid", "pidfd", "status")

    def __init__(self, pid: int, pidfd: int | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        #: whether the child has ended and was reaped
        self.ended = False
        #: the exit code as `subprocess` gives it; None before the end, or when others reaped it
        self.status: int | None = None


class Children:
    """A bounded registry of forked children; its methods may be called from any thread.

    `on_exit(child, status)` is called by the thread that reaps, once for each child.
    """

    def __init__(
        self,
        limit: int,
        on_exit: Callable[[Child, int | None], None] | None = None,
        system: OperatingSystem | None = None,
    ) -> None:
        self.limit = limit
        #: the pids of the children that were not reaped yet (the old door's `active_children`)
        self.pids: set[int] = set()
        self._on_exit = on_exit
        self._system = system or OperatingSystem()
        self._begin()

    def __len__(self) -> int:
        return len(self.pids)

    @property
    def full(self) -> bool:
        """Whether `fork()` would refuse, as far as is known without reaping."""
        return len(self.pids) >= self.limit

    def fork(
        self, run: Callable[[], int], *, close: Callable[[], object] | None = None, block: Iterable[int] = ()
    ) -> Child:
        """Fork a child that calls `close()`, then `run()`, and leaves with the status that it returns.

        The signals of `block` are held back over the fork; `run` lets them in when it is ready for them.
        At the limit, `BlockingIOError`: that is what the system itself says when it has no process to give.
        """
        self._disown_inherited()
        with self._lock:
            if self.full:
                raise BlockingIOError(
                    errno.EAGAIN, f"{len(self.pids)} children are at work, and the limit is {self.limit}"
                )
            flush_standard_streams()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                # A Ctrl-C in the middle would leave a child that is in no registry.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *block})
                pid = self._system.fork()
                if pid == 0:
                    self._be_the_child(run, close, {*before, *block})
                return self._register(pid)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def fileno(self) -> int:
        """A descriptor that is readable while an ended child is not reaped; -1 where there are no pidfds."""
        self._disown_inherited()
        with self._lock:
            return -1 if self._poller is None else self._poller.fileno()

    def reap(self) -> int:
        """Take note of the children that have ended; never blocks; returns how many there were."""
        self._disown_inherited()
        with self._lock:
            gone = [child for child in self._suspects() if self._take(child)]
        if self._on_exit is not None:
            for child in gone:
                self._on_exit(child, child.status)
        return len(gone)

    def tell(self, child: Child, signum: int) -> None:
        """Send a signal to one child, unless it was reaped: its number may be another's by now."""
        self._disown_inherited()
        with self._lock:
            if child.pid in self._children:
                self._system.tell(child, signum)

    def tell_all(self, signum: int) -> None:
        """Send a signal to every child."""
        for child in tuple(self._children.values()):
            self.tell(child, signum)

    def wait(self, deadline: Deadline, at_most: int = 0) -> bool:
        """Reap until at most so many children are left; False when the deadline came first."""
        while True:
            self.reap()
            if len(self.pids) <= at_most:
                return True
            if deadline.is_due():
                return False
            self._pause(deadline.remaining())

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Tell all by SIGTERM, those left after `grace` seconds by SIGKILL, and wait for them."""
        self.tell_all(signal.SIGTERM)
        if not self.wait(Deadline(grace)):
            self.tell_all(signal.SIGKILL)
            self.wait(Deadline(KILL_SECONDS))

    def close(self) -> None:
        """Give the descriptors back; children still alive are left alone, and unknown from now on."""
        with self._lock:
            self._forget()

    # ---- the registry

    def _begin(self) -> None:
        # Guards the registry, and that no child is signalled while it is being reaped; re-entrant, for
        # signal handlers that stop the server in the middle of a fork.
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._children: dict[int, Child] = {}
        self._watched: dict[int, Child] = {}  # by pidfd
        self._unwatched: dict[int, Child] = {}  # by pid
        self._poller = _make_poller()

    def _register(self, pid: int) -> Child:
        child = Child(pid, self._system.open_pidfd(pid) if self._poller is not None else None)
        self._children[pid] = child
        self.pids.add(pid)
        if self._poller is not None and child.pidfd is not None:
            self._poller.register(child.pidfd, select.EPOLLIN)
            self._watched[child.pidfd] = child
        else:
            self._unwatched[pid] = child
        return child

    def _suspects(self) -> list[Child]:
        ready = [] if self._poller is None else self._poller.poll(0)
        return [*(self._watched[fd] for fd, _ in ready), *self._unwatched.values()]

    def _take(self, child: Child) -> bool:
        child.ended, child.status = self._system.wait(child.pid)
        if child.ended:
            del self._children[child.pid]
            self.pids.discard(child.pid)
            self._unwatched.pop(child.pid, None)
            self._unwatch(child)
        return child.ended

    def _unwatch(self, child: Child) -> None:
        if child.pidfd is not None and self._poller is not None:
            # By hand: a copy of the pidfd in another process would keep it in the poller after close().
            self._poller.unregister(child.pidfd)
            del self._watched[child.pidfd]
            os.close(child.pidfd)
            child.pidfd = None

    def _pause(self, seconds: float | None) -> None:
        poller = select.poll()
        if self._poller is not None:
            poller.register(self._poller, select.POLLIN)
        seconds = soonest(seconds, POLL_SECONDS if self._unwatched else None)
        poller.poll(None if seconds is None else seconds * 1000 + 1)

    def _forget(self) -> None:
        """Drop what is ours without touching what the poller watches: a fork shares it with its parent."""
        for child in self._watched.values():
            if child.pidfd is not None:
                os.close(child.pidfd)
                child.pidfd = None
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        self._children.clear()
        self._watched.clear()
        self._unwatched.clear()
        self.pids.clear()

    # ---- in another process

    def _disown_inherited(self) -> None:
        """In a process that inherited this object, the children are brothers and sisters, not ours."""
        if os.getpid() != self._owner:
            self._forget()
            self._begin()

    def _be_the_child(self, run: Callable[[], int], close: Callable[[], object] | None, mask: set[int]) -> NoReturn:
        status = 1
        try:
            self._lock = threading.RLock()  # the inherited one is held
            self._forget()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if close is not None:
                close()
            status = run()
        except Exception:
            sys.excepthook(*sys.exc_info())
        except BaseException:
            pass  # SystemExit, KeyboardInterrupt: the standard library's child leaves with 1 and says nothing
        finally:
            flush_standard_streams()
            self._system.exit(status)


def flush_standard_streams() -> None:
    """Write out what is buffered: a child must not write its parent's part again, nor lose its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass  # None under a daemon, closed by the program, or a pipe without a reader


def _make_poller() -> "select.epoll | None":
    try:
        return select.epoll()
    except (AttributeError, OSError):
        return None
