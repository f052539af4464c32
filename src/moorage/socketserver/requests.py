"""Requests: what programs subclass to handle a request.

Owns      the life of a handler: `setup()`, `handle()`, `finish()`.
Promises  `finish()` runs even when `setup()` raised, and does not hide what it raised; `rfile` and `wfile`
          of real sockets keep to the limits; with any other request they are the standard library's.
Refuses   limits from anywhere but the class: `line_limit`, `message_timeout`, `write_timeout`.
"""

import io
import socket
import socketserver as stdlib
from typing import Any

from .rfile import Limits, Reader, UnbufferedReader
from .wfile import Sink, Writer

__all__ = ["BaseRequestHandler", "DatagramRequestHandler", "StreamRequestHandler"]


class BaseRequestHandler(stdlib.BaseRequestHandler):
    """Handles one request in `handle()`; see the standard library."""

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        try:
            self.setup()
        except BaseException:
            self._moorage_finish_quietly()
            raise
        try:
            self.handle()
        finally:
            self.finish()

    def _moorage_finish_quietly(self) -> None:
        """`finish()` of a handler that is not set up: what it misses is not the error to report."""
        try:
            self.finish()
        except Exception:
            pass


class StreamRequestHandler(BaseRequestHandler, stdlib.StreamRequestHandler):
    """Adds `self.rfile` and `self.wfile`; see the standard library for `timeout` and the buffer sizes."""

    #: the longest line of `readline()` without a size
    line_limit: int = 64 * 1024
    #: from the first byte of a line to its last, in handlers that set `timeout`
    message_timeout: float | None = 30.0
    #: the most that one `read()` returns
    message_limit: int | None = None
    #: how long a read may wait without a byte, where the handler sets no `timeout`
    idle_timeout: float | None = None
    #: how long the peer may take no byte of a reply
    write_timeout: float | None = 30.0

    def setup(self) -> None:
        """Make the files."""
        if not isinstance(self.request, socket.socket):
            super().setup()
            return
        self.connection = self.request
        if self.timeout is not None:
            self.connection.settimeout(self.timeout)
        if self.disable_nagle_algorithm:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        limits = Limits(
            line=self.line_limit,
            message=self.message_limit,
            message_timeout=self.message_timeout if self.timeout is not None else None,
            idle_timeout=self.idle_timeout if self.timeout is None else None,
        )
        if self.rbufsize:
            self.rfile = Reader(self.connection, self.rbufsize, limits)
        else:
            self.rfile = UnbufferedReader(self.connection, limits)  # type: ignore[assignment]  # raw, as in the stdlib
        if self.wbufsize == 0:
            self.wfile = Writer(self.connection, self.write_timeout)
        else:
            size = self.wbufsize if self.wbufsize > 0 else io.DEFAULT_BUFFER_SIZE
            self.wfile = io.BufferedWriter(Sink(self.connection, self.write_timeout), size)

    def finish(self) -> None:
        """Send what is buffered, and close the files; what `setup()` did not make is left out."""
        wfile, rfile = getattr(self, "wfile", None), getattr(self, "rfile", None)
        if wfile is not None:
            try:
                wfile.close()  # which flushes
            except OSError:  # the peer is gone
                pass
        if rfile is not None:
            rfile.close()


class DatagramRequestHandler(BaseRequestHandler, stdlib.DatagramRequestHandler):
    """Defines `self.rfile` and `self.wfile` for datagrams; `finish()` sends the reply."""
