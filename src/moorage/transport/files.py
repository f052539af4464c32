"""Files: a Stream as the binary files that handlers know, `rfile` and `wfile`.

Owns      nothing: all bytes are in the Stream, so that `rfile`, `makefile()` and `recv()` may be mixed.
Promises  the protocol of `io.BufferedIOBase`; after a `TimeoutError` reading goes on where it stopped;
          closing a file does not close the connection.
Refuses   unlimited reads: without a size a line obeys `line_limit`, everything else `message_limit`;
          the caller's own size wins.
"""

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .stream import RECV_SIZE, Stream

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Reader(io.BufferedIOBase):
    """The receiving side of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor of the connection."""
        return self._stream._sock.fileno()

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the end of the stream; without a size everything up to its end."""
        self._check_open()
        stream = self._stream
        if size is None or size < 0:
            while stream._fill(RECV_SIZE):
                if len(stream._buffer) > stream._limits.message_limit:
                    stream._too_large(f"more than {stream._limits.message_limit} bytes without an end of stream")
            return stream._take(len(stream._buffer))
        while len(stream._buffer) < size and stream._fill(size - len(stream._buffer)):
            pass
        return stream._take(min(size, len(stream._buffer)))

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most `size` bytes, after one receive at the most."""
        self._check_open()
        return self._stream.recv(RECV_SIZE if size < 0 else size)

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the buffer, less only at the end of the stream; returns the number of bytes."""
        return self._into(buffer, self.read)

    def readinto1(self, buffer: "WriteableBuffer", /) -> int:
        """What is there, into the buffer; returns the number of bytes."""
        return self._into(buffer, self.read1)

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its newline; see `Stream.readline`."""
        self._check_open()
        return self._stream.readline(size)

    def peek(self, size: int = 1, /) -> bytes:
        """What has been read ahead, after one receive when that is nothing."""
        self._check_open()
        return self._stream.peek(size)

    def __iter__(self) -> Iterator[bytes]:
        self._check_open()
        return iter(self._stream.readline, b"")

    def __next__(self) -> bytes:
        if line := self._stream.readline():
            return line
        raise StopIteration

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    @staticmethod
    def _into(buffer: "WriteableBuffer", read: Callable[[int], bytes]) -> int:
        view = memoryview(buffer).cast("B")
        data = read(len(view))
        view[: len(data)] = data
        return len(data)


class UnbufferedReader(Reader):
    """As `socket.makefile("rb", 0)`: a read returns what is there, and nothing means the end of the stream."""

    def read(self, size: int | None = -1, /) -> bytes:
        """What is there, at most `size` bytes; without a size everything up to the end of the stream."""
        return super().read(size) if size is None or size < 0 else self.read1(size)


class Writer(io.BufferedIOBase):
    """The sending side of a stream; each write is sent at once and whole."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor of the connection."""
        return self._stream._sock.fileno()

    def write(self, data: "ReadableBuffer", /) -> int:
        """Send all of the data; returns its length in bytes."""
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        self._stream.sendall(data)
        return len(data) if type(data) is bytes else memoryview(data).nbytes


class _Piecewise(Writer):
    """What a buffer writes to: it has to know how much was sent before a timeout, or it would send that again."""

    def write(self, data: "ReadableBuffer", /) -> int:
        return self._stream.send(data)


class Both(Reader):
    """Both sides of a stream; `io.BufferedRWPair` would read ahead into a buffer of its own."""

    def __init__(self, stream: Stream, writer: io.BufferedIOBase) -> None:
        super().__init__(stream)
        self._writer = writer

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Send the data, or buffer it; returns its length in bytes."""
        self._check_open()
        return self._writer.write(data)

    def flush(self) -> None:
        """Send what is buffered."""
        if not self.closed:
            self._writer.flush()

    def close(self) -> None:
        """Send what is buffered; the connection stays open."""
        try:
            super().close()  # which flushes
        finally:
            self._writer.close()


def make_file(
    stream: Stream,
    mode: str,
    *,
    buffering: int | None,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> "io.BufferedIOBase | io.TextIOWrapper":
    """A file over a stream, as `socket.makefile` makes it; reading is always buffered, in the stream."""
    if not set(mode) <= set("rwb") or not set(mode) & set("rw"):
        raise ValueError(f"invalid mode {mode!r} (only r, w, rw and b are allowed)")
    binary = "b" in mode
    if buffering == 0 and not binary:
        raise ValueError("unbuffered streams must be binary")
    file: io.BufferedIOBase = UnbufferedReader(stream) if buffering == 0 else Reader(stream)
    if "w" in mode:
        writer = _buffered(stream, buffering)
        file = Both(stream, writer) if "r" in mode else writer
    if binary:
        return file
    return io.TextIOWrapper(file, encoding, errors, newline)  # type: ignore[arg-type]  # has no name, as sockets' files


def _buffered(stream: Stream, buffering: int | None) -> io.BufferedIOBase:
    if buffering == 0:
        return Writer(stream)
    size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 2 else buffering
    return io.BufferedWriter(_Piecewise(stream), size)


__all__ = ["Both", "Reader", "UnbufferedReader", "Writer", "make_file"]
