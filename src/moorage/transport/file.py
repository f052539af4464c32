"""File: the calls of `rfile` and `wfile` that every line makes.

Owns      whether the file is open, and in which direction.
Promises  iteration and `write` cost what the stream's own calls cost, and no more.
Refuses   the rest of the file protocol: see files.
Why       this is the pure twin; `_native` has the one in C, chosen by `twins`.
"""

import io
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class File:
    """One side of a stream, or both, as a binary file."""

    __slots__ = ("_reads", "_stream", "_writes", "closed")

    def __init__(self, stream: Any, reads: bool, writes: bool) -> None:
        self._stream = stream
        self._reads = reads
        self._writes = writes
        self.closed = False

    def __iter__(self) -> Self:
        if self.closed:
            self._refuse(True)
        return self

    def __next__(self) -> bytes:
        if line := self.readline():
            return line
        raise StopIteration

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its newline; see `Stream.readline`."""
        if self.closed or not self._reads:
            self._refuse(self._reads)
        line: bytes = self._stream.readline(size)
        return line

    def write(self, data: "ReadableBuffer", /) -> int:
        """Send all of the data; returns its length in bytes."""
        if self.closed or not self._writes:
            self._refuse(self._writes)
        self._stream.sendall(data)
        return len(data) if type(data) is bytes else memoryview(data).nbytes

    def _refuse(self, can: bool) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if not can:
            raise io.UnsupportedOperation("not readable" if self._writes else "not writable")
