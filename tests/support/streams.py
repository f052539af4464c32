"""Streams for tests: over real sockets, with time and waits in the hands of the test.

Owns      `ScriptedWaiter`, which moves a fake clock in the place of waiting, `Ends`, a stream and its peer, and
          the fixtures that both need.
Promises  nothing here waits for real longer than a socket of this host takes; with the fixture `stream_twin` a
          test runs on the pure and on the native `Stream`.
"""

import importlib.util
import select
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from moorage import twins
from moorage.errors import ConnectionEnded
from moorage.events import Cause
from moorage.transport.socketlike import SocketLike
from moorage.transport.stream import READ

from .clock import FakeClock
from .sockets import connect_pair
from .twins import BOTH, twin


@dataclass(frozen=True)
class Limits:
    """The settings that a stream obeys, off or generous unless a test says otherwise."""

    idle_timeout: float | None = None
    message_timeout: float | None = None
    min_rate: int | None = None
    write_timeout: float | None = None
    lifetime: float | None = None
    setup_timeout: float | None = None
    observe_only: tuple[str, ...] = ()
    line_limit: int = 64 * 1024
    message_limit: int = 8 * 1024 * 1024


class PollingWaiter:
    """Waits in earnest; `waits` counts, `asked` has the timeouts."""

    is_loop = False

    def __init__(self, *, plain: bool = False) -> None:
        self.plain = plain
        self.asked: list[float | None] = []

    def wait(self, stream: Any, mask: int, timeout: float | None) -> bool:
        self.asked.append(timeout)
        poll = select.poll()
        poll.register(stream.fileno(), mask)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def wake(self, stream: Any) -> None:
        """Nothing to do."""


class ScriptedWaiter:
    """A wait makes the next step of the script, which takes some seconds and then acts for the peer.

    A step that would come after the timeout is lost: the time is over.  Without a step the time is over too,
    unless the socket is ready.
    """

    plain = False
    is_loop = False

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.steps: deque[tuple[Callable[[], object] | None, float]] = deque()
        self.asked: list[float | None] = []

    def then(self, act: Callable[[], object] | None = None, after: float = 0.0) -> None:
        """In the next wait let so many seconds pass, then do this."""
        self.steps.append((act, after))

    def wait(self, stream: Any, mask: int, timeout: float | None) -> bool:
        self.asked.append(timeout)
        poll = select.poll()
        poll.register(stream.fileno(), mask)
        if not self.steps and poll.poll(0):
            return True
        assert self.steps or timeout is not None, "the stream waits for ever"
        act, after = self.steps.popleft() if self.steps else (None, float(timeout or 0.0))
        if timeout is not None and after > timeout:
            act, after = None, timeout  # too late
        self._clock.advance(after)
        if act is not None:
            act()
        return bool(poll.poll(100 if act is not None and mask == READ else 0))  # what was sent is on its way

    def wake(self, stream: Any) -> None:
        """Nothing to do."""


class StreamUnderTest(SocketLike):
    """A stream that answers what a connection would, in the simplest way, and remembers the causes."""

    causes: list[Cause]

    def _expire(self, cause: Cause) -> None:
        self._ended = cause
        self.causes.append(cause)

    def _check(self, writing: bool) -> None:
        if self._ended is not None:
            raise ConnectionEnded(self._ended)

    def record(self, cause: Cause) -> None:
        self.causes.append(cause)

    def _stream_end(self) -> None:
        self.record(Cause.PEER_CLOSED)


@cache
def modules(kind: str) -> tuple[ModuleType, ModuleType, ModuleType]:
    """The modules `careful`, `socketlike` and `secure` as if this twin had been chosen at import."""
    stream, file = twin(kind, "moorage.transport.stream").Stream, twin(kind, "moorage.transport.file").File
    with patch.multiple(twins, Stream=stream, File=file):
        careful = _copy("moorage.transport.careful")
        with patch.dict(sys.modules, {"moorage.transport.careful": careful}):
            files = _copy("moorage.transport.files")
            secure = _copy("moorage.transport.secure")
            copies = {"moorage.transport.files": files, "moorage.transport.secure": secure}
            with patch.dict(sys.modules, copies):
                return careful, _copy("moorage.transport.socketlike"), secure


def _copy(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _class_on(kind: str) -> type[StreamUnderTest]:
    answers = {name: value for name, value in vars(StreamUnderTest).items() if name not in ("__dict__", "__weakref__")}
    made: type[StreamUnderTest] = type("StreamUnderTest", (modules(kind)[1].SocketLike,), answers)
    return made


_chosen: list[type[StreamUnderTest]] = [StreamUnderTest]  # the last one is in use


@pytest.fixture(params=BOTH)
def stream_twin(request: pytest.FixtureRequest) -> Iterator[str]:
    """All streams of this test are of this twin."""
    _chosen.append(_class_on(request.param))
    yield str(request.param)
    _chosen.pop()


@pytest.fixture(params=["tcp", "unix"])
def both(stream_twin: str, request: pytest.FixtureRequest) -> "Iterator[Ends]":
    """A stream over each family, and its peer."""
    with ends(request.param) as both:
        yield both


@pytest.fixture
def clock(stream_twin: str, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of all streams."""
    clock = FakeClock()
    monkeypatch.setattr("moorage.transport.stream.monotonic", clock)
    for module in modules(stream_twin):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def script(clock: FakeClock) -> ScriptedWaiter:
    """A waiter that moves this clock."""
    return ScriptedWaiter(clock)


class Ends:
    """A stream and its peer, a plain socket."""

    def __init__(self, family: str, waiter: Any, limits: Limits) -> None:
        self._begin(*connect_pair(family), waiter, limits)

    @classmethod
    def of(cls, ours: Any, peer: Any, waiter: Any, limits: Limits) -> "Ends":
        """Of these two sockets."""
        both = cls.__new__(cls)
        both._begin(ours, peer, waiter, limits)
        return both

    def _begin(self, ours: Any, peer: Any, waiter: Any, limits: Limits) -> None:
        self.ours, self.peer = ours, peer
        self.stream = _chosen[-1](self.ours, limits)
        self.stream.causes = []
        self.stream._attach(waiter)
        self.stream._refresh()
        self.waiter = waiter

    def arrive(self, data: bytes) -> None:
        """The peer sends this, and it has arrived."""
        self.peer.sendall(data)
        self.wait_readable()

    def wait_readable(self) -> None:
        assert select.select([self.ours], [], [], 20)[0]

    def fill_the_way(self) -> int:
        """Send until the kernel takes not one byte more; returns how much it took."""
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)  # fixed: it would grow
        sent, is_full = 0, False
        while not is_full:
            is_full = not select.select([], [self.ours], [], 0.02)[1]  # what was under way has arrived
            for size in (65536, 1):
                try:
                    while True:
                        sent += self.ours.send(b"-" * size, socket.MSG_DONTWAIT)
                        is_full = False
                except BlockingIOError:
                    pass
        return sent


@contextmanager
def ends(family: str = "tcp", waiter: Any = None, **limits: Any) -> Iterator[Ends]:
    """A stream over a real socket, and the peer's end."""
    both = Ends(family, waiter or PollingWaiter(), replace(Limits(), **limits))
    with both.ours, both.peer:
        yield both
