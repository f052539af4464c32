"""SocketLike: a stream with the rest of what a connected socket has.

Owns      `rfile` and `wfile`, made when they are first asked for.
Promises  code written for `socket.socket` finds every method it knows (CPython cannot lay out a subclass of
          both); the timeout is recoverable and counts from the last progress.
Refuses   `close` and `detach`: whoever holds the socket answers those.
"""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase, TextIOWrapper
from typing import IO, TYPE_CHECKING, Any

from ..deadline import monotonic
from ..events import Address
from .files import BinaryFile, Reader, Writer, make_file
from .secure import SecureStream
from .stream import BLOCK_SIZE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class SocketLike(SecureStream):
    """One connected socket, seen as `socket.socket`."""

    __slots__ = ()

    _rfile: Reader | None
    _wfile: Writer | None

    @property
    def rfile(self) -> Reader:
        """The receiving side as a binary file; shares its buffer with `recv` and `readline`."""
        if self._rfile is None:
            self._rfile = Reader(self)
        return self._rfile

    @property
    def wfile(self) -> Writer:
        """The sending side as an unbuffered binary file."""
        if self._wfile is None:
            self._wfile = Writer(self)
        return self._wfile

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> BinaryFile | BufferedIOBase | TextIOWrapper:
        """A file over this connection; as `socket.makefile`, but a timeout loses no byte."""
        return make_file(self, mode, buffering=buffering, encoding=encoding, errors=errors, newline=newline)

    def is_own(self, error: BaseException) -> bool:
        """Whether this very exception was raised by this connection: then it is quiet."""
        return getattr(error, "raised_by", None) is self

    # Timeouts

    @property
    def timeout(self) -> float | None:
        """The recoverable timeout, as `gettimeout`."""
        return self._timeout

    def gettimeout(self) -> float | None:
        """Seconds that one wait may take before `TimeoutError`; 0.0 never waits; None has no limit."""
        return self._timeout

    def settimeout(self, seconds: float | None, /) -> None:
        """Set the recoverable timeout; see `gettimeout`."""
        if seconds is not None and not seconds >= 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if seconds is None else float(seconds)
        self._refresh()

    def setblocking(self, flag: bool, /) -> None:
        """True is `settimeout(None)`, False is `settimeout(0.0)`."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Whether calls may wait."""
        return self._timeout != 0

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """All reads and writes within share this many seconds, then raise `TimeoutError` (recoverable).

        Deadlines nest; the earliest counts.
        """
        before = self._until
        moment = monotonic() + seconds
        self._until = moment if before is None else min(before, moment)
        self._refresh()
        try:
            yield
        finally:
            self._until = before
            self._refresh()

    # The rare ways to receive and send

    def recvfrom(self, size: int, flags: int = 0, /) -> tuple[bytes, Address]:
        """As `recv`; the address is None, as for every connected TCP socket."""
        return self.recv(size, flags), None

    def recvfrom_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0, /) -> tuple[int, Address]:
        """As `recv_into`; the address is None."""
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(
        self, size: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Address]:
        """Receive data and, over Unix sockets, descriptors; as `socket.recvmsg`."""
        if self._buffer or not ancbufsize or self._tls is not None:  # descriptors do not come over TLS
            return self.recv(size, flags), [], 0, None
        received: list[Any] = []

        def receive(length: int, how: int) -> bytes:
            received[:] = self._sock.recvmsg(length, ancbufsize, how)
            data: bytes = received[0]
            return data

        self._check(False)
        data = self._receive(size, flags, receive)
        return (data, *received[1:]) if received else (data, [], 0, None)

    def sendmsg(
        self,
        buffers: Iterable["ReadableBuffer"],
        ancdata: Iterable[tuple[int, int, "ReadableBuffer"]] = (),
        flags: int = 0,
        /,
    ) -> int:
        """Send several buffers, and descriptors over Unix sockets; as `socket.sendmsg`."""
        ancillary = list(ancdata)  # an iterator would be empty at the second try
        if self._tls is not None:
            if ancillary:
                raise ValueError("descriptors cannot be sent over TLS")
            return self.send(b"".join(buffers), flags)
        return self._send_in_turn(lambda data, how: self._sock.sendmsg(data, ancillary, how), list(buffers), flags)

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:
        """Send a binary file from `offset`, at most `count` bytes; returns how many; as `socket.sendfile`."""
        seeks = file.seekable()
        if seeks:
            file.seek(offset)
        sent = 0
        while count is None or sent < count:
            data = file.read(min(BLOCK_SIZE, count - sent if count is not None else BLOCK_SIZE))
            if not data:
                break
            self.sendall(data)
            sent += len(data)
        if seeks:
            file.seek(offset + sent)
        return sent

    # What the socket says of itself

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET, AF_INET6 or AF_UNIX."""
        return socket.AddressFamily(self._sock.family)

    @property
    def type(self) -> socket.SocketKind:
        """SOCK_STREAM."""
        return socket.SocketKind(self._sock.type)

    @property
    def proto(self) -> int:
        """The protocol number."""
        return self._sock.proto

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed or detached."""
        return self._sock.fileno()

    def getpeername(self) -> Address:
        """What the kernel says of the other end, a load balancer perhaps; `peer` is the client."""
        try:
            return self._sock.getpeername()
        except OSError as error:
            self._failed(error)

    def getsockname(self) -> Address:
        """Our own address."""
        return self._sock.getsockname()

    def getsockopt(self, level: int, option: int, /, *buflen: int) -> Any:
        """As `socket.getsockopt`."""
        return self._sock.getsockopt(level, option, *buflen)

    def setsockopt(self, level: int, option: int, /, *value: "int | ReadableBuffer | None") -> None:
        """As `socket.setsockopt`."""
        self._sock.setsockopt(level, option, *value)  # type: ignore[arg-type]  # the overloads of the original

    def get_inheritable(self) -> bool:
        """False: accepted sockets are not passed to programs."""
        return False

    def shutdown(self, how: int, /) -> None:
        """Shut one or both directions; as `socket.shutdown`, after a close_notify where TLS is spoken."""
        if self._tls is not None and how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self._end_writing()
        try:
            self._sock.shutdown(how)
        except OSError as error:
            self._failed(error)

    def dup(self) -> socket.socket:
        """A plain socket for the same connection; whoever asked for it closes it.  `ValueError` where TLS is spoken."""
        self._check_plain("dup()")
        self._is_shared = True
        return socket.socket(fileno=socket.dup(self._sock.fileno()))

    def _check_plain(self, what: str) -> None:
        if self._tls is not None:
            raise ValueError(
                f"{what} gives away the socket, but not the TLS conversation on it, which lives in this connection"
            )
