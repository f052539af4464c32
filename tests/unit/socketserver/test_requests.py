"""Unit tests of `moorage.socketserver.requests`."""

import io
import socket
from typing import Any
from unittest import mock

import pytest

from moorage.socketserver import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from moorage.socketserver.rfile import Reader, UnbufferedReader
from support.sockets import pair


def test_finish_runs_when_setup_raised_and_does_not_hide_it() -> None:
    called = []

    class Handler(BaseRequestHandler):
        def setup(self) -> None:
            raise LookupError("no setup")

        def finish(self) -> None:
            called.append("finish")
            raise AttributeError("because nothing is set up")

    with pytest.raises(LookupError, match="no setup"):
        Handler(None, None, None)
    assert called == ["finish"]


def test_finish_runs_when_handle_raised() -> None:
    called = []

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            raise LookupError

        def finish(self) -> None:
            called.append("finish")

    with pytest.raises(LookupError):
        Handler(None, None, None)
    assert called == ["finish"]


def test_stream_handler_whose_setup_raised_at_once_has_nothing_to_finish() -> None:
    class Handler(StreamRequestHandler):
        def setup(self) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        Handler(None, None, None)


def run(handle: Any, **settings: Any) -> Any:
    """Let a handler with these class settings run on one end of a pair."""
    handler = type("Handler", (StreamRequestHandler,), {"handle": handle, **settings})
    with pair() as (ours, theirs):
        theirs.sendall(b"line\n")
        made = handler(ours, theirs.getsockname(), None)
        ours.close()
        return made, theirs.recv(100)


@pytest.mark.parametrize("wbufsize", [0, -1, 100])
def test_stream_handler_reads_and_writes(wbufsize: int) -> None:
    _, received = run(lambda self: self.wfile.write(self.rfile.readline()), wbufsize=wbufsize)
    assert received == b"line\n"


def test_stream_handler_respects_its_class_settings() -> None:
    seen = []

    def handle(self: Any) -> None:
        self.wfile.write(self.rfile.readline())
        seen.append((self.request.gettimeout(), self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))

    run(handle, timeout=5, disable_nagle_algorithm=True)
    run(handle)
    assert seen == [(5.0, 1), (None, 0)]


@pytest.mark.parametrize(("rbufsize", "kind"), [(-1, Reader), (100, Reader), (0, UnbufferedReader)])
def test_stream_handler_buffers_as_told(rbufsize: int, kind: Any) -> None:
    made, _ = run(lambda self: self.wfile.write(b"x"), rbufsize=rbufsize)
    assert isinstance(made.rfile, kind)
    assert made.rfile.closed


def test_stream_handler_that_closed_the_request_itself_finishes() -> None:
    def handle(self: Any) -> None:
        self.wfile.write(b"bye")
        self.request.close()

    _, received = run(handle, wbufsize=-1)
    assert received == b"bye"


def test_stream_handler_finishes_when_the_peer_is_gone() -> None:
    class Handler(StreamRequestHandler):
        wbufsize = -1

        def handle(self) -> None:
            self.wfile.write(b"x" * 100)
            socket.socket.shutdown(self.request, socket.SHUT_RDWR)

    with pair() as (ours, _):
        Handler(ours, None, None)


def test_stream_handler_of_something_else_is_the_standard_librarys() -> None:
    request = mock.Mock()
    request.makefile.return_value = io.BytesIO(b"line\n")
    lines = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            lines.append(self.rfile.readline())

    Handler(request, None, None)
    assert lines == [b"line\n"]


def test_datagram_handler_replies() -> None:
    class Handler(DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.read().upper())

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, socket.socket(type=socket.SOCK_DGRAM) as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.settimeout(10)
        Handler((b"hello", ours), theirs.getsockname(), None)
        assert theirs.recv(10) == b"HELLO"
