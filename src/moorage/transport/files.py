"""Files: a Stream as the binary files that handlers know, `rfile` and `wfile`.

Owns      nothing: all bytes are in the Stream, so that `rfile`, `makefile()` and `recv()` may be mixed.
Promises  the protocol of `io.BufferedIOBase`; after a `TimeoutError` reading goes on where it stopped;
          closing a file does not close the connection.
Refuses   unlimited reads: without a size a line obeys `line_limit`, everything else `message_limit`;
          the caller's own size wins.
"""

import io
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self
from weakref import ref

from ..twins import File
from .careful import CarefulStream
from .stream import RECV_SIZE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class BinaryFile(File):
    """What all binary files of a stream have."""

    __slots__ = ("__weakref__",)

    _stream: CarefulStream

    def readable(self) -> bool:
        """Whether it is the receiving side."""
        return bool(self._reads)

    def writable(self) -> bool:
        """Whether it is the sending side."""
        return bool(self._writes)

    def seekable(self) -> bool:
        """False."""
        return False

    def isatty(self) -> bool:
        """False."""
        return False

    def fileno(self) -> int:
        """The descriptor of the connection."""
        return self._stream._sock.fileno()

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises `io.UnsupportedOperation` where it is only the sending side."""
        raise io.UnsupportedOperation("not readable")

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Lines up to the end of the stream, or until they have `hint` bytes together."""
        lines: list[bytes] = []
        left = math.inf if hint is None or hint <= 0 else hint
        while left > 0 and (line := self.readline()):
            lines.append(line)
            left -= len(line)
        return lines

    def writelines(self, lines: "Iterable[ReadableBuffer]", /) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing to do: what is written is sent at once."""
        self._check_open()

    def close(self) -> None:
        """The file; the connection stays open."""
        if not self.closed:
            self.flush()
            self.closed = True

    def tell(self) -> int:
        """Raises `io.UnsupportedOperation`, as do `seek`, `truncate` and `detach`."""
        raise io.UnsupportedOperation("a connection has no position")

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """See `tell`."""
        return self.tell()

    def truncate(self, size: int | None = None, /) -> int:
        """See `tell`."""
        return self.tell()

    def detach(self) -> io.RawIOBase:
        """See `tell`."""
        raise io.UnsupportedOperation("there is nothing below this file")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


io.BufferedIOBase.register(BinaryFile)  # which cannot be a base of a class that is made in C


class Reader(BinaryFile):
    """The receiving side of a stream."""

    __slots__ = ()

    def __init__(self, stream: CarefulStream) -> None:
        super().__init__(stream, True, False)

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

    def peek(self, size: int = 1, /) -> bytes:
        """What has been read ahead, after one receive when that is nothing."""
        self._check_open()
        return self._stream.peek(size)

    @staticmethod
    def _into(buffer: "WriteableBuffer", read: Callable[[int], bytes]) -> int:
        view = memoryview(buffer).cast("B")
        data = read(len(view))
        view[: len(data)] = data
        return len(data)


class UnbufferedReader(Reader):
    """As `socket.makefile("rb", 0)`: a read returns what is there, and nothing means the end of the stream."""

    __slots__ = ()

    def read(self, size: int | None = -1, /) -> bytes:
        """What is there, at most `size` bytes; without a size everything up to the end of the stream."""
        return super().read(size) if size is None or size < 0 else self.read1(size)


class Writer(BinaryFile):
    """The sending side of a stream; each write is sent at once and whole."""

    __slots__ = ()

    def __init__(self, stream: CarefulStream) -> None:
        super().__init__(stream, False, True)


class _Piecewise(io.RawIOBase):
    """What a buffer writes to: it has to know how much was sent before a timeout, or it would send that again."""

    def __init__(self, stream: CarefulStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream._sock.fileno()

    def write(self, data: "ReadableBuffer", /) -> int:
        return self._stream.send(data)


class Both(Reader):
    """Both sides of a stream; `io.BufferedRWPair` would read ahead into a buffer of its own."""

    __slots__ = ("_writer",)

    def __init__(self, stream: CarefulStream, writer: "io.BufferedIOBase | Writer") -> None:
        BinaryFile.__init__(self, stream, True, True)
        self._writer = writer

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
    stream: CarefulStream,
    mode: str,
    *,
    buffering: int | None,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> "BinaryFile | io.BufferedIOBase | io.TextIOWrapper":
    """A file over a stream, as `socket.makefile` makes it; reading is always buffered, in the stream."""
    if not set(mode) <= set("rwb") or not set(mode) & set("rw"):
        raise ValueError(f"invalid mode {mode!r} (only r, w, rw and b are allowed)")
    binary = "b" in mode
    if buffering == 0 and not binary:
        raise ValueError("unbuffered streams must be binary")
    file: BinaryFile | io.BufferedIOBase = UnbufferedReader(stream) if buffering == 0 else Reader(stream)
    if "w" in mode:
        writer = _buffered(stream, buffering)
        file = Both(stream, writer) if "r" in mode else writer
    if binary:
        return file
    text: io.TextIOWrapper = io.TextIOWrapper(file, encoding, errors, newline)  # type: ignore[arg-type]  # has no name, as sockets' files
    if "r" in mode:
        stream._text = ref(text)  # it reads ahead into a buffer of its own, which start_tls() has to know of
    return text


def _buffered(stream: CarefulStream, buffering: int | None) -> "io.BufferedIOBase | Writer":
    if buffering == 0:
        return Writer(stream)
    size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 2 else buffering
    return io.BufferedWriter(_Piecewise(stream), size)


__all__ = ["BinaryFile", "Both", "Reader", "UnbufferedReader", "Writer", "make_file"]
