"""Arrival: one connection on its way through the PROXY header and the TLS handshake.

Owns      it while it is set up, one deadline for all of it, and how it ends when that fails.
Promises  no thread waits for a peer here: the socket is parked in the Watch, and only what has come of a handshake is
          computed elsewhere (`offload`); whoever is ended, told or late meanwhile is noticed at once and closed
          once; a peer that leaves without a word is no failure; bytes behind the header are not lost.
Refuses   to wait for a peer longer than `setup_timeout`.
Holder    the Watch.  While a step is computed the socket is not parked, and the step has the TLS session to itself;
          it does not touch the socket.
Why       a mute client, or 200 that stop in mid-handshake, must cost a descriptor each and nothing else.
"""

import select
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from .deadline import monotonic
from .events import Address, Cause, Events, SetupFailed, TlsEstablished
from .refusal import Overflow
from .state import PROXY, TLS
from .transport.proxy import ProxyError, ProxyHeader, ProxyParser

#: one receive: a header, or what a client may send in its flight; more is asked for when the next part is due
RECV_SIZE = 16 * 1024
MSG_DONTWAIT = int(socket.MSG_DONTWAIT)
READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT  # alone: a peer that has said end of stream would be ready for ever

Done = Callable[[Any], None]
Call = Callable[[], None]


class Timer(Protocol):
    """A call to come; see watch."""

    def cancel(self) -> None: ...


class Watch(Protocol):
    """Who waits for us; see watch."""

    def call_at(self, when: float, call: Call) -> Timer: ...
    def park(self, fd: int, ready: Callable[[int], None], mask: int = ...) -> None: ...
    def unpark(self, fd: int) -> None: ...


class Door(Protocol):
    """Who may come in; see door."""

    def enter_claimed(self, ticket: Any, addr: Address, /, *, is_peer: bool) -> Any: ...


class Certificates(Protocol):
    """What we show; see certificates."""

    def context(self) -> Any: ...


class Session(Protocol):
    """One TLS conversation; see transport/tls."""

    def handshake(self) -> bool: ...
    def feed(self, data: bytes, /) -> None: ...
    def take(self) -> bytes: ...
    @property
    def info(self) -> Any: ...


class SetupSettings(Protocol):
    """The settings that a setup obeys."""

    @property
    def setup_timeout(self) -> float | None: ...
    @property
    def overflow(self) -> Overflow: ...
    @property
    def overflow_message(self) -> bytes: ...


class Refusal(Protocol):
    """Who says no to a client that a PROXY header names; see refusal."""

    def refuse(self, guest: Any, cause: Cause, /) -> None: ...


class Setup(Protocol):
    """What all arrivals at one listener have in common; see setup."""

    door: Door | None
    refusal: Refusal
    settings: SetupSettings
    watch: Watch
    events: Events
    offload: Callable[[Call, Call], None]
    proxy_mode: str
    is_tls: bool
    why: Callable[[Exception], str]

    def trusts(self, addr: Address, /) -> bool: ...
    def make_session(self) -> Session: ...


