"""InlineRunner: one connection at a time, in the thread that accepts.

Owns      nothing.
Promises  while the handler waits, the Watch turns in the same thread: deadlines, drains and lingering work;
          no second handler starts.
Refuses   to be fair: clients wait while a handler computes; for tests and for the smallest services.
"""

import select
from collections import deque
from typing import ClassVar

from ..connection import Connection
from ..watch import Watch
from .base import Runner
from .waiters import HasDescriptor


class InlineRunner(Runner):
    """Serves in the thread that turns the Watch."""

    name: ClassVar[str] = "inline"
    at_once: ClassVar[int] = 1

    def start(self) -> None:
        """Get ready."""
        self._queue: deque[Connection] = deque()
        self._serving = False

    def submit(self, connection: Connection) -> None:
        """Serve it, or queue it when this was called from within the wait of a handler."""
        self._queue.append(connection)
        if self._serving:
            return
        self._serving = True
        try:
            while self._queue:
                connection = self._queue.popleft()
                connection.begin(TurningWaiter(self._watch))
                self._serve(connection)
        finally:
            self._serving = False


class TurningWaiter:
    """Waits by turning the Watch, in which the socket is parked meanwhile."""

    plain = False
    is_loop = False

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def wait(self, stream: HasDescriptor, mask: int, timeout: float | None) -> bool:
        """Whether the socket became ready within one turn."""
        ready: list[int] = []
        fd = stream.fileno()
        self._watch.unpark(fd)  # a wait within a wait, of a hook that runs in the turn: the outer one looks again
        self._watch.park(fd, ready.append, mask | select.EPOLLONESHOT)
        try:
            self._watch.turn(timeout)
        finally:
            self._watch.unpark(fd)
        return bool(ready)

    def wake(self, stream: object) -> None:
        """End the turn."""
        self._watch.wake()
