"""Runner: who gives a handler a CPU.

Owns      the contract of four verbs: start, submit, drain, stop; and who computes for connections without a handler.
Promises  a submitted connection is served exactly once, by `serve`, which returns when the handler has left
          and the connection was finished; an offloaded step is run once, and holds up nobody but those behind it.
Refuses   to know a protocol, TLS, or what an exception means: runners run callables.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import ClassVar, Protocol

from ..acceptor import Gate
from ..connection import Connection
from ..events import Cause, Events
from ..listener import Listener
from ..reception import Reception
from ..watch import Watch

Call = Callable[[], object]


class Serve(Protocol):
    """Serves one connection from its first byte to its end; never raises an `Exception`."""

    def __call__(self, connection: Connection, /) -> None: ...

    @property
    def context(self) -> Context:
        """What `serve` is to run in a copy of."""
        ...

    def serve(self, connection: Connection, /) -> None:
        """As calling, in the context of the caller."""
        ...


class RunnerSettings(Protocol):
    """The settings that runners obey."""

    @property
    def max_connections(self) -> int: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def queue_timeout(self) -> float | None: ...
    @property
    def drain_quiet(self) -> float: ...


class Runner(ABC):
    """Runs handlers; made by the server, called from the thread that turns the Watch."""

    name: ClassVar[str]

    #: clients accepted in a row: many, but one where `submit` serves before it returns
    at_once: ClassVar[int] = 64

    #: the interpreter must not leave while it serves in a thread that would be stopped in the middle of a wait
    ends_before_exit: ClassVar[bool] = False

    def __init__(
        self,
        serve: Serve,
        settings: RunnerSettings,
        watch: Watch,
        events: Events,
        own_fds: Callable[[], list[int]] = list,
    ) -> None:
        self._serve = serve
        self._settings = settings
        self._watch = watch
        self._events = events
        self._steps: deque[tuple[Call, Call]] = deque()
        self._own_fds = own_fds  # the server's descriptors, which a forked child closes
        #: how a runner tells the server that a handler in another process stops it; set by the server
        self.on_stop: Callable[[float | None, Cause], None] = lambda timeout, cause: None

    def guard(self, gate: Gate) -> Gate:
        """The gate that acceptors ask: this one, or one that is closed too while the runner is short of something."""
        return gate

    def intake(self, listener: Listener, gate: Gate, reception: Reception) -> Callable[[int], int] | None:
        """The way of this listener's clients to their handlers in one step, where there is one: see acceptor."""
        return None

    def start(self) -> None:  # noqa: B027  # most have nothing to get ready
        """Get ready; before the first connection."""

    @abstractmethod
    def submit(self, connection: Connection) -> None:
        """Serve this connection, now or when there is room for it."""

    def offload(self, step: Call, then: Call) -> None:
        """Run a step that computes but never waits, such as a flight of a TLS handshake; then `then`, as the Watch does.

        Neither may raise.  Here one step a turn of the Watch, in the order they came: a storm of handshakes takes
        its turns with listeners, deadlines and fibers.
        """
        self._steps.append((step, then))
        if len(self._steps) == 1:
            self._watch.call_soon(self._take_step)

    def _take_step(self) -> None:
        step, then = self._steps.popleft()
        if self._steps:  # before `then`, which may be a handler that turns the Watch (inline)
            self._watch.call_soon(self._take_step)
        step()
        then()

    def drain(self, deadline: float | None) -> None:  # noqa: B027  # threads hear of it by their connection
        """A drain has begun; `deadline` is the moment at which the rest is cut."""

    def notify(self, calls: Iterable[Callable[[], None]]) -> None:
        """Make these calls, which may block, where they hold up nobody."""
        for call in calls:
            call()

    def passes_on_stop(self, timeout: float | None, cause: Cause) -> bool:
        """Whether the server that is to stop lives in another process, which has been told."""
        return False

    def has_this_thread(self) -> bool:
        """Whether the calling thread belongs to this runner, and must therefore not wait for it."""
        return False

    def stop(self, timeout: float | None) -> list[str]:
        """Every connection is over or was ended: leave; returns the stacks of handlers that would not."""
        return []
