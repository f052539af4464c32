"""Loops for tests: one that is turned in the test's own thread, on either twin.

Owns      `Turned`, a loop of fibers with its timers and its waker; `streams` that wait in it.
Promises  `run` returns when all these calls have ended, with what they returned or raised.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from moorage.deadline import monotonic
from moorage.hub import parking

from .strands import fibers_on
from .streams import Ends, Limits
from .twins import twin

Call = Callable[[], object]


class Turned:
    """A loop of fibers, and what a hub does with it."""

    def __init__(self, kind: str) -> None:
        self.calls: deque[Call] = deque()
        self.wheel = twin(kind, "moorage.timers").Wheel(monotonic)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.loop: Any = fibers_on(kind)(self.wheel, self.calls, self.call_soon)
        self.loop.enter()
        parking.enter(self.loop)
        self.loop.listen(self.bell)
        self.heard: list[int] = []
        self.running = 0

    def call_soon(self, call: Call) -> None:
        """From any thread."""
        self.calls.append(call)
        os.eventfd_write(self.bell, 1)

    def turn(self) -> None:
        """Once, as a hub does it."""
        for fd in self.loop.run():
            self.heard.append(fd)
            if fd == self.bell:
                os.eventfd_read(fd)
        self.wheel.run_due()
        while self.calls:
            self.calls.popleft()()

    def start(self, call: Call) -> Any:
        """The fiber that makes this call when the loop is turned."""
        return self.loop.spawn(partial(self._run, call, [], 0))

    def run(self, *calls: Call) -> list[Any]:
        """Make these calls in fibers, and turn until all have ended."""
        results: list[Any] = [None] * len(calls)
        for number, call in enumerate(calls):
            self.loop.spawn(partial(self._run, call, results, number))
            self.running += 1
        while self.running:
            self.turn()
        return results

    def close(self) -> None:
        self.loop.retire()
        parking.leave()
        self.loop.close()
        os.close(self.bell)

    def _run(self, call: Call, results: list[Any], number: int) -> None:
        try:
            result = call()
        except Exception as error:
            result = error
        if results:
            results[number] = result
            self.running -= 1
            self.calls.append(lambda: None)  # so that `main` looks


@contextmanager
def streams(turned: Turned, count: int = 1, family: str = "tcp", **limits: Any) -> Iterator[list[Ends]]:
    """So many streams that wait in this loop, and their peers."""
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            both = Ends(family, turned.loop, Limits(**limits))
            stack.callback(both.stream._let_go, False)
            stack.enter_context(both.ours)
            stack.enter_context(both.peer)
            made.append(both)
        yield made


@pytest.fixture
def turned(stream_twin: str) -> Iterator[Turned]:
    """A loop on this twin, turned by the test."""
    turned = Turned(stream_twin)
    yield turned
    turned.close()
