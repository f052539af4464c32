"""Listener: makes or inherits one listening socket.

Owns      the socket and its descriptor, and the path of a Unix socket that it made.
Promises  names are resolved once, here; what accepted sockets inherit (TCP_NODELAY, keepalive,
          TCP_USER_TIMEOUT) is set here, so that no connection pays for it; all listeners are opened or
          none; what cannot be opened is one sentence with the way out.
Refuses   SO_REUSEPORT: closing one of several such listeners resets the clients in its backlog.
Note      a name such as `localhost` gives one listener for each of its addresses, IPv4 first, all on one
          port, also where the kernel chooses it; addresses that this host lacks are passed over as long
          as one is left, since /etc/hosts names ::1 also where IPv6 is off.
"""

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from .config import Address, ListenerSettings, parse_address, plain_address
from .errors import BindError
from .occupant import occupant_of_port
from .twins import AcceptedSocket, accept_tcp4
from .unix_path import UnixPath, in_use

#: with port 0 the port that the kernel chose for one address may be taken on the next
PORT_TRIES = 16
#: this host does not have such an address, or not the whole family
ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
FAMILIES = (socket.AF_INET, socket.AF_INET6)  # in the order of `addresses`: (host, port) is what most expect first

_TCP_LISTEN = 10  # include/net/tcp_states.h
_TCP_INFO_SIZE = 32  # struct tcp_info up to tcpi_sacked, from linux/tcp.h
_TCP_INFO_BACKLOG = struct.Struct("24xII")  # tcpi_unacked: clients in the backlog; tcpi_sacked: its size


class Listener:
    """One listening socket; made by `open_listeners`."""

    def __init__(self, sock: socket.socket, settings: ListenerSettings, path: UnixPath | None = None) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.settings = settings
        self.family = sock.family
        #: what the socket module calls its address, with the real port
        self.address: Any = sock.getsockname()
        self._path = path
        self._is_closed = False
        self._maps = self.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        self._accept = sock._accept  # type: ignore[attr-defined]
        self._kind = (int(self.family), int(sock.type), sock.proto)

    @property
    def accept(self) -> Callable[[], tuple[AcceptedSocket, Any]]:
        """A function: the next client's socket, blocking, and its address; `BlockingIOError` when there is none."""
        if accept_tcp4 is not None and self.family == socket.AF_INET:
            return partial(accept_tcp4, self.fileno(), *self._kind)
        return self._accept_any

    def _accept_any(self) -> tuple[AcceptedSocket, Any]:
        """`socket.accept` turns integers into enums and back and asks for the time-out: 6.8 us a call against 4.0 here.

        Of which the kernel takes 3.2 (measured, CPython 3.11); the native one for IPv4 adds 0.4 to that.
        """
        fd, addr = self._accept()
        try:
            sock = AcceptedSocket(*self._kind, fd)
        except BaseException:
            os.close(fd)
            raise
        return sock, plain_address(addr) if self._maps else addr

    @property
    def backlog(self) -> int:
        """How many clients may wait: the setting, clipped by the kernel."""
        info = self._info()
        return info[1] if info is not None else min(self.settings.backlog, _somaxconn())

    def backlog_length(self) -> int | None:
        """How many clients wait to be accepted; None where the kernel does not tell (Unix sockets)."""
        info = self._info()
        return info[0] if info is not None else None

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket and remove its path; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._path is not None:
            self._path.remove()
        self.socket.close()

    def __str__(self) -> str:
        """The address as an operator writes it."""
        return describe(self.family, self.address)

    def _info(self) -> tuple[int, int] | None:
        if self.family == socket.AF_UNIX:
            return None
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        if len(info) < _TCP_INFO_SIZE or info[0] != _TCP_LISTEN:
            return None
        length, size = _TCP_INFO_BACKLOG.unpack(info)
        return length, size


def open_listeners(settings: Sequence[ListenerSettings]) -> list[Listener]:
    """Open every listener, or raise `BindError` for the first that cannot be and close the others."""
    _refuse_shared_descriptors(settings)
    with ExitStack() as opened:
        listeners: list[Listener] = []
        for one in settings:
            for listener in _open(one):
                opened.callback(listener.close)
                listeners.append(listener)
        opened.pop_all()
        return listeners


def describe(family: int, address: Any) -> str:
    """An address of the socket module as `bind` would write it."""
    if family == socket.AF_UNIX:
        text = os.fsdecode(address)
        return f"unix:@{text[1:]}" if text.startswith("\0") else f"unix:{text}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open(settings: ListenerSettings) -> Iterator[Listener]:
    address = parse_address(settings.bind)
    if address.kind == "fd":
        yield _inherit(address, settings)
    elif address.kind == "unix":
        yield _open_unix(address, settings)
    else:
        yield from [Listener(sock, settings) for sock in _open_tcp(address, settings)]


# TCP


def _open_tcp(address: Address, settings: ListenerSettings) -> list[socket.socket]:
    """One socket for each address that the host part means, all on one port."""
    resolved = _resolve(address)
    for _ in range(PORT_TRIES - 1 if address.port == 0 and len(resolved) > 1 else 0):
        try:
            return _bind_all(address, resolved, settings)
        except BindError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bind_all(address, resolved, settings)


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, Any]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BindError(
            f"cannot listen on {address}: the name {address.host!r} is not found ({reason}); "
            "give an address of this host, or 0.0.0.0 for all of them"
        ) from error
    unique = dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found if family in FAMILIES)
    return sorted(unique, key=lambda pair: FAMILIES.index(pair[0]))


