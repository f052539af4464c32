"""Calls: what a handler calls in the place of blocking functions, under every runner.

Owns      `sleep`, `run_blocking` and `spawn`, and the threads of `run_blocking`.
Promises  in a fiber they let the others of its loop run; elsewhere, handler or not, they do what their blocking
          counterparts do, so that the same handler works under every runner.
Refuses   to make a blocking function of others non-blocking by itself: that is what `run_blocking` is for.
"""

import contextvars
import os
import time
from collections.abc import Callable
from functools import cache, partial
from threading import TIMEOUT_MAX
from typing import Any, ParamSpec, TypeVar, cast

from .deadline import monotonic
from .handler import served
from .hub.parking import Parker, make_parker, this_loop
from .runners.pool import ThreadPool
from .siblings import Sibling, Siblings

__all__ = ["in_thread", "run_blocking", "sleep", "spawn"]

#: threads of one process for blocking calls; these wait and compute little (trio and anyio have 40 as well)
BLOCKING_THREADS = 40

P = ParamSpec("P")
T = TypeVar("T")


def sleep(seconds: float) -> None:
    """As `time.sleep`, but under `fibers` the others run meanwhile; there it may take up to 1/32 s longer."""
    loop: Any = this_loop()
    if loop is None:
        time.sleep(seconds)
        return
    if not seconds >= 0:
        raise ValueError("sleep length must be non-negative")
    if seconds > TIMEOUT_MAX:
        raise OverflowError("sleep length is too large")
    until = monotonic() + seconds
    if not seconds:
        loop.give_way()
    while monotonic() < until:
        loop.park(until)


def run_blocking(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that blocks; returns what it returns, raises what it raises.

    Under `fibers` it runs in a thread, with a copy of the caller's context, while the other fibers go on;
    elsewhere it is simply called.
    """
    if this_loop() is None:
        return function(*args, **kwargs)
    return in_thread(partial(function, *args, **kwargs))


def spawn(function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Sibling:
    """Call a function beside the handler of this connection; returns a handle with `join` and `is_alive`.

    It ends with the handler: its calls on the connection raise then, under `fibers` any of its waits does.
    Raises `RuntimeError` where no handler runs.
    """
    found = served()
    if found is None:
        raise RuntimeError("spawn() starts a sibling of the handler that calls it: there is no handler here")
    service, connection = found
    if connection.siblings is None:
        connection._check(False)  # it may be over: then nobody would end them
        connection.siblings = Siblings(service, connection)
    siblings: Siblings = connection.siblings
    return siblings.start(partial(function, *args, **kwargs))


def in_thread(call: Callable[[], T], timeout: float | None = None) -> T:
    """In a fiber: make this call in a thread; after `timeout` seconds raise `TimeoutError` and forget it."""
    job = _Job(call, make_parker())
    pool = _pool(os.getpid())
    try:
        pool.submit(job)
        if not job.parker.wait(timeout):
            raise TimeoutError("timed out")
    except BaseException:
        job.is_wanted = False  # if it has begun, what it returns is dropped
        pool.withdraw(job)
        raise
    return cast(T, job.result())


class _Job:
    """One call, made in a thread for a fiber."""

    def __init__(self, call: Callable[[], object], parker: Parker) -> None:
        self.parker = parker
        self.is_wanted = True
        self._call: Callable[[], object] | None = call
        served()  # so that the context knows
        self._context = contextvars.copy_context()
        self._result: object = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self._result = self._context.run(cast(Any, self._call))
        except BaseException as error:
            self._error = error
        self._call = None
        if self.is_wanted:
            self.parker.release()

    def result(self) -> object:
        """In the fiber, when it is over."""
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # no cycle of an error and the frame it is raised in


@cache
def _pool(pid: int) -> ThreadPool:
    """The threads of this process, of which a forked child has none."""
    return ThreadPool(BLOCKING_THREADS, name="moorage-blocking")
