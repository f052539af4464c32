"""Rfile: what a handler reads from, when `self.request` is a real socket.

Owns      the buffer of one request's input.
Promises  a timeout loses no byte: the next read goes on; a line without a size is at most `line_limit`
          long; a line that was begun ends within `message_timeout`.
Refuses   to go on after a line that was too long: what follows is not the beginning of a line.
Why       the standard library's file loses the partial line at a timeout and refuses to be read after it;
          one client without a newline took 300 MB; a byte now and then trips no timeout at all.
"""

import io
import select
import socket
from typing import Any, NamedTuple

from ..deadline import Clock, monotonic
from ..errors import TooLarge
from .listening import is_tls

__all__ = ["Limits", "Reader", "UnbufferedReader"]


class Limits(NamedTuple):
    """The limits of one reader."""

    line: int
    message: int | None = None
    message_timeout: float | None = None
    idle_timeout: float | None = None


class Source(io.RawIOBase):
    """The socket as a raw file; a timeout is kept in `stopped` for the reader to raise."""

    def __init__(self, sock: socket.socket, limits: Limits, clock: Clock = monotonic) -> None:
        self._sock = sock  # by this name, as in `socket.SocketIO`, for programs that look
        self._file = sock.makefile("rb", buffering=0)  # counts as an open file of the socket until `close`
        self._limits = limits
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
        self._is_timed = timed and self._limits.message_timeout is not None
        self._until = None

    def readinto(self, buffer: Any) -> int | None:
        """As of a file; None when a timeout stopped it."""
        limits = self._limits
        if self._until is not None and self._clock() >= self._until:
            self.stopped = TimeoutError(f"the line did not end within {limits.message_timeout:g} s")
            return None
        if limits.idle_timeout is not None and not self._wait(limits.idle_timeout):
            self.stopped = TimeoutError(f"no byte came for {limits.idle_timeout:g} s")
            return None
        try:
            count = self._sock.recv_into(buffer)
        except TimeoutError as error:
            self.stopped = error
            return None
        except BlockingIOError:
            return None
        if self._is_timed and self._until is None and limits.message_timeout is not None:
            self._until = self._clock() + limits.message_timeout
        return count

    def _wait(self, seconds: float) -> bool:
        if is_tls(self._sock) and self._sock.pending():  # type: ignore[attr-defined]  # is_tls knows
            return True
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(1000 * seconds))

    def take_stop(self) -> TimeoutError | None:
        """The timeout that stopped the last read, once."""
        stopped, self.stopped = self.stopped, None
        return stopped


class Reader(io.BufferedReader):
    """The buffered file; everything but timeouts and limits is the standard library's C code."""

    def __init__(self, sock: socket.socket, size: int, limits: Limits, clock: Clock = monotonic) -> None:
        self._sock = sock  # whose file this is, for the quiet-error rule
        self._source = Source(sock, limits, clock)
        super().__init__(self._source, size if size > 0 else io.DEFAULT_BUFFER_SIZE)
        self._limits = limits
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
        limit = self._limits.line + 1 if is_ours else size or 0
        line = self._go_on(limit) if self._kept else super().readline(limit)
        if source.stopped is not None:
            self._stop(line)
        if is_ours and len(line) >= limit:
            self._broken = TooLarge(f"a line of more than {self._limits.line} bytes")
            raise self._broken
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all until the end of the stream."""
        self._begin_block()
        limit = self._limits.message
        if limit is not None and (size is None or size < 0 or size > limit):
            return self._read_limited(limit)
        kept = self._take_kept(size)
        rest = -1 if size is None or size < 0 else size - len(kept)
        data = kept + (super().read(rest) or b"") if rest else kept
        if self._source.stopped is not None:
            self._stop(data)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at least one byte."""
        self._begin_block()
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

    def _begin_block(self) -> None:
        if self._broken is not None:
            raise self._broken
        self._source.begin_message(timed=False)

    def _read_limited(self, limit: int) -> bytes:
        data = self.read1(limit + 1)
        while data and len(data) <= limit:
            try:
                more = self.read1(limit + 1 - len(data))
            except TimeoutError:
                self._kept = data
                raise
            if not more:
                return data
            data += more
        if data:
            self._broken = TooLarge(f"a message of more than {limit} bytes")
            raise self._broken
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

    def __init__(self, sock: socket.socket, limits: Limits, clock: Clock = monotonic) -> None:
        super().__init__(sock, limits, clock)
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
        limit = self._limits.line + 1 if is_ours else size or 0
        line = self._begun
        if not line:
            self.begin_message(timed=True)
        while len(line) < limit and not line.endswith(b"\n"):
            byte = self.read(1)
            if not byte:
                break
            line += byte
        if is_ours and len(line) >= limit:
            raise TooLarge(f"a line of more than {self._limits.line} bytes")
        self._begun = bytearray()
        return bytes(line)


def _fill(buffer: Any, read: Any) -> int:
    with memoryview(buffer).cast("B") as view:
        data: bytes = read(len(view))
        view[: len(data)] = data
    return len(data)
