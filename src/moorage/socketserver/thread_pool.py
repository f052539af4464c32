"""Thread pool: the recipe's pre-allocated threads, as a class.

Owns      `ThreadPoolTCPServer`.
Promises  its threads are there before the first client, and never more of them; further clients wait in
          the backlog; `threads` clients are served at once.
Refuses   to accept what no thread is free for.
"""

import threading

from ..runners.pool import ThreadPool
from .engine import engine_of
from .loop import Loop
from .servers import ThreadingTCPServer

__all__ = ["ThreadPoolTCPServer"]


class ThreadPoolTCPServer(ThreadingTCPServer):
    """A TCP server with a fixed number of threads, started before the first client."""

    #: as many as the recipe starts
    threads: int = 16

    def _moorage_enter(self, loop: Loop) -> None:
        super()._moorage_enter(loop)
        engine = engine_of(self)
        if engine.pool is None:
            self._moorage_open_pool(engine)

    def _moorage_places(self) -> int:
        return self.threads

    def _moorage_make_pool(self) -> ThreadPool:
        pool = ThreadPool(self.threads, idle_seconds=threading.TIMEOUT_MAX, reuse=self.reuse_threads)
        all_there = threading.Event()
        try:
            for _ in range(self.threads if self.reuse_threads else 0):
                pool.submit(lambda: _wait(all_there))
        finally:
            all_there.set()
        return pool


def _wait(event: threading.Event) -> None:
    event.wait()
