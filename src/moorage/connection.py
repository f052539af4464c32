"""Connection: one accepted socket, from its ticket to its last byte.

Owns      the socket, its final deadlines, and how it is ended; its states and its ticket are in lifecycle.
Promises  the socket is closed once, by its holder alone; the ticket is back when it is closed; the first
          cause wins; a reply is never destroyed by input that was not read.
Refuses   to be closed by others: they call `end(cause)`, which records, shuts the socket down and leaves the
          descriptor to the holder (a closed number is given to the next client at once, and the old
          handler would read that client's bytes).
Holder    the handler's thread while it runs, the Watch while there is none.
"""

import socket
import struct
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Self

from .config import plain_address
from .deadline import monotonic, soonest
from .errors import ConnectionEnded, HandlerStopped
from .events import Address, Cause, ConnectionClosed, Phase, RefusalObserved, SetupFailed, TlsEstablished
from .home import Home, Ticket
from .state import DETACHED, HANDLER, LINGERING, NEXT, WAITING
from .transport.socketlike import SocketLike
from .transport.stream import MSG_DONTWAIT, MSG_PEEK
from .transport.waiter import Waiter
from .twins import Lifecycle

if TYPE_CHECKING:
    import ssl

    from .transport.tls import Session, TlsInfo

FAREWELL = 1.0  # seconds in which a handler may still write after a read-side deadline
SWALLOWED = 100  # ends that a handler may swallow before it is stopped: no honest retry loop is longer

#: for SO_LINGER: what the kernel has not sent is thrown away, and the peer is reset
THROW_AWAY = struct.pack("ii", 1, 0)

#: ends by which only reading is over at first, so that the handler can say goodbye
READ_SIDE = frozenset({Cause.IDLE, Cause.FIRST_DATA, Cause.MESSAGE_DEADLINE, Cause.MIN_RATE})


