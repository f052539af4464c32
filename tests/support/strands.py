"""Strands: threads and fibers behind one door, for tests of what works with both.

Owns      the loop that the fibers live in, on either twin, and the thread that turns it.
Promises  `start` makes a call in a strand of the kind, from any thread; when the `with` block ends all calls
          have ended, or the test fails; `kill` raises in a fiber that waits.
"""

import importlib.util
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol
from unittest.mock import patch

import pytest

from moorage import twins
from moorage.deadline import monotonic
from moorage.hub import parking

from .sockets import PATIENCE
from .twins import NATIVE, PURE, twin
from .waiting import Running, eventually

THREADS = "threads"
#: the kinds whose strands share one thread
FIBERS = [f"fibers-{PURE}", f"fibers-{NATIVE}"]
KINDS = [THREADS, *FIBERS]

Call = Callable[[], object]


class Task(Protocol):
    """A call under way in a strand of its own."""

    def result(self) -> object: ...
    def error(self) -> BaseException | None: ...


class Strands(Protocol):
    """Runs calls at the same time."""

    def start(self, call: Call) -> Task: ...


def run_all(strands: Strands, *calls: Call) -> list[object]:
    """Make these calls at the same time; returns what they returned."""
    return [task.result() for task in [strands.start(call) for call in calls]]


def pause() -> None:
    """Let the other strands run."""
    loop: Any = parking.this_loop()
    if loop is None:
        select.select([], [], [], 0)  # lets go of the interpreter
    else:
        loop.give_way()


class ThreadStrands:
    """A thread for each call."""

    def __init__(self) -> None:
        self._tasks: list[Running] = []

    def start(self, call: Call) -> Running:
        self._tasks.append(Running(call))
        return self._tasks[-1]

    def close(self) -> None:
        for task in self._tasks:
            task.thread.join(PATIENCE)
        assert not any(task.thread.is_alive() for task in self._tasks), "a call does not return"


class FiberTask:
    """A call in a fiber."""

    def __init__(self, call: Call, tell: Callable[[], None]) -> None:
        self.fiber: Any = None
        self._tell = tell
        self._call = call
        self._result: object = None
        self._error: BaseException | None = None
        self._done = threading.Event()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error.with_traceback(None)  # the frames would keep what a test sees die
        self._call = lambda: None
        self._done.set()
        self._tell()

    def is_done(self) -> bool:
        return self._done.is_set()

    def result(self) -> object:
        assert self._done.wait(PATIENCE), "the call does not return"
        if self._error is not None:
            raise self._error
        return self._result

    def error(self) -> BaseException | None:
        assert self._done.wait(PATIENCE), "the call does not return"
        return self._error


class FiberStrands:
    """A fiber for each call, all in one loop; `turn` is what its thread does."""

    def __init__(self, kind: str) -> None:
        kind = kind.removeprefix("fibers-")
        self._calls: deque[Call] = deque()
        self._wheel = twin(kind, "moorage.timers").Wheel(monotonic)
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._tasks: list[FiberTask] = []
        self._is_closing = False
        self.loop = fibers_on(kind)(self._wheel, self._calls, self._call_soon)

    def start(self, call: Call) -> FiberTask:
        task = FiberTask(call, self._look)
        self._tasks.append(task)
        self._call_soon(lambda: self._spawn(task))
        return task

    def kill(self, task: FiberTask, error: BaseException) -> None:
        """Raise this where the call waits; from any thread."""
        self._call_soon(lambda: self.loop.throw(task.fiber, error))

    def turn(self) -> None:
        """Until all calls have ended, and `close` was called."""
        self.loop.enter()
        self.loop.listen(self._bell)
        parking.enter(self.loop)
        try:
            while not (self._is_closing and all(task.is_done() for task in self._tasks)):
                if self.loop.run():
                    os.eventfd_read(self._bell)
                while self._calls:
                    self._calls.popleft()()
                self._wheel.run_due()
        finally:
            self.loop.retire()
            parking.leave()
            self.loop.close()

    def close(self) -> None:
        """Have `turn` end when all calls have ended."""
        self._is_closing = True
        self._look()

    def discard(self) -> None:
        """After `turn` and `close`."""
        os.close(self._bell)

    def _look(self) -> None:
        """Have `turn` look whether it is over."""
        self._call_soon(lambda: None)

    def _spawn(self, task: FiberTask) -> None:
        task.fiber = self.loop.spawn(task.run)

    def _call_soon(self, call: Call) -> None:
        self._calls.append(call)
        os.eventfd_write(self._bell, 1)


@cache
def fibers_on(kind: str) -> Any:
    """The class Fibers as if this twin had been chosen at import."""
    crew = getattr(twin(kind, "moorage.hub.crew"), "Crew", None)
    if crew is None:
        pytest.skip(f"no {kind} loop here")
    chosen = importlib.util.find_spec("moorage.hub.fibers")
    assert chosen is not None
    assert chosen.origin is not None
    spec = importlib.util.spec_from_file_location(f"moorage.hub.fibers_{kind}", chosen.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(twins, "Crew", crew):
        spec.loader.exec_module(module)
    return module.Fibers


@contextmanager
def threads() -> Iterator[ThreadStrands]:
    strands = ThreadStrands()
    yield strands
    strands.close()


@contextmanager
def fibers(kind: str) -> Iterator[FiberStrands]:
    """The kind is one of `FIBERS`."""
    strands = FiberStrands(kind)
    turning = Running(strands.turn)
    try:
        yield strands
    finally:
        strands.close()
    turning.result()
    strands.discard()


@contextmanager
def strands_of(kind: str) -> Iterator[Strands]:
    with threads() if kind == THREADS else fibers(kind) as strands:
        yield strands


def until_waiting(lock: Any, count: int = 1) -> None:
    """Return when so many wait for this lock, event or condition."""
    eventually(lambda: len(lock._waiters) >= count)


@pytest.fixture(params=KINDS)
def strands(request: pytest.FixtureRequest) -> Iterator[Strands]:
    """Strands of each kind."""
    with strands_of(request.param) as strands:
        yield strands


@pytest.fixture(params=FIBERS)
def hub(request: pytest.FixtureRequest) -> Iterator[FiberStrands]:
    """Fibers of each twin."""
    with fibers(request.param) as strands:
        yield strands
