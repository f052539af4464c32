"""Outgoing: a connection to elsewhere, for handlers and for programs without a server.

Owns      the socket, from the first address that is tried to `close()`; the errors that name the address.
Promises  the same `Connection` as a handler has, under every runner; all addresses of a name are tried within
          one timeout; what is closed leaves no descriptor and nothing in the loop.
Refuses   final deadlines that nobody asked for: the recoverable ones are the caller's, as with any socket.
Holder    whoever called `connect`.  It may close while another thread is in a call: that one is woken, and the
          descriptor is closed when it has left, since a closed number would be the next socket's.
"""

import errno
import itertools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from .calls import in_thread, sleep
from .config import Address, parse_address, plain_address
from .config.address import describe
from .connection import Connection
from .deadline import Deadline, soonest
from .errors import SettingError
from .events import Cause, Events
from .handler import served
from .hub.parking import this_loop
from .runners.waiters import PlainWaiter
from .state import NEXT
from .transport.stream import WRITE

if TYPE_CHECKING:
    import ssl

    from .transport.tls import Session

KIB = 1024
#: one of several addresses gets an equal share of the time that is left, but at least this (as in Go's net.Dial)
LEAST_SHARE = 2.0
#: a Unix socket whose backlog is full says EAGAIN, and nothing tells when to try again
RETRY_SECONDS = 1 / 32

Target = tuple[int, Any]  # family and address, as the socket module has them


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a connection to elsewhere obeys; see the settings of the same names."""

    idle_timeout: float | None = None
    message_timeout: float | None = None
    write_timeout: float | None = None
    line_limit: int = 64 * KIB
    message_limit: int = 8 * KIB * KIB
    lifetime: ClassVar[None] = None
    min_rate: ClassVar[None] = None
    setup_timeout: ClassVar[float] = 10.0  # for `start_tls`, as a server's


def connect(
    address: Any,
    *,
    timeout: float | None = 30.0,
    nodelay: bool = True,
    idle_timeout: float | None = None,
    message_timeout: float | None = None,
    write_timeout: float | None = None,
    line_limit: int = Limits.line_limit,
    message_limit: int = Limits.message_limit,
    tls: "bool | ssl.SSLContext" = False,
    server_name: str | None = None,
) -> Connection:
    """Connect to `"host:port"`, `"[v6]:port"`, `"unix:/path"`, or an address as the socket module has it.

    Works in handlers under every runner and outside of them.  The caller closes it, best by `with`; no limit of
    the server holds for it, only those given here.  A `deadline()` of the handler's connection counts, too.
    With `tls` the handshake is part of it: True verifies the server's certificate against what this system trusts, a
    context of your own says otherwise.  `server_name` is whom the certificate must name: the host of the address.

    Raises `TimeoutError` after `timeout` seconds (None: no limit), or another `OSError` that names the address, such
    as `ssl.SSLCertVerificationError`.
    """
    name, find = _read(address)
    limits = Limits(
        idle_timeout=idle_timeout, message_timeout=message_timeout, write_timeout=write_timeout,
        line_limit=line_limit, message_limit=message_limit,
    )  # fmt: skip
    deadline = _deadline(timeout)
    try:
        made = _first(find(deadline), limits, deadline, nodelay)
    except OSError as error:
        raise _named(error, name) from error
    if tls:
        made.begin_tls(None if tls is True else tls, server_name or _host(address), deadline, name)
    return made


class Outgoing(Connection):
    """A connection that its caller holds."""

    __slots__ = ("_is_abandoned",)

    _numbers = itertools.count(1)

    def __init__(self, sock: socket.socket, peer: Any, limits: Limits) -> None:
        home = _Abroad(limits)
        super().__init__(sock, plain_address(peer), home, home, next(self._numbers))
        self._is_abandoned = False  # closed while others were in a call
        self.queue()
        loop: Any = this_loop()
        self.begin(PlainWaiter() if loop is None else loop)
        self._refresh()

    def reach(self, address: Any, deadline: Deadline) -> None:
        """Connect to its peer."""
        self._sock.setblocking(False)
        while (code := self._sock.connect_ex(address)) == errno.EAGAIN and self.is_unix:
            _check_due(deadline)
            sleep(RETRY_SECONDS)
        if code == errno.EINPROGRESS:
            self._wait_connected(deadline)
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self._sock.setblocking(True)

    def begin_tls(
        self, context: "ssl.SSLContext | None", server_name: str | None, deadline: Deadline, name: str
    ) -> None:
        """Shake hands with its peer, which errors call by this name."""
        session = None
        try:
            session = self._make_session(context, server_name)
            self._shake_hands(session, deadline.remaining())
        except OSError as error:
            self.close()
            if session is not None and isinstance(error, session.failure):  # as it is, with all that it knows
                error.strerror = f"cannot connect to {name}: {error.strerror or error}"
                raise
            raise _named(error, name) from error
        except BaseException:
            self.close()
            raise
        self._secure(session)

    def close(self) -> None:
        """Close it; whoever else waits in a call gets `ConnectionEnded`.  A second call does nothing."""
        with self._guard:
            if self._is_abandoned or not NEXT[self.state]:
                return
            if self._tls is not None:
                self._say_end()
            self.leave()
            self._is_abandoned = self._loop is None and bool(self._waiting_since or self._writing)
            if self._is_abandoned:
                self._interrupt(socket.SHUT_RDWR)
                return
        self.release()

    def _make_session(self, context: "ssl.SSLContext | None", server_hostname: str | None) -> "Session":
        import ssl

        from .transport.tls import Session

        context = context or ssl.create_default_context()
        return Session(context, server_hostname=server_hostname, server_side=False)

    def _wait_connected(self, deadline: Deadline) -> None:
        self._writable = False
        assert self._waiter is not None
        while not self._waiter.wait(self, WRITE, deadline.remaining()):
            _check_due(deadline)

    def _refresh(self) -> None:
        super()._refresh()
        if self._limits.idle_timeout is not None:  # no Watch looks at it, so every wait does
            self._special = True

    def _raise_end(self, cause: Cause) -> Any:
        """The last who is in a call after the end closes."""
        with self._guard:
            is_last, self._is_abandoned = self._is_abandoned, False
        if is_last:
            self._waiting_since = 0.0
            self.release()
        super()._raise_end(cause)


class _Abroad:
    """The home and the ticket of a connection that no server knows."""

    draining = False
    events = Events()  # to which nobody subscribes

    def __init__(self, settings: Limits) -> None:
        self.settings = settings

    @property
    def watch(self) -> "_Abroad":
        return self

    def forget(self, connection: object, /) -> None:
        """Nobody keeps a table."""

    def give_back(self) -> None:
        """Nobody counts."""

    def cancel(self) -> None:
        """No call was to come."""

    def call_soon(self, call: Callable[[], None]) -> None:
        """The deadlines that the Watch looks at are a server's; the others are looked at by who waits."""

    def call_at(self, when: float, call: Callable[[], None]) -> "_Abroad":
        return self

    def linger(self, sock: Any, release: Callable[[], None], rest: bytes = b"", /) -> None:
        release()


