"""Wfile: what a handler writes to, when `self.request` is a real socket.

Owns      nothing: what is written is sent.
Promises  the deadline is on progress: a slow but reading peer is not cut, one that takes no byte for
          `write_timeout`, or for the socket's own timeout, is.
Refuses   to change the socket's timeout, which another thread may be reading under.
Why       the standard library takes the timeout for that of the whole reply, so that a healthy client is
          cut in the middle of a long one; without a timeout a peer that stops reading holds the handler
          for ever.
"""

import fcntl
import io
import select
import socket
import sys
import termios
from typing import Any

from .listening import is_tls

__all__ = ["Sink", "Writer"]

#: one TLS record (RFC 8446 5.1): what a socket that is writable takes without blocking for long
RECORD = 16 * 1024


class Sink(io.RawIOBase):
    """The socket as a raw file to write to, under a buffer."""

    def __init__(self, sock: socket.socket, write_timeout: float | None) -> None:
        self._sock = sock
        self._file = sock.makefile("wb", buffering=0)  # counts as an open file of the socket until `close`
        self._write_timeout = write_timeout

    def writable(self) -> bool:
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

    def write(self, data: Any) -> int:
        """Send all."""
        return _send_all(self._sock, data, self._write_timeout)


class Writer(io.BufferedIOBase):
    """Sends at once what is written; for `wbufsize = 0`."""

    def __init__(self, sock: socket.socket, write_timeout: float | None) -> None:
        self._sock = sock
        self._write_timeout = write_timeout

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    def write(self, data: Any) -> int:
        """Send all."""
        return _send_all(self._sock, data, self._write_timeout)


def _send_all(sock: socket.socket, data: Any, write_timeout: float | None) -> int:
    with memoryview(data).cast("B") as view:
        if sock.gettimeout() == 0.0:
            sock.sendall(view)
            return len(view)
        sent = 0
        while sent < len(view):
            with view[sent:] as rest:
                sent += _send(sock, rest, write_timeout)
        return len(view)


def _send(sock: socket.socket, data: memoryview, write_timeout: float | None) -> int:
    """Send some, at least one byte, waiting for as long as the peer takes what was sent before."""
    timeout = sock.gettimeout()
    if timeout is None and not is_tls(sock):
        try:
            return sock.send(data, socket.MSG_DONTWAIT)  # what nearly every write comes to
        except BlockingIOError:
            pass
    unsent = _unsent(sock)
    while True:
        try:
            if timeout is not None:
                return sock.send(data)  # waits for as long as the timeout
            return _send_blocking(sock, data, write_timeout)
        except TimeoutError:
            # A socket is writable only once a third of its buffer is free, which may be a megabyte.
            left = _unsent(sock)
            if left >= unsent:
                raise
            unsent = left


def _send_blocking(sock: socket.socket, data: memoryview, write_timeout: float | None) -> int:
    """Send some on a socket without a timeout, and wait for room no longer than `write_timeout`."""
    if is_tls(sock):
        _wait_writable(sock, write_timeout)
        return sock.send(data[:RECORD])
    while True:
        try:
            return sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            _wait_writable(sock, write_timeout)


def _wait_writable(sock: socket.socket, seconds: float | None) -> None:
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    if not poller.poll(None if seconds is None else 1000 * seconds):
        raise TimeoutError(f"the peer took no byte for {seconds:g} s")


def _unsent(sock: socket.socket) -> int:
    """Bytes that the peer has not acknowledged; SIOCOUTQ of tcp(7)."""
    try:
        answer: bytes = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    return int.from_bytes(answer, sys.byteorder)