class Connection(SocketLike, Lifecycle):
    """One client, as a handler holds it in `self.request`: a socket, and more.

    id        a number that no other connection of this server has
    peer      the client's address
    cause     why it ended; None while it has not
    state     where it is in its life
    on_drain  called once when a drain begins, in a thread that may block
    """

    __slots__ = ("__weakref__",)

    # For handlers

    @property
    def local(self) -> Address:
        """Our own address, as the client sees it: behind a load balancer the one that it connected to."""
        if self.proxy is not None and self.proxy.destination is not None:
            return self.proxy.destination
        return plain_address(self._sock.getsockname())

    @property
    def tls(self) -> "TlsInfo | None":
        """What TLS says of the peer; None while the connection is plain."""
        return None if self._tls is None else self._tls.info

    @property
    def draining(self) -> bool:
        """Whether the server drains: finish what is begun, begin nothing long."""
        return self._home.draining

    def end(self, cause: Cause | str = Cause.CLOSED_BY_OPERATOR) -> None:
        """End this connection, from any thread: record the cause, unless there is one, and shut the socket down.

        The descriptor stays open until its holder closes it.  After a read-side deadline the handler may
        still write for one second.
        """
        cause = Cause(cause)
        with self._guard:
            if not NEXT[self.state] or self._ended is not None:
                return
            self.record(cause)
            self._farewell_until = monotonic() + FAREWELL if cause in READ_SIDE else 0.0
            self._ended = cause
            self._special = True
            if self._tls is not None and self.state is not HANDLER:  # else perhaps in the middle of a message
                self._say_end()
            self._interrupt(socket.SHUT_RD if cause in READ_SIDE else socket.SHUT_RDWR)
        if cause in READ_SIDE:
            self._home.watch.call_soon(self._schedule)

    def close(self) -> None:
        """The handler is done: the peer sees end of stream; the socket itself closes when the handler returns."""
        with self._guard:
            if NEXT[self.state]:
                self.record(Cause.HANDLER_DONE)
                if self._tls is None or not self._say_end():  # what is left of that `finish` gives to the Watch
                    self._interrupt(socket.SHUT_WR)

    def start_tls(self, context: "ssl.SSLContext | None" = None, *, server_hostname: str | None = None) -> None:
        """Go on in TLS, as after a STARTTLS: shakes hands within `setup_timeout`, with the listener's certificate.

        Raises `ConnectionEnded` when that fails, or when anything had been read ahead: such plain text is not the
        client's, but of somebody in between (CVE-2011-0411).  Raises `ValueError` while a text file is there that
        reads from it: whether that has read ahead nobody can see.
        """
        if self._tls is not None:
            raise ValueError("this connection speaks TLS already")
        if self._text is not None and self._text() is not None:
            raise ValueError(
                "a text file from makefile() may have read ahead; read lines by readline() before start_tls()"
            )
        session, begun = self._make_session(context, server_hostname), monotonic()
        try:
            if self._buffer:
                raise session.failure(1, f"{len(self._buffer)} bytes of plain text came before the handshake")
            self._shake_hands(session, self._home.settings.setup_timeout)
        except ConnectionEnded:
            raise
        except OSError as error:
            self._fail_setup(error)
        self._secure(session)
        if TlsEstablished in self._home.events.wanted:
            info = session.info
            self._home.events.emit(TlsEstablished(self.id, self.peer, info.version, info.cipher, monotonic() - begun))

    def detach(self) -> int:
        """Give the socket away: returns the descriptor, which now belongs to the caller.

        Raises `ValueError` when bytes have been read ahead: they would be lost, and after a STARTTLS they
        would be somebody's injected plain text.  Raises it too where TLS is spoken.
        """
        self._check_plain("detach()")
        if self._buffer:
            raise ValueError(f"{len(self._buffer)} bytes have been read ahead; read them before detach()")
        with self._guard:
            self._move(DETACHED)
            self.record(Cause.DETACHED)
            self._let_go(True)
            fd = self._sock.detach()
        self._left_at = monotonic()
        self._release()
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.peer!r} {self.state.value}{f' {self.cause}' if self.cause else ''}>"

    # For the corridor

    @property
    def settings(self) -> Any:
        """The settings of its server."""
        return self._home.settings

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket, which must not be shut to wake its reader."""
        return self._sock.family == socket.AF_UNIX

    def wait(self) -> None:
        """Parked until its first byte."""
        self._move(WAITING)
        self._waiting_since = self._opened_at

    def lend(self, link: Waiter) -> None:
        """Another process holds it from now on, and is told of its end by this link; our copy is closed."""
        self.begin(link)
        self._let_go(False)
        self._sock.close()

    def move(self, home: Home, ticket: Ticket) -> None:
        """In that process: its deadlines, its ticket and its events are not the server's any more."""
        Connection._guard = threading.RLock()  # a thread of the server may have held it at the fork
        self._home, self._ticket, self._timer = home, ticket, None

    def conclude(self, cause: Cause, phase: Phase, received: int, sent: int, handled: float) -> None:
        """It ended in that process like this; our part of it is over too."""
        self.cause, self._phase = cause, phase
        self.bytes_received, self.bytes_sent = received, sent
        self._left_at = self._handled_at + handled
        self.release()

    def leave(self) -> None:
        """The holder has no more to say: whoever else waits for it, or calls it later, gets `ConnectionEnded`."""
        with self._guard:
            self.record(Cause.HANDLER_DONE)
            self._ended, self._farewell_until, self._special = self._ended or Cause.HANDLER_DONE, 0.0, True
            if self._waiter is not None:
                self._waiter.wake(self)

    def tell(self) -> None:
        """End of stream by drain, for a connection that is quiet; in the Watch's thread."""
        with self._guard:
            if NEXT[self.state]:
                self.record(Cause.DRAINED)
                self._told = self._special = True
                if self._tls is not None and self.state is not HANDLER:
                    self._say_end()
                self._interrupt(socket.SHUT_RD if self.state is HANDLER else socket.SHUT_RDWR)

    def quiet_since(self) -> float | None:
        """The moment since which no byte has moved while the handler waits in a read; None while it is busy.

        Bytes that were read ahead, or lie unread in the kernel, make it busy.
        """
        since = self._waiting_since
        if not since or self._buffer or self._told or self._ended or self._has_unread():
            return None
        if self._tls is not None:
            if self._tls.has_input or self._outbox:
                return None
            since = self._tls.silent_since or since
        return max(since, self._moved_at)

    # What Stream asks

    def _check(self, writing: bool) -> None:
        if self._ended is None or (writing and monotonic() < self._farewell_until):
            return
        self._raise_end(self._ended)

    def _expire(self, cause: Cause) -> None:
        self.end(cause)

    def _stream_end(self) -> None:
        if self._ended is not None:
            self._check(False)
        if not self._told:
            self.record(Cause.PEER_CLOSED)
        elif self._buffer:  # a begun line is delivered whole or raises, never as if it were the last
            self._raise_end(Cause.DRAINED)

    def _raise_end(self, cause: Cause) -> NoReturn:
        self._swallowed += 1
        raise self._own((ConnectionEnded if self._swallowed <= SWALLOWED else HandlerStopped)(cause))

    def _only_observes(self) -> bool:
        """Whether a message that is too slow is only told; once, and the rate does not matter to this connection any more."""
        if "min_rate" not in self._home.settings.observe_only:
            return False
        self._limits = replace(self._home.settings, min_rate=None)
        if RefusalObserved in self._home.events.wanted:
            self._home.events.emit(RefusalObserved(self.peer, Cause.MIN_RATE))
        return True

    # TLS

    def _make_session(self, context: "ssl.SSLContext | None", server_hostname: str | None) -> "Session":
        from .transport.tls import Session

        if context is None:
            if self._certificates is None:
                raise ValueError("start_tls() needs a certificate: set tls_cert of the listener, or give a context")
            context = self._certificates.context()
        return Session(context, server_hostname=server_hostname)

    def _fail_setup(self, error: OSError) -> NoReturn:
        """The handshake failed: end, and say why, unless the peer has just gone."""
        import ssl

        from .setup_reasons import why

        late = isinstance(error, TimeoutError)
        cause = Cause.SETUP_DEADLINE if late else Cause.TLS_ERROR if isinstance(error, ssl.SSLError) else Cause.RESET
        has_left = self.cause is Cause.PEER_CLOSED or cause is Cause.RESET
        self.end(self.cause or cause)
        if not has_left and SetupFailed in self._home.events.wanted:
            reason = "the client did not finish the handshake in time" if late else why(error)
            self._home.events.emit(SetupFailed(self.id, self.peer, cause, reason))
        self._raise_end(self._ended or cause)

    # Deadlines, in the Watch's thread

    def _schedule(self) -> None:
        """Look again when the next final deadline could have passed."""
        if self._timer is not None:
            self._timer.cancel()
        due = self._next_look()
        self._timer = None if due is None else self._home.watch.call_at(due, self._look)

    def _next_look(self) -> float | None:
        if self._farewell_until:
            return self._farewell_until
        settings = self._home.settings
        lifetime = None if settings.lifetime is None else self._opened_at + settings.lifetime
        return soonest(lifetime, self._idle_at())

    def _idle_at(self) -> float | None:
        """When the idle deadline passes if nothing moves; never early."""
        idle = self._limits.idle_timeout
        if idle is None:
            return None
        since = self._waiting_since if self.state is HANDLER else 0.0  # before, there are other deadlines
        if since and self._tls is not None:
            since = self._tls.silent_since or since
        return (max(since, self._moved_at) if since else monotonic()) + idle

    def _look(self) -> None:
        if self.state is LINGERING or not NEXT[self.state]:
            return
        now = monotonic()
        idle_at = self._idle_at()
        lifetime = self._home.settings.lifetime
        if self._farewell_until and now >= self._farewell_until:
            with self._guard:
                self._interrupt(socket.SHUT_RDWR)
            return
        if lifetime is not None and now >= self._opened_at + lifetime:
            self.end(Cause.LIFETIME)
        elif idle_at is not None and now >= idle_at:
            self.end(Cause.IDLE)
        else:
            self._schedule()

    # Endings

    def _interrupt(self, how: int) -> bool:
        """Shut one or both directions and wake whoever waits; False when the socket is beyond that."""
        connected = True
        if how != socket.SHUT_RD or self._sock.family != socket.AF_UNIX:  # there, the peer would get EPIPE
            try:
                self._sock.shutdown(how)
            except OSError:
                connected = False
        if self._waiter is not None:
            self._waiter.wake(self)
        return connected

    def _throw_away(self) -> None:
        """A peer that does not read: else the kernel would keep what is unsent for minutes, and the peer the connection."""
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, THROW_AWAY)
        except OSError:
            pass

    def _has_unread(self) -> bool:
        with self._guard:
            if not NEXT[self.state]:
                return False
            try:
                self._sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
            except OSError as error:
                return not isinstance(error, BlockingIOError)
            return True

    def _emit_end(self) -> None:
        self._home.events.emit(self._closed_event())

    def _closed_event(self) -> ConnectionClosed:
        begun, left = self._handled_at, self._left_at or monotonic()
        return ConnectionClosed(
            id=self.id,
            peer=self.peer,
            cause=self.cause or Cause.HANDLER_DONE,
            phase=self._phase or Phase.HANDLER,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            seconds=monotonic() - self._opened_at,
            queued=(begun or left) - self._opened_at,
            handled=left - begun if begun else 0.0,
        )
