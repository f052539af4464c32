"""Lifecycle: the way of one connection, from its ticket to its last byte.

Owns      its state, its ticket, its first timer, and the cause of its end.
Promises  the first cause wins; the ticket is back when the socket is closed, which happens once.
Refuses   to decide when: the corridor moves it, a handler's end or a deadline ends it; see connection.
Why       this is the pure twin; `_native` has the one in C, chosen by `twins`: a connection that says one thing
          and goes spends as much here as in the kernel's `accept`.
"""

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .deadline import monotonic, soonest
from .errors import InternalError
from .events import Address, Cause, Phase
from .home import Home, Ticket, Timer
from .state import ACCEPTED, CLOSED, HANDLER, LINGERING, NEXT, NOBODY_LISTENS, PHASES, QUEUED, State
from .transport.stream import Stream
from .transport.waiter import Waiter

if TYPE_CHECKING:
    from _socket import socket as Socket

    from .transport.proxy_header import ProxyHeader


class Lifecycle(Stream):
    """A stream that comes and goes."""

    __slots__ = (
        "_certificates", "_farewell_until", "_handled_at", "_home", "_left_at", "_opened_at", "_phase", "_swallowed",
        "_ticket", "_timer", "cause", "id", "on_drain", "peer", "proxy", "siblings", "state",
    )  # fmt: skip

    # Guards the last change of state of every connection: a foreign `end` must not shut down a descriptor
    # that its holder has just closed.  Re-entrant, since a signal handler may call `end`.
    _guard = threading.RLock()

    def __init__(self, sock: "Socket", peer: Address, ticket: Ticket, home: Home, id: int) -> None:
        super().__init__(sock, home.settings)
        self.id = id
        self.peer = peer
        self.cause: Cause | None = None
        self.state: State = ACCEPTED
        self.on_drain: Callable[[], None] | None = None
        #: what the load balancer said of the client; see transport.proxy
        self.proxy: ProxyHeader | None = None
        #: what `moorage.spawn` has started beside the handler
        self.siblings: Any = None
        self._certificates: Any = None  # of its listener, for `start_tls`
        self._home = home
        self._ticket = ticket
        self._phase: Phase | None = None
        self._swallowed = 0
        self._farewell_until = 0.0
        self._opened_at = monotonic()
        self._handled_at = self._left_at = 0.0
        self._timer: Timer | None = None

    @property
    def has_left(self) -> bool:
        """Whether its handler has, and only unread input is discarded."""
        return self.state is LINGERING

    @property
    def is_over(self) -> bool:
        """Whether no handler is wanted for it any more: it lingers, was ended, or told while no handler had it."""
        return self._ended is not None or self.state is LINGERING or (self._told and self.state is not HANDLER)

    def open(self) -> None:
        """Begin the deadlines; in the Watch's thread."""
        due, lifetime = self._limits.idle_timeout, self._home.settings.lifetime
        if lifetime is not None:
            due = soonest(due, lifetime)
        if due is not None:
            self._timer = self._home.watch.call_at(self._opened_at + due, self._look)

    def queue(self) -> None:
        """Ready for a runner."""
        self._move(QUEUED)
        self._waiting_since = 0.0  # it does not wait for bytes any more

    def begin(self, waiter: Waiter) -> None:
        """The caller's thread or fiber holds it from now on, and waits with this waiter."""
        self._move(HANDLER)
        self._handled_at = monotonic()
        self._waiting_since = 0.0
        self._attach(waiter)
        self._special = not waiter.plain or self._ended is not None or self._told

    def record(self, cause: Cause) -> None:
        """Note why this connection ends; only the first cause counts."""
        if self.cause is None:
            self.cause = cause  # no call since it was asked: the interpreter changes threads only at calls and jumps
            self._phase = PHASES.get(self.state, Phase.HANDLER)

    def finish(self) -> None:
        """The holder is done: say end of stream, discard unread input in the Watch, close."""
        if not NEXT[self.state]:  # detached
            return
        self._left_at = monotonic()
        if self.cause is None:
            self.record(Cause.HANDLER_DONE)
        rest = b"" if self._tls is None else self._say_end()
        if rest and (self.cause is Cause.PEER_CLOSED or self.cause not in NOBODY_LISTENS):
            self._move(LINGERING)
            self._home.watch.linger(self._sock, self.release, rest)
        elif self.cause in NOBODY_LISTENS or not self._interrupt(socket.SHUT_WR):
            if self.cause is Cause.WRITE_STALLED:
                self._throw_away()
            self.release()
        else:
            self._move(LINGERING)
            self._home.watch.linger(self._sock, self.release)

    def release(self) -> None:
        """Close the socket and give the ticket back; only its holder may."""
        with self._guard:
            self._move(CLOSED)
        self._let_go(self._is_shared)
        self._sock.close()
        self._release()

    def _move(self, state: State) -> None:
        if state not in NEXT[self.state]:
            raise InternalError(f"connection {self.id} cannot go from {self.state.value} to {state.value}")
        self.state = state

    def _release(self) -> None:
        """The descriptor is no longer ours: forget the timers, give the ticket back, tell who wants to know."""
        if self._timer is not None:
            self._timer.cancel()
        self._ticket.give_back()
        self._home.forget(self)
        if self.cause in self._home.events.ends:
            self._emit_end()
        self._rfile = self._wfile = self._timer = self.on_drain = None  # no cycles

    if TYPE_CHECKING:  # what the subclass does

        def _look(self) -> None: ...
        def _say_end(self) -> bytes: ...
        def _throw_away(self) -> None: ...
        def _interrupt(self, how: int) -> bool: ...
        def _emit_end(self) -> None: ...
