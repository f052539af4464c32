"""Unit tests of `moorage.socketserver.wfile`."""

import io
import socket
import threading

import pytest

from moorage.socketserver.wfile import Sink, Writer
from support.sockets import pair, read_all, shrink
from support.waiting import in_thread

LONG = bytes(300_000)


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_write_sends_at_once_and_all(timeout: float | None) -> None:
    with pair() as (ours, theirs):
        ours.settimeout(timeout)
        writer = Writer(ours, 30)
        assert writer.write(b"hello") == 5
        assert theirs.recv(10) == b"hello"
        with in_thread(lambda: read_all(theirs)) as reading:
            assert writer.write(memoryview(LONG)) == len(LONG)
            ours.shutdown(socket.SHUT_WR)
            assert reading.result() == LONG


def test_writer_is_the_file_that_programs_expect() -> None:
    with pair() as (ours, _):
        writer = Writer(ours, 30)
        assert isinstance(writer, io.BufferedIOBase)
        assert writer.writable()
        assert writer.fileno() == ours.fileno()


@pytest.mark.parametrize("timeout", [None, 0.02])
def test_peer_that_takes_no_byte_is_a_timeout(timeout: float | None) -> None:
    with pair() as (ours, theirs):
        shrink(ours, theirs)
        ours.settimeout(timeout)
        with pytest.raises(TimeoutError):
            Writer(ours, 0.02).write(bytes(10_000_000))


@pytest.mark.parametrize("timeout", [None, 0.1])
def test_peer_that_reads_slowly_is_not_cut(timeout: float | None) -> None:
    pause = threading.Event()

    def read_slowly(sock: socket.socket) -> int:
        received = 0
        while received < len(LONG):
            received += len(sock.recv(20_000))
            pause.wait(0.02)
        return received

    with pair("unix") as (ours, theirs):
        shrink(ours, theirs)
        ours.settimeout(timeout)
        with in_thread(lambda: read_slowly(theirs)) as reading:
            Writer(ours, 0.1).write(LONG)
            assert reading.result() == len(LONG)


def test_write_without_waiting_is_the_standard_librarys() -> None:
    with pair() as (ours, theirs):
        shrink(ours, theirs)
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            Writer(ours, 30).write(bytes(10_000_000))


def test_sink_under_a_buffer_keeps_the_socket_open_until_it_is_closed() -> None:
    with pair() as (ours, theirs):
        wfile = io.BufferedWriter(Sink(ours, 30), 100)
        assert wfile.writable()
        wfile.write(b"hello")
        ours.close()
        wfile.close()
        assert theirs.recv(10) == b"hello"
        assert ours.fileno() == -1
