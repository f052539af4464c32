"""Stream: the bytes of one connected socket, and the calls that every message makes.

Owns      the read buffer, the byte counters, and what is known of the socket's readiness.
Promises  without a recoverable timeout, and with a waiter that allows it, one call is one system call;
          whole messages of several writers never interleave.
Refuses   everything that is not the common case: a subclass does that carefully, in `_recv_special`,
          `_sendall_special`, `_readline_special` and the like; see careful.
Why       this is the pure twin; `_native` has the one in C, chosen by `twins`.  Both must stay small.

A stream waits in one of two ways.  In a thread the call itself blocks.  In a fiber `_loop` is set, every call is
non-blocking, and the fiber waits in the loop.  `_readable` and `_writable` then say what is worth trying: they
are set by the loop's edge-triggered events and cleared by a short read and by EAGAIN.
Times are seconds on the monotonic clock; 0.0 in `_waiting_since` means that nobody waits in a read.
"""

import select
import socket
from typing import TYPE_CHECKING, Any, Protocol

from ..deadline import monotonic
from ..events import Cause
from .waiter import Waiter

if TYPE_CHECKING:
    from _socket import socket as Socket
    from collections import deque

    from _typeshed import ReadableBuffer, WriteableBuffer

RECV_SIZE = 16 * 1024  # one receive for lines and small blocks; larger costs page faults in `bytes`
BLOCK_SIZE = 1024 * 1024  # at most this in one receive for large blocks

# plain integers: the socket module's are enums, whose `|` and `&` cost more than a system call
MSG_DONTWAIT = int(socket.MSG_DONTWAIT)
MSG_PEEK = int(socket.MSG_PEEK)

READ = select.POLLIN | select.POLLRDHUP
WRITE = select.POLLOUT


class Limits(Protocol):
    """The settings that a stream obeys; `ServerSettings` has them."""

    @property
    def idle_timeout(self) -> float | None: ...
    @property
    def message_timeout(self) -> float | None: ...
    @property
    def min_rate(self) -> int | None: ...
    @property
    def write_timeout(self) -> float | None: ...
    @property
    def line_limit(self) -> int: ...
    @property
    def message_limit(self) -> int: ...