def _deadline(timeout: float | None) -> Deadline:
    """Of one `connect`: no later than that of the calling handler."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be above zero, or None, not {timeout!r}")
    deadline, found = Deadline(timeout), served()
    if found is not None:
        deadline.at = soonest(deadline.at, found[1]._until)
    return deadline


def _first(targets: list[Target], limits: Limits, deadline: Deadline, nodelay: bool) -> Outgoing:
    """The first of these that answers."""
    failed: list[tuple[Any, OSError]] = []
    while targets and not deadline.is_due():
        family, address = targets[0]
        try:
            return _try(family, address, limits, _share(deadline, len(targets)), nodelay)
        except OSError as error:
            failed.append((address, error))
        targets = targets[1:]
    if not failed:
        raise _late()
    if len(failed) == 1:
        raise failed[0][1]
    last = failed[-1][1]
    text = "; ".join(f"{describe(address)}: {error.strerror or error}" for address, error in failed)
    raise OSError(last.errno, text) from last


def _try(family: int, address: Any, limits: Limits, deadline: Deadline, nodelay: bool) -> Outgoing:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if nodelay and family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        connection = Outgoing(sock, address, limits)
    except BaseException:
        sock.close()
        raise
    try:
        connection.reach(address, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def _share(deadline: Deadline, count: int) -> Deadline:
    """What one of so many may take."""
    left = deadline.remaining()
    return deadline if left is None or count == 1 else Deadline(min(left, max(LEAST_SHARE, left / count)))


# Names


def _read(address: Any) -> tuple[str, Callable[[Deadline], list[Target]]]:
    """How errors name it, and how its addresses are found."""
    match address:
        case str() if not address.startswith(("/", "\0")):
            return _read_text(parse_address(address))
        case str() | bytes():
            return describe(address), lambda deadline: [(socket.AF_UNIX, address)]
        case (str(), int(), int(), int()):  # what IPv6 has, with the scope that a link-local address needs
            return describe(address), lambda deadline: [(socket.AF_INET6, address)]
        case (str(host), int(port)):
            return describe(address), partial(_resolve, host, port)
    raise TypeError(f"connect() takes 'host:port', 'unix:/path' or a pair of host and port, not {address!r}")


def _read_text(address: Address) -> tuple[str, Callable[[Deadline], list[Target]]]:
    if address.kind in {"fd", "systemd"}:
        raise SettingError(f"the address {str(address)!r} cannot be connected to: write host:port or unix:/path")
    if address.kind == "unix":
        path = address.path.replace("@", "\0", 1) if address.path.startswith("@") else address.path
        return str(address), lambda deadline: [(socket.AF_UNIX, path)]
    return str(address), partial(_resolve, address.host, address.port)


def _host(address: Any) -> str | None:
    """Whom the certificate of this address names; None for a path."""
    if isinstance(address, tuple):
        return str(address[0])
    if isinstance(address, bytes) or address.startswith(("/", "\0")):
        return None
    return parse_address(address).host or None


def _resolve(host: str, port: int, deadline: Deadline) -> list[Target]:
    """All addresses of this name; in a fiber a thread asks for them."""
    if this_loop() is None:
        return _ask(host, port)
    try:
        return _ask(host, port, socket.AI_NUMERICHOST)  # which needs no thread
    except socket.gaierror:
        return in_thread(partial(_ask, host, port), deadline.remaining())


def _ask(host: str, port: int, flags: int = 0) -> list[Target]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    return [(family, address) for family, _, _, _, address in found]


# Errors


def _check_due(deadline: Deadline) -> None:
    if deadline.is_due():
        raise _late()


def _late() -> OSError:
    return TimeoutError(errno.ETIMEDOUT, "no answer in time")


def _named(error: OSError, name: str) -> OSError:
    """The same error, naming the address."""
    text = f"cannot connect to {name}: {error.strerror or error}"
    if isinstance(error, socket.gaierror):
        return socket.gaierror(error.errno, text)
    return TimeoutError(errno.ETIMEDOUT, text) if isinstance(error, TimeoutError) else OSError(error.errno, text)
