# File: the native twin of `moorage/transport/file.py`, which says what it is for.
#
# Owns      whether the file is open, and in which direction.
# Promises  what the pure twin does.


cdef class File:
    """One side of a stream, or both, as a binary file."""

    cdef readonly Stream _stream
    cdef readonly bint _reads, _writes
    cdef public bint closed

    def __init__(self, Stream stream not None, bint reads, bint writes):
        self._stream = stream
        self._reads = reads
        self._writes = writes

    def __iter__(self):
        if self.closed:
            self._refuse(True)
        return self

    def __next__(self):
        line = self._line(-1)
        if line:
            return line
        raise StopIteration

    def readline(self, size=-1, /):
        """One line with its newline; see `Stream.readline`."""
        return self._line(size)

    def write(self, data, /):
        """Send all of the data; returns its length in bytes."""
        if self.closed or not self._writes:
            self._refuse(self._writes)
        return self._stream._send_whole(data)

    cdef object _line(self, size):
        if self.closed or not self._reads:
            self._refuse(self._reads)
        return self._stream._read_line(size)

    def _refuse(self, bint can):
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if not can:
            from io import UnsupportedOperation

            raise UnsupportedOperation("not readable" if self._writes else "not writable")