class Stream:
    """Receives and sends on one socket, which it borrows: it never closes it."""

    __slots__ = (
        "_buffer", "_deadline_look", "_due_read", "_due_write", "_ended", "_has_out", "_in_vain", "_is_shared", "_limits", "_line",
        "_loop", "_message_begun", "_moved", "_moved_at", "_outbox", "_readable", "_reader", "_record_begun", "_recv", "_rfile",
        "_send", "_slot", "_sock", "_special", "_sticky", "_text", "_timeout", "_tls", "_told", "_unsent", "_until", "_waiter",
        "_waiting_since", "_wfile", "_writable", "_writer", "_writing", "bytes_received", "bytes_sent",
    )  # fmt: skip

    def __init__(self, sock: "Socket", limits: Limits) -> None:
        self._sock = sock
        self._recv: Any = sock.recv
        self._send: Any = sock.send
        self._limits = limits
        self._waiter: Waiter | None = None
        #: anything but a plain call: a timeout, a waiter of its own, an end
        self._special = True
        self._buffer: bytes | bytearray = b""
        self._timeout: float | None = None  # recoverable, for each wait
        self._until: float | None = None  # recoverable, a moment: `Connection.deadline()`
        self._message_begun: float | None = None  # when the block began that is not whole yet
        self._waiting_since = self._moved_at = 0.0
        self._record_begun = 0.0  # when the TLS record began that is not whole yet
        self._moved = 0  # bytes, both ways, at the last wait
        self._in_vain: dict[bool, float] | None = (
            None  # reading or writing: seconds waited since, by timeouts that the handler swallowed
        )
        self._unsent = 0  # bytes that the peer had not taken when they were last counted
        self._ended: Cause | None = None  # the server ended it
        self._told = False  # end of stream by drain: what has arrived is still delivered
        self._writing = False  # somebody is in the middle of a message
        self._line: deque[Any] | None = None  # parkers of those who wait to write
        self._is_shared = False  # somebody else has a descriptor for it, too
        self._rfile: Any = None  # its files, once they were asked for
        self._wfile: Any = None
        self._text: Any = None  # a weak reference to the last text file that reads from it
        self._tls: Any = None  # the session that all bytes go through; see secure
        self._outbox = b""  # ciphertext that the kernel has not taken
        self.bytes_received = self.bytes_sent = 0  # from the peer, and to it
        # in fibers
        self._loop: Any = None
        self._slot = -1  # where the loop has registered it
        self._readable = self._writable = True  # worth trying
        self._sticky = False  # a short read does not mean that there is no more
        self._reader: Any = None  # the fibers that wait
        self._writer: Any = None
        self._due_read = self._due_write = 0.0  # when its wait ends
        self._deadline_look: Any = None  # the timer that looks at these two
        self._has_out = False  # registered for writing too

    # Receiving

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Up to `size` bytes, b"" at the end of the stream; as `socket.recv`."""
        if self._special or self._buffer or flags:
            return self._recv_special(size, flags)
        if self._tls is not None:
            return self._recv_secure(size)
        self._waiting_since = monotonic()
        try:
            data = self._recv(size) if self._loop is None else self._recv_in_fiber(size)
        except BaseException as error:
            self._failed(error)
        self._waiting_since = 0.0
        if data:
            self.bytes_received += len(data)
            return data
        if data is None:
            return self._recv_special(size, 0)
        return self._end_of_stream() if size else b""

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0, /) -> int:
        """Receive into a writable buffer and return the number of bytes; as `socket.recv_into`."""
        view = memoryview(buffer).cast("B")
        data = self.recv(min(nbytes or len(view), len(view), BLOCK_SIZE), flags)
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its newline; the last one may lack it; b"" at the end of the stream.

        With a `size` at most so many bytes, as files do; without, a line longer than `line_limit`
        raises `TooLarge`.  A begun line has `message_timeout` seconds.
        """
        limit = self._limits.line_limit if size is None or size < 0 else size
        if not self._buffer and limit:
            data = self.recv(RECV_SIZE)
            if data.find(b"\n") + 1 == len(data) <= limit:
                return data  # exactly one line, or the end of the stream: no copy
            self._buffer = bytearray(data)
        end = self._buffer.find(b"\n") + 1
        return self._take(end) if 0 < end <= limit else self._readline_special(size)

    def read_exactly(self, size: int, /) -> bytes:
        """Exactly `size` bytes.

        Raises `Incomplete` when the stream ends before, `TooLarge` above `message_limit`.
        """
        if len(self._buffer) >= size >= 0:
            return self._take(size)
        return self._read_exactly_special(size)

    def read_until(self, delimiter: bytes, limit: int | None = None, /) -> bytes:
        """Everything up to and with the delimiter.

        Raises `TooLarge` when it is not within `limit` bytes (default `message_limit`), and `Incomplete`
        when the stream ends before it.
        """
        return self._read_until_special(delimiter, limit)

    # Sending

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        """Send what the kernel takes, at least one byte, and return the number; as `socket.send`."""
        return self._send_special(data, flags)

    def sendall(self, data: "ReadableBuffer", flags: int = 0, /) -> None:
        """Send everything.  `TimeoutError` or `write_stalled` only when no byte moves for that long."""
        if flags or type(data) is not bytes or self._special or self._writing or self._tls is not None:
            self._sendall_special(data, flags)
            return
        self._writing = True  # no call since it was asked for: the interpreter changes threads only at calls and jumps
        try:
            count = self._send(data, MSG_DONTWAIT)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._end_turn()
            self._failed(error)
        if self._waiting_since:  # somebody else waits in a read; otherwise the next wait is the later moment
            self._moved_at = monotonic()
        self.bytes_sent += count
        if count < len(data):
            self._send_rest(memoryview(data)[count:])
        if self._line:
            self._end_turn()
        else:  # not before it is asked: who came meanwhile would have its turn ended by ours
            self._writing = False
        if self._loop is not None:
            self._loop.spend()

    # What the loop and the runners do with it

    def _attach(self, waiter: Waiter) -> None:
        """It is waited for in this way from now on."""
        self._waiter = waiter
        self._loop = waiter if waiter.is_loop else None

    def _use(self, session: Any) -> None:
        """All bytes go through this session from now on."""
        self._tls = session

    def _let_go(self, is_given_away: bool) -> None:
        """The descriptor is about to belong to somebody else, or to be closed."""
        if self._loop is not None:
            self._loop.forget(self, is_given_away)

    def _recv_in_fiber(self, size: int) -> bytes | None:
        """Wait and receive; None when there is something to be careful about."""
        while True:
            if self._readable:
                try:
                    data: bytes = self._recv(size, MSG_DONTWAIT)
                except BlockingIOError:
                    self._readable = False
                else:
                    if len(data) < size:
                        self._readable = self._sticky
                    self._loop.spend()
                    return data
            else:
                self._loop.wait_readable(self)
            if self._special:
                return None

    if TYPE_CHECKING:  # what the subclass does carefully

        def _recv_special(self, size: int, flags: int) -> bytes: ...
        def _recv_secure(self, size: int) -> bytes: ...
        def _readline_special(self, size: int | None) -> bytes: ...
        def _read_exactly_special(self, size: int) -> bytes: ...
        def _read_until_special(self, delimiter: bytes, limit: int | None) -> bytes: ...
        def _send_special(self, data: ReadableBuffer, flags: int) -> int: ...
        def _sendall_special(self, data: ReadableBuffer, flags: int) -> None: ...
        def _send_rest(self, view: memoryview, flags: int = 0) -> None: ...
        def _end_turn(self) -> None: ...
        def _take(self, size: int) -> bytes: ...
        def _end_of_stream(self) -> bytes: ...
        def _failed(self, error: BaseException) -> Any: ...
