# Lifecycle: the native twin of `moorage/lifecycle.py`, which says what it is for.
#
# Owns      the fields of a connection's life, and the steps that every connection goes through.
# Promises  what the pure twin does; the table of moves is the same one.

from moorage.errors import InternalError
from moorage.events import Cause, Phase
from moorage.state import ACCEPTED, CLOSED, DETACHED, HANDLER, LINGERING, NEXT, NOBODY_LISTENS, PHASES, QUEUED
from threading import RLock

cdef dict moves = NEXT, phases = PHASES
cdef object accepted = ACCEPTED, queued = QUEUED, handler = HANDLER, lingering = LINGERING, closed = CLOSED, detached = DETACHED
cdef object handler_done = Cause.HANDLER_DONE, peer_closed = Cause.PEER_CLOSED, write_stalled = Cause.WRITE_STALLED
cdef object in_handler = Phase.HANDLER

cdef enum:
    SHUT_WR = 1


cdef class Lifecycle(Stream):
    """A stream that comes and goes."""

    cdef public object id, peer, cause, state, on_drain, siblings, proxy
    cdef public object _certificates, _home, _ticket, _phase, _timer
    cdef public double _farewell_until, _opened_at, _handled_at, _left_at
    cdef public int _swallowed

    _guard = RLock()

    def __init__(self, sock, peer, ticket, home, id):
        self._come(sock, sock.fileno(), peer, ticket, home, id)

    cdef int _come(self, sock, int fd, peer, ticket, home, id) except -1:
        self._begin(sock, fd, home.settings)
        self.id = id
        self.peer = peer
        self.state = accepted
        self._home = home
        self._ticket = ticket
        self._opened_at = now()
        return 0

    @property
    def has_left(self):
        """Whether its handler has, and only unread input is discarded."""
        return self.state is lingering

    @property
    def is_over(self):
        """Whether no handler is wanted for it any more: it lingers, was ended, or told while no handler had it."""
        return self._ended is not None or self.state is lingering or (self._told and self.state is not handler)

    def open(self):
        """Begin the deadlines; in the Watch's thread."""
        due = self._limits.idle_timeout
        lifetime = self._home.settings.lifetime
        if lifetime is not None and (due is None or lifetime < due):
            due = lifetime
        if due is not None:
            self._timer = self._home.watch.call_at(self._opened_at + <double> due, self._look)

    def queue(self):
        """Ready for a runner."""
        self._go(queued)
        self._waiting_since = 0.0

    def begin(self, waiter):
        """The caller's thread or fiber holds it from now on, and waits with this waiter."""
        self._go(handler)
        self._handled_at = now()
        self._waiting_since = 0.0
        self._take_waiter(waiter)
        self._special = not (self._loop_ is not None or waiter.plain) or self._ended is not None or self._told

    cpdef record(self, cause):
        """Note why this connection ends; only the first cause counts."""
        if self.cause is None:
            self.cause = cause
            self._phase = phases.get(self.state, in_handler)

    def finish(self):
        """The holder is done: say end of stream, discard unread input in the Watch, close."""
        if self.state is detached or self.state is closed:
            return
        self._left_at = now()
        if self.cause is None:
            Lifecycle.record(self, handler_done)
        rest = EMPTY if self._tls is None else self._say_end()
        if rest is not EMPTY and (self.cause is peer_closed or self.cause not in NOBODY_LISTENS):
            self._go(lingering)
            self._home.watch.linger(self._sock, self.release, rest)
        elif self.cause is peer_closed or self.cause in NOBODY_LISTENS or not self._interrupt(SHUT_WR):
            if self.cause is write_stalled:
                self._throw_away()
            self._close()
        else:
            self._go(lingering)
            self._home.watch.linger(self._sock, self.release)

    def release(self):
        """Close the socket and give the ticket back; only its holder may."""
        self._close()

    cdef int _close(self) except -1:
        sock = self._sock
        if isinstance(sock, AcceptedSocket) and (<AcceptedSocket> sock)._plain is None:
            self._go(closed)  # needs no guard: this socket forgets its number while the interpreter is held
            self._forget(self._is_shared)
            (<AcceptedSocket> sock)._close()
        else:
            with self._guard:
                self._go(closed)
            self._forget(self._is_shared)
            sock.close()
        self._leave_home()
        return 0

    def _move(self, state):
        self._go(state)

    def _release(self):
        """The descriptor is no longer ours: forget the timers, give the ticket back, tell who wants to know."""
        self._leave_home()

    cdef int _leave_home(self) except -1:
        home = self._home
        if isinstance(self._timer, Timer):
            (<Timer> self._timer)._slot.discard(self._timer)
        elif self._timer is not None:
            self._timer.cancel()
        if isinstance(self._ticket, Ticket):
            (<Ticket> self._ticket)._give_back()
        else:
            self._ticket.give_back()
        if isinstance(home, Guests):
            events = (<Guests> home).events
            (<Guests> home)._forget(self.id)
        else:
            events = home.events
            home.forget(self)
        if self.cause in events.ends:
            self._emit_end()
        self._rfile = self._wfile = self._timer = self.on_drain = None  # no cycles
        return 0

    cdef object _peer_has_left(self):
        if self._ended is not None or self._told:  # or was it we who ended it?
            return self._end_of_stream()
        Lifecycle.record(self, peer_closed)
        return EMPTY

    cdef int _go(self, state) except -1:
        if state not in moves[self.state]:
            raise InternalError(f"connection {self.id} cannot go from {self.state.value} to {state.value}")
        self.state = state
        return 0
