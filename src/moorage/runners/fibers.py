"""FibersRunner: a fiber for each connection, all in the thread that turns the hub.

Owns      the fibers of this server's handlers, and the watchdog.
Promises  tens of thousands of connections in one thread; a handler that waits for its client costs nothing; one
          that holds the hub is reported.
Refuses   to make blocking calls of others non-blocking: `moorage.run_blocking` is for those.
"""

import socket
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from greenlet import getcurrent

from ..acceptor import Gate
from ..connection import Connection
from ..deadline import monotonic
from ..errors import HandlerStopped
from ..events import Cause, HandlerHeldHub
from ..hub.fibers import Fibers
from ..hub.hub import Hub
from ..hub.watchdog import Watchdog
from ..listener import Listener
from ..reception import Reception
from ..twins import Intake
from .base import Runner, Serve

LOOK_SECONDS = 1 / 32  # between two looks at fibers that are about to leave
PUT_AWAY = 0.5  # seconds in which a handler that was stopped may put its things away


class FibersRunner(Runner):
    """For handlers that wait by the calls of their connection and of `moorage`."""

    name: ClassVar[str] = "fibers"
    #: a thread that is stopped is unwound, and the stack below a fiber is not what it was when that began
    ends_before_exit: ClassVar[bool] = True
    _watch: Hub

    def start(self) -> None:
        """Get ready: the calling thread turns the hub."""
        self._watch.enter()
        self._loop: Fibers = self._watch.loop
        self._loop.served = self._served
        self._watchdog = Watchdog(self._loop, self._report)
        self._watch.call_soon(self._watchdog.start)  # in the first turn: `worker_start` may take its time

    def intake(self, listener: Listener, gate: Gate, reception: Reception) -> Callable[[int], int] | None:
        """In C, where a client needs nothing but a fiber."""
        is_plain = listener.family == socket.AF_INET and listener not in reception.setups
        if Intake is None or not is_plain or reception.settings.wait_for_data:
            return None
        take: Callable[[int], int] = Intake(
            listener.fileno(), listener.kind, gate, reception, self._loop, self._run
        ).take
        return take

    def submit(self, connection: Connection) -> None:
        """Serve it in a fiber, soon."""
        self._loop.spawn(self._run, connection)

    def notify(self, calls: Iterable[Callable[[], None]]) -> None:
        """In a fiber for each: they may wait."""
        for call in calls:
            self._loop.spawn(call)

    def has_this_thread(self) -> bool:
        """Whether a handler is asking."""
        return threading.get_ident() == self._loop.thread_id

    def stop(self, timeout: float | None) -> list[str]:
        """Give the fibers this many seconds, then stop them; returns the stacks of those that would not."""
        self._wait(timeout)
        for fiber, connection in self._held():
            self._loop.throw(fiber, _stop(connection))
        self._wait(PUT_AWAY)
        self._watchdog.stop()
        held = self._held()
        stacks = [_stack(fiber, connection) for fiber, connection in held]
        for _, connection in held:  # nobody will run these fibers any more
            if connection is not None:
                connection.finish()
        return stacks

    def _held(self) -> list[tuple[Any, Connection | None]]:
        """The fibers at work, and the connection that each of them holds."""
        return [(fiber, fiber.argument if fiber.call == self._run else None) for fiber in self._loop.busy_fibers()]

    def _report(self, hold: HandlerHeldHub) -> None:
        """In the watchdog's thread."""
        if HandlerHeldHub in self._events.wanted:
            self._events.emit(hold)

    def _wait(self, timeout: float | None) -> None:
        end = None if timeout is None else monotonic() + timeout
        self._watch.turn(0)
        while self._loop.busy and (end is None or monotonic() < end):
            self._watch.turn(LOOK_SECONDS)

    def _served(self) -> tuple[Serve, Connection] | None:
        fiber: Any = getcurrent()
        return (self._serve, fiber.argument) if fiber.call == self._run else None

    def _run(self, connection: Connection) -> None:
        """In a fiber, whose context is the connection's meanwhile: no call in here goes through C, see fibers."""
        me = getcurrent()
        me.gr_context = self._serve.context.copy()
        connection.begin(self._loop)
        self._serve.serve(connection)
        me.gr_context = None


def _stop(connection: Connection | None) -> HandlerStopped:
    """What is raised in a fiber that waits for something else than its connection; quiet."""
    if connection is None:
        return HandlerStopped(Cause.CLOSED_BY_OPERATOR)
    return connection._own(HandlerStopped(connection.cause or Cause.CLOSED_BY_OPERATOR))


def _stack(fiber: Any, connection: Connection | None) -> str:
    name = "a fiber" if connection is None else f"connection {connection.id}"
    return f"{name}:\n{''.join(traceback.format_stack(fiber.gr_frame)) if fiber.gr_frame else ''}"
