"""Listener: makes or inherits listening sockets, and changes which there are.

Owns      each socket and its descriptor, and the path of a Unix socket that it made.
Promises  names are resolved once, when a listener is opened; what accepted sockets inherit (TCP_NODELAY,
          keepalive, TCP_USER_TIMEOUT) is set here, so that no connection pays for it; all listeners are opened
          or none; what cannot be opened is one sentence with the way out; a reload that keeps an address keeps
          its socket, and with it whoever waits in the backlog.
Note      a name such as `localhost` gives one listener for each of its addresses; see `tcp_address.py`.
"""

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .config import Address, ListenerSettings, parse_address, plain_address
from .errors import BindError
from .tcp_address import FAMILIES, open_tcp, set_inherited_options
from .twins import AcceptedSocket, accept_tcp4
from .unix_path import UnixPath, cannot_listen, in_use

T = TypeVar("T")

#: kinds of address whose socket somebody else has opened
PASSED_ON = frozenset({"fd", "systemd"})

_TCP_LISTEN = 10  # include/net/tcp_states.h
_TCP_INFO_SIZE = 32  # struct tcp_info up to tcpi_sacked, from linux/tcp.h
_TCP_INFO_BACKLOG = struct.Struct("24xII")  # tcpi_unacked: clients in the backlog; tcpi_sacked: its size


class Inherited(Protocol):
    """The sockets that were passed on to this program; see processes/handover."""

    def claim(self, bind: str) -> list[int]:
        """Those for this address, ours from here on; none when it has to be bound."""
        ...


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

    def apply(self, settings: ListenerSettings) -> None:
        """Take these settings on, as far as an open socket can: what accepted sockets inherit, backlog, mode."""
        if self.family != socket.AF_UNIX:
            set_inherited_options(self.socket, settings)
        if settings.backlog != self.settings.backlog:
            self.socket.listen(settings.backlog)
        if self._path is not None and settings.unix_mode != self.settings.unix_mode:
            self._path.set_mode(settings.unix_mode)
        self.settings = settings

    def disown(self) -> None:
        """The path of a Unix socket is somebody else's now, who has the socket too: `close` leaves it."""
        if self._path is not None:
            self._path.disown()

    def adopt(self) -> None:
        """The program that passed this socket on has disowned it: `close` removes its path from now on."""
        if self._path is not None:
            self._path.adopt()

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


@dataclass(frozen=True)
class Change:
    """What a reload makes of the listeners; made by `change_listeners`, which has opened the added ones.

    Then either `apply` it and close the removed ones, or close the added ones, and nothing has changed.
    """

    #: those to serve on, in the order of the settings
    listeners: list[Listener] = field(default_factory=list)
    added: list[Listener] = field(default_factory=list)
    removed: list[Listener] = field(default_factory=list)
    #: what an open socket cannot take on, in words
    unchanged: list[str] = field(default_factory=list)
    _kept: list[tuple[Listener, ListenerSettings]] = field(default_factory=list)

    def apply(self) -> None:
        """Give the kept listeners their new settings."""
        for listener, settings in self._kept:
            listener.apply(settings)


def open_listeners(settings: Sequence[ListenerSettings], inherited: Inherited | None = None) -> list[Listener]:
    """Open every listener, or raise `BindError` for the first that cannot be and close the others.

    What was passed on for an address is taken instead of binding it.
    """
    _refuse_shared_descriptors(settings)
    with ExitStack() as opened:
        passed: dict[str, list[socket.socket]] = {}
        if inherited is not None:
            for bind in dict.fromkeys(one.bind for one in settings):
                passed[bind] = [opened.enter_context(closing(socket.socket(fileno=fd))) for fd in inherited.claim(bind)]
        listeners: list[Listener] = []
        for one, sockets in _shared_out(settings, passed):
            for listener in _open(one, sockets):
                opened.callback(listener.close)
                listeners.append(listener)
        opened.pop_all()
        return listeners


def change_listeners(current: Sequence[Listener], settings: Sequence[ListenerSettings]) -> Change:
    """For a reload: an address that is there already keeps its sockets, others are opened, all or none."""
    _refuse_shared_descriptors(settings)
    there: dict[str, list[Listener]] = {}
    for listener in current:
        there.setdefault(listener.settings.bind, []).append(listener)
    change = Change()
    with ExitStack() as opened:
        for one, kept in _shared_out(settings, there):
            if any(old.family == socket.AF_INET6 and old.settings.v6only != one.v6only for old in kept):
                change.unchanged.append(f"v6only of {one.bind}")
            added = [] if kept else _open_added(one)
            for listener in added:
                opened.callback(listener.close)
            change.listeners.extend(kept or added)
            change._kept.extend((listener, one) for listener in kept)
            change.added.extend(added)
        opened.pop_all()
    change.removed.extend(listener for listener in current if listener not in change.listeners)
    return change


