"""Rfile: what a handler reads from, when `self.request` is a real socket.

Owns      the buffer of one request's input.
Promises  a timeout loses no byte: the next read goes on; a line without a size is at most `line_limit`
          long; a line that was begun ends within `message_timeout`.
Refuses   to go on after a line that was too long: what follows is not the beginning of a line.
Why       the standard library's file loses the partial line at a timeout and refuses to be read after it;
          one client without a newline took 300 MB; a byte now and then trips no timeout at all.
"""

import io
import socket
from typing import Any

from ..deadline import Clock, monotonic
from ..errors import TooLarge

__all__ = ["Reader", "UnbufferedReader"]


class Source(io.RawIOBase):
    """The socket as a raw file; a timeout is kept in `stopped` for the reader to raise."""

    def __init__(self, sock: socket.socket, message_timeout: float | None, clock: Clock = monotonic) -> None:
        self._sock = sock  # by this name, as in `socket.SocketIO`, for programs that look
        self._file = sock.makefile("rb", buffering=0)  # counts as an open file of the socket until `close`
        self._message_timeout = message_timeout
        self._clock = clock
        self._until: float | None = None
        self._is_timed = False
        self.stopped: TimeoutError | None = None

    def readable(self) -> bool:
        """Always, until it is closed."""
        return not self.closed

    def fileno(self) -> int:
        """The socket's."""
        return self._file.fileno()

    def close(self) -> None:
        """Count as an open file no more."""
        if not self.closed:
            super().close()
            self._file.close()

    def begin_message(self, *, timed: bool) -> None:
        """What is read from here on is one line, or something without a deadline."""
        self._is_timed = timed and self._message_timeout is not None
        self._until = None

    def readinto(self, buffer: Any) -> int | None:
        """As of a file; None when a timeout stopped it."""
        if self._until is not None and self._clock() >= self._until:
            self.stopped = TimeoutError(f"the line did not end within {self._message_timeout:g} s")
            return None
        try:
            count = self._sock.recv_into(buffer)
        except TimeoutError as error:
            self.stopped = error
            return None
        except BlockingIOError:
            return None
        if self._is_timed and self._until is None and self._message_timeout is not None:
            self._until = self._clock() + self._message_timeout
        return count

    def take_stop(self) -> TimeoutError | None:
        """The timeout that stopped the last read, once."""
        stopped, self.stopped = self.stopped, None
        return stopped


class Reader(io.BufferedReader):
    """The buffered file; everything but timeouts and limits is the standard library's C code."""

    def __init__(
        self, sock: socket.socket, size: int, *, line_limit: int, message_timeout: float | None = None,
        clock: Clock = monotonic,
    ) -> None:  # fmt: skip
        self._source = Source(sock, message_timeout, clock)
        super().__init__(self._source, size if size > 0 else io.DEFAULT_BUFFER_SIZE)
        self._line_limit = line_limit
        self._kept = b""  # what a read that was stopped had taken out of the buffer
        self._broken: TooLarge | None = None

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line; without a size of at most `line_limit` bytes, or `TooLarge`."""
        source = self._source
        if self._broken is not None:
            raise self._broken
        if not self._kept:
            source.begin_message(timed=True)
        is_ours = size is None or size < 0
        limit = self._line_limit + 1 if is_ours else size or 0
        line = self._go_on(limit) if self._kept else super().readline(limit)
        if source.stopped is not None:
            self._stop(line)
        if is_ours and len(line) >= limit:
            self._broken = TooLarge(f"a line of more than {self._line_limit} bytes")
            raise self._broken
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all until the end of the stream."""
        self._source.begin_message(timed=False)
        kept = self._take_kept(size)
        rest = -1 if size is None or size < 0 else size - len(kept)
        data = kept + (super().read(rest) or b"") if rest else kept
        if self._source.stopped is not None:
            self._stop(data)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at least one byte."""
        self._source.begin_message(timed=False)
        data = self._take_kept(size) or super().read1(size)
        if self._source.stopped is not None:
            self._stop(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """As `read`, into a buffer."""
        return _fill(buffer, self.read)

    def readinto1(self, buffer: Any, /) -> int:
        """As `read1`, into a buffer."""
        return _fill(buffer, self.read1)

    def peek(self, size: int = 0, /) -> bytes:
        """What is there, which stays there."""
        data = self._kept or super().peek(size)
        if self._source.stopped is not None:
            self._stop(self._kept)
        return data

    def _go_on(self, limit: int) -> bytes:
        """The line whose beginning an earlier call has read."""
        end = self._kept.find(b"\n", 0, limit) + 1
        kept = self._take_kept(end or limit)
        if end or len(kept) >= limit:
            return kept
        return kept + super().readline(limit - len(kept))

    def _take_kept(self, size: int | None) -> bytes:
        if not self._kept or size == 0:
            return b""
        count = len(self._kept) if size is None or size < 0 else size
        taken, self._kept = self._kept[:count], self._kept[count:]
        return taken

    def _stop(self, read: bytes) -> None:
        """Keep what was read, and let the timeout be known."""
        stopped = self._source.take_stop()
        self._kept = read
        if stopped is not None:
            raise stopped


class UnbufferedReader(Source):
    """For `rbufsize = 0`: never more is read than was asked for."""

    def __init__(
        self, sock: socket.socket, *, line_limit: int, message_timeout: float | None = None, clock: Clock = monotonic
    ) -> None:
        super().__init__(sock, message_timeout, clock)
        self._line_limit = line_limit
        self._begun = bytearray()

    def readinto(self, buffer: Any) -> int | None:
        """As of a file; a timeout is raised."""
        count = super().readinto(buffer)
        stopped = self.take_stop()
        if stopped is not None:
            raise stopped
        return count

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line; without a size of at most `line_limit` bytes, or `TooLarge`."""
        is_ours = size is None or size < 0
        limit = self._line_limit + 1 if is_ours else size or 0
        line = self._begun
        if not line:
            self.begin_message(timed=True)
        while len(line) < limit and not line.endswith(b"\n"):
            byte = self.read(1)
            if not byte:
                break
            line += byte
        if is_ours and len(line) >= limit:
            raise TooLarge(f"a line of more than {self._line_limit} bytes")
        self._begun = bytearray()
        return bytes(line)


def _fill(buffer: Any, read: Any) -> int:
    with memoryview(buffer).cast("B") as view:
        data: bytes = read(len(view))
        view[: len(data)] = data
    return len(data)