def _bind_all(
    address: Address, resolved: list[tuple[socket.AddressFamily, Any]], settings: ListenerSettings
) -> list[socket.socket]:
    with ExitStack() as bound:
        sockets: list[socket.socket] = []
        port = address.port
        absent: OSError | None = None
        for family, sockaddr in resolved:
            try:
                sock = _bind_tcp(family, (sockaddr[0], port, *sockaddr[2:]), settings)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise _bind_error(address, port, error) from error
                absent = error
                continue
            bound.callback(sock.close)
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets:
            assert absent is not None
            raise _bind_error(address, port, absent) from absent
        bound.pop_all()
        return sockets


def _bind_tcp(family: int, sockaddr: Any, settings: ListenerSettings) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # rebind while old connections are in TIME_WAIT
        if family == socket.AF_INET6:  # said explicitly: /proc/sys/net/ipv6/bindv6only decides otherwise
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, settings.v6only)
        _set_inherited_options(sock, settings)
        sock.bind(sockaddr)
        sock.listen(settings.backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_inherited_options(sock: socket.socket, settings: ListenerSettings) -> None:
    """What Linux copies from a listening socket to those it accepts."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, settings.nodelay)
    if settings.keepalive is not None:
        idle, interval, probes = settings.keepalive
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, settings.keepalive is not None)
    milliseconds = 0 if settings.user_timeout is None else max(1, round(settings.user_timeout * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


# Unix sockets and inherited ones


def _open_unix(address: Address, settings: ListenerSettings) -> Listener:
    path = UnixPath(address.path, settings.unix_mode)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.listen(sock, settings.backlog)
        return Listener(sock, settings, path)
    except BaseException as error:
        path.remove()
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, BindError):
            raise _unix_error(address, path, error) from error
        raise


def _inherit(address: Address, settings: ListenerSettings) -> Listener:
    """The listening socket that whoever started us left open; ours from here on, its path is not."""
    flaw = _flaw_of_inherited(address.fd)
    if flaw is not None:
        raise BindError(
            f"cannot listen on {address}: descriptor {address.fd} {flaw}; "
            "`bind` takes the number of a listening stream socket that the parent process left open"
        )
    sock = socket.socket(fileno=address.fd)
    os.set_inheritable(address.fd, False)
    if sock.family != socket.AF_UNIX:
        _set_inherited_options(sock, settings)
    return Listener(sock, settings)


def _refuse_shared_descriptors(settings: Sequence[ListenerSettings]) -> None:
    """Two owners of one descriptor would close each other's next file."""
    addresses = [parse_address(one.bind) for one in settings]
    fds = [address.fd for address in addresses if address.kind == "fd"]
    for fd in fds:
        if fds.count(fd) > 1:
            raise BindError(f"cannot listen on fd://{fd} twice; name each descriptor once in `bind`")


def _flaw_of_inherited(fd: int) -> str | None:
    """Why this descriptor is no listener; None when it is one.  The descriptor itself is left alone."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return "is no socket"
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.family not in (*FAMILIES, socket.AF_UNIX):
                return f"is a socket of the family {int(sock.family)}"
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
                return "is no stream socket"
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return "is a socket that does not listen"
    except OSError as error:
        return "is not open" if error.errno == errno.EBADF else f"cannot be used ({error.strerror})"
    return None


# What went wrong, in a sentence


def _bind_error(address: Address, port: int, error: OSError) -> BindError:
    if error.errno == errno.EADDRINUSE:
        return in_use(str(address), occupant_of_port(port))
    if error.errno in (errno.EACCES, errno.EPERM):
        return _error(
            address, error,
            f"the system does not let this user have port {port}; take one of {_first_free_port()} or above, "
            "grant CAP_NET_BIND_SERVICE, or let the service manager open the socket (fd://3)",
        )  # fmt: skip
    if error.errno in ABSENT:
        return _error(address, error, "this host has no such address; 0.0.0.0 is all of IPv4, [::] all of IPv6")
    return _error(address, error, f"{error.strerror or error}; choose another address with `bind`")


def _unix_error(address: Address, path: UnixPath, error: OSError) -> BindError:
    if error.errno == errno.EADDRINUSE:
        return in_use(str(address), path.occupant())
    folder = os.path.dirname(os.path.abspath(address.path))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _error(address, error, f"this user may not write in {folder}; choose a directory of its own")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _error(address, error, f"there is no directory {folder}; make it, or choose another path with `bind`")
    return _error(address, error, f"{error.strerror or error}; choose another path with `bind`")


def _error(address: Address, error: OSError, reason: str) -> BindError:
    said = BindError(f"cannot listen on {address}: {reason}")
    said.errno = error.errno
    return said


def _first_free_port() -> int:
    """The lowest port that needs no privilege."""
    return _number("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)


def _somaxconn() -> int:
    return _number("/proc/sys/net/core/somaxconn", socket.SOMAXCONN)


def _number(path: str, default: int) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return default
