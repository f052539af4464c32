"""Listener: makes or inherits listening sockets, and changes which there are.

Owns      each socket and its descriptor, and the path of a Unix socket that it made.
Promises  names are resolved once, when a listener is opened; what accepted sockets inherit (TCP_NODELAY,
          keepalive, TCP_USER_TIMEOUT) is set here, so that no connection pays for it; all listeners are opened
          or none; what cannot be opened is one sentence with the way out; a reload that keeps an address keeps
          its socket, and with it whoever waits in the backlog; what it consults is read again before anything
          changes.
Note      a name such as `localhost` gives one listener for each of its addresses; see `tcp_address.py`.
"""

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .config import Address, ListenerSettings, parse_address, plain_address
from .errors import BindError
from .listener_files import ListenerFiles, read_files
from .tcp_address import FAMILIES, open_tcp, set_options, unchangeable
from .twins import AcceptedSocket, accept_tcp4
from .unix_path import UnixPath, cannot_listen, unix_error

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

    def __init__(
        self,
        sock: socket.socket,
        settings: ListenerSettings,
        path: UnixPath | None = None,
        files: ListenerFiles = ListenerFiles(),  # noqa: B008  # frozen
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.renew(settings, files)
        self.family = sock.family
        #: what the socket module calls its address, with the real port
        self.address: Any = sock.getsockname()
        self._path = path
        self._is_closed = False
        self._maps = self.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        self._accept = sock._accept  # type: ignore[attr-defined]
        #: family, type and protocol, as integers
        self.kind = (int(self.family), int(sock.type), sock.proto)

    @property
    def accept(self) -> Callable[[], tuple[AcceptedSocket, Any]]:
        """A function: the next client's socket, blocking, and its address; `BlockingIOError` when there is none."""
        if accept_tcp4 is not None and self.family == socket.AF_INET:
            return partial(accept_tcp4, self.fileno(), *self.kind)
        return self._accept_any

    def _accept_any(self) -> tuple[AcceptedSocket, Any]:
        """`socket.accept` turns integers into enums and back and asks for the time-out: 6.8 us a call against 4.0 here.

        Of which the kernel takes 3.2 (measured, CPython 3.11); the native one for IPv4 adds 0.4 to that.
        """
        fd, addr = self._accept()
        try:
            sock = AcceptedSocket(*self.kind, fd)
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

    def renew(self, settings: ListenerSettings, files: ListenerFiles) -> None:
        """Take these on in this process, and leave the socket, which others may share, as it is."""
        self.settings = settings
        #: what is consulted for its clients; None where there is nothing to consult
        self.certificates = files.certificates
        self.rules = files.rules
        self.trusted = files.trusted

    @property
    def files(self) -> ListenerFiles:
        """All that is consulted."""
        return ListenerFiles(self.certificates, self.rules, self.trusted)

    def apply(self, settings: ListenerSettings, files: ListenerFiles | None = None) -> None:
        """Take these on, as far as an open socket can: what accepted sockets inherit, backlog, mode, owner."""
        if self._path is not None:
            self._path.permit(settings)
        if self.family != socket.AF_UNIX:
            set_options(self.socket, settings)
        if settings.backlog != self.settings.backlog:
            self.socket.listen(settings.backlog)
        self.renew(settings, files or self.files)

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
    _kept: list[tuple[Listener, ListenerSettings, ListenerFiles]] = field(default_factory=list)

    def renew(self) -> None:
        """In a worker that was forked before `apply`: give its copies of the kept listeners what is theirs to be."""
        for listener, settings, files in self._kept:
            listener.renew(settings, files)

    def apply(self) -> None:
        """Give the kept listeners their new settings; when one cannot take them on, all have the old ones again."""
        before: list[tuple[Listener, ListenerSettings, ListenerFiles]] = []
        try:
            for listener, settings, files in self._kept:
                before.append((listener, listener.settings, listener.files))
                listener.apply(settings, files)
        except BaseException:
            for listener, settings, files in before:
                with suppress(OSError):
                    listener.apply(settings, files)
            raise


def open_listeners(settings: Sequence[ListenerSettings], inherited: Inherited | None = None) -> list[Listener]:
    """Open every listener, or raise `BindError` for the first that cannot be and close the others.

    What was passed on for an address is taken instead of binding it.
    """
    return _open_all(settings, list(map(read_files, settings)), inherited)


def _open_all(
    settings: Sequence[ListenerSettings], files: Sequence[ListenerFiles], inherited: Inherited | None
) -> list[Listener]:
    _refuse_shared_descriptors(settings)
    with ExitStack() as opened:
        passed: dict[str, list[socket.socket]] = {}
        if inherited is not None:
            for bind in dict.fromkeys(one.bind for one in settings):
                passed[bind] = [opened.enter_context(closing(socket.socket(fileno=fd))) for fd in inherited.claim(bind)]
        listeners: list[Listener] = []
        for (one, sockets), read in zip(_shared_out(settings, passed), files, strict=True):
            for listener in _open(one, sockets, read):
                opened.callback(listener.close)
                listeners.append(listener)
        opened.pop_all()
        return listeners


def change_listeners(current: Sequence[Listener], settings: Sequence[ListenerSettings]) -> Change:
    """For a reload: an address that is there already keeps its sockets, others are opened, all or none.

    Raises `BindError` or `SettingError`, and nothing has changed.
    """
    _refuse_shared_descriptors(settings)
    before = [one.certificates for one in current if one.certificates is not None]
    files = [read_files(one, before) for one in settings]
    there: dict[str, list[Listener]] = {}
    for listener in current:
        there.setdefault(listener.settings.bind, []).append(listener)
    change = Change()
    with ExitStack() as opened:
        for (one, kept), read in zip(_shared_out(settings, there), files, strict=True):
            change.unchanged.extend(f"{name} of {one.bind}" for name in _fixed(kept, one))
            added = [] if kept else _open_added(one, read)
            for listener in added:
                opened.callback(listener.close)
            change.listeners.extend(kept or added)
            change._kept.extend((listener, one, read) for listener in kept)
            change.added.extend(added)
        opened.pop_all()
    change.removed.extend(listener for listener in current if listener not in change.listeners)
    return change


def _fixed(kept: Sequence[Listener], settings: ListenerSettings) -> list[str]:
    """The settings that these cannot take on; raises `SettingError` for an owner whom this host does not know."""
    names: dict[str, None] = {}
    for listener in kept:
        if listener._path is not None:
            names |= dict.fromkeys(listener._path.unchangeable(settings))
        elif listener.family != socket.AF_UNIX:
            names |= dict.fromkeys(unchangeable(listener.family, listener.settings, settings))
    return list(names)


def _open_added(settings: ListenerSettings, files: ListenerFiles) -> list[Listener]:
    address = parse_address(settings.bind)
    if address.kind in PASSED_ON:
        raise cannot_listen(str(address), None, "sockets are passed on only at the start of a program: start it anew")
    try:
        return _open_all([settings], [files], None)
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


def _open(settings: ListenerSettings, passed: Sequence[socket.socket], files: ListenerFiles) -> Iterator[Listener]:
    address = parse_address(settings.bind)
    if passed:
        yield from [_take(address, sock, settings, files) for sock in passed]
    elif address.kind == "fd":
        yield _inherit(address, settings, files)
    elif address.kind == "systemd":
        raise cannot_listen(
            str(address),
            None,
            "a service manager passes sockets on to `moorage serve` and serve() only, at their start",
        )
    elif address.kind == "unix":
        yield _open_unix(address, settings, files)
    else:
        yield from [Listener(sock, settings, files=files) for sock in open_tcp(address, settings)]


def _open_unix(address: Address, settings: ListenerSettings, files: ListenerFiles) -> Listener:
    path = UnixPath(address.path, settings)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.listen(sock, settings.backlog)
        return Listener(sock, settings, path, files)
    except BaseException as error:
        path.remove()
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, BindError):
            raise unix_error(address, path, error) from error
        raise


def _inherit(address: Address, settings: ListenerSettings, files: ListenerFiles) -> Listener:
    """The listening socket that whoever started us left open; ours from here on, its path is not."""
    _check_inherited(address, address.fd)
    return _take(address, socket.socket(fileno=address.fd), settings, files)


def _take(address: Address, sock: socket.socket, settings: ListenerSettings, files: ListenerFiles) -> Listener:
    """A listening socket that was passed on, with these settings; a path of ours is adopted later, see `adopt`."""
    _check_inherited(address, sock.fileno())
    sock.set_inheritable(False)
    if sock.family != socket.AF_UNIX:
        set_options(sock, settings)
    if address.kind != "fd":  # which is taken as it is
        sock.listen(settings.backlog)
    path = UnixPath(address.path, settings) if address.kind == "unix" else None
    return Listener(sock, settings, path, files)


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


def _somaxconn() -> int:
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return socket.SOMAXCONN
