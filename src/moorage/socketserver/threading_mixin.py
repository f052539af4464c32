"""ThreadingMixIn: each request in a thread of a bounded, reused pool.

Owns      how a request gets its thread, and how that thread looks to the program while it serves.
Promises  at most `max_connections` requests and `threads` threads; the standard library's thread names;
          an empty context for each request; `SystemExit` and `KeyboardInterrupt` go to
          `threading.excepthook`, as from a thread of its own, and the pool keeps its thread.
Refuses   to hold up the exit of the interpreter for longer than `drain_timeout`.
"""

import contextvars
import itertools
import socketserver as stdlib
import sys
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..runners.pool import ThreadPool
from .engine import Engine, engine_of
from .limits import count, seconds
from .serving import Serving

__all__ = ["ThreadingMixIn", "Threads"]

JOIN_SECONDS = 1.0  # for idle threads to end, which takes microseconds

_numbers = itertools.count(1)


class ThreadingMixIn(Serving, stdlib.ThreadingMixIn):
    """Mix-in class to handle each request in a new thread, or in one that has become free."""

    #: threads at once; None: as many as `max_connections`
    threads: int | None = None
    #: False: a fresh thread for each request
    reuse_threads: bool = True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the request to a thread."""
        engine = engine_of(self)
        if self.block_on_close:
            vars(self).setdefault("_threads", Threads(engine))
        engine.busy.drain_timeout = seconds(Serving, self, "drain_timeout")
        held = engine.claim(request)
        pool = engine.pool or self._moorage_open_pool(engine)
        try:
            pool.submit(partial(self._moorage_work, engine, request, client_address))
        except BaseException:
            if held is not None:
                held.claimed = False  # the loop, which handles the error, settles it
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Same as in BaseServer but as a thread."""
        if self._moorage_shake_hands(request, client_address):
            super().process_request_thread(request, client_address)
        else:
            self.shutdown_request(request)

    def server_close(self) -> None:
        """Close the listener, wait for the handlers as `block_on_close` says, end the idle threads."""
        engine = engine_of(self)
        engine.busy.drain_timeout = seconds(Serving, self, "drain_timeout")
        super().server_close()
        pool, engine.pool = engine.pool, None
        if pool is not None:
            pool.stop(0.0 if pool.busy else JOIN_SECONDS)

    def _moorage_open_pool(self, engine: Engine) -> ThreadPool:
        engine.pool = self._moorage_make_pool()
        # At the exit of the interpreter this runs before daemon threads are frozen.  Once the server is
        # garbage nobody is busy, for a handler's thread refers to it.
        weakref.finalize(self, engine.busy.drain)
        return engine.pool

    def _moorage_make_pool(self) -> ThreadPool:
        return ThreadPool(
            count(ThreadingMixIn, self, "threads") or count(Serving, self, "max_connections"),
            reuse=self.reuse_threads is not False,
        )

    def _moorage_work(self, engine: Engine, request: Any, client_address: Any) -> None:
        """One request, in a thread of the pool."""
        thread = threading.current_thread()
        name, thread.name = thread.name, f"Thread-{next(_numbers)} (process_request_thread)"
        # What the handler's own threads inherit; when the interpreter waits was decided at the start.
        thread._daemonic = self.daemon_threads  # type: ignore[attr-defined]
        engine.busy.enter(thread, request, daemon=self.daemon_threads)
        try:
            contextvars.Context().run(self.process_request_thread, request, client_address)
        except BaseException:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))
        finally:
            thread.name = name
            held = engine.tickets.find(request)
            if held is not None:
                engine.tickets.settle(held)
            engine.busy.leave(thread)


class Threads:
    """The threads that `server_close()` waits for; adding and leaving cost the same however many there are.

    Programs that start threads of their own `append()` them, as to the standard library's list.
    """

    def __init__(self, engine: Engine) -> None:
        self._busy = engine.busy
        self._own: list[threading.Thread] = []
        self._next_look = 64

    def append(self, thread: threading.Thread) -> None:
        """One more thread to wait for, unless it is a daemon."""
        if len(self._own) >= self._next_look:
            self.reap()
            self._next_look = max(64, 2 * len(self._own))
        if not thread.daemon:
            self._own.append(thread)

    def reap(self) -> None:
        """Forget those that have ended."""
        self._own = [thread for thread in self._own if thread.is_alive()]

    def pop_all(self) -> list[threading.Thread]:
        """Those added by the program, which are forgotten."""
        self._own, threads = [], self._own
        return threads

    def join(self) -> None:
        """Wait for all: for `drain_timeout` at most for those of the pool."""
        for thread in self.pop_all():
            thread.join(self._busy.drain_timeout)
        self._busy.drain()

    def __iter__(self) -> Iterator[threading.Thread]:
        return iter([*self._own, *self._busy.threads()])

    def __len__(self) -> int:
        return len(self._own) + len(self._busy.threads())
