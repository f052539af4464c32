"""CarefulStream: a Stream with all that is not the common case.

Owns      timeouts, deadlines, flags, blocks that come in pieces, and the order of several writers.
Promises  a `TimeoutError` loses no byte: the next read goes on where it stopped; the write deadline is on
          progress, not on the whole reply.
Refuses   to know why a connection ends: a subclass answers `_check`, `_expire`, `_stream_end` and `record`.
Why       `socket.makefile()` throws the begun line away at a timeout and then refuses to go on, and
          `socket.sendall()` takes its timeout for the whole reply, which cuts slow but healthy readers.

One implementation for both twins of `Stream`.  All waiting is one method, `_wait`; all receiving ends in
`_receive`; all sending in `_transmit`.
"""

import errno
import fcntl
import socket
import sys
import termios
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ..deadline import monotonic
from ..errors import Incomplete, TooLarge
from ..events import Cause
from ..hub.parking import make_parker
from ..twins import Stream
from .stream import BLOCK_SIZE, MSG_DONTWAIT, MSG_PEEK, READ, RECV_SIZE, WRITE

if TYPE_CHECKING:
    from _socket import socket as Socket

    from _typeshed import ReadableBuffer

Error = TypeVar("Error", bound=BaseException)

#: what the peer or the network did; anything else (EBADF, EINVAL) is the handler's own mistake
RESET_ERRNOS = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH,
     errno.ENETDOWN, errno.ENOTCONN, errno.ESHUTDOWN}
)  # fmt: skip

#: seconds of a message in which `min_rate` asks for nothing: a lost packet is sent again within them
RATE_GRACE = 5.0

#: seconds of a wait for writing after which progress is looked for once: at its first window probe (0.2 s) a peer that
#: does not read takes some bytes more, which at the end of its time would give it the whole time again
FIRST_LOOK = 0.5

MSG_WAITALL = int(socket.MSG_WAITALL)


