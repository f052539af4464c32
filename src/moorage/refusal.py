"""Refusal: what becomes of clients above a limit, where they do not wait.

Owns      a refused client's socket until it is closed or the Watch has it; one descriptor in reserve.
Promises  a refused client gets the whole message, then end of stream, as far as that is possible without
          waiting; a flood of them holds at most `LINGERING_REFUSED` descriptors and no ticket; the reserve is
          opened again after each use.
Refuses   to wait for a client, and to serve one.
Why       close after a message, with unread input, sends a reset that destroys the message: hence the
          lingering.  Without a descriptor nobody can even be refused: when none is left the reserve is
          closed and clients are accepted and closed in its place (Ranch, Twisted, libev).
"""

import _socket
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, Protocol

from .events import Address, Cause, ConnectionRefused, Events

#: refused clients that linger so that they can read the message; more are closed at once
LINGERING_REFUSED = 64
#: clients refused on the reserve before the accept loop pauses: a flood waits, it does not eat the CPU
RESERVE_AT_ONCE = 64

_RESET = struct.pack("ii", 1, 0)  # struct linger: close sends a reset

Overflow = Literal["wait", "refuse", "reset"]


class Watch(Protocol):
    """Who lingers for us; see watch."""

    def linger(self, sock: _socket.socket, release: Callable[[], None]) -> None: ...


class Guest(Protocol):
    """A connection that we have still to refuse; see connection."""

    _sock: Any
    _ticket: Any

    def record(self, cause: Cause, /) -> None: ...
    def finish(self) -> None: ...
    def release(self) -> None: ...


class Refusal:
    """Says no: with a reset under `reset`, else with a message, if there is any.

    Under `wait` only a client above its own limit is refused: in the backlog it would hold up the others.
    Whom a rule denies is closed at once, and told nothing.
    """

    def __init__(self, overflow: Overflow, message: bytes, watch: Watch, events: Events) -> None:
        self._overflow = overflow
        self._message = message
        self._watch = watch
        self._events = events
        self._lingering = 0
        self._reserve: int | None = None

    def open(self) -> None:
        """Put a descriptor in reserve, unless clients wait anyway; without one to be had, later."""
        if self._overflow != "wait" and self._reserve is None:
            with suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the reserve up; a second call does nothing."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def refuse(self, sock: _socket.socket, addr: Address, cause: Cause = Cause.REFUSED_TOTAL) -> None:
        """Say no to one client, for this reason."""
        self._report(addr, cause)
        if cause is Cause.DENIED:
            sock.close()
            return
        if self._overflow == "reset":
            _reset(sock)
            return
        _say_no(sock, self._message)
        if self._lingering < LINGERING_REFUSED:
            self._lingering += 1
            self._watch.linger(sock, self._lingered)
        else:
            sock.close()

    def use_reserve(self, accept: Callable[[], tuple[_socket.socket, Address]]) -> None:
        """Refuse those who wait, one after the other, on the one descriptor kept for it."""
        if self._reserve is not None:
            self.close()
            with suppress(OSError):  # nobody waits any more, or another thread has taken the descriptor
                for _ in range(RESERVE_AT_ONCE):
                    self._refuse_at_once(*accept())
        self.open()

    def _refuse_at_once(self, sock: _socket.socket, addr: Address) -> None:
        self._report(addr, Cause.REFUSED_TOTAL)
        if self._overflow == "reset":
            _reset(sock)
        else:
            _say_no(sock, self._message)
            sock.close()

    def _lingered(self) -> None:
        self._lingering -= 1

    def _report(self, addr: Address, cause: Cause) -> None:
        if ConnectionRefused in self._events.wanted:
            self._events.emit(ConnectionRefused(addr, cause))


class LateRefusal:
    """Says no to connections that were admitted before it was known whose they are: behind a PROXY header.

    As `Refusal` does, but each has a ticket, and its end is its own event.  Who gets no message does not linger.
    In the Watch's thread.
    """

    def __init__(self, overflow: Overflow, message: bytes) -> None:
        self._overflow = overflow
        self._message = message
        self._lingering = 0

    def refuse(self, guest: Guest, cause: Cause) -> None:
        """Say no to this connection, which waits for nothing any more, for this reason."""
        guest.record(cause)
        if cause is not Cause.DENIED:
            if self._overflow == "reset":
                _reset_at_close(guest._sock)
            elif self._message:
                _send(guest._sock, self._message)
                if self._lingering < LINGERING_REFUSED:
                    self._linger(guest)
                    return
        guest.release()

    def _linger(self, guest: Guest) -> None:
        """Its place is for the next client: else a flood through a load balancer would hold all of them."""
        self._lingering += 1
        ticket, guest._ticket = guest._ticket, _LingeringTicket(self)
        ticket.give_back()
        guest.finish()


class _LingeringTicket:
    """What a refused connection gives back at its close instead of its ticket."""

    __slots__ = ("_refusal",)

    def __init__(self, refusal: LateRefusal) -> None:
        self._refusal = refusal

    def give_back(self) -> None:
        self._refusal._lingering -= 1


def _send(sock: Any, message: bytes) -> None:
    with suppress(OSError):  # the client may be gone
        sock.send(message, socket.MSG_DONTWAIT)


def _say_no(sock: _socket.socket, message: bytes) -> None:
    if message:
        _send(sock, message)
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


def _reset_at_close(sock: Any) -> None:
    with suppress(OSError):  # a Unix socket knows no reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _reset(sock: _socket.socket) -> None:
    _reset_at_close(sock)
    sock.close()