def _open_added(settings: ListenerSettings) -> list[Listener]:
    address = parse_address(settings.bind)
    if address.kind in PASSED_ON:
        raise cannot_listen(str(address), None, "sockets are passed on only at the start of a program: start it anew")
    try:
        return open_listeners([settings])
    except BindError as error:
        if error.errno == errno.EADDRINUSE and f"(pid {os.getpid()})" in str(error):
            reason = "this server listens there already, by another setting: start it anew to exchange them"
            raise cannot_listen(str(address), error.errno, reason) from error
        raise


def describe(family: int, address: Any) -> str:
    """An address of the socket module as `bind` would write it."""
    if family == socket.AF_UNIX:
        text = os.fsdecode(address)
        return f"unix:@{text[1:]}" if text.startswith("\0") else f"unix:{text}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# One of each kind


def _open(settings: ListenerSettings, passed: Sequence[socket.socket]) -> Iterator[Listener]:
    address = parse_address(settings.bind)
    if passed:
        yield from [_take(address, sock, settings) for sock in passed]
    elif address.kind == "fd":
        yield _inherit(address, settings)
    elif address.kind == "systemd":
        raise cannot_listen(
            str(address),
            None,
            "a service manager passes sockets on to `moorage serve` and serve() only, at their start",
        )
    elif address.kind == "unix":
        yield _open_unix(address, settings)
    else:
        yield from [Listener(sock, settings) for sock in open_tcp(address, settings)]


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
    _check_inherited(address, address.fd)
    return _take(address, socket.socket(fileno=address.fd), settings)


def _take(address: Address, sock: socket.socket, settings: ListenerSettings) -> Listener:
    """A listening socket that was passed on, with these settings; a path of ours is adopted later, see `adopt`."""
    _check_inherited(address, sock.fileno())
    sock.set_inheritable(False)
    if sock.family != socket.AF_UNIX:
        set_inherited_options(sock, settings)
    if address.kind != "fd":  # which is taken as it is
        sock.listen(settings.backlog)
    path = UnixPath(address.path, settings.unix_mode) if address.kind == "unix" else None
    return Listener(sock, settings, path)


# Who else may have it


def _shared_out(
    settings: Sequence[ListenerSettings], there: Mapping[str, list[T]]
) -> Iterator[tuple[ListenerSettings, list[T]]]:
    """Each listener's settings, and what is there for it by its text; several of one text (port 0) get as many each."""
    binds = [one.bind for one in settings]
    for at, one in enumerate(settings):
        left = there.get(one.bind, [])
        size = -(-len(left) // binds[at:].count(one.bind))  # rounded up: none is left over
        there = {**there, one.bind: left[size:]}
        yield one, left[:size]


def _refuse_shared_descriptors(settings: Sequence[ListenerSettings]) -> None:
    """Two owners of one descriptor would close each other's next file."""
    addresses = [str(parse_address(one.bind)) for one in settings]
    for address in addresses:
        if addresses.count(address) > 1 and parse_address(address).kind in PASSED_ON:
            raise BindError(f"cannot listen on {address} twice; name each descriptor once in `bind`")


def _check_inherited(address: Address, fd: int) -> None:
    flaw = _flaw_of_inherited(fd)
    if flaw is not None:
        raise BindError(
            f"cannot listen on {address}: descriptor {fd} {flaw}; "
            "`bind` takes a listening stream socket that the parent process left open"
        )


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


def _unix_error(address: Address, path: UnixPath, error: OSError) -> BindError:
    if error.errno == errno.EADDRINUSE:
        return in_use(str(address), path.occupant())
    folder = os.path.dirname(os.path.abspath(address.path))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"this user may not write in {folder}; choose a directory of its own"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        reason = f"there is no directory {folder}; make it, or choose another path with `bind`"
    else:
        reason = f"{error.strerror or error}; choose another path with `bind`"
    return cannot_listen(str(address), error.errno, reason)


def _somaxconn() -> int:
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return socket.SOMAXCONN