class CarefulStream(Stream):
    """Takes its time over everything unusual."""

    __slots__ = ()

    def peek(self, size: int = 1, /) -> bytes:
        """What has been read ahead; receives once when that is nothing.  Consumes no byte."""
        if not self._buffer:
            self._fill(size)
        return bytes(self._buffer)

    def _refresh(self) -> None:
        """Choose between plain calls and careful ones, after anything that bears on it has changed."""
        waiter = self._waiter
        self._special = self._timeout is not None or self._until is not None or waiter is None or not waiter.plain
        if self._ended or self._told:  # set by another thread, perhaps just now
            self._special = True

    # What a subclass answers

    def _check(self, writing: bool) -> None:
        """Raise when the server has ended this connection; called before every unusual step."""

    def _expire(self, cause: Cause) -> None:
        """A final deadline has passed: end the connection."""
        raise NotImplementedError

    def _only_observes(self) -> bool:
        """Whether a message that is too slow is not to be ended."""
        return False

    def _stream_end(self) -> None:
        """The kernel said end of stream: raise when it was the server that ended it."""

    if TYPE_CHECKING:

        def record(self, cause: Cause) -> None:
            """Something happened that explains the end."""

        # what one with TLS does, see secure
        def _receive_secure(self, size: int, flags: int = 0) -> bytes: ...
        def _send_secure(self, data: ReadableBuffer, flags: int = 0) -> int: ...
        def _send_one(self, data: ReadableBuffer, flags: int) -> int: ...
        def _flush(self, flags: int = 0) -> None: ...
        def _check_flags(self, flags: int) -> None: ...

    # What Stream leaves to us

    def _recv_special(self, size: int, flags: int) -> bytes:
        self._check(False)
        if size < 0:
            raise ValueError("negative buffersize in recv")
        if flags and self._tls is not None:
            self._check_flags(flags)
        if flags & MSG_WAITALL and not flags & (MSG_PEEK | MSG_DONTWAIT):
            while len(self._buffer) < size and self._fill(size - len(self._buffer)):
                pass
        elif size and not self._buffer:
            return self._receive(size, flags) if self._tls is None else self._receive_secure(size, flags)
        if flags & MSG_PEEK:
            return bytes(self._buffer[:size])
        return self._take(min(size, len(self._buffer)))

    def _readline_special(self, size: int | None) -> bytes:
        strict = size is None or size < 0
        limit = self._limits.line_limit if size is None or size < 0 else size
        end = self._find(b"\n", limit, strict)
        return self._take(len(self._buffer) if end is None else end)

    def _read_exactly_special(self, size: int) -> bytes:
        if size < 0:
            raise ValueError(f"read_exactly needs a size of zero or more, not {size}")
        if size > self._limits.message_limit:
            self._too_large(f"a block of {size} bytes is above message_limit ({self._limits.message_limit} bytes)")
        while len(self._buffer) < size:
            if not self._fill(size - len(self._buffer)):
                self._incomplete(f"a block of {size} bytes")
        return self._take(size)

    def _read_until_special(self, delimiter: bytes, limit: int | None) -> bytes:
        if not delimiter:
            raise ValueError("read_until needs a delimiter of at least one byte")
        end = self._find(delimiter, self._limits.message_limit if limit is None else limit, True)
        if end is None:
            self._incomplete(f"a message that ends in {delimiter!r}")
        return self._take(end)

    def _send_special(self, data: "ReadableBuffer", flags: int) -> int:
        if self._tls is not None:
            return self._send_one(data, flags)
        return self._send_in_turn(self._send, data, flags)

    def _sendall_special(self, data: "ReadableBuffer", flags: int) -> None:
        view = memoryview(data).cast("B")
        if flags and self._tls is not None:
            self._check_flags(flags)
        self._take_turn()
        self._send_rest(view, flags)
        self._end_turn()

    def _send_rest(self, view: memoryview, flags: int = 0) -> None:
        """Send this whole view in our turn, which an error ends."""
        send = self._send if self._tls is None else self._send_secure
        try:
            while view:
                view = view[self._transmit(send, view, flags) :]
            if self._tls is not None:
                self._flush(flags)
        except BaseException:
            self._end_turn()
            raise

    # Several writers

    def _send_in_turn(self, send: Any, data: Any, flags: int) -> int:
        """One send between the messages of others."""
        self._take_turn()
        try:
            return self._transmit(send, data, flags)
        finally:
            self._end_turn()

    def _take_turn(self) -> None:
        """Wait until nobody is in the middle of a message."""
        while self._writing:
            parker = make_parker()
            line: deque[Any] = deque()
            if self._line is None:  # and no call until it is set: who waits in a second line would wait for ever
                self._line = line
            self._line.append(parker)
            is_free = not self._writing  # perhaps meanwhile, when nobody has seen us in the line
            if not is_free and not parker.wait(self._timeout):
                raise self._own(TimeoutError("timed out"))
        self._writing = True  # no call since it was asked for: the interpreter changes threads only at calls and jumps

    def _end_turn(self) -> None:
        self._writing = False
        try:
            while self._line:  # all of them: one may have left meanwhile, and who comes first goes first
                self._line.popleft().release()
        except IndexError:  # the next writer has ended its turn, too, and was faster
            pass

    # The steps that all of the above are made of

    def _receive(self, size: int, flags: int = 0, receive: Any = None) -> bytes:
        """One receive, after a wait if need be; b"" at the end of the stream."""
        receive = receive or self._recv
        while True:
            if self._timeout != 0 and not flags & MSG_DONTWAIT:
                self._wait(READ)
            try:
                data: bytes = receive(size, flags | MSG_DONTWAIT)
            except BlockingIOError as error:
                self._readable = False
                if self._told:
                    return self._end_of_stream()
                if self._timeout == 0 or flags & MSG_DONTWAIT:
                    self._failed(error)
            except OSError as error:
                self._failed(error)
            else:
                if not flags & MSG_PEEK:
                    self.bytes_received += len(data)
                    if len(data) < size:
                        self._readable = self._sticky
                return data if data or not size else self._end_of_stream()

    def _transmit(self, send: Any, data: Any, flags: int) -> int:
        """One send that moved at least one byte."""
        self._check(True)
        while True:
            try:
                count: int = send(data, flags | MSG_DONTWAIT)
            except BlockingIOError as error:
                self._writable = False
                if self._timeout == 0 or flags & MSG_DONTWAIT:
                    self._failed(error)
            except OSError as error:
                self._failed(error)
            else:
                self._moved_at = monotonic()
                self.bytes_sent += count
                return count
            self._wait(WRITE)

    def _fill(self, size: int) -> bool:
        """Add to the buffer; False at the end of the stream.  The time of a begun block is counted."""
        if self._buffer and self._message_begun is None:
            self._message_begun = monotonic()
        self._check(False)
        receive = self._receive if self._tls is None else self._receive_secure
        data = receive(min(max(size, RECV_SIZE), BLOCK_SIZE))
        if self._buffer:
            self._buffer += data
        elif data:
            self._buffer = bytearray(data)
        return bool(data)

    def _take(self, size: int) -> bytes:
        """The first bytes of the buffer, which a block ends with."""
        self._message_begun = None
        taken = bytes(self._buffer[:size])
        if size >= len(self._buffer):
            self._buffer = b""
        else:
            del self._buffer[:size]  # type: ignore[union-attr]  # only b"" is not a bytearray
        if self._loop is not None:  # thousands of blocks may be buffered
            self._loop.spend()
        return taken

    def _find(self, delimiter: bytes, limit: int, strict: bool) -> int | None:
        """The length of the block up to the delimiter, or `limit` unless strict; None at the end of the stream."""
        searched = 0
        while True:
            found = self._buffer.find(delimiter, searched)
            end = found + len(delimiter) if found >= 0 else len(self._buffer)
            if end > limit or (end == limit and found < 0):
                if not strict:
                    return limit
                if end > limit:
                    self._too_large(f"no {delimiter!r} within {limit} bytes")
            if found >= 0:
                return end
            searched = max(0, len(self._buffer) - len(delimiter) + 1)
            if not self._fill(RECV_SIZE):
                return None

    def _wait(self, mask: int) -> None:
        """Return when the socket is ready, or the reader was told; raise at a timeout or a final deadline."""
        assert self._waiter is not None
        begun, reading = monotonic(), mask != WRITE
        if self._moved != self.bytes_received + self.bytes_sent:
            self._moved = self.bytes_received + self.bytes_sent
            self._in_vain = None
        since = begun if self._in_vain is None else begun - self._in_vain.get(reading, 0.0)
        if reading:
            self._waiting_since = since
        else:
            self._unsent = _unsent(self._sock)
        has_looked = reading
        try:
            while True:
                self._check(not reading)
                if (reading and self._told) or self._sock.fileno() < 0:  # closed: the call itself will say so
                    return
                due, final = self._next_due(begun, since, reading)
                left = None if due is None else max(0.0, due - monotonic())
                if final is Cause.WRITE_STALLED and not has_looked:
                    left = min(left or 0.0, FIRST_LOOK)
                is_late = self._until is not None and begun > self._until  # ready or not, nothing more is wanted
                if not is_late and self._waiter.wait(self, mask, left):
                    return
                if due is not None and monotonic() >= due:
                    self._time_is_up(final, reading, since)
                elif not reading:
                    has_looked = True
                    self._has_moved()
        finally:
            if reading:
                self._waiting_since = 0.0

    def _next_due(self, begun: float, since: float, reading: bool) -> tuple[float | None, Cause | None]:
        """The next moment at which this wait ends, and the cause if that is final."""
        due, final = self._until, None
        if self._timeout is not None and (due is None or begun + self._timeout < due):
            due = begun + self._timeout
        if reading:
            if self._message_begun is not None:
                due, final = self._message_due(self._message_begun, due)
            limit, cause = self._limits.idle_timeout, Cause.IDLE
        else:
            limit, cause = self._limits.write_timeout, Cause.WRITE_STALLED
        if limit is not None:
            moment = max(since, self._moved_at) + limit
            if due is None or moment <= due:
                due, final = moment, cause
        return due, final

    def _message_due(self, begun: float, due: float | None) -> tuple[float | None, Cause | None]:
        """The same for the message that began then: all of it in its time, and each part of it not too slowly."""
        final = None
        limit, rate = self._limits.message_timeout, self._limits.min_rate
        if limit is not None and (due is None or begun + limit <= due):
            due, final = begun + limit, Cause.MESSAGE_DEADLINE
        if rate is not None:
            moment = begun + RATE_GRACE + len(self._buffer) / rate
            if due is None or moment < due:
                due, final = moment, Cause.MIN_RATE
        return due, final

    def _time_is_up(self, final: Cause | None, reading: bool, since: float) -> None:
        if final is None:
            if self._in_vain is None:
                self._in_vain = {}
            self._in_vain[reading] = monotonic() - since
            raise self._own(TimeoutError("timed out"))
        if final is Cause.WRITE_STALLED and self._has_moved():
            return
        if final is Cause.MIN_RATE and self._only_observes():
            return
        self._expire(final)
        self._check(not reading)

    def _has_moved(self) -> bool:
        """Whether the peer has taken anything, though too little for `poll` to say writable."""
        if self._sock.fileno() < 0 or (unsent := _unsent(self._sock)) >= self._unsent:
            return False
        self._unsent, self._moved_at = unsent, monotonic()
        return True

    def _end_of_stream(self) -> bytes:
        """End of stream, delivered once the subclass agrees; never after a begun block when told by drain."""
        self._waiting_since = 0.0
        self._stream_end()
        return b""

    def _failed(self, error: BaseException) -> NoReturn:
        """Raise what the system said, unless it is what our own end looks like from here."""
        self._waiting_since = 0.0
        if isinstance(error, OSError) and not isinstance(error, BlockingIOError):
            self._check(False)
            if error.errno in RESET_ERRNOS:
                self.record(Cause.RESET)
                self._own(error)
        try:
            raise error
        finally:
            del error  # no cycle of an error and the frame it is raised in

    def _too_large(self, text: str) -> NoReturn:
        self.record(Cause.TOO_LARGE)
        raise self._own(TooLarge(f"{text}: raise the limit if such messages are wanted"))

    def _incomplete(self, wanted: str) -> NoReturn:
        raise self._own(Incomplete(bytes(self._buffer), wanted))

    def _own(self, error: Error) -> Error:
        """Mark an exception as of this stream's making; more than one may be under way (a flush in `finally`)."""
        error.raised_by = self  # type: ignore[attr-defined]  # exceptions take attributes
        return error


def _unsent(sock: "Socket") -> int:
    """Bytes that wait for the peer to take them."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