class Arrival:
    """One connection that is being set up; from `begin` to exactly one of `_leave` and `_pass_on`."""

    __slots__ = (
        "_begun", "_done", "_failure", "_fd", "_guest", "_info", "_is_away", "_is_over", "_is_parked", "_is_trusted",
        "_parser", "_session", "_setup", "_sock", "_timer", "_unsent",
    )  # fmt: skip

    def __init__(self, setup: Setup, guest: Any, done: Done) -> None:
        self._setup = setup
        self._guest = guest
        self._done = done
        self._sock = guest._sock
        self._fd: int = guest.fileno()
        self._parser: ProxyParser | None = None
        self._is_trusted = True
        self._session: Session | None = None
        self._begun = 0.0  # the handshake
        self._unsent = b""  # of our flight
        self._failure: str | None = None  # why the last step failed; not the error, whose traceback leads back to us
        self._info: Any = None  # what was agreed on, once that is so
        self._is_parked = self._is_away = self._is_over = False
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Wait for its first byte, unless it may not even say that."""
        setup, guest = self._setup, self._guest
        guest._waiting_since = guest._opened_at  # mute: a drain may tell it
        if setup.proxy_mode == "off":
            self._begin_tls()
        else:
            guest._move(PROXY)
            self._is_trusted = setup.trusts(guest.peer)
            if setup.proxy_mode == "required" and not self._is_trusted:
                self._fail(
                    Cause.PROXY_ERROR, f"{_name(guest.peer)} is not in proxy_trusted, and a PROXY header is required"
                )
                return
            self._parser = ProxyParser(optional=setup.proxy_mode == "optional", only_looks=not self._is_trusted)
        if setup.settings.setup_timeout is not None:
            self._timer = setup.watch.call_at(guest._opened_at + setup.settings.setup_timeout, self._be_late)
        self._park(READ)

    # What the Watch calls

    def _ready(self, _mask: int) -> None:
        if self._guest.is_over:  # somebody else has ended it, and shut the socket down
            self._leave()
        elif self._unsent:
            self._send()
        elif data := self._receive():
            if self._parser is not None:
                self._read_header(self._parser, data)
            else:
                self._shake_hands(data)

    def _be_late(self) -> None:
        self._timer = None
        guest = self._guest
        if guest.is_over:  # its end is under way
            return
        reason = self._what_is_missing()
        if self._is_away:
            guest.end(Cause.SETUP_DEADLINE)  # `_come_back` sees it
            self._tell(Cause.SETUP_DEADLINE, reason)
        else:
            self._fail(Cause.SETUP_DEADLINE, reason)

    def _what_is_missing(self) -> str:
        what = "TLS handshake" if self._parser is None else "PROXY header"
        if self._guest._waiting_since:
            return f"no byte came, and a {what} was expected"
        if self._unsent:
            return "the client did not read our part of the TLS handshake"
        return f"the {what} was begun and not finished"

    # Receiving

    def _receive(self) -> bytes:
        """What is there; b"" when that is nothing, or when the peer has gone and all is over."""
        try:
            data: bytes = self._sock.recv(RECV_SIZE, MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            self._end(Cause.RESET)
            return b""
        if not data:
            self._hear_the_end()
            return b""
        self._guest._waiting_since = 0.0  # busy from now on
        self._guest._moved_at = monotonic()
        return data

    def _hear_the_end(self) -> None:
        """End of stream, which is no failure: a load balancer that looks whether we are there, a client that thought better."""
        parser = self._parser
        if parser is None or self._guest._waiting_since:
            self._end(Cause.PEER_CLOSED)
            return
        try:
            parser.end()
        except ProxyError as error:
            self._fail(Cause.PROXY_ERROR, str(error))
        else:
            self._claim(None, parser.rest)

    # The PROXY header

    def _read_header(self, parser: ProxyParser, data: bytes) -> None:
        try:
            header = parser.feed(data)
        except ProxyError as error:
            self._fail(Cause.PROXY_ERROR, str(error))
            return
        if parser.is_header and not self._is_trusted:
            self._fail(
                Cause.PROXY_ERROR, f"a PROXY header came from {_name(self._guest.peer)}, which is not in proxy_trusted"
            )
        elif header is not None or parser.is_header is False:
            self._claim(header, parser.rest)

    def _claim(self, header: ProxyHeader | None, rest: bytes) -> None:
        """From now on it is the client that the header names, who has to be admitted; `rest` came behind the header."""
        setup, guest = self._setup, self._guest
        self._parser = None
        if header is not None:
            guest.proxy = replace(header, via=guest.peer)
            if header.source is not None:  # not for LOCAL, the load balancer's own connection
                guest.peer = header.source
        # LOCAL is the load balancer's own connection: a health check is no client, whom limits are for
        if setup.door is not None and (header is None or header.command == "PROXY"):
            is_peer = header is None or header.source is None  # who was asked about at accept
            entered = setup.door.enter_claimed(guest._ticket, guest.peer, is_peer=is_peer)
            if isinstance(entered, Cause):
                self._stop_waiting()
                setup.refusal.refuse(guest, entered)
                return
            guest._ticket = entered
        if setup.is_tls:
            self._begin_tls()
            if rest:
                self._shake_hands(rest)
        else:
            if rest:
                guest._buffer = bytearray(rest)
                guest.bytes_received = len(rest)
            self._pass_on()

    # The TLS handshake

    def _begin_tls(self) -> None:
        self._guest._move(TLS)
        self._begun = monotonic()

    def _shake_hands(self, data: bytes) -> None:
        self._unpark()
        self._is_away = True
        self._setup.offload(partial(self._step, data), self._come_back)

    def _step(self, data: bytes) -> None:
        """Go on with what has come; the socket is left alone, since this may be another thread."""
        if self._is_over or self._guest.is_over:
            return
        try:
            if self._session is None:  # not before its first byte: the mute ones need none
                self._session = self._setup.make_session()
            self._session.feed(data)
            if self._session.handshake():
                self._info = self._session.info  # here, since it decodes a certificate that is the client's
        except Exception as error:
            self._failure = self._setup.why(error)
        if self._session is not None:
            self._unsent += self._session.take()  # what answers a failure is an alert

    def _come_back(self) -> None:
        """The step has been made; in the Watch's thread again."""
        self._is_away = False
        if self._is_over:
            return
        if self._guest.is_over:
            self._leave()
        elif self._failure is not None:
            self._send_some()
            self._fail(Cause.TLS_ERROR, self._failure)
        else:
            self._send()

    def _send(self) -> None:
        """Send our part, and go on when the kernel has taken all of it."""
        if not self._send_some():
            self._end(Cause.RESET)
        elif self._unsent:
            self._park(WRITE)
        elif self._info is not None:
            self._secure()
        else:
            self._park(READ)

    def _send_some(self) -> bool:
        """Send what the kernel takes; False when the peer is gone."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent, MSG_DONTWAIT) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _secure(self) -> None:
        guest, session, events = self._guest, self._session, self._setup.events
        assert session is not None
        guest._secure(session)
        if TlsEstablished in events.wanted:
            info, seconds = self._info, monotonic() - self._begun
            events.emit(TlsEstablished(guest.id, guest.peer, info.version, info.cipher, seconds))
        self._pass_on()

    # The end of it

    def _pass_on(self) -> None:
        """It is set up."""
        self._stop_waiting()
        self._done(self._guest)

    def _fail(self, cause: Cause, reason: str) -> None:
        """It cannot be set up."""
        self._guest.record(cause)
        self._tell(cause, reason)
        self._leave()

    def _tell(self, cause: Cause, reason: str) -> None:
        guest, events = self._guest, self._setup.events
        if guest.cause is cause and SetupFailed in events.wanted:  # unless another thread ended it first
            events.emit(SetupFailed(guest.id, guest.peer, cause, reason))

    def _end(self, cause: Cause) -> None:
        """It ends without a failure to speak of."""
        self._guest.record(cause)
        self._leave()

    def _leave(self) -> None:
        """The cause is recorded: close."""
        self._stop_waiting()
        self._guest.finish()

    def _stop_waiting(self) -> None:
        self._is_over = True
        self._unpark()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # no cycle: it calls us

    def _park(self, mask: int) -> None:
        self._unpark()
        self._setup.watch.park(self._fd, self._ready, mask)
        self._is_parked = True

    def _unpark(self) -> None:
        if self._is_parked:
            self._is_parked = False
            self._setup.watch.unpark(self._fd)


def _name(addr: Address) -> str:
    return str(addr[0]) if isinstance(addr, tuple) else "a Unix socket"
