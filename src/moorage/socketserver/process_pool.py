"""Process pool: the recipe's pre-allocated workers, as processes.

Owns      `ProcessPoolTCPServer`, its worker processes and the pipe that tells them to end.
Promises  the workers share the listener, inherited or made here; one that dies is replaced, ever more
          slowly if it dies at once; all end with `shutdown()` and when the parent is killed, idle ones at
          once, busy ones within `drain_timeout`.
Refuses   to accept in the parent.
"""

import logging
import os
import threading
from typing import Any

from ..deadline import Deadline, monotonic
from ..runners.children import Child, Children
from .drain import CUT_SECONDS
from .engine import Engine, engine_of
from .limits import seconds
from .loop import Loop
from .servers import TCPServer
from .serving import Serving

__all__ = ["ProcessPoolTCPServer"]

#: a worker that lived shorter than this died at once
YOUNG_SECONDS = 1.0
#: pauses before a worker that died at once is replaced: doubled from the first to the last
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0

_log = logging.getLogger("moorage.socketserver")


class ProcessPoolTCPServer(TCPServer):
    """A TCP server with a fixed number of processes, each of which handles one request at a time."""

    #: as many as the recipe starts
    processes: int = 16
    #: the pids of the workers, in the parent while it serves
    active_children: set[int] | None = None

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Keep the workers alive until `shutdown()`."""
        engine = engine_of(self)
        with engine.loop() as loop:
            if not loop.is_ending:
                workers = _Workers(self, engine, loop, poll_interval)
                self.active_children = workers.children.pids
                try:
                    workers.start()
                    while not loop.is_ending:
                        loop.turn(None)
                finally:
                    workers.end()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a request in this process, and let a drain know of it."""
        busy = engine_of(self).busy
        busy.drain_timeout = seconds(Serving, self, "drain_timeout")
        busy.enter(threading.current_thread(), request, daemon=False)
        try:
            super().process_request(request, client_address)
        finally:
            busy.leave(threading.current_thread())

    def _moorage_work(self, poll_interval: float, control: int) -> int:
        """In a worker: serve until the control pipe ends."""
        engine = engine_of(self)
        threading.Thread(target=_obey, args=(engine, control), name="moorage-control", daemon=True).start()
        super().serve_forever(poll_interval)
        return 0


class _Workers:
    """The worker processes, seen from their parent."""

    def __init__(self, server: ProcessPoolTCPServer, engine: Engine, loop: Loop, poll_interval: float) -> None:
        self._server = server
        self._engine = engine
        self._loop = loop
        self._poll_interval = poll_interval
        self._control, self._held = os.pipe()  # workers wait for the end of the one; we hold the other open
        self._born: dict[int, float] = {}
        self._pause = 0.0
        self.children = Children(server.processes, on_exit=self._ended)

    def start(self) -> None:
        """Fork all; from now on the loop wakes when one has ended."""
        for _ in range(self._server.processes):
            self._fork()
        if self.children.fileno() >= 0:
            self._loop.watch.listen(self.children.fileno(), self._reap)
        else:
            self._look()

    def end(self) -> None:
        """Let all end, and see to it that they do."""
        os.close(self._held)
        timeout = seconds(Serving, self._server, "drain_timeout")
        if not self.children.wait(Deadline(None if timeout is None else timeout + CUT_SECONDS)):
            _log.warning("%d worker processes did not end within %s s and are killed", len(self.children), timeout)
            self.children.stop()
        os.close(self._control)
        self._loop.watch.unlisten(self.children.fileno())
        self.children.close()

    def _fork(self) -> None:
        if self._loop.is_ending:
            return
        child = self.children.fork(
            lambda: self._server._moorage_work(self._poll_interval, self._control), close=self._leave
        )
        self._born[child.pid] = monotonic()

    def _leave(self) -> None:
        """In a worker: close what only the parent needs."""
        os.close(self._held)
        self._engine.close_inherited()

    def _ended(self, child: Child, status: int | None) -> None:
        now = monotonic()
        is_young = now - self._born.pop(child.pid, now) < YOUNG_SECONDS
        if self._loop.is_ending:
            return
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LAST_PAUSE) if is_young else 0.0
        _log.warning("worker process %d ended with status %s, replaced in %g s", child.pid, status, self._pause)
        self._loop.watch.call_at(now + self._pause, self._fork)

    def _reap(self) -> None:
        self.children.reap()

    def _look(self) -> None:
        """Where the kernel gives no descriptor for a child: ask from time to time."""
        self.children.reap()
        self._loop.watch.call_at(monotonic() + YOUNG_SECONDS, self._look)


def _obey(engine: Engine, control: int) -> None:
    """In a worker, in a thread: wait for the end of the pipe, then end the loop and its handler."""
    while os.read(control, 1):
        pass
    engine.end_loops()
    engine.busy.drain()
