"""ThreadsRunner: a thread for each connection, from a bounded pool.

Owns      the pool of handlers, the queue deadline of connections that wait for it, and a small pool of TLS handshakes.
Promises  at most `threads` handlers at once; who waits is served in order, or ended with `queue_timeout`; at most a
          quarter as many threads compute handshakes, each for one flight: a peer that stops in the middle has none.
Refuses   to grow beyond its bound: a full pool with an idle CPU is said once a minute.
Why       handshakes in the pool of handlers would wait for handlers that may last for hours, and a storm of them
          would keep handlers waiting.  So they have threads of their own, at most `threads` / 4 on top of `threads`,
          and no more than there are CPUs: a handshake never waits, and OpenSSL computes without the interpreter.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from ..connection import Connection
from ..deadline import Deadline, monotonic
from ..events import Cause, HandlerFailed, PoolSaturated
from ..timers import Timer
from .base import Call, Runner
from .pool import ThreadPool
from .waiters import PlainWaiter, WakeableWaiter

SATURATED_EVERY = 60.0  # seconds between two reports of a full pool

KEPT_THREADS = 16  # enough for what one interpreter runs at once; a crowd beyond that is trimmed when it has left

HANDSHAKE_SHARE = 4  # one thread for so many handlers

_PLAIN = PlainWaiter()


class ThreadsRunner(Runner):
    """Any blocking code is fine here."""

    name: ClassVar[str] = "threads"

    def start(self) -> None:
        """Get ready; threads are made on need."""
        limit = self._settings.threads or self._settings.max_connections
        self._pool = ThreadPool(limit, name="moorage", keep=KEPT_THREADS)
        at_once = max(1, min(limit // HANDSHAKE_SHARE, os.cpu_count() or 1))
        self._handshakes = ThreadPool(at_once, name="moorage-setup", keep=at_once)
        self._local = threading.local()
        self._waits: dict[int, Timer] = {}  # of connections that wait for a thread
        self._reported_at = -SATURATED_EVERY

    def submit(self, connection: Connection) -> None:
        """Serve it in a thread of the pool."""
        job = partial(self._run, connection)
        if not self._pool.submit(job):
            self._limit_wait(connection, job)

    def offload(self, step: Call, then: Call) -> None:
        """In a thread of its pool; `then` in that of the Watch."""

        def job() -> None:
            step()
            self._watch.call_soon(then)

        try:
            self._handshakes.submit(job)
        except RuntimeError:  # the system has no more threads
            super().offload(step, then)

    def notify(self, calls: Iterable[Callable[[], None]]) -> None:
        """In a thread of their own, since they may block and every pooled thread may be taken."""
        thread = threading.Thread(target=lambda: super(ThreadsRunner, self).notify(calls), name="moorage-drain")
        thread.daemon = True
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads: then one of ours, when it is free
            self._pool.submit(lambda: super(ThreadsRunner, self).notify(calls))

    def has_this_thread(self) -> bool:
        """Whether a handler is asking, or who heard of new certificates."""
        return threading.current_thread() in (*self._pool.threads, *self._handshakes.threads)

    def stop(self, timeout: float | None) -> list[str]:
        """Give the threads this many seconds; returns the stacks of those that are still in a handler."""
        deadline = Deadline(timeout)
        busy = [*self._handshakes.stop(timeout), *self._pool.stop(deadline.remaining())]
        frames = sys._current_frames()
        return [
            f"{thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
            for thread in busy
            if thread.ident in frames
        ]

    def _limit_wait(self, connection: Connection, job: Callable[[], None]) -> None:
        """This connection waits for a thread, but not for ever."""

        def give_up() -> None:
            self._waits.pop(connection.id, None)
            if self._pool.withdraw(job):
                connection.end(Cause.QUEUE_TIMEOUT)
                connection.finish()

        if self._settings.queue_timeout is not None:
            self._waits[connection.id] = self._watch.call_at(monotonic() + self._settings.queue_timeout, give_up)
        self._report_saturation()

    def _run(self, connection: Connection) -> None:
        if self._waits and (timer := self._waits.pop(connection.id, None)):
            timer.cancel()
        try:
            waiter = self._waiter() if connection.is_unix else _PLAIN
        except OSError as error:  # no descriptor left for its bell: this client's loss
            self._shed(connection, error)
            return
        connection.begin(waiter)
        self._serve(connection)

    def _shed(self, connection: Connection, error: OSError) -> None:
        connection.end(Cause.SHED)
        connection.finish()
        if HandlerFailed in self._events.wanted:
            self._events.emit(HandlerFailed(connection.id, connection.peer, error))

    def _waiter(self) -> WakeableWaiter:
        """The waiter of this thread."""
        waiter: WakeableWaiter | None = getattr(self._local, "waiter", None)
        if waiter is None:
            waiter = self._local.waiter = WakeableWaiter()
        return waiter

    def _report_saturation(self) -> None:
        now = monotonic()
        if self._pool.queued and now >= self._reported_at + SATURATED_EVERY and PoolSaturated in self._events.wanted:
            self._reported_at = now
            self._events.emit(PoolSaturated(self._pool.limit, self._pool.queued))
