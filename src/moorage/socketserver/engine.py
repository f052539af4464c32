"""Engine: what one server object needs in one process, beside its listener.

Owns      its loops, gate, tickets, pool, children, and the books of accept errors.
Promises  made anew in a forked process, so that processes which serve one object share only the listener;
          ending the loops takes no lock.
Refuses   to know the server object: it would keep it alive.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..admission import Gate, Ticket
from ..interrupts import woken_by_signals
from ..runners.children import Child, Children
from ..runners.pool import ThreadPool
from .accept_errors import AcceptErrors
from .drain import Busy
from .listening import Listening
from .loop import Loop
from .tickets import Held, Tickets

__all__ = ["Engine", "Guest", "engine_of"]

KEY = "_moorage_engine"


class Guest(NamedTuple):
    """Whom a child serves."""

    child: Child
    ticket: Ticket | None
    fd: int  # of the request, in the child as in the parent at the fork
    peer: Any


def engine_of(server: Any) -> "Engine":
    """The engine of this server object in this process."""
    engine: Engine | None = vars(server).get(KEY)
    if engine is None:
        engine = vars(server).setdefault(KEY, Engine())
    elif engine.pid != os.getpid():
        vars(server)[KEY] = engine = Engine(inherited=engine)
    return engine


class Engine:
    """The moving parts of one server object in one process."""

    def __init__(self, inherited: "Engine | None" = None) -> None:
        self.pid = os.getpid()
        #: the parent's, in a forked process: kept, so that no finaliser of its parts runs here
        self.inherited = inherited
        self.loops: dict[Loop, int] = {}
        self.gate: Gate | None = None
        self.tickets = Tickets(self.wake)
        self.arriving: dict[int, Held] = {}  # by thread: what the loop there is about to process
        self.pool: ThreadPool | None = None
        self.busy = Busy()
        self.children: Children | None = None
        self.guests: dict[int, Guest] = {}  # of the children, by pid
        self.listening: Listening = inherited.listening if inherited is not None else Listening()
        self.errors = AcceptErrors()
        #: ids of requests on their way through `shutdown_request`: these linger
        self.parting: set[int] = set()
        self.lingering: set[socket.socket] = set()
        self._has_served = False
        self._ends_early = False

    # Loops

    @contextmanager
    def loop(self) -> Iterator[Loop]:
        """One more run of `serve_forever()`, in this thread."""
        loop = Loop()
        self.loops[loop] = threading.get_ident()
        self._has_served = True
        loop.is_ending, self._ends_early = self._ends_early, False
        try:
            with woken_by_signals(loop.watch):
                yield loop
        finally:
            del self.loops[loop]
            self._ends_early = False
            loop.close()
            loop.done.set()

    def end_loops(self) -> list[Loop]:
        """Tell every loop to end; before the first one, tell that one.  Takes no lock."""
        if not self._has_served:
            self._ends_early = True
        loops = list(self.loops)
        for loop in loops:
            loop.end()
        return loops

    def here(self) -> Loop | None:
        """The innermost loop that runs in this thread."""
        own = threading.get_ident()
        return next((loop for loop, thread in reversed(self.loops.copy().items()) if thread == own), None)

    def is_serving_thread(self) -> bool:
        """Whether this thread runs a loop or a handler: one that must not wait for the loops."""
        return self.here() is not None or self.busy.is_here()

    def wake(self) -> None:
        """Make every loop look around."""
        for loop in list(self.loops):
            loop.watch.wake()

    # Admission

    def open_gate(self, limit: int) -> Gate:
        """The gate of this limit; a setting that was changed makes a new one."""
        if self.gate is None or self.gate.limit != limit:
            self.gate = Gate(limit)
        return self.gate

    def claim(self, request: Any) -> Held | None:
        """What this request holds, from now on settled by the caller.

        The program may have wrapped the request since it arrived, in `process_request` for example.
        """
        held = self.tickets.find(request)
        if held is None:
            held = self.arriving.get(threading.get_ident())
            if held is None:
                return None
            self.tickets.move(held, request)
        held.claimed = True
        return held

    # Children

    def child_ended(self, child: Child, _status: int | None) -> None:
        """A child was reaped."""
        guest = self.guests.pop(child.pid, None)
        if guest is not None and guest.ticket is not None:
            guest.ticket.give_back()

    def close_inherited(self) -> None:
        """In a forked child: close the descriptors of the parent's loops, which it shares with the parent."""
        for loop in list(self.loops):
            for fd in loop.watch.own_fds():
                os.close(fd)
