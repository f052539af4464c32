"""Siblings: the calls that run beside the handler of a connection, and end with it.

Owns      the siblings of one connection, how they wait for it, and their end.
Promises  a sibling is a fiber where the handler is one, and a daemon thread elsewhere; when the handler has left,
          the calls of its siblings on the connection raise, also one that waits; a fiber is cancelled at its wait;
          who is still there after `LEAVE_SECONDS` is reported and left; what one raises is a handler's error.
Refuses   to stop a thread in another call than the connection's: nobody can.
"""

import contextvars
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .deadline import Deadline
from .drain import LEAVE_SECONDS
from .errors import ConnectionEnded, HandlerStopped
from .events import Cause
from .hub.parking import strand
from .locks import Event
from .runners.waiters import WakeableWaiter

if TYPE_CHECKING:
    from .connection import Connection
    from .handler import Service
    from .transport.waiter import Waiter

Call = Callable[[], object]


class Cancelled(HandlerStopped):
    """Raised in a fiber at its wait, when the handler beside it has left."""

    def __init__(self, cause: str) -> None:
        BaseException.__init__(self, f"the connection of this sibling is over: {cause}")
        self.cause = cause


class Sibling:
    """What `moorage.spawn` returns: a call beside a handler."""

    def __init__(self, siblings: "Siblings", call: Call) -> None:
        self._siblings = siblings
        self._call: Call | None = partial(contextvars.copy_context().run, call)
        self._over = Event()
        self._strand: Any = None  # its fiber, or the number of its thread, once it runs

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return not self._over.is_set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; False when `timeout` seconds were not enough."""
        return self._over.wait(timeout)

    # For its siblings

    def run(self) -> None:
        """In its fiber or thread."""
        siblings, call, self._call = self._siblings, self._call, None
        self._strand = strand()
        try:
            if call is not None and not siblings.are_over:
                call()
        except BaseException as error:
            if siblings.judge(error):
                raise
        finally:
            call = None  # it may hold what the program waits to see die
            siblings.forget(self)
            self._over.set()

    @property
    def has_begun(self) -> bool:
        """Whether it runs, or has run; one that has not when the handler leaves never will."""
        return self._strand is not None

    def cancel(self, error: BaseException) -> None:
        """Raise this at its wait, if it is a fiber."""
        if self._siblings.loop is not None and self.has_begun and self.is_alive():
            self._siblings.loop.throw(self._strand, error)

    def stack(self) -> str:
        """Where it is."""
        is_thread = self._siblings.loop is None
        frame = sys._current_frames().get(self._strand) if is_thread else getattr(self._strand, "gr_frame", None)
        return "".join(traceback.format_stack(frame)) if frame else ""


class Siblings:
    """Those of one connection; made when the first is started."""

    def __init__(self, service: "Service", connection: "Connection") -> None:
        self._service = service
        self._connection = connection
        self._all: set[Sibling] = set()
        #: the handler has left
        self.are_over = False
        self.loop: Any = connection._loop
        self._waiter: SharedWaiter | None = None
        if self.loop is None and connection._waiter is not None:
            self._waiter = SharedWaiter(connection._waiter)
            connection._attach(self._waiter)
            connection._refresh()

    def start(self, call: Call) -> Sibling:
        """Call beside the handler, soon; raises `ConnectionEnded` when the connection has."""
        sibling = Sibling(self, call)
        self._all.add(sibling)
        try:
            self._connection._check(False)  # after `add`: an end that comes later finds it
            if self.loop is None:
                name = f"moorage-sibling-{self._connection.id}"
                threading.Thread(target=sibling.run, name=name, daemon=True).start()
            elif self.loop.thread_id == threading.get_ident():
                self.loop.spawn(sibling.run)
            else:  # from a thread of `run_blocking`
                self.loop.call_soon(partial(self.loop.spawn, sibling.run))
        except BaseException:
            self._all.discard(sibling)
            raise
        return sibling

    def end(self) -> None:
        """The handler has left: its siblings do, too."""
        self.are_over = True
        self._connection.leave()
        siblings = tuple(self._all)
        for sibling in siblings:
            sibling.cancel(Cancelled(Cause.HANDLER_DONE))
        deadline = Deadline(LEAVE_SECONDS)
        try:
            for sibling in siblings:
                sibling.join(deadline.remaining())
        except HandlerStopped:  # the server stops, and waits for nobody any more
            pass
        left = [sibling for sibling in siblings if sibling.has_begun and sibling.is_alive()]
        if left:
            self._service.emit_siblings_left(self._connection, [sibling.stack() for sibling in left])

    # For its siblings

    def forget(self, sibling: Sibling) -> None:
        """This one has ended; it is the caller."""
        self._all.discard(sibling)
        if self._waiter is not None:
            self._waiter.forget()

    def judge(self, error: BaseException) -> bool:
        """Report what left a sibling, unless it is quiet; whether it is to be raised on."""
        is_told = isinstance(error, ConnectionEnded) and error.cause == Cause.HANDLER_DONE  # closed by its holder
        is_stopped = isinstance(error, HandlerStopped) and self._connection.is_over
        if is_told or is_stopped or self._connection.is_own(error):
            return False
        return self._service.judge(self._connection, error)


class SharedWaiter:
    """For a connection that several threads wait for: the handler's as before, each other one with a bell.

    A bell wakes without shutting the receiving side, which would have the kernel answer late input with a reset,
    and a reset destroys the reply.
    """

    plain = False
    is_loop = False

    def __init__(self, own: "Waiter") -> None:
        self._own = own
        self._owner = threading.get_ident()
        self._bells: dict[int, WakeableWaiter] = {}  # of the other threads

    def wait(self, stream: Any, mask: int, timeout: float | None) -> bool:
        """Whether the socket became ready; False after a wake-up too."""
        me = threading.get_ident()
        if me == self._owner:
            return self._own.wait(stream, mask, timeout)
        bell = self._bells.get(me)
        if bell is None:
            self._bells[me] = WakeableWaiter()
            return False  # so that the caller looks again: who woke us before did not know
        return bell.wait(stream, mask, timeout)

    def wake(self, stream: Any) -> None:
        """End all waits; from any thread and from signal handlers."""
        self._own.wake(stream)
        for bell in tuple(self._bells.values()):  # which keeps their descriptors open meanwhile
            bell.wake()

    def forget(self) -> None:
        """The calling thread waits no more."""
        self._bells.pop(threading.get_ident(), None)
